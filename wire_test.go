//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Each way is what it says.
func TestWays(t *testing.T) {
	c, _ := startAttacked(t, 1, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Method+" "+r.Header.Get("X-Forwarded-Proto")+" "+r.Host+" "+r.RequestURI+" "+r.Header.Get("X-A"))
		_, _ = w.Write(bytes.Repeat(body, 1000))
	}, "")
	for _, w := range ways {
		scheme := "https"
		if w.name == overHTTP1.name {
			scheme = "http"
		}
		body := strings.Repeat("body", 100)
		a := w.send(c[0], raw{method: "POST", target: "/a?b", fields: []string{"X-A: " + strings.Repeat("a", 300)}, body: body})
		a.is(t, w.name, strings.Repeat(body, 1000))
		if want := "POST " + scheme + " " + clientHost + " /a?b " + strings.Repeat("a", 300); a.header.Get("X-Seen") != want {
			t.Errorf("%s: %s, want %s", w.name, a.header.Get("X-Seen"), want)
		}
	}
}

// The version of HTTP makes no difference to what is a hit, and a body gets through
// whole.
func TestEveryVersionOfHTTPGetsHits(t *testing.T) {
	c, o := startAttacked(t, 2, echoing, "")
	for _, w := range ways {
		path := "/" + w.name
		first := w.get(c[0], path)
		for _, p := range c {
			for _, a := range w.others(p, path) {
				if a.is(t, w.name, first.body); !a.hit() {
					t.Errorf("%s: %s", w.name, a.cacheStatus())
				}
			}
			if a := w.send(p, raw{method: http.MethodHead, target: path}); !a.hit() || a.body != "" {
				t.Errorf("%s: HEAD: %s", w.name, a.cacheStatus())
			}
		}
		if n := o.fetches(path); n != 1 {
			t.Errorf("%s: %d fetches", w.name, n)
		}
		body := strings.Repeat("body", 10_000)
		if a := w.send(c[0], raw{target: path, body: body}); a.hit() || !strings.Contains(a.body, "body="+body+" ") {
			t.Errorf("%s: with a body: %s (%s)", w.name, brief(a.body), a.cacheStatus())
		}
	}
}
