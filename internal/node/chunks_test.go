package node

import (
	"bytes"
	"errors"
	"testing"

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
