package peer

import (
	"bytes"
	"io"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// What a node keeps over a restart is encoded as what it hands to another node.

// NewGift returns a Gift that writes to w.
func NewGift(w io.Writer) *Gift { return &Gift{w} }

// Saved is one thing that a Gift has written: an entry with its body (of a large
// one, the first chunk), or, with no entry, a further chunk.
type Saved struct {
	Group string // of the entry
	ID    ChunkID
	Entry *store.Entry
	Body  []byte
}

// MaxSaved bounds the encoding of a Saved, in bytes.
const MaxSaved = 2*maxFrame + store.ChunkSize + store.ChunkSize/8

// DecodeSaved decodes one thing, of which ages count from asOf.
func DecodeSaved(encoded []byte, asOf time.Time) (Saved, error) {
	frames := newFrameReader(bytes.NewReader(encoded))
	kind, d, _, err := frames.next()
	if err != nil {
		return Saved{}, err
	}
	var s Saved
	switch kind {
	case frameQuery:
		s, err = savedEntry(d, frames, asOf)
	case frameChunk:
		s, err = savedChunk(d, frames)
	default:
		err = malformed("nothing that is saved")
	}
	if err == nil {
		if _, err := frames.r.ReadByte(); err != io.EOF {
			return Saved{}, malformed("bytes after the end")
		}
	}
	return s, err
}

func savedEntry(d *decoder, frames *frameReader, asOf time.Time) (Saved, error) {
	q := d.query()
	if err := d.done(); err != nil {
		return Saved{}, err
	}
	kind, d, _, err := frames.next()
	if err != nil || kind != frameEntry {
		return Saved{}, malformed("no entry")
	}
	d.about(q.Key)
	d.flag() // whether it was compared with what an heir knows
	e := d.entry(asOf, asOf)
	if err := d.done(); err != nil {
		return Saved{}, err
	}
	length := min(e.Size, store.ChunkSize)
	body := NewWhole(length)
	got, err := copyBody(frames, body)
	switch {
	case err != nil:
		return Saved{}, err
	case got.size != length || got.generation != e.Generation || got.digest != e.Digest || e.Generation == 0:
		return Saved{}, malformed("the body of another entry")
	}
	return Saved{Group: q.Group, ID: ChunkID{Key: q.Key, Generation: e.Generation}, Entry: e, Body: body.Bytes()}, nil
}

func savedChunk(d *decoder, frames *frameReader) (Saved, error) {
	id := d.chunkID()
	if err := d.done(); err != nil {
		return Saved{}, err
	}
	n, err := dataLength(frames)
	if err != nil {
		return Saved{}, err
	}
	chunk, err := readData(frames, id, n)
	return Saved{ID: id, Body: chunk}, err
}
