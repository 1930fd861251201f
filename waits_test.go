package caddygroupcache

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// A stuck upstream never answers the first request, and all others at once.
type stuck struct {
	calls   atomic.Int64
	patient bool          // it does not even notice that its client is gone
	release chan struct{} // ends the first request
}

func (u *stuck) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	if u.calls.Add(1) > 1 {
		return fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=60")(w, r)
	}
	gone := r.Context().Done()
	if u.patient {
		gone = nil
	}
	select {
	case <-gone:
		return r.Context().Err()
	case <-u.release:
		return nil
	}
}

// TestNobodyWaitsLongerThanAFillMayTake: for an upstream that never answers the first
// request, wherever that came to, and wherever and whenever the others come.
func TestNobodyWaitsLongerThanAFillMayTake(t *testing.T) {
	const within = 2 * time.Second
	for leader := range 3 { // node 0 owns the key
		for _, patient := range []bool{true, false} {
			t.Run(fmt.Sprintf("leader on node %d, patient %v", leader, patient), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBubble(t, 3, func(h *Handler) { h.FillTimeout = caddy.Duration(within) })
					url, up := b.urlOf(b.nodes[0]), &stuck{patient: patient, release: make(chan struct{})}
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						do(b.nodes[leader].handler, up.ServeHTTP, request(t.Context(), url))
					}()
					b.settle()
					wait := followers(60, func(i int) *httptest.ResponseRecorder {
						time.Sleep(time.Duration(i/3) * 100 * time.Millisecond) // the last one comes shortly before the end
						start := time.Now()
						w := do(b.nodes[i%3].handler, up.ServeHTTP, request(t.Context(), url))
						if took := time.Since(start); took > within+100*time.Millisecond {
							t.Errorf("client %d on node %d waited %v", i, i%3, took)
						}
						return w
					})
					for i, w := range wait() {
						if w.Code != http.StatusOK || w.Body.String() != "hello" {
							t.Errorf("client %d on node %d: %d %q (%s)", i, i%3, w.Code, w.Body, w.Header().Get("Cache-Status"))
						}
					}
					for i, m := range b.nodes {
						wantStatus(t, do(m.handler, up.ServeHTTP, request(t.Context(), url)), "hit")
						if n := m.UnderWay(); n.Fills+n.Asks != 0 {
							t.Errorf("%+v is left on node %d", n, i)
						}
					}
					close(up.release)
					<-ended
					b.settle()
				})
			})
		}
	}
}

// TestFollowersTellThatTheyHaveWaited: the end of a wait has a name.
func TestFollowersTellThatTheyHaveWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, up := newHandler(t, newLoneNode(t), nil), &stuck{release: make(chan struct{})}
		go do(h, up.ServeHTTP, request(t.Context(), "/a"))
		synctest.Wait()
		wantStatus(t, do(h, up.ServeHTTP, request(t.Context(), "/a")), "fwd=uri-miss; fwd-status=200; stored; detail=fill-timeout")
		close(up.release)
	})
}

// TestLeaseEndsWithTheTimeOfItsFill: on the owner's side, whatever its holder does, as long
// as that said the fill may take, or as a fill takes by default.
func TestLeaseEndsWithTheTimeOfItsFill(t *testing.T) {
	for said, want := range map[time.Duration]time.Duration{
		3 * time.Second:         3 * time.Second,
		0:                       node.DefaultFillTimeout,
		time.Microsecond:        time.Microsecond,
		node.DefaultFillTimeout: node.DefaultFillTimeout,
	} {
		t.Run(said.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 2, nil)
				owner, holder := b.nodes[0], b.nodes[1]
				k, _ := keyOf(owner.handler, request(t.Context(), b.urlOf(owner)))
				query := peer.NewQuery(defaultGroup, k, nil, nil)
				query.Lead, query.Within = true, said
				start := time.Now()
				reply, err := holder.Client.Lookup(context.Background(), owner.addr, query, time.Second)
				if err != nil || reply.Kind != peer.Lease {
					t.Fatalf("%+v, %v", reply, err)
				}
				for owner.UnderWay().Fills > 0 {
					time.Sleep(min(max(time.Until(start.Add(want)), time.Millisecond), time.Hour))
				}
				if took := time.Since(start); took > want+10*time.Millisecond {
					t.Errorf("the lease lasted %v", took)
				}
				reply.Close()
				b.settle()
			})
		})
	}
}

