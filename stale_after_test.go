package caddygroupcache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// staleAfter gives the handlers of a cluster a stale after.
func (c *testCluster) staleAfter(d time.Duration) {
	for _, h := range c.handlers {
		h.Stale = &Stale{After: caddy.Duration(d)}
	}
}

// hanging is an upstream that counts its requests and answers none.
func hanging(calls *atomic.Int64) caddyhttp.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) error {
		calls.Add(1)
		<-r.Context().Done()
		return caddyhttp.Error(504, r.Context().Err())
	}
}

func TestSlowUpstreamIsStoodInFor(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for name, tt := range map[string]struct {
			directives string
			fields     []string
			method     string
			waits      bool // for the upstream, however long it takes
		}{
			"as the response allows":          {directives: "max-age=1, stale-if-error=600"},
			"HEAD":                            {directives: "max-age=1, stale-if-error=600", method: http.MethodHead},
			"a condition of the client":       {directives: "max-age=1, stale-if-error=600", fields: []string{"If-None-Match", `"0"`}},
			"not allowed":                     {directives: "max-age=1", waits: true},
			"must-revalidate":                 {directives: "max-age=1, must-revalidate, stale-if-error=600", waits: true},
			"a client that wants a new one":   {directives: "max-age=1, stale-if-error=600", fields: []string{"Cache-Control", "no-cache"}, waits: true},
			"credentials":                     {directives: "max-age=1, stale-if-error=600", fields: []string{"Authorization", "alice"}, waits: true},
			"what is one client's validation": {directives: "max-age=0, stale-if-error=600", waits: true},
		} {
			t.Run(fmt.Sprintf("%s, nodes: %d", name, nodes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newClusterInBubble(t, nodes)
					c.staleAfter(200 * time.Millisecond)
					target := c.target(0)
					do(c.handlers[0], fixed(new(atomic.Int64), "old", "Cache-Control", tt.directives, "Etag", `"1"`), request(t.Context(), target))
					time.Sleep(10 * time.Second)
					var calls atomic.Int64
					slow := func(w http.ResponseWriter, r *http.Request) error {
						time.Sleep(5 * time.Second)
						return fixed(&calls, "new", "Cache-Control", "max-age=600")(w, r)
					}
					wait := followers(6*nodes, func(i int) *httptest.ResponseRecorder {
						start := time.Now()
						r := request(t.Context(), target, tt.fields...)
						if tt.method != "" {
							r.Method = tt.method
						}
						w := do(c.handlers[i%nodes], slow, r)
						stood, took := strings.Contains(w.Header().Get("Cache-Status"), "detail=slow"), time.Since(start)
						if stood == tt.waits || stood && (took > 250*time.Millisecond || w.Header().Get("Etag") != `"1"`) {
							t.Errorf("node %d after %v: %q %s", i%nodes, took, w.Body, w.Header().Get("Cache-Status"))
						}
						return w
					})
					wait()
					if tt.waits {
						return
					}
					time.Sleep(6 * time.Second)
					for i, h := range c.handlers {
						if w := do(h, slow, request(t.Context(), target)); w.Body.String() != "new" {
							t.Errorf("node %d, later: %q %s", i, w.Body, w.Header().Get("Cache-Status"))
						}
					}
					if n := calls.Load(); n != 1 {
						t.Errorf("%d fetches", n)
					}
				})
			})
		}
	}
}

// TestQuickAnswerGoesBeforeStale: who may be served stale after a while gets what comes
// before that, also what is not stored.
func TestQuickAnswerGoesBeforeStale(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for name, tt := range map[string]struct {
			directives, etag string
			calls            int64
			status           string
		}{
			"stored":     {"max-age=600", `"2"`, 1, "ttl="},
			"its own":    {"private", `"2"`, 2, "detail="}, // the first shows that each request needs its own
			"not stored": {"no-store", `"2"`, 2, "detail="},
		} {
			t.Run(fmt.Sprintf("%s, nodes: %d", name, nodes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newClusterInBubble(t, nodes)
					c.staleAfter(200 * time.Millisecond)
					target := c.target(0)
					do(c.handlers[0], fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=1, stale-if-error=600", "Etag", `"1"`), request(t.Context(), target))
					time.Sleep(10 * time.Second)
					var calls atomic.Int64
					for i, h := range c.handlers {
						w := do(h, fixed(&calls, "new", "Cache-Control", tt.directives, "Etag", tt.etag), request(t.Context(), target))
						if w.Body.String() != "new" {
							t.Errorf("node %d: %q %s", i, w.Body, w.Header().Get("Cache-Status"))
						}
					}
					if n := calls.Load(); tt.calls == 1 && n != 1 || n > tt.calls+int64(nodes)-1 {
						t.Errorf("%d fetches", n)
					}
				})
			})
		}
	}
}

