package node

import (
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// claiming returns an entry that says how long its body is.
func claiming(size int64) *store.Entry {
	return &store.Entry{Status: 200, Size: size, Generation: 1, Fetched: time.Now(), Sent: time.Now()}
}

// TestClaimedSizesAreChecked before an entry from another node is stored: no node has
// a body that is larger than all that they keep.
func TestClaimedSizesAreChecked(t *testing.T) {
	n := newLone(t)
	n.SetRing([]peer.Node{{Name: "alone", Addr: "127.0.0.1:1"}, {Name: "other", Addr: "127.0.0.1:2"}})
	first := make([]byte, store.ChunkSize)
	for size, taken := range map[int64]bool{store.MaxBodySize: false, n.LargestClaim() + 1: false, 2 << 20: true} {
		k := store.Key{1, byte(size), byte(size >> 20)}
		Owner{n}.TakeOver(peer.NewQuery("default", k, nil, nil), claiming(size), first)
		if got := n.Store.Inspect(k, nil, time.Now()).Variants; (len(got) > 0) != taken {
			t.Errorf("an entry of %d bytes was taken: %v", size, len(got) > 0)
		}
	}
}

// TestSharesAreBounded, whatever the entries say that are stored.
func TestSharesAreBounded(t *testing.T) {
	n := newLone(t)
	n.SetRing([]peer.Node{{Name: "alone", Addr: "127.0.0.1:1"}, {Name: "other", Addr: "127.0.0.1:2"}})
	for i := range 20 {
		n.Store.PutMoved(n.Store.Namespace("default"), store.Key{1, byte(i)}, claiming(store.MaxBodySize), make([]byte, 1))
	}
	chunks := int64(0)
	owned, copies := (&handOver{node: n}).divide()
	for _, parts := range []division{owned, copies} {
		for _, l := range parts {
			chunks += int64(len(l.chunks))
		}
	}
	if most := n.LargestClaim() / store.ChunkSize; chunks > most {
		t.Errorf("%d chunks to hand over, of at most %d", chunks, most)
	}
}
