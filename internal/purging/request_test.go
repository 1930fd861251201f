package purging

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// hosts are hosts as purgers write them, and as clients send them; "" is none.
var hosts = map[string]string{
	"a.test":                "a.test",
	"A.test:8080":           "a.test:8080",
	"a.test:":               "a.test",
	"[::1]:":                "[::1]",
	"a_b-c.test.":           "a_b-c.test.",
	"[::1]":                 "[::1]",
	"[2001:DB8::1]:8080":    "[2001:db8::1]:8080",
	"bücher.example":        "xn--bcher-kva.example",
	"BÜCHER.example:8080":   "xn--bcher-kva.example:8080",
	"xn--bcher-kva.example": "xn--bcher-kva.example",
	"*.example.com":         "",
	"*":                     "",
	"a.test,b.test":         "",
	"a.test;b.test":         "",
	"(a|b).test":            "",
	"a.test*":               "",
	"a.test:x":              "",
	"a.test:*":              "",
	"a test":                "",
	"bob@a.test":            "",
	"[fe80::1%25eth0]":      "",
	"a\u00a0.test":          "",
	"bü*.example":           "",
	":8080":                 "",
}

// TestAHostIsOneThatClientsSend: what could be no client's host is refused however it is
// named, and nothing else is.
func TestAHostIsOneThatClientsSend(t *testing.T) {
	for host, want := range hosts {
		for name, req := range map[string]struct {
			Request
			value string
		}{
			"host":           {Request{Hosts: []string{host}}, want},
			"URL":            {Request{URLs: []string{"https://" + host + "/a"}}, "https://" + want + "/a"},
			"URL, no path":   {Request{URLs: []string{"https://" + host}}, "https://" + want + "/"},
			"prefix":         {Request{Prefixes: []string{"https://" + host + "/a"}}, "https://" + want + "/a"},
			"prefix, a path": {Request{Prefixes: []string{"https://" + host + "/"}}, "https://" + want + "/"},
		} {
			got, err := req.Selectors(1000)
			switch {
			case want == "" && err == nil:
				t.Errorf("%s %q: it names %q", name, host, got)
			case want != "" && err != nil:
				t.Errorf("%s %q: %v", name, host, err)
			case want != "" && got[0].Value != req.value:
				t.Errorf("%s %q: it names %q, want %q", name, host, got[0].Value, req.value)
			}
		}
	}
}

// TestAHostInBand: the same hosts, of requests to the site.
func TestAHostInBand(t *testing.T) {
	for host, want := range hosts {
		for name, fields := range map[string]http.Header{
			"Host":   {},
			"X-Host": {banHostField: {"^" + strings.NewReplacer("*", `\*`, "[", `\[`, "]", `\]`, "(", `\(`, ")", `\)`, "|", `\|`).Replace(host) + "$"}, banURLField: {".*"}},
		} {
			if name == "Host" && want != "" && want != strings.ToLower(host) {
				continue // no request has such a Host
			}
			r := httptest.NewRequest("BAN", "/", nil)
			r.Host, r.Header = "site.test", fields
			if name == "Host" {
				r.Host = host
			}
			got, err := ReadInband(r, "/", nil)
			switch {
			case want == "" && err == nil:
				t.Errorf("%s %q: it names %q", name, host, got.Selectors)
			case want != "" && err != nil:
				t.Errorf("%s %q: %v", name, host, err)
			case want != "" && !slices.Equal(got.Selectors, []store.Selector{{Kind: store.Host, Value: withoutPort(want)}}):
				t.Errorf("%s %q: it names %q, want %q", name, host, got.Selectors, want)
			}
		}
	}
}

// TestPrefixesOfHosts: a prefix that ends amid the host, or has no path, names what a URL can
// begin with.
func TestPrefixesOfHosts(t *testing.T) {
	for prefix, want := range map[string]string{
		"https://a.test":       "https://a.test",
		"https://a.te":         "https://a.te",
		"https://a.test:443":   "https://a.test",
		"http://a.test:443":    "http://a.test:443",
		"http://A.test:80":     "http://a.test",
		"https://a.test:8":     "https://a.test:8",
		"https://a.test/b/*":   "https://a.test/b/",
		"https://a.test/*":     "https://a.test/",
		"https://a.test:":      "https://a.test:",
		"https://a.test:/":     "https://a.test/",
		" https://a.test/ ":    "https://a.test/",
		"https://a.test?x=1":   "https://a.test/?x=1",
		"https://bücher.test/": "https://xn--bcher-kva.test/",
		"https://büch":         "", // the whole begins otherwise
		"https://bücher.test":  "",
		"https://*":            "",
	} {
		got, err := Request{Prefixes: []string{prefix}}.Selectors(1000)
		switch {
		case (err == nil) != (want != ""):
			t.Errorf("%s: %q, %v", prefix, got, err)
		case err == nil && got[0].Value != want:
			t.Errorf("%s: it names %q, want %q", prefix, got[0].Value, want)
		}
	}
}

// TestWhatIsNoUTF8IsRefused: JSON would have another letter in its place, which nothing that
// is stored has.
func TestWhatIsNoUTF8IsRefused(t *testing.T) {
	for _, body := range []string{
		"{\"urls\": [\"https://a.test/caf\xe9\"]}",
		"{\"prefixes\": [\"https://a.test/caf\xe9\"]}",
		"{\"tags\": [\"caf\xe9\"]}",
		`{"tags": ["\ud800"]}`,
	} {
		req, err := ReadRequest(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := req.Selectors(1000); err == nil {
			t.Errorf("%q: it names %q", body, got)
		}
	}
}

// TestTagsInOneText: as a command has them that writes out a list, one a line or all in one.
func TestTagsInOneText(t *testing.T) {
	list := make([]string, 100)
	for i := range list {
		list[i] = fmt.Sprintf("product-%d", i)
	}
	for _, separator := range []string{" ", ",", ", ", "\t", "\n", "\r\n"} {
		got, err := Request{Tags: []string{strings.Join(list, separator)}}.Selectors(1000)
		if err != nil || len(got) != len(list) || got[99] != (store.Selector{Kind: store.Tag, Value: "product-99"}) {
			t.Errorf("separated by %q: %d tags, %v", separator, len(got), err)
		}
	}
}
