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

func TestFarRange(t *testing.T) {
	for set, want := range map[string]bool{
		"bytes=0-":        false,
		"bytes=99-200":    false,
		"bytes=100-200":   true,
		"bytes=100-":      true,
		"bytes=-1":        true,
		"bytes=0-1,200-":  false,
		"bytes=200-,300-": false,
		"bytes=-0":        false,
		"items=200-":      false,
		"":                false,
	} {
		if got := FarRange([]string{set}, 100); got != want {
			t.Errorf("%q: %v", set, got)
		}
	}
	if FarRange(nil, 0) || FarRange([]string{"bytes=200-", "bytes=200-"}, 100) {
		t.Error("no range, or two fields")
	}
}

func TestStrongTag(t *testing.T) {
	for tag, want := range map[string]string{`"a"`: `"a"`, `W/"a"`: "", `a`: "", "": ""} {
		if got := StrongTag(http.Header{"Etag": {tag}}); got != want {
			t.Errorf("%q: %q", tag, got)
		}
	}
}

func TestWholeAndPart(t *testing.T) {
	partial := http.Header{"Content-Range": {"bytes 0-4/10"}, "Content-Length": {"5"}, "Etag": {`"a"`}}
	want := http.Header{"Content-Length": {"10"}, "Etag": {`"a"`}}
	if got := Whole(partial, 10); !reflect.DeepEqual(got, want) || partial.Get("Content-Range") == "" {
		t.Errorf("got %v of %v", got, partial)
	}
	h := make(http.Header)
	AskPart(h, 5, 10, "")
	AskPart(h, 20, 5, `"a"`)
	if want := (http.Header{"Range": {"bytes=20-24"}, "If-Range": {`"a"`}}); !reflect.DeepEqual(h, want) {
		t.Errorf("got %v", h)
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
