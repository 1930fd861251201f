package rfc9111

import (
	"net/http"
	"reflect"
	"testing"
)

func TestContentRange(t *testing.T) {
	for _, test := range []struct {
		lines               []string
		start, length, size int64
		ok                  bool
	}{
		{[]string{"bytes 0-4/10"}, 0, 5, 10, true},
		{[]string{"bytes 9-9/10"}, 9, 1, 10, true},
		{[]string{"bytes 9-10/10"}, 9, 2, 10, false},
		{[]string{"bytes 5-4/10"}, 5, 0, 10, false},
		{[]string{"bytes 0-4/*"}, 0, 0, 0, false},
		{[]string{"bytes */10"}, 0, 0, 0, false},
		{[]string{"bytes 0-9223372036854775807/9223372036854775807"}, 0, -9223372036854775808, 9223372036854775807, false},
		{[]string{"bytes 1-9223372036854775807/0"}, 0, 0, 0, false},
		{[]string{"bytes 0-9223372036854775806/9223372036854775807"}, 0, 9223372036854775807, 9223372036854775807, true},
		{[]string{"bytes 0-9999999999999999999/10"}, 0, 0, 0, false},
		{[]string{"bytes -1-4/10"}, 0, 0, 0, false},
		{[]string{"bytes +0-4/10"}, 0, 0, 0, false},
		{[]string{"items 0-4/10"}, 0, 0, 0, false},
		{[]string{"bytes 0-4/10", "bytes 5-9/10"}, 0, 0, 0, false},
		{nil, 0, 0, 0, false},
	} {
		start, length, size, ok := ContentRange(http.Header{"Content-Range": test.lines})
		if ok != test.ok || ok && (start != test.start || length != test.length || size != test.size) {
			t.Errorf("%q: %d, %d, %d, %v", test.lines, start, length, size, ok)
		}
	}
}

func TestAsksPart(t *testing.T) {
	const neither, near, far = 0, 1, 2
	for set, want := range map[string]int{
		"bytes=0-":                      neither,
		"bytes=99-":                     neither,
		"bytes=0-0":                     near,
		"bytes=99-99":                   near,
		"bytes=0-99":                    near,
		"bytes=0-100":                   neither,
		"bytes=99-200":                  neither,
		"bytes=0-9223372036854775807":   neither,
		"bytes=0-999999999999999999999": neither,
		"bytes=100-200":                 far,
		"bytes=100-":                    far,
		"bytes=-1":                      far,
		"bytes=-9999":                   far,
		"bytes=200-300,1-2":             neither,
		"bytes=1-2,200-300":             neither,
		"bytes=2-1":                     neither,
		"items=200-":                    neither,
		"":                              neither,
	} {
		isNear, isFar := AsksPart([]string{set}, 100)
		if isNear != (want == near) || isFar != (want == far) {
			t.Errorf("%q: %v, %v", set, isNear, isFar)
		}
	}
	for _, lines := range [][]string{nil, {"bytes=200-", "bytes=200-"}} {
		if near, far := AsksPart(lines, 100); near || far {
			t.Errorf("%q", lines)
		}
	}
}

func TestWhatAPartHasOfARange(t *testing.T) {
	for _, tt := range []struct {
		part          Part
		set           string
		start, length int64
		ok            bool
	}{
		{Part{0, 100, 1000}, "bytes=0-0", 0, 1, true},
		{Part{0, 100, 1000}, "bytes=50-99", 50, 50, true},
		{Part{0, 100, 1000}, "bytes=50-149", 50, 50, true}, // of 100 bytes, the first half
		{Part{0, 100, 1000}, "bytes=100-109", 0, 0, false},
		{Part{10, 100, 1000}, "bytes=9-20", 0, 0, false}, // the beginning is not there
		{Part{10, 100, UnknownSize}, "bytes=20-29", 20, 10, true},
		{Part{0, 100, 100}, "bytes=0-999", 0, 100, true},
		{Part{0, 100, 100}, "bytes=100-", 0, 0, false},
		{Part{0, 100, 1000}, "bytes=-10", 0, 0, false},
		{Part{0, 100, UnknownSize}, "bytes=-10", 0, 0, false},
		{Part{0, 100, 1000}, "bytes=0-1,4-5", 0, 0, false},
	} {
		start, length, ok := tt.part.Of([]string{tt.set})
		if start != tt.start || length != tt.length || ok != tt.ok {
			t.Errorf("%v of %v: %d, %d, %v", tt.set, tt.part, start, length, ok)
		}
	}
}

func TestStrongTag(t *testing.T) {
	for tag, want := range map[string]string{
		`"a"`: `"a"`, `W/"a"`: "", `a`: "", "": "", `""`: `""`,
		// An encoder's.
		`"a-gzip"`: "", `"a--gzip"`: "", `"a-br"`: "", `"a-zstd"`: "", `"a;gzip"`: "", `"a:GZIP"`: "", `"-gzip"`: "",
		// Not.
		`"gzip"`: `"gzip"`, `"agzip"`: `"agzip"`, `"gzip-a"`: `"gzip-a"`, `"a-gz"`: `"a-gz"`, `"a-"`: `"a-"`, `"cab-abr"`: `"cab-abr"`,
	} {
		if got := StrongTag(http.Header{"Etag": {tag}}); got != want {
			t.Errorf("%q: %q", tag, got)
		}
	}
	for _, tt := range []struct {
		codings []string
		want    string
	}{
		{[]string{""}, `"a"`},
		{[]string{"identity"}, `"a"`},
		{[]string{"Identity, "}, `"a"`},
		{[]string{"gzip"}, ""},
		{[]string{"identity, br"}, ""},
		{[]string{"identity", "zstd"}, ""},
		{[]string{"x-of-our-own"}, ""},
	} {
		if got := StrongTag(http.Header{"Etag": {`"a"`}, "Content-Encoding": tt.codings}); got != tt.want {
			t.Errorf("%q: %q", tt.codings, got)
		}
	}
}

