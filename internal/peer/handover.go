package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A node that leaves hands what it has to the next owners. It is a stream of
// entries with their bodies, and of chunks, from the client to the server. First
// the server says which purges it has heard of lately, as one does who looks
// up: so what it is given is compared with purges as the answer to a look-up is.
//
//	client                      server
//	       ◄── which purges ───
//	        ── entry, body ──►
//	        ── chunk ────────►
//	        ── end ──────────►
//	       ◄── end ────────────   all is stored

// A Gift takes what one node hands to another.
type Gift struct {
	out io.Writer
}

// Entry hands over an entry and its body, or the first chunk of a large one.
// compared says that it has been compared with all purges of which the heir
// knows.
func (g *Gift) Entry(group string, k store.Key, e *store.Entry, body []byte, compared bool) error {
	w := frameWriter{w: g.out}
	w.frame(frameQuery, NewQuery(group, k, nil, nil).append)
	a := Answer{key: k, out: w, Compared: compared}
	a.say(frameEntry, entryNow(e))
	if err := a.out.data(body); err != nil {
		return err
	}
	a.out.end(e.Digest, e.Generation)
	return a.out.flush()
}

// Chunk hands over a further chunk of a large body.
func (g *Gift) Chunk(id ChunkID, chunk []byte) error {
	w := frameWriter{w: g.out}
	w.frame(frameChunk, id.append)
	if err := w.data(chunk); err != nil {
		return err
	}
	w.end(store.Digest(chunk), id.Generation)
	return w.flush()
}

// HandOver has give hand things to another node, and returns when that has
// stored them. What the heir knows of purges is in the query. It ends with ctx.
func (c *Client) HandOver(ctx context.Context, to Node, give func(*Query, *Gift) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("handing over to %s: %w", to.Name, causeOf(ctx, err))
		}
	}()
	body, out := io.Pipe()
	defer out.Close()
	resp, err := c.call(ctx, to, pathHandOver, body, -1)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	frames := c.frames(resp.Body)
	defer frames.close()
	kind, d, _, err := frames.next()
	if err != nil || kind != frameQuery {
		return malformed("no purges")
	}
	heir := d.query()
	if err := d.done(); err != nil {
		return err
	}
	if err := give(heir, &Gift{out}); err != nil {
		return err
	}
	w := frameWriter{w: out}
	w.frame(frameEnd, nil)
	if err := w.flush(); err != nil {
		return err
	}
	if kind, _, _, err = frames.next(); err == nil && kind != frameEnd {
		err = malformed("no end")
	}
	return err
}

func (s *Server) handOver(w http.ResponseWriter, r *http.Request) {
	asked := time.Now()
	heir := NewQuery("", store.Key{}, nil, nil)
	heir.Purges, heir.Told = s.backend.Heard(asked)
	a := Answer{out: frameWriter{w: w}, flusher: http.NewResponseController(w)}
	a.out.frame(frameQuery, heir.append)
	err := a.Flush()
	if err == nil {
		frames, inTime := s.frames(w, r)
		err = takeover{s.backend, frames, asked}.all(func() { _ = a.flusher.SetReadDeadline(time.Now().Add(s.patience)) })
		frames.close()
		inTime()
	}
	if errors.Is(err, ErrProtocol) || errors.Is(err, ErrDigest) {
		s.note(err)
	}
	if err != nil {
		panic(http.ErrAbortHandler) // it has begun to answer: only a reset says that not all is stored
	}
	a.out.frame(frameEnd, nil)
	_ = a.out.flush() // the giver is gone: nobody to tell
}

// A takeover is what a node that leaves hands over to this one.
type takeover struct {
	backend Backend
	frames  *frameReader
	asked   time.Time // before this node told what it had heard of purges
}

// all takes what comes until its end. It calls next before each gift.
func (t takeover) all(next func()) error {
	for {
		next()
		kind, d, _, err := t.frames.next()
		switch {
		case err != nil:
			return err
		case kind == frameQuery:
			err = t.entry(d)
		case kind == frameChunk:
			err = t.chunk(d)
		case kind == frameEnd:
			return d.done()
		default:
			err = malformed("no gift")
		}
		if err != nil {
			return err
		}
	}
}

