package node

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// maxFillTime is the longest time that this node grants another one for a fill.
const maxFillTime = 24 * time.Hour

// lagWait is how long another node's look-up waits while this node may have missed purges.
// The asker waits for DefaultPeerTimeout in all: an answer that took all of it would count as
// a silence, by which the asker leaves this node alone.
const lagWait = DefaultPeerTimeout / 2

// fillTimeOf is how long the fill of another node's request may take.
func fillTimeOf(query *peer.Query) time.Duration {
	if query.Within == 0 {
		return DefaultFillTimeout
	}
	return min(query.Within, maxFillTime)
}

// An Owner answers other nodes: it is what this node does for the keys that the ring
// assigns to it. Whatever the ring says, it answers from what this node has, and never
// asks a third one. The other direction, what this node asks of owners, is Node's own.
type Owner struct{ *Node }

// Interface guard
var _ peer.Backend = Owner{}

// Lookup answers another node. If this node may have missed purges, it learns them before.
func (o Owner) Lookup(query *peer.Query, a *peer.Answer) {
	o.Served.Add(1)
	space := o.Store.NamespaceOfPeer(query.Group)
	if space == nil {
		a.None(o.clock.ticket(0), nil)
		return
	}
	q := &Lookup{
		Namespace: space, Key: query.Key, Header: query.Fields,
		Request: rfc9111.Request{Directives: rfc9111.ParseRequest(query.Fields), Credentials: query.Credentials},
		MaxBody: o.LargestBody(), Validated: query.Validated, Without: query.Without, WantsPart: query.Part, Refresh: query.Refresh, from: query,
		FillTimeout: fillTimeOf(query),
	}
	now := time.Now()
	if o.Purger.behind(now) {
		a.Later(func(ctx context.Context) {
			if o.Purger.Sync.wait(ctx, lagWait) {
				o.answer(q, a, time.Now())
			} else {
				a.None(o.clock.ticket(0), nil)
			}
		})
		return
	}
	o.answer(q, a, now)
}

// answer answers a look-up of another node by what this node has now.
func (o Owner) answer(q *Lookup, a *peer.Answer, now time.Time) {
	a.Compared = o.Purger.knowsAll(q.from)
	ticket := o.clock.ticket(0) // before anything is looked at: what is fetched is younger
	var found Result
	o.Find(q, now, &found)
	switch {
	case !q.from.Covers(q.vary):
		a.Vary(q.vary)
	case q.answers(&found):
		o.hit(q, &found, a)
	case q.uncacheable(&found) != rfc9111.None:
		a.Bypass(found.Uncacheable, UncacheableFor)
	case !q.from.Lead && q.Credentials:
		a.None(ticket, nil)
	case !q.from.Lead, found.AlwaysValidated():
		a.None(ticket, found.stale())
	default:
		a.Later(func(ctx context.Context) { o.grantLease(ctx, q, &found, a) })
	}
}

// hit answers with what was found. If it stands in for an upstream that has just failed,
// the asker is told: it decides the same.
func (o Owner) hit(q *Lookup, found *Result, a *peer.Answer) {
	if found.Failing {
		a.Failing = o.Failures.rest(q.Key, time.Now())
	}
	a.Hit(found.Entry, found.Body, q.from.Have)
}

// grantLease gives the asker a lease, or lets it read along.
func (o Owner) grantLease(ctx context.Context, q *Lookup, found *Result, a *peer.Answer) {
	start := o.start(q)
	start.leased = true
	f, r, leads := o.Fills.join(q.id(), start)
	defer r.Close()
	if !leads {
		var stale *store.Entry
		if e := found.stale(); e != nil && e.Generation != q.from.Have && q.InPlaceOfUpstream(e, time.Now()) != rfc9111.Validate {
			stale = e
		}
		if a.Follow(stale) == nil {
			o.relay(ctx, q, f, r, a)
		}
		return
	}
	r.Close() // the holder of the lease is no follower
	f.Lead(func() Ending { return o.leaseTo(ctx, q, f, a) })
}

