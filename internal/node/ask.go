package node

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// An Action is what the leader of a flight is to do.
type Action uint8

const (
	Fetch      Action = iota // ask the upstream, for all requests that follow
	FetchAlone               // the flight ends: ask the upstream for its own request only
	Follow                   // the flight is being fed by the owner
	LookAgain                // what the request wants is stored by now, or has another owner
)

// A Decision is what the owner of a key, or this node as the owner, says to the leader
// of a flight.
type Decision struct {
	Action
	Known     bool // something is stored, which the upstream's answer may end
	Reason    rfc9111.Reason
	Stale     *store.Entry // what a fetch may validate
	StaleBody []byte       // its body, if that is here; what may stand in for an error

	// The owner that is told what the fetch gives, and its lease, if it gave one; nil
	// if this node decides.
	Owner  *peer.Node
	ticket peer.Ticket
	Lease  *Lease
}

// Ask asks the owner on behalf of a flight's leader. The ending is for a flight that the
// decision leaves nothing to do for: each action but Fetch.
func (n *Node) Ask(q *Lookup, f *Flight, found *Result) (Decision, Ending) {
	own := Decision{Stale: found.stale(), StaleBody: found.Body, Known: found.Entry != nil}
	if q.Without != 0 {
		own.Reason = rfc9111.Incomplete
	}
	owner, self := n.Owner(q.Key)
	if of, _ := n.Ring.Load().Owner(q.Key); of != owner {
		own.Reason = cmp.Or(q.unanswered, rfc9111.PeerDown) // it stands in
	}
	if self {
		now := *found
		n.Previous.ask(q, &now)
		if q.answers(&now) {
			return Decision{Action: LookAgain}, Ending{}
		}
		own.Stale, own.StaleBody, own.Known = now.stale(), now.Body, now.Entry != nil
		return own, Ending{}
	}
	return remoteLookup{n, q, f, found}.ask(owner, own)
}

// A remoteLookup is what the leader of a flight asks another node for: the owner of its
// key, or the one that stands in for it.
type remoteLookup struct {
	*Node
	q     *Lookup
	f     *Flight
	found *Result // here
}

// ask is Ask for it. own is the decision of this node, which knows less.
func (l remoteLookup) ask(owner peer.Node, own Decision) (Decision, Ending) {
	n, q, f := l.Node, l.q, l.f
	for range 2 { // a second time if the owner needs more request fields
		// Not the client's context: others may be waiting for the answer too.
		reply, err := l.call(context.Background(), owner)
		if err != nil {
			if next, _ := n.Owner(q.Key); next != owner {
				q.unanswered = PeerReason(err)
				return Decision{Action: LookAgain}, Ending{} // at the node that stands in
			}
			own.Reason = PeerReason(err)
			return own, Ending{}
		}
		ending := Ending{}
		if e := reply.Entry; reply.Kind != peer.Hit && e != nil && e.Matches(q.Header) && q.MayStandIn(e, time.Now()) {
			reply.Close()
			n.Store.PutCopy(q.Namespace, q.Key, e, nil) // the requests that wait find that they need not for long
			return Decision{Action: LookAgain}, ending
		}
		switch reply.Kind {
		case peer.Hit, peer.Follow:
			if reply.For > 0 {
				n.Failures.note(q.Key, time.Now(), reply.For)
			}
			return l.receive(reply)
		case peer.Lease:
			own.validate(reply.Entry, q)
			own.Owner, own.ticket, own.Lease = new(owner), reply.Ticket, newLease(n, reply, owner, q)
			f.granted.Store(own.Lease)
			if f.IsOver() { // by its deadline, which has seen no lease
				own.Lease.drop()
			}
			return own, Ending{}
		case peer.Vary:
			q.vary = reply.Names
			n.Store.LearnVary(q.Namespace, q.Key, reply.Names)
		case peer.Bypass:
			n.Store.MarkUncacheable(q.Namespace, q.Key, reply.Reason, time.Now().Add(min(reply.For, UncacheableFor)))
			own.Action, own.Reason, own.Owner = FetchAlone, rfc9111.HitForMiss, new(owner)
			ending.Why = rfc9111.HitForMiss
		case peer.None:
			own.validate(reply.Entry, q)
			if e := reply.Entry; e != nil && e.Matches(q.Header) && e.Fresh.AlwaysValidated() {
				n.Store.PutCopy(q.Namespace, q.Key, e, nil) // the requests that wait find that each has to ask
				own.Action, ending.Why = FetchAlone, rfc9111.MustValidate
			}
			own.Owner, own.ticket = new(owner), reply.Ticket
		}
		reply.Close()
		if reply.Kind != peer.Vary {
			return own, ending
		}
	}
	own.Reason = rfc9111.PeerError
	return own, Ending{}
}

// validate makes the owner's stale entry, if there is one, what a fetch
// validates.
func (d *Decision) validate(e *store.Entry, q *Lookup) {
	if e == nil || !e.Matches(q.Header) {
		return
	}
	here := d.Stale != nil && d.Stale.Generation == e.Generation
	if e.Volatile && !here {
		return // more likely than a 304 is a body that makes it useless, or one that the owner has lost by then
	}
	if !here {
		d.StaleBody = nil
	}
	d.Stale, d.Known = e, true
}

