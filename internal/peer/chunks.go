package peer

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// ErrMissing says that a node does not have a chunk.
var ErrMissing = errors.New("peer: the chunk is not there")

// ErrRefused says that a node has no room for a chunk now.
var ErrRefused = errors.New("peer: no room for the chunk")

// maxChunks bounds the index of a chunk. What goes through all chunks of a body
// is not to be kept busy by a size that somebody made up.
const maxChunks = store.MaxBodySize / store.ChunkSize

// A ChunkID names a chunk of a large body, from 1: the first one comes with the
// entry.
type ChunkID struct {
	Key        store.Key
	Generation store.Generation
	Index      int
}

func (c ChunkID) append(e *encoder) {
	e.bytes(c.Key[:])
	e.uint(uint64(c.Generation))
	e.uint(uint64(c.Index))
}

func (d *decoder) chunkID() (c ChunkID) {
	copy(c.Key[:], d.fixed(len(c.Key), "key"))
	c.Generation = store.Generation(d.uint(math.MaxUint64, "generation"))
	c.Index = int(d.uint(maxChunks, "index of a chunk"))
	if c.Generation == 0 || c.Index == 0 {
		d.fail("no chunk")
	}
	return c
}

// A Wait is how long a call about a chunk may take: until something happens, an answer
// that begins or a connection that takes the chunk, and in all. A chunk takes its time
// over a slow link, and a silent node is to cost no more there than anywhere else.
type Wait struct {
	Begin, All time.Duration
	Why        error // of a call that takes longer; nil: ErrTimeout
}

// Chunk asks a node for a chunk of a length. It fails with ErrMissing when the
// node does not have it, or one of another length, and with ErrTimeout when it has not come in time.
func (c *Client) Chunk(ctx context.Context, to Node, id ChunkID, length int64, wait Wait) ([]byte, error) {
	var w frameWriter
	w.frame(frameChunk, id.append)
	chunk, err := c.chunk(ctx, to, newParts(pathChunk, w.buf), wait, func(frames *frameReader) ([]byte, error) {
		return readChunk(frames, id, length)
	})
	if err != nil {
		return nil, fmt.Errorf("getting a chunk from %s: %w", to.Name, err)
	}
	return chunk, nil
}

// MaxAskedChunks is of how many chunks a node may be asked in one call.
const MaxAskedChunks = 1024

// Chunks asks a node which of some chunks of one body it has.
func (c *Client) Chunks(ctx context.Context, to Node, body ChunkID, chunks []int) (there []int, err error) {
	body.Index = 1
	var w frameWriter
	w.frame(frameChunk, func(e *encoder) {
		body.append(e)
		e.indexes(chunks)
	})
	resp, err := c.call(ctx, to, pathChunks, newParts(pathChunks, w.buf), int64(len(w.buf)))
	if err == nil {
		defer resp.Body.Close()
		var d *decoder
		var kind byte
		if kind, d, _, err = newFrameReader(resp.Body).next(); err == nil && kind == frameChunk {
			there, err = d.indexes(), d.done()
		} else if err == nil {
			err = malformed("unknown answer")
		}
	}
	c.judge(ctx, to, err)
	if err != nil {
		return nil, fmt.Errorf("asking %s for chunks: %w", to.Name, causeOf(ctx, err))
	}
	return there, nil
}

func (e *encoder) indexes(chunks []int) {
	e.uint(uint64(len(chunks)))
	for _, i := range chunks {
		e.uint(uint64(i))
	}
}

func (d *decoder) indexes() []int {
	chunks := make([]int, 0, d.uint(MaxAskedChunks, "chunks"))
	for range cap(chunks) {
		chunks = append(chunks, int(d.uint(maxChunks, "index of a chunk")))
	}
	return chunks
}

