package caddygroupcache

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

func TestCredentials(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	auth := func(target string) *http.Request { return request(t.Context(), target, "Authorization", "Basic eA==") }
	wantStatus(t, do(h, up, auth("/a")), "detail=authorization")
	wantStatus(t, do(h, up, request(t.Context(), "/a")), "fwd=uri-miss; fwd-status=200; stored")
	wantStatus(t, do(h, up, auth("/a")), "fwd=request; fwd-status=200; detail=authorization")
	shared := fixed(&calls, "hello", "Cache-Control", "public, max-age=60")
	do(h, shared, auth("/b"))
	wantStatus(t, do(h, shared, auth("/b")), "hit")
	wantStatus(t, do(h, shared, request(t.Context(), "/b")), "hit")
}

func TestCookiesAndCredentialsAreSharedOnlyWhenTheOperatorSaysSo(t *testing.T) {
	for _, tt := range []struct {
		name    string
		set     func(*Handler)
		fetches int64
		cookie  bool
	}{
		{"by default", nil, 4, true},
		{"set_cookie store", func(h *Handler) { h.SetCookie = storeCookies }, 3, true},
		{"authorization ignore", func(h *Handler) { h.Authorization = ignoreCredentials }, 4, true},
		{"both", func(h *Handler) { h.SetCookie, h.Authorization = storeCookies, ignoreCredentials }, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), tt.set)
			var calls atomic.Int64
			up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "Set-Cookie", "a=b")
			var last *httptest.ResponseRecorder
			for _, credentials := range []string{"alice", "bob", "", ""} {
				r := request(t.Context(), "/a")
				if credentials != "" {
					r.Header.Set("Authorization", credentials)
				}
				last = do(h, up, r)
			}
			if calls.Load() != tt.fetches || (last.Header().Get("Set-Cookie") == "a=b") != tt.cookie {
				t.Errorf("%d fetches, want %d; %v", calls.Load(), tt.fetches, last.Header())
			}
		})
	}
}

// TestAUserOfAnAuthenticationHandlerCountsAsCredentials: what was made for a user
// whom a handler in front knows by something else than Authorization reaches no other.
func TestAUserOfAnAuthenticationHandlerCountsAsCredentials(t *testing.T) {
	as := func(user, target string) *http.Request {
		r := request(t.Context(), target)
		replacer(r).Set("http.auth.user.id", user)
		return r
	}
	var calls atomic.Int64
	own := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	shared := fixed(&calls, "hello", "Cache-Control", "public, max-age=60")
	h := newHandler(t, newLoneNode(t), nil)
	wantStatus(t, do(h, own, as("a", "/a")), "detail=authorization")
	wantStatus(t, do(h, own, as("b", "/a")), "detail=authorization")
	wantStatus(t, do(h, own, request(t.Context(), "/a")), "fwd-status=200; stored")
	wantStatus(t, do(h, own, as("b", "/a")), "fwd=request; fwd-status=200; detail=authorization")
	do(h, shared, as("a", "/b"))
	wantStatus(t, do(h, shared, as("b", "/b")), "hit")

	h = newHandler(t, newLoneNode(t), func(h *Handler) { h.Authorization = ignoreCredentials })
	do(h, own, as("a", "/a"))
	wantStatus(t, do(h, own, as("b", "/a")), "hit")
}