// TestResponseThatTricklesInEndsWithItsTime: the followers on all nodes are served to the
// end, from elsewhere.
func TestResponseThatTricklesInEndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, func(h *Handler) { h.FillTimeout = caddy.Duration(2 * time.Second) })
		url, whole := b.urlOf(b.nodes[0]), strings.Repeat("0123456789", 10)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			if calls.Add(1) > 1 {
				return fixed(new(atomic.Int64), whole, "Cache-Control", "max-age=60", "Etag", `"1"`)(w, r)
			}
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Etag", `"1"`)
			for i := range whole {
				if _, err := w.Write([]byte(whole[i : i+1])); err != nil {
					return err
				}
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}
		wait := followers(9, func(i int) *httptest.ResponseRecorder {
			time.Sleep(time.Duration(i) * 10 * time.Millisecond)
			start := time.Now()
			w := do(b.nodes[(i+1)%3].handler, up, request(t.Context(), url))
			if took := time.Since(start); i > 0 && took > 2100*time.Millisecond {
				t.Errorf("client %d took %v", i, took)
			}
			return w
		})
		for i, w := range wait() {
			if w.Code != http.StatusOK || w.Body.String() != whole {
				t.Errorf("client %d: %d %q (%s)", i, w.Code, w.Body, w.Header().Get("Cache-Status"))
			}
		}
		b.settle()
		for i, m := range b.nodes {
			if n := m.UnderWay(); n != (node.UnderWay{}) {
				t.Errorf("node %d: %+v is left", i, n)
			}
		}
	})
}

// TestNobodyWaitsLongerForAChunk: for one that another request is to get from an
// upstream that never answers.
func TestNobodyWaitsLongerForAChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLoneNode(t)
		h := newHandler(t, n, func(h *Handler) { h.FillTimeout = caddy.Duration(2 * time.Second) })
		body := randomBody(3 << 20)
		do(h, whole206(body), request(t.Context(), "/a"))
		forget(t, n, h, "/a", 2)
		up := &stuck{patient: true, release: make(chan struct{})}
		first := make(chan struct{})
		go func() {
			defer close(first)
			do(h, up.ServeHTTP, request(t.Context(), "/a", farPart...))
		}()
		synctest.Wait()
		wait := followers(10, func(int) *httptest.ResponseRecorder {
			start := time.Now()
			w := do(h, whole206(body), request(t.Context(), "/a", farPart...))
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("a client waited %v", took)
			}
			return w
		})
		for _, w := range wait() {
			if w.Code != http.StatusPartialContent || w.Body.String() != string(body[2500000:2500010]) {
				t.Errorf("%d, %d bytes (%s)", w.Code, w.Body.Len(), w.Header().Get("Cache-Status"))
			}
		}
		close(up.release)
		<-first
	})
}

// TestNodesDoNotWaitForASlowClient: a client that takes no header, as one of HTTP/3 may, keeps
// from no other node what was fetched for it.
func TestNodesDoNotWaitForASlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 2)
		target := c.target(1)
		var calls atomic.Int64
		up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
		slow := &stalledClient{ResponseRecorder: httptest.NewRecorder(), takes: make(chan struct{})}
		var all sync.WaitGroup
		all.Go(func() {
			if err := c.handlers[0].ServeHTTP(slow, request(t.Context(), target), up); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		start := time.Now()
		w := do(c.handlers[1], up, request(t.Context(), target))
		if took := time.Since(start); w.Body.String() != "hello" || took > time.Second || calls.Load() != 1 {
			t.Errorf("%q after %v and %d fetches: %v", w.Body, took, calls.Load(), w.Header())
		}
		close(slow.takes)
		all.Wait()
		if slow.Body.String() != "hello" {
			t.Errorf("the slow client got %q", slow.Body)
		}
	})
}

// A stalledClient takes nothing for a while.
type stalledClient struct {
	*httptest.ResponseRecorder
	takes chan struct{}
}

func (c *stalledClient) Flush() {
	<-c.takes
	c.ResponseRecorder.Flush()
}
