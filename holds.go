package caddygroupcache

import (
	"bytes"
	"sync"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// partSize is the most of a stored body that a response may have in its hands
// without its being counted: what a proxy takes for a slow client anyway.
const partSize = 32 << 10

// holds are the stored chunks that responses are being written from. A client
// may take as long as it likes over one, and what the Group throws out meanwhile
// is still in memory. So it is counted among what is in flight, once for all who
// read it here, wherever in it they are. The zero value has room for nothing.
type holds struct {
	budget *fill.Budget
	limit  int64 // what holds may take of the budget: the rest is for what comes in

	mu     sync.Mutex // guards below
	chunks map[peer.ChunkID]*hold
	taken  int64
}

type hold struct {
	id      peer.ChunkID
	chunk   []byte
	readers int
}

// again returns a hold on a chunk that is held already, or nil.
func (h *holds) again(id peer.ChunkID) *hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	one := h.chunks[id]
	if one != nil {
		one.readers++
	}
	return one
}

// take holds a chunk until release, or the same chunk as somebody else has it. It
// returns nil if there is no memory for that.
func (h *holds) take(id peer.ChunkID, chunk []byte) *hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	one := h.chunks[id]
	if one == nil {
		n := int64(len(chunk))
		if h.taken+n > h.limit || !h.budget.TakeFor(n) {
			return nil
		}
		one = &hold{id: id, chunk: chunk}
		if h.chunks == nil {
			h.chunks = make(map[peer.ChunkID]*hold)
		}
		h.chunks[id] = one
		h.taken += n
	}
	one.readers++
	return one
}

// release lets go of a chunk; nil is none.
func (h *holds) release(one *hold) {
	if one == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if one.readers--; one.readers > 0 {
		return
	}
	delete(h.chunks, one.id)
	n := int64(len(one.chunk))
	h.taken -= n
	h.budget.Give(n)
}

// part returns the bytes of a chunk from an offset on: all of them, until
// release, or if there is no memory to hold the chunk for so long, a copy of some;
// then release is nil. get gets the chunk, which may be the first, of index 0.
func (n *node) part(id peer.ChunkID, offset int64, get func() ([]byte, error)) (p []byte, release func(), err error) {
	if one := n.holds.again(id); one != nil {
		return one.chunk[offset:], func() { n.holds.release(one) }, nil
	}
	chunk, err := get()
	switch {
	case err != nil:
		return nil, nil, err
	case int64(len(chunk)) <= offset:
		return nil, nil, errChunkGone
	case int64(len(chunk)) <= partSize:
		return bytes.Clone(chunk[offset:]), nil, nil
	}
	if one := n.holds.take(id, chunk); one != nil {
		return one.chunk[offset:], func() { n.holds.release(one) }, nil
	}
	// It will be asked for again soon, and must not come from another node, or the
	// upstream, for each part.
	n.store.PutChunk(id.Key, id.Generation, id.Index, chunk, true)
	return bytes.Clone(chunk[offset:min(offset+partSize, int64(len(chunk)))]), nil, nil
}

// firstChunk returns the first chunk of a body that is larger than SmallBody, from
// this node's memory.
func (n *node) firstChunk(id peer.ChunkID) ([]byte, error) {
	chunk, err := n.store.Chunk(id.Key, id.Generation, id.Index)
	if err != nil {
		return nil, errChunkGone
	}
	return chunk, nil
}

// holdable reports whether a body is so large that it is held while it is served.
func holdable(e *store.Entry) bool { return e.Size > partSize }

// holdBody holds a body of one chunk, if it is holdable. It reports false if there
// is no memory for that.
func (n *node) holdBody(k store.Key, e *store.Entry, body []byte) (one *hold, ok bool) {
	if !holdable(e) {
		return nil, true
	}
	one = n.holds.take(peer.ChunkID{Key: k, Generation: e.Generation}, body)
	return one, one != nil
}

// of returns what is held of a body: that may be another copy of it.
func (h *hold) of(body []byte) []byte {
	if h == nil {
		return body
	}
	return h.chunk
}
