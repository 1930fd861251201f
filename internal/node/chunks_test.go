package node

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestChunkOfAnotherLengthIsGone: another node may have put anything here.
func TestChunkOfAnotherLengthIsGone(t *testing.T) {
	n := newLone(t)
	want := bytes.Repeat([]byte("x"), store.ChunkSize)
	for i, wrong := range []int{1, store.ChunkSize - 1} {
		id := peer.ChunkID{Key: store.Key{1}, Generation: store.NewGeneration(), Index: i + 1}
		Owner{n}.PutChunk(id, want[:wrong])
		if b, err := n.Chunks.Get(t.Context(), id, store.ChunkSize, 0, nil); !errors.Is(err, ErrChunkGone) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if b, err := n.Chunks.Get(t.Context(), id, store.ChunkSize, 0, func() ([]byte, error) { return want, nil }); err != nil || !bytes.Equal(b, want) {
			t.Errorf("from the upstream: %d bytes, %v", len(b), err)
		}
	}
}

// TestOwnerWithAChunkOfAnotherLength: it does not have the chunk, and is as healthy as before.
func TestOwnerWithAChunkOfAnotherLength(t *testing.T) {
	owner := newLone(t)
	n, q := newAsker(t, serve(t, owner.Name, Owner{owner}))
	id := peer.ChunkID{Key: q.Key, Generation: store.NewGeneration(), Index: 1}
	for ; ; id.Index++ {
		if _, self := n.Chunks.owner(id); !self {
			break
		}
	}
	Owner{owner}.PutChunk(id, []byte("x"))
	if b, err := n.Chunks.Get(t.Context(), id, store.ChunkSize, patience, nil); !errors.Is(err, ErrChunkGone) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if one, _ := n.Chunks.owner(id); n.Client.LeavesAlone(one) || one.Name != owner.Name {
		t.Errorf("the circuit of the owner is open")
	}
}

// TestBytesAheadNeedNoGeneration: another node gets bytes of a chunk before any has been stored.
// The race detector finds what reads the generation then.
func TestBytesAheadNeedNoGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &Lookup{MaxBody: 4 << 20, FillTimeout: time.Minute}
		f := newLone(t).Solo(q)
		out := Outgoing{Follower: f.Fill.NewReader(), Flight: f}
		_ = f.Fill.Expect(2 * store.ChunkSize)
		_, _ = f.Fill.Write(make([]byte, store.ChunkSize+1000))
		ahead := make(chan int, 1)
		go func() {
			defer out.Close()
			bytes := 0
			for {
				p, stored, err := out.Next(t.Context(), nil)
				if err != nil {
					ahead <- bytes
					return
				}
				if stored.Size > 0 {
					bytes += len(p)
				}
				time.Sleep(time.Second) // while the leader goes on
			}
		}()
		time.Sleep(time.Second + 2*fill.Lull) // until it has them
		_, _ = f.Fill.Write(make([]byte, store.ChunkSize-1000))
		f.Settle(q, false)
		f.Finish(Landed(nil, 0))
		if got := <-ahead; got != 1000 {
			t.Errorf("%d bytes came ahead", got)
		}
	})
}
