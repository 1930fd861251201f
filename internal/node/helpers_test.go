package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
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
	s := peer.NewServer(b, new(peer.Identity))
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return peer.Node{Name: name, Addr: l.Addr().String()}
}

// newAsker returns a node on a ring with another one, and the look-up of a key that the
// other one owns.
func newAsker(t *testing.T, owner peer.Node) (*Node, *Lookup) {
	t.Helper()
	n := New("asker", 64<<20)
	t.Cleanup(n.Close)
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