// leaseTo leads a flight until the holder of its lease publishes, or is gone.
func (o Owner) leaseTo(ctx context.Context, q *Lookup, f *Flight, a *peer.Answer) Ending {
	ticket := o.clock.ticket(f.lease)
	// Look again after winning, as each leader does.
	var found Result
	if o.Find(q, time.Now(), &found); !q.CanServe(&found) {
		o.Previous.ask(q, &found)
	}
	switch {
	case !q.covers(q.vary): // that has just become known
		a.Vary(q.vary)
		return Ending{}
	case q.answers(&found):
		o.hit(q, &found, a)
		return Ending{}
	case found.AlwaysValidated():
		a.None(ticket, found.stale())
		return Ending{Why: rfc9111.MustValidate}
	}
	if a.Lease(ticket, found.stale()) == nil {
		// The look-up's stream is the lease's lifeline until its holder publishes.
		select {
		case <-f.Over:
		case <-ctx.Done():
		}
	}
	if o.Fills.take(f.lease) == nil {
		return HandedOn
	}
	return Ending{Why: rfc9111.LeaderLost}
}

// relay sends a fill to another node as it comes in, and before that what may stand in if
// that takes long; nil: nothing may.
func (o Owner) relay(ctx context.Context, q *Lookup, f *Flight, r *Follower, a *peer.Answer) {
	o.readers.Add(1)
	defer o.readers.Add(-1)
	e, err := f.Fill.Header(ctx)
	if err != nil {
		a.Broken(ReasonOf(err))
		return
	}
	if o.Purger.PurgedSince(q, f, e) {
		a.Broken(rfc9111.Superseded)
		return
	}
	a.Header(e)
	body := Outgoing{Follower: r, Flight: f}
	for {
		p, stored, err := body.Next(ctx, func() { _ = a.Flush() }) // an asker that is gone ends ctx
		switch {
		case errors.Is(err, io.EOF):
			a.End(f.outcome())
			return
		case err != nil:
			a.Broken(ReasonOf(err))
			return
		case stored.Size == 0:
			err = a.Data(p)
		case p == nil:
			err = a.Stored(stored)
		default:
			err = a.Ahead(stored.Size, p)
		}
		if err != nil {
			return
		}
	}
}

// Publish takes a response from the holder of a lease. A lease that is over,
// or none, is as good as one if no other node is fetching: the response was
// fetched, so why throw it away?
func (o Owner) Publish(ctx context.Context, p *peer.Publication) (store.Generation, rfc9111.Reason) {
	q := &Lookup{Key: p.Query.Key, Header: p.Query.Fields, MaxBody: o.LargestBody(), FillTimeout: fillTimeOf(p.Query)}
	if q.Namespace = o.Store.NamespaceOfPeer(p.Query.Group); q.Namespace == nil {
		return 0, rfc9111.Memory
	}
	if p.Released == rfc9111.Abandoned {
		if o.Fills.wanted(p.Ticket.Lease) {
			return 0, rfc9111.Abandoned // keep it
		}
		p.Released = rfc9111.LeaderLost // a request that comes to wait now looks again
	}
	f := o.Fills.take(p.Ticket.Lease)
	if p.Released != rfc9111.None {
		o.Remember(q.Namespace, q.Key, p.Released)
		if f != nil {
			f.Finish(Ending{Why: p.Released})
		}
		return 0, rfc9111.None
	}
	if f == nil {
		if p.Entry.Matches(q.Header) {
			q.vary = p.Entry.Vary()
		}
		other, r, leads := o.Fills.join(q.id(), o.start(q))
		r.Close()
		if !leads {
			return 0, rfc9111.Superseded
		}
		f = other
	}
	taken := Lead(f, func() (taken, Ending) { return o.take(q, f, p) })
	return taken.generation, taken.why
}

// taken is what became of a publication.
type taken struct {
	generation store.Generation
	why        rfc9111.Reason // None: it is stored
}

