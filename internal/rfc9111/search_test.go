package rfc9111

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseSearchVariance(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
		want  *SearchVariance
	}{
		{"none", nil, nil},
		{"empty", []string{""}, nil},
		{"key-order", []string{"key-order"}, &SearchVariance{KeyOrder: true}},
		{"key-order, true", []string{"key-order=?1"}, &SearchVariance{KeyOrder: true}},
		{"key-order, false", []string{"key-order=?0"}, nil},
		{"key-order, no boolean", []string{"key-order=1, params"}, nil},
		{"key-order, a list", []string{`key-order=("a"), params`}, nil},
		{"all, as in earlier drafts", []string{"params"}, nil},
		{"all but some, as in earlier drafts", []string{`params, except=("a")`}, nil},
		{"params, false, and key-order", []string{"params=?0, key-order"}, nil},
		{"some", []string{`params=("b" "a" "b")`}, &SearchVariance{Params: []string{"a", "b"}}},
		{"none of them", []string{`params=()`}, nil},
		{"escaped names", []string{`params=("a%20b" "c+d" "%" "%e4%zz")`}, &SearchVariance{Params: []string{"%", "a b", "c d", "\xe4%zz"}}},
		{"no strings", []string{`params=(a)`}, nil},
		{"a string", []string{`params="a"`}, nil},
		{"all but some", []string{`except=("b" "a" "b")`}, &SearchVariance{All: true, Except: []string{"a", "b"}}},
		{"all but one, and key-order", []string{`except=("a")`, "key-order"}, &SearchVariance{All: true, KeyOrder: true, Except: []string{"a"}}},
		{"both, over two lines", []string{`except=("a")`, `params=("b")`}, nil},
		{"except, no list", []string{"except"}, nil},
		{"except, no list, beside key-order", []string{"except, key-order"}, nil},
		{"except, no strings", []string{`except=("a" 1)`}, nil},
		{"what is not known", []string{`key-order, other=5, when=@1659578233, text=%"f%c3%bc", list=(1 2)`}, &SearchVariance{KeyOrder: true}},
		{"what is not known, alone", []string{"other"}, nil},
		{"parameters of members", []string{`key-order;a=1, params=("a";b "c");d`}, &SearchVariance{KeyOrder: true, Params: []string{"a", "c"}}},
		{"the last one of a name counts", []string{`params=("a"), params=("b")`}, &SearchVariance{Params: []string{"b"}}},
		{"the last one of a name is of the wrong type", []string{`params=("a"), params`}, nil},
		{"upper case", []string{"Key-Order"}, nil},
		{"two lines", []string{"key-order", `params=("a")`}, &SearchVariance{KeyOrder: true, Params: []string{"a"}}},
		{"broken", []string{`params=("a"`}, nil},
		{"too long", []string{`params=("` + strings.Repeat("a", maxSearchVariance-10) + `")`}, nil},
		{"just not too long", []string{`params=("` + strings.Repeat("a", maxSearchVariance-11) + `")`}, &SearchVariance{Params: []string{strings.Repeat("a", maxSearchVariance-11)}}},
		{"too many lines", make([]string, maxSearchVariance+1), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ParseSearchVariance(http.Header{"No-Vary-Search": tt.lines}); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// The examples of draft-ietf-httpbis-no-vary-search-10 §1, §5.2.1 and §5.3.1.
func TestSearchVarianceExamples(t *testing.T) {
	for field, want := range map[string]*SearchVariance{
		"key-order": {KeyOrder: true},
		`params=("utm_source" "utm_medium" "utm_campaign")`: {Params: []string{"utm_campaign", "utm_medium", "utm_source"}},
		`except=("productId")`:                              {All: true, Except: []string{"productId"}},
		`params=("a")`:                                      {Params: []string{"a"}},
		`except=("x")`:                                      {All: true, Except: []string{"x"}},
		`params=()`:                                         nil,
		`except=()`:                                         {All: true},
		`key-order="not a boolean"`:                         nil,
		`params="not an inner list"`:                        nil,
		`params=(not-a-string)`:                             nil,
		`params=?0`:                                         nil,
		`params=?1`:                                         nil,
		`params=?1, except=("x")`:                           nil,
		`params=("a"), except=("x")`:                        nil,
		`params=(), except=()`:                              nil,
		`except="not an inner list"`:                        nil,
		`except=(not-a-string)`:                             nil,
		`except=?1`:                                         nil,
		`key-order=?1`:                                      {KeyOrder: true},
		`except=("x"), key-order`:                           {KeyOrder: true, All: true, Except: []string{"x"}},
		`key-order=?0`:                                      nil,
		`params=("%C3%A9+%E6%B0%97")`:                       {Params: []string{"é 気"}},
		`except=("%C3%A9+%E6%B0%97")`:                       {All: true, Except: []string{"é 気"}},
		`unknown-key`:                                       nil,
		`unknown-key, except=("x")`:                         {All: true, Except: []string{"x"}},
		`key-order, key-order=?0, x=1`:                      nil,
	} {
		if got := ParseSearchVariance(http.Header{"No-Vary-Search": {field}}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", field, got, want)
		}
	}
}

// The examples of draft-ietf-httpbis-no-vary-search-10 §6.1, and the URLs of
// §5.3.1 as they are sent. Of one example the cache makes less than it may.
func TestSearchVarianceExamplesOfQueries(t *testing.T) {
	ordered := ParseSearchVariance(http.Header{"No-Vary-Search": {"key-order"}})
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"", "", true},
		{"a=x", "%61=%78", true},
		{"a=é", "a=%C3%A9", true},
		{"a=%f6", "a=%ef%bf%bd", false}, // it may be another word in Latin-1
		{"a=x&&&&", "a=x", true},
		{"a=", "a", true},
		{"a=%20", "a= &", true},
		{"a=+", "a= &", true},
		{"a=b&&&c", "a=b&c=", true},
	} {
		if (ordered.Normal(tt.a) == ordered.Normal(tt.b)) != tt.same {
			t.Errorf("%q and %q: want the same: %v", tt.a, tt.b, tt.same)
		}
	}
	v := ParseSearchVariance(http.Header{"No-Vary-Search": {`params=("%C3%A9+%E6%B0%97")`}})
	for _, query := range []string{"é 気=1", "é+気=2", "%C3%A9%20気=3", "%C3%A9+%E6%B0%97=4"} {
		if v.Normal(query) != v.Normal("") {
			t.Errorf("%q makes a difference", query)
		}
	}
}

