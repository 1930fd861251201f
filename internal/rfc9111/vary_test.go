package rfc9111

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestVaryNames(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
		want  []string
		star  bool
	}{
		{"none", nil, nil, false},
		{"empty", []string{"", " , "}, nil, false},
		{"one", []string{"accept"}, []string{"Accept"}, false},
		{"sorted, canonical, each once", []string{"user-AGENT,Accept", " accept ,Cookie"}, []string{"Accept", "Cookie", "User-Agent"}, false},
		{"every kind of byte", []string{"x!#$%&'*+-.^_`|~09az"}, []string{"X!#$%&'*+-.^_`|~09az"}, false},
		{"star", []string{"*"}, nil, true},
		{"star, first", []string{"*, Accept"}, nil, true},
		{"star, last of the last line", []string{"Accept", "Cookie, *"}, nil, true},
		{"no field name", []string{"Accept Encoding"}, nil, true},
		{"quoted", []string{`"Accept"`}, nil, true},
		{"broken byte", []string{"Accept\x00"}, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, star := VaryNames(http.Header{"Vary": tt.lines})
			if !slices.Equal(got, tt.want) || star != tt.star {
				t.Errorf("got %q %v, want %q %v", got, star, tt.want, tt.star)
			}
		})
	}
}

// lines are the lines of a field.
func lines(l ...string) []string { return l }

