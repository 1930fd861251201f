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
// memory, and if it is large, a chunk at a time from wherever the chunks are.
type storedBody struct {
	size    int64
	first   []byte                            // the first chunk
	further func(i int) (b []byte, err error) // the others
	given   *given                            // what write has sent; nil if all there is is first
	at      int64                             // where Read is
	chunk   []byte                            // that it reads from,
	begin   int64                             // and where that begins
}

// storedBody returns an entry's body, of which the first chunk is at hand.
func (h *Handler) storedBody(r *http.Request, next caddyhttp.Handler, q *question, e *store.Entry, first []byte) *storedBody {
	b := &storedBody{size: int64(len(first)), first: first}
	if !e.Large() {
		return b
	}
	b.size, b.given = e.Size, newGiven(e)
	b.further = func(i int) ([]byte, error) {
		id := peer.ChunkID{Key: q.key, Generation: e.Generation, Index: i}
		return h.node.chunk(r.Context(), id, store.ChunkLength(e.Size, i), h.mender(r, next, q, e, i))
	}
	return b
}

// from returns the bytes of a chunk that begin at a position.
func (b *storedBody) from(at int64) ([]byte, error) {
	i := int(at / store.ChunkSize)
	if i == 0 {
		return b.first[at:], nil
	}
	chunk, err := b.further(i)
	if err != nil {
		return nil, err
	}
	return chunk[at-int64(i)*store.ChunkSize:], nil
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
	if b.at < b.begin || b.at >= b.begin+int64(len(b.chunk)) {
		chunk, err := b.from(b.at)
		if err != nil {
			return 0, err
		}
		b.chunk, b.begin = chunk, b.at
	}
	n := copy(p, b.chunk[b.at-b.begin:])
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
