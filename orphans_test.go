package caddygroupcache

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

// leaving asks for a target and goes away after a time. The result tells when its
// handler is done.
func leaving(t *testing.T, h *Handler, up caddyhttp.Handler, target string, after time.Duration, fields ...string) (done chan struct{}) {
	ctx, leave := context.WithCancel(t.Context())
	time.AfterFunc(after, leave)
	done = make(chan struct{})
	go func() {
		defer close(done)
		do(h, up.ServeHTTP, request(ctx, target, fields...))
	}()
	return done
}

// TestOrphansEnd: a fetch whose client is gone ends after a grace, unless somebody
// follows it, and then after that one is gone too.
func TestOrphansEnd(t *testing.T) {
	for name, test := range map[string]struct {
		follower time.Duration // when it goes away; 0: there is none
		after    time.Duration // the upstream takes
		want     time.Duration // until the upstream's request ends
		stored   bool
	}{
		"nobody follows":                    {0, time.Hour, time.Second + node.OrphanGrace, false},
		"the header comes during the grace": {0, 3 * time.Second, 3 * time.Second, true},
		"somebody follows to the end":       {time.Hour, 20 * time.Second, 20 * time.Second, true},
		"somebody follows for a while":      {8 * time.Second, time.Hour, time.Second + 2*node.OrphanGrace, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, up := newHandler(t, newLoneNode(t), nil), &slow{after: test.after}
				start := time.Now()
				first := leaving(t, h, up, "/a", time.Second)
				synctest.Wait()
				if test.follower > 0 {
					leaving(t, h, up, "/a", test.follower)
				}
				<-first
				if took := time.Since(start); took != test.want || up.asked.Load() != 1 {
					t.Errorf("it took %v, and %d requests", took, up.asked.Load())
				}
				if stored := isStored(h, "/a"); stored != test.stored {
					t.Errorf("stored: %v", stored)
				}
				idle(t, h.node)
				if n := h.node.Orphans.All.Len(); n != 0 {
					t.Errorf("%d orphans are left", n)
				}
			})
		})
	}
}

// TestOrphansAreNamedAndCounted: an operator can see what became of them.
func TestOrphansAreNamedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, up := newHandler(t, newLoneNode(t), nil), &slow{after: time.Hour}
		<-leaving(t, h, up, "/a", time.Second)
		<-leaving(t, h, up, "/b", time.Second, farPart...)
		abandoned := reasonNamed(t, "abandoned")
		if n := h.counters.notStored[abandoned].Load(); n != 2 {
			t.Errorf("%d counted", n)
		}
		for _, target := range []string{"/a", "/b"} {
			k, _ := keyOf(h, request(t.Context(), target))
			if last, _ := h.node.Rejections.Of(k); last.Why != abandoned {
				t.Errorf("%s is explained by %v", target, last.Why)
			}
		}
	})
}

// TestOrphansAreBounded: of many clients that leave at once, few fetches go on, the
// latest ones, and none after the grace.
func TestOrphansAreBounded(t *testing.T) {
	for _, fields := range [][]string{nil, farPart} {
		synctest.Test(t, func(t *testing.T) {
			h, up := newHandler(t, newLoneNode(t), nil), &slow{after: time.Hour}
			ctx, leave := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for i := range 4 * node.MaxOrphans {
				all.Go(func() { do(h, up.ServeHTTP, request(ctx, fmt.Sprint("/", i), fields...)) })
			}
			synctest.Wait()
			leave()
			synctest.Wait()
			if n := up.under.Load(); n != node.MaxOrphans {
				t.Errorf("%d requests go on at once, want %d", n, node.MaxOrphans)
			}
			time.Sleep(node.OrphanGrace)
			synctest.Wait()
			if n := up.under.Load(); n != 0 {
				t.Errorf("%d requests go on after the grace", n)
			}
			all.Wait()
			idle(t, h.node)
		})
	}
}