func (t takeover) entry(d *decoder) error {
	g, release, err := givenEntry(d, t.frames, time.Now(), t.asked, t.backend.Reserve)
	if err != nil {
		return err
	}
	defer release()
	t.backend.TakeOver(g.Query, g.Entry, g.Body)
	return nil
}

func (t takeover) chunk(d *decoder) error {
	g, release, err := givenChunk(d, t.frames, t.backend.Reserve)
	if err != nil {
		return err
	}
	defer release()
	t.backend.PutChunk(g.ID, g.Body)
	return nil
}

// Given is one thing that a Gift has written: an entry with its body (of a large
// one, the first chunk), or, with no entry, a further chunk.
type Given struct {
	Query *Query // of the entry
	ID    ChunkID
	Entry *store.Entry
	Body  []byte
}

// A reserve takes memory until release, or reports that there is none.
type reserve func(n int64) (release func(), ok bool)

// givenEntry reads an entry with its body, whose query has been read into d. Its age
// counts from now, for purges from asOf. Memory is taken for the body until
// release.
func givenEntry(d *decoder, frames *frameReader, now, asOf time.Time, memory reserve) (g Given, release func(), err error) {
	g.Query = d.query()
	if err := d.done(); err != nil {
		return g, nil, err
	}
	kind, d, _, err := frames.next()
	if err != nil || kind != frameEntry {
		return g, nil, malformed("no entry")
	}
	d.about(g.Query.Key)
	compared := d.flag()
	e := d.entry(now, asOf)
	e.Compared = compared
	if err := d.done(); err != nil {
		return g, nil, err
	}
	length := min(e.Size, store.ChunkSize)
	release, ok := memory(length)
	if !ok {
		return g, nil, ErrRefused
	}
	body := NewWhole(length)
	got, err := copyBody(frames, body)
	if err == nil && (got.size != length || got.generation != e.Generation || got.digest != e.Digest || e.Generation == 0) {
		err = malformed("the body of another entry")
	}
	if err != nil {
		release()
		return g, nil, err
	}
	g.ID, g.Entry, g.Body = ChunkID{Key: g.Query.Key, Generation: e.Generation}, e, body.Bytes()
	return g, release, nil
}

// givenChunk reads a further chunk, whose name has been read into d.
func givenChunk(d *decoder, frames *frameReader, memory reserve) (g Given, release func(), err error) {
	g.ID = d.chunkID()
	if err := d.done(); err != nil {
		return g, nil, err
	}
	n, err := dataLength(frames)
	if err != nil {
		return g, nil, err
	}
	release, ok := memory(n)
	if !ok {
		return g, nil, ErrRefused
	}
	if g.Body, err = readData(frames, g.ID, n); err != nil {
		release()
		return g, nil, err
	}
	return g, release, nil
}

// Whole is a Sink for a body that is stored already, or the first chunk of one:
// it takes no more than it was made for.
type Whole struct{ bytes []byte }

// NewWhole returns a Whole for so many bytes.
func NewWhole(length int64) *Whole { return &Whole{make([]byte, 0, length)} }

// Bytes returns what it has got.
func (w *Whole) Bytes() []byte { return w.bytes }

// Write takes some of the body.
func (w *Whole) Write(p []byte) (int, error) {
	if len(w.bytes)+len(p) > cap(w.bytes) {
		return 0, malformed("more than the body")
	}
	w.bytes = append(w.bytes, p...)
	return len(p), nil
}

// ReadFrom takes the rest of the body, until EOF.
func (w *Whole) ReadFrom(r io.Reader) (int64, error) {
	begin := len(w.bytes)
	for {
		if len(w.bytes) == cap(w.bytes) {
			return int64(len(w.bytes) - begin), malformed("more than the body")
		}
		n, err := r.Read(w.bytes[len(w.bytes):cap(w.bytes)])
		w.bytes = w.bytes[:len(w.bytes)+n]
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return int64(len(w.bytes) - begin), err
		}
	}
}

// Ahead drops bytes: of what is stored none come ahead.
func (w *Whole) Ahead(int64, []byte) {}

// Stored refuses: of what is stored no chunks follow.
func (w *Whole) Stored(Stored) error { return malformed("chunks that follow what is stored") }
