package node

import (
	"bytes"
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
