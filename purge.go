package caddygroupcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A purge is a promise: when it reports success, no live node serves anything
// that was fetched before it began. Three things hold it up:
//
//   - every live node acknowledges it (node.purge), and compares with it what it
//     has and what still comes in (store.Purge);
//   - an entry never passes for younger than it is, also between nodes: ages are
//     rounded up, and count from before the question was asked (peer.Reply), or
//     from when the lease was given (ticket);
//   - a node that may have missed one learns it from another before it serves a
//     hit again (catcher): after it was frozen, and whenever it sees a member
//     that it did not see before, as when a partition heals.
//
// A purge that has failed on some nodes is told to them again as long as they
// are on the ring, and all purges are told to nodes that are new there
// (reminders): one that the others had given up need not know of it.

const (
	// purgeDeadline is how long a node may take to acknowledge a purge.
	purgeDeadline = 2 * time.Second

	// beat is how often a node notes that it is running. After maxSilence
	// without, which is less than purgeDeadline, it may have missed a purge.
	beat       = 100 * time.Millisecond
	maxSilence = time.Second

	// retryPurge is how soon a purge is told again to a node that has not
	// acknowledged it, and remindEvery after the purge has failed there.
	retryPurge  = 100 * time.Millisecond
	remindEvery = time.Second

	// catchUpFor is how long a node waits for others to tell what it may have
	// missed, and lonelyFor if it was away itself and nobody has answered yet.
	catchUpFor = time.Second
	lonelyFor  = 10 * time.Second
)

// An Acknowledgement is what a node answered to a purge.
type Acknowledgement struct {
	// The node's name.
	Name string `json:"name"`

	// Whether it serves nothing any more that was fetched before.
	Acknowledged bool `json:"acknowledged"`

	// Why it did not acknowledge.
	Error string `json:"error,omitempty"`
}

// purge applies purges here and on all live nodes.
func (n *node) purge(purges []store.Purge) []Acknowledgement {
	n.apply(purges, true)
	acks := []Acknowledgement{{Name: n.name, Acknowledged: true}}
	for _, name := range *n.foreign.Load() {
		acks = append(acks, Acknowledgement{Name: name, Error: "it speaks another version of the protocol: purge it by its own admin API"})
	}
	var mu sync.Mutex // guards acks
	n.tellOthers(operationPurge, purgeDeadline, func(ctx context.Context, to peer.Node) error {
		err := n.tellPurges(ctx, to, purges)
		ack := Acknowledgement{Name: to.Name, Acknowledged: err == nil}
		if err != nil {
			ack.Error = err.Error()
			n.remind(to)
		}
		mu.Lock()
		defer mu.Unlock()
		acks = append(acks, ack)
		return err
	})
	return acks
}

// tellPurges has another node apply purges, and tries again until ctx ends: a
// connection may break that was idle or busy for too long.
func (n *node) tellPurges(ctx context.Context, to peer.Node, purges []store.Purge) error {
	for {
		err := n.client.Purge(ctx, to, purges)
		if err == nil || !pause(ctx, retryPurge) {
			return err
		}
	}
}

// pause waits, and reports false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// reminders are the nodes on the ring that have not acknowledged a purge or are
// new there, and whether that has happened since they were last told.
type reminders struct {
	mu    sync.Mutex // guards nodes
	nodes map[peer.Node]bool
}

// remind tells another node again what it has not acknowledged.
func (n *node) remind(to peer.Node) {
	r := &n.reminders
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, going := r.nodes[to]; !going {
		go n.keepReminding(to)
	}
	if r.nodes == nil {
		r.nodes = make(map[peer.Node]bool)
	}
	r.nodes[to] = true
}

// keepReminding tells another node all purges that this one remembers, until it
// has taken them in or is not on the ring any more. If it comes back there, that
// begins anew (setRing).
func (n *node) keepReminding(to peer.Node) {
	r := &n.reminders
	for acknowledged := false; ; {
		r.mu.Lock()
		if acknowledged && !r.nodes[to] || n.over.Err() != nil || !slices.Contains(n.others(), to) {
			delete(r.nodes, to)
			r.mu.Unlock()
			return
		}
		r.nodes[to] = false
		r.mu.Unlock()
		purges, _ := n.Purges()
		ctx, cancel := context.WithTimeoutCause(n.over, purgeDeadline, peer.ErrTimeout)
		acknowledged = len(purges) == 0 || n.client.Purge(ctx, to, purges) == nil
		cancel()
		if !acknowledged {
			pause(n.over, remindEvery)
		}
	}
}

