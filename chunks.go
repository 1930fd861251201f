package caddygroupcache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Large bodies: the first chunk goes the way of every body, with its entry. The
// others are handed to the nodes that own them as they come in, and brought
// from there when a client gets to them. So nobody holds more of a body than a
// chunk or two, however large it is.

// chunkPatience is how long a node waits until another has given or taken a
// chunk. A dead one is noticed sooner, by its connection.
const chunkPatience = 5 * time.Second

// errChunkGone says that a chunk is neither here nor with its owner.
var errChunkGone = errors.New("a part of the stored body is not there any more")

// brought are the chunks that are being brought to this node, so that those who
// want the same at the same time share one transfer.
type brought struct {
	mu     sync.Mutex // guards below
	chunks map[peer.ChunkID]*bringing
}

type bringing struct {
	done  chan struct{} // closed when the rest is set
	chunk []byte
	err   error
}

// chunkOwner returns the node that owns a chunk.
func (n *node) chunkOwner(id peer.ChunkID) (peer.Node, bool) {
	return n.ring.Load().Owner(store.ChunkKey(id.Key, id.Index))
}

// chunk returns a chunk of so many bytes: from this node's memory, from its
// owner, or, as a last resort, from wherever mend gets it (nil: from nowhere).
func (n *node) chunk(ctx context.Context, id peer.ChunkID, length int64, mend func() ([]byte, error)) ([]byte, error) {
	if b, err := n.store.Chunk(id.Key, id.Generation, id.Index); err == nil {
		return b, nil
	}
	n.brought.mu.Lock()
	b, follows := n.brought.chunks[id]
	if !follows {
		b = &bringing{done: make(chan struct{})}
		if n.brought.chunks == nil {
			n.brought.chunks = make(map[peer.ChunkID]*bringing)
		}
		n.brought.chunks[id] = b
	}
	n.brought.mu.Unlock()
	if !follows {
		b.err = errChunkGone // if what mend runs panics
		defer func() {
			n.brought.mu.Lock()
			delete(n.brought.chunks, id)
			n.brought.mu.Unlock()
			close(b.done)
		}()
		b.chunk, b.err = n.bringChunk(id, length, mend)
		return b.chunk, b.err
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if b.err != nil && mend != nil {
		return mend() // what the other could not get, for its own reasons
	}
	return b.chunk, b.err
}

// bringChunk does not end with the request that it is for: others wait too.
func (n *node) bringChunk(id peer.ChunkID, length int64, mend func() ([]byte, error)) ([]byte, error) {
	// Somebody may have brought it between the look and the win.
	if b, err := n.store.Chunk(id.Key, id.Generation, id.Index); err == nil {
		return b, nil
	}
	err := errChunkGone
	if owner, self := n.chunkOwner(id); !self {
		var b []byte
		if b, err = n.getChunk(owner, id, length, chunkPatience); err == nil {
			n.store.PutChunk(id.Key, id.Generation, id.Index, b, false)
			return b, nil
		}
		if errors.Is(err, peer.ErrMissing) {
			err = errChunkGone
		}
	}
	if errors.Is(err, errChunkGone) {
		if b := n.inheritChunk(id, length); b != nil {
			return b, nil
		}
	}
	if mend == nil {
		return nil, err
	}
	return mend()
}

func (n *node) getChunk(from peer.Node, id peer.ChunkID, length int64, patience time.Duration) ([]byte, error) {
	release, ok := n.Reserve(length)
	if !ok {
		return nil, fill.ErrMemory
	}
	defer release()
	var b []byte
	err := errChunkGone
	for range 2 { // a connection may break for reasons that are over at once
		start := time.Now()
		b, err = n.client.Chunk(context.Background(), from, id, length, patience)
		observePeer(operationChunk, err, time.Since(start))
		if err == nil || errors.Is(err, peer.ErrMissing) || errors.Is(err, peer.ErrDown) || errors.Is(err, peer.ErrTimeout) {
			break
		}
	}
	return b, err
}

// putChunk gives a chunk to its owner, or keeps it here if that one can't take
// it.
func (n *node) putChunk(id peer.ChunkID, chunk []byte) {
	owner, self := n.chunkOwner(id)
	if !self {
		start := time.Now()
		err := n.client.PutChunk(context.Background(), owner, id, chunk, chunkPatience)
		observePeer(operationStore, err, time.Since(start))
		self = err != nil
	}
	n.store.PutChunk(id.Key, id.Generation, id.Index, chunk, self)
}

// settle hands over the chunks that have come in. The last one of a body may be
// shorter than the others.
func (n *node) settle(q *question, f *flight, last bool) {
	for {
		i, chunk := f.fill.Unsettled(last)
		if chunk == nil {
			return
		}
		if f.generation == 0 {
			n.spread(q, f, store.NewGeneration())
		}
		n.putChunk(peer.ChunkID{Key: q.key, Generation: f.generation, Index: i}, chunk)
		f.fill.Settle(i)
	}
}

// spread says under which generation the chunks of a flight are with their
// owners. It comes before the first of them is known to be.
func (n *node) spread(q *question, f *flight, g store.Generation) {
	f.generation = g
	key := q.key
	f.fill.PutElsewhere(func(ctx context.Context, i int, offset int64) ([]byte, func(), error) {
		id := peer.ChunkID{Key: key, Generation: g, Index: i}
		return n.part(id, offset, func() ([]byte, error) {
			return n.chunk(ctx, id, store.ChunkLength(f.fill.Size(), i), nil)
		})
	})
}

// outgoing is a fill on its way to another node: the first chunk, and of the
// others only that they are stored.
type outgoing struct {
	*follower
	flight *flight
}

func (o outgoing) Next(ctx context.Context, idle func()) ([]byte, peer.Stored, error) {
	p, size, err := o.NextSettled(ctx, idle)
	if p != nil || err != nil {
		return p, peer.Stored{}, err
	}
	return nil, peer.Stored{Generation: o.flight.generation, Size: size}, nil
}

// incoming is a fill that comes from another node.
type incoming struct {
	*fill.Fill[*store.Entry]
	n      *node
	q      *question
	flight *flight
}

func (in incoming) Stored(s peer.Stored) error {
	switch in.flight.generation {
	case 0:
		in.n.spread(in.q, in.flight, s.Generation)
	case s.Generation:
	default:
		return peer.ErrProtocol
	}
	return in.Extend(s.Size)
}

// Chunk returns a chunk that this node has.
func (n *node) Chunk(id peer.ChunkID) []byte {
	b, _ := n.store.Chunk(id.Key, id.Generation, id.Index)
	return b
}

// PutChunk takes a chunk from another node.
func (n *node) PutChunk(id peer.ChunkID, chunk []byte) {
	n.store.PutChunk(id.Key, id.Generation, id.Index, chunk, true)
}

// Reserve takes memory from the budget of what is in flight, until release.
func (n *node) Reserve(bytes int64) (release func(), ok bool) {
	return n.budget.Take(bytes)
}
