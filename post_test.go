package caddygroupcache

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestResponseToAPostCanAnswerAGet(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		fields []string
		kept   bool
	}{
		{"as it should be", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=60"}, true},
		{"with an absolute location", 200, []string{"Content-Location", "http://example.com/made", "Expires", "Fri, 31 Dec 2049 23:59:59 GMT"}, true},
		{"of another place", 200, []string{"Content-Location", "/other", "Cache-Control", "max-age=60"}, false},
		{"of another host", 200, []string{"Content-Location", "http://elsewhere.test/made", "Cache-Control", "max-age=60"}, false},
		{"no location", 200, []string{"Cache-Control", "max-age=60"}, false},
		{"no freshness", 200, []string{"Content-Location", "/made", "Last-Modified", "Fri, 01 Jan 2016 00:00:00 GMT"}, false},
		{"stale", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=0", "Etag", `"a"`}, false},
		{"private", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=60, private"}, false},
		{"created", 201, []string{"Content-Location", "/made", "Cache-Control", "max-age=60"}, false},
		{"an error", 500, []string{"Content-Location", "/made", "Cache-Control", "max-age=60"}, false},
		{"too long", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=60", "X-Body", strings.Repeat("x", 2000)}, false},
		{"for what the request's cookie says", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=60", "Vary", "Cookie"}, false},
	} {
		for nodes := 1; nodes <= 3; nodes += 2 {
			t.Run(fmt.Sprintf("%s, nodes: %d", tt.name, nodes), func(t *testing.T) {
				for poster := range nodes {
					c := newCluster(t, nodes) // a purge just before would be one too many
					h := c.handlers[poster]
					limitBodies(h, 1000)
					path := fmt.Sprintf("/made%d", poster)
					fields := slices.Clone(tt.fields)
					for i := range fields {
						fields[i] = strings.Replace(fields[i], "/made", path, 1)
					}
					var calls atomic.Int64
					up := func(w http.ResponseWriter, r *http.Request) error {
						if r.Method == http.MethodGet {
							return fixed(&calls, "got", "Cache-Control", "max-age=60")(w, r)
						}
						for i := 0; i < len(fields); i += 2 {
							w.Header().Set(fields[i], fields[i+1])
						}
						w.WriteHeader(tt.status)
						io.WriteString(w, "posted")
						io.WriteString(w, w.Header().Get("X-Body"))
						return nil
					}
					do(h, up, request(t.Context(), path)) // what is stored goes
					post := request(t.Context(), path, "Cookie", "a=b")
					post.Method, post.Body, post.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader("x")), 1
					w := do(h, up, post)
					if !strings.HasPrefix(w.Body.String(), "posted") || strings.Contains(w.Header().Get("Cache-Status"), "stored") != (tt.kept || tt.name == "too long" || strings.HasPrefix(tt.name, "for ")) {
						t.Errorf("%q %v", w.Body, w.Header())
					}
					calls.Store(0)
					for i, other := range c.handlers {
						w := do(other, up, request(t.Context(), path))
						if kept := w.Body.String() == "posted"; kept != tt.kept || kept && calls.Load() > 0 {
							t.Errorf("posted at node %d, node %d: %q after %d fetches; %v", poster, i, w.Body, calls.Load(), w.Header())
						}
					}
				}
			})
		}
	}
}

func TestResponseToAPostIsNotKeptIfAnythingElseWasPurgedMeanwhile(t *testing.T) {
	for nodes := 1; nodes <= 2; nodes++ {
		c := newCluster(t, nodes)
		for owner := range nodes {
			path := c.target(owner)
			var calls atomic.Int64
			post := request(t.Context(), path)
			post.Method = http.MethodPost
			do(c.handlers[0], func(w http.ResponseWriter, r *http.Request) error {
				c.nodes[0].Purger.Everywhere([]store.Purge{{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.Tag, Value: "t"}}}})
				return fixed(&calls, "posted", "Content-Location", path, "Cache-Control", "max-age=60", "Cache-Tag", "t")(w, r)
			}, post)
			for i, h := range c.handlers {
				if w := do(h, fixed(&calls, "got", "Cache-Control", "max-age=60"), request(t.Context(), path)); w.Body.String() != "got" {
					t.Errorf("node %d of %d served %q", i, nodes, w.Body)
				}
			}
		}
	}
}
