package caddygroupcache

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A node is this process's part of the cluster: what it stores, what it is
// fetching, and its way to the other nodes. It survives config reloads and
// knows neither Caddy's configuration nor memberlist.
//
// A request takes one of three paths:
//
//   - local hit: find has a fresh entry and its body;
//   - remote hit: find has not, and ask brings both from the owner, in one
//     round trip, or reads along while somebody fetches;
//   - miss: ask comes back with a lease, the handler fetches, and publish
//     hands the response to the owner while it comes in.
//
// On the owner itself there is nobody to ask: a request that finds nothing
// leads a flight at once. Lookup and Publish are the owner's side of ask and
// publish.
type node struct {
	name     string
	store    *store.Store
	budget   *fill.Budget   // bodies in flight
	identity *peer.Identity // how it shows other nodes that it is one
	client   *peer.Client
	ring     atomic.Pointer[peer.Ring]
	past     past // what the ring was before

	// What is being fetched from the upstream, here or by the holder of a
	// lease. Other nodes may read along.
	fills flights
	// What is being brought from another node. Only this node's own requests
	// read along, so that two nodes which disagree about the ring never wait
	// for each other.
	asks flights
	// Chunks that are being brought, and those that clients are served from.
	brought brought
	holds   holds

	served atomic.Int64 // look-ups of other nodes

	over context.Context // ends with the node
	end  context.CancelFunc

	purged    store.PurgeLog                // what it can tell nodes that were away
	purges    [store.KindCount]atomic.Int64 // selectors of purges, by kind, without what traffic invalidates
	clock     clock                         // what it dates leases with
	catcher   catcher                       // whether it was away itself
	waking    sync.Mutex                    // one at a time notices that
	reminders reminders                     // who has not acknowledged a purge
	foreign   atomic.Pointer[[]string]      // live members that are not on the ring
	refusals  refusalLog                    // why responses were not stored, for explain
	busy      busyKeys                      // what is asked for most, for the dashboard
	unnamed   atomic.Bool                   // some handler leaves no Cache-Status

	// Told of each purge that is no invalidation by traffic, and whether this
	// node was asked for it itself. It must not wait, and may be nil.
	onPurge func(p store.Purge, asked bool)
}

const (
	// How the memory of cache_size is divided.
	bodyShare, indexShare, flightShare = 8, 3, 5 // sixteenths

	// uncacheableFor is how long nobody waits for anybody at a URL whose
	// responses are not stored (hit-for-miss).
	uncacheableFor = 30 * time.Second

	// inlineTransfer is the largest body that is brought from the owner
	// before the client gets any of it.
	inlineTransfer = 64 << 10
)

func newNode(name string, cacheSize int64) *node {
	n := &node{
		name:     name,
		store:    store.New(cacheSize/16*bodyShare, cacheSize/16*indexShare),
		budget:   fill.NewBudget(cacheSize / 16 * flightShare),
		identity: new(peer.Identity),
		clock:    newClock(),
	}
	n.holds.budget, n.holds.limit = n.budget, cacheSize/16*flightShare/2
	n.over, n.end = context.WithCancel(context.Background())
	n.foreign.Store(new([]string))
	n.client = peer.NewClient(n.identity)
	n.setRing(nil)
	return n
}

// setRing puts a new ring in place. Nobody ever waits for it. Whoever was not on
// the last one may know of purges that this node has missed, and the other way
// round.
func (n *node) setRing(nodes []peer.Node) {
	ring := peer.NewRing(n.name, nodes)
	if before := n.ring.Load(); before != nil {
		n.past.note(before, ring, time.Now()) // so that whoever sees the new one knows it
	}
	last := n.ring.Swap(ring)
	n.client.SetRing(ring)
	if last == nil {
		return
	}
	var new []peer.Node
	for _, o := range n.others() {
		if !slices.Contains(last.Nodes(), o) {
			new = append(new, o)
		}
	}
	n.catchUp(new, false)
	for _, o := range new {
		n.remind(o)
	}
}