// fieldsToSelect are two requests' lines of a field, and whether they select the same.
var fieldsToSelect = []struct {
	name  string
	field string
	a, b  []string // field lines; nil: absent
	same  bool
}{
	{"the same", "X-A", lines("a"), lines("a"), true},
	{"another", "X-A", lines("a"), lines("b"), false},
	{"absent and absent", "X-A", nil, nil, true},
	{"absent and empty", "X-A", nil, lines(""), false},
	{"absent and a dash", "X-A", nil, lines("-"), false},
	{"case counts", "X-A", lines("a"), lines("A"), false},
	{"order counts", "X-A", lines("a, b"), lines("b, a"), false},
	{"two lines, one list", "X-A", lines("a", "b"), lines("a, b"), true},
	{"lines in another order", "X-A", lines("a", "b"), lines("b", "a"), false},
	{"empty line and none", "X-A", lines("a", ""), lines("a"), false},
	{"space around commas", "X-A", lines(" a ,\tb "), lines("a,b"), true},
	{"space elsewhere", "X-A", lines("a b"), lines("ab"), false},
	{"space around semicolons", "X-A", lines("a; b"), lines("a;b"), false},
	{"space and comma in quotes", "X-A", lines(`"a , b"`), lines(`"a, b"`), false},
	{"space after quotes", "X-A", lines(`"a" , b`), lines(`"a",b`), true},
	{"escaped quote", "X-A", lines(`"a\" , b"`), lines(`"a\", b"`), false},
	{"open quote", "X-A", lines(`"a , b`), lines(`"a, b`), false},
	{"name in lower case", "x-a", lines("a"), lines("b"), false},

	{"encodings: order, case, space", "Accept-Encoding", lines("gzip, br;q=0.5"), lines("BR ; Q=0.5", "GZIP"), true},
	{"encodings: first and last letter", "Accept-Encoding", lines("AZ"), lines("az"), true},
	{"encodings: commas stay", "Accept-Encoding", lines("a, bc"), lines("ab, c"), false},
	{"encodings: weight", "Accept-Encoding", lines("gzip;q=0.5"), lines("gzip;q=0.6"), false},
	{"encodings: refused", "Accept-Encoding", lines("gzip;q=0"), lines("gzip"), false},
	{"encodings: one more", "Accept-Encoding", lines("gzip, br"), lines("gzip"), false},
	{"encodings: many", "Accept-Encoding", lines("m,l,k,j,i,h,g,f,e,d,c,b,a"), lines("a,b,c,d,e,f,g,h,i,j,k,l,m"), true},
	{"encodings: a dozen", "Accept-Encoding", lines("l,k,j,i,h,g,f,e,d,c,b,a"), lines("a,b,c,d,e,f,g,h,i,j,k,l"), true},
	{"encodings: many, and long", "Accept-Encoding", lines(strings.Repeat("x", 300) + ",m,l,k,j,i,h,g,f,e,d,c,b,a"), lines("a,b,c,d,e,f,g,h,i,j,k,l,m," + strings.Repeat("x", 300)), true},
	{"encodings: twice", "Accept-Encoding", lines("gzip, gzip"), lines("gzip"), false},
	{"encodings: weights change sides", "Accept-Encoding", lines("gzip;q=0.5, br"), lines("gzip, br;q=0.5"), false},

	{"encodings: weight 0", "Accept-Encoding", lines("gzip;q=0, br"), lines("br, gzip;q=0"), true},
	{"encodings: weight 0.9", "Accept-Encoding", lines("gzip;q=0.9, br;q=1"), lines("br;q=1, gzip;q=0.9"), true},
	{"encodings: 1.001 keeps the order", "Accept-Encoding", lines("gzip;q=1.001, br"), lines("br, gzip;q=1.001"), false},
	{"encodings: no digit keeps the order", "Accept-Encoding", lines("gzip;q=0.9/, br"), lines("br, gzip;q=0.9/"), false},
	{"encodings: a letter keeps the order", "Accept-Encoding", lines("gzip;q=0.0a, br"), lines("br, gzip;q=0.0a"), false},
	{"encodings: thousandths", "Accept-Encoding", lines("gzip;q=0.501, br;q=0.502"), lines("br;q=0.502, gzip;q=0.501"), true},
	{"encodings: weight before another parameter", "Accept-Encoding", lines("gzip;q=0.1;x, br"), lines("br, gzip;q=0.1;x"), true},
	{"encodings: broken weight keeps the order", "Accept-Encoding", lines("gzip;q=x, br"), lines("br, gzip;q=x"), false},
	{"encodings: too large a weight keeps it", "Accept-Encoding", lines("gzip;q=1.5, br"), lines("br, gzip;q=1.5"), false},
	{"encodings: two weights keep it", "Accept-Encoding", lines("gzip;q=0.1;q=1, br"), lines("br, gzip;q=0.1;q=1"), false},
	{"encodings: long weight keeps it", "Accept-Encoding", lines("gzip;q=0.1234, br"), lines("br, gzip;q=0.1234"), false},
	{"encodings: no weight after q keeps it", "Accept-Encoding", lines("gzip;q=, br"), lines("br, gzip;q="), false},
	{"encodings: weight without its dot keeps it", "Accept-Encoding", lines("gzip;q=01, br"), lines("br, gzip;q=01"), false},
	{"encodings: two digits keep it", "Accept-Encoding", lines("gzip;q=2, br"), lines("br, gzip;q=2"), false},

	{"languages: case", "Accept-Language", lines("de-DE"), lines("de-de"), true},
	{"languages: order of weights", "Accept-Language", lines("de, en;q=0.5"), lines("en;q=0.5, de"), false},
	{"languages: order of equals", "Accept-Language", lines("de, en"), lines("en, de"), false},
	{"languages: order of equals with a weight", "Accept-Language", lines("fr, de;q=0.5, en;q=0.5"), lines("fr, en;q=0.5, de;q=0.5"), false},
	{"languages: space", "Accept-Language", lines("de , en ; q=0.5"), lines("de,en;q=0.5"), true},
	{"languages: two lines", "Accept-Language", lines("de", "en;q=0.5"), lines("de, en;q=0.5"), true},
	{"languages: 1 and 1.000", "Accept-Language", lines("de;q=1, en;q=1.000"), lines("de;q=1.000, en;q=1"), true},
	{"languages: no weight and 1", "Accept-Language", lines("de, en;q=1"), lines("de;q=1, en"), true},
	{"languages: no weight is not 0.999", "Accept-Language", lines("de, en;q=0.999"), lines("de, en"), false},
	{"languages: 0.5 and 0.500", "Accept-Language", lines("de;q=0.5"), lines("de;q=0.500"), true},
	{"languages: 0 and 0.0", "Accept-Language", lines("de;q=0"), lines("de;q=0.0"), true},
	{"languages: a weight of nothing", "Accept-Language", lines(";q=1"), lines(""), false},
	{"languages: a broken weight beside one that is not", "Accept-Language", lines("de;q=x, en;q=0.50"), lines("de;q=x, en;q=0.5"), true},
	{"languages: many", "Accept-Language", lines(strings.Repeat("de;q=0.50, ", 40) + "en"), lines(strings.Repeat("de;q=0.5,", 40) + "en"), true},

	{"types: case and space", "Accept", lines("Text/HTML ; Level=1 ,*/*;Q=0.10"), lines("text/html;level=1,*/*;q=0.1"), true},
	{"types: order of equals", "Accept", lines("application/json, text/html"), lines("text/html, application/json"), false},
	{"types: order of weights", "Accept", lines("text/html;q=0.5, text/plain"), lines("text/plain, text/html;q=0.5"), false},
	{"types: case of a parameter's value", "Accept", lines("a/b;profile=X"), lines("a/b;profile=x"), false},
	{"types: case of a parameter's name and of the next type", "Accept", lines("a/b;Profile=X,C/d"), lines("a/b;profile=X, c/D"), true},
	{"types: case after a value", "Accept", lines("a/b;p=X;Q=0.5"), lines("a/b;p=X;q=0.5"), true},
	{"types: an equals sign in a type", "Accept", lines("a=B/c"), lines("a=b/c"), true},
	{"types: what follows the weight is no parameter of the type", "Accept", lines("a/b;q=1;x=y"), lines("a/b;x=y"), false},
	{"types: the spelling of a weight that something follows", "Accept", lines("a/b;q=1.0;x=y"), lines("a/b;q=1;x=y"), true},
	{"types: what follows another weight", "Accept", lines("a/b;q=0.5;x=y"), lines("a/b;q=0.5;x=z"), false},
	{"types: case in quotes counts", "Accept", lines(`a/b;p="X"`), lines(`a/b;p="x"`), false},
	{"types: space in quotes counts", "Accept", lines(`a/b;p="x ; y"`), lines(`a/b;p="x;y"`), false},
	{"types: case after quotes", "Accept", lines(`a/b;p="X",C/d`), lines(`a/b;p="X",c/d`), true},
	{"types: quotes keep the spelling of weights", "Accept", lines(`a/b;p="x,y;q=0.10"`), lines(`a/b;p="x,y;q=0.1"`), false},
	{"types: quotes keep the order", "Accept", lines(`a/b;p="x,y;q=0.1,z", c/d`), lines(`a/b;p="x,z",c/d,y;q=0.1`), false},
	{"types: a quote at the start keeps the order", "Accept", lines(`"x;q=0.1,a"`), lines(`a","x;q=0.1`), false},
	{"encodings: empty first member", "Accept-Encoding", lines(",b,a"), lines(",a,b"), true},
	{"encodings: quotes keep the order", "Accept-Encoding", lines(`x="b,a,c"`), lines(`a,c",x="b`), false},
}

