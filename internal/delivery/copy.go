// Package delivery writes bodies to clients: whole or in part, from memory, from chunks on
// other nodes, or while they come in.
package delivery

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/cespare/xxhash/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

// Sent is what a client has got of a body: the bytes from start to at, of which
// there is a digest, since the chunks that they came from may be gone.
type Sent struct {
	start  int64
	At     int64
	digest xxhash.Digest
}

// NewSent returns that nothing was sent.
func NewSent() *Sent {
	g := new(Sent)
	g.digest.Reset()
	return g
}

// begin says where the client's part begins.
func (g *Sent) begin(at int64) { g.start, g.At = at, at }

func (g *Sent) add(p []byte) {
	g.At += int64(len(p))
	_, _ = g.digest.Write(p) // never fails
}

// BrokeOff reports whether a fill can't give its reader the rest of the body.
func BrokeOff(err error) bool {
	return errors.As(err, new(node.Ended)) || errors.Is(err, fill.ErrGone)
}

// CopyFill copies a fill to a client as it comes in, and notes in g what that has
// got. The error is nil when the body is complete; BrokeOff tells whether it is
// the fill's.
func CopyFill(ctx context.Context, w http.ResponseWriter, body *node.Follower, g *Sent) error {
	flush := func() { _ = http.NewResponseController(w).Flush() }
	if part, ok := w.(*PartWriter); ok { // what comes before need not be brought
		body.Skip(part.start)
		part.at = part.start
		g.begin(part.start)
	}
	for {
		p, err := body.Next(ctx, flush)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := w.Write(p)
		g.add(p[:n])
		if err != nil || Served(w) {
			return err
		}
	}
}