// largestBody returns the size from which on a whole body is not stored, because
// it would throw out all others: half of what all nodes keep, if they are alike.
func (n *node) largestBody() int64 {
	nodes := max(len(n.ring.Load().Nodes()), 1)
	return n.store.BodyLimit() / 2 * int64(nodes)
}

// A question is what a request asks of the cache.
type question struct {
	space *store.Namespace
	address
	header      http.Header // of the request
	directives  rfc9111.RequestDirectives
	undirected  bool           // directives are empty, whatever the request says
	credentials bool           // the request has an Authorization field
	alone       bool           // it neither leads others nor follows them
	refresh     bool           // stale-while-revalidate has been made use of: now revalidate
	maxBody     int64          // larger responses are not stored
	far         bool           // it asks for a part beyond the first chunk, or one counted from the end
	part        bool           // it asks for a part at all
	conditional bool           // it may have a condition that a 304 fulfils
	mended      bool           // the first chunk that it needs came from the upstream
	upstream    rfc9111.Reason // what is stored can't serve it
	patience    time.Duration  // for a silent owner
	deadline    time.Duration  // for a fill
	vary        []string       // what is known of the response's Vary
	// The body that the upstream has just confirmed for this request: to be
	// served whatever its freshness.
	validated store.Generation
	failed    bool // it was not confirmed: the upstream failed, and the entry stands in

	// The look-up of another node, for whose request the question stands: header
	// is what it tells of that. nil: the request came to this node.
	from *peer.Query

	original *original // nil until the handlers behind the cache are to run

	traced context.Context // of the request, for spans only: what is done for it may outlive it
}

// kept returns a copy that may outlive the call.
func (q *question) kept() *question {
	k := *q
	return &k
}

// statusOf returns what serving a stored entry is called.
func (q *question) statusOf(e *store.Entry, use rfc9111.Use) cacheStatus {
	switch {
	case use == rfc9111.StaleWhileRevalidate, q.failed:
		return statusStale
	case q.validated != 0 && e.Generation == q.validated:
		return statusRevalidated
	}
	return statusHit
}

func (q *question) id() flightID {
	return flightID{key: q.key, selected: store.Select(q.vary, q.header)}
}

// A finding is what this node has for a question.
type finding struct {
	entry       *store.Entry // nil: nothing
	body        []byte
	here        bool // body is the entry's
	use         rfc9111.Use
	why         rfc9111.Reason // the request, not the entry, rules out serving it
	uncacheable rfc9111.Reason
	known       bool // another variant is stored
}

// find looks into this node's memory. A finding by value would take more of the
// stack than a hit has: docs/design.md.
func (n *node) find(q *question, now time.Time, f *finding) {
	known := n.store.Lookup(q.key, q.header, now)
	q.vary = known.Vary
	*f = finding{entry: known.Entry, uncacheable: known.Uncacheable, known: known.Any, use: rfc9111.Validate}
	if f.entry == nil {
		return
	}
	f.use, f.why = rfc9111.Decide(&q.directives, q.credentials, &f.entry.Fresh, now)
	body, err := n.store.Body(q.key, f.entry)
	f.body, f.here = body, err == nil
	if f.here {
		n.store.Found(q.key, &known)
	} else if _, self := n.ring.Load().Owner(q.key); self {
		n.store.Drop(q.key, f.entry)
	}
}

// whose tells what this node's memory has of a key: what it owns, or a copy.
func (n *node) whose(k store.Key) (detail any) {
	if _, self := n.ring.Load().Owner(k); self {
		return detailLocal
	}
	return detailHot
}

// served reports whether the question is answered by what was found.
func (q *question) served(f *finding) bool {
	if !f.here || f.why == rfc9111.Authorization || q.upstream != rfc9111.None {
		return false
	}
	return f.use == rfc9111.Fresh || q.validated != 0 && f.entry.Generation == q.validated
}

// answered is served, or good enough while it is fetched anew.
func (q *question) answered(f *finding) bool {
	return q.served(f) || q.servedStale(f) && !q.refresh
}

// servedStale reports whether what was found answers the question while it is
// being revalidated.
func (q *question) servedStale(f *finding) bool {
	return f.here && f.use == rfc9111.StaleWhileRevalidate && q.upstream == rfc9111.None
}

