package caddygroupcache

import (
	"errors"
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A storedBody is the body of a stored response as one client gets it: from
// memory, and if it is large, a chunk at a time from wherever the chunks are. It
// must be closed.
type storedBody struct {
	node    *node
	id      peer.ChunkID // of the first chunk
	size    int64
	first   []byte                            // the first chunk; if that is held, until it is
	further func(i int) (b []byte, err error) // the others
	given   *given                            // what write has sent; nil if nothing is held

	at      int64  // where Read is
	part    []byte // what is at hand,
	begin   int64  // where that begins,
	release func() // and what lets go of it; nil: it is a copy
}

// storedBody returns an entry's body, of which the first chunk is at hand.
func (h *Handler) storedBody(r *http.Request, next caddyhttp.Handler, q *question, e *store.Entry, first []byte) *storedBody {
	b := &storedBody{node: h.node, id: peer.ChunkID{Key: q.key, Generation: e.Generation}, size: int64(len(first)), first: first}
	if holdable(e) {
		b.given = newGiven(e)
	}
	if !e.Large() {
		return b
	}
	b.size = e.Size
	b.further = func(i int) ([]byte, error) {
		id := peer.ChunkID{Key: q.key, Generation: e.Generation, Index: i}
		return h.node.chunk(r.Context(), id, store.ChunkLength(e.Size, i), h.mender(r, next, q, e, i))
	}
	return b
}

// from returns the bytes that begin at a position, as long as no others are asked
// for: some, and at least one.
func (b *storedBody) from(at int64) ([]byte, error) {
	if at < b.begin || at >= b.begin+int64(len(b.part)) {
		b.close()
		id := b.id
		id.Index = int(at / store.ChunkSize)
		part, release, err := b.node.part(id, at%store.ChunkSize, func() ([]byte, error) { return b.chunk(id) })
		if err != nil {
			return nil, err
		}
		b.part, b.begin, b.release = part, at, release
	}
	return b.part[at-b.begin:], nil
}

// chunk returns a chunk, and keeps none that is to be held.
func (b *storedBody) chunk(id peer.ChunkID) ([]byte, error) {
	if id.Index > 0 {
		return b.further(id.Index)
	}
	if first := b.first; first != nil {
		if b.given != nil {
			b.first = nil
		}
		return first, nil
	}
	return b.node.firstChunk(id)
}

// close lets go of what is at hand.
func (b *storedBody) close() {
	if b.release != nil {
		b.release()
	}
	b.part, b.release = nil, nil
}

// write sends length bytes from start. The error is the client's, unless it is a
// missingChunk.
func (b *storedBody) write(w io.Writer, start, length int64) error {
	if b.given == nil {
		_, err := w.Write(b.first[start : start+length])
		return err
	}
	b.given.begin(start)
	for at := start; at < start+length; {
		p, err := b.from(at)
		if err != nil {
			return missingChunk{err}
		}
		n, err := w.Write(p[:min(int64(len(p)), start+length-at)])
		b.given.add(p[:n])
		at += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// A missingChunk error says why a body can't go on.
type missingChunk struct{ error }

func (m missingChunk) Unwrap() error { return m.error }

// Read is for what net/http makes of several ranges.
func (b *storedBody) Read(p []byte) (int, error) {
	if b.at >= b.size {
		return 0, io.EOF
	}
	part, err := b.from(b.at)
	if err != nil {
		return 0, err
	}
	n := copy(p, part)
	b.at += int64(n)
	return n, nil
}

// Seek is for the same.
func (b *storedBody) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 {
		return 0, errors.New("seeking to before the body")
	}
	b.at = offset
	return offset, nil
}

// needs returns where a request begins to need a large body: at its first byte,
// unless it asks for one part.
func (b *storedBody) needs(r *http.Request, e *store.Entry) int64 {
	if wantsPart(r, e.Status) && rfc9111.RangeApplies(r.Header, e.Header()) {
		if start, _, ok := rfc9111.SingleRange(r.Header["Range"], b.size); ok {
			return start
		}
	}
	return 0
}