func TestSelecting(t *testing.T) {
	for _, tt := range fieldsToSelect {
		t.Run(tt.name, func(t *testing.T) {
			request := func(l []string) http.Header {
				h := http.Header{}
				for _, line := range l {
					h.Add(tt.field, line)
				}
				return h
			}
			a, b := Selecting([]string{tt.field}, request(tt.a)), Selecting([]string{tt.field}, request(tt.b))
			if (a == b) != tt.same {
				t.Errorf("%q and %q: same is %v, want %v", a, b, a == b, tt.same)
			}
		})
	}
}

func TestSelectingSeveral(t *testing.T) {
	names := []string{"A", "B"}
	seen := map[string]http.Header{}
	for _, h := range []http.Header{
		header(), header("A", ""), header("B", ""), header("A", "", "B", ""),
		header("A", "x"), header("B", "x"), header("A", "x", "B", ""), header("A", "", "B", "x"),
		header("A", "x1:B1:y"), header("A", "x", "B", "y"), header("A", "x-"), header("A", "1:B-"),
	} {
		s := Selecting(names, h)
		if other, ok := seen[s]; ok {
			t.Errorf("%v and %v both yield %q", h, other, s)
		}
		seen[s] = h
	}
	// What one value would have to look like to pass for two.
	for _, pair := range [][2]http.Header{
		{header("A", "B"), header("B", "B")},
		{header("A", "1", "B", "aaaaaaa1B0"), header("A", "1B10aaaaaaa", "B", "")},
		{header("A", "1", "B", "aaaaaaa1:B0:"), header("A", "1:B12:aaaaaa", "B", "")},
	} {
		if a := Selecting(names, pair[0]); a == Selecting(names, pair[1]) {
			t.Errorf("%v and %v both yield %q", pair[0], pair[1], a)
		}
	}
	if a, b := Selecting([]string{"A"}, header("A", "x")), Selecting([]string{"B"}, header("B", "x")); a == b {
		t.Errorf("two names yield %q", a)
	}
	long := strings.Repeat("x, y", 1000)
	if a, b := Selecting(names, header("A", long)), Selecting(names, header("A", long+"z")); a == b {
		t.Error("long values are cut")
	}
}

func TestSelectingAllocations(t *testing.T) {
	h := header("Accept-Encoding", "gzip, deflate, br, zstd", "Origin", "https://example.com")
	if n := testing.AllocsPerRun(100, func() { Selecting(nil, h) }); n != 0 {
		t.Errorf("no names: %v allocations", n)
	}
	names := []string{"Origin"}
	if n := testing.AllocsPerRun(100, func() { Selecting(names, h) }); n > 1 {
		t.Errorf("one plain field: %v allocations, want only the result", n)
	}
}