// uncacheable is why the question's request needn't wait for others. That a
// response is too large to be stored as a whole is no reason for who wants a
// part of it.
func (q *question) uncacheable(f *finding) rfc9111.Reason {
	if q.far && f.uncacheable == rfc9111.TooLarge {
		return rfc9111.None
	}
	return f.uncacheable
}

// oversized reports whether an entry is of a body so large that only parts of it
// are served from the cache.
func (q *question) oversized(e *store.Entry) bool {
	return e != nil && e.Large() && e.Size > q.maxBody && !q.part
}

// passes reports whether the question's request is to be passed on, if nothing that was
// found serves it.
func (q *question) passes(f *finding) bool {
	return q.uncacheable(f) != rfc9111.None && !q.directives.OnlyIfCached
}

// stale is the entry that a fetch may validate: only one whose body is here,
// because a 304 brings none.
func (f *finding) stale() *store.Entry {
	if !f.here {
		return nil
	}
	return f.entry
}

// join makes a question's request the leader of a flight, or a follower with a
// reader to follow by.
func (n *node) join(q *question) (*flight, *follower, bool) {
	if q.alone {
		f := n.solo(q)
		return f, f.fill.NewReader(), true
	}
	id := q.id()
	if _, self := n.ring.Load().Owner(q.key); self {
		return n.fills.join(id, n.newFill(q), false)
	}
	id.refresh = q.refresh
	return n.asks.join(id, n.newFill(q), false)
}

// solo returns a flight that nobody can join.
func (n *node) solo(q *question) *flight {
	return &flight{fill: n.newFill(q)(), over: make(chan struct{})}
}

func (n *node) newFill(q *question) func() *fill.Fill[*store.Entry] {
	return func() *fill.Fill[*store.Entry] { return fill.New[*store.Entry](q.maxBody, store.ChunkSize, n.budget) }
}

// A grant says what the leader of a flight is to do.
type grant struct {
	fetch     bool // ask the upstream; otherwise the flight is being fed, or has ended
	why       rfc9111.Reason
	stale     *store.Entry // what a fetch may validate
	staleBody []byte       // its body, if that is here; what may stand in for an error

	// The owner that gave a lease for the fetch; nil if this node decides.
	owner  *peer.Node
	ticket peer.Ticket
	reply  *peer.Reply // the lease's lifeline
}

// ask asks the owner on behalf of a flight's leader.
func (n *node) ask(q *question, f *flight, found *finding) grant {
	own := grant{fetch: true, stale: found.stale(), staleBody: found.body}
	owner, self := n.ring.Load().Owner(q.key)
	if self {
		inherited := *found
		n.inherit(q, &inherited)
		if q.answered(&inherited) {
			f.end(rfc9111.None) // look again
			return grant{}
		}
		own.stale, own.staleBody = inherited.stale(), inherited.body
		return own
	}
	for range 2 { // a second time if the owner needs more request fields
		reply, err := n.lookup(q, owner, found)
		if err != nil {
			own.why = peerReason(err)
			return own
		}
		switch reply.Kind {
		case peer.Hit, peer.Follow:
			return n.bring(q, f, found, reply)
		case peer.Lease:
			own.validate(reply.Entry, q)
			own.owner, own.ticket, own.reply = new(owner), reply.Ticket, reply
			return own
		case peer.Vary:
			q.vary = reply.Names
			n.store.LearnVary(q.space, q.key, reply.Names)
		case peer.Bypass:
			n.store.MarkUncacheable(q.space, q.key, reply.Reason, time.Now().Add(min(reply.For, uncacheableFor)))
			f.end(rfc9111.HitForMiss)
			own.why, own.owner = rfc9111.HitForMiss, new(owner)
		case peer.None:
			own.validate(reply.Entry, q)
			own.owner, own.ticket = new(owner), reply.Ticket
		}
		reply.Close()
		if reply.Kind != peer.Vary {
			return own
		}
	}
	own.why = rfc9111.PeerError
	return own
}