func TestSearchVarianceNormal(t *testing.T) {
	tests := []struct {
		name  string
		field string
		a, b  string
		same  bool
	}{
		{"order", "key-order", "a=1&b=2", "b=2&a=1", true},
		{"order, other values", "key-order", "a=1&b=2", "b=1&a=2", false},
		{"order of one name", "key-order", "a=1&a=2", "a=2&a=1", false},
		{"order of one name, kept", "key-order", "a=1&b&a=2", "b&a=1&a=2", true},
		{"order counts", `params=("x")`, "a=1&b=2", "b=2&a=1", false},
		{"one that makes no difference", `params=("x")`, "a=1&x=1", "x=2&a=1", true},
		{"it is there or not", `params=("x")`, "a=1&x=1", "a=1", true},
		{"nothing else is left", `params=("x")`, "x=1", "", true},
		{"another one", `params=("x")`, "a=1", "a=2", false},
		{"with an escaped name", `params=("x")`, "%78=1", "", true},
		{"a prefix is not the name", `params=("x")`, "xy=1", "", false},
		{"none counts", "except=()", "a=1", "b=2", true},
		{"all but one", `except=("a")`, "a=1&b=2", "a=1", true},
		{"all but one, that one", `except=("a")`, "a=1&b=2", "a=2&b=2", false},
		{"all but one, that one in front", `except=("a")`, "a=1", "b=2&a=1&c", true},
		{"all but two, their order counts", `except=("a" "b")`, "a=1&b=2", "b=2&a=1", false},
		{"all but two, in any order", `except=("a" "b"), key-order`, "a=1&b=2&c", "d&b=2&a=1", true},
		{"an escaped name in the list", `except=("%61")`, "a=1", "a=2", false},
		{"a list that has no such name", `except=("a")`, "A=1", "A=2", true},
		{"escapes and pluses", "key-order", "a=%20b", "a=+b", true},
		{"empty pairs", "key-order", "&a=1&&", "a=1", true},
		{"no value and an empty one", "key-order", "a", "a=", true},
		{"what is no escape", "key-order", "a=%zz", "a=%25zz", true},
		{"an escape in upper case", "key-order", "a=%zz%C3", "a=%zz%c3", true},
		{"a plus beside what is no escape", "key-order", "a=%zz+b", "a=%zz%20b", true},
		{"every kind of digit beside what is no escape", "key-order", "a=%zz%09%90%af%FA", "a=%25zz%09%90%AF%fa", true},
		{"a cut escape", "key-order", "a=%4", "a=4", false},
		{"bytes that are no text", "key-order", "a=%ff", "a=%fe", false},
		{"names that are no text count", "except=()", "%ff=1", "%fe=1", false},
		{"names that are no text, in the list", `params=("%ff")`, "%ff=1", "%ff=2", false},
		{"names that may be one keep their order", "key-order", "%ff=1&%fe=2", "%fe=2&%ff=1", false},
		{"a name that another may become keeps its order", "key-order", "%ef%bf%bd=1&%fe=2", "%fe=2&%ef%bf%bd=1", false},
		{"names that are no text, and one that is", "key-order", "%ff=1&a=2", "a=2&%ff=1", true},
		{"a value with an escaped ampersand", "key-order", "a=1%26b=2", "a=1&b=2", false},
		{"a name with an escaped equals sign", "key-order", "a%3d1=2", "a=1=2", false},
		{"a value with an equals sign", "key-order", "a=1=2", "a=1%3d2", true},
		{"lengths", "key-order", "ab=c", "a=bc", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := ParseSearchVariance(http.Header{"No-Vary-Search": {tt.field}})
			if a, b := v.Normal(tt.a), v.Normal(tt.b); (a == b) != tt.same {
				t.Errorf("%q and %q: want the same: %v", a, b, tt.same)
			}
		})
	}
}

