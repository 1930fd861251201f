package node

import (
	"slices"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
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

	// PreviousTimeout is how long a previous owner may take. The request
	// for the key waits that long too, and mustn't give this node up meanwhile.
	PreviousTimeout      = 100 * time.Millisecond
	previousChunkTimeout = 500 * time.Millisecond // a whole MiB

	// maxCopies is how many nodes are asked for a copy of what an owner had that is gone.
	maxCopies = 8

	maxPastRings      = 8
	maxPreviousOwners = 2 // that are asked for one key
)

// previousOwners knows what the ring was like before, and asks the nodes that owned keys
// then.
type previousOwners struct {
	node *Node

	mu     sync.Mutex // guards below
	rings  []pastRing // the latest first
	joined time.Time  // when this node last found others
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
	if len(before.Nodes()) > 1 {
		p.rings = append([]pastRing{{before, now}}, p.rings[:min(len(p.rings), maxPastRings-1)]...)
	} else {
		p.joined = now // what it owned while it was alone says nothing
	}
}

// ForgetPast has the node take its ring for the one that it always had.
func (p *previousOwners) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rings, p.joined = nil, time.Time{}
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
	for _, from := range nodes {
		if time.Since(now) < PreviousTimeout && p.askOne(q, from, found) {
			break
		}
	}
	if len(nodes) > 0 { // if none had anything, it may have come meanwhile (move.go)
		p.node.Find(q, time.Now(), found)
	}
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
func (p *previousOwners) askOne(q *Lookup, from peer.Node, found *Result) bool {
	ask := *q
	ask.Alone, ask.AskPrevious, ask.PeerTimeout = true, false, PreviousTimeout // it wants no lease
	for range 3 {                                                              // again by other fields, and for what is stale
		reply, err := remoteLookup{p.node, &ask, nil, found}.call(from)
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
	stop := guard.AfterFunc(PreviousTimeout, reply.Close)
	defer stop.Stop()
	body := peer.NewWhole(length)
	if _, err := reply.Body(body); err != nil {
		return false
	}
	return p.node.Store.PutMoved(q.Namespace, q.Key, e, body.Bytes()) != nil
}

// chunk brings a chunk that its owner does not have from a previous one,
// and gives it to the owner; nil: no node has it.
func (p *previousOwners) chunk(id peer.ChunkID, length int64) []byte {
	for _, from := range p.Of(store.ChunkKey(id.Key, id.Index), time.Now()) {
		if b, err := p.node.Chunks.request(from, id, length, peer.Wait{Begin: PreviousTimeout, All: previousChunkTimeout}); err == nil {
			p.node.Chunks.Store(id, b, PreviousTimeout)
			return b
		}
	}
	return nil
}
