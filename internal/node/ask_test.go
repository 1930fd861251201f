package node

import (
	"bytes"
	"errors"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// followFirst has a node follow, at the owner, the publication of the first chunk of a large
// body. Between its header and its bytes meanwhile is called. The result is the flight of the
// node that follows, when it is over.
func followFirst(t *testing.T, size int64, meanwhile func(owner *Node)) (*Flight, error) {
	t.Helper()
	owner := newLone(t)
	owner.Store.Namespace("default")
	there := serve(t, owner.Name, Owner{owner})
	n, q := newAsker(t, there)
	q.MaxBody = 2 << 20

	publisher := peer.NewClient(new(peer.Identity))
	defer publisher.Close()
	query := peer.NewQuery(q.Namespace.Name, q.Key, nil, nil)
	query.Lead = true
	lease, err := publisher.Lookup(t.Context(), there, query, patience)
	if err != nil || lease.Kind != peer.Lease {
		t.Fatal(lease, err)
	}
	defer lease.Close()

	f, r, _ := n.Join(q)
	defer r.Close()
	if d := Lead(f, func() (Decision, Ending) { return n.Ask(q, f, new(Result)) }); d.Action != Follow {
		t.Fatalf("the node that asks is to %+v", d)
	}
	e, goOn, published := newEntry(size, 7), make(chan struct{}), make(chan error, 1)
	go func() {
		p := &peer.Publication{Query: query, Ticket: lease.Ticket, Entry: e}
		_, err := publisher.Publish(t.Context(), there, p, &held{bytes.Repeat([]byte("0123456789abcdef"), store.ChunkSize/16), goOn})
		published <- err
	}()
	if _, err := f.Fill.Header(t.Context()); err == nil {
		meanwhile(owner)
	}
	close(goOn)
	err = <-published
	<-f.Over
	return f, err
}

// TestFollowedSliceOfAnyBody: of a large body only the first chunk comes, so that chunk is what
// has to have room, and not the body.
func TestFollowedSliceOfAnyBody(t *testing.T) {
	f, err := followFirst(t, 3<<20, func(*Node) {})
	if err != nil {
		t.Fatal(err)
	}
	if f.Landed == nil || f.Landed.Generation != 7 || f.Landed.Size != 3<<20 {
		_, why := f.Fill.Header(t.Context())
		t.Errorf("it ended with %+v, %v", f.Landed, why)
	}
}

// TestFirstChunkThatTheOwnerRefuses: its entry is stored nowhere, and names no chunk.
func TestFirstChunkThatTheOwnerRefuses(t *testing.T) {
	f, err := followFirst(t, 3<<19, func(owner *Node) {
		owner.Purger.apply([]store.Purge{{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.All}}}}, false)
	})
	var refused peer.Broken
	if !errors.As(err, &refused) || refused.Reason != rfc9111.Superseded {
		t.Fatalf("the owner says %v", err)
	}
	if f.Landed != nil {
		t.Errorf("it ended with an entry of generation %d", f.Landed.Generation)
	}
}
