package rfc9111

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestSafe(t *testing.T) {
	for method, want := range map[string]bool{
		"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true,
		"POST": false, "PUT": false, "DELETE": false, "PATCH": false, "PURGE": false, "get": false, "": false,
	} {
		if got := Safe(method); got != want {
			t.Errorf("%s: %v", method, got)
		}
	}
}

func TestRelated(t *testing.T) {
	for _, test := range []struct {
		name, value string
		want        []string
	}{
		{"Location", "/b", []string{"/b"}},
		{"Location", "b?c=d", []string{"/a/b?c=d"}},
		{"Content-Location", "http://site.test/b%20c", []string{"/b%20c"}},
		{"Location", "http://SITE.test/b", []string{"/b"}},
		{"Location", "http://site.test", []string{"/"}},
		{"Location", "//site.test/b#part", []string{"/b"}},
		{"Location", "https://site.test/b", nil},
		{"Location", "http://other.test/b", nil},
		{"Location", "http://site.test:8080/b", nil},
		{"Location", "http://user@site.test/b", nil},
		{"Location", "http://[", nil},
		{"Location", "", nil},
		{"Link", "/b", nil},
	} {
		r := httptest.NewRequest(http.MethodPost, "http://site.test/a/x?q", nil)
		r.RequestURI = "/a/x?q"
		if got := Related(r, http.Header{test.name: {test.value}}); !slices.Equal(got, test.want) {
			t.Errorf("%s: %s: %q, want %q", test.name, test.value, got, test.want)
		}
	}
}
