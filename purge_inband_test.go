package caddygroupcache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func purgeBy(t *testing.T, h *Handler, method, url string, fields ...string) *httptest.ResponseRecorder {
	r := request(t.Context(), url, fields...)
	r.Method = method
	return do(h, fixed(new(atomic.Int64), "upstream"), r)
}

func TestInBandPurge(t *testing.T) {
	for _, tt := range []struct {
		name, method, url string
		fields            []string
		purged            []string
	}{
		{"a URL", "PURGE", "http://a.test/1?q=1", nil, []string{"http://a.test/1?q=1"}},
		{"a URL that nothing is stored of", "PURGE", "http://a.test/1", nil, nil},
		{"another method", "BAN", "http://a.test/1?q=1", nil, []string{"http://a.test/1?q=1"}},
		{"tags", "PURGE", "http://a.test/", []string{"Surrogate-Key", "page-1 page-2"}, []string{"http://a.test/1?q=1", "http://a.test/2?q=2", "http://b.test/1?q=1"}},
		{"the other field of tags", "PURGE", "http://a.test/", []string{"Cache-Tag", "page-2, page-9"}, []string{"http://a.test/2?q=2"}},
		{"softly", "PURGE", "http://a.test/1?q=1", []string{"Fastly-Soft-Purge", "1"}, []string{"http://a.test/1?q=1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 3, withPurge(t, func(p *InBandPurge) { p.Methods = []string{"PURGE", "BAN"} }))
				s := &shop{asked: make(map[string]int), control: "max-age=60, must-revalidate"}
				up := s.handler()
				urls := []string{"http://a.test/1?q=1", "http://a.test/2?q=2", "http://b.test/1?q=1"}
				all := func() {
					for _, m := range b.nodes {
						for _, u := range urls {
							m.get(t, up, u)
						}
					}
				}
				all()
				w := purgeBy(t, b.nodes[1].handler, tt.method, tt.url, append(tt.fields, "Authorization", "Bearer "+purgeToken)...)
				if result := resultOf(t, w); w.Code != 200 || len(result.Nodes) != 3 {
					t.Errorf("%d %q", w.Code, w.Body)
				}
				all()
				for _, u := range urls {
					want := 1
					for _, p := range tt.purged {
						if p == u {
							want = 2
						}
					}
					if s.asked[u] != want {
						t.Errorf("%s: %d fetches, want %d", u, s.asked[u], want)
					}
				}
			})
		})
	}
}

func TestInBandPurgeNamesWhoHasNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, withPurge(t, nil))
		b.freeze(b.nodes[1], true)
		w := purgeBy(t, b.nodes[0].handler, "PURGE", "http://a.test/", "Authorization", "bearer "+purgeToken)
		if missing := resultOf(t, w).Missing(); w.Code != 502 || len(missing) != 1 || missing[0] != "node1" {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	})
}

func TestWhoMayNotPurgeInBand(t *testing.T) {
	from := func(p *InBandPurge) { p.Tokens, p.From = nil, []string{"192.0.2.0/28", "2001:db8::1"} }
	both := func(p *InBandPurge) { p.From = []string{"192.0.2.1"} }
	for _, tt := range []struct {
		name   string
		set    func(*InBandPurge)
		remote string
		auth   []string
		want   int
	}{
		{"no token", nil, "", nil, 403},
		{"the token", nil, "", []string{"Bearer " + purgeToken}, 200},
		{"another", nil, "", []string{"Bearer " + purgeToken + "x"}, 403},
		{"its beginning", nil, "", []string{"Bearer " + purgeToken[:20]}, 403},
		{"another scheme", nil, "", []string{"Basic " + purgeToken}, 403},
		{"no scheme", nil, "", []string{purgeToken}, 403},
		{"nothing behind the scheme", nil, "", []string{"Bearer"}, 403},
		{"second line", nil, "", []string{"Bearer x", "Bearer " + purgeToken}, 403},
		{"in the range", from, "192.0.2.15:1", nil, 200},
		{"outside", from, "192.0.2.16:1", nil, 403},
		{"the address", from, "[2001:db8::1]:1", nil, 200},
		{"mapped", from, "[::ffff:192.0.2.1]:1", nil, 200},
		{"no address", from, "@", nil, 403},
		{"both", both, "192.0.2.1:1", []string{"Bearer " + purgeToken}, 200},
		{"only the address", both, "192.0.2.1:1", nil, 403},
		{"only the token", both, "192.0.2.2:1", []string{"Bearer " + purgeToken}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), withPurge(t, tt.set))
			h.policy.IgnoreAuthorization = true
			var calls atomic.Int64
			up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
			do(h, up, request(t.Context(), "http://a.test/1"))
			r := request(t.Context(), "http://a.test/1")
			r.Method, r.Header["Authorization"] = "PURGE", tt.auth
			if tt.remote != "" {
				r.RemoteAddr = tt.remote
			}
			w := httptest.NewRecorder()
			code := http.StatusOK
			if err := h.ServeHTTP(w, r, up); err != nil {
				if !strings.Contains(err.Error(), "HTTP 403") {
					t.Error(err)
				}
				code = http.StatusForbidden
			}
			do(h, up, request(t.Context(), "http://a.test/1"))
			if purged := calls.Load() == 2; code != tt.want || purged != (tt.want == 200) {
				t.Errorf("%d, %d fetches", code, calls.Load())
			}
		})
	}
}

func TestBadInBandPurges(t *testing.T) {
	h := newHandler(t, newLoneNode(t), withPurge(t, nil))
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	do(h, up, request(t.Context(), "http://a.test/1"))
	var manyTags strings.Builder
	for i := range 5000 {
		fmt.Fprint(&manyTags, i, " ")
	}
	for name, fields := range map[string][]string{
		"empty tags": {"Surrogate-Key", " "},
		"long tag":   {"Surrogate-Key", strings.Repeat("x", 300)},
		"many tags":  {"Surrogate-Key", manyTags.String()},
	} {
		r := request(t.Context(), "http://a.test/1", append(fields, "Authorization", "Bearer "+purgeToken)...)
		r.Method = "PURGE"
		if w := do(h, up, r); w.Code != 400 || !strings.Contains(w.Body.String(), "tags") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	wantStatus(t, do(h, up, request(t.Context(), "http://a.test/1")), "; hit;")
}

func TestWithoutTheOptionPurgeIsAnyMethod(t *testing.T) {
	for name, set := range map[string]func(*Handler){
		"off":            nil,
		"another method": withPurge(t, func(p *InBandPurge) { p.Methods = []string{"BAN"} }),
	} {
		h := newHandler(t, newLoneNode(t), set)
		w := purgeBy(t, h, "PURGE", "http://a.test/1", "Authorization", "Bearer "+purgeToken)
		if w.Body.String() != "upstream" {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
		wantStatus(t, w, "fwd=method; fwd-status=200; detail=method")
	}
}

func TestInBandPurgeWithAKeyOfOnesOwn(t *testing.T) {
	h := newHandler(t, newLoneNode(t), func(h *Handler) {
		withPurge(t, nil)(h)
		h.Query = &Query{Ignore: []string{"utm_*"}}
	})
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	for i := range 3 {
		do(h, up, request(t.Context(), fmt.Sprint("http://a.test/1?utm_a=", i)))
	}
	purgeBy(t, h, "PURGE", "http://a.test/1?utm_b=2", "Authorization", "Bearer "+purgeToken)
	do(h, up, request(t.Context(), "http://a.test/1"))
	if calls.Load() != 2 {
		t.Errorf("%d fetches", calls.Load())
	}
}