// validate makes the owner's stale entry, if there is one, what a fetch
// validates.
func (g *grant) validate(e *store.Entry, q *question) {
	if e == nil || !e.Matches(q.header) {
		return
	}
	if g.stale == nil || g.stale.Generation != e.Generation {
		g.staleBody = nil
	}
	g.stale = e
}

// query asks about a question's key. Where the client's directives do not count,
// the owner must not go by them either: it does not see them, unless a response
// varies by them.
func (q *question) query(names []string) peer.Query {
	query := *peer.QueryOf(q.space.Name, q.key, q.header, names)
	if !q.undirected {
		return query
	}
	query.Fields = maps.Clone(query.Fields)
	for _, name := range []string{"Cache-Control", "Pragma"} {
		if !slices.Contains(names, name) {
			delete(query.Fields, name)
		}
	}
	return query
}

func (n *node) lookup(q *question, owner peer.Node, found *finding) (*peer.Reply, error) {
	query := q.query(q.vary)
	query.Asked = time.Now()
	query.Purges, query.Told = n.purged.Recent(query.Asked)
	query.Lead, query.Refresh, query.Credentials, query.Far, query.Validated = !q.alone, q.refresh, q.credentials, q.far, q.validated
	switch {
	case found.here:
		query.Have = found.entry.Generation
	case found.entry != nil:
		query.Long = found.entry.Size > peer.MaxShared
	}
	start, span := time.Now(), q.startPeerSpan(operationLookup)
	// Not the client's context: others may be waiting for the answer too.
	reply, err := n.client.Lookup(context.Background(), owner, &query, q.patience)
	q.observed(span, operationLookup, err, time.Since(start))
	return reply, err
}

// peerReason names why a peer was of no help.
func peerReason(err error) rfc9111.Reason {
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

// bring feeds a flight with what the owner sends. What is small and complete
// has arrived when it returns; the rest arrives in the background.
func (n *node) bring(q *question, f *flight, found *finding, reply *peer.Reply) grant {
	e := reply.Entry
	switch {
	case reply.Kind == peer.Follow:
		own := *q // the request may look again, and ask for something else, before all has arrived
		go n.transfer(&own, f, reply)
		return grant{}
	case !e.Matches(q.header):
		reply.Close()
		return grant{fetch: true, why: rfc9111.PeerError}
	case found.here && e.Generation == found.entry.Generation:
		reply.Close()
		if e.Size != found.entry.Size || e.Digest != found.entry.Digest {
			return grant{fetch: true, why: rfc9111.PeerError} // one generation is one body
		}
		n.store.PutCopy(q.space, q.key, e, nil)
		f.end(rfc9111.None) // look again: the body was here, now the entry is fresh
		return grant{}
	}
	if err := f.fill.Expect(min(e.Size, store.ChunkSize)); err != nil {
		reply.Close()
		return grant{fetch: true, why: reasonOf(err)}
	}
	if reply.Here() {
		f.fill.SetHeader(e) // before anybody could make use of knowing more, it is stored
	} else {
		n.begin(q, f, e)
	}
	if e.Size > inlineTransfer {
		own := *q
		go n.transfer(&own, f, reply)
	} else {
		n.transfer(q, f, reply)
	}
	return grant{}
}

// transfer copies a body from the owner into a flight and keeps a copy. Of one
// that is large and was stored before, that is the first chunk.
func (n *node) transfer(q *question, f *flight, reply *peer.Reply) {
	defer reply.Close()
	if !reply.Here() {
		stop := time.AfterFunc(q.deadline, reply.Close)
		defer stop.Stop()
	}
	e, err := reply.Entry, error(nil)
	if reply.Kind == peer.Follow {
		if e, err = reply.Header(); err != nil {
			f.end(brokenReason(err))
			return
		}
		if size, ok := contentLength(e); ok {
			err = f.fill.Expect(size)
		}
		n.begin(q, f, e)
	}
	var generation store.Generation
	if err == nil {
		generation, err = reply.Body(incoming{f.fill, n, q, f})
	}
	if err == nil && f.generation != 0 && generation != f.generation {
		generation = 0 // its other chunks are of no use without the entry
	}
	if err != nil {
		f.end(brokenReason(err))
		return
	}
	body := f.fill.Bytes()
	if generation != e.Generation || generation == 0 { // it was not stored before
		final := *e
		final.Generation = generation
		if e.Generation == 0 {
			final.Size, final.Digest = f.fill.Size(), f.fill.Digest()
		}
		e = &final
	}
	if generation != 0 {
		n.store.PutCopy(q.space, q.key, e, body)
	}
	f.land(e, e.Digest)
}

// brokenReason names why a transfer came to nothing. Followers of a fill that
// ended on the owner do as the owner's followers do.
func brokenReason(err error) rfc9111.Reason {
	var b peer.Broken
	switch {
	case errors.As(err, &b):
		return b.Reason
	case errors.Is(err, fill.ErrMemory), errors.Is(err, fill.ErrTooLarge):
		return reasonOf(err)
	}
	return rfc9111.LeaderLost
}

// publish hands a flight that this node leads to the owner while it comes in,
// and keeps what the owner made of it. A response that the owner could not
// take is stored here instead.
func (n *node) publish(q *question, f *flight, g grant, e *store.Entry, body *follower) {
	defer body.Close()
	defer g.close()
	ctx, cancel := context.WithTimeout(context.Background(), q.deadline)
	defer cancel()
	query := peer.NewQuery(q.space.Name, q.key, q.header, e.Vary())
	start, span := time.Now(), q.startPeerSpan(operationPublish)
	generation, err := n.client.Publish(ctx, *g.owner, query, g.ticket, e, outgoing{body, f})
	q.observed(span, operationPublish, err, time.Since(start))
	<-f.over
	n.keep(q, f, generation, err)
}

// publishWhole is publish for a flight that is over and has a small body, of
// which the caller has a reader. A silent owner is not waited for.
func (n *node) publishWhole(q *question, f *flight, g grant, e *store.Entry) {
	defer g.close()
	if f.landed == nil {
		return // it took too long
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), q.patience, peer.ErrTimeout)
	defer cancel()
	query := peer.NewQuery(q.space.Name, q.key, q.header, e.Vary())
	start, span := time.Now(), q.startPeerSpan(operationPublish)
	generation, err := n.client.PublishWhole(ctx, *g.owner, query, g.ticket, e, f.fill.Bytes())
	q.observed(span, operationPublish, err, time.Since(start))
	n.keep(q, f, generation, err)
}