// PutChunk gives a node a chunk to keep. It fails with ErrRefused when that has
// no room, and with ErrTimeout when it has not answered in time.
func (c *Client) PutChunk(ctx context.Context, to Node, id ChunkID, chunk []byte, wait Wait) error {
	var head, end frameWriter
	head.frame(frameChunk, id.append)
	head.buf = append(head.buf, frameData)
	head.buf = binary.BigEndian.AppendUint32(head.buf, uint32(len(chunk)))
	end.end(store.Digest(chunk), id.Generation)
	_, err := c.chunk(ctx, to, newParts(pathStore, head.buf, chunk, end.buf), wait, func(frames *frameReader) ([]byte, error) {
		switch kind, d, _, err := frames.next(); {
		case err != nil:
			return nil, err
		case kind == frameEnd:
			return nil, d.done()
		case kind == frameNone:
			return nil, ErrRefused
		}
		return nil, malformed("unknown answer")
	})
	if err != nil {
		return fmt.Errorf("storing a chunk at %s: %w", to.Name, err)
	}
	return nil
}

// chunk makes a call about a chunk. The peer is judged by its answer.
func (c *Client) chunk(ctx context.Context, to Node, body *parts, wait Wait, read func(*frameReader) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := guard.AfterFunc(min(wait.Begin, wait.All), func() { cancel(cmp.Or(wait.Why, ErrTimeout)) })
	defer watchdog.Stop()
	// Once: a watchdog that has fired stays so.
	begun := sync.OnceFunc(func() {
		if watchdog.Stop() {
			watchdog.Reset(wait.All)
		}
	})
	if body.path == pathStore {
		body.read = begun // the rest is the chunk's own time
	}
	resp, err := c.call(ctx, to, body.path, body, body.length())
	var chunk []byte
	if err == nil {
		begun()
		defer resp.Body.Close()
		frames := c.frames(resp.Body)
		chunk, err = read(frames)
		frames.close()
	}
	if errors.Is(err, ErrMissing) || errors.Is(err, ErrRefused) {
		c.judge(ctx, to, nil)
		return nil, err
	}
	c.judge(ctx, to, err)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	return chunk, nil
}

// parts is the body of a request that lies in several pieces, and is not copied
// into one.
type parts struct {
	io.Reader
	path string // of the request
	all  [][]byte
	read func() // told when the connection takes some of it; may be nil
}

func newParts(path string, all ...[]byte) *parts {
	readers := make([]io.Reader, len(all))
	for i, p := range all {
		readers[i] = bytes.NewReader(p)
	}
	return &parts{Reader: io.MultiReader(readers...), path: path, all: all}
}

func (p *parts) Read(b []byte) (int, error) {
	if p.read != nil {
		p.read()
	}
	return p.Reader.Read(b)
}

// again returns the same body, unread.
func (p *parts) again() *parts {
	again := newParts(p.path, p.all...)
	again.read = p.read
	return again
}

func (p *parts) length() int64 {
	var n int64
	for _, b := range p.all {
		n += int64(len(b))
	}
	return n
}

// readChunk reads a chunk that was asked for.
func readChunk(frames *frameReader, id ChunkID, length int64) ([]byte, error) {
	kind, d, _, err := frames.next()
	switch {
	case err != nil:
		return nil, err
	case kind == frameNone:
		return nil, ErrMissing
	case kind != frameChunk:
		return nil, malformed("no chunk")
	}
	if got := d.chunkID(); got != id {
		d.fail("another chunk")
	}
	if err := d.done(); err != nil {
		return nil, err
	}
	n, err := dataLength(frames)
	if err != nil {
		return nil, err
	}
	if n != length { // that node has been given something else under this name, and can't know
		return nil, ErrMissing
	}
	return readData(frames, id, n)
}

func dataLength(frames *frameReader) (int64, error) {
	kind, _, n, err := frames.next()
	if err == nil && (kind != frameData || n == 0 || n > store.ChunkSize) {
		err = malformed("no data")
	}
	return n, err
}

// readData reads the bytes of a chunk, and what is to confirm them.
func readData(frames *frameReader, id ChunkID, n int64) ([]byte, error) {
	chunk := make([]byte, n)
	if _, err := io.ReadFull(frames, chunk); err != nil {
		return nil, fmt.Errorf("reading a chunk: %w", err)
	}
	kind, d, _, err := frames.next()
	switch {
	case err != nil:
		return nil, err
	case kind != frameEnd:
		return nil, malformed("frame amid a chunk")
	}
	digest, g := d.uint(math.MaxUint64, "digest"), d.uint(math.MaxUint64, "generation")
	if store.Generation(g) != id.Generation {
		d.fail("generation")
	}
	if err := d.done(); err != nil {
		return nil, err
	}
	if digest != store.Digest(chunk) {
		return nil, ErrDigest
	}
	return chunk, nil
}

