package inbound

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A parser is how one kind of upstream reads a query: the values of each name, in
// order. Of names that it takes apart, such as a[x], it returns the first part, and
// the rest with each value.
type parser func(query string) map[string][]string

var parsers = map[string]parser{
	"Go": func(query string) map[string][]string {
		all, _ := url.ParseQuery(query) // what it can read, as FormValue does
		return all
	},
	"WHATWG": func(query string) map[string][]string {
		all := map[string][]string{}
		for pair := range strings.SplitSeq(query, "&") {
			if name, value, _ := strings.Cut(pair, "="); pair != "" {
				name = strings.ToValidUTF8(decoded(name), "\ufffd")
				all[name] = append(all[name], strings.ToValidUTF8(decoded(value), "\ufffd"))
			}
		}
		return all
	},
	"PHP":        readAsPHP,
	"Express":    readAsExpress,
	"ASP.NET":    readWithoutCase,
	"semicolons": func(query string) map[string][]string { return readAsPHP(strings.ReplaceAll(query, ";", "&")) },
}

// readAsPHP is php_register_variable_ex and max_input_vars.
func readAsPHP(query string) map[string][]string {
	all, count := map[string][]string{}, 0
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		if count++; count > 1000 {
			break
		}
		name, value, _ := strings.Cut(pair, "=")
		name, _, _ = strings.Cut(strings.TrimLeft(decoded(name), " "), "\x00")
		base, index, array := strings.Cut(name, "[")
		base = strings.NewReplacer(" ", "_", ".", "_").Replace(base)
		if array && (base == "" || !strings.Contains(index, "]")) {
			base, index = base+"_"+index, ""
		}
		if base != "" {
			all[base] = append(all[base], index+"="+decoded(value))
		}
	}
	return all
}

// readAsExpress is qs with its defaults, as far as names and limits go.
func readAsExpress(query string) map[string][]string {
	all := map[string][]string{}
	query = strings.NewReplacer("%5B", "[", "%5b", "[", "%5D", "]", "%5d", "]").Replace(query)
	for i, pair := range strings.Split(query, "&") {
		if i == 1000 {
			break
		}
		end := strings.Index(pair, "]=") + 1
		if end == 0 {
			end = strings.IndexByte(pair+"=", '=')
		}
		name, value := pair[:end], strings.TrimPrefix(pair[end:], "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if base, index, _ := strings.Cut(name, "["); base != "" {
			all[base] = append(all[base], index+"="+decoded(value))
		}
	}
	return all
}

func readWithoutCase(query string) map[string][]string {
	all := map[string][]string{}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name = strings.ToLower(decoded(name))
		all[name] = append(all[name], decoded(value))
	}
	return all
}

var escaped = regexp.MustCompile(`\+|%[0-9a-fA-F]{2}`)

func decoded(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(code string) string {
		plain, _ := url.QueryUnescape(code) // never fails
		return plain
	})
}

var rewritings = []*Query{
	{Ignore: []string{"utm_*", "x"}}, {Only: []string{"id", "p_*"}}, {Sort: true}, {Ignore: []string{"utm_*", "x"}, Sort: true},
}

// counting returns what of a read query makes a difference by the options. An empty
// parameter is none.
func (q *Query) counting(read map[string][]string) map[string][]string {
	delete(read, "")
	maps.DeleteFunc(read, func(name string, _ []string) bool {
		matches := func(pattern string) bool { return matchName(pattern, strings.ToLower(name)) }
		return slices.ContainsFunc(q.Ignore, matches) || len(q.Only) > 0 && !slices.ContainsFunc(q.Only, matches)
	})
	return read
}