// invalidate drops what selectors name, here and on all other nodes, because a
// request has changed it. It waits for their answers, so that the client who
// changed it doesn't see the old one afterwards; what a silent node has stored
// it may serve until that is stale, as RFC 9111 §4.4 allows.
func (n *node) invalidate(id store.PurgeID, space *store.Namespace, selectors []store.Selector, patience time.Duration) {
	purges := []store.Purge{{ID: id, Group: space.Name, Selectors: selectors, Fleeting: true}}
	n.Purge(purges)
	n.tellOthers(operationPurge, patience, func(ctx context.Context, to peer.Node) error {
		return n.client.Purge(ctx, to, purges)
	})
}

// Purge applies purges on this node that another one has told it of.
func (n *node) Purge(purges []store.Purge) { n.apply(purges, false) }

func (n *node) apply(purges []store.Purge, asked bool) {
	for _, p := range purges {
		p.At = time.Now()
		if !n.purged.Announce(p.ID, p.At) {
			continue
		}
		n.store.Purge(p)
		for _, s := range p.Selectors {
			if !p.Fleeting {
				n.purges[s.Kind].Add(1)
			}
			if s.Kind == store.OfKey && !p.Soft {
				k := store.Key([]byte(s.Value))
				n.fills.detach(k)
				n.asks.detach(k)
			}
		}
		n.purged.Add(p)
		if n.onPurge != nil && !p.Fleeting {
			n.onPurge(p, asked)
		}
	}
}

// Purges returns the purges that this node remembers.
func (n *node) Purges() ([]store.Purge, time.Time) { return n.purged.All() }

// learnPurges takes in what another node remembers. If older purges are gone
// there, and this node knows none of those that are left, it has missed some
// that nobody can tell any more: then it drops everything.
func (n *node) learnPurges(purges []store.Purge, dropped time.Time) {
	if !dropped.IsZero() {
		knows := false
		for _, p := range purges {
			knows = knows || n.purged.Knows(p.ID)
		}
		if !knows {
			n.store.Purge(store.Purge{Selectors: []store.Selector{{Kind: store.All}}})
		}
		n.purged.Dropped(dropped)
	}
	n.Purge(purges)
}

// knowsAll reports whether this node knows all purges that a query tells of.
func (n *node) knowsAll(q *peer.Query) bool {
	for _, id := range q.Purges {
		if !n.purged.Knows(id) {
			return false
		}
	}
	return q.Told
}

// selectorOf names the responses stored under a key.
func selectorOf(k store.Key) store.Selector {
	return store.Selector{Kind: store.OfKey, Value: string(k[:])}
}

// A clock gives other nodes times of this node, to be handed back.
type clock struct {
	nonce uint64 // of this process: times of an earlier one are no good
	start time.Time
}

func newClock() clock { return clock{nonce: rand.Uint64(), start: time.Now()} }

// ticket is what goes with an answer at this time.
func (c clock) ticket(lease uint64) peer.Ticket {
	t := peer.Ticket{Lease: lease}
	binary.BigEndian.PutUint64(t.At[:8], c.nonce)
	binary.BigEndian.PutUint64(t.At[8:], uint64(time.Since(c.start)))
	return t
}

// date dates an entry that came with a ticket: it was not asked for before the
// ticket was given, but perhaps right after that, however long it was on its
// way. One without a ticket of this node was on its way for less than the
// grace that purges have.
func (c clock) date(e *store.Entry, t peer.Ticket) {
	if e.MadeBy() != 0 {
		return // it is dated by the purge that its request caused
	}
	since := time.Duration(binary.BigEndian.Uint64(t.At[8:]))
	if binary.BigEndian.Uint64(t.At[:8]) == c.nonce && since >= 0 && since <= time.Since(c.start) {
		given := c.start.Add(since)
		e.Sent, e.Fetched = earlier(e.Sent, given), earlier(e.Fetched, given)
	} else {
		e.Sent, e.Fetched = e.Sent.Add(-store.PurgeGrace), e.Fetched.Add(-store.PurgeGrace)
	}
	e.Checked, e.Compared = e.Sent, false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// A catcher knows whether this node may have missed purges.
type catcher struct {
	beat atomic.Pointer[time.Time] // when this node was last seen to run; nil: nobody looks

	mu     sync.Mutex    // guards below
	behind int           // how many rounds of asking are under way
	done   chan struct{} // closed when behind is 0 again
	lag    atomic.Bool   // behind > 0
}

func (c *catcher) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.behind++; c.behind == 1 {
		c.done = make(chan struct{})
		c.lag.Store(true)
	}
}

func (c *catcher) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.behind--; c.behind == 0 {
		c.lag.Store(false)
		close(c.done)
	}
}

