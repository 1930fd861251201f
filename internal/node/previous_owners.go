package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Keys move when the ring changes, and what is stored of them moves too: the new
// owner of a key, before it gives a lease or fetches, asks the nodes that owned the key
// before. That one answers from what it has, as it answers everybody, and asks
// no other; so there is one hop more, and never two.
//
// What was the owner's stays there until it is stale or evicted. Nothing more
// needs to be undone: a node that has a fresh entry may always serve it.

const (
	// askPreviousFor is how long after a change of the ring previous owners are
	// asked. A look-up that comes to nothing costs little beside a fetch.
	askPreviousFor = 5 * time.Minute

	// PreviousTimeout is how long previous owners may take, all in all. The request
	// for the key waits that long too, and mustn't give this node up meanwhile. Who takes
	// longer is no worse a node: that is what peer_timeout is for (peer.ErrGivenUp).
	PreviousTimeout      = 100 * time.Millisecond
	previousChunkTimeout = 500 * time.Millisecond // a whole MiB

	// askSlowEvery is how often a node is asked that was given up, or each fetch would
	// wait for it.
	askSlowEvery = time.Second

	// maxCopies is how many nodes are asked for a copy of what an owner had that is gone.
	maxCopies = 8

	maxPastRings      = 8
	maxPreviousOwners = 2 // that are asked for one key
)

// previousOwners knows what the ring was like before, and asks the nodes that owned keys
// then.
type previousOwners struct {
	node *Node

	mu     sync.Mutex              // guards below
	rings  []pastRing              // the latest first
	joined time.Time               // when this node last found others
	slow   map[peer.Node]time.Time // nodes that were given up, and when each may be asked again
}

type pastRing struct {
	ring *peer.Ring
	over time.Time
}

// note takes in that a ring has taken the place of another.
func (p *previousOwners) note(before, after *peer.Ring, now time.Time) {
	if slices.Equal(before.Nodes(), after.Nodes()) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.slow, func(one peer.Node, _ time.Time) bool { return !slices.Contains(after.Nodes(), one) })
	if len(before.Nodes()) > 1 {
		p.rings = append([]pastRing{{before, now}}, p.rings[:min(len(p.rings), maxPastRings-1)]...)
	} else {
		p.joined = now // what it owned while it was alone says nothing
	}
}

// Forget has the node take its ring for the one that it always had.
func (p *previousOwners) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rings, p.joined, p.slow = nil, time.Time{}, nil
}

// recent returns the past rings that still count, the latest first, and whether
// this node has joined the others so lately that they had a ring without it.
func (p *previousOwners) recent(now time.Time) (rings []pastRing, joined bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.rings {
		if now.Sub(r.over) > askPreviousFor {
			p.rings = p.rings[:i:i]
			break
		}
	}
	return p.rings, now.Sub(p.joined) <= askPreviousFor
}

// Of returns the nodes that owned a key before its present owner, and are still
// on the ring: the likeliest first.
func (p *previousOwners) Of(k store.Key, now time.Time) []peer.Node {
	ring := p.node.Ring.Load()
	present, _ := ring.Owner(k)
	var owners []peer.Node
	add := func(o peer.Node) {
		if o.Name != p.node.Name && o != present && slices.Contains(ring.Nodes(), o) && !slices.Contains(owners, o) {
			owners = append(owners, o)
		}
	}
	rings, joined := p.recent(now)
	if joined {
		if next, ok := ring.Next(k, p.node.Name); ok {
			add(next)
		}
	}
	for _, r := range rings {
		owner, _ := r.ring.Owner(k)
		add(owner)
	}
	return owners[:min(len(owners), maxPreviousOwners)]
}

// ask brings what a previous owner of a key has for a request. found is what
// this node has now, and becomes what it has then.
func (p *previousOwners) ask(q *Lookup, found *Result) {
	if q.uncacheable(found) != rfc9111.None {
		return
	}
	now := time.Now()
	nodes := p.Of(q.Key, now)
	for _, from := range p.copies(q.Key, now) {
		if !slices.Contains(nodes, from) {
			nodes = append(nodes, from)
		}
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), PreviousTimeout, peer.ErrGivenUp)
	defer cancel()
	for _, from := range nodes {
		asked := time.Now()
		if ctx.Err() != nil || !p.mayAsk(from, asked) {
			continue
		}
		stored := p.askOne(ctx, q, from, found)
		p.judge(from, ctx.Err() != nil && time.Since(asked) > PreviousTimeout/2) // or others have taken the time
		if stored {
			break
		}
	}
	if len(nodes) > 0 { // if none had anything, it may have come meanwhile (move.go)
		p.node.Find(q, time.Now(), found)
	}
}

