package caddygroupcache

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
)

// behindHeader asks a handler with Caddy's header handler in front of it, which sets
// the fields before it or, deferred, when the header is sent.
func behindHeader(t *testing.T, h *Handler, up caddyhttp.HandlerFunc, deferred bool, set http.Header) *httptest.ResponseRecorder {
	t.Helper()
	front := headers.Handler{Response: &headers.RespHeaderOps{HeaderOps: &headers.HeaderOps{Set: set}, Deferred: deferred}}
	w := httptest.NewRecorder()
	if err := front.ServeHTTP(w, request(t.Context(), "/"), caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return h.ServeHTTP(w, r, up)
	})); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestWhatIsSaidInFrontForbids, and never allows.
func TestWhatIsSaidInFrontForbids(t *testing.T) {
	for name, tt := range map[string]struct {
		set    http.Header
		forbid bool
	}{
		"no-store":             {http.Header{"Cache-Control": {"private, no-store"}}, true},
		"private":              {http.Header{"Cache-Control": {"private"}}, true},
		"no-cache":             {http.Header{"Cache-Control": {"no-cache"}}, true},
		"to CDNs":              {http.Header{"Cdn-Cache-Control": {"no-store"}}, true},
		"to browsers only":     {http.Header{"Cache-Control": {"private"}, "Groupcache-Cache-Control": {"max-age=1"}}, false},
		"how long it is fresh": {http.Header{"Cache-Control": {"public, max-age=1"}}, false},
		"nothing":              {http.Header{"X-A": {"b"}}, false},
	} {
		for _, deferred := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", deferred"}[deferred], func(t *testing.T) {
				h := newHandler(t, newLoneNode(t), func(h *Handler) { h.TTL = []TTL{{Duration: caddy.Duration(1e12)}} })
				var calls atomic.Int64
				up := fixed(&calls, "hello")
				for range 2 {
					if w := behindHeader(t, h, up, deferred, tt.set); w.Body.String() != "hello" {
						t.Errorf("%d %q", w.Code, w.Body)
					}
				}
				if stored := calls.Load() == 1; stored == tt.forbid {
					t.Errorf("stored: %v", stored)
				}
			})
		}
	}
	h := newHandler(t, newLoneNode(t), nil)
	for range 2 {
		w := behindHeader(t, h, fixed(new(atomic.Int64), "hello"), false, http.Header{"Cache-Control": {"public, max-age=60"}})
		wantStatus(t, w, "detail=no-freshness")
	}
	wantStatus(t, behindHeader(t, h, fixed(new(atomic.Int64), "hello"), false, http.Header{"Cache-Control": {"private"}}), "fwd=bypass; fwd-status=200; detail=in-front")
}

// TestExplainKnowsOfTheFront: what a handler in front has said is why nothing is stored, and
// not that nobody has asked.
func TestExplainKnowsOfTheFront(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	behindHeader(t, h, fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=60"), false, http.Header{"Cache-Control": {"no-store"}})
	g, err := explainGroup(t.Context(), h, http.MethodGet, "http://example.com/", nil)
	if err != nil || g.Verdict != "fetch" || g.Reason != "in-front" || g.Cause != "Cache-Control: no-store" {
		t.Errorf("%v: %s, %s, %s", err, g.Verdict, g.Reason, g.Cause)
	}
}

// TestLinesOfTheFrontStayThere: what the handlers behind append to is stored without
// the lines of the front, and appended on hits.
func TestLinesOfTheFrontStayThere(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "X-A", "theirs", "Vary", "X-B")
	set := http.Header{"X-A": {"mine"}, "Vary": {"Origin"}}
	for range 2 {
		if w := behindHeader(t, h, up, false, set); !slices.Equal(w.Header()["X-A"], []string{"mine", "theirs"}) || !slices.Equal(w.Header()["Vary"], []string{"Origin", "X-B"}) {
			t.Errorf("with the front: %v", w.Header())
		}
	}
	if w := do(h, up, request(t.Context(), "/")); !slices.Equal(w.Header()["X-A"], []string{"theirs"}) || calls.Load() != 1 {
		t.Errorf("without: %v, %d fetches", w.Header(), calls.Load())
	}
}

// TestWhatIsDeletedBehindIsOnNoHit.
func TestWhatIsDeletedBehindIsOnNoHit(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	deleting := func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Del("X-Frame-Options")
		return up(w, r)
	}
	for range 2 {
		w := behindHeader(t, h, deleting, false, http.Header{"X-Frame-Options": {"DENY"}})
		wantStatus(t, w, "in-front")
		if len(w.Header()["X-Frame-Options"]) > 0 {
			t.Errorf("%v", w.Header())
		}
	}
}
