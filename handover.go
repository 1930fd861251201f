package caddygroupcache

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

const (
	// handOverFor bounds how long a node that leaves hands over what it has: no
	// supervisor should lose patience with it. It takes as long again as
	// leaveTimeout to say that it leaves.
	handOverFor = 3 * time.Second

	retryHandOver = 100 * time.Millisecond

	maxHeirs = 4 // at the same time
)

// A legacy is what a node that leaves has for one other node: of each key, by
// index, in the order in which it is handed over.
type legacy struct {
	keys   []store.Key
	spaces []*store.Namespace
	chunks []peer.ChunkID
}

// handOver gives the keys that this node owns to their next owners, those first
// that are asked for. It is still on the ring: until it leaves, it is asked for
// them itself. What it has fetched for keys that others own they have too.
func (n *node) handOver() {
	ctx, cancel := context.WithTimeoutCause(n.over, handOverFor, peer.ErrTimeout)
	defer cancel()
	// The heirs have no more room than this node; what they have is in use too.
	var left atomic.Int64
	left.Store(n.store.BodyLimit() / 2)
	slots := make(chan struct{}, maxHeirs)
	var all sync.WaitGroup
	for to, l := range n.legacies() {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			n.bequeath(ctx, to, l, &left)
		})
	}
	all.Wait()
}

// bequeath hands over one heir's part, and tries again until ctx ends: the heir
// may be left alone just now, because it was silent a moment ago.
func (n *node) bequeath(ctx context.Context, to peer.Node, l *legacy, left *atomic.Int64) {
	for {
		start := time.Now()
		err := n.client.HandOver(ctx, to, func(heir *peer.Query, gift *peer.Gift) error {
			return n.give(ctx, l, heir, gift, left)
		})
		observePeer(operationHandOver, err, time.Since(start))
		if err == nil || !pause(ctx, retryHandOver) {
			return
		}
	}
}

// legacies divides what this node owns among the next owners.
func (n *node) legacies() map[peer.Node]*legacy {
	ring, heirs := n.ring.Load(), make(map[peer.Node]*legacy)
	heir := func(k store.Key) *legacy {
		if _, self := ring.Owner(k); !self {
			return nil
		}
		next, ok := ring.Next(k, n.name)
		if !ok {
			return nil
		}
		if heirs[next] == nil {
			heirs[next] = new(legacy)
		}
		return heirs[next]
	}
	now := time.Now()
	keys, spaces := n.store.Ranked()
	for i, k := range keys {
		if l := heir(k); l != nil {
			l.keys, l.spaces = append(l.keys, k), append(l.spaces, spaces[i])
		}
		for _, v := range n.store.Inspect(k, nil, now).Variants {
			for j := 1; j < store.Chunks(v.Entry.Size); j++ {
				if l := heir(store.ChunkKey(k, j)); l != nil {
					l.chunks = append(l.chunks, peer.ChunkID{Key: k, Generation: v.Entry.Generation, Index: j})
				}
			}
		}
	}
	return heirs
}

// give hands over one heir's part, until nothing is left of the bytes that may
// move. What was purged meanwhile is left out.
func (n *node) give(ctx context.Context, l *legacy, heir *peer.Query, gift *peer.Gift, left *atomic.Int64) error {
	compared := n.knowsAll(heir) // before anything is looked at
	for i, k := range l.keys {
		// The newest last, as they came in.
		for _, v := range slices.Backward(n.store.Inspect(k, nil, time.Now()).Variants) {
			body, err := n.store.Body(k, v.Entry)
			if err != nil {
				continue
			}
			if left.Add(-int64(len(body))) < 0 || ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := gift.Entry(l.spaces[i].Name, k, v.Entry, body, compared); err != nil {
				return err
			}
		}
	}
	for _, id := range l.chunks {
		chunk := n.Chunk(id)
		if chunk == nil {
			continue
		}
		if left.Add(-int64(len(chunk))) < 0 || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := gift.Chunk(id, chunk); err != nil {
			return err
		}
	}
	return nil
}

// TakeOver stores what a node that leaves has handed over.
func (n *node) TakeOver(q *peer.Query, e *store.Entry, body []byte) {
	if space := n.store.NamespaceOfPeer(q.Group); space != nil {
		n.store.PutMoved(space, q.Key, e, body)
	}
}

// Heard returns the purges that this node has heard of lately.
func (n *node) Heard(now time.Time) ([]store.PurgeID, bool) { return n.purged.Recent(now) }
