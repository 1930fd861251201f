package delivery

import (
	"io"
	"net/http"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Body is the body of a stored response as one client gets it: from
// memory, and if it is large, a chunk at a time from wherever the chunks are. It
// must be closed.
type Body struct {
	node    *node.Node
	id      peer.ChunkID // of the first chunk
	Size    int64
	first   []byte                            // the first chunk; if that is pinned, until it is
	further func(i int) (b []byte, err error) // the others
	sent    *Sent                             // what Send has sent; nil if nothing is pinned

	part    []byte // the bytes of the body that are pinned or copied now
	begin   int64  // their offset in the body
	release func() // unpins them; nil: they are a copy
}

// NewBody returns an entry's body, of which the first chunk is at hand. further gets the
// other chunks of a large one.
func NewBody(n *node.Node, k store.Key, e *store.Entry, first []byte, further func(i int) ([]byte, error)) *Body {
	b := &Body{node: n, id: peer.ChunkID{Key: k, Generation: e.Generation}, Size: int64(len(first)), first: first, further: further}
	if node.Pinnable(e) {
		b.sent = NewSent()
	}
	if e.Large() {
		b.Size = e.Size
	}
	return b
}

// Sent returns what the client has got, if the body is pinned while it is sent.
func (b *Body) Sent() *Sent { return b.sent }

// From returns the bytes that begin at a position, as long as no others are asked
// for: some, and at least one.
func (b *Body) From(at int64) ([]byte, error) {
	if at < b.begin || at >= b.begin+int64(len(b.part)) {
		b.Close()
		id := b.id
		id.Index = int(at / store.ChunkSize)
		part, release, err := b.node.Pins.Part(id, at%store.ChunkSize, func() ([]byte, error) { return b.chunk(id) })
		if err != nil {
			return nil, err
		}
		b.part, b.begin, b.release = part, at, release
	}
	return b.part[at-b.begin:], nil
}

// chunk returns a chunk, and keeps none that is to be pinned.
func (b *Body) chunk(id peer.ChunkID) ([]byte, error) {
	if id.Index > 0 {
		return b.further(id.Index)
	}
	if first := b.first; first != nil {
		if b.sent != nil {
			b.first = nil
		}
		return first, nil
	}
	return b.node.Chunks.First(id)
}

// Close lets go of what is at hand.
func (b *Body) Close() {
	if b.release != nil {
		b.release()
	}
	b.part, b.release = nil, nil
}

// Send sends length bytes from start. The error is the client's, unless it is a
// MissingChunk.
func (b *Body) Send(w io.Writer, start, length int64) error {
	if b.sent == nil {
		_, err := w.Write(b.first[start : start+length])
		return err
	}
	b.sent.begin(start)
	for at := start; at < start+length; {
		p, err := b.From(at)
		if err != nil {
			return MissingChunk{err}
		}
		n, err := w.Write(p[:min(int64(len(p)), start+length-at)])
		b.sent.add(p[:n])
		at += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

// A MissingChunk error says why a body can't go on.
type MissingChunk struct{ error }

func (m MissingChunk) Unwrap() error { return m.error }

// Needs returns from where to where a request needs a large body: all of it, unless it
// asks for one part, or for none that there is.
func (b *Body) Needs(r *http.Request, e *store.Entry) (start, end int64) {
	ranges, ok := rfc9111.Ranges(r.Header["Range"], b.Size)
	switch {
	case !ok || len(ranges) > 1 || !WantsPart(r, e.Status) || !rfc9111.RangeApplies(r.Header, e.Header()):
		return 0, b.Size
	case len(ranges) == 0:
		return 0, 0
	}
	return ranges[0].Start, ranges[0].Start + ranges[0].Length
}