// FuzzQuery looks at a query, and at what becomes of it for the key, in the eyes of
// upstreams: what makes a difference must read the same.
func FuzzQuery(f *testing.F) {
	many := strings.Repeat("utm_a&", 1000)
	for _, query := range []string{
		"", "&", "a=1&id=2&utm_a=3", "id=1&id=2&a", "b&a=2&a=1", "a.b=1&a_b=2&a+b=3", "a[x]=1&a=2&a[]=3", "a[=1&a_=2", "A=1&a=2&B",
		many + "id=7", strings.Repeat("x&", 63) + "id=7", strings.Repeat("x&", 64) + "id=7", strings.Repeat(";", 999) + "&x&id=7",
		"utm_a=%zz&id=1", "x;id=1", "x%3Bid=1", "x=%26id=1", "x%00=1&id", "x=a]=b&id", "%78=1", "id%5B%5D=1&x", "z=1;a=2&a=3", "b=%zz&a",
	} {
		for i := range rewritings {
			f.Add(uint8(i), query)
		}
	}
	f.Fuzz(func(t *testing.T, options uint8, query string) {
		q := rewritings[int(options)%len(rewritings)]
		_, rewritten, _ := strings.Cut(q.Normalize("/?"+query), "?")
		for name, read := range parsers {
			was, is := q.counting(read(query)), q.counting(read(rewritten))
			if !maps.EqualFunc(was, is, slices.Equal) {
				t.Errorf("%+v: %q became %q; %s read %q, and now %q", *q, query, rewritten, name, was, is)
			}
		}
		if again := q.Normalize("/?" + rewritten); rewritten != "" && again != "/?"+rewritten {
			t.Errorf("%+v: %q became %q, and then %q", *q, query, rewritten, again)
		}
	})
}

func TestQueryNormalisation(t *testing.T) {
	for _, test := range []struct {
		q         Query
		uri, want string
	}{
		{Query{}, "/a?b=1&a=2", "/a?b=1&a=2"},
		{Query{Sort: true}, "/a?b=1&a=2&a=1", "/a?a=2&a=1&b=1"},
		{Query{Ignore: []string{"utm_*", "fbclid"}}, "/a?utm_source=x&b=1&fbclid=2&utm=3", "/a?b=1&utm=3"},
		{Query{Ignore: []string{"a b"}}, "/a?a+b=1&a%20b=2&c", "/a?c"},
		{Query{Ignore: []string{"*"}}, "/a?x=1", "/a"},
		{Query{Only: []string{"id"}}, "/a?x=1&id=2&y", "/a?id=2"},
		{Query{Only: []string{"id"}}, "/a?x=1", "/a"},
		{Query{Only: []string{"id"}}, "/a", "/a"},
		{Query{Ignore: []string{"x"}}, "/a?%zz=1&x=1", "/a?%zz=1"},
	} {
		if got := test.q.Normalize(test.uri); got != test.want {
			t.Errorf("%+v: %s became %s, want %s", test.q, test.uri, got, test.want)
		}
	}
}

func TestQueryOptionsKeepWhatUpstreamMayReadOtherwise(t *testing.T) {
	ignore, only := &Query{Ignore: []string{"utm_*", "x"}}, &Query{Only: []string{"id", "p_*"}}
	for _, tt := range []struct {
		q        *Query
		uri, was string
	}{
		{ignore, "/?a=1&utm_a=2&x", "/?a=1"},
		{ignore, "/?%78=1&%75tm_a", "/"},
		{ignore, "/?a=1&utm_a=2;a=3", "/?a=1&utm_a=2;a=3"},
		{ignore, "/?utm_%zz=1", "/?utm_%zz=1"},
		{ignore, "/?X=1", "/?X=1"},
		{only, "/?id=1&z=2&p_a=3", "/?id=1&p_a=3"},
		{only, "/?ID=1", "/?ID=1"},
		{only, "/?z=1;id=2", "/?z=1;id=2"},
		{only, "/?+id=1", "/?+id=1"},
		{only, "/?id[]=1&i%64%00=2", "/?id[]=1&i%64%00=2"},
		{only, "/?p.a=1", "/?p.a=1"},
	} {
		if got := tt.q.Normalize(tt.uri); got != tt.was {
			t.Errorf("%+v: %s became %s, not %s", *tt.q, tt.uri, got, tt.was)
		}
	}
}
