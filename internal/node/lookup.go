package node

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Lookup is what a request asks of the cache.
type Lookup struct {
	Namespace       *store.Namespace
	Key             store.Key
	rfc9111.Request                  // what it says of the responses that it accepts
	Header          http.Header      // of the request
	Undirected      bool             // Directives are empty, whatever the request says
	Alone           bool             // it neither leads others nor follows them
	AskPrevious     bool             // though it is alone, the owner is to look for what it may have missed
	Refresh         bool             // stale-while-revalidate has been made use of: now revalidate
	MaxBody         int64            // larger responses are not stored
	WantsPart       bool             // it asks for a part within the first chunk, beyond it, or counted from the end
	Bypass          rfc9111.Reason   // what is stored can't serve it
	Without         store.Generation // of a stored body that can't serve it, because chunks of it are lost; 0: of none
	PeerTimeout     time.Duration    // for a silent owner
	FillTimeout     time.Duration    // for a fill
	until           time.Time        // its wait for other requests ends then; zero: it has not begun
	StandInAfter    time.Duration    // a stored response may answer it if the upstream takes longer; 0: it waits
	standInAt       time.Time        // its wait for a refresh ends then; zero: it has not begun
	vary            []string         // what is known of the response's Vary
	// The body that the upstream has just confirmed for this request: to be
	// served whatever its freshness.
	Validated store.Generation

	unanswered rfc9111.Reason // why the owner was of no help, and another node is asked

	// The look-up of another node, on whose behalf this one is: Header
	// is what it tells of that. nil: the request came to this node.
	from *peer.Query

	SpanContext context.Context // of the request, for spans only: what is done for it may outlive it
}

func (q *Lookup) id() flightID {
	return flightID{key: q.Key, selected: store.Select(q.vary, q.Header)}
}

// A Result is what this node has for a look-up.
type Result struct {
	Entry       *store.Entry // nil: nothing
	Body        []byte
	Here        bool // body is the entry's
	Use         rfc9111.Use
	Reason      rfc9111.Reason // the request, not the entry, rules out serving it
	Uncacheable rfc9111.Reason
	Known       bool // another variant is stored
	Failing     bool // the entry is not fresh, and the upstream has just failed
}

// Find looks into this node's memory. A result by value would take more of the
// stack than a hit has: docs/design/decided.md.
func (n *Node) Find(q *Lookup, now time.Time, f *Result) {
	known := n.Store.Lookup(q.Key, q.Header, now)
	q.vary = known.Vary
	*f = Result{Entry: known.Entry, Uncacheable: known.Uncacheable, Known: known.Any, Use: rfc9111.Validate}
	if f.Entry == nil {
		return
	}
	f.Use, f.Reason = rfc9111.Reuse(&q.Request, &f.Entry.Fresh, rfc9111.Stored, now)
	f.Failing = f.Use != rfc9111.Fresh && n.Failures.Lately(q.Key, now)
	if f.Use == rfc9111.Validate && f.Failing {
		if use := q.InPlaceOfUpstream(f.Entry, now); use != rfc9111.Validate {
			f.Use, f.Reason = use, rfc9111.None
		}
	}
	body, err := n.Store.Body(q.Key, f.Entry)
	f.Body, f.Here = body, err == nil
	if q.Excludes(f.Entry) {
		f.Body, f.Here = nil, false
		return
	}
	if f.Here {
		n.Store.Found(q.Key, &known)
	} else if _, self := n.Ring.Load().Owner(q.Key); self {
		n.Store.Drop(q.Key, f.Entry)
	}
}

// Excludes reports whether an entry is of the body that the request looks up again without.
func (q *Lookup) Excludes(e *store.Entry) bool {
	return q.Without != 0 && e != nil && e.Generation == q.Without
}

// CanServe reports whether what was found answers the request.
func (q *Lookup) CanServe(f *Result) bool {
	if !f.Here || f.Reason == rfc9111.Authorization || q.Bypass != rfc9111.None {
		return false
	}
	return f.Use == rfc9111.Fresh || f.Use == rfc9111.StaleIfError || q.Validated != 0 && f.Entry.Generation == q.Validated
}

// Reuse decides whether a response answers the request that comes from a flight: from
// another request, or from another node.
func (n *Node) Reuse(q *Lookup, e *store.Entry, now time.Time) rfc9111.Use {
	how, fresh := rfc9111.Stored, e.Fresh
	switch {
	case e.Generation == 0: // it is arriving
		how, fresh = rfc9111.Collapsed, e.Fresh.AsAnswered()
	case e.Generation == q.Validated:
		how = rfc9111.Confirmed
	}
	use, _ := rfc9111.Reuse(&q.Request, &fresh, how, now)
	if use == rfc9111.Validate && e.Generation != 0 && n.Failures.Lately(q.Key, now) {
		return q.InPlaceOfUpstream(e, now)
	}
	return use
}

// MayStandIn reports whether a request waits for the upstream no longer than StandInAfter
// before a stored response answers it. A request that a 304 would answer alone does.
func (q *Lookup) MayStandIn(e *store.Entry, now time.Time) bool {
	return q.StandInAfter > 0 && e != nil && q.Bypass == rfc9111.None && q.Validated == 0 &&
		!e.Fresh.AlwaysValidated() && q.InPlaceOfUpstream(e, now) != rfc9111.Validate
}

// InPlaceOfUpstream says how a stored response may be used if the upstream fails, or is
// slow (RFC 5861 §4).
func (q *Lookup) InPlaceOfUpstream(e *store.Entry, now time.Time) rfc9111.Use {
	if e.Failed {
		return rfc9111.Validate
	}
	use, _ := rfc9111.Reuse(&q.Request, &e.Fresh, rfc9111.Outage, now)
	return use
}

// answers is served, or good enough while it is fetched anew.
func (q *Lookup) answers(f *Result) bool {
	return q.CanServe(f) || q.CanServeStale(f) && (!q.Refresh || f.Failing)
}

// CanServeStale reports whether what was found answers the request while it is
// being revalidated.
func (q *Lookup) CanServeStale(f *Result) bool {
	return f.Here && f.Use == rfc9111.StaleWhileRevalidate && q.Bypass == rfc9111.None
}

// uncacheable is why the request needn't wait for others. That only
// parts of a response are stored is no reason for a request that wants a part.
func (q *Lookup) uncacheable(f *Result) rfc9111.Reason {
	if q.WantsPart && f.Uncacheable == rfc9111.PartsOnly {
		return rfc9111.None
	}
	return f.Uncacheable
}

// Passes reports whether the request is to be passed on, if nothing that was
// found serves it.
func (q *Lookup) Passes(f *Result) bool {
	return q.uncacheable(f) != rfc9111.None && !q.Directives.OnlyIfCached
}

// AlwaysValidated reports whether what was found needs the upstream's word for each
// request: then none waits for another.
func (f *Result) AlwaysValidated() bool {
	return f.Entry != nil && f.Use == rfc9111.Validate && f.Entry.Fresh.AlwaysValidated()
}

// stale is the entry that a fetch may validate: only one whose body is here,
// because a 304 brings none.
func (f *Result) stale() *store.Entry {
	if !f.Here {
		return nil
	}
	return f.Entry
}

// Query asks about the key. Where the client's directives do not count,
// the owner must not go by them either: it does not see them, unless a response
// varies by them.
func (q *Lookup) Query(names []string) peer.Query {
	query := *peer.QueryOf(q.Namespace.Name, q.Key, q.Header, names)
	if !q.Undirected {
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
