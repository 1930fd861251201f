package caddygroupcache

import (
	"slices"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Keys move when the ring changes, and what is stored of them moves too: the new
// owner of a key, before it gives a lease or fetches, asks whoever owned the key
// before. That one answers from what it has, as it answers everybody, and asks
// nobody; so there is one hop more, and never two.
//
// What was the owner's stays there until it is stale or evicted. Nothing more
// needs to be undone: a node that has a fresh entry may always serve it.

const (
	// inheritFor is how long after a change of the ring previous owners are
	// asked. A look-up that comes to nothing costs little beside a fetch.
	inheritFor = 5 * time.Minute

	// inheritPatience is how long a previous owner may take. Whoever has asked
	// for the key waits that long too, and mustn't give this node up meanwhile.
	inheritPatience      = 100 * time.Millisecond
	inheritChunkPatience = 500 * time.Millisecond // a whole MiB

	maxPastRings      = 8
	maxPreviousOwners = 2 // that are asked for one key
)

// past is what the ring was like before. The zero value knows nothing.
type past struct {
	mu     sync.Mutex // guards below
	rings  []pastRing // the latest first
	joined time.Time  // when this node last found others
}

type pastRing struct {
	ring *peer.Ring
	over time.Time
}

// note takes in that a ring has taken the place of another.
func (p *past) note(before, after *peer.Ring, now time.Time) {
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

// recent returns the past rings that still count, the latest first, and whether
// this node has joined the others so lately that they had a ring without it.
func (p *past) recent(now time.Time) (rings []pastRing, joined bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.rings {
		if now.Sub(r.over) > inheritFor {
			p.rings = p.rings[:i:i]
			break
		}
	}
	return p.rings, now.Sub(p.joined) <= inheritFor
}

// previousOwners returns who owned a key before its present owner, and is still
// on the ring: the likeliest first.
func (n *node) previousOwners(k store.Key, now time.Time) []peer.Node {
	ring := n.ring.Load()
	present, _ := ring.Owner(k)
	var owners []peer.Node
	add := func(o peer.Node) {
		if o.Name != n.name && o != present && slices.Contains(ring.Nodes(), o) && !slices.Contains(owners, o) {
			owners = append(owners, o)
		}
	}
	rings, joined := n.past.recent(now)
	if joined {
		if next, ok := ring.Next(k, n.name); ok {
			add(next)
		}
	}
	for _, r := range rings {
		owner, _ := r.ring.Owner(k)
		add(owner)
	}
	return owners[:min(len(owners), maxPreviousOwners)]
}

// inherit brings what a previous owner of a key has for a question. found is what
// this node has now, and becomes what it has then.
func (n *node) inherit(q *question, found *finding) {
	if q.uncacheable(found) != rfc9111.None {
		return
	}
	for _, from := range n.previousOwners(q.key, time.Now()) {
		if n.inheritFrom(q, from, found) {
			n.find(q, time.Now(), found)
			return
		}
	}
}

// inheritFrom reports whether it has stored anything.
func (n *node) inheritFrom(q *question, from peer.Node, found *finding) bool {
	ask := *q
	ask.alone, ask.patience = true, inheritPatience // it wants no lease
	for range 3 {                                   // again by other fields, and for what is stale
		reply, err := n.lookup(&ask, from, found)
		if err != nil {
			return false
		}
		switch {
		case reply.Kind == peer.Hit:
			return n.takeOver(&ask, found, reply)
		case reply.Kind == peer.Vary:
			n.store.LearnVary(q.space, q.key, reply.Names)
			q.vary, ask.vary = reply.Names, reply.Names
		case reply.Kind == peer.Bypass:
			n.store.MarkUncacheable(q.space, q.key, reply.Reason, time.Now().Add(min(reply.For, uncacheableFor)))
		case reply.Kind == peer.None && reply.Entry != nil && !found.here && ask.validated == 0:
			ask.validated = reply.Entry.Generation // the body too: who has it can validate it, or serve it in place of an error
		}
		again := reply.Kind == peer.Vary && q.covers(reply.Names) || reply.Kind == peer.None && ask.validated != q.validated
		reply.Close()
		if !again {
			return false
		}
	}
	return false
}

// covers reports whether it is known what the question's request has in these
// fields.
func (q *question) covers(names []string) bool { return q.from == nil || q.from.Covers(names) }

// takeOver stores what a previous owner has sent, as the owner: the body becomes
// a main value.
func (n *node) takeOver(q *question, found *finding, reply *peer.Reply) bool {
	defer reply.Close()
	e := reply.Entry
	switch {
	case !e.Matches(q.header):
		return false
	case found.here && e.Generation == found.entry.Generation:
		if e.Size != found.entry.Size || e.Digest != found.entry.Digest {
			return false // one generation is one body
		}
		n.store.PutEntry(q.space, q.key, e)
		return true
	}
	length := min(e.Size, store.ChunkSize)
	release, ok := n.Reserve(length)
	if !ok {
		return false
	}
	defer release()
	stop := time.AfterFunc(inheritPatience, reply.Close)
	defer stop.Stop()
	body := peer.NewWhole(length)
	if _, err := reply.Body(body); err != nil {
		return false
	}
	return n.store.PutMoved(q.space, q.key, e, body.Bytes()) != nil
}

// inheritChunk brings a chunk that its owner does not have from a previous one,
// and gives it to the owner; nil: nobody has it.
func (n *node) inheritChunk(id peer.ChunkID, length int64) []byte {
	for _, from := range n.previousOwners(store.ChunkKey(id.Key, id.Index), time.Now()) {
		if b, err := n.getChunk(from, id, length, inheritChunkPatience); err == nil {
			n.putChunk(id, b)
			return b
		}
	}
	return nil
}
