package rfc9111

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
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
		{"all", []string{"params"}, &SearchVariance{All: true}},
		{"params, false", []string{"params=?0"}, nil},
		{"params, false, and key-order", []string{"params=?0, key-order"}, &SearchVariance{KeyOrder: true}},
		{"some", []string{`params=("b" "a" "b")`}, &SearchVariance{Params: []string{"a", "b"}}},
		{"none of them", []string{`params=()`}, nil},
		{"escaped names", []string{`params=("a%20b" "c+d" "%" "%e4%zz")`}, &SearchVariance{Params: []string{"%", "a b", "c d", "\xe4%zz"}}},
		{"no strings", []string{`params=(a)`}, nil},
		{"a string", []string{`params="a"`}, nil},
		{"all but some", []string{`params, except=("a")`}, &SearchVariance{All: true, Except: []string{"a"}}},
		{"except before params", []string{`except=("a")`, "params"}, &SearchVariance{All: true, Except: []string{"a"}}},
		{"all but none", []string{`params, except=()`}, &SearchVariance{All: true}},
		{"except without params", []string{`except=("a")`}, nil},
		{"except beside some", []string{`params=("b"), except=("a")`}, nil},
		{"except, no list", []string{`params, except`}, nil},
		{"except, no strings", []string{`params, except=(1)`}, nil},
		{"what is not known", []string{`params, other=5`}, &SearchVariance{All: true}},
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
		{"all", "params", "a=1", "b=2", true},
		{"all but one", `params, except=("a")`, "a=1&b=2", "a=1", true},
		{"all but one, that one", `params, except=("a")`, "a=1&b=2", "a=2&b=2", false},
		{"escapes and pluses", "key-order", "a=%20b", "a=+b", true},
		{"empty pairs", "key-order", "&a=1&&", "a=1", true},
		{"no value and an empty one", "key-order", "a", "a=", true},
		{"what is no escape", "key-order", "a=%zz", "a=%25zz", true},
		{"an escape in upper case", "key-order", "a=%zz%C3", "a=%zz%c3", true},
		{"a plus beside what is no escape", "key-order", "a=%zz+b", "a=%zz%20b", true},
		{"every kind of digit beside what is no escape", "key-order", "a=%zz%09%90%af%FA", "a=%25zz%09%90%AF%fa", true},
		{"a cut escape", "key-order", "a=%4", "a=4", false},
		{"bytes that are no text", "key-order", "a=%ff", "a=%fe", false},
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
	if of("") != "" || of("params, key-order") != of("key-order, params, other") || of(`params=("a" "b")`) != of(`params=("b" "a")`) {
		t.Error("the same differs")
	}
	seen := make(map[string]string)
	for _, field := range []string{"", "key-order", "params", "params, key-order", `params=("a")`, `params=("a" "b")`, `params=("ab")`, `params, except=("a")`} {
		if other, dup := seen[of(field)]; dup {
			t.Errorf("%q is as %q", field, other)
		}
		seen[of(field)] = field
	}
}

func FuzzSearchVariance(f *testing.F) {
	f.Add("key-order", "a=1&b=2")
	f.Add(`params=("a%20b" "%")`, "a+b=1&%=2&%zz")
	f.Add(`params, except=("a")`, "a=%26&&=")
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
			if encoded := strings.NewReplacer("%", "%25", "&", "%26", "=", "%3D", "+", "%2B").Replace(name); v.Normal(query+"&"+encoded+"=x") != normal {
				t.Errorf("%q makes a difference under %q", name, field)
			}
		}
	})
}
