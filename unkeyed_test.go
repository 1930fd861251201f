package caddygroupcache

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TestErrorStaysWithTheURLThatMadeIt: what the key lacks may be what the upstream
// complains of, so the next request under that key must not get the complaint.
func TestErrorStaysWithTheURLThatMadeIt(t *testing.T) {
	ignore := func(h *Handler) { h.Query = &Query{Ignore: []string{"utm_*"}} }
	for _, tt := range []struct {
		name            string
		set             func(*Handler)
		first           string // asked for before the error, to learn No-Vary-Search
		target, victim  string
		status          int
		unkeyed, stored bool
	}{
		{"414, ignored parameter", ignore, "", "/?utm_x=bad", "/", 414, true, false},
		{"404, ignored parameter", ignore, "", "/?utm_x=bad", "/", 404, true, false},
		{"503, only some count", func(h *Handler) { h.Query = &Query{Only: []string{"id"}} }, "", "/?id=7&x=bad", "/?id=7", 503, true, false},
		{"404, no-vary-search", nil, "/?y", "/?x=bad", "/", 404, true, false},
		{"404, no-vary-search that is news", nil, "", "/?x=bad", "/", 404, true, false},
		{"404, key template", func(h *Handler) { h.Key = "{http.request.uri.path}" }, "", "/?x=bad", "/", 404, true, false},
		{"404, a query that is part of the path", func(h *Handler) { h.Key = "{http.request.host}{http.request.uri.path}" }, "", "/badge?bad", "/badge", 404, true, false},
		{"414, whole URL", nil, "", "/?x=bad", "/", 414, false, false},
		{"404, whole URL", nil, "", "/?x=bad", "/", 404, false, true},
		{"404, nothing to ignore", ignore, "", "/?x=bad", "/", 404, false, true},
		{"404, sorted", func(h *Handler) { h.Query = &Query{Sort: true} }, "", "/?x=bad&b", "/?b", 404, false, true},
		{"404, key template with the query", func(h *Handler) { h.Key = "{http.request.uri}" }, "", "/?x=bad", "/", 404, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), func(h *Handler) {
				if tt.set != nil {
					tt.set(h)
				}
			})
			searches := strings.Contains(tt.name, "no-vary-search")
			next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				w.Header().Set("Cache-Control", "max-age=60")
				if searches {
					w.Header().Set("No-Vary-Search", `params=("x")`)
				}
				if strings.Contains(r.URL.RawQuery, "bad") {
					w.WriteHeader(tt.status)
				}
				return nil
			})
			do := func(target string) *httptest.ResponseRecorder {
				r := request(t.Context(), target)
				return do(h, next, r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddyhttp.NewTestReplacer(r))))
			}
			get := func(target string) int { return do(target).Code }
			if tt.first != "" {
				get(tt.first)
			}
			if got := get(tt.target); got != tt.status {
				t.Fatalf("got %d", got)
			}
			if got := get(tt.victim); got != http.StatusOK {
				t.Errorf("the next client of %s got %d", tt.victim, got)
			}
			if !tt.unkeyed {
				again := do(tt.target)
				if hit := strings.Contains(again.Header().Get("Cache-Status"), "; hit"); hit != tt.stored {
					t.Errorf("hit %v: %s", hit, again.Header().Get("Cache-Status"))
				}
			}
		})
	}
}
