package node

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestPreviousOwnersAreForgotten(t *testing.T) {
	nodes := []peer.Node{{Name: "a", Addr: "a"}, {Name: "b", Addr: "b"}, {Name: "c", Addr: "c"}}
	n := New("c", 1<<20)
	t.Cleanup(n.Close)
	n.SetRing(nodes)
	var k store.Key
	for ; ; k[0]++ {
		if _, self := n.Ring.Load().Owner(k); self {
			break
		}
	}
	now := time.Now()
	if got, _ := peer.NewRing("", nodes[:2]).Owner(k); len(n.Previous.Of(k, now)) != 1 || n.Previous.Of(k, now)[0].Name != got.Name {
		t.Errorf("%v, want %v", n.Previous.Of(k, now), got)
	}
	if got := n.Previous.Of(k, now.Add(askPreviousFor+time.Second)); len(got) != 0 {
		t.Errorf("much later: %v", got)
	}
	n.SetRing(nodes[2:])
	if got := n.Previous.Of(k, now); len(got) != 0 {
		t.Errorf("who is not there any more: %v", got)
	}
}

// joined returns a node that has just joined another one, which dials by pipes, and has that
// one answer as a backend.
func joined(t *testing.T, other func(backend) backend) (*Node, peer.Node) {
	t.Helper()
	l := newPipes()
	serveOn(t, l, other(backend{Owner: Owner{newLone(t)}}))
	n, q := newAskerBy(t, peer.Node{Name: "other", Addr: "other:8000"}, l.dial)
	synctest.Wait() // until they know each other's purges
	there, _ := n.Owner(q.Key)
	return n, there
}

// owns returns a key that a node owns, as it is or as it is for a chunk.
func owns(n *Node, keyOf func(store.Key) store.Key) store.Key {
	var k store.Key
	for ; ; k[0]++ {
		if _, self := n.Owner(keyOf(k)); self {
			return k
		}
	}
}

// TestSlowPreviousOwner: it costs a request no more than PreviousTimeout, however many calls it
// is asked in. It is as healthy as a node is that has peer_timeout to answer in.
func TestSlowPreviousOwner(t *testing.T) {
	for name, lookup := range map[string]func(context.Context, *peer.Query, *peer.Answer){
		"silent": func(ctx context.Context, _ *peer.Query, _ *peer.Answer) { <-ctx.Done() },
		"slow with each of several answers": func(_ context.Context, _ *peer.Query, a *peer.Answer) {
			time.Sleep(PreviousTimeout * 3 / 4)
			a.Vary([]string{"X-A"})
		},
		"slow, and asked once more for a long body": func(ctx context.Context, _ *peer.Query, a *peer.Answer) {
			e, body := newEntry(store.ChunkSize, store.NewGeneration()), make([]byte, store.ChunkSize)
			e.Digest = store.Digest(body)
			time.Sleep(PreviousTimeout * 3 / 4)
			a.Hit(e, body, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, other := joined(t, func(b backend) backend {
					b.lookup = lookup
					return b
				})
				q := &Lookup{Namespace: n.Store.Namespace("default"), Key: owns(n, func(k store.Key) store.Key { return k })}
				var result string
				n.OnCall = func(_ string, err error, _ time.Duration) { result = CallResult(err) }
				begun := time.Now()
				n.Previous.ask(q, new(Result))
				if took := time.Since(begun); took != PreviousTimeout || result != "timeout" {
					t.Errorf("it took %v, and ended with %q", took, result)
				}
				time.Sleep(PreviousTimeout) // until the other node has ended too
				if n.Client.LeavesAlone(other) {
					t.Error("its circuit is open")
				}
			})
		})
	}
}

// TestSlowPreviousOwnerIsAskedNowAndThen: each fetch would wait for it otherwise. Once it
// answers in time it is asked as before.
func TestSlowPreviousOwnerIsAskedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		var asked atomic.Int32
		n, _ := joined(t, func(b backend) backend {
			b.lookup = func(ctx context.Context, _ *peer.Query, a *peer.Answer) {
				asked.Add(1)
				if slow.Load() {
					<-ctx.Done()
				} else {
					a.None(peer.Ticket{}, nil)
				}
			}
			return b
		})
		q := &Lookup{Namespace: n.Store.Namespace("default"), Key: owns(n, func(k store.Key) store.Key { return k })}
		take := func(when string, want ...time.Duration) {
			t.Helper()
			for i, want := range want {
				begun := time.Now()
				n.Previous.ask(q, new(Result))
				if took := time.Since(begun); took != want {
					t.Errorf("%s: request %d took %v", when, i, took)
				}
			}
		}
		slow.Store(true)
		take("slow", PreviousTimeout, 0, 0)
		time.Sleep(askSlowEvery)
		take("still slow", PreviousTimeout, 0)
		slow.Store(false)
		time.Sleep(askSlowEvery)
		take("fast again", 0, 0, 0)
		if n := asked.Load(); n != 5 {
			t.Errorf("it was asked %d times", n)
		}
	})
}

// TestSlowPreviousOwnerOfAChunk: the same for chunks.
func TestSlowPreviousOwnerOfAChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		n, other := joined(t, func(b backend) backend {
			b.chunk = func() { <-over }
			return b
		})
		id := peer.ChunkID{Generation: store.NewGeneration(), Index: 1}
		id.Key = owns(n, func(k store.Key) store.Key { return store.ChunkKey(k, id.Index) })
		begun := time.Now()
		if b := n.Previous.chunk(id, store.ChunkSize, patience); b != nil {
			t.Errorf("%d bytes", len(b))
		}
		if took := time.Since(begun); took != PreviousTimeout {
			t.Errorf("it took %v", took)
		}
		if n.Client.LeavesAlone(other) {
			t.Error("its circuit is open")
		}
		close(over)
		synctest.Wait()
	})
}
