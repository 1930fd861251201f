package caddygroupcache

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

func TestBypass(t *testing.T) {
	var calls atomic.Int64
	h := newHandler(t, newLoneNode(t), nil)
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	do(h, up, request(t.Context(), "/a"))
	for name, change := range map[string]func(*http.Request){
		"fwd=method; fwd-status=200; detail=method": func(r *http.Request) { r.Method = http.MethodPost },
		"detail=upgrade": func(r *http.Request) {
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Connection", "Upgrade")
		},
		"detail=request-body": func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
		},
		"detail=connection":       func(r *http.Request) { r.Header.Set("Connection", "close, Accept-Language") },
		"detail=request-no-store": func(r *http.Request) { r.Header.Set("Cache-Control", "no-store") },
		"detail=bad-target":       func(r *http.Request) { r.Host = "" },
	} {
		r := request(t.Context(), "/a")
		change(r)
		before := calls.Load()
		wantStatus(t, do(h, up, r), name)
		if calls.Load() != before+1 {
			t.Errorf("%s: the upstream was not asked", name)
		}
	}
}

// TestUncacheableURLBecomesCacheable: whatever the header of its responses said, and
// not what only a whole body shows, which would be looked at in vain each time.
func TestUncacheableURLBecomesCacheable(t *testing.T) {
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{[]string{"Cache-Control", "private"}, "stored"},
		{[]string{"Cache-Control", "max-age=60", "Set-Cookie", "a=b"}, "stored"},
		{[]string{"Cache-Control", "max-age=60", "Vary", "*"}, "stored"},
		{[]string{"Cache-Control", "max-age=60", "Trailer", "X-Sum"}, "detail=hit-for-miss"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), nil)
			var calls atomic.Int64
			up := fixed(&calls, "mine", c.fields...)
			for range 3 {
				if w := do(h, up, request(t.Context(), "/a")); w.Body.String() != "mine" || len(w.Header()["Cache-Status"]) != 1 {
					t.Errorf("%v: %q, %v", c.fields, w.Body, w.Header())
				}
			}
			up = fixed(&calls, "everybody's", "Cache-Control", "max-age=60")
			wantStatus(t, do(h, up, request(t.Context(), "/a")), "detail=hit-for-miss")
			wantStatus(t, do(h, up, request(t.Context(), "/a")), c.want)
			time.Sleep(node.UncacheableFor)
			w := do(h, up, request(t.Context(), "/a"))
			if w.Body.String() != "everybody's" {
				t.Errorf("%v: %q", c.fields, w.Body)
			}
			wantStatus(t, do(h, up, request(t.Context(), "/a")), "hit")
		})
	}
}

// TestPassedOnForItsOwnReason: whatever the response before it said, and however soon
// after that it comes.
func TestPassedOnForItsOwnReason(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	for i, c := range []struct {
		status int
		lines  []string // of Cache-Control
		want   string
	}{
		{http.StatusOK, []string{"private"}, "private"}, // not yet passed on
		{http.StatusOK, []string{"private"}, "private"},
		{http.StatusPartialContent, []string{"private"}, "partial"},
		{http.StatusOK, []string{"no-store"}, "no-store"},
		{http.StatusOK, []string{"no-store", "private"}, "no-store"},
		{http.StatusOK, []string{"private"}, "private"},
		{http.StatusOK, []string{"private"}, "private"},
		{http.StatusOK, nil, "no-freshness"},
	} {
		up := func(w http.ResponseWriter, _ *http.Request) error {
			w.Header()["Cache-Control"] = c.lines
			w.WriteHeader(c.status)
			_, err := w.Write([]byte("mine"))
			return err
		}
		was := h.counters.notStored[reasonNamed(t, c.want)].Load()
		wantStatus(t, do(h, up, request(t.Context(), "/a")), "detail="+c.want)
		if got := h.counters.notStored[reasonNamed(t, c.want)].Load() - was; got != 1 {
			t.Errorf("%d: %d counted as %s", i, got, c.want)
		}
	}
}

