package caddygroupcache

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestStaleWhileRevalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			n := calls.Add(1)
			time.Sleep(time.Second)
			if r.URL.Path != "/rewritten" || requestURI(r) != "/a" || r.Header.Get("If-None-Match") != "" || caddyhttp.GetVar(r.Context(), "var") != "value" {
				t.Errorf("fetch %d: %s, was %s, %v", n, r.URL, requestURI(r), r.Header)
			}
			return fixed(new(atomic.Int64), strconv.FormatInt(n, 10), "Cache-Control", "max-age=10, stale-while-revalidate=60")(w, r)
		}
		get := func(fields ...string) *httptest.ResponseRecorder {
			r := request(t.Context(), "/a", fields...)
			original := *r
			ctx := context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original)
			ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{"var": "value"})
			r = r.WithContext(ctx)
			rewritten := *r.URL
			rewritten.Path = "/rewritten"
			r.URL = &rewritten
			return do(h, up, r)
		}
		get()
		time.Sleep(20 * time.Second)
		start := time.Now()
		wait := followers(50, func(i int) *httptest.ResponseRecorder {
			if i%2 == 0 {
				return get("If-None-Match", "W/x")
			}
			return get()
		})
		for _, w := range wait() {
			if w.Body.String() != "1" || !strings.Contains(w.Header().Get("Cache-Status"), "hit; ttl=-1") {
				t.Errorf("%q %v", w.Body, w.Header())
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("clients waited %v", time.Since(start))
		}
		time.Sleep(2 * time.Second)
		if w := get(); w.Body.String() != "2" || calls.Load() != 2 {
			t.Errorf("%q after %d fetches", w.Body, calls.Load())
		}
		time.Sleep(time.Hour)
		if w := get(); w.Body.String() != "3" {
			t.Errorf("after the window: %q", w.Body)
		}
	})
}

func TestBackgroundFetchThatPanicsOrIsUncacheableHurtsNobody(t *testing.T) {
	for name, second := range map[string]caddyhttp.HandlerFunc{
		"aborts": func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) },
		"panics": func(http.ResponseWriter, *http.Request) error {
			ExpectedPanics.Add(1)
			panic("a bug")
		},
		"fails": func(http.ResponseWriter, *http.Request) error { return io.ErrUnexpectedEOF },
		"endless": func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(200)
			<-r.Context().Done()
			return r.Context().Err()
		},
		"silent": func(w http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return r.Context().Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, newLoneNode(t), nil)
				var calls atomic.Int64
				do(h, fixed(&calls, "hello", "Cache-Control", "max-age=10, stale-while-revalidate=600"), request(t.Context(), "/a"))
				time.Sleep(20 * time.Second)
				if w := do(h, second, request(t.Context(), "/a")); w.Body.String() != "hello" {
					t.Errorf("%q", w.Body)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if n := h.node.UnderWay().Fills; n != 0 {
					t.Errorf("%d flights are left", n)
				}
			})
		})
	}
}

func TestClusterRefreshesOnceInTheBackground(t *testing.T) {
	c := newCluster(t, 3)
	target := c.target(0)
	var calls atomic.Int64
	goOn := make(chan struct{})
	up := func(w http.ResponseWriter, r *http.Request) error {
		n := calls.Add(1)
		if n > 1 {
			<-goOn
			return fixed(new(atomic.Int64), "new", "Cache-Control", "max-age=600")(w, r)
		}
		return fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=0, stale-while-revalidate=600", "Etag", `"1"`)(w, r)
	}
	do(c.handlers[0], up, request(t.Context(), target))
	for range 5 {
		for i, h := range c.handlers {
			if w := do(h, up, request(t.Context(), target)); w.Body.String() != "old" {
				t.Errorf("node %d: %q", i, w.Body)
			}
		}
	}
	close(goOn)
	for i, h := range c.handlers {
		poll(t, fmt.Sprintf("node %d has the new one", i), func() bool {
			return do(h, up, request(t.Context(), target)).Body.String() == "new"
		})
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
}
