package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Flight is a response that several requests on this node want at the same
// time. The first of them leads: it sees to it that the fill is fed, from the
// upstream or from the owner; the others follow the fill.
//
// A flight ends exactly once. Before that it has left its table, so a request that
// looks afterwards finds what was stored, or leads the next flight. Lead ends it on
// every way out of what its leader does, and its deadline does if that takes too long.
// A leader that goes on with its own client calls Finish before.
type Flight struct {
	node  *Node
	Fill  *fill.Fill[*store.Entry]
	table *flights // nil: no request can join it
	id    flightID
	lease uint64        // under which another node leads; 0: led here
	Over  chan struct{} // closed at the end

	// The lease under which this node leads; nil: there is none.
	granted atomic.Pointer[Lease]

	// Whether its body has become too large to be stored: no request joins it any more.
	Outgrown atomic.Bool
	// Whether others follow it at the owner that it is published to.
	Followed atomic.Bool
	// Tells the node that publishes it here that a request follows; nil: it knows, or none does.
	onFollow atomic.Pointer[func()]

	// Under which the further chunks of a large body are stored; 0: there are
	// none yet. Set by the leader before another node is told of such a chunk.
	Generation store.Generation

	// Ends the flight when its fill takes too long, and what is to be called then.
	timer    *time.Timer // nil, and begun zero: no request can join it
	begun    time.Time
	expired  atomic.Bool
	onExpiry atomic.Pointer[func()]

	once   sync.Once
	Landed *store.Entry   // the entry as stored; written before Over is closed, nil if not stored
	Why    rfc9111.Reason // why it came to nothing; written before Over is closed
	digest uint64
}

// A Follower reads a fill while it comes in.
type Follower = fill.Reader[*store.Entry]

// A flightID tells apart what one response can serve: a cache key, and the
// selecting fields as far as they are known.
type flightID struct {
	key      store.Key
	selected store.Selection
	// In asks only: a refresh in the background takes as long as the upstream,
	// and no request that needs only the owner's stale body may wait for it.
	refresh bool
}

// Ended is the error of a fill that came to nothing. Without a reason, what was
// waited for is in the store.
type Ended struct{ Why rfc9111.Reason }

// Error says what was waited for in vain.
func (e Ended) Error() string { return "no shared response: " + e.Why.String() }

// Reason tells the owner to which the fill is published.
func (e Ended) Reason() rfc9111.Reason { return e.Why }

// ReasonOf names why a fill came to nothing.
func ReasonOf(err error) rfc9111.Reason {
	var e Ended
	switch {
	case err == nil:
		return rfc9111.None
	case errors.As(err, &e):
		return e.Why
	case errors.Is(err, fill.ErrTooLarge):
		return rfc9111.TooLarge
	case errors.Is(err, fill.ErrMemory):
		return rfc9111.Memory
	default:
		return rfc9111.Aborted
	}
}

// An Ending is how a flight ends.
type Ending struct {
	// Why it came to nothing. None: what it was for is in the store, or its body is
	// complete.
	Why rfc9111.Reason

	complete bool
	landed   *store.Entry // as stored
	digest   uint64
	handedOn bool // another goroutine, or another node, leads from here on
}

// Landed is the ending of a flight whose body is complete. The entry is nil if it is
// not stored.
func Landed(stored *store.Entry, digest uint64) Ending {
	return Ending{complete: true, landed: stored, digest: digest}
}

// HandedOn is for a leader that leaves the flight to another: to the goroutine which
// feeds it with what the owner sends, or to the node that publishes under its lease.
var HandedOn = Ending{handedOn: true}

// Lead has do lead a flight, and ends it, with its lease, as do says. If do panics, the
// flight has come to nothing.
func Lead[T any](f *Flight, do func() (T, Ending)) T {
	ending := Ending{Why: rfc9111.Aborted}
	defer func() {
		if !ending.handedOn {
			f.end(ending)
		}
	}()
	var result T
	result, ending = do()
	return result
}