// TestErrorsAreTold: an error of the handlers behind the cache, of which Caddy makes a
// response, is told and counted like a response.
func TestErrorsAreTold(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	do(h, fixed(&calls, "mine", "Cache-Control", "private"), request(t.Context(), "/private"))
	noStore := request(t.Context(), "/a", "Cache-Control", "no-store")
	conditional := request(t.Context(), "/a", "If-None-Match", `"1"`)
	post := request(t.Context(), "/a")
	post.Method = http.MethodPost
	for _, c := range []struct {
		r      *http.Request
		want   string
		status cacheStatus
	}{
		{request(t.Context(), "/a"), "groupcache; fwd=uri-miss; detail=aborted", statusMiss},
		{conditional, "groupcache; fwd=uri-miss; detail=aborted", statusMiss},
		{request(t.Context(), "/private"), "groupcache; fwd=uri-miss; detail=hit-for-miss", statusMiss},
		{noStore, "groupcache; fwd=bypass; detail=request-no-store", statusBypass},
		{post, "groupcache; fwd=method; detail=method", statusBypass},
	} {
		counted := h.counters.requests[c.status].Load()
		w := do(h, func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Tried", "yes")
			return caddyhttp.Error(http.StatusBadGateway, errors.New("no upstream"))
		}, c.r)
		if got := w.Header()["Cache-Status"]; !slices.Equal(got, []string{c.want}) || w.Header().Get("X-Tried") != "yes" {
			t.Errorf("%s %s: %q, want %q; %v", c.r.Method, c.r.URL, got, c.want, w.Header())
		}
		if got := replacer(c.r).ReplaceAll("{http.groupcache.status}", ""); got != statusNames[c.status] {
			t.Errorf("%s %s: placeholder %q", c.r.Method, c.r.URL, got)
		}
		if got := h.counters.requests[c.status].Load(); got != counted+1 {
			t.Errorf("%s %s: counted %d times", c.r.Method, c.r.URL, got-counted)
		}
	}
}

// TestPassedOnIsToldOnce: what is passed on for a URL known to be uncacheable is
// counted, and explained, like what was fetched before it was known.
func TestPassedOnIsToldOnce(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	r := request(t.Context(), "/a")
	k, _ := keyOf(h, r)
	var calls atomic.Int64
	for _, c := range []struct {
		up  caddyhttp.HandlerFunc
		why rfc9111.Reason
		end fillResult
	}{
		{fixed(&calls, "mine", "Cache-Control", "private"), rfc9111.Private, fillNotStored},
		{fixed(&calls, "mine", "Cache-Control", "no-store"), rfc9111.NoStore, fillNotStored},
		{func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }, rfc9111.Aborted, fillFailed},
		{func(http.ResponseWriter, *http.Request) error { return errors.New("no upstream") }, rfc9111.Aborted, fillFailed},
		{func(http.ResponseWriter, *http.Request) error { return nil }, rfc9111.Aborted, fillFailed},
	} {
		refused, ended := h.counters.notStored[c.why].Load(), h.counters.fills[c.end].Load()
		w := do(h, c.up, request(t.Context(), "/a"))
		if last, _ := h.node.Rejections.Of(k); last.Why != c.why {
			t.Errorf("explained by %v, want %v", last.Why, c.why)
		}
		if h.counters.notStored[c.why].Load() != refused+1 || h.counters.fills[c.end].Load() != ended+1 {
			t.Errorf("%v: %d refused, want %d; %d ended so, want %d", c.why, h.counters.notStored[c.why].Load(), refused+1, h.counters.fills[c.end].Load(), ended+1)
		}
		if w.Code == 200 && len(w.Header()["Cache-Status"]) != 1 {
			t.Errorf("%v: Cache-Status is %q", c.why, w.Header()["Cache-Status"])
		}
	}
}

func TestH2CChangesNothingForOthers(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		c := newCluster(t, nodes)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			for _, name := range []string{"Upgrade", "Http2-Settings", "Connection"} {
				if lines := r.Header[name]; len(lines) > 0 {
					t.Errorf("nodes: %d: the upstream gets %s: %q", nodes, name, lines)
				}
			}
			return fixed(&calls, "hello", "Cache-Control", "max-age=60")(w, r)
		}
		h2c := []string{"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"}
		for i, fields := range [][]string{h2c, h2c, nil, {"Upgrade", "websocket"}} {
			w := do(c.handlers[i%nodes], up, request(t.Context(), "/a", fields...))
			if calls.Load() != 1 || w.Body.String() != "hello" {
				t.Errorf("nodes: %d, %v: %q after %d fetches", nodes, fields, w.Body, calls.Load())
			}
		}
		private := fixed(&calls, "hello", "Cache-Control", "private")
		for range 2 { // the second is passed on
			w := do(c.handlers[0], private, request(t.Context(), "/private", h2c...))
			wantStatus(t, w, "detail=private")
		}
	}
}