// TestFailureIsRememberedForASecond: of those who may be served stale, one a second asks
// in the whole cluster; the others wait for nothing.
func TestFailureIsRememberedForASecond(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for _, after := range []time.Duration{0, 200 * time.Millisecond} {
			for name, down := range outages {
				for _, directives := range []string{"max-age=1, stale-if-error=600", "max-age=1, stale-while-revalidate=600"} {
					t.Run(fmt.Sprintf("%s, nodes: %d, after: %v, %s", name, nodes, after, directives), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							c := newClusterInBubble(t, nodes)
							c.staleAfter(after)
							target := c.target(0)
							do(c.handlers[0], fixed(new(atomic.Int64), "old", "Cache-Control", directives), request(t.Context(), target))
							time.Sleep(10 * time.Second)
							var calls atomic.Int64
							failing := func(w http.ResponseWriter, r *http.Request) error {
								calls.Add(1)
								return down(w, r)
							}
							start := time.Now()
							for i := 0; time.Since(start) < 5*time.Second; i++ {
								w := do(c.handlers[i%nodes], failing, request(t.Context(), target))
								if w.Code != 200 || w.Body.String() != "old" {
									t.Errorf("node %d: %d %q %s", i%nodes, w.Code, w.Body, w.Header().Get("Cache-Status"))
								}
								time.Sleep(10 * time.Millisecond)
							}
							if n := calls.Load(); n < 4 || n > 6 {
								t.Errorf("%d fetches in 5s", n)
							}
							time.Sleep(time.Second)
							up := fixed(new(atomic.Int64), "new", "Cache-Control", "max-age=600")
							do(c.handlers[nodes-1], up, request(t.Context(), target))
							time.Sleep(time.Second)
							if w := do(c.handlers[0], up, request(t.Context(), target)); w.Body.String() != "new" {
								t.Errorf("after the outage: %q", w.Body)
							}
						})
					})
				}
			}
		}
	}
}

// TestFailureIsEachClientsWhereNothingMayStandIn: then a failure is not remembered.
func TestFailureIsEachClientsWhereNothingMayStandIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 1)
		h := c.handlers[0]
		do(h, fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=1"), request(t.Context(), "/a"))
		time.Sleep(10 * time.Second)
		do(h, outages["no connection"], request(t.Context(), "/a"))
		if w := do(h, fixed(new(atomic.Int64), "new", "Cache-Control", "max-age=1"), request(t.Context(), "/a")); w.Body.String() != "new" {
			t.Errorf("%d %q", w.Code, w.Body)
		}
	})
}

// TestHangingUpstream: nobody waits for it longer than stale after, and it is not asked
// more than once in each fill_timeout.
func TestHangingUpstream(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes: %d", nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClusterInBubble(t, nodes)
				c.staleAfter(200 * time.Millisecond)
				target := c.target(0)
				do(c.handlers[0], fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=1, stale-if-error=600"), request(t.Context(), target))
				time.Sleep(10 * time.Second)
				var calls atomic.Int64
				begin := time.Now()
				for i := 0; time.Since(begin) < 150*time.Second; i++ {
					start := time.Now()
					w := do(c.handlers[i%nodes], hanging(&calls), request(t.Context(), target))
					if took := time.Since(start); w.Body.String() != "old" || took > 250*time.Millisecond {
						t.Fatalf("node %d, %v: %d %q after %v, %s", i%nodes, start.Sub(begin), w.Code, w.Body, took, w.Header().Get("Cache-Status"))
					}
					time.Sleep(100 * time.Millisecond)
				}
				if n := calls.Load(); n > 3 {
					t.Errorf("%d fetches", n)
				}
				time.Sleep(2 * time.Minute)
			})
		})
	}
}

// TestWaitOutlastsItsFlight: a refresh whose leader is lost while a request waits for it
// makes the request wait no longer.
func TestWaitOutlastsItsFlight(t *testing.T) {
	const after = 200 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 3)
		c.staleAfter(after)
		target := c.target(0)
		do(c.handlers[0], fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=1, stale-if-error=600"), request(t.Context(), target))
		do(c.handlers[1], fixed(new(atomic.Int64), "other"), request(t.Context(), target)) // it has a copy now
		time.Sleep(10 * time.Second)
		do(c.handlers[0], hanging(new(atomic.Int64)), request(t.Context(), target)) // the owner leads
		time.AfterFunc(after/2, func() { c.servers[0].Close() })
		start := time.Now()
		w := do(c.handlers[1], hanging(new(atomic.Int64)), request(t.Context(), target))
		if took := time.Since(start); w.Body.String() != "old" || took > after {
			t.Errorf("%d %q after %v, %s", w.Code, w.Body, took, w.Header().Get("Cache-Status"))
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestPurgeWhileWaitingHolds: what is purged while a request waits for a slow upstream does
// not stand in any more.
func TestPurgeWhileWaitingHolds(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for asked := range nodes {
			t.Run(fmt.Sprintf("nodes: %d, asked: %d", nodes, asked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newClusterInBubble(t, nodes)
					c.staleAfter(200 * time.Millisecond)
					target := c.target(0)
					do(c.handlers[asked], fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=1, stale-if-error=600"), request(t.Context(), target))
					time.Sleep(10 * time.Second)
					slow := func(w http.ResponseWriter, r *http.Request) error {
						time.Sleep(time.Second)
						return fixed(new(atomic.Int64), "new", "Cache-Control", "max-age=600")(w, r)
					}
					wait := followers(3, func(int) *httptest.ResponseRecorder {
						return do(c.handlers[asked], slow, request(t.Context(), target))
					})
					time.Sleep(100 * time.Millisecond)
					c.handlers[0].node.Purger.Invalidate(store.NewPurgeID(), c.handlers[0].space, []store.Selector{{Kind: store.All}}, time.Second)
					for _, w := range wait() {
						if w.Body.String() != "new" {
							t.Errorf("%q %s", w.Body, w.Header().Get("Cache-Status"))
						}
					}
				})
			})
		}
	}
}
