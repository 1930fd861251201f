package rfc9111

import (
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/dunglas/httpsfv"
)

// A SearchVariance says which differences between the queries of two URLs make
// none to the response (No-Vary-Search, draft-ietf-httpbis-no-vary-search). Nil
// stands for a response that says nothing: each difference counts.
type SearchVariance struct {
	// KeyOrder: the order of parameters with different names makes none.
	KeyOrder bool
	// Params: these parameters make none; with All, all but Except.
	Params, Except []string
	All            bool
}

// maxSearchVariance bounds the field that is followed, in bytes.
const maxSearchVariance = 1024

// ParseSearchVariance reads the No-Vary-Search field of a response: a dictionary
// of structured fields. What cannot be read in all its parts, or has no effect,
// is nil.
func ParseSearchVariance(response http.Header) *SearchVariance {
	lines := response["No-Vary-Search"]
	if len(lines) == 0 || len(strings.Join(lines, ",")) > maxSearchVariance {
		return nil
	}
	dictionary, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return nil
	}
	v := new(SearchVariance)
	for _, name := range dictionary.Names() {
		member, _ := dictionary.Get(name)
		ok := true
		switch name {
		case "key-order":
			v.KeyOrder, ok = boolean(member)
		case "params":
			if v.All, ok = boolean(member); !ok {
				v.Params, ok = parameterNames(member)
			}
		case "except":
			v.Except, ok = parameterNames(member)
		}
		if !ok {
			return nil
		}
	}
	if len(v.Except) > 0 && !v.All || !v.KeyOrder && !v.All && len(v.Params) == 0 {
		return nil
	}
	return v
}

func boolean(member httpsfv.Member) (value, ok bool) {
	item, _ := member.(httpsfv.Item)
	value, ok = item.Value.(bool)
	return value, ok
}

// parameterNames reads a list of names, each as it would stand in a query.
func parameterNames(member httpsfv.Member) ([]string, bool) {
	list, ok := member.(httpsfv.InnerList)
	if !ok {
		return nil, false
	}
	var names []string
	for _, item := range list.Items {
		name, ok := item.Value.(string)
		if !ok {
			return nil, false
		}
		names = append(names, formDecode(name))
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// String returns the same for two variances that say the same, "" for nil.
func (v *SearchVariance) String() string {
	if v == nil {
		return ""
	}
	var b []byte
	b = append(b, flag(v.KeyOrder), flag(v.All))
	for _, names := range [][]string{v.Params, v.Except} {
		b = binary.AppendUvarint(b, uint64(len(names)))
		for _, name := range names {
			b = appendCounted(b, name)
		}
	}
	return string(b)
}

func flag(set bool) byte {
	if set {
		return '1'
	}
	return '0'
}

func appendCounted(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Normal returns the same for two queries that are equivalent under v: what is
// left of their parameters, names and values length-prefixed. It is no query.
func (v *SearchVariance) Normal(query string) string {
	type parameter struct{ name, value string }
	var left []parameter
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		p := parameter{formDecode(name), formDecode(value)}
		if v.counts(p.name) {
			left = append(left, p)
		}
	}
	if v.KeyOrder {
		slices.SortStableFunc(left, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	}
	var b []byte
	for _, p := range left {
		b = appendCounted(appendCounted(b, p.name), p.value)
	}
	return string(b)
}

func (v *SearchVariance) counts(name string) bool {
	if v.All {
		return slices.Contains(v.Except, name)
	}
	return !slices.Contains(v.Params, name)
}

// formDecode decodes as application/x-www-form-urlencoded does. What is no
// escape stands for itself.
func formDecode(s string) string {
	if !strings.ContainsAny(s, "+%") {
		return s
	}
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b.WriteByte(' ')
		case s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
			b.WriteByte(byte(unhex(s[i+1])<<4 | unhex(s[i+2])))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