// keep stores what became of a flight that was published.
func (n *node) keep(q *question, f *flight, generation store.Generation, err error) {
	var refused peer.Broken
	switch {
	case f.landed == nil: // ended: nothing to store anywhere
	case err == nil:
		stored := *f.landed
		stored.Generation = generation
		n.store.PutCopy(q.space, q.key, &stored, f.fill.Bytes())
	case !errors.As(err, &refused):
		n.store.CommitSummed(q.space, q.key, f.landed, f.fill.Bytes())
	}
}

// release tells the owner that a leased fetch gave nothing to store.
func (n *node) release(q *question, g grant, why rfc9111.Reason) {
	if g.reply == nil {
		return
	}
	query := peer.NewQuery(q.space.Name, q.key, q.header, nil) // now: the next look may change the question
	go func() {
		defer g.close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		err := n.client.Release(ctx, *g.owner, query, g.ticket, why)
		observePeer(operationRelease, err, time.Since(start))
	}()
}

// refresh stores what a 304 made of an entry, here and at the owner.
func (n *node) refresh(q *question, g grant, e *store.Entry) {
	if g.owner == nil {
		n.store.PutEntry(q.space, q.key, e)
		return
	}
	n.store.PutCopy(q.space, q.key, e, nil)
	defer g.close()
	ctx, cancel := context.WithTimeout(context.Background(), q.patience)
	defer cancel()
	query := peer.NewQuery(q.space.Name, q.key, q.header, e.Vary())
	start, span := time.Now(), q.startPeerSpan(operationRefresh)
	err := n.client.Refresh(ctx, *g.owner, query, g.ticket, e)
	q.observed(span, operationRefresh, err, time.Since(start))
}

