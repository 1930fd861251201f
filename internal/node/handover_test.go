package node

import (
	"bytes"
	"sync/atomic"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestWalkUsesNoBodies: a node that looks what it has for one that joins goes on. To the Group
// each look at a body is a use of it, so what was stored last would be evicted first.
func TestWalkUsesNoBodies(t *testing.T) {
	const bodies = 7
	n := New("giver", 16<<20+32) // half of it is for bodies; no other test has as much
	t.Cleanup(n.Close)
	n.SetRing([]peer.Node{{Name: n.Name, Addr: "nowhere"}, {Name: "other", Addr: "nowhere either"}})
	keyOf := func(i int) (k store.Key) {
		k[0] = byte(bodies - i) // of another shard each, so that the first stored comes last
		return k
	}
	put := func(i int) {
		body := bytes.Repeat([]byte{byte(i)}, store.ChunkSize)
		n.Store.Commit(n.Store.Namespace("default"), keyOf(i), newEntry(store.ChunkSize, 0), body)
	}
	for i := range bodies {
		put(i)
	}
	(&handOver{node: n}).divide()
	put(bodies) // for which one has to go
	for i := range bodies + 1 {
		k := keyOf(i)
		_, err := n.Store.Body(k, n.Store.Stored(k)[0])
		if gone := err != nil; gone != (i == 0) {
			t.Errorf("body %d is gone: %v", i, gone)
		}
	}
}

// A crowded node has no memory for one of the things that are handed to it.
type crowded struct {
	Owner
	refused int64 // which
	asked   atomic.Int64
}

func (c *crowded) Reserve(n int64) (release func(), ok bool) {
	if c.asked.Add(1) == c.refused {
		return nil, false
	}
	return c.Owner.Reserve(n)
}

// TestHandOverGoesOn where it broke off. If it began anew each time, what may move would be
// used up by what has come in already.
func TestHandOverGoesOn(t *testing.T) {
	const keys, size = 200, 100_000
	heir := New("heir", 256<<20)
	t.Cleanup(heir.Close)
	c := &crowded{Owner: Owner{heir}, refused: 150}
	n := New("giver", 128<<20) // a quarter of which may move
	t.Cleanup(n.Close)
	n.SetRing([]peer.Node{{Name: n.Name, Addr: "nowhere"}, serve(t, heir.Name, c)})
	stored := make(map[store.Key]bool)
	for i := 0; len(stored) < keys; i++ {
		k := store.Key{byte(i), byte(i >> 8)}
		if _, self := n.Ring.Load().Owner(k); self {
			n.Store.Commit(n.Store.Namespace("default"), k, newEntry(size, 0), make([]byte, size))
			stored[k] = true
		}
	}
	n.HandOver()
	for k := range stored {
		if len(heir.Store.Stored(k)) == 0 {
			t.Fatalf("not all has come; %d have been given for %d keys", c.asked.Load(), keys)
		}
	}
}
