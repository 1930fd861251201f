package caddygroupcache

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// leave has a node hand over, leave the others' ring, and end.
func (c *testCluster) leave(i int) {
	c.nodes[i].HandOver()
	c.servers[i].Close()
	for j, n := range c.nodes {
		if j != i {
			n.SetRing(append(c.addrs[:i:i], c.addrs[i+1:]...))
		}
	}
}

// awaitStored waits until the owners have what was fetched.
func (c *testCluster) awaitStored(t *testing.T, targets []string) {
	t.Helper()
	poll(t, "the owners have stored it", func() bool {
		for _, target := range targets {
			k, _ := keyOf(c.handlers[0], request(t.Context(), target))
			owner, _ := c.nodes[0].Ring.Load().Owner(k)
			for _, n := range c.nodes {
				if n.Name == owner.Name && len(n.Store.Inspect(k, nil, time.Now()).Variants) == 0 {
					return false
				}
			}
		}
		return true
	})
}

func TestNodeThatLeavesHandsOver(t *testing.T) {
	c := newCluster(t, 4)
	up := new(variedPage)
	var targets []string
	for i := range 60 {
		targets = append(targets, fmt.Sprintf("/%d?cc=max-age=60", i))
	}
	large := &file{body: randomBody(9 << 20), tag: `"1"`, ranges: true}
	path := c.target(2)
	for _, target := range targets {
		for _, kind := range []string{"a", "b"} {
			do(c.handlers[2], up.ServeHTTP, request(t.Context(), target, "X-Kind", kind))
		}
	}
	wantBody(t, "the first", getLarge(t, c.handlers[2], large, path), large.body)
	c.awaitStored(t, append(targets, path))
	fetched := up.full.Load()
	large.requests()
	c.leave(2)
	for _, i := range []int{0, 1, 3} {
		for _, target := range targets {
			for _, kind := range []string{"a", "b"} {
				w := do(c.handlers[i], up.ServeHTTP, request(t.Context(), target, "X-Kind", kind))
				if want := request(t.Context(), target).URL.Path + " in " + kind; w.Body.String() != want {
					t.Errorf("%q, want %q", w.Body, want)
				}
			}
		}
		wantBody(t, fmt.Sprint("node ", i), getLarge(t, c.handlers[i], large, path), large.body)
	}
	if n := up.full.Load() - fetched; n != 0 {
		t.Errorf("%d pages of %d were fetched anew", n, fetched)
	}
	if asked := large.requests(); len(asked) != 0 {
		t.Errorf("the upstream was asked for %q", asked)
	}
}

// In a rolling restart the node that leaves may have the last copy of a key whose
// owner has just joined with nothing stored.
func TestCopiesOfAnEmptyOwnersKeysAreHandedOver(t *testing.T) {
	c := newCluster(t, 3)
	up := new(variedPage)
	var targets []string
	for i := range 60 {
		targets = append(targets, fmt.Sprintf("/%d?cc=max-age=60", i))
	}
	for _, target := range targets {
		do(c.handlers[2], up.ServeHTTP, request(t.Context(), target))
	}
	c.awaitStored(t, targets)
	for _, n := range c.nodes[:2] { // as if it had been restarted
		keys, _ := n.Store.Ranked()
		for _, k := range keys {
			for _, v := range n.Store.Inspect(k, nil, time.Now()).Variants {
				n.Store.Drop(k, v.Entry)
			}
		}
	}
	fetched := up.full.Load()
	c.leave(2)
	for _, target := range targets {
		do(c.handlers[0], up.ServeHTTP, request(t.Context(), target))
	}
	if n := up.full.Load() - fetched; n != 0 {
		t.Errorf("%d pages of %d were fetched anew", n, len(targets))
	}
}

