package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

const (
	// HandOverFor bounds how long a node that leaves hands over what it has: no
	// supervisor should end it for that. It takes as long again as
	// leaveTimeout to say that it leaves.
	HandOverFor = 3 * time.Second

	retryHandOver = 100 * time.Millisecond

	maxReceivers = 4 // at the same time

	// onTheWay is more than a connection and its two ends hold of a hand-over, in bytes.
	onTheWay = 4 << 20
)

// A share is what a node that leaves has for one other node: keys in the order in which
// they are handed over, each with its namespace, and chunks.
type share struct {
	keys   []store.Key
	spaces []*store.Namespace
	chunks []peer.ChunkID

	taken    int   // how many of the keys, and then of the chunks, have certainly come in
	underWay []int // the bytes of those after them that have been given
	bytes    int   // the sum of these
}

// begin begins with what may not have come in.
func (s *share) begin() { s.underWay, s.bytes = nil, 0 }

// gave notes that the next key or chunk has been given. Of what has, no more than onTheWay bytes
// have not come in.
func (s *share) gave(bytes int) {
	s.underWay, s.bytes = append(s.underWay, bytes), s.bytes+bytes
	for len(s.underWay) > 0 && s.bytes-s.underWay[0] >= onTheWay {
		s.taken++
		s.bytes -= s.underWay[0]
		s.underWay = s.underWay[1:]
	}
}

// A division is the share of each other node.
type division map[peer.Node]*share

func (d division) of(receiver peer.Node) *share {
	if d[receiver] == nil {
		d[receiver] = new(share)
	}
	return d[receiver]
}

// A handOver is what a node does with its entries when it leaves.
type handOver struct {
	node *Node
	ctx  context.Context // ends when there is no more time
	left atomic.Int64    // bytes that may still move

	// To one node at a time only: bytes a second, 0 for no limit, and for how long it has
	// gone faster.
	rate int
	owed time.Duration
}

// HandOver gives all that this node holds to the nodes that own it when this one
// is gone, those keys first that are asked for. The node is still on the ring:
// until it leaves, it is asked for its keys itself.
//
// Keys of others come last, with what is left of the time and the bytes. Their
// owners usually have them, but not in a rolling restart: an owner that has just
// joined has only what was asked for since, and the copy here may be the last.
func (n *Node) HandOver() {
	ctx, cancel := context.WithTimeoutCause(n.Over, HandOverFor, peer.ErrTimeout)
	defer cancel()
	h := &handOver{node: n, ctx: ctx}
	h.left.Store(n.Store.BodyLimit() / 2) // the others have no more room than this node, and use it
	owned, copies := h.divide()
	h.all(owned)
	h.all(copies)
}

var errBehind = errors.New("this node may have missed purges")

// all hands over the share of each node.
func (h *handOver) all(d division) {
	slots := make(chan struct{}, maxReceivers)
	var all sync.WaitGroup
	for to, share := range d {
		slots <- struct{}{}
		guard.GoWait(&all, func() {
			defer func() { <-slots }()
			h.to(to, share)
		})
	}
	all.Wait()
}

// to hands over one node's share, and tries again until the time is over: the receiver
// may be left alone just now, because it was silent a moment ago, or have no memory for
// something. It goes on about where it broke off.
func (h *handOver) to(to peer.Node, s *share) {
	for h.once(to, s) != nil && pause(h.ctx, retryHandOver) {
	}
}

func (h *handOver) once(to peer.Node, s *share) error {
	start := time.Now()
	if !h.node.Purger.UpToDate(h.ctx, start, catchUpFor) {
		return errBehind
	}
	err := h.node.Client.HandOver(h.ctx, to, func(receiver *peer.Query, gift *peer.Gift) error {
		return h.give(s, receiver, gift)
	})
	h.node.observe(operationHandOver, err, time.Since(start))
	return err
}