// Lead is the function Lead for a leader without a result.
func (f *Flight) Lead(do func() Ending) {
	Lead(f, func() (struct{}, Ending) { return struct{}{}, do() })
}

// Finish ends a flight before its leader returns, which goes on with its own client.
// Only the first end counts.
func (f *Flight) Finish(e Ending) { f.end(e) }

func (f *Flight) end(e Ending) {
	f.once.Do(func() {
		f.leave()
		if f.timer != nil {
			f.timer.Stop()
		}
		if e.complete {
			f.Landed, f.digest = e.landed, e.digest
			f.Fill.Close(nil)
		} else {
			f.Fill.Close(Ended{e.Why})
		}
		f.Why = e.Why
		close(f.Over)
		f.Fill.Release()
		f.granted.Load().end(e)
	})
}

// expire is called when the fill has taken for too long.
func (f *Flight) expire() {
	f.Finish(Ending{Why: rfc9111.FillTimeout})
	f.expired.Store(true)
	if then := f.onExpiry.Load(); then != nil {
		(*then)()
	}
}

// WhenExpired has a function called when the deadline has ended the flight, or now if
// it has. It may be called twice.
func (f *Flight) WhenExpired(then func()) {
	f.onExpiry.Store(&then)
	if f.expired.Load() {
		then()
	}
}

// AwaitHeader waits for the header of a flight that another request leads. A request
// waits for others for no longer than its own fill might take, all in all.
func (q *Lookup) AwaitHeader(ctx context.Context, f *Flight) (*store.Entry, error) {
	if e, known := f.Fill.Known(); known {
		return e, nil
	}
	if q.until.IsZero() {
		q.until = time.Now().Add(q.FillTimeout)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, q.until, Ended{rfc9111.FillTimeout})
	defer cancel()
	return f.Fill.Header(ctx)
}

// Answered waits until the flight's header is known, or the flight is over, and reports
// whether that is so by the time that what is stored is to stand in: when the flight has
// taken for StandInAfter, or when the request has waited that long, for several.
func (q *Lookup) Answered(ctx context.Context, f *Flight) bool {
	if q.standInAt.IsZero() {
		q.standInAt = time.Now().Add(q.StandInAfter)
	}
	if at := f.begun.Add(q.StandInAfter); at.Before(q.standInAt) {
		q.standInAt = at
	}
	ctx, cancel := context.WithDeadline(ctx, q.standInAt)
	defer cancel()
	_, _ = f.Fill.Header(ctx) // the error is that of either end
	_, known := f.Fill.Known()
	return known || f.IsOver()
}

// A Lease is the owner's word to this node: fetch it. It is used once: to
// publish under it, or to give it back. A nil lease is none.
type Lease struct {
	node     *Node
	lifeline interface{ Close() }
	owner    peer.Node
	ticket   peer.Ticket
	query    *peer.Query // of what it was given for: the key alone
	used     atomic.Bool
}

func newLease(n *Node, reply *peer.Reply, owner peer.Node, q *Lookup) *Lease {
	return &Lease{node: n, lifeline: reply, owner: owner, ticket: reply.Ticket, query: peer.NewQuery(q.Namespace.Name, q.Key, nil, nil)}
}

// Use reports whether the lease is the caller's to use, which must close it then.
func (l *Lease) Use() bool { return l != nil && l.used.CompareAndSwap(false, true) }

// Close has the owner take the lease for over, unless it has heard so. It may be
// called more than once.
func (l *Lease) Close() {
	if l != nil {
		l.lifeline.Close()
	}
}

// drop closes an unused lease.
func (l *Lease) drop() {
	if l.Use() {
		l.Close()
	}
}

// end closes the lease of a flight that has ended, unless it is used. Where
// there is a reason that the owner can go by, it is told.
func (l *Lease) end(e Ending) {
	if e.Why == rfc9111.None || e.Why == rfc9111.Aborted {
		l.drop()
	} else {
		l.GiveBack(e.Why)
	}
}