// tellOthers tells all other nodes at the same time, and returns when they have
// answered, or have been silent for so long.
func (n *node) tellOthers(operation string, patience time.Duration, tell func(context.Context, peer.Node) error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, peer.ErrTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, to := range n.others() {
		all.Go(func() {
			start := time.Now()
			err := tell(ctx, to)
			observePeer(operation, err, time.Since(start))
		})
	}
	all.Wait()
}

func (g grant) close() {
	if g.reply != nil {
		g.reply.Close()
	}
}

// Lookup answers another node. Whatever the ring says, it answers from what
// this node has, and never asks a third one.
func (n *node) Lookup(query *peer.Query, a *peer.Answer) {
	n.served.Add(1)
	space := n.store.NamespaceOfPeer(query.Group)
	if space == nil {
		a.None(n.clock.ticket(0), nil)
		return
	}
	q := &question{
		space: space, address: address{key: query.Key}, header: query.Fields,
		directives: rfc9111.ParseRequest(query.Fields), credentials: query.Credentials,
		maxBody: n.largestBody(), validated: query.Validated, far: query.Far, refresh: query.Refresh, from: query,
	}
	now := time.Now()
	if n.behind(now) {
		a.Later(func(ctx context.Context) {
			if n.catcher.wait(ctx, defaultPeerTimeout) {
				n.answer(q, a, time.Now())
			} else {
				a.None(n.clock.ticket(0), nil)
			}
		})
		return
	}
	n.answer(q, a, now)
}

// answer answers a question of another node by what this node has now.
func (n *node) answer(q *question, a *peer.Answer, now time.Time) {
	a.Compared = n.knowsAll(q.from)
	ticket := n.clock.ticket(0) // before anything is looked at: what is fetched is younger
	var found finding
	n.find(q, now, &found)
	switch {
	case !q.from.Covers(q.vary):
		a.Vary(q.vary)
	case q.answered(&found):
		a.Hit(found.entry, found.body, q.from.Have)
	case q.uncacheable(&found) != rfc9111.None:
		a.Bypass(found.uncacheable, uncacheableFor)
	case !q.from.Lead && q.credentials:
		a.None(ticket, nil)
	case !q.from.Lead:
		a.None(ticket, found.stale())
	default:
		a.Later(func(ctx context.Context) { n.lead(ctx, q, a) })
	}
}

// lead gives the asker a lease, or lets it read along.
func (n *node) lead(ctx context.Context, q *question, a *peer.Answer) {
	f, r, leads := n.fills.join(q.id(), n.newFill(q), true)
	defer r.Close()
	if !leads {
		n.relay(ctx, q, f, r, a)
		return
	}
	ticket := n.clock.ticket(f.lease)
	// Look again after winning, as ServeHTTP does.
	var found finding
	if n.find(q, time.Now(), &found); !q.served(&found) {
		n.inherit(q, &found)
	}
	switch {
	case !q.covers(q.vary): // that has just become known
		f.end(rfc9111.None)
		a.Vary(q.vary)
		return
	case q.answered(&found):
		f.end(rfc9111.None)
		a.Hit(found.entry, found.body, q.from.Have)
		return
	}
	if err := a.Lease(ticket, found.stale()); err != nil {
		f.end(rfc9111.LeaderLost)
		return
	}
	// The look-up's stream is the lease's lifeline until its holder publishes.
	select {
	case <-f.over:
	case <-ctx.Done():
		if n.fills.take(f.lease) != nil {
			f.end(rfc9111.LeaderLost)
		}
	}
}

// relay sends a fill to another node as it comes in.
func (n *node) relay(ctx context.Context, q *question, f *flight, r *follower, a *peer.Answer) {
	if a.Follow() != nil {
		return
	}
	e, err := f.fill.Header(ctx)
	if err != nil {
		a.Broken(reasonOf(err))
		return
	}
	if n.purgedSince(q, f, e) {
		a.Broken(rfc9111.Superseded)
		return
	}
	a.Header(e)
	body := outgoing{r, f}
	for {
		p, stored, err := body.Next(ctx, func() { _ = a.Flush() }) // an asker that is gone ends ctx
		switch {
		case errors.Is(err, io.EOF):
			a.End(f.outcome())
			return
		case err != nil:
			a.Broken(reasonOf(err))
			return
		case p == nil && a.Stored(stored) != nil, a.Data(p) != nil:
			return
		}
	}
}

