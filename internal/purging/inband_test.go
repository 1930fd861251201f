package purging

import (
	"bufio"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// FuzzReadInband: whatever a purger sends is refused with a reason, or names something,
// and URLs with scheme and host only.
func FuzzReadInband(f *testing.F) {
	for _, s := range []string{
		"PURGE /shop/1 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"PURGE /.* HTTP/1.1\r\nHost: a.test:80\r\nX-Purge-Method: regex\r\n\r\n",
		"BAN / HTTP/1.1\r\nHost: c.test\r\nX-Host: ^(a\\.test|b.test)$\r\nX-Url: ^/shop/.*\r\nX-Content-Type: .*\r\n\r\n",
		"PURGE / HTTP/1.1\r\nHost: c.test\r\nXkey-Softpurge: a b\r\n\r\n",
		"PURGE / HTTP/1.1\r\nHost: c.test\r\nX-Cache-Tags: (^|,)(a|b)(,|$)\r\nFastly-Soft-Purge: 1\r\n\r\n",
		"PURGE * HTTP/1.1\r\nHost: :\r\n\r\n",
		"PURGE /\u00e9?q=\xe9 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"BAN / HTTP/1.1\r\nHost: a.test\r\nX-Url: ^/" + strings.Repeat("x", inbound.MaxTarget) + "\r\n\r\n",
		"PURGE * HTTP/1.1\r\nHost: [::1]\r\nClear-Cache: true\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sent)))
		if err != nil || !httpguts.ValidHostHeader(r.Host) { // net/http answers these itself
			return
		}
		p, err := ReadInband(r, r.RequestURI, []string{"Surrogate-Key", "X-Cache-Tags", "Xkey"})
		if err != nil {
			if e := (Error{}); !errors.As(err, &e) || e.Status != http.StatusBadRequest && e.Status != http.StatusNotImplemented {
				t.Errorf("%q: %v", sent, err)
			}
			return
		}
		if len(p.Selectors) == 0 {
			t.Errorf("%q names nothing", sent)
		}
		for _, s := range p.Selectors {
			switch _, rest, _ := strings.Cut(s.Value, "://"); s.Kind {
			case store.All:
			case store.Tag, store.Host:
				if s.Value == "" {
					t.Errorf("%q names an empty %s", sent, s.Kind)
				}
			case store.URL, store.Prefix:
				if rest == "" || rest[0] == '/' || !strings.HasPrefix(s.Value, "http") {
					t.Errorf("%q names the %s %q", sent, s.Kind, s.Value)
				}
			default:
				t.Errorf("%q names a %s", sent, s.Kind)
			}
		}
	})
}

// TestExpressionsTogetherAreBounded: each of two expressions names what is allowed, and both
// together more than there is memory for.
func TestExpressionsTogetherAreBounded(t *testing.T) {
	for name, fields := range map[string][2]string{
		"many of both":           {"^[a-p][a-p][a-p]\\.test$", "^/[a-p]$"},
		"a long one of many":     {"^[a-p][a-p][a-p]\\.test$", "^/" + strings.Repeat("x", inbound.MaxTarget-1) + "$"},
		"many of both, in parts": {"^(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)\\.test$", "^/(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)(a|b)"},
	} {
		r := httptest.NewRequest("BAN", "/", nil)
		r.Header = http.Header{banHostField: {fields[0]}, banURLField: {fields[1]}}
		if p, err := ReadInband(r, "/", nil); err == nil {
			t.Errorf("%s: %d selectors", name, len(p.Selectors))
		}
	}
	r := httptest.NewRequest("BAN", "/", nil)
	r.Header = http.Header{banHostField: {"^[a-p]\\.test$"}, banURLField: {"^/[a-p][a-p]$"}}
	if p, err := ReadInband(r, "/", nil); err != nil || len(p.Selectors) != 16*256*2 {
		t.Errorf("%v: %d selectors", err, len(p.Selectors))
	}
}
