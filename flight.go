package caddygroupcache

import (
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A flight is a response that several requests on this node want at the same
// time. The first of them leads: it sees to it that the fill is fed, from the
// upstream or from the owner; the others follow the fill.
//
// A flight ends exactly once, by land or by end. Before that it has left its
// table, so whoever looks afterwards finds what it stored, or leads the next.
type flight struct {
	fill  *fill.Fill[*store.Entry]
	table *flights // nil: it is nobody's but its leader's
	id    flightID
	lease uint64        // the lease under which another node leads; 0: led here
	over  chan struct{} // closed at the end

	// Under which the further chunks of a large body are stored; 0: there are
	// none yet. Set by the leader before anybody is told of such a chunk.
	generation store.Generation

	once   sync.Once
	landed *store.Entry // the entry as stored; written before over is closed, nil if not stored
	digest uint64
}

type follower = fill.Reader[*store.Entry]

// A flightID tells apart what one response can serve: a cache key, and the
// selecting fields as far as they are known.
type flightID struct {
	key      store.Key
	selected store.Selection
	// In asks only: a refresh in the background takes as long as the upstream,
	// and nobody who needs no more than the owner's stale body may wait for it.
	refresh bool
}

// ended is the error of a fill that came to nothing. Without a reason, what was
// waited for is in the store.
type ended struct{ why rfc9111.Reason }

func (e ended) Error() string { return "no shared response: " + e.why.String() }

// Reason tells the owner to which the fill is published.
func (e ended) Reason() rfc9111.Reason { return e.why }

// reasonOf names why a fill came to nothing.
func reasonOf(err error) rfc9111.Reason {
	var e ended
	switch {
	case err == nil:
		return rfc9111.None
	case errors.As(err, &e):
		return e.why
	case errors.Is(err, fill.ErrTooLarge):
		return rfc9111.TooLarge
	case errors.Is(err, fill.ErrMemory):
		return rfc9111.Memory
	default:
		return rfc9111.Aborted
	}
}

// land ends a flight whose body is complete. final is the entry as stored, or
// nil if it is not.
func (f *flight) land(final *store.Entry, digest uint64) {
	f.once.Do(func() {
		f.leave()
		f.landed, f.digest = final, digest
		f.fill.Close(nil)
		close(f.over)
		f.fill.Release()
	})
}

// end ends a flight that came to nothing.
func (f *flight) end(why rfc9111.Reason) {
	f.once.Do(func() {
		f.leave()
		f.fill.Close(ended{why})
		close(f.over)
		f.fill.Release()
	})
}

// alias makes the flight known under another selection, unless that is taken.
// The old id is good until unalias.
func (f *flight) alias(selected store.Selection) (was flightID) {
	was = f.id
	id := was
	id.selected = selected
	if f.table == nil {
		return was
	}
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	if f.table.flights[was] == f && f.table.flights[id] == nil { // not detached, not taken
		f.table.flights[id] = f
		f.id = id
	}
	return was
}

func (f *flight) unalias(was flightID) {
	if f.table == nil {
		return
	}
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	if f.id != was && f.table.flights[was] == f {
		delete(f.table.flights, was)
	}
}

func (f *flight) leave() {
	if f.table == nil {
		return
	}
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	if f.table.flights[f.id] == f {
		delete(f.table.flights, f.id)
	}
	delete(f.table.leases, f.lease)
}

// flights is a table of the flights under way.
type flights struct {
	mu      sync.Mutex // guards below
	flights map[flightID]*flight
	leases  map[uint64]*flight
}

// join returns the flight for id and a reader of its fill, which the caller
// must close. When there is none it begins one, with newFill, and the caller
// leads it.
func (t *flights) join(id flightID, newFill func() *fill.Fill[*store.Entry], leased bool) (f *flight, r *follower, lead bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.flights[id]; f != nil {
		// Under the lock, because a flight leaves the table before its
		// leader lets go of the fill.
		return f, f.fill.NewReader(), false
	}
	f = &flight{fill: newFill(), table: t, id: id, over: make(chan struct{})}
	if t.flights == nil {
		t.flights, t.leases = make(map[flightID]*flight), make(map[uint64]*flight)
	}
	t.flights[id] = f
	if leased {
		f.lease = max(rand.Uint64(), 1)
		t.leases[f.lease] = f
	}
	return f, f.fill.NewReader(), true
}

// take returns the flight of a lease and ends the lease: from here on its
// caller leads. It returns nil for a lease that is over or taken.
func (t *flights) take(lease uint64) *flight {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.leases[lease]
	delete(t.leases, lease)
	return f
}

// detach lets nobody join the flights of a key any more. Who follows them goes
// on.
func (t *flights) detach(k store.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.flights {
		if id.key == k {
			delete(t.flights, id)
		}
	}
}

// detach lets nobody join this flight any more.
func (f *flight) detach() {
	if f.table == nil {
		return
	}
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	for id, other := range f.table.flights {
		if other == f {
			delete(f.table.flights, id)
		}
	}
}

func (t *flights) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flights)
}

// isOver reports whether the flight has ended.
func (f *flight) isOver() bool {
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}

// outcome waits for the end of a flight that landed.
func (f *flight) outcome() (digest uint64, g store.Generation) {
	<-f.over
	if f.landed != nil {
		g = f.landed.Generation
	}
	return f.digest, g
}