// wait returns when no round is under way, or reports false.
func (c *catcher) wait(ctx context.Context, patience time.Duration) bool {
	c.mu.Lock()
	behind, done := c.behind, c.done
	c.mu.Unlock()
	if behind == 0 {
		return true
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// upToDate reports whether this node has heard of all purges that it could have
// missed. It waits for that for a while.
func (n *node) upToDate(ctx context.Context, now time.Time, patience time.Duration) bool {
	return !n.behind(now) || n.catcher.wait(ctx, patience)
}

// behind reports whether the node may have missed a purge.
func (n *node) behind(now time.Time) bool {
	if n.slept(now) {
		n.wake(now)
	}
	return n.catcher.lag.Load()
}

func (n *node) slept(now time.Time) bool {
	last := n.catcher.beat.Load()
	if last == nil {
		return false
	}
	// By the clock that stands still while a machine is suspended, and by the
	// one that may be set.
	return now.Sub(*last) > maxSilence || now.Round(0).Sub(last.Round(0)) > maxSilence
}

// wake is called when this node was seen to have been frozen.
func (n *node) wake(now time.Time) {
	n.waking.Lock()
	defer n.waking.Unlock()
	if !n.slept(now) || !n.slept(time.Now()) {
		return // somebody else was faster
	}
	n.catchUp(n.others(), true)
	n.noteBeat() // after catchUp: whoever sees it sees that we are behind
}

func (n *node) noteBeat() {
	now := time.Now()
	n.catcher.beat.Store(&now)
}

// keepBeat notes that this node runs, until ctx ends.
func (n *node) keepBeat(ctx context.Context) {
	ticks := time.NewTicker(beat)
	defer ticks.Stop()
	n.noteBeat()
	for {
		select {
		case <-ctx.Done():
			n.catcher.beat.Store(nil)
			return
		case <-ticks.C:
			n.tick()
		}
	}
}

func (n *node) tick() {
	if now := time.Now(); n.slept(now) {
		n.wake(now)
	} else {
		n.noteBeat()
	}
}

// others are the other nodes on the ring.
func (n *node) others() []peer.Node {
	var others []peer.Node
	for _, o := range n.ring.Load().Nodes() {
		if o.Name != n.name {
			others = append(others, o)
		}
	}
	return others
}

// catchUp learns what purges some nodes know of. No hit is served until all of
// them have answered or have been silent for catchUpFor. A node that was away
// needs an answer, and waits longer for the first: those that it asks may all
// have been away with it, but not for long.
func (n *node) catchUp(nodes []peer.Node, away bool) {
	if len(nodes) == 0 {
		return
	}
	n.catcher.begin()
	go func() {
		defer n.catcher.end()
		ctx, cancel := context.WithTimeoutCause(n.over, lonelyFor, peer.ErrTimeout)
		defer cancel()
		answers := make(chan bool, len(nodes))
		for _, from := range nodes {
			go func() { answers <- n.learnFrom(ctx, from) }()
		}
		patience := time.NewTimer(catchUpFor)
		defer patience.Stop()
		for waiting, expired := len(nodes), false; waiting > 0 && !(expired && !away); {
			select {
			case answered := <-answers:
				waiting--
				away = away && !answered
			case <-patience.C:
				expired = true
			}
		}
	}()
}

// learnFrom asks a node until it answers, or is not on the ring any more.
func (n *node) learnFrom(ctx context.Context, from peer.Node) bool {
	for {
		if n.askPurges(ctx, from) {
			return true
		}
		if !pause(ctx, retryPurge) || !slices.Contains(n.others(), from) {
			return false
		}
	}
}

func (n *node) askPurges(ctx context.Context, from peer.Node) bool {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, catchUpFor, peer.ErrTimeout)
	defer cancel()
	purges, dropped, err := n.client.Purges(ctx, from)
	observePeer(operationPurges, err, time.Since(start))
	if err != nil {
		return false
	}
	n.learnPurges(purges, dropped)
	return true
}

// mergePurges takes in the purges that memberlist brings from another node.
func (n *node) mergePurges(state []byte) {
	if purges, dropped, err := peer.DecodePurges(bytes.NewReader(state)); err == nil {
		n.learnPurges(purges, dropped)
	}
}

// purgedSince reports whether a response that is still on its way has been
// purged, if only softly: then it may not be fresh for who comes after that.
// Nobody follows it any more but who does already.
func (n *node) purgedSince(q *question, f *flight, e *store.Entry) bool {
	if _, purged := n.store.Purged(q.space, q.key, e); !purged {
		return false
	}
	f.detach()
	return true
}
