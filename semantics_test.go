package caddygroupcache

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// compressing is an upstream that takes the first of its codings that the
// client accepts.
func compressing(calls *atomic.Int64, offers ...string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		for _, coding := range offers {
			if strings.Contains(r.Header.Get("Accept-Encoding"), coding) {
				return fixed(calls, coding, "Cache-Control", "max-age=60", "Vary", "Accept-Encoding", "Content-Encoding", coding)(w, r)
			}
		}
		return fixed(calls, "plain", "Cache-Control", "max-age=60", "Vary", "Accept-Encoding")(w, r)
	}
}

func TestCodingsAreSharedAsFarAsTheUpstreamOffersThem(t *testing.T) {
	tests := []struct {
		name     string
		offers   []string
		requests []string // Accept-Encoding, and after a > whether it is fetched and in what coding
	}{
		{"one coding", []string{"gzip"}, []string{
			"gzip, deflate, br, zstd > fetched gzip", "gzip > hit gzip", "br,gzip > hit gzip", "GZIP, Deflate > hit gzip",
			"gzip;q=0.1 > fetched gzip", " > fetched plain", "br > fetched plain",
		}},
		{"none", nil, []string{"gzip, br > fetched plain", " > hit plain", "br > hit plain", "identity;q=0 > fetched plain"}},
		{"two", []string{"br", "gzip"}, []string{
			"gzip, br > fetched br", "gzip > fetched gzip", "br > hit br", "gzip, deflate > fetched gzip", "deflate > fetched plain",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, 3)
			target := c.target(1)
			for i, step := range tt.requests {
				var calls atomic.Int64
				accept, want, _ := strings.Cut(step, " > ")
				w := do(c.handlers[i%3], compressing(&calls, tt.offers...), request(t.Context(), target, "Accept-Encoding", accept))
				got := "hit " + w.Body.String()
				if calls.Load() > 0 {
					got = "fetched " + w.Body.String()
				}
				if got != want {
					t.Errorf("%q: %s, want %s; %v", accept, got, want, w.Header())
				}
			}
		})
	}
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