// mayAsk reports whether a node may be asked. One that was given up may by one request at a
// time, which the others do not wait for.
func (p *previousOwners) mayAsk(from peer.Node, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	next, slow := p.slow[from]
	if now.Before(next) {
		return false
	}
	if slow {
		p.slow[from] = now.Add(askSlowEvery)
	}
	return true
}

// judge notes whether a node was given up. It is not the circuit's business: the node may
// be as fast as peer_timeout wants it.
func (p *previousOwners) judge(from peer.Node, slow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slow {
		delete(p.slow, from)
		return
	}
	if p.slow == nil {
		p.slow = make(map[peer.Node]time.Time)
	}
	p.slow[from] = time.Now().Add(askSlowEvery)
}

// copies returns the nodes that may have copies of what the owner of a key had, if that is
// gone, or if this node stands in for it: then it is the first, since it may be gone for the
// asker only.
func (p *previousOwners) copies(k store.Key, now time.Time) []peer.Node {
	ring := p.node.Ring.Load()
	owner, self := ring.Owner(k)
	gone := !self
	past, _ := p.recent(now)
	for _, r := range past {
		before, _ := r.ring.Owner(k)
		gone = gone || !slices.Contains(ring.Nodes(), before)
	}
	if !gone {
		return nil
	}
	nodes := p.node.Others()
	if i := slices.Index(nodes, owner); i > 0 {
		nodes[0], nodes[i] = nodes[i], nodes[0]
	}
	return nodes[:min(len(nodes), maxCopies)]
}

// askOne reports whether it has stored anything.
func (p *previousOwners) askOne(ctx context.Context, q *Lookup, from peer.Node, found *Result) bool {
	ask := *q
	ask.Alone, ask.AskPrevious, ask.PeerTimeout = true, false, 2*PreviousTimeout // it wants no lease, and ctx ends before
	for range 3 {                                                                // again by other fields, and for what is stale
		reply, err := remoteLookup{p.node, &ask, nil, found}.call(ctx, from)
		if err != nil {
			return false
		}
		switch {
		case reply.Kind == peer.Hit:
			return p.store(&ask, found, reply)
		case reply.Kind == peer.Vary:
			p.node.Store.LearnVary(q.Namespace, q.Key, reply.Names)
			q.vary, ask.vary = reply.Names, reply.Names
		case reply.Kind == peer.Bypass:
			p.node.Store.MarkUncacheable(q.Namespace, q.Key, reply.Reason, time.Now().Add(min(reply.For, UncacheableFor)))
		case reply.Kind == peer.None && reply.Entry != nil && !found.Here && ask.Validated == 0:
			ask.Validated = reply.Entry.Generation // the body too: the node that has it can validate it, or serve it in place of an error
		}
		again := reply.Kind == peer.Vary && q.covers(reply.Names) || reply.Kind == peer.None && ask.Validated != q.Validated
		reply.Close()
		if !again {
			return false
		}
	}
	return false
}

// covers reports whether it is known what the request has in these
// fields.
func (q *Lookup) covers(names []string) bool { return q.from == nil || q.from.Covers(names) }

// store stores what a previous owner has sent, as the owner: the body becomes
// a main value.
func (p *previousOwners) store(q *Lookup, found *Result, reply *peer.Reply) bool {
	defer reply.Close()
	e := reply.Entry
	switch {
	case !e.Matches(q.Header):
		return false
	case found.Here && e.Generation == found.Entry.Generation:
		if e.Size != found.Entry.Size || e.Digest != found.Entry.Digest {
			return false // one generation is one body
		}
		p.node.Store.PutEntry(q.Namespace, q.Key, e)
		return true
	}
	length := min(e.Size, store.ChunkSize)
	release, ok := p.node.Budget.Take(length)
	if !ok {
		return false
	}
	defer release()
	body := peer.NewWhole(length)
	if _, err := reply.Body(body); err != nil {
		return false
	}
	return p.node.Store.PutMoved(q.Namespace, q.Key, e, body.Bytes()) != nil
}

// chunk brings a chunk that its owner does not have from a previous one,
// and gives it to the owner, which may be silent for so long; nil: no node has it.
func (p *previousOwners) chunk(id peer.ChunkID, length int64, silence time.Duration) []byte {
	wait := peer.Wait{Begin: PreviousTimeout, All: previousChunkTimeout, Why: peer.ErrGivenUp}
	for _, from := range p.Of(store.ChunkKey(id.Key, id.Index), time.Now()) {
		if !p.mayAsk(from, time.Now()) {
			continue
		}
		b, err := p.node.Chunks.request(from, id, length, wait)
		p.judge(from, errors.Is(err, peer.ErrGivenUp))
		if err == nil {
			p.node.Chunks.Store(id, b, silence)
			return b
		}
	}
	return nil
}
