package node

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// PublishStream hands a flight that this node leads to the owner while it comes in,
// and keeps what the owner made of it. A response that the owner could not
// take is stored here instead.
func (f *Flight) PublishStream(q *Lookup, d Decision, e *store.Entry, body *Follower) {
	defer body.Close()
	defer d.Lease.Close()
	ctx, cancel := context.WithTimeout(context.Background(), q.FillTimeout)
	defer cancel()
	query := peer.NewQuery(q.Namespace.Name, q.Key, q.Header, e.Vary())
	query.Within = q.FillTimeout
	start, span := time.Now(), q.startPeerSpan(operationPublish)
	generation, err := f.node.Client.Publish(ctx, *d.Owner, &peer.Publication{Query: query, Ticket: d.ticket, Entry: e}, Outgoing{Follower: body, Flight: f, stores: true})
	if f.Followed.Load() {
		defer f.node.readers.Add(-1)
	}
	f.node.observed(span, operationPublish, err, time.Since(start))
	<-f.Over
	f.storePublished(q, generation, err)
}

// PublishWhole is PublishStream for a small body, which it sends when the flight is over. A
// silent owner is not waited for.
func (f *Flight) PublishWhole(q *Lookup, d Decision, e *store.Entry, body *Follower) {
	defer body.Close()
	defer d.Lease.Close()
	if <-f.Over; f.Landed == nil {
		return // it took too long
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), q.PeerTimeout, peer.ErrTimeout)
	defer cancel()
	query := peer.NewQuery(q.Namespace.Name, q.Key, q.Header, e.Vary())
	start, span := time.Now(), q.startPeerSpan(operationPublish)
	generation, err := f.node.Client.PublishWhole(ctx, *d.Owner, &peer.Publication{Query: query, Ticket: d.ticket, Entry: e}, f.Fill.Bytes())
	f.node.observed(span, operationPublish, err, time.Since(start))
	f.storePublished(q, generation, err)
}

// StoreAtOwner has the owner of a key store a complete response that it has
// given no lease for. body brings the same to it, if another node is the owner.
func (n *Node) StoreAtOwner(q *Lookup, e *store.Entry, whole []byte, body Outgoing) {
	owner, self := n.Owner(q.Key)
	if self {
		n.Store.Commit(q.Namespace, q.Key, e, whole)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), q.PeerTimeout)
	defer cancel()
	start := time.Now()
	_, err := n.Client.Publish(ctx, owner, &peer.Publication{Query: peer.NewQuery(q.Namespace.Name, q.Key, q.Header, e.Vary()), Entry: e}, body)
	n.observe(operationPublish, err, time.Since(start))
}

// TellSearchVariance tells all other nodes which queries of a path are equivalent, in
// the words of a response.
func (n *Node) TellSearchVariance(space *store.Namespace, path store.Key, lines []string, timeout time.Duration) {
	query := peer.NewQuery(space.Name, path, http.Header{"No-Vary-Search": lines}, []string{"No-Vary-Search"})
	n.broadcast(operationLearn, n.Others(), timeout, func(ctx context.Context, to peer.Node) error {
		return n.Client.Learn(ctx, to, query)
	})
}

// storePublished stores what became of a flight that was published.
func (f *Flight) storePublished(q *Lookup, generation store.Generation, err error) {
	if f.Landed != nil { // else there is nothing to store anywhere
		f.keepPublished(q, f.Landed, f.Fill.Bytes(), generation, err)
	}
}

// keepPublished stores a response, of a large one the first chunk, as the owner that it was
// published to has, or here if that could not take it. It returns the entry as stored; nil: the
// owner does not want it, or something later is here.
func (f *Flight) keepPublished(q *Lookup, e *store.Entry, body []byte, generation store.Generation, err error) *store.Entry {
	switch {
	case err == nil:
		stored := *e
		stored.Generation = generation
		f.node.Store.PutCopy(q.Namespace, q.Key, &stored, body)
		return &stored
	case errors.As(err, new(peer.Broken)):
		return nil
	}
	return f.node.Store.CommitSummed(q.Namespace, q.Key, e, body)
}

// Refresh stores what a 304 made of an entry, here and at the owner.
func (f *Flight) Refresh(q *Lookup, d Decision, e *store.Entry) {
	if d.Owner == nil {
		f.node.Store.PutEntry(q.Namespace, q.Key, e)
		return
	}
	f.node.Store.PutCopy(q.Namespace, q.Key, e, nil)
	d.Lease.Use()
	defer d.Lease.Close()
	ctx, cancel := context.WithTimeout(context.Background(), q.PeerTimeout)
	defer cancel()
	query := peer.NewQuery(q.Namespace.Name, q.Key, q.Header, e.Vary())
	start, span := time.Now(), q.startPeerSpan(operationRefresh)
	err := f.node.Client.Refresh(ctx, *d.Owner, query, d.ticket, e)
	f.node.observed(span, operationRefresh, err, time.Since(start))
}

// broadcast tells other nodes at the same time, and returns when they have
// answered, or have been silent for so long.
func (n *Node) broadcast(operation string, nodes []peer.Node, timeout time.Duration, tell func(context.Context, peer.Node) error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, peer.ErrTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, to := range nodes {
		guard.GoWait(&all, func() {
			start := time.Now()
			err := tell(ctx, to)
			n.observe(operation, err, time.Since(start))
		})
	}
	all.Wait()
}
