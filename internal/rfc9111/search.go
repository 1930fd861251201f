package rfc9111

import (
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dunglas/httpsfv"
)

// A SearchVariance says which differences between the queries of two URLs make
// none to the response (No-Vary-Search, draft-ietf-httpbis-no-vary-search-10 §4:
// a URL variation config). Nil stands for a response that says nothing: each
// difference counts.
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
// of structured fields (draft-ietf-httpbis-no-vary-search-10 §3 and §5.1, RFC
// 9651 §3.2). A field that is no dictionary, a member of the wrong type, and
// params beside except make the field count as absent; other members are passed
// over. Nil also stands for a field without effect.
//
// Earlier drafts had params as a boolean, alone or beside except. The approved
// form has not, so such a field counts as absent: that costs hits, and never
// answers a request with another one's response.
func ParseSearchVariance(response http.Header) *SearchVariance {
	lines := response["No-Vary-Search"]
	if len(lines) == 0 || len(strings.Join(lines, ",")) > maxSearchVariance {
		return nil
	}
	dictionary, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return nil
	}
	keyOrder, ordered := dictionary.Get("key-order")
	params, some := dictionary.Get("params")
	except, rest := dictionary.Get("except")
	v, ok := new(SearchVariance), true
	if ordered {
		v.KeyOrder, ok = boolean(keyOrder)
	}
	switch {
	case some && rest:
		return nil
	case some && ok:
		v.Params, ok = parameterNames(params)
	case rest && ok:
		v.All = true
		v.Except, ok = parameterNames(except)
	}
	if !ok || !v.KeyOrder && !v.All && len(v.Params) == 0 {
		return nil
	}
	return v
}

func boolean(member httpsfv.Member) (value, ok bool) {
	item, _ := member.(httpsfv.Item)
	value, ok = item.Value.(bool)
	return value, ok
}

// parameterNames reads a list of names, each as it would stand in a query (§5.3).
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

// maxParameters is how many parameters a query may have to be rewritten for the
// key. It is well below what upstreams read at most: 1,000 parameters are the
// default limit of PHP and of Express.
const maxParameters = 64

// ManyParameters reports whether a query has so many parameters that upstreams may
// not read all of them: then those that make no difference push out others, and
// none may be left out of a key. Some servers take semicolons for separators, too.
func ManyParameters(query string) bool {
	return strings.Count(query, "&")+strings.Count(query, ";") >= maxParameters
}

// Stays reports whether an updated header says the same of queries as v, which a key was
// made of; nil: no key was.
func (v *SearchVariance) Stays(updated http.Header) bool {
	return v == nil || ParseSearchVariance(updated).String() == v.String()
}

// Normal returns the same for two queries that are equivalent under v (§6): what
// is left of their parameters, names and values length-prefixed. It is no query.
//
// The section compares what is left after decoding UTF-8, where all bytes that
// are none become one and the same character. Here they are compared as they
// are, because two words of an older encoding are not one to the server that
// reads it. So fewer queries are equivalent, which §7 leaves to a cache. For the
// same reason none is that has ManyParameters; it is for the caller to see.
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
		slices.SortStableFunc(left, func(a, b parameter) int { return strings.Compare(sortedAs(a.name), sortedAs(b.name)) })
	}
	var b []byte
	for _, p := range left {
		b = appendCounted(appendCounted(b, p.name), p.value)
	}
	return string(b)
}

// Keeps reports whether Normal leaves nothing of a query out, and spells none of
// it in another way.
func (v *SearchVariance) Keeps(query string) bool {
	if query == "" || ManyParameters(query) {
		return true
	}
	if strings.ContainsAny(query, "%+") {
		return false
	}
	for pair := range strings.SplitSeq(query, "&") {
		if name, _, ok := strings.Cut(pair, "="); !ok || !v.counts(name) {
			return false
		}
	}
	return true
}

// counts reports whether a parameter makes a difference. One whose name is not
// UTF-8 does: which names it equals depends on how it is decoded.
func (v *SearchVariance) counts(name string) bool {
	if !utf8.ValidString(name) {
		return true
	}
	if v.All {
		return slices.Contains(v.Except, name)
	}
	return !slices.Contains(v.Params, name)
}

// sortedAs returns what a name is sorted by where the order of names makes no
// difference. Names that may be one after decoding keep their order.
func sortedAs(name string) string {
	if strings.ContainsRune(name, utf8.RuneError) { // or not UTF-8
		return string(utf8.RuneError)
	}
	return name
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
