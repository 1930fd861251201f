package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A purge is a promise: when it reports success, no live node serves anything
// that was fetched before it began. Three things hold it up:
//
//   - every live node acknowledges it (Purger.Everywhere), and compares with it what it
//     has and what still comes in (store.Purge);
//   - an entry never passes for younger than it is, also between nodes: ages are
//     rounded up, and count from before the request was sent (peer.Reply), or
//     from when the lease was given (ticket);
//   - a node that may have missed one learns it from another before it serves a
//     hit again (purgeSync): after it was frozen, and whenever it sees a member
//     that it did not see before, as when a partition heals.
//
// A purge that has failed on some nodes is told to them again as long as they
// are on the ring, and all purges are told to nodes that are new there
// (reminders): one that the others had given up need not know of it.

const (
	// PurgeDeadline is how long a node may take to acknowledge a purge.
	PurgeDeadline = 2 * time.Second

	// Beat is how often a node notes that it is running. After maxSilence
	// without, which is less than purgeDeadline, it may have missed a purge.
	Beat       = 100 * time.Millisecond
	maxSilence = time.Second

	// retryPurge is how soon a purge is told again to a node that has not
	// acknowledged it, and remindEvery after the purge has failed there.
	retryPurge  = 100 * time.Millisecond
	RemindEvery = time.Second

	// catchUpFor is how long a node waits for others to tell what it may have
	// missed, and lonelyFor if it was away itself and no node has answered yet.
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

// A Purger is what a node knows of purges: those that it has applied, those that other
// nodes have to be told of, and whether it may have missed some.
type Purger struct {
	node *Node

	Log    store.PurgeLog                // what it can tell nodes that were away
	Counts [store.KindCount]atomic.Int64 // selectors, by kind, without what traffic invalidates

	Foreign   atomic.Pointer[[]string] // live members that are not on the ring
	Joining   joining
	reminders reminders  // nodes that have not acknowledged a purge
	Sync      purgeSync  // whether the node was away itself
	waking    sync.Mutex // one at a time notices that

	Asked    atomic.Bool // this node was asked for a purge, or has seen a change, itself
	outdates hook        // told of those that no other node remembers, before they are acknowledged

	// Names returns the selectors that name, by this node's configuration, the responses
	// which the URLs of a purge name. Nil: a URL has no other names than it has on all nodes.
	Names func(p store.Purge) []store.Selector

	// Told of each purge that is no invalidation by traffic, and whether this
	// node was asked for it itself. It must not wait, and may be nil.
	OnPurge func(p store.Purge, asked bool)
}

// A hook is a function that may be set while others call it; the zero value does nothing.
type hook struct{ f atomic.Pointer[func()] }

func (h *hook) set(f func()) { h.f.Store(&f) }

func (h *hook) call() {
	if f := h.f.Load(); f != nil {
		(*f)()
	}
}

// joining is whether a node that has just started has looked for others.
type joining struct {
	done atomic.Pointer[chan struct{}] // closed when it has, once; nil: it has none to look for
}

// Begin notes that the node begins to look for others. It returns what tells that it has
// looked for all once, and that those which it has found are told to it.
func (j *joining) Begin() (joined func()) {
	done := make(chan struct{})
	j.done.Store(&done)
	return sync.OnceFunc(func() { close(done) })
}

// wait waits until the node can know of others, for as long as one of them might take to
// answer, or until it is over.
func (j *joining) wait(over context.Context) {
	done := j.done.Load()
	if done == nil {
		return
	}
	timer := time.NewTimer(PurgeDeadline)
	defer timer.Stop()
	select {
	case <-*done:
	case <-timer.C:
	case <-over.Done():
	}
}

// Everywhere applies purges here and on all live nodes. While a configuration is being
// rolled out, nodes have different names for the responses of a URL (store.Selector), and
// each of them may have stored responses of another one's names. So each answers with its
// own, and what this node's configuration has not named is purged everywhere, too.
func (p *Purger) Everywhere(purges []store.Purge) []Acknowledgement {
	p.Asked.Store(true)
	p.apply(purges, true)
	p.Joining.wait(p.node.Over)
	acks, named := tellAll(p, purges, true)
	if more := peer.SplitPurge(purges[0], named); len(more) > 0 {
		p.apply(more, true)
		again, _ := tellAll(p, slices.Concat(purges, more), false) // a node may have come meanwhile
		acks = bothOf(acks, again)
	}
	return acks
}

// selectorsOf returns the selectors of purges.
func selectorsOf(purges []store.Purge) map[store.Selector]bool {
	known := make(map[store.Selector]bool)
	for _, one := range purges {
		for _, s := range one.Selectors {
			known[s] = true
		}
	}
	return known
}

// unknown returns the selectors that are not known, each once, and known from now on.
func unknown(known map[store.Selector]bool, selectors []store.Selector) (left []store.Selector) {
	for _, s := range selectors {
		if !known[s] {
			known[s], left = true, append(left, s)
		}
	}
	return left
}

// bothOf returns what nodes have answered to two purges: a node has acknowledged both or none.
func bothOf(acks, again []Acknowledgement) []Acknowledgement {
	for _, second := range again {
		i := slices.IndexFunc(acks, func(a Acknowledgement) bool { return a.Name == second.Name })
		switch {
		case i < 0:
			acks = append(acks, second)
		case acks[i].Acknowledged:
			acks[i] = second
		}
	}
	return acks
}

// tellAll tells all live nodes of purges that this one has applied. It returns what they
// have answered, and on request what else names the same responses there.
func tellAll(p *Purger, purges []store.Purge, names bool) (acks []Acknowledgement, named []store.Selector) {
	acks = []Acknowledgement{{Name: p.node.Name, Acknowledged: true}}
	for _, name := range *p.Foreign.Load() {
		acks = append(acks, Acknowledgement{Name: name, Error: "it speaks another version of the protocol: purge it by its own admin API"})
	}
	others := p.node.Members.told()
	if len(others) == 0 {
		p.outdates.call()
	}
	known := selectorsOf(purges)
	var mu sync.Mutex // guards acks, named and known
	p.node.broadcast(operationPurge, others, PurgeDeadline, func(ctx context.Context, to peer.Node) error {
		var there []store.Purge
		err := errNotTold // if to tell it panics
		defer func() {
			ack := Acknowledgement{Name: to.Name, Acknowledged: err == nil}
			if err != nil {
				ack.Error = err.Error()
				p.remind(to)
			}
			mu.Lock()
			defer mu.Unlock()
			acks = append(acks, ack)
			for _, one := range there {
				named = append(named, unknown(known, one.Selectors)...) // most nodes say the same
			}
		}()
		there, err = p.tell(ctx, to, purges, names)
		return err
	})
	return acks, named
}

var errNotTold = errors.New("it could not be told")

// tell has another node apply purges, and tries again until ctx ends: a
// connection may break that was idle or busy for too long. It returns, on request, what else
// names the same responses there.
func (p *Purger) tell(ctx context.Context, to peer.Node, purges []store.Purge, names bool) ([]store.Purge, error) {
	for {
		named, err := p.node.Client.Purge(ctx, to, purges, names)
		if err == nil || !pause(ctx, retryPurge) {
			return named, err
		}
		to = p.node.Members.now(to)
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
func (p *Purger) remind(to peer.Node) {
	r := &p.reminders
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, going := r.nodes[to]; !going {
		guard.Go(func() { p.keepReminding(to) })
	}
	if r.nodes == nil {
		r.nodes = make(map[peer.Node]bool)
	}
	r.nodes[to] = true
}

// keepReminding tells another node all purges that this one remembers, until it
// has taken them in or is not on the ring any more. If it comes back there, that
// begins anew (setRing).
func (p *Purger) keepReminding(to peer.Node) {
	r := &p.reminders
	for acknowledged := false; ; {
		r.mu.Lock()
		if acknowledged && !r.nodes[to] || p.node.Over.Err() != nil || !slices.Contains(p.node.Others(), to) {
			delete(r.nodes, to)
			r.mu.Unlock()
			return
		}
		r.nodes[to] = false
		r.mu.Unlock()
		acknowledged = false
		guard.Run(func() { acknowledged = p.remindOnce(to) })
		if !acknowledged {
			pause(p.node.Over, RemindEvery)
		}
	}
}

// remindOnce reports whether another node has acknowledged all purges that this one
// remembers.
func (p *Purger) remindOnce(to peer.Node) bool {
	purges, dropped := p.Log.All()
	return p.node.Client.PurgeAll(p.node.Over, to, purges, dropped, PurgeDeadline) == nil
}

// Invalidate drops what selectors name, here and on all other nodes, because a
// request has changed it. It waits for their answers, so that the client that
// changed it doesn't see the old one afterwards; what a silent node has stored
// it may serve until that is stale, as RFC 9111 §4.4 allows.
func (p *Purger) Invalidate(id store.PurgeID, space *store.Namespace, selectors []store.Selector, timeout time.Duration) {
	p.Asked.Store(true)
	selectors = slices.DeleteFunc(slices.Clone(selectors), func(s store.Selector) bool {
		return len(s.Value) > peer.MaxSelectorLength // nothing that is stored is named so, and no node would take the others
	})
	purges := peer.SplitPurge(store.Purge{Group: space.Name, Fleeting: true}, selectors)
	if len(purges) == 0 {
		return
	}
	purges[0].ID = id
	// This node last: a client that sees the change here then finds it everywhere, also if
	// no request waits for the answers, as after a refresh in the background.
	p.node.broadcast(operationPurge, p.node.Others(), timeout, func(ctx context.Context, to peer.Node) error {
		_, err := p.node.Client.Purge(ctx, to, purges, false)
		return err
	})
	p.apply(purges, false)
	p.outdates.call()
}

// InvalidateKey drops what is stored for a request.
func (p *Purger) InvalidateKey(q *Lookup) {
	p.Invalidate(store.NewPurgeID(), q.Namespace, []store.Selector{SelectorOf(q.Key)}, q.PeerTimeout)
}

func (p *Purger) apply(purges []store.Purge, asked bool) {
	for _, one := range purges {
		one.At = time.Now()
		if !p.Log.Announce(one.ID, one.At) {
			continue
		}
		p.node.Store.Purge(one)
		for _, s := range one.Selectors {
			if k, ok := s.Key(); ok && !one.Soft {
				p.node.Fills.detach(k)
				p.node.Asks.detach(k)
			}
		}
		if !p.Log.Add(one) || one.Fleeting { // of calls that bring one purge at the same time, one counts it
			continue
		}
		for _, s := range one.Selectors {
			if s.Kind != store.Group { // no purge names a group by itself: it stands beside a URL
				p.Counts[s.Kind].Add(1)
			}
		}
		if p.OnPurge != nil {
			p.OnPurge(one, asked)
		}
	}
}

// decisive is how many of the oldest purges that another node remembers show whether this
// node has missed some before them: no more than half of all, because of younger ones it may
// have heard since it is back; several, because the logs of two nodes do not begin with the
// very same purge.
const decisive = 8

// Learn takes in what another node remembers, the oldest first. If older purges are gone
// there, and this node knows none of the oldest that are left, it has missed some
// that no node can tell any more: then it drops everything.
func (p *Purger) Learn(purges []store.Purge, dropped time.Time) {
	p.learn(purges, dropped, p.Log.Knows)
}

// learn is Learn, by what the node knew at some time.
func (p *Purger) learn(purges []store.Purge, dropped time.Time, knew func(store.PurgeID) bool) {
	if !dropped.IsZero() {
		oldest := purges[:min((len(purges)+1)/2, decisive)]
		if !slices.ContainsFunc(oldest, func(one store.Purge) bool { return knew(one.ID) }) {
			p.node.Store.Purge(store.Purge{Selectors: []store.Selector{{Kind: store.All}}})
		}
		p.Log.Dropped(dropped)
	}
	p.apply(purges, false)
}

// knowsAll reports whether this node knows all purges that a query tells of.
func (p *Purger) knowsAll(q *peer.Query) bool {
	for _, id := range q.Purges {
		if !p.Log.Knows(id) {
			return false
		}
	}
	return q.Told
}

// SelectorOf names the responses stored under a key.
func SelectorOf(k store.Key) store.Selector {
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
		given := time.Now().Add(since - time.Since(c.start)) // by both clocks; start's other one may have been set since
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

// A purgeSync knows whether this node may have missed purges.
type purgeSync struct {
	beat atomic.Pointer[time.Time] // when this node was last seen to run; nil: it is not watched

	mu     sync.Mutex    // guards below
	behind int           // how many rounds of asking are under way
	done   chan struct{} // closed when behind is 0 again
	Lag    atomic.Bool   // behind > 0
}

// Begin counts a round of asking other nodes.
func (c *purgeSync) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.behind++; c.behind == 1 {
		c.done = make(chan struct{})
		c.Lag.Store(true)
	}
}

// End ends a round.
func (c *purgeSync) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.behind--; c.behind == 0 {
		c.Lag.Store(false)
		close(c.done)
	}
}

// wait returns when no round is under way, or reports false.
func (c *purgeSync) wait(ctx context.Context, timeout time.Duration) bool {
	c.mu.Lock()
	behind, done := c.behind, c.done
	c.mu.Unlock()
	if behind == 0 {
		return true
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// UpToDate reports whether this node has heard of all purges that it could have
// missed. It waits for that for a while.
func (p *Purger) UpToDate(ctx context.Context, now time.Time, timeout time.Duration) bool {
	return !p.behind(now) || p.Sync.wait(ctx, timeout)
}

// behind reports whether the node may have missed a purge.
func (p *Purger) behind(now time.Time) bool {
	if p.slept(now) {
		p.wake(now)
	}
	return p.Sync.Lag.Load()
}

func (p *Purger) slept(now time.Time) bool {
	last := p.Sync.beat.Load()
	if last == nil {
		return false
	}
	// By the clock that stands still while a machine is suspended, and by the
	// one that may be set.
	return now.Sub(*last) > maxSilence || now.Round(0).Sub(last.Round(0)) > maxSilence
}

// wake is called when this node was seen to have been frozen.
func (p *Purger) wake(now time.Time) {
	p.waking.Lock()
	defer p.waking.Unlock()
	if !p.slept(now) || !p.slept(time.Now()) {
		return // another request was faster
	}
	p.catchUp(p.node.Others(), true)
	p.NoteBeat() // after catchUp: a request that sees it sees that the node is behind
}

// NoteBeat notes that this node runs.
func (p *Purger) NoteBeat() {
	now := time.Now()
	p.Sync.beat.Store(&now)
}

// KeepBeat notes that this node runs, until ctx ends.
func (p *Purger) KeepBeat(ctx context.Context) {
	ticks := time.NewTicker(Beat)
	defer ticks.Stop()
	p.NoteBeat()
	for {
		select {
		case <-ctx.Done():
			p.Sync.beat.Store(nil)
			return
		case <-ticks.C:
			guard.Run(p.Tick)
		}
	}
}

// Tick looks whether this node was frozen.
func (p *Purger) Tick() {
	if now := time.Now(); p.slept(now) {
		p.wake(now)
	} else {
		p.NoteBeat()
	}
}

// Others are the other nodes on the ring.
func (n *Node) Others() []peer.Node {
	var others []peer.Node
	for _, o := range n.Ring.Load().Nodes() {
		if o.Name != n.Name {
			others = append(others, o)
		}
	}
	return others
}

// catchUp learns what purges some nodes know of. No hit is served until all of
// them have answered or have been silent for catchUpFor. A node that was away
// needs an answer, and waits longer for the first: those that it asks may all
// have been away with it, but not for long.
func (p *Purger) catchUp(nodes []peer.Node, away bool) {
	if len(nodes) == 0 {
		return
	}
	p.Sync.Begin()
	guard.Go(func() {
		defer p.Sync.End()
		ctx, cancel := context.WithTimeoutCause(p.node.Over, lonelyFor, peer.ErrTimeout)
		defer cancel()
		answers := make(chan bool, len(nodes))
		for _, from := range nodes {
			guard.Go(func() {
				answered := false // if what it tells makes learnFrom panic
				defer func() { answers <- answered }()
				answered = p.learnFrom(ctx, from)
			})
		}
		timeout := time.NewTimer(catchUpFor)
		defer timeout.Stop()
		for waiting, expired := len(nodes), false; waiting > 0 && !(expired && !away); {
			select {
			case answered := <-answers:
				waiting--
				away = away && !answered
			case <-timeout.C:
				expired = true
			}
		}
	})
}

// learnFrom asks a node until it answers, or is not on the ring any more.
func (p *Purger) learnFrom(ctx context.Context, from peer.Node) bool {
	for {
		if p.ask(ctx, from) == nil {
			return true
		}
		if !pause(ctx, retryPurge) || !slices.Contains(p.node.Others(), from) {
			return false
		}
	}
}

// ask learns what purges a node knows of.
func (p *Purger) ask(ctx context.Context, from peer.Node) error {
	start := time.Now()
	before := p.Log.Added() // while it asks, others tell it of some
	purges, dropped, err := p.node.Client.Purges(ctx, from, catchUpFor)
	p.node.observe(operationPurges, err, time.Since(start))
	if err == nil {
		p.learn(purges, dropped, func(id store.PurgeID) bool { return p.Log.Knew(id, before) })
	}
	return err
}

// gossiped bounds what goes with memberlist's push/pull, which has two seconds for all of
// it, or a node would never join over a slow link.
const gossiped = 128

// Latest returns the purges that memberlist brings to other nodes: those that may have
// missed them by a moment. All others are told when they appear (members), and reminded.
func (p *Purger) Latest() []store.Purge {
	all, _ := p.Log.All()
	size, i := 0, len(all)
	for ; i > 0 && len(all)-i < gossiped && size < gossiped<<7; i-- {
		for _, s := range all[i-1].Selectors {
			size += len(s.Value)
		}
	}
	return all[i:]
}

// Merge takes in the purges that memberlist brings from another node.
func (p *Purger) Merge(state []byte) error {
	purges, dropped, err := peer.DecodePurges(bytes.NewReader(state))
	if err == nil {
		p.Learn(purges, dropped)
	}
	return err
}

// IsPurged reports whether an entry has been purged since it was fetched.
func (p *Purger) IsPurged(q *Lookup, e *store.Entry) bool {
	hard, _ := p.node.Store.Purged(q.Namespace, q.Key, e)
	return hard
}

// PurgedSince reports whether a response that is still on its way has been
// purged, if only softly: then it may not be fresh for requests that come after that.
// No request follows it any more but those that do already.
func (p *Purger) PurgedSince(q *Lookup, f *Flight, e *store.Entry) bool {
	if _, purged := p.node.Store.Purged(q.Namespace, q.Key, e); !purged {
		return false
	}
	f.Detach()
	return true
}
