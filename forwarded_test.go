package caddygroupcache

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestForwardedSaysWhy: a request that the cache has no answer for counts by the reason
// that Cache-Status gives.
func TestForwardedSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		up := fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=60", "Etag", `"1"`, "Vary", "X-Kind")
		do(h, up, request(t.Context(), "/a", "X-Kind", "a"))
		do(h, up, request(t.Context(), "/a", "X-Kind", "a")) // a hit
		do(h, up, request(t.Context(), "/a", "X-Kind", "b"))
		do(h, up, request(t.Context(), "/a", "X-Kind", "c"))
		do(h, up, request(t.Context(), "/a", "X-Kind", "a", "Cache-Control", "no-cache"))
		time.Sleep(2 * time.Minute)
		do(h, up, request(t.Context(), "/a", "X-Kind", "b"))
		for i, want := range map[string]int64{"uri-miss": 1, "vary-miss": 2, "request": 1, "stale": 1} {
			for j, name := range forwardNames {
				if name == i && h.counters.forwarded[j].Load() != want {
					t.Errorf("%s: %d, want %d", name, h.counters.forwarded[j].Load(), want)
				}
			}
		}
	})
}
