package rfc9111

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// The methods of the IANA HTTP Method Registry, as of June 2026.
func TestSafe(t *testing.T) {
	registered := map[bool]string{
		true: "GET HEAD OPTIONS PRI PROPFIND QUERY REPORT SEARCH TRACE",
		false: "* ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF " +
			"MKWORKSPACE MOVE ORDERPATCH PATCH POST PROPPATCH PUT REBIND UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL",
	}
	for want, methods := range registered {
		for method := range strings.FieldsSeq(methods) {
			if got := Safe(method); got != want {
				t.Errorf("%s: %v", method, got)
			}
		}
	}
	for _, method := range []string{"PURGE", "get", "query", "Query", "", "GET "} {
		if Safe(method) {
			t.Errorf("%q is safe", method)
		}
	}
}

func TestEndsStored(t *testing.T) {
	for _, tt := range []struct {
		method string
		status int
		why    Reason
		want   bool
	}{
		{"GET", 200, NoStore, true},
		{"GET", 200, Private, true},
		{"GET", 200, TooLarge, true},
		{"GET", 200, Authorization, false},
		{"GET", 200, RequestNoStore, false},
		{"GET", 206, Partial, false},
		{"GET", 301, NoFreshness, true},
		{"GET", 304, StrayNotModified, false},
		{"GET", 401, RequestStatus, true},
		{"GET", 403, NoFreshness, true},
		{"GET", 404, NoFreshness, true},
		{"GET", 406, NoFreshness, false},
		{"GET", 410, NoFreshness, true},
		{"GET", 414, NoFreshness, false},
		{"GET", 429, RequestStatus, false},
		{"GET", 499, Status, false},
		{"GET", 500, Status, false},
		{"GET", 503, NoFreshness, false},
		{"HEAD", 200, Method, false},
		{"HEAD", 404, Method, true},
	} {
		if got := EndsStored(tt.method, tt.status, tt.why); got != tt.want {
			t.Errorf("%s %d %s: %v", tt.method, tt.status, tt.why, got)
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
		{"Location", "/\u00e9?q=\u00e9", []string{"/%C3%A9?q=\u00e9", "/%C3%A9?q=%C3%A9"}},
		{"Content-Location", "http://site.test/b%20c", []string{"/b%20c"}},
		{"Location", "http://SITE.test/b", []string{"/b"}},
		{"Location", "http://site.test", []string{"/"}},
		{"Location", "//site.test/b#part", []string{"/b"}},
		{"Location", "https://site.test/b", []string{"/b"}}, // TLS may end before us
		{"Location", "ftp://site.test/b", nil},
		{"Location", "http://other.test/b", nil},
		{"Location", "http://site.test:8080/b", nil},
		{"Location", "http://user@site.test/b", nil},
		{"Location", "http://[", nil},
		{"Location", "", nil},
		{"Link", "/b", nil},
	} {
		r := httptest.NewRequest(http.MethodPost, "http://site.test/a/x?q", nil)
		r.RequestURI = "/a/x?q"
		if got := Related(r, r.RequestURI, http.Header{test.name: {test.value}}); !slices.Equal(got, test.want) {
			t.Errorf("%s: %s: %q, want %q", test.name, test.value, got, test.want)
		}
	}
}