func BenchmarkSelecting(b *testing.B) {
	h := header("Accept-Encoding", "gzip, deflate, br, zstd", "Origin", "https://example.com",
		"Accept-Language", "de-DE,de;q=0.9,en;q=0.8")
	for _, names := range [][]string{{"Origin"}, {"Accept-Encoding"}, {"Accept-Encoding", "Accept-Language", "Origin"}} {
		b.Run(strings.Join(names, "+"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Selecting(names, h)
			}
		})
	}
}

func TestCodingServes(t *testing.T) {
	tests := []struct {
		name                       string
		coding, chosenFor, request string
		want                       bool
	}{
		{"the same", "gzip", "gzip", "gzip", true},
		{"one of many", "gzip", "gzip, deflate, br, zstd", "gzip", true},
		{"some of many, in another order", "br", "gzip, deflate, br, zstd", "zstd,br", true},
		{"in capitals", "GZIP", "gzip, br", "GZip", true},
		{"more than before", "gzip", "gzip", "gzip, br", false},
		{"not taken", "br", "gzip, br", "gzip", false},
		{"refused", "br", "br;q=0, gzip", "br;q=0", false},
		{"the very same, whatever it is", "a, b", `*, "x`, `*, "x`, true},
		{"the weight of the rest changed", "br", "gzip, br", "br, gzip;q=0.1", false},
		{"a weight", "gzip", "gzip;q=0.5, br;q=0.1", "gzip;q=0.5", true},
		{"plain for all that takes less", "", "gzip, br", "br", true},
		{"plain for who takes nothing", "", "gzip, br", "", true},
		{"identity for who takes nothing", "identity", "gzip, br", "", true},
		{"coded for who takes nothing", "gzip", "gzip", "", false},
		{"plain, for who takes more", "", "", "gzip", false},
		{"plain refused", "", "gzip, br, identity;q=0", "gzip, identity;q=0", false},
		{"plain refused before", "", "gzip, identity;q=0", "gzip", false},
		{"plain refused now", "", "gzip", "gzip, identity;q=0", false},
		{"plain with a weight", "", "identity;q=0.5, gzip", "identity;q=0.5", true},
		{"coded, and plain refused by both", "gzip", "gzip, br, identity;q=0", "gzip, identity;q=0", true},
		{"anything, before", "gzip", "*", "gzip", false},
		{"anything, now", "gzip", "gzip", "gzip, *", false},
		{"several codings", "gzip, br", "gzip, br, zstd", "gzip, br", false},
		{"quotes", "gzip", `gzip, "br"`, "gzip", false},
		{"empty members", "gzip", "gzip, , br", "gzip,,", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			form := func(s string) string { return AcceptEncoding(http.Header{"Accept-Encoding": {s}}) }
			if got := CodingServes(tt.coding, form(tt.chosenFor), form(tt.request)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestLanguageServes(t *testing.T) {
	tests := []struct {
		name                         string
		language, chosenFor, request string
		want                         bool
	}{
		{"the same", "de", "de, en", "De,en", true},
		{"equals in another order", "de", "de, en", "en, de", false},
		{"the same, of no language", "", "de", "de", true},
		{"the most wanted", "de", "en, de", "fr;q=0.5, de", true},
		{"the most wanted, in capitals", "DE-at", "en", "fr;q=0.5, de-AT;q=0.7", true},
		{"as wanted as another", "de", "en", "fr, de", false},
		{"less wanted", "de", "en", "fr, de;q=0.9", false},
		{"not wanted", "de", "en", "fr", false},
		{"refused", "de", "en", "de;q=0", false},
		{"beside one that is refused", "de", "en", "de, fr;q=0", true},
		{"only its family", "de-at", "en", "de", false},
		{"beside anything", "de", "en", "de, *;q=0.1", true},
		{"anything as much", "de", "en", "de, *", false},
		{"no field", "de", "en", "", false},
		{"unknown language", "", "en", "de", false},
		{"two languages", "de, en", "en", "de", false},
		{"unknown language, in another order", "", "en, de;q=0.5", "de;q=0.5, en", true},
		{"unknown language, equals in another order", "", "en, de", "de, en", true},
		{"unknown language, other weights", "", "en, de;q=0.5", "de, en;q=0.5", false},
		{"unknown language, one twice", "", "en, en, de", "de, de, en", false},
		{"unknown language, a weight that cannot be read", "", "en, de;q=x", "de;q=x, en", false},
		{"unknown language, quotes", "", `en, "de"`, `"de", en`, false},
		{"unknown language, none asked for", "", "", "de", false},
		{"a weight that cannot be read", "de", "en", "de, fr;q=x", false},
		{"quotes", "de", "en", `de, "fr;q=0.5"`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			form := func(s string) string { return AcceptLanguage(http.Header{"Accept-Language": {s}}) }
			if got := LanguageServes(tt.language, form(tt.chosenFor), form(tt.request)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
