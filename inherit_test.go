package caddygroupcache

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// newGrowingCluster returns nodes of which the last is not on the others' ring
// yet, and what puts it there.
func newGrowingCluster(t *testing.T, n int) (c *testCluster, grow func()) {
	c = newCluster(t, n)
	for i, node := range c.nodes {
		c.handlers[i].PeerTimeout = caddy.Duration(10 * time.Second) // a busy machine is no dead node
		node.SetRing(c.addrs[:n-1])
		node.Previous.Forget()
	}
	c.nodes[n-1].SetRing(nil)
	return c, func() {
		for _, node := range c.nodes {
			node.SetRing(c.addrs)
		}
	}
}

// movingTargets returns paths that a cluster's last node will own.
func (c *testCluster) movingTargets(n int) (targets []string) {
	grown := peer.NewRing("", c.addrs)
	for i := 0; len(targets) < n; i++ {
		target := fmt.Sprintf("/%d", i)
		k, _ := keyOf(c.handlers[0], request(c.nodes[0].Over, target))
		if owner, _ := grown.Owner(k); owner == grown.Nodes()[len(c.addrs)-1] {
			targets = append(targets, target)
		}
	}
	return targets
}

func TestNewOwnerAsksThePreviousOne(t *testing.T) {
	for _, via := range []struct {
		name  string
		nodes []int // that are asked once the last one owns the keys
	}{{"its own clients", []int{2, 2}}, {"clients of others", []int{0, 1, 2}}} {
		for _, cc := range []string{"max-age=60", "max-age=0"} {
			t.Run(via.name+" "+cc, func(t *testing.T) {
				c, grow := newGrowingCluster(t, 3)
				up := new(variedPage)
				targets := c.movingTargets(20)
				ask := func(node int, target, kind string) {
					t.Helper()
					w := do(c.handlers[node], up.ServeHTTP, request(t.Context(), target+"?cc="+cc, "X-Kind", kind))
					if want := target + " in " + kind; w.Code != 200 || w.Body.String() != want {
						t.Fatalf("%d %q, want %q: %s", w.Code, w.Body, want, w.Header().Get("Cache-Status"))
					}
				}
				for _, target := range targets {
					for _, kind := range []string{"a", "b"} {
						k, _ := keyOf(c.handlers[0], request(t.Context(), target+"?cc="+cc))
						owner := 0
						if o, _ := c.nodes[0].Ring.Load().Owner(k); o == c.nodes[0].Ring.Load().Nodes()[1] {
							owner = 1
						}
						ask(owner, target, kind)
					}
				}
				full := up.full.Load()
				if full != 2*int64(len(targets)) {
					t.Fatalf("%d fetches for %d pages", full, 2*len(targets))
				}
				grow()
				for _, node := range via.nodes {
					for _, target := range targets {
						ask(node, target, "a")
						ask(node, target, "b")
					}
				}
				if n := up.full.Load() - full; n != 0 {
					t.Errorf("%d pages of %d were fetched anew", n, full)
				}
				if cc == "max-age=0" && up.validated.Load() == 0 {
					t.Error("nothing was validated")
				}
			})
		}
	}
}

// What has moved is the new owner's like anything else: a main value, served to
// others, and not asked for again.
func TestWhatHasMovedIsAMainValue(t *testing.T) {
	c, grow := newGrowingCluster(t, 3)
	var calls atomic.Int64
	up := fixed(&calls, strings.Repeat("hello", store.SmallBody), "Cache-Control", "max-age=60")
	targets := c.movingTargets(30)
	for _, target := range targets {
		do(c.handlers[0], up, request(t.Context(), target))
		do(c.handlers[1], up, request(t.Context(), target)) // one of them owns it
	}
	grow()
	before := c.nodes[2].Store.Usage() // nodes of other tests may have used the same Group
	for _, target := range targets {
		wantStatus(t, do(c.handlers[2], up, request(t.Context(), target)), "hit")
	}
	asked := c.nodes[0].Served.Load() + c.nodes[1].Served.Load()
	for _, target := range targets {
		wantStatus(t, do(c.handlers[2], up, request(t.Context(), target)), "detail=local")
	}
	if n := c.nodes[0].Served.Load() + c.nodes[1].Served.Load() - asked; n != 0 {
		t.Errorf("the previous owners were asked %d times more", n)
	}
	u := c.nodes[2].Store.Usage()
	if main, hot := u.Main.Items-before.Main.Items, u.Hot.Items-before.Hot.Items; main != int64(len(targets)) || hot != 0 {
		t.Errorf("%d main values and %d hot ones of %d", main, hot, len(targets))
	}
	if n := calls.Load(); n != int64(len(targets)) {
		t.Errorf("%d fetches", n)
	}
}

