package caddygroupcache

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TestPlaceholdersAreOfTheLastHandler: of two in a route the outer one, which has the
// last word on the response, sets them last.
func TestPlaceholdersAreOfTheLastHandler(t *testing.T) {
	repl := caddy.NewReplacer()
	for _, want := range []string{"miss private", "hit local", "miss too-large"} {
		status, detail, _ := strings.Cut(want, " ")
		setPlaceholders(repl, status, detail, true)
		if got := repl.ReplaceAll("{http.groupcache.status} {http.groupcache.detail}", ""); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestPlaceholdersOfNestedHandlers: of two of which one is behind the other, the outer
// one sets them last, whatever the inner one leaves of a Cache-Status.
func TestPlaceholdersOfNestedHandlers(t *testing.T) {
	var calls atomic.Int64
	for _, name := range []string{"", cacheStatusOff} {
		n := newLoneNode(t)
		outer := newHandler(t, n, func(h *Handler) { h.Group = "a" })
		inner := newHandler(t, n, func(h *Handler) { h.Group, h.CacheStatus = "b", name })
		up := fixed(&calls, "mine", "Cache-Control", "private")
		stored := fixed(&calls, "everybody's", "Cache-Control", "max-age=60")
		do(inner, stored, request(t.Context(), "/a"))
		for _, c := range []struct {
			path string
			up   func(http.ResponseWriter, *http.Request) error
			want string
		}{
			{"/a", stored, "miss "}, // the inner one has a hit
			{"/b", up, "miss private"},
			{"/b", up, "miss private"}, // passed on
		} {
			r := request(t.Context(), c.path)
			do(outer, func(w http.ResponseWriter, r *http.Request) error {
				return inner.ServeHTTP(w, r, caddyhttp.HandlerFunc(c.up))
			}, r)
			if got := replacer(r).ReplaceAll("{http.groupcache.status} {http.groupcache.detail}", ""); got != c.want {
				t.Errorf("%s, inner cache_status %q: %q, want %q", c.path, name, got, c.want)
			}
		}
	}
}

// TestPlaceholdersOfAHitInAnErrorRoute: the handler in the route for the error of
// another one has the last word, also if that one leaves no Cache-Status.
func TestPlaceholdersOfAHitInAnErrorRoute(t *testing.T) {
	n := newLoneNode(t)
	for _, name := range []string{"", cacheStatusOff} {
		failing := newHandler(t, n, func(h *Handler) { h.Group, h.CacheStatus = "a"+name, name })
		fallback := newHandler(t, n, func(h *Handler) { h.Group = "b" })
		up := func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Cache-Control", "max-age=60")
			_, err := w.Write([]byte("hello"))
			return err
		}
		do(fallback, up, request(t.Context(), "/"))
		r, w := request(t.Context(), "/"), httptest.NewRecorder()
		down := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			return caddyhttp.Error(http.StatusBadGateway, errors.New("down"))
		})
		if err := failing.ServeHTTP(w, r, down); err == nil {
			t.Fatal("no error")
		}
		if err := fallback.ServeHTTP(w, r, down); err != nil || w.Body.String() != "hello" {
			t.Fatalf("%v, %q", err, w.Body)
		}
		if got := replacer(r).ReplaceAll("{http.groupcache.status} {http.groupcache.detail}", ""); got != "hit local" {
			t.Errorf("cache_status %q: %q", name, got)
		}
	}
}
