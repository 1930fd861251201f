package node

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestFirstChunkWithoutAnOwner: a node that can't reach the owner of a response stores it
// itself, unless it is the owner that does not want it. An owner that is silent is left alone.
func TestFirstChunkWithoutAnOwner(t *testing.T) {
	first := bytes.Repeat([]byte("x"), store.ChunkSize)
	for name, one := range map[string]struct {
		publish      func(context.Context, *peer.Publication) (store.Generation, rfc9111.Reason)
		stored, open bool
	}{
		"refuses": {func(context.Context, *peer.Publication) (store.Generation, rfc9111.Reason) {
			return 0, rfc9111.Superseded
		}, false, false},
		"is silent": {func(ctx context.Context, _ *peer.Publication) (store.Generation, rfc9111.Reason) {
			<-ctx.Done()
			return 0, rfc9111.Aborted
		}, true, true},
		"fails": {func(context.Context, *peer.Publication) (store.Generation, rfc9111.Reason) {
			panic("a bug")
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				serveOn(t, l, backend{Owner: Owner{newLone(t)}, publish: one.publish})
				n, q := newAskerBy(t, peer.Node{Name: "owner", Addr: "owner:8000"}, l.dial)
				owner, _ := n.Owner(q.Key)
				synctest.Wait() // until they know each other's purges
				e := newEntry(3<<20, store.NewGeneration())
				e.Digest = store.Digest(first)
				stored := n.Solo(q).CommitFirst(q, Decision{Owner: &owner}, e, first)
				if stored == nil || stored.Generation != e.Generation {
					t.Errorf("it is served as %+v", stored)
				}
				var found Result
				if n.Find(q, time.Now(), &found); found.Here != one.stored {
					t.Errorf("stored: %v", found.Here)
				}
				if n.Client.LeavesAlone(owner) != one.open {
					t.Errorf("the owner is left alone: %v", !one.open)
				}
			})
		})
	}
}
