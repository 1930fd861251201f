package node

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
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
	for size, taken := range map[int64]bool{store.MaxBodySize: false, n.largestClaim() + 1: false, 2 << 20: true} {
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
	if most := n.largestClaim() / store.ChunkSize; chunks > most {
		t.Errorf("%d chunks to hand over, of at most %d", chunks, most)
	}
}

// A liar answers every look-up in the same way.
type liar struct {
	Owner
	answer func(*peer.Answer)
}

func (l liar) Lookup(_ *peer.Query, a *peer.Answer) { l.answer(a) }

// serveLies returns a node beside which another one owns a key, and what asks that.
func serveLies(t *testing.T, answer func(*peer.Answer)) (n *Node, ask func(k store.Key) (Decision, Ending)) {
	t.Helper()
	n = newLone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := peer.NewServer(liar{Owner{newLone(t)}, answer}, n.Identity)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	n.SetRing([]peer.Node{{Name: "alone", Addr: "127.0.0.1:1"}, {Name: "other", Addr: l.Addr().String()}})
	return n, func(k store.Key) (d Decision, ending Ending) {
		q := &Lookup{Namespace: n.Store.Namespace("default"), Key: k, Header: http.Header{}, MaxBody: 1 << 20, FillTimeout: time.Minute, PeerTimeout: time.Minute}
		f := n.Solo(q)
		Lead(f, func() (struct{}, Ending) {
			d, ending = n.Ask(q, f, new(Result))
			return struct{}{}, ending
		})
		d.Lease.Close()
		<-f.Over // of what comes in the background
		return d, ending
	}
}

// ownedByOther returns keys that this node does not own.
func ownedByOther(n *Node) (k store.Key) {
	for {
		if _, self := n.Ring.Load().Owner(k); !self {
			return k
		}
		k[0]++
	}
}

// TestClaimsOfOwnersAreChecked, in whatever answer they come.
func TestClaimsOfOwnersAreChecked(t *testing.T) {
	for name, answer := range map[string]func(a *peer.Answer, e *store.Entry){
		"a hit":         func(a *peer.Answer, e *store.Entry) { a.Hit(e, []byte("x"), 0) },
		"a stale entry": func(a *peer.Answer, e *store.Entry) { a.None(peer.Ticket{}, e) },
	} {
		t.Run(name, func(t *testing.T) {
			n, ask := serveLies(t, func(a *peer.Answer) { answer(a, claiming(store.MaxBodySize)) })
			if d, _ := ask(ownedByOther(n)); d.Reason != rfc9111.PeerError || d.Stale != nil {
				t.Errorf("%+v", d)
			}
		})
	}
}

// TestFollowedSizesAreChecked: what turns out to be of any size is not stored here.
func TestFollowedSizesAreChecked(t *testing.T) {
	n, ask := serveLies(t, func(a *peer.Answer) {
		a.Later(func(context.Context) {
			if a.Follow(nil) != nil {
				return
			}
			e := claiming(0)
			e.Generation = 0
			e.Fresh.Received, e.Fresh.Lifetime = time.Now(), time.Hour
			a.Header(e)
			first := make([]byte, store.ChunkSize)
			_ = a.Data(first)
			_ = a.Stored(peer.Stored{Generation: 5, Size: store.MaxBodySize})
			a.End(store.Digest(first), 5)
			_ = a.Flush()
		})
	})
	k := ownedByOther(n)
	if d, _ := ask(k); d.Action != Follow {
		t.Fatalf("%+v", d)
	}
	if got := n.Store.Inspect(k, nil, time.Now()).Variants; len(got) > 0 {
		t.Errorf("stored %d bytes", got[0].Entry.Size)
	}
}

// TestHalfFirstChunksAreNotStored: of a large body the whole first chunk has to come.
func TestHalfFirstChunksAreNotStored(t *testing.T) {
	n := newLone(t)
	q := &Lookup{Namespace: n.Store.Namespace("default"), Header: http.Header{}, MaxBody: 4 << 20, FillTimeout: time.Minute}
	f := n.Solo(q)
	Lead(f, func() (struct{}, Ending) {
		_, _ = f.Fill.Write([]byte("half"))
		return struct{}{}, f.Commit(q, claiming(2<<20))
	})
	if got := n.Store.Inspect(q.Key, nil, time.Now()).Variants; len(got) > 0 {
		t.Errorf("stored %+v", got[0].Entry)
	}
}
