package inbound

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// A query is rewritten for the key only where all upstreams read what is left as
// they would have read it beside what is gone. Upstreams differ:
//
//   - PHP and Express (qs) read the first 1,000 parameters and no more. So a query
//     with many of them stays as it is (rfc9111.ManyParameters);
//   - Go's net/url drops a parameter that cannot be decoded, or has a semicolon;
//     others read it, or take the semicolon for a separator (CVE-2021-23336);
//   - PHP turns spaces, dots and some brackets in names into underscores, and ends
//     a name at NUL; ASP.NET ignores case; brackets make one name of many for PHP,
//     Express and Rack;
//   - of parameters with one name some take the first, some the last, some all.
//
// FuzzQuery compares the rewritten query with the one that came, in the eyes of
// such parsers.

// Query says which parameters of the query belong to the key. At most one of
// Ignore and Only.
type Query struct {
	// Names of parameters, or prefixes of names with a * at the end, that
	// make no difference.
	Ignore []string `json:"ignore,omitempty"`

	// The only parameters that make a difference.
	Only []string `json:"only,omitempty"`

	// Whether the order of parameters makes no difference. Default: false.
	Sort bool `json:"sort,omitempty"`
}

// Check returns an error if an option has no effect.
func (q *Query) Check() error {
	switch {
	case q == nil:
		return nil
	case len(q.Ignore) > 0 && len(q.Only) > 0:
		return errors.New("query ignore and query only exclude each other: leave one of them out")
	}
	return checkNames("query", "=&;", slices.Concat(q.Ignore, q.Only))
}

// checkNames returns an error if a pattern of an option is that of no name, because
// characters are in it which no name has.
func checkNames(option, never string, patterns []string) error {
	for _, pattern := range patterns {
		name := strings.TrimSuffix(pattern, "*")
		if strings.Contains(name, "*") {
			return fmt.Errorf("%s %q: a star stands at the end, for all names that begin so, and nowhere else", option, pattern)
		}
		if i := strings.IndexAny(name, never); i >= 0 {
			return fmt.Errorf("%s %q: no name has %q in it: write names without values, and spaces between them", option, pattern, name[i:i+1])
		}
	}
	return nil
}

// Normalize drops and sorts parameters of the query, and leaves what remains
// byte for byte. It only ever makes a target shorter by dropping parameters.
func (q *Query) Normalize(uri string) string {
	path, query, ok := strings.Cut(uri, "?")
	if !ok || rfc9111.ManyParameters(query) {
		return uri
	}
	params := strings.Split(query, "&")
	params = slices.DeleteFunc(params, q.drops)
	if q.Sort && !slices.ContainsFunc(params, func(param string) bool { return !sortable(param) }) {
		slices.SortStableFunc(params, func(a, b string) int { return strings.Compare(sortedAs(a), sortedAs(b)) })
	}
	if len(params) == 0 {
		return path
	}
	return path + "?" + strings.Join(params, "&")
}

// drops reports whether a parameter makes no difference. It does wherever the
// upstream may read something else than we do: in what can't be decoded or is no
// UTF-8, where a semicolon or an encoded ampersand begins another parameter for
// some, and, since only makes little of much, in names that some servers change:
// white space, dots, brackets, letters of the other case.
func (q *Query) drops(param string) bool {
	plain, err := url.QueryUnescape(param)
	if err != nil || !utf8.ValidString(plain) || strings.ContainsAny(plain, "&;\x00") {
		return false
	}
	if endsLater(plain) {
		return false
	}
	name := nameOf(param)
	if len(q.Only) == 0 {
		return slices.ContainsFunc(q.Ignore, func(pattern string) bool { return matchName(pattern, name) })
	}
	if strings.ContainsFunc(name, func(c rune) bool { return c != '_' && c != '-' && !isAlphanumeric(c) }) {
		return false
	}
	return !slices.ContainsFunc(q.Only, func(pattern string) bool {
		return matchName(strings.ToLower(pattern), strings.ToLower(name))
	})
}

// nameOf returns the decoded name of a parameter, "" if it can't be decoded.
func nameOf(param string) string {
	name, _, _ := strings.Cut(param, "=")
	name, _ = url.QueryUnescape(name)
	return name
}

// endsLater reports whether the name of a decoded parameter ends at a later "=" for
// some: Express takes the one after a bracket.
func endsLater(param string) bool {
	_, value, _ := strings.Cut(param, "=")
	return strings.Contains(value, "]=")
}

// sortable reports whether it is certain which name a parameter has for any
// upstream, but for case and brackets.
func sortable(param string) bool {
	plain, err := url.QueryUnescape(param)
	return err == nil && !strings.ContainsAny(plain, "&;\x00") && !endsLater(plain) && sortableName.MatchString(nameOf(param))
}

var sortableName = regexp.MustCompile(`^([\w-]+(\[[\w-]*\])*)?$`)

// sortedAs returns what a sortable parameter is sorted by. Parameters that may have
// one name for some upstream keep their order.
func sortedAs(param string) string {
	base, _, _ := strings.Cut(nameOf(param), "[")
	return strings.ToLower(base)
}

func isAlphanumeric(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func matchName(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