// Publish takes a response from the holder of a lease. A lease that is over,
// or none, is as good as one if nobody else is fetching: the response was
// fetched, so why throw it away?
func (n *node) Publish(ctx context.Context, p *peer.Publication) (store.Generation, rfc9111.Reason) {
	q := &question{address: address{key: p.Query.Key}, header: p.Query.Fields, maxBody: n.largestBody()}
	if q.space = n.store.NamespaceOfPeer(p.Query.Group); q.space == nil {
		return 0, rfc9111.Memory
	}
	f := n.fills.take(p.Ticket.Lease)
	if p.Released != rfc9111.None {
		n.remember(q.space, q.key, p.Released)
		if f != nil {
			f.end(p.Released)
		}
		return 0, rfc9111.None
	}
	n.clock.date(p.Entry, p.Ticket)
	if p.Entry.Matches(q.header) {
		q.vary = p.Entry.Vary()
	}
	if f == nil {
		var r *follower
		var leads bool
		f, r, leads = n.fills.join(q.id(), n.newFill(q), false)
		r.Close()
		if !leads {
			return 0, rfc9111.Superseded
		}
	}
	if p.Refresh {
		n.store.PutEntry(q.space, q.key, p.Entry)
		f.end(rfc9111.None)
		return p.Entry.Generation, rfc9111.None
	}
	return n.receive(q, f, p)
}

func (n *node) receive(q *question, f *flight, p *peer.Publication) (store.Generation, rfc9111.Reason) {
	size, ok := contentLength(p.Entry)
	if p.Entry.Large() { // only its first chunk comes
		size = store.ChunkSize
	}
	if ok {
		if err := f.fill.Expect(size); err != nil {
			f.end(reasonOf(err))
			return 0, reasonOf(err)
		}
	}
	n.begin(q, f, p.Entry)
	if err := p.Body(incoming{f.fill, n, q, f}); err != nil {
		why := brokenReason(err)
		n.giveUp(q, f, why)
		return 0, why
	}
	if stored := n.commit(q, f, p.Entry); stored != nil {
		return stored.Generation, rfc9111.None
	}
	return 0, rfc9111.Superseded
}

// begin publishes the header of a flight. Requests that come from now on know
// by what fields it was selected, and find it by them.
func (n *node) begin(q *question, f *flight, e *store.Entry) {
	if !slices.Equal(q.vary, e.Vary()) {
		was := f.alias(e.Choice().Selected)
		n.store.LearnVary(q.space, q.key, e.Vary())
		f.unalias(was)
	}
	f.fill.SetHeader(e)
}

// commit stores the complete response of a flight and ends it.
func (n *node) commit(q *question, f *flight, e *store.Entry) *store.Entry {
	first := f.fill.Bytes()
	final := *e
	final.Digest = f.fill.Digest()
	if !final.Large() { // else it is known beforehand, and no more than the first chunk was to come
		final.Size, final.Generation = f.fill.Size(), f.generation
	}
	stored := n.store.CommitSummed(q.space, q.key, &final, first)
	if stored == nil {
		f.land(nil, final.Digest)
	} else {
		f.land(stored, stored.Digest)
	}
	return stored
}

// giveUp ends a flight that gave nothing to store, and remembers why if that is the
// response's nature.
func (n *node) giveUp(q *question, f *flight, why rfc9111.Reason) {
	n.remember(q.space, q.key, why)
	f.end(why)
}

func (n *node) remember(space *store.Namespace, k store.Key, why rfc9111.Reason) {
	if why.RemembersUncacheable() {
		n.store.MarkUncacheable(space, k, why, time.Now().Add(uncacheableFor))
	}
}

// close lets go of the memory and the connections.
func (n *node) close() {
	n.end()
	n.client.Close()
	n.store.Close()
}
