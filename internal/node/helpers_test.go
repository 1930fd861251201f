package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// serve has a node, as a backend, answer others, and returns its place on the ring.
func serve(t *testing.T, name string, b peer.Backend) peer.Node {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, b)
	return peer.Node{Name: name, Addr: l.Addr().String()}
}

func serveOn(t *testing.T, l net.Listener, b peer.Backend) {
	t.Helper()
	s := peer.NewServer(b, new(peer.Identity))
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// pipes is a listener inside a synctest bubble, where time is the test's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// newAsker returns a node on a ring with another one, and the look-up of a key that the
// other one owns.
func newAsker(t *testing.T, owner peer.Node) (*Node, *Lookup) {
	t.Helper()
	return newAskerBy(t, owner, nil)
}

// newAskerBy is newAsker for a node that dials in some way.
func newAskerBy(t *testing.T, owner peer.Node, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*Node, *Lookup) {
	t.Helper()
	n := New("asker", 64<<20)
	t.Cleanup(n.Close)
	if dial != nil {
		n.Client.DialWith(dial)
	}
	n.SetRing([]peer.Node{{Name: n.Name, Addr: "nowhere"}, owner})
	q := &Lookup{
		Namespace: n.Store.Namespace("default"), Header: http.Header{}, MaxBody: n.LargestBody(),
		PeerTimeout: patience, FillTimeout: patience, Request: rfc9111.Request{},
	}
	for ; ; q.Key[0]++ {
		if o, _ := n.Owner(q.Key); o.Name == owner.Name {
			return n, q
		}
	}
}

// backend is what a node is for others, of which a test replaces some.
type backend struct {
	Owner
	lookup  func(context.Context, *peer.Query, *peer.Answer) // nil: the node's own
	publish func(context.Context, *peer.Publication) (store.Generation, rfc9111.Reason)
	chunk   func() // before it is answered; nil: at once
}

func (b backend) Chunk(id peer.ChunkID) []byte {
	if b.chunk != nil {
		b.chunk()
	}
	return b.Owner.Chunk(id)
}

func (b backend) Lookup(q *peer.Query, a *peer.Answer) {
	if b.lookup == nil {
		b.Owner.Lookup(q, a)
		return
	}
	a.Later(func(ctx context.Context) { b.lookup(ctx, q, a) })
}

func (b backend) Publish(ctx context.Context, p *peer.Publication) (store.Generation, rfc9111.Reason) {
	return b.publish(ctx, p)
}

// patience is for what a busy machine may take long for.
const patience = 30 * time.Second

// newEntry returns an entry that is fresh.
func newEntry(size int64, g store.Generation) *store.Entry {
	now := time.Now()
	e := &store.Entry{
		Status: http.StatusOK, Size: size, Generation: g, Sent: now, Fetched: now,
		Fresh: rfc9111.Freshness{Received: now, Lifetime: time.Hour},
	}
	e.SetFields([]store.Field{{Name: "Content-Length", Value: fmt.Sprint(size)}})
	e.SetLabels("http://a.test/", nil, nil)
	return e
}

// held is the body of a publication, which comes when the test says so.
type held struct {
	body  []byte
	until <-chan struct{}
}

func (h *held) Next(ctx context.Context, _ func()) ([]byte, peer.Stored, error) {
	select {
	case <-h.until:
	case <-ctx.Done():
		return nil, peer.Stored{}, context.Cause(ctx)
	}
	if len(h.body) == 0 {
		return nil, peer.Stored{}, io.EOF
	}
	p := h.body
	h.body = nil
	return p, peer.Stored{}, nil
}