// TestOrphansOfSlicesEnd: what is asked for in parts, too.
func TestOrphansOfSlicesEnd(t *testing.T) {
	body := randomBody(3 << 20)
	for name, stored := range map[string]bool{"the first chunk": false, "a chunk that is gone": true} {
		for _, followed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, followed %v", name, followed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHandler(t, newLoneNode(t), nil)
					if stored {
						do(h, whole206(body), request(t.Context(), "/a"))
						forget(t, h.node, h, "/a", 2)
					}
					up := &slow{after: 20 * time.Second, answer: whole206(body)}
					start := time.Now()
					first := leaving(t, h, up, "/a", time.Second, farPart...)
					synctest.Wait()
					wait := followers(1, func(int) *httptest.ResponseRecorder { return httptest.NewRecorder() })
					want := time.Second + node.OrphanGrace
					if followed {
						want = 20 * time.Second
						wait = followers(1, func(int) *httptest.ResponseRecorder {
							return do(h, up.ServeHTTP, request(t.Context(), "/a", farPart...))
						})
					}
					poll(t, "the first request to the upstream ends", func() bool {
						synctest.Wait()
						time.Sleep(time.Second)
						return up.under.Load() == 0 || up.asked.Load() > 1
					})
					if took := time.Since(start); took < want || took > want+2*time.Second {
						t.Errorf("it ended after %v, want %v", took, want)
					}
					<-first
					if w := wait()[0]; followed && w.Body.String() != string(body[2500000:2500010]) {
						t.Errorf("the follower got %d, %d bytes", w.Code, w.Body.Len())
					}
					idle(t, h.node)
				})
			})
		}
	}
}

// TestOrphanUnderALease: the fetch goes on as long as somebody waits for it at the owner,
// or by way of it. When that one is gone too, it ends, and the next client leads.
func TestOrphanUnderALease(t *testing.T) {
	for name, fields := range map[string][]string{"the whole": nil, "the first chunk": farPart} {
		for waits := range 3 { // on node 1 nobody but the client that leaves
			t.Run(fmt.Sprintf("%s, node %d waits", name, waits), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBubble(t, 3, nil)
					body := randomBody(3 << 20)
					url, up := b.urlOf(b.nodes[0]), &slow{after: 20 * time.Second, answer: whole206(body)}
					first := leaving(t, b.nodes[1].handler, up, url, time.Second, fields...)
					b.settle()
					start := time.Now()
					if waits != 1 {
						time.AfterFunc(node.OrphanGrace+2*time.Second, func() {
							if n := up.ended.Load(); n != 0 {
								t.Errorf("%d requests to the upstream ended although somebody waits", n)
							}
						})
						w := do(b.nodes[waits].handler, up.ServeHTTP, request(t.Context(), url, fields...))
						if w.Body.Len() == 0 || time.Since(start) > 41*time.Second { // the part may be one more request
							t.Errorf("%d, %d bytes after %v", w.Code, w.Body.Len(), time.Since(start))
						}
						<-first
						return
					}
					<-first
					if took := time.Since(start); took > 7*time.Second || up.ended.Load() != 1 {
						t.Errorf("it ended after %v", took)
					}
					b.settle()
					for _, m := range b.nodes {
						idle(t, m.Node)
					}
					if w := do(b.nodes[2].handler, up.ServeHTTP, request(t.Context(), url, fields...)); w.Body.Len() == 0 {
						t.Errorf("the next client got %d", w.Code)
					}
				})
			})
		}
	}
}

// TestWaitersForAnOrphanLeave: the fetch ends soon after the last of them, on whatever
// node.
func TestWaitersForAnOrphanLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		url, up := b.urlOf(b.nodes[0]), &slow{after: time.Hour}
		first := leaving(t, b.nodes[1].handler, up, url, time.Second)
		b.settle()
		for i := range 20 {
			leaving(t, b.nodes[i%2*2].handler, up, url, time.Duration(i)*time.Second)
		}
		start := time.Now()
		<-first
		// The node of the last one notices it after a grace, and the leader after another.
		if took := time.Since(start); up.asked.Load() != 1 || took < 19*time.Second || took > 19*time.Second+3*node.OrphanGrace {
			t.Errorf("%d requests, the first ended after %v", up.asked.Load(), took)
		}
		b.settle()
		for _, m := range b.nodes {
			idle(t, m.Node)
		}
	})
}

// TestClientOfAnAnswerThatHasBegunMayLeave: what has begun to come is stored, as ever.
func TestClientOfAnAnswerThatHasBegunMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		up := func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Cache-Control", "max-age=60")
			for range 30 {
				if _, err := io.WriteString(w, "x"); err != nil || r.Context().Err() != nil {
					return r.Context().Err()
				}
				time.Sleep(time.Second)
			}
			return nil
		}
		<-leaving(t, h, caddyhttp.HandlerFunc(up), "/a", time.Second)
		if !isStored(h, "/a") {
			t.Error("it is not stored")
		}
	})
}
