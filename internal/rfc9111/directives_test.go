package rfc9111

import (
	"net/http"
	"reflect"
	"testing"
)

var broken = Delta{Set: true, Broken: true}

var responseDirectives = []struct {
	name  string
	lines []string
	want  ResponseDirectives
}{
	{"no field", nil, ResponseDirectives{}},
	{"empty line", []string{""}, ResponseDirectives{}},
	{"only separators", []string{" , ,,\t"}, ResponseDirectives{}},
	{"every flag", []string{"no-store, no-cache, private, public, must-revalidate, proxy-revalidate, must-understand, immutable, no-transform"},
		ResponseDirectives{NoStore: true, NoCache: true, Private: true, Public: true, MustRevalidate: true,
			ProxyRevalidate: true, MustUnderstand: true, Immutable: true, NoTransform: true}},
	{"every number", []string{"max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4"},
		ResponseDirectives{MaxAge: delta(1 * sec), SMaxAge: delta(2 * sec),
			StaleWhileRevalidate: delta(3 * sec), StaleIfError: delta(4 * sec)}},
	{"several lines", []string{"public", "max-age=5"}, ResponseDirectives{Public: true, MaxAge: delta(5 * sec)}},
	{"mixed case", []string{"Max-Age=5, No-STORE"}, ResponseDirectives{MaxAge: delta(5 * sec), NoStore: true}},
	{"no space and tabs", []string{"max-age=5,no-store\t,\tpublic"}, ResponseDirectives{MaxAge: delta(5 * sec), NoStore: true, Public: true}},
	{"unknown ones", []string{`ext, ext2=7, ext3="max-age=9, no-store", max-age=5`}, ResponseDirectives{MaxAge: delta(5 * sec)}},
	{"name only begins alike", []string{"max-ages=5, xno-store, no-store2"}, ResponseDirectives{}},

	{"quoted number", []string{`max-age="5"`}, ResponseDirectives{MaxAge: delta(5 * sec)}},
	{"quoted number with escape", []string{`max-age="\5"`}, ResponseDirectives{MaxAge: delta(5 * sec)}},
	{"leading zeros", []string{"max-age=0005"}, ResponseDirectives{MaxAge: delta(5 * sec)}},
	{"single quotes", []string{"max-age='5'"}, ResponseDirectives{MaxAge: broken}},
	{"negative", []string{"max-age=-1"}, ResponseDirectives{MaxAge: broken}},
	{"plus sign", []string{"max-age=+1"}, ResponseDirectives{MaxAge: broken}},
	{"fraction", []string{"max-age=1.5"}, ResponseDirectives{MaxAge: broken}},
	{"hexadecimal", []string{"max-age=0x10"}, ResponseDirectives{MaxAge: broken}},
	{"colon is no digit", []string{"max-age=\":\""}, ResponseDirectives{MaxAge: broken}},
	{"no value", []string{"max-age"}, ResponseDirectives{MaxAge: broken}},
	{"empty value", []string{"max-age=, public"}, ResponseDirectives{MaxAge: broken, Public: true}},
	{"empty quotes", []string{`max-age=""`}, ResponseDirectives{MaxAge: broken}},
	{"space in quotes", []string{`max-age=" 5"`}, ResponseDirectives{MaxAge: broken}},
	{"something after the quotes", []string{`max-age="5"0, public`}, ResponseDirectives{MaxAge: broken, Public: true}},
	{"space before =", []string{"s-maxage =5"}, ResponseDirectives{SMaxAge: broken}},
	{"space after =", []string{"s-maxage= 5"}, ResponseDirectives{SMaxAge: broken}},
	{"space around = and quotes", []string{`s-maxage = "5"`}, ResponseDirectives{SMaxAge: broken}},
	{"space in the number", []string{"s-maxage=5 0"}, ResponseDirectives{SMaxAge: broken}},
	{"2^31 - 1", []string{"max-age=2147483647"}, ResponseDirectives{MaxAge: delta(2147483647 * sec)}},
	{"2^31 + 1", []string{"max-age=2147483649"}, ResponseDirectives{MaxAge: delta(maxDelta)}},
	{"overflows int64", []string{"max-age=18446744073709551617"}, ResponseDirectives{MaxAge: delta(maxDelta)}},
	{"forty digits", []string{"max-age=9999999999999999999999999999999999999999"}, ResponseDirectives{MaxAge: delta(maxDelta)}},
	{"two: smallest first", []string{"max-age=1, max-age=5"}, ResponseDirectives{MaxAge: delta(1 * sec)}},
	{"two: smallest last", []string{"max-age=5", "max-age=1"}, ResponseDirectives{MaxAge: delta(1 * sec)}},
	{"two: one broken", []string{"max-age=5, max-age=x"}, ResponseDirectives{MaxAge: broken}},
	{"two: broken first", []string{"s-maxage=x, s-maxage=5"}, ResponseDirectives{SMaxAge: broken}},
	{"two s-maxage", []string{"s-maxage=5, s-maxage=1"}, ResponseDirectives{SMaxAge: delta(1 * sec)}},
	{"two stale-while-revalidate", []string{"stale-while-revalidate=5, stale-while-revalidate=1"}, ResponseDirectives{StaleWhileRevalidate: delta(1 * sec)}},
	{"two stale-if-error", []string{"stale-if-error=5, stale-if-error=1"}, ResponseDirectives{StaleIfError: delta(1 * sec)}},

	{"qualified no-cache", []string{`no-cache="Set-Cookie"`}, ResponseDirectives{NoCacheFields: []string{"Set-Cookie"}}},
	{"qualified with a comma", []string{`no-cache="a, b", max-age=5`},
		ResponseDirectives{NoCacheFields: []string{"A", "B"}, MaxAge: delta(5 * sec)}},
	{"qualified names are no directives", []string{`private="no-store, x", max-age=5`},
		ResponseDirectives{PrivateFields: []string{"No-Store", "X"}, MaxAge: delta(5 * sec)}},
	{"qualified token", []string{"private=x-user"}, ResponseDirectives{PrivateFields: []string{"X-User"}}},
	{"qualified twice", []string{`private="a"`, `private="b"`}, ResponseDirectives{PrivateFields: []string{"A", "B"}}},
	{"qualified no-cache twice", []string{`no-cache="a"`, `no-cache="b"`}, ResponseDirectives{NoCacheFields: []string{"A", "B"}}},
	{"qualified and not", []string{`private="a", private`}, ResponseDirectives{Private: true, PrivateFields: []string{"A"}}},
	{"not and qualified", []string{`no-cache, no-cache="a"`}, ResponseDirectives{NoCache: true, NoCacheFields: []string{"A"}}},
	{"qualified, empty members", []string{`private=", a,,"`}, ResponseDirectives{PrivateFields: []string{"A"}}},
	{"qualified by nothing", []string{`private=""`}, ResponseDirectives{Private: true}},
	{"qualified by no names", []string{`no-cache="a b"`}, ResponseDirectives{NoCache: true}},
	{"qualified, quote left open", []string{`private="a, max-age=5`}, ResponseDirectives{Private: true, MaxAge: delta(5 * sec)}},
	{"qualified, something after", []string{`private="a"b`}, ResponseDirectives{Private: true}},
	{"qualified by Vary", []string{`no-cache="x, vary"`}, ResponseDirectives{NoCache: true}},
	{"qualified by Content-Encoding", []string{`private="content-encoding"`}, ResponseDirectives{Private: true}},
	{"qualified by Content-Type", []string{`private="content-type"`}, ResponseDirectives{Private: true}},
	{"qualified by Cache-Control", []string{`no-cache=cache-control`}, ResponseDirectives{NoCache: true}},
	{"qualified by Expires", []string{`no-cache="expires"`}, ResponseDirectives{NoCache: true}},
	{"qualified by Location", []string{`no-cache="location"`}, ResponseDirectives{NoCache: true}},

	{"space before the comma", []string{"max-age=5 \t, public ,"}, ResponseDirectives{MaxAge: delta(5 * sec), Public: true}},
	{"empty quotes end at once", []string{`ext="", no-store, ext=""`}, ResponseDirectives{NoStore: true}},
	{"open quote hides nothing", []string{`ext="a, no-store`}, ResponseDirectives{NoStore: true}},
	{"open quote ends with its line", []string{`ext="a`, `max-age=5, ext="`}, ResponseDirectives{MaxAge: delta(5 * sec)}},
	{"escaped quote", []string{`ext="a\", no-store", max-age=5`}, ResponseDirectives{MaxAge: delta(5 * sec)}},
	{"semicolons restrict", []string{"no-store; max-age=5"}, ResponseDirectives{NoStore: true}},
	{"semicolons permit nothing", []string{"public; max-age=5, immutable;, must-understand;"}, ResponseDirectives{}},
	{"flag with a value", []string{"no-store=0, public=1"}, ResponseDirectives{NoStore: true, Public: true}},
	{"flag with an empty value", []string{"no-store=, public="}, ResponseDirectives{NoStore: true}},
	{"no name", []string{`=5, "no-store", ;`}, ResponseDirectives{}},
}