// GiveBack tells the owner that a leased fetch gives nothing to store, unless the lease
// is used.
func (l *Lease) GiveBack(why rfc9111.Reason) {
	if !l.Use() {
		return
	}
	guard.Go(func() {
		defer l.Close()
		_ = l.release(why) // Close tells the owner too
	})
}

// ReleaseUnwanted gives the lease back if no request waits for its holder at the owner, or
// reports false.
func (l *Lease) ReleaseUnwanted() bool {
	if l == nil || l.used.Load() {
		return true
	}
	if err := l.release(rfc9111.Abandoned); errors.As(err, new(peer.Broken)) {
		return false
	}
	l.drop()
	return true
}

// release tells the owner why nothing is stored under the lease. An owner that does not
// answer is not waited for.
func (l *Lease) release(why rfc9111.Reason) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	start := time.Now()
	err := l.node.Client.Release(ctx, l.owner, l.query, l.ticket, why)
	l.node.observe(operationRelease, err, time.Since(start))
	return err
}

// alias makes the flight known under another selection, unless that is taken.
// The old id is good until unalias.
func (f *Flight) alias(selected store.Selection) (was flightID) {
	was = f.id
	id := was
	id.selected = selected
	if f.table == nil {
		return was
	}
	f.table.Mu.Lock()
	defer f.table.Mu.Unlock()
	if f.table.flights[was] == f && f.table.flights[id] == nil { // not detached, not taken
		f.table.flights[id] = f
		f.id = id
	}
	return was
}

func (f *Flight) unalias(was flightID) {
	if f.table == nil {
		return
	}
	f.table.Mu.Lock()
	defer f.table.Mu.Unlock()
	if f.id != was && f.table.flights[was] == f {
		delete(f.table.flights, was)
	}
}

func (f *Flight) leave() {
	if f.table == nil {
		return
	}
	f.table.Mu.Lock()
	defer f.table.Mu.Unlock()
	if f.table.flights[f.id] == f {
		delete(f.table.flights, f.id)
	}
	delete(f.table.leases, f.lease)
}

// flights is a table of the flights under way.
type flights struct {
	Mu      sync.Mutex // guards below
	flights map[flightID]*Flight
	leases  map[uint64]*Flight
}

// join returns the flight for id and a reader of its fill, which the caller
// must close. When there is none it begins one, and the caller leads it.
func (t *flights) join(id flightID, begin start) (f *Flight, r *Follower, leads bool) {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	if f := t.flights[id]; f != nil {
		if tell := f.onFollow.Swap(nil); tell != nil {
			guard.Go(*tell)
		}
		// Under the lock, because a flight leaves the table before its
		// leader lets go of the fill.
		return f, f.Fill.NewReader(), false
	}
	f = &Flight{node: begin.node, Fill: begin.fill(), table: t, id: id, begun: time.Now(), Over: make(chan struct{})}
	if t.flights == nil {
		t.flights, t.leases = make(map[flightID]*Flight), make(map[uint64]*Flight)
	}
	t.flights[id] = f
	if begin.leased {
		f.lease = max(rand.Uint64(), 1)
		t.leases[f.lease] = f
	}
	f.timer = guard.AfterFunc(begin.within, f.expire)
	return f, f.Fill.NewReader(), true
}

// A start is how a flight begins.
type start struct {
	node   *Node
	fill   func() *fill.Fill[*store.Entry]
	within time.Duration // it ends after that
	leased bool          // another node is to lead it
}

// take returns the flight of a lease and ends the lease: from here on its
// caller leads. It returns nil for a lease that is over or taken.
func (t *flights) take(lease uint64) *Flight {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	f := t.leases[lease]
	delete(t.leases, lease)
	return f
}

// detach lets no request join the flights of a key any more. Their followers go
// on.
func (t *flights) detach(k store.Key) {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	for id := range t.flights {
		if id.key == k {
			delete(t.flights, id)
		}
	}
}