// divide divides what this node holds among the nodes that own it when this one
// is gone: what it owns now, and its copies of what others own.
func (h *handOver) divide() (owned, copies division) {
	ring := h.node.Ring.Load()
	owned, copies = make(division), make(division)
	shareOf := func(k store.Key) *share {
		owner, self := ring.Owner(k)
		if !self {
			return copies.of(owner)
		}
		next, ok := ring.Next(k, h.node.Name)
		if !ok {
			return nil
		}
		return owned.of(next)
	}
	h.walk(shareOf)
	return owned, copies
}

// walk adds all keys and chunks that this node knows of to the shares that they belong to,
// those first that were asked for last; nil: to none.
func (h *handOver) walk(shareOf func(store.Key) *share) {
	keys, spaces := h.node.Store.Ranked()
	claimed := h.node.largestClaim() / store.ChunkSize // that all large bodies may have: more are nowhere
	for i, k := range keys {
		if s := shareOf(k); s != nil {
			s.keys, s.spaces = append(s.keys, k), append(s.spaces, spaces[i])
		}
		for _, e := range h.node.Store.Stored(k) {
			for j := 1; j < store.Chunks(e.Size) && claimed > 0; j++ {
				claimed--
				if s := shareOf(store.ChunkKey(k, j)); s != nil {
					s.chunks = append(s.chunks, peer.ChunkID{Key: k, Generation: e.Generation, Index: j})
				}
			}
		}
	}
}

// take reports whether so many bytes may still move, when it is time for them.
func (h *handOver) take(bytes int) bool {
	if h.rate > 0 {
		h.owed += time.Duration(bytes+moveOverhead) * time.Second / time.Duration(h.rate)
		if h.owed > shortestPause {
			pause(h.ctx, h.owed)
			h.owed = 0
		}
	}
	return h.left.Add(-int64(bytes)) >= 0 && h.ctx.Err() == nil
}

// errSpent ends a hand-over that has no bytes left, or no time.
var errSpent = errors.New("no more may move")

// give hands over what is left of one node's share, until nothing is left of the bytes that
// may move. What was purged meanwhile is left out.
func (h *handOver) give(s *share, receiver *peer.Query, gift *peer.Gift) error {
	compared := h.node.Purger.knowsAll(receiver) // before anything is looked at
	s.begin()
	for i := s.taken; i < len(s.keys)+len(s.chunks); i++ {
		var bytes int
		var err error
		if i < len(s.keys) {
			bytes, err = h.giveKey(s.keys[i], s.spaces[i].Name, gift, compared)
		} else {
			bytes, err = h.giveChunk(s.chunks[i-len(s.keys)], gift)
		}
		if errors.Is(err, errSpent) {
			return context.Cause(h.ctx)
		}
		if err != nil {
			return err
		}
		s.gave(bytes)
	}
	return nil
}

// giveKey hands over what is stored under a key, and returns how many bytes that are.
func (h *handOver) giveKey(k store.Key, group string, gift *peer.Gift, compared bool) (bytes int, err error) {
	for _, e := range slices.Backward(h.node.Store.Stored(k)) { // the newest last, as they came in
		body, err := h.node.Store.Body(k, e)
		if err != nil {
			continue
		}
		if !h.take(len(body)) {
			return bytes, errSpent
		}
		if err := gift.Entry(group, k, e, body, compared); err != nil {
			return bytes, err
		}
		bytes += len(body)
	}
	return bytes, nil
}

// giveChunk is giveKey for a further chunk of a large body.
func (h *handOver) giveChunk(id peer.ChunkID, gift *peer.Gift) (bytes int, err error) {
	chunk, err := h.node.Store.Chunk(id.Key, id.Generation, id.Index)
	if err != nil {
		return 0, nil
	}
	if !h.take(len(chunk)) {
		return 0, errSpent
	}
	return len(chunk), gift.Chunk(id, chunk)
}

// largestClaim returns the size beyond which no body of an entry from another node
// can be: several times what all nodes together keep, since a node that was one of
// more nodes may have stored larger ones than this node would. Whatever goes through
// the chunks of entries goes through no more than so many bytes.
func (n *Node) largestClaim() int64 { return 8 * n.LargestBody() }

// credible reports whether an entry from another node, if there is one, does not claim
// more than that.
func (n *Node) credible(e *store.Entry) bool { return e == nil || e.Size <= n.largestClaim() }