// TestWhatWasPurgedDoesNotMove: the previous owner need not have heard of it.
func TestWhatWasPurgedDoesNotMove(t *testing.T) {
	c, grow := newGrowingCluster(t, 3)
	var calls atomic.Int64
	version := "1"
	up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		calls.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, version)
		return nil
	})
	targets := c.movingTargets(10)
	for _, target := range targets {
		do(c.handlers[0], up, request(t.Context(), target))
	}
	poll(t, "the owners have stored it", func() bool {
		stored := 0
		for _, target := range targets {
			k, _ := keyOf(c.handlers[0], request(t.Context(), target))
			for _, n := range c.nodes[:2] {
				if owner, _ := c.nodes[0].Ring.Load().Owner(k); owner.Name == n.Name {
					stored += len(n.Store.Inspect(k, nil, time.Now()).Variants)
				}
			}
		}
		return stored == len(targets)
	})
	grow()
	for _, n := range c.nodes {
		poll(t, n.Name+" has asked the others for purges", func() bool { return !n.Purger.Sync.Lag.Load() })
	}
	version = "2"
	all := store.Purge{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.All}}}
	node.Owner{Node: c.nodes[2]}.Purge([]store.Purge{all}, nil) // nobody else hears of it
	for _, target := range targets {
		if w := do(c.handlers[2], up, request(t.Context(), target)); w.Body.String() != "2" {
			t.Errorf("%s: %q: %s", target, w.Body, w.Header().Get("Cache-Status"))
		}
	}
	if c.nodes[0].Purger.Log.Knows(all.ID) || c.nodes[1].Purger.Log.Knows(all.ID) {
		t.Error("somebody has heard of it")
	}
}

// A previous owner that is silent costs a moment, and not for each key.
func TestSilentPreviousOwnerHoldsUpNobodyForLong(t *testing.T) {
	c, grow := newGrowingCluster(t, 3)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	targets := c.movingTargets(20)
	grow()
	for _, n := range c.nodes[:2] {
		n.Purger.Sync.Begin() // it makes who asks wait
		t.Cleanup(n.Purger.Sync.End)
	}
	start := time.Now()
	for _, target := range targets {
		if w := do(c.handlers[2], up, request(t.Context(), target)); w.Body.String() != "hello" {
			t.Errorf("%s: %d %q", target, w.Code, w.Body)
		}
	}
	if took := time.Since(start); took > time.Duration(len(targets))*node.PreviousTimeout {
		t.Errorf("%d fetches took %v", len(targets), took)
	}
}

func TestChunksMoveToo(t *testing.T) {
	c, grow := newGrowingCluster(t, 3)
	up := &file{body: randomBody(9 << 20), tag: `"1"`, ranges: true}
	target := c.movingTargets(1)[0]
	wantBody(t, "the first", getLarge(t, c.handlers[0], up, target), up.body)
	up.requests()
	poll(t, "all is stored", func() bool {
		wantBody(t, "a hit", getLarge(t, c.handlers[1], up, target), up.body)
		return len(up.requests()) == 0
	})
	grow()
	for _, i := range []int{2, 0, 1} {
		wantBody(t, fmt.Sprint("node ", i), getLarge(t, c.handlers[i], up, target), up.body)
	}
	if asked := up.requests(); len(asked) != 0 {
		t.Errorf("the upstream was asked for %q", asked)
	}
	// Now the new owners have them.
	ring := c.nodes[2].Ring.Load()
	k, _ := keyOf(c.handlers[2], request(t.Context(), target))
	e := c.nodes[2].Store.Inspect(k, http.Header{}, time.Now()).Variants[0].Entry
	for i := 1; i < store.Chunks(e.Size); i++ {
		owner, _ := ring.Owner(store.ChunkKey(k, i))
		for j, addr := range c.addrs {
			if addr.Name == owner.Name {
				if _, err := c.nodes[j].Store.Chunk(k, e.Generation, i); err != nil {
					t.Errorf("chunk %d is not with its owner, node %d", i, j)
				}
			}
		}
	}
}