func TestContinues(t *testing.T) {
	const etag, modified, length, kind, coding = "Etag", "Last-Modified", "Content-Length", "Content-Type", "Content-Encoding"
	for _, tt := range []struct {
		name     string
		had, now http.Header
		want     bool
	}{
		{"nothing known", header(), header(), true},
		{"the same", header(etag, `"a"`, modified, "x", length, "5", kind, "a/b"), header(etag, `"a"`, modified, "x", length, "5", kind, "a/b"), true},
		{"other fields", header(etag, `"a"`, "X", "1"), header(etag, `"a"`, "X", "2", "Date", lm), true},
		{"another tag", header(etag, `"a"`), header(etag, `"b"`), false},
		{"weak by now", header(etag, `"a"`), header(etag, `W/"a"`), true},
		{"no tag by now", header(etag, `"a"`), header(), false},
		{"a tag by now", header(), header(etag, `"a"`), false},
		{"touched", header(etag, `"a"`, modified, "x"), header(etag, `"a"`, modified, "y"), true},
		{"another date", header(modified, "x"), header(modified, "y"), false},
		{"no date by now", header(modified, "x"), header(), false},
		{"another length", header(length, "5"), header(length, "6"), false},
		{"no length by now", header(length, "5"), header(), true},
		{"a length by now", header(), header(length, "5"), true},
		{"another type", header(kind, "a/b"), header(kind, "a/c"), false},
		{"another coding", header(coding, "gzip", etag, `"a"`), header(coding, "br", etag, `"a"`), false},
		{"no coding by now", header(coding, "gzip", etag, `"a-gzip"`), header(etag, `"a-gzip"`), false},
		{"a coding by now", header(etag, `"a"`), header(coding, "gzip", etag, `"a"`), false},
		{"another policy", header("Content-Security-Policy", "script-src 'nonce-a'"), header("Content-Security-Policy", "script-src 'nonce-b'"), false},
		{"another language", header("Content-Language", "de"), header("Content-Language", "fr"), false},
	} {
		if got := Continues(tt.had, tt.now); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestContinuesUnseen(t *testing.T) {
	for _, tt := range []struct {
		name     string
		had, now http.Header
		want     bool
	}{
		{"the same", header("X", "1", "Date", lm), header("X", "1", "Date", lm), true},
		{"at another time", header("X", "1", "Date", "a", "Age", "1", "Expires", "a"), header("X", "1", "Date", "b", "Expires", "b"), true},
		{"of another user", header("X", "1"), header("X", "2"), false},
		{"with less", header("X", "1"), header(), false},
		{"with more", header("X", "1"), header("X", "1", "Y", "1"), true},
		{"of a strong tag", header("X", "1", "Etag", `"a"`), header("X", "2", "Etag", `"a"`), true},
		{"of a weak tag", header("X", "1", "Etag", `W/"a"`), header("X", "2", "Etag", `W/"a"`), false},
		{"streamed", header("X", "1", "Content-Length", "5"), header("X", "1"), true},
	} {
		if got := ContinuesUnseen(tt.had, tt.now); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestWholeAndPart(t *testing.T) {
	partial := http.Header{"Content-Range": {"bytes 0-4/10"}, "Content-Length": {"5"}, "Etag": {`"a"`},
		"Content-Digest": {"x"}, "Repr-Digest": {"y"}, "Unencoded-Digest": {"z"}}
	want := http.Header{"Content-Length": {"10"}, "Etag": {`"a"`}, "Repr-Digest": {"y"}, "Unencoded-Digest": {"z"}}
	if got := Whole(partial, 10); !reflect.DeepEqual(got, want) || partial.Get("Content-Range") == "" {
		t.Errorf("got %v of %v", got, partial)
	}
}

func TestPartRequest(t *testing.T) {
	client := http.Header{"Accept": {"text/html"}, "Range": {"bytes=5-14"}, "If-Range": {`"b"`}, "If-None-Match": {`"c"`}}
	if got, want := PartRequest(client, 20, 5, `"a"`), (http.Header{"Accept": {"text/html"}, "Range": {"bytes=20-24"}, "If-Range": {`"a"`}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	client = http.Header{"Accept-Encoding": {"br"}}
	if got, want := PartRequest(client, 0, 10, ""), (http.Header{"Accept-Encoding": {"br"}, "Range": {"bytes=0-9"}}); !reflect.DeepEqual(got, want) || len(client) != 1 {
		t.Errorf("got %v of %v", got, client)
	}
}

func FuzzContentRange(f *testing.F) {
	for _, seed := range []string{"bytes 0-4/10", "bytes 0-9223372036854775807/9223372036854775807", "bytes */1", "bytes -", "bytes 1-0/2", "bytes 1-9223372036854775807/0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		start, length, size, ok := ContentRange(http.Header{"Content-Range": {s}})
		if ok && (start < 0 || length <= 0 || size <= 0 || start > size-length) {
			t.Errorf("%q: %d, %d, %d", s, start, length, size)
		}
	})
}
