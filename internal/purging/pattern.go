package purging

import (
	"regexp/syntax"
	"slices"
	"strings"
)

// Plugins that were made for Varnish purge by regular expressions. Those that name
// a few strings, or beginnings of strings, are understood as what they name.

// What stands in an expanded expression for what is no text. No field of a request
// has these bytes (RFC 9110 §5.5).
const (
	textBegin = "\x02"
	textEnd   = "\x03"
	anyText   = "\x04"
)

// Limits of what an expression may name.
const (
	maxExpression     = 32 << 10 // bytes; plugins send 8 KiB at most
	maxExpansions     = 1 << 13
	maxExpansionBytes = 1 << 20
	maxClass          = 64 // runes in a class of characters
)

// expand returns all strings that an expression names. It fails if there are too
// many, or no end of them, as of [0-9]+.
func expand(expression string) ([]string, error) {
	if len(expression) > maxExpression {
		return nil, Malformed("a regular expression of %d bytes is too long: at most %d", len(expression), maxExpression)
	}
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, Malformed("%.200q is no regular expression: %v", expression, err)
	}
	all, ok := expandNode(re)
	if !ok {
		return nil, Unsupported("the regular expression %.200q cannot be purged by: only literal texts and alternatives of them, and .* at the end of a URL", expression)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func expandNode(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpLiteral:
		return []string{string(re.Rune)}, re.Flags&syntax.FoldCase == 0
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return []string{"."}, true // nobody escapes the dots of hosts and file names
	case syntax.OpBeginLine, syntax.OpBeginText:
		return []string{textBegin}, true
	case syntax.OpEndLine, syntax.OpEndText:
		return []string{textEnd}, true
	case syntax.OpCharClass:
		return expandClass(re.Rune)
	case syntax.OpCapture:
		return expandNode(re.Sub[0])
	case syntax.OpStar, syntax.OpPlus:
		sub := re.Sub[0].Op
		return []string{anyText}, sub == syntax.OpAnyChar || sub == syntax.OpAnyCharNotNL
	case syntax.OpQuest:
		all, ok := expandNode(re.Sub[0])
		return append(all, ""), ok
	case syntax.OpAlternate:
		return expandAlternatives(re.Sub)
	case syntax.OpConcat:
		return expandSequence(re.Sub)
	}
	return nil, false
}

func expandClass(ranges []rune) ([]string, bool) {
	var all []string
	for i := 0; i+1 < len(ranges); i += 2 {
		if int(ranges[i+1]-ranges[i])+len(all) >= maxClass {
			return nil, false
		}
		for c := ranges[i]; c <= ranges[i+1]; c++ {
			all = append(all, string(c))
		}
	}
	return all, true
}

func expandAlternatives(subs []*syntax.Regexp) (all []string, ok bool) {
	for _, sub := range subs {
		some, ok := expandNode(sub)
		if all = append(all, some...); !ok || len(all) > maxExpansions {
			return nil, false
		}
	}
	return all, true
}

func expandSequence(subs []*syntax.Regexp) ([]string, bool) {
	all := []string{""}
	for _, sub := range subs {
		some, ok := expandNode(sub)
		if !ok || len(all)*len(some) > maxExpansions {
			return nil, false
		}
		longer, size := make([]string, 0, len(all)*len(some)), 0
		for _, begin := range all {
			for _, end := range some {
				if size += len(begin) + len(end); size > maxExpansionBytes {
					return nil, false
				}
				longer = append(longer, begin+end)
			}
		}
		all = longer
	}
	return all, true
}

// everything reports whether an expression matches whatever there is.
func everything(expression string) bool {
	switch strings.TrimSpace(expression) {
	case "", ".", "*", ".*", "^.*", ".*$", "^.*$", "(.*)", "^", ".+":
		return true
	}
	return false
}

// tagsOf returns the tags that an expression names, such as (^|,)(a|b)(,|$), or a
// list of tags.
func tagsOf(expression string) (tags []string, err error) {
	texts, err := expand(expression)
	if err != nil {
		return nil, err
	}
	const ends = textBegin + textEnd + " ,"
	for _, text := range texts {
		if text = strings.Trim(text, ends); strings.ContainsAny(text, textBegin+textEnd+anyText) {
			return nil, Unsupported("tags cannot be purged by the regular expression %.200q: tags are purged exactly, name each of them", expression)
		}
		tags = append(tags, text)
	}
	return tags, nil
}

// A urlSet is the URLs of a host that have a request target, or of which the target
// begins so.
type urlSet struct {
	target string
	whole  bool // only this target
}

// wholeHost reports whether these are all URLs of a host.
func (s urlSet) wholeHost() bool { return !s.whole && len(s.target) <= len("/") }

// urlSets returns what an expression for request targets names.
func urlSets(expression string) (sets []urlSet, err error) {
	if everything(expression) {
		return []urlSet{{}}, nil
	}
	texts, err := expand(expression)
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		target := strings.TrimLeft(text, textBegin)
		anchored := target != text
		ended := strings.HasSuffix(target, textEnd)
		target = strings.TrimRight(target, textEnd)
		open := strings.HasSuffix(target, anyText)
		target = strings.TrimRight(target, anyText)
		whole := ended && !open
		switch {
		case target == "" && !whole:
			return []urlSet{{}}, nil
		case !strings.HasPrefix(target, "/"), strings.ContainsAny(target, textBegin+textEnd+anyText), whole && !anchored:
			return nil, Unsupported("URLs cannot be purged by the regular expression %.200q: only by a beginning such as ^/shop/.*, or one URL such as ^/shop/page$", expression)
		}
		sets = append(sets, urlSet{target, whole})
	}
	return sets, nil
}

// targetSet returns what a request target names: itself, or if it ends in * or .*,
// all that begin so.
func targetSet(target string) (urlSet, error) {
	set := urlSet{target, true}
	for _, end := range []string{"(.*)$", ".*$", "(.*)", ".*"} {
		if begin, ok := strings.CutSuffix(target, end); ok {
			set = urlSet{begin, false}
			break
		}
	}
	path, query, _ := strings.Cut(set.target, "?")
	switch {
	case strings.Contains(set.target, ".*"), strings.ContainsAny(path, `\^|[]{}`), strings.ContainsAny(query, `\`):
		return set, Unsupported("%.200q looks like a regular expression: a URL is purged by itself, or by its beginning with .* or * at the end; a URL that has such characters is purged by POST /groupcache/purge or a route of groupcache_purge", target)
	case path != "" && !strings.HasPrefix(path, "/") && path != "*":
		return set, Malformed("%.200q is no path", target)
	}
	// A star within the path may be a pattern's, or stand for itself: what begins
	// with the text before it is both. A query has stars of its own.
	if begin, _, ok := strings.Cut(path, "*"); ok {
		return urlSet{begin, false}, nil
	}
	if begin, ok := strings.CutSuffix(set.target, "*"); ok {
		return urlSet{begin, false}, nil
	}
	return set, nil
}