// take feeds the flight that this node leads now with what its publisher sends, and
// stores it.
func (o Owner) take(q *Lookup, f *Flight, p *peer.Publication) (taken, Ending) {
	refused := func(why rfc9111.Reason) (taken, Ending) { return taken{why: why}, Ending{Why: why} }
	o.clock.date(p.Entry, p.Ticket)
	if p.Entry.Matches(q.Header) {
		q.vary = p.Entry.Vary()
	}
	switch {
	case !o.credible(p.Entry):
		return refused(rfc9111.TooLarge)
	case p.Refresh:
		o.Store.PutEntry(q.Namespace, q.Key, p.Entry)
		return taken{generation: p.Entry.Generation}, Ending{}
	}
	if err := f.expect(p.Entry); err != nil {
		return refused(ReasonOf(err))
	}
	f.Begin(q, p.Entry)
	f.onFollow.Store(new(p.Followed))
	if err := p.Body(incoming{f.Fill, o.Node, q, f, p}); err != nil {
		o.Remember(q.Namespace, q.Key, brokenReason(err))
		return refused(brokenReason(err))
	}
	if p.Unkept {
		o.Remember(q.Namespace, q.Key, rfc9111.TooLarge) // before the flight ends and its followers look again
		return taken{why: rfc9111.TooLarge}, Landed(nil, f.Fill.Digest())
	}
	ending := f.Commit(q, p.Entry)
	if ending.landed == nil {
		return taken{why: cmp.Or(ending.Why, rfc9111.Superseded)}, ending
	}
	return taken{generation: ending.landed.Generation}, ending
}

// Learn takes in what another node has learned of the queries of a path.
func (o Owner) Learn(q *peer.Query) {
	if space := o.Store.NamespaceOfPeer(q.Group); space != nil {
		o.Store.LearnSearchVariance(space, q.Key, rfc9111.ParseSearchVariance(q.Fields))
	}
}

// namedAtOnce is how many selectors are given their names together.
const namedAtOnce = 64

// Purge applies purges on this node that another one has told it of, and returns what else
// this node's configuration has as names of the same responses.
func (o Owner) Purge(purges []store.Purge, room func(n int64) bool) (named []store.Purge, ok bool) {
	o.Purger.apply(purges, false)
	if room == nil || o.Purger.Names == nil {
		return nil, true
	}
	known := selectorsOf(purges)
	for _, one := range purges {
		var left []store.Selector
		few := one
		for few.Selectors = range slices.Chunk(one.Selectors, namedAtOnce) { // so that what is not counted yet is little
			for _, s := range unknown(known, o.Purger.Names(few)) {
				if left = append(left, s); !room(peer.SelectorSize(s)) {
					return nil, false
				}
			}
		}
		named = append(named, peer.SplitPurge(one, left)...)
	}
	return named, true
}

// PurgeOldest applies the oldest purges that another node remembers, which has forgotten some.
func (o Owner) PurgeOldest(purges []store.Purge, dropped time.Time) {
	o.Purger.Learn(purges, dropped)
}

// Purges returns the purges that this node remembers.
func (o Owner) Purges() ([]store.Purge, time.Time) { return o.Purger.Log.All() }

// Chunk returns a chunk that this node has.
func (o Owner) Chunk(id peer.ChunkID) []byte {
	b, _ := o.Store.Chunk(id.Key, id.Generation, id.Index)
	return b
}

// PutChunk takes a chunk from another node.
func (o Owner) PutChunk(id peer.ChunkID, chunk []byte) {
	o.Store.PutChunk(id.Key, id.Generation, id.Index, chunk, true)
}

// Reserve takes memory from the budget of what is in flight, until release.
func (o Owner) Reserve(bytes int64) (release func(), ok bool) {
	return o.Budget.Take(bytes)
}

// TakeOver stores what a node that leaves has handed over.
func (o Owner) TakeOver(q *peer.Query, e *store.Entry, body []byte) {
	if space := o.Store.NamespaceOfPeer(q.Group); space != nil {
		if o.credible(e) {
			o.Store.PutMoved(space, q.Key, e, body)
		}
	}
}

// Heard returns the purges that this node has heard of lately.
func (o Owner) Heard(now time.Time) ([]store.PurgeID, bool) { return o.Purger.Log.Recent(now) }
