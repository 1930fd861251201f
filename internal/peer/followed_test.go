package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A followedBody goes on when it has heard that others read it at the owner.
type followedBody struct {
	pieces
	heard chan struct{}
}

func (f *followedBody) Followed() { close(f.heard) }

func (f *followedBody) Next(ctx context.Context, idle func()) ([]byte, Stored, error) {
	if len(f.rest) == 1 {
		select {
		case <-f.heard:
		case <-time.After(10 * time.Second):
			return nil, Stored{}, errors.New("not told that it is followed")
		}
	}
	return f.pieces.Next(ctx, idle)
}

// A following is the sink of a body that others read.
type following struct {
	bytes.Buffer
	p *Publication
}

func (f *following) Write(p []byte) (int, error) {
	f.p.Followed()
	return f.Buffer.Write(p)
}
func (f *following) ReadFrom(r io.Reader) (int64, error) {
	f.p.Followed()
	return f.Buffer.ReadFrom(r)
}
func (f *following) Stored(Stored) error { return nil }

func (f *following) Ahead(int64, []byte) {}

// TestPublicationThatIsFollowed: the publisher hears of it while it publishes, and
// can end with what is complete, and not to be stored.
func TestPublicationThatIsFollowed(t *testing.T) {
	for _, end := range []error{io.EOF, ErrUnkept} {
		to, _ := serve(t, backend{publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
			got := &following{p: p}
			err := p.Body(got)
			if err != nil || got.String() != "abc" || p.Unkept != (end == ErrUnkept) {
				t.Errorf("%v: %q, %v, to be kept: %v", end, got, err, !p.Unkept)
			}
			return 11, rfc9111.None
		}})
		body := &followedBody{pieces{[]string{"a", "b", "c"}, end}, make(chan struct{})}
		gen, err := newClient(t).Publish(t.Context(), to, &Publication{Query: NewQuery("g", store.Key{1}, nil, nil), Ticket: Ticket{Lease: 5}, Entry: testEntry(nil)}, body)
		if err != nil || gen != 11 {
			t.Errorf("%v: generation %d, %v", end, gen, err)
		}
	}
}