// TestWhatWasPurgedIsNotHandedOver: the node that leaves need not have heard of it.
func TestWhatWasPurgedIsNotHandedOver(t *testing.T) {
	c := newCluster(t, 2)
	for _, n := range c.nodes {
		poll(t, n.Name+" has asked the others for purges", func() bool { return !n.Purger.Sync.Lag.Load() })
	}
	var version atomic.Int64
	up := func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, version.Load())
		return nil
	}
	target := c.target(1)
	do(c.handlers[1], up, request(t.Context(), target))
	version.Store(1)
	all := store.Purge{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.All}}}
	node.Owner{Node: c.nodes[0]}.Purge([]store.Purge{all}, nil)
	if c.nodes[1].Purger.Log.Knows(all.ID) {
		t.Fatal("it has heard of it")
	}
	c.leave(1)
	if w := do(c.handlers[0], up, request(t.Context(), target)); w.Body.String() != "1" {
		t.Errorf("%q: %s", w.Body, w.Header().Get("Cache-Status"))
	}
}

// An heir that heard of a purge later than the node that leaves does not refuse
// what that one has fetched since.
func TestWhatIsFetchedAfterAPurgeIsHandedOver(t *testing.T) {
	c := newCluster(t, 2)
	for _, n := range c.nodes {
		poll(t, n.Name+" has asked the others for purges", func() bool { return !n.Purger.Sync.Lag.Load() })
	}
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	all := []store.Purge{{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.All}}}}
	node.Owner{Node: c.nodes[1]}.Purge(all, nil)
	target := c.target(1)
	do(c.handlers[1], up, request(t.Context(), target))
	node.Owner{Node: c.nodes[0]}.Purge(all, nil)
	c.leave(1)
	wantStatus(t, do(c.handlers[0], up, request(t.Context(), target)), "hit")
}

func TestNobodyWaitsForAnHeirThatDoesNotAnswer(t *testing.T) {
	c := newCluster(t, 3)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	for i := range 30 {
		do(c.handlers[2], up, request(t.Context(), fmt.Sprintf("/%d", i)))
	}
	c.servers[0].Close()
	start := time.Now()
	c.leave(2)
	if took := time.Since(start); took > node.HandOverFor+patience {
		t.Errorf("it took %v", took)
	}
}

// TestNodeThatJoinsTakesItsKeysOver without being asked for any of them: the large body's
// chunks too, in the background, and no faster than it should.
func TestNodeThatJoinsTakesItsKeysOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 3)
		for i := range 2 {
			c.nodes[i].SetRing(c.addrs[:2])
		}
		c.nodes[2].SetRing(c.addrs[2:])
		const pages = 300
		var targets []string
		page := fixed(new(atomic.Int64), string(randomBody(20_000)), "Cache-Control", "max-age=600")
		for i := range pages {
			targets = append(targets, fmt.Sprint("/page/", i))
			do(c.handlers[i%2], page, request(t.Context(), targets[i]))
		}
		large := &file{body: randomBody(20 << 20), tag: `"1"`, ranges: true}
		limitBodies(c.handlers[0], 32<<20)
		getLarge(t, c.handlers[0], large, "/large")
		begin := time.Now()
		for _, n := range c.nodes {
			n.SetRing(c.addrs)
		}
		ring := c.nodes[2].Ring.Load()
		owned := 0
		for _, target := range targets {
			k, _ := keyOf(c.handlers[2], request(t.Context(), target))
			if _, self := ring.Owner(k); self {
				owned++
				poll(t, target+" has come", func() bool { return isStored(c.handlers[2], target) })
			}
		}
		k, _ := keyOf(c.handlers[0], request(t.Context(), "/large"))
		g := c.nodes[0].Store.Lookup(k, nil, time.Now()).Entry.Generation
		for i := 1; i < 20; i++ {
			if _, self := ring.Owner(store.ChunkKey(k, i)); self {
				owned++
				poll(t, fmt.Sprint("chunk ", i, " has come"), func() bool {
					_, err := c.nodes[2].Store.Chunk(k, g, i)
					return err == nil
				})
			}
		}
		if took := time.Since(begin); owned < pages/5 || took < 100*time.Millisecond || took > 5*time.Second {
			t.Errorf("%d keys and chunks have come within %v", owned, took)
		}
	})
}
