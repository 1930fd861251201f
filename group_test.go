package caddygroupcache

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// inOneGroup returns handlers of one group with different settings.
func inOneGroup(t *testing.T, sets ...func(*Handler)) (handlers []*Handler) {
	t.Helper()
	a, n := &App{groups: make(handlersByGroup)}, newLoneNode(t)
	for _, set := range sets {
		h := newHandler(t, n, set)
		a.join(h)
		handlers = append(handlers, h)
	}
	return handlers
}

// TestWhatAHandlerWouldNotStoreItDoesNotServe, though another handler of the group, on this
// node or another one, has stored it for the same URL.
func TestWhatAHandlerWouldNotStoreItDoesNotServe(t *testing.T) {
	for name, tt := range map[string]struct {
		lax     func(*Handler)
		target  string
		request []string
		answer  []string
	}{
		"a cookie":                      {func(h *Handler) { h.SetCookie = storeCookies }, "/", nil, []string{"Set-Cookie", "a=b"}},
		"the answer to credentials":     {func(h *Handler) { h.Authorization = ignoreCredentials }, "/", []string{"Authorization", "Basic YTpi"}, nil},
		"private, but not for its list": {func(h *Handler) { h.Targeted = []string{"X-Cache-Control"} }, "/", nil, []string{"X-Cache-Control", "max-age=60", "Cache-Control", "private"}},
		"another query":                 {func(h *Handler) { h.Query = &Query{Ignore: []string{"x"}} }, "/?x=1", nil, nil},
		"tags that clients may see":     {func(h *Handler) { h.ExposeTags = true }, "/", nil, []string{"Surrogate-Key", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 2)
			for _, handlers := range [][]*Handler{inOneGroup(t, tt.lax, nil), {newHandler(t, c.nodes[0], tt.lax), newHandler(t, c.nodes[1], nil)}} {
				lax, strict := handlers[0], handlers[1]
				var calls atomic.Int64
				up := fixed(&calls, "hello", append([]string{"Cache-Control", "max-age=60"}, tt.answer...)...)
				if len(tt.answer) == 4 {
					up = fixed(&calls, "hello", tt.answer...)
				}
				do(lax, up, request(t.Context(), tt.target, tt.request...))
				wantStatus(t, do(lax, up, request(t.Context(), tt.target, tt.request...)), "hit")
				if w := do(strict, up, request(t.Context(), "/")); strings.Contains(w.Header().Get("Cache-Status"), "hit") || calls.Load() != 2 {
					t.Errorf("served: %v, after %d fetches", w.Header(), calls.Load())
				}
			}
		})
	}
}

// TestSettingsThatOnlyStoringDependsOnMayDiffer, and entries are still shared.
func TestSettingsThatOnlyStoringDependsOnMayDiffer(t *testing.T) {
	handlers := inOneGroup(t,
		func(h *Handler) { h.TTL = []TTL{{Duration: caddy.Duration(time.Minute)}} },
		func(h *Handler) { h.TTL, h.MaxBodySize = []TTL{{Duration: caddy.Duration(time.Hour)}}, 1000 })
	var calls atomic.Int64
	up := fixed(&calls, "hello")
	do(handlers[0], up, request(t.Context(), "/"))
	wantStatus(t, do(handlers[1], up, request(t.Context(), "/")), "hit")
	wantStatus(t, do(handlers[1], up, request(t.Context(), "/other")), "stored")
	wantStatus(t, do(handlers[1], up, request(t.Context(), "/other")), "hit; ttl=3")
}

// TestUnsafeRequestsConcernAllOfTheGroup, whatever settings and keys its handlers have.
func TestUnsafeRequestsConcernAllOfTheGroup(t *testing.T) {
	handlers := inOneGroup(t, nil,
		func(h *Handler) { h.SetCookie = storeCookies },
		func(h *Handler) { h.Query = &Query{Ignore: []string{"x"}} },
		func(h *Handler) { h.Key = "{http.request.uri.path}" })
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	for poster := range handlers {
		get := func(h *Handler, want string) {
			t.Helper()
			wantStatus(t, do(h, up, withPath(request(t.Context(), "/a?x=1"))), want)
		}
		for _, h := range handlers {
			get(h, "")
			get(h, "hit")
		}
		r := withPath(request(t.Context(), "/a?x=1"))
		r.Method = http.MethodPost
		do(handlers[poster], up, r)
		for i, h := range handlers {
			t.Run(fmt.Sprint(poster, i), func(t *testing.T) { get(h, "stored") })
		}
	}
}

// withPath sets the placeholder of the path, as Caddy does.
func withPath(r *http.Request) *http.Request {
	replacer(r).Set("http.request.uri.path", r.URL.Path)
	return r
}
