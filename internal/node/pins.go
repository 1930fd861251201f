package node

import (
	"bytes"
	"sync"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// PartSize is the most of a stored body that a response may have in its hands
// without its being counted: what a proxy takes for a slow client anyway.
const PartSize = 32 << 10

// Pins are the stored chunks that responses are being written from. A client
// may take as long as it likes over one, and what the Group throws out meanwhile
// is still in memory. So it is counted among what is in flight, once for all
// its readers, wherever in it they are.
type Pins struct {
	node  *Node
	Limit int64 // what pins may take of the budget: the rest is for what comes in

	mu     sync.Mutex // guards below
	pinned map[peer.ChunkID]*Pin
	Taken  int64
}

// A Pin is a chunk that is counted until each of its readers has released it.
type Pin struct {
	id      peer.ChunkID
	chunk   []byte
	readers int
}

// again returns the pin of a chunk that is pinned already, or nil.
func (p *Pins) again(id peer.ChunkID) *Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	pin := p.pinned[id]
	if pin != nil {
		pin.readers++
	}
	return pin
}

// pin pins a chunk until Release: the same copy as other readers have. It returns nil
// if there is no memory for that.
func (p *Pins) pin(id peer.ChunkID, chunk []byte) *Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	pin := p.pinned[id]
	if pin == nil {
		if !p.take(int64(len(chunk))) {
			return nil
		}
		pin = &Pin{id: id, chunk: chunk}
		if p.pinned == nil {
			p.pinned = make(map[peer.ChunkID]*Pin)
		}
		p.pinned[id] = pin
	}
	pin.readers++
	return pin
}

// Release lets go of a chunk; nil is none.
func (p *Pins) Release(pin *Pin) {
	if pin == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if pin.readers--; pin.readers > 0 {
		return
	}
	delete(p.pinned, pin.id)
	p.give(int64(len(pin.chunk)))
}

// TakeFor counts n bytes more for responses that are being written, until Give. It reports false
// if there is no room for them.
func (p *Pins) TakeFor(n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.take(n)
}

// Give ends what TakeFor began.
func (p *Pins) Give(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.give(n)
}

func (p *Pins) take(n int64) bool {
	if p.Taken+n > p.Limit || !p.node.Budget.TakeFor(n) {
		return false
	}
	p.Taken += n
	return true
}

func (p *Pins) give(n int64) {
	p.Taken -= n
	p.node.Budget.Give(n)
}

// Part returns the bytes of a chunk from an offset on: all of them, until
// release, or if there is no memory to pin the chunk for so long, a copy of some;
// then release is nil. get gets the chunk, which may be the first, of index 0.
func (p *Pins) Part(id peer.ChunkID, offset int64, get func() ([]byte, error)) (part []byte, release func(), err error) {
	if pin := p.again(id); pin != nil {
		return p.from(pin, offset)
	}
	chunk, err := get()
	switch {
	case err != nil:
		return nil, nil, err
	case int64(len(chunk)) <= offset:
		return nil, nil, ErrChunkGone
	case int64(len(chunk)) <= PartSize:
		return bytes.Clone(chunk[offset:]), nil, nil
	}
	if pin := p.pin(id, chunk); pin != nil {
		return p.from(pin, offset)
	}
	// It will be asked for again soon, and must not come from another node, or the
	// upstream, for each part.
	p.node.Store.PutChunk(id.Key, id.Generation, id.Index, chunk, true)
	return bytes.Clone(chunk[offset:min(offset+PartSize, int64(len(chunk)))]), nil, nil
}

// from returns the bytes of a pinned chunk from an offset on, until release. The pinned copy
// may be shorter than the caller's, if another node has sent either.
func (p *Pins) from(pin *Pin, offset int64) (part []byte, release func(), err error) {
	if offset >= int64(len(pin.chunk)) {
		p.Release(pin)
		return nil, nil, ErrChunkGone
	}
	return pin.chunk[offset:], func() { p.Release(pin) }, nil
}

// Pinnable reports whether a body is so large that it is pinned while it is served.
func Pinnable(e *store.Entry) bool { return e.Size > PartSize }

// Body pins a body of one chunk, if it is pinnable. It reports false if there is no
// memory for that.
func (p *Pins) Body(k store.Key, e *store.Entry, body []byte) (pin *Pin, ok bool) {
	if !Pinnable(e) {
		return nil, true
	}
	pin = p.pin(peer.ChunkID{Key: k, Generation: e.Generation}, body)
	return pin, pin != nil
}

// Of returns what is pinned of a body: that may be another copy of it. Of nil it is the
// body itself.
func (p *Pin) Of(body []byte) []byte {
	if p == nil {
		return body
	}
	return p.chunk
}