func TestParseResponse(t *testing.T) {
	for _, tt := range responseDirectives {
		t.Run(tt.name, func(t *testing.T) {
			if got := ParseResponse(cacheControl(tt.lines...)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%q:\n got %+v\nwant %+v", tt.lines, got, tt.want)
			}
		})
	}
}

func TestParseRequest(t *testing.T) {
	tests := []struct {
		name string
		h    http.Header
		want RequestDirectives
	}{
		{"nothing", nil, RequestDirectives{}},
		{"every flag", cacheControl("no-store, no-cache, only-if-cached"), RequestDirectives{NoStore: true, NoCache: true, OnlyIfCached: true}},
		{"every number", cacheControl("max-age=1, min-fresh=2, max-stale=3", "stale-if-error=4"),
			RequestDirectives{MaxAge: delta(1 * sec), MinFresh: delta(2 * sec), MaxStale: delta(3 * sec), StaleIfError: delta(4 * sec)}},
		{"mixed case", cacheControl("NO-Cache"), RequestDirectives{NoCache: true}},
		{"no-cache with a value", cacheControl(`no-cache="x"`), RequestDirectives{NoCache: true}},
		{"broken max-age", cacheControl("max-age=x"), RequestDirectives{MaxAge: broken}},
		{"smallest max-age", cacheControl("max-age=5, max-age=1"), RequestDirectives{MaxAge: delta(1 * sec)}},
		{"smallest stale-if-error", cacheControl("stale-if-error=5, stale-if-error=1"), RequestDirectives{StaleIfError: delta(1 * sec)}},
		{"largest min-fresh first", cacheControl("min-fresh=5, min-fresh=1"), RequestDirectives{MinFresh: delta(5 * sec)}},
		{"largest min-fresh last", cacheControl("min-fresh=1, min-fresh=5"), RequestDirectives{MinFresh: delta(5 * sec)}},
		{"broken min-fresh", cacheControl("min-fresh=x, min-fresh=1"), RequestDirectives{MinFresh: Delta{D: maxDelta, Set: true, Broken: true}}},
		{"any stale", cacheControl("max-stale"), RequestDirectives{AnyStale: true}},
		{"a limit ends any stale", cacheControl("max-stale, max-stale=5"), RequestDirectives{MaxStale: delta(5 * sec)}},
		{"smallest max-stale", cacheControl("max-stale=5, max-stale=1"), RequestDirectives{MaxStale: delta(1 * sec)}},
		{"broken max-stale", cacheControl("max-stale=x"), RequestDirectives{MaxStale: broken}},
		{"empty max-stale", cacheControl("max-stale="), RequestDirectives{MaxStale: broken}},
		{"max-stale and something", cacheControl("max-stale;"), RequestDirectives{MaxStale: broken}},
		{"pragma", header("Pragma", "no-cache"), RequestDirectives{NoCache: true}},
		{"pragma in mixed case, last of a list", header("Pragma", "x", "Pragma", "a=b, No-Cache"), RequestDirectives{NoCache: true}},
		{"another pragma", header("Pragma", "no-store, cache"), RequestDirectives{}},
		{"pragma beside cache-control", header("Pragma", "no-cache", "Cache-Control", "max-age=5"), RequestDirectives{MaxAge: delta(5 * sec)}},
		{"pragma beside empty cache-control", header("Pragma", "no-cache", "Cache-Control", ""), RequestDirectives{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ParseRequest(tt.h); got != tt.want {
				t.Errorf("%v:\n got %+v\nwant %+v", tt.h, got, tt.want)
			}
		})
	}
}

func TestParseRequestDoesNotAllocate(t *testing.T) {
	for _, h := range []http.Header{
		header("Accept", "text/html", "User-Agent", "x"),
		cacheControl("no-cache, max-age=0"),
	} {
		if n := testing.AllocsPerRun(100, func() { ParseRequest(h) }); n != 0 {
			t.Errorf("%v: %v allocations", h, n)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	h := header("Accept", "text/html", "User-Agent", "x")
	b.ReportAllocs()
	for b.Loop() {
		ParseRequest(h)
	}
}