func (l remoteLookup) call(ctx context.Context, owner peer.Node) (*peer.Reply, error) {
	n, q, found := l.Node, l.q, l.found
	query := q.Query(q.vary)
	query.Asked, query.Within = time.Now(), q.FillTimeout
	query.Purges, query.Told = n.Purger.Log.Recent(query.Asked)
	query.Lead, query.Refresh, query.Credentials, query.Part, query.Validated = !q.Alone || q.AskPrevious, q.Refresh, q.Credentials, q.WantsPart, q.Validated
	query.Without = q.Without
	switch {
	case found.Here:
		query.Have = found.Entry.Generation
	case found.Entry != nil:
		query.Long = found.Entry.Size > peer.MaxShared
	}
	start, span := time.Now(), q.startPeerSpan(operationLookup)
	reply, err := n.Client.Lookup(ctx, owner, &query, q.PeerTimeout)
	if err == nil && !n.credible(reply.Entry) {
		reply.Close()
		reply, err = nil, peer.ErrProtocol
	}
	n.observed(span, operationLookup, err, time.Since(start))
	return reply, err
}

// PeerReason names why a peer was of no help.
func PeerReason(err error) rfc9111.Reason {
	switch {
	case errors.Is(err, peer.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return rfc9111.PeerTimeout
	case errors.Is(err, peer.ErrDown):
		return rfc9111.PeerDown
	case errors.Is(err, peer.ErrFields):
		return rfc9111.HeaderTooBig
	}
	return rfc9111.PeerError
}

// receive feeds a flight with what the owner sends. What is small and complete
// has arrived when it returns; the rest arrives in the background.
func (l remoteLookup) receive(reply *peer.Reply) (Decision, Ending) {
	n, q, f, found := l.Node, l.q, l.f, l.found
	passedOn := false
	defer func() {
		if !passedOn {
			reply.Close()
		}
	}()
	e := reply.Entry
	switch {
	case reply.Kind == peer.Follow:
		passedOn = true
		l.copyLater(reply)
		return Decision{Action: Follow}, HandedOn
	case !e.Matches(q.Header), q.Excludes(e):
		return Decision{Reason: rfc9111.PeerError}, Ending{}
	case found.Here && e.Generation == found.Entry.Generation:
		if e.Size != found.Entry.Size || e.Digest != found.Entry.Digest {
			return Decision{Reason: rfc9111.PeerError}, Ending{} // one generation is one body
		}
		n.Store.PutCopy(q.Namespace, q.Key, e, nil)
		return Decision{Action: LookAgain}, Ending{} // the body was here, now the entry is fresh
	}
	if err := f.Fill.Expect(min(e.Size, store.ChunkSize)); err != nil {
		return Decision{Reason: ReasonOf(err)}, Ending{}
	}
	if reply.Here() {
		f.Fill.SetHeader(e) // it is stored before its header could be of use
	} else {
		f.Begin(q, e)
	}
	passedOn = true
	if e.Size > InlineTransfer {
		l.copyLater(reply)
		return Decision{Action: Follow}, HandedOn
	}
	return Decision{Action: Follow}, l.copyFromOwner(reply)
}

// copyLater hands the lead of a flight on to a goroutine that copies a body into it.
func (l remoteLookup) copyLater(reply *peer.Reply) {
	own := *l.q // the request may look again, and ask for something else, before all has arrived
	l.q = &own
	guard.Go(func() { l.f.Lead(func() Ending { return l.copyFromOwner(reply) }) })
}

// copyFromOwner copies a body from the owner into a flight, and keeps a copy. Of one
// that is large and was stored before, that is the first chunk.
func (l remoteLookup) copyFromOwner(reply *peer.Reply) Ending {
	n, q, f := l.Node, l.q, l.f
	defer reply.Close()
	if !reply.Here() {
		f.WhenExpired(reply.Close) // or it would wait for the owner
	}
	e, err := reply.Entry, error(nil)
	if reply.Kind == peer.Follow {
		one := new(Orphan)
		defer n.Orphans.End(one)
		one.ClientGone(&n.Orphans, transfer{f, reply}) // it has none of its own
		if e, err = reply.Header(); err != nil {
			return Ending{Why: brokenReason(err)}
		}
		if !n.credible(e) {
			return Ending{Why: rfc9111.PeerError}
		}
		err = f.expect(e)
		f.Fill.Unlimit() // what becomes too large to be stored goes on for its followers
		f.Begin(q, e)
	}
	var generation store.Generation
	if err == nil {
		generation, err = reply.Body(incoming{f.Fill, n, q, f, nil})
	}
	if err == nil && f.Generation != 0 && generation != f.Generation {
		generation = 0 // its other chunks are of no use without the entry
	}
	if err != nil {
		return Ending{Why: brokenReason(err)}
	}
	if e.Generation != 0 && generation != e.Generation { // a first chunk, which the owner has refused
		return Ending{Why: rfc9111.Superseded}
	}
	body, digest, size, here := f.Fill.Whole()
	if !here {
		return Ending{Why: rfc9111.FillTimeout}
	}
	if e.Generation == 0 { // it was not stored before
		final := *e
		final.Generation, final.Size, final.Digest = generation, size, digest
		e = &final
	}
	if generation != 0 && n.credible(e) {
		n.Store.PutCopy(q.Namespace, q.Key, e, body)
	}
	return Landed(e, e.Digest)
}

// brokenReason names why a transfer came to nothing. Followers of a fill that
// ended on the owner do as the owner's followers do.
func brokenReason(err error) rfc9111.Reason {
	var b peer.Broken
	switch {
	case errors.As(err, &b):
		return b.Reason
	case errors.Is(err, fill.ErrMemory), errors.Is(err, fill.ErrTooLarge), errors.As(err, new(Ended)):
		return ReasonOf(err)
	}
	return rfc9111.LeaderLost
}