func TestSearchVarianceString(t *testing.T) {
	of := func(field string) string {
		return ParseSearchVariance(http.Header{"No-Vary-Search": {field}}).String()
	}
	if of("") != "" || of("except=(), key-order") != of("key-order, except=(), other") || of(`params=("a" "b")`) != of(`params=("b" "a")`) {
		t.Error("the same differs")
	}
	seen := make(map[string]string)
	for _, field := range []string{"", "key-order", "except=()", "except=(), key-order", `params=("a")`, `params=("a" "b")`, `params=("ab")`, `except=("a")`} {
		if other, dup := seen[of(field)]; dup {
			t.Errorf("%q is as %q", field, other)
		}
		seen[of(field)] = field
	}
}

func FuzzSearchVariance(f *testing.F) {
	f.Add("key-order", "a=1&b=2")
	f.Add(`params=("a%20b" "%")`, "a+b=1&%=2&%zz")
	f.Add(`except=("a")`, "a=%26&&=")
	f.Add(`except=(), key-order`, "%ff=1&%fe=2&%ef%bf%bd")
	f.Add(`params=?1, except=("x")`, "x=1&y")
	f.Fuzz(func(t *testing.T, field, query string) {
		v := ParseSearchVariance(http.Header{"No-Vary-Search": {field}})
		if v == nil {
			return
		}
		normal := v.Normal(query)
		if v.Normal(query+"&") != normal || v.Normal("&"+query) != normal {
			t.Errorf("empty pairs change %q under %q", query, field)
		}
		for _, name := range v.Params {
			if !utf8.ValidString(name) {
				continue
			}
			if encoded := strings.NewReplacer("%", "%25", "&", "%26", "=", "%3D", "+", "%2B").Replace(name); v.Normal(query+"&"+encoded+"=x") != normal {
				t.Errorf("%q makes a difference under %q", name, field)
			}
		}
	})
}