// chunkID reads what a request is about, or refuses it.
func (s *Server) chunkID(w http.ResponseWriter, frames *frameReader) (ChunkID, bool) {
	kind, d, _, err := frames.next()
	if err == nil && kind == frameChunk {
		id := d.chunkID()
		if d.done() == nil {
			return id, true
		}
	}
	s.refuse(w)
	return ChunkID{}, false
}

func (s *Server) chunk(w http.ResponseWriter, r *http.Request) {
	frames, inTime := s.frames(w, r)
	defer frames.close()
	id, ok := s.chunkID(w, frames)
	if !ok {
		return
	}
	inTime()
	out := frameWriter{w: w}
	if chunk := s.backend.Chunk(id); chunk == nil {
		out.frame(frameNone, nil)
	} else {
		out.frame(frameChunk, id.append)
		if out.data(chunk) != nil {
			return
		}
		out.end(store.Digest(chunk), id.Generation)
	}
	_ = out.flush() // an error is that of an asker that is gone
}

// chunks answers which of some chunks are here.
func (s *Server) chunks(w http.ResponseWriter, r *http.Request) {
	frames, inTime := s.frames(w, r)
	defer frames.close()
	kind, d, _, err := frames.next()
	if err != nil || kind != frameChunk {
		s.refuse(w)
		return
	}
	id, asked := d.chunkID(), d.indexes()
	if d.done() != nil {
		s.refuse(w)
		return
	}
	inTime()
	there := slices.DeleteFunc(asked, func(i int) bool {
		id.Index = i
		return i == 0 || s.backend.Chunk(id) == nil
	})
	out := frameWriter{w: w}
	out.frame(frameChunk, func(e *encoder) { e.indexes(there) })
	_ = out.flush() // an error is that of an asker that is gone
}

func (s *Server) store(w http.ResponseWriter, r *http.Request) {
	frames, inTime := s.frames(w, r) // all of it, because a chunk takes memory while it comes
	defer inTime()
	defer frames.close()
	id, ok := s.chunkID(w, frames)
	if !ok {
		return
	}
	n, err := dataLength(frames)
	if err != nil {
		s.refuse(w)
		return
	}
	out := frameWriter{w: w}
	release, ok := s.backend.Reserve(n)
	if !ok {
		out.frame(frameNone, nil)
		_ = out.flush()
		return
	}
	defer release()
	chunk, err := readData(frames, id, n)
	if err != nil {
		s.refuse(w)
		return
	}
	s.backend.PutChunk(id, chunk)
	out.frame(frameEnd, nil)
	_ = out.flush()
}

// Stored says that the chunks of a body, up to a size, are with their owners.
// The zero value says nothing.
type Stored struct {
	Generation store.Generation
	Size       int64
}

func (s Stored) append(e *encoder) {
	e.uint(uint64(s.Generation))
	e.uint(uint64(s.Size))
}

func (d *decoder) stored() Stored {
	s := Stored{
		Generation: store.Generation(d.uint(math.MaxUint64, "generation")),
		Size:       int64(d.uint(store.MaxBodySize, "size")),
	}
	if s.Generation == 0 || s.Size <= store.ChunkSize {
		d.fail("stored chunks")
	}
	return s
}

// ahead appends a frame of bytes of a chunk that is coming in, with their digest: what is
// stored is checked once more when it is fetched from its owner.
func (w *frameWriter) ahead(at int64, p []byte) {
	w.frame(frameAhead, func(e *encoder) {
		e.uint(uint64(at))
		e.uint(store.Digest(p))
		e.bytes(p)
	})
}

func (d *decoder) ahead() (at int64, p []byte) {
	at = int64(d.uint(store.MaxBodySize, "position"))
	digest := d.uint(math.MaxUint64, "digest")
	p = d.rest
	if at < store.ChunkSize || len(p) == 0 || digest != store.Digest(p) {
		d.fail("bytes ahead")
	}
	d.rest = nil
	return at, p
}

// A Sink takes a body from the wire: the bytes of the first chunk, then up to
// where the others are stored, and bytes of those that are slow to come in.
type Sink interface {
	io.Writer
	Stored(Stored) error
	Ahead(at int64, p []byte)
}