// Detach lets no request join this flight any more.
func (f *Flight) Detach() {
	if f.table == nil {
		return
	}
	f.table.Mu.Lock()
	defer f.table.Mu.Unlock()
	for id, other := range f.table.flights {
		if other == f {
			delete(f.table.flights, id)
		}
	}
}

func (t *flights) count() (flights, leased int) {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	return len(t.flights), len(t.leases)
}

// Has reports whether a key is on its way.
func (t *flights) Has(k store.Key) bool {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	for id := range t.flights {
		if id.key == k {
			return true
		}
	}
	return false
}

// Joinable reports whether other requests can follow the flight, or could before it was
// detached or had ended.
func (f *Flight) Joinable() bool { return f.table != nil }

// IsOver reports whether the flight has ended.
func (f *Flight) IsOver() bool {
	select {
	case <-f.Over:
		return true
	default:
		return false
	}
}

// outcome waits for the end of a flight that landed.
func (f *Flight) outcome() (digest uint64, g store.Generation) {
	<-f.Over
	if f.Landed != nil {
		g = f.Landed.Generation
	}
	return f.digest, g
}

// Join makes a request the leader of a flight, or a follower with a reader to follow
// by, which the caller must close. Another flight may have landed between the look-up
// and the join: so the leader has to look again.
func (n *Node) Join(q *Lookup) (f *Flight, r *Follower, leads bool) {
	if q.Alone || q.Validated != 0 { // what the upstream has confirmed to one request is that request's
		f := n.Solo(q)
		return f, f.Fill.NewReader(), true
	}
	id := q.id()
	if _, self := n.Owner(q.Key); self {
		return n.Fills.join(id, n.start(q))
	}
	id.refresh = q.Refresh
	return n.Asks.join(id, n.start(q))
}

// Solo returns a flight that no request can join. It has no deadline but its leader's.
func (n *Node) Solo(q *Lookup) *Flight {
	return &Flight{node: n, Fill: n.start(q).fill(), Over: make(chan struct{})}
}

func (n *Node) start(q *Lookup) start {
	return start{node: n, within: q.FillTimeout, fill: func() *fill.Fill[*store.Entry] {
		return fill.New[*store.Entry](q.MaxBody, store.ChunkSize, n.Budget)
	}}
}

// Begin publishes the header of a flight. Requests that come from now on know
// by what fields it was selected, and find it by them.
func (f *Flight) Begin(q *Lookup, e *store.Entry) {
	if !slices.Equal(q.vary, e.Vary()) {
		was := f.alias(e.VariantKey().Selected)
		f.node.Store.LearnVary(q.Namespace, q.Key, e.Vary())
		f.unalias(was)
	}
	f.Fill.SetHeader(e)
}

// expect announces the bytes of an entry's body that another node is about to send, if their
// number is known. Of a body that is large beforehand only the first chunk comes.
func (f *Flight) expect(e *store.Entry) error {
	size, known := e.ContentLength()
	if e.Large() {
		size, known = store.ChunkSize, true
	}
	if !known {
		return nil
	}
	return f.Fill.Expect(size)
}

// Commit stores the complete response of a flight, and returns how the flight ends by
// that.
func (f *Flight) Commit(q *Lookup, e *store.Entry) Ending {
	first, digest, size, here := f.Fill.Whole()
	if !here { // the deadline came before the end of the body was known
		return Ending{Why: rfc9111.FillTimeout}
	}
	final := *e
	final.Digest = digest
	if !final.Large() { // else it is known beforehand, and no more than the first chunk was to come
		final.Size, final.Generation = size, f.Generation
	}
	if !f.node.credible(&final) || final.Large() && int64(len(first)) != store.ChunkSize {
		return Landed(nil, final.Digest)
	}
	stored := f.node.Store.CommitSummed(q.Namespace, q.Key, &final, first)
	if stored == nil {
		return Landed(nil, final.Digest)
	}
	return Landed(stored, stored.Digest)
}
