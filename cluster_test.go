package caddygroupcache

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

func TestClusterFetchesOnceWhoeverAsksFirst(t *testing.T) {
	c := newCluster(t, 3)
	var calls atomic.Int64
	body := strings.Repeat("hello", 50_000)
	up := fixed(&calls, body, "Cache-Control", "max-age=60", "Etag", `"1"`)
	target := c.target(1)
	do(c.handlers[0], up, request(t.Context(), target))
	waitForCommit(t, c.nodes[1], 1)
	for range 5 {
		for i, h := range c.handlers {
			w := do(h, up, request(t.Context(), target))
			wantStatus(t, w, "groupcache; hit; ttl=")
			if w.Body.String() != body {
				t.Errorf("node %d: %d bytes", i, w.Body.Len())
			}
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "detail=local")
}

func TestClusterReadsAlong(t *testing.T) {
	c := newCluster(t, 3)
	var calls atomic.Int64
	begun, goOn := make(chan struct{}), make(chan struct{})
	up := func(w http.ResponseWriter, r *http.Request) error {
		calls.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "first ")
		close(begun)
		<-goOn
		_, err := io.WriteString(w, "second")
		return err
	}
	target := c.target(0)
	wait := followers(30, func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[i%3], up, request(t.Context(), target))
	})
	<-begun
	close(goOn)
	for i, w := range wait() {
		if w.Code != 200 || w.Body.String() != "first second" {
			t.Errorf("client %d of node %d: %d %q", i, i%3, w.Code, w.Body)
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
}

func TestClusterVariesByFieldsThatNobodyExpects(t *testing.T) {
	c := newCluster(t, 3)
	var calls atomic.Int64
	up := func(w http.ResponseWriter, r *http.Request) error {
		return fixed(&calls, r.Header.Get("X-Device"), "Cache-Control", "max-age=60", "Vary", "X-Device")(w, r)
	}
	target := c.target(0)
	for round := range 4 {
		for i, h := range c.handlers {
			for _, device := range []string{"phone", "desk"} {
				w := do(h, up, request(t.Context(), target, "X-Device", device))
				if w.Body.String() != device {
					t.Errorf("round %d, node %d: %q got %q", round, i, device, w.Body)
				}
			}
			waitForCommit(t, c.nodes[0], 2)
		}
	}
	if calls.Load() != 2 {
		t.Errorf("%d fetches for 2 variants", calls.Load())
	}
}

func TestClusterRemembersUncacheable(t *testing.T) {
	c := newCluster(t, 2)
	var calls atomic.Int64
	up := fixed(&calls, "mine", "Cache-Control", "private")
	target := c.target(0)
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "detail=private")
	k, _ := keyOf(c.handlers[0], request(t.Context(), target))
	poll(t, "the owner learns that the URL is uncacheable", func() bool {
		return c.nodes[0].Store.Lookup(k, nil, time.Now()).Uncacheable == rfc9111.Private
	})
	wantStatus(t, do(c.handlers[0], up, request(t.Context(), target)), "detail=private")
	asked := c.nodes[0].Served.Load()
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "detail=private")
	if c.nodes[0].Served.Load() != asked {
		t.Error("a node that knows that the URL is uncacheable asks the owner about it")
	}
	// Cacheable after all: one response shows it, the next one is stored.
	up = fixed(&calls, "everybody's", "Cache-Control", "max-age=60")
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "detail=hit-for-miss")
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "stored")
	waitForCommit(t, c.nodes[0], 1)
	for _, i := range []int{1, 0} {
		wantStatus(t, do(c.handlers[i], up, request(t.Context(), target)), "hit")
	}
}

func TestOwnerThatIsGoneCostsNobodyAnything(t *testing.T) {
	c := newCluster(t, 2)
	c.servers[0].Close()
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	target := c.target(0)
	w := do(c.handlers[1], up, request(t.Context(), target))
	wantStatus(t, w, "stored; detail=peer-error")
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "hit")
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
}

// TestNextStandsInForAnOwnerThatIsGone: requests of all nodes share its flights and leases, and
// it asks the others for copies before it gives one.
func TestNextStandsInForAnOwnerThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 4)
		var calls atomic.Int64
		up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
		var targets []string
		for i := range 60 {
			targets = append(targets, fmt.Sprint("/", i))
		}
		all := func(nodes ...int) {
			t.Helper()
			wait := followers(len(targets)*len(nodes), func(i int) *httptest.ResponseRecorder {
				return do(c.handlers[nodes[i%len(nodes)]], up, request(t.Context(), targets[i/len(nodes)]))
			})
			for _, w := range wait() {
				if w.Body.String() != "hello" {
					t.Errorf("%d %q", w.Code, w.Body)
				}
			}
		}
		time.Sleep(10 * time.Millisecond) // all have heard of each other's purges
		c.servers[3].Close()
		all(0, 1, 2)
		// Two that notice it in the very same moment may both fetch, and are then done with it.
		fetched := int(calls.Load())
		if fetched < len(targets) || fetched > len(targets)+len(targets)/20 {
			t.Errorf("%d fetches of %d pages", fetched, len(targets))
		}
		for i, n := range c.nodes[:3] {
			n.SetRing(c.addrs[:3])
			all(i)
		}
		if n := int(calls.Load()); n != fetched {
			t.Errorf("%d fetches of %d pages after the others know", n, len(targets))
		}
	})
}

