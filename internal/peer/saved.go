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

// MaxSaved bounds the encoding of what one Given holds, in bytes.
const MaxSaved = 2*maxFrame + store.ChunkSize + store.ChunkSize/8

// DecodeSaved decodes one thing, of which ages count from asOf.
func DecodeSaved(encoded []byte, asOf time.Time) (Given, error) {
	frames := newFrameReader(bytes.NewReader(encoded))
	kind, d, _, err := frames.next()
	if err != nil {
		return Given{}, err
	}
	var g Given
	switch kind {
	case frameQuery:
		if g, _, err = givenEntry(d, frames, asOf, asOf, noReserve); err == nil {
			g.Entry.Compared = false // that was said of what an heir knew
		}
	case frameChunk:
		g, _, err = givenChunk(d, frames, noReserve)
	default:
		err = malformed("nothing that is saved")
	}
	if err == nil {
		if _, err := frames.r.ReadByte(); err != io.EOF {
			return Given{}, malformed("bytes after the end")
		}
	}
	return g, err
}

// noReserve takes nothing: there is as much in memory already as is decoded.
func noReserve(int64) (release func(), ok bool) { return func() {}, true }