func TestNodesThatDisagreeAboutTheRingDoNotWaitForEachOther(t *testing.T) {
	c := newCluster(t, 2)
	// Each believes that the other one owns everything.
	c.nodes[0].SetRing(c.addrs[1:])
	c.nodes[1].SetRing(c.addrs[:1])
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	wait := followers(40, func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[i%2], up, request(t.Context(), "/a"))
	})
	for i, w := range wait() {
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("client %d: %d %q", i, w.Code, w.Body)
		}
	}
	if n := calls.Load(); n > 2 {
		t.Errorf("%d fetches by 2 nodes", n)
	}
}

func TestLeaderThatDiesIsFollowedByAnother(t *testing.T) {
	c := newCluster(t, 2)
	target := c.target(0)
	k, _ := keyOf(c.handlers[0], request(t.Context(), target))
	// A third node gets the lease, and is never heard of again.
	third := peer.NewClient(new(peer.Identity))
	query := peer.NewQuery(defaultGroup, k, nil, nil)
	query.Lead = true
	reply, err := third.Lookup(t.Context(), c.addrs[0], query, patience)
	if err != nil || reply.Kind != peer.Lease {
		t.Fatalf("%v, %v", reply, err)
	}
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	wait := followers(20, func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[i%2], up, request(t.Context(), target))
	})
	// It has asked, and asked again to read along.
	poll(t, "node 1 has joined", func() bool { return c.nodes[0].Served.Load() == 3 })
	if calls.Load() != 0 {
		t.Error("somebody did not wait for the leader")
	}
	reply.Close()
	for i, w := range wait() {
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("client %d: %d %q", i, w.Code, w.Body)
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestUpstreamErrorOnAnotherNodeHoldsUpNobody(t *testing.T) {
	c := newCluster(t, 2)
	target := c.target(0)
	asked, fail := make(chan struct{}), make(chan struct{})
	go do(c.handlers[1], func(http.ResponseWriter, *http.Request) error {
		close(asked)
		<-fail
		return io.ErrUnexpectedEOF
	}, request(t.Context(), target))
	<-asked
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	wait := followers(20, func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[i%2], up, request(t.Context(), target))
	})
	close(fail)
	for i, w := range wait() {
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("client %d: %d %q", i, w.Code, w.Body)
		}
	}
}

func TestNoGoroutineIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("traffic", func(t *testing.T) {
		c := newCluster(t, 3)
		up := func(w http.ResponseWriter, r *http.Request) error {
			switch r.URL.Path[1:2] {
			case "1":
				return io.ErrUnexpectedEOF
			case "2":
				return fixed(new(atomic.Int64), "mine", "Cache-Control", "private")(w, r)
			case "3":
				w.Header().Set("Cache-Control", "max-age=60")
				io.WriteString(w, "partial")
				panic(http.ErrAbortHandler)
			}
			return fixed(new(atomic.Int64), strings.Repeat("x", 100_000), "Cache-Control", "max-age=60")(w, r)
		}
		followers(300, func(i int) *httptest.ResponseRecorder {
			return do(c.handlers[i%3], up, request(t.Context(), fmt.Sprintf("/%d", i%50)))
		})()
		for _, n := range c.nodes {
			poll(t, "no flight and no memory is left", func() bool {
				return n.UnderWay() == (node.UnderWay{})
			})
		}
	})
	poll(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// A request that reads along at the owner when the owner falls silent finds out
// once, by pings, and does not wait for the same node again.
func TestSilentOwnerIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		owner, asker := b.nodes[0], b.nodes[1]
		url := b.urlOf(owner)
		release := make(chan struct{})
		var fetched time.Time
		go do(owner.handler, func(http.ResponseWriter, *http.Request) error {
			<-release
			return nil
		}, request(t.Context(), url))
		b.settle()
		answered := make(chan *httptest.ResponseRecorder)
		go func() {
			answered <- do(asker.handler, func(w http.ResponseWriter, r *http.Request) error {
				fetched = time.Now()
				_, err := io.WriteString(w, "page")
				return err
			}, request(t.Context(), url))
		}()
		b.settle()
		silent := time.Now()
		b.net.part(owner.addr.Addr, asker.addr.Addr, true)
		if w := <-answered; w.Code != 200 || w.Body.String() != "page" {
			t.Errorf("%d %q", w.Code, w.Body)
		}
		// After 300 ms a ping, for 500 ms; see internal/peer.
		if took := fetched.Sub(silent); took > 850*time.Millisecond {
			t.Errorf("it goes to the upstream after %v", took)
		}
		close(release)
		b.net.part(owner.addr.Addr, asker.addr.Addr, false)
		b.settle()
	})
}

// TestOddValuesAreTheSameOnEachNode: what is strange in a field, and breaks nothing, clients get
// from whichever node they ask.
func TestOddValuesAreTheSameOnEachNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 2)
		for owner := range 2 {
			target := c.target(owner)
			const odd = "a\x01\x7f\tb\xff"
			for i, h := range c.handlers {
				w := do(h, fixed(new(atomic.Int64), "page", "Cache-Control", "max-age=60", "X-Odd", odd), request(t.Context(), target))
				again := do(h, fixed(new(atomic.Int64), "page", "Cache-Control", "max-age=60"), request(t.Context(), target))
				if w.Header().Get("X-Odd") != odd || again.Header().Get("X-Odd") != odd {
					t.Errorf("owner %d, node %d: %q, and then %q", owner, i, w.Header()["X-Odd"], again.Header()["X-Odd"])
				}
			}
		}
	})
}
