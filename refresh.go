package caddygroupcache

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

// refresh fetches a stale response anew in the background (RFC 5861 §3),
// unless that is already going on somewhere in the cluster. The request that
// found it stale does not wait.
func (x *exchange) refresh() {
	if x.Alone || x.h.node.Failures.Lately(x.Key, x.now) {
		return // with this client's credentials, say, nothing is fetched for others
	}
	newRefresh(x).body.Close()
}

// awaitRefresh fetches a stale response anew in the background, and answers with what
// comes. If that is slow, the stale one answers (RFC 5861 §4: a failure in all but name).
func (x *exchange) awaitRefresh() step {
	anew := newRefresh(x)
	defer anew.body.Close()
	if x.lookUps <= maxLookUps && x.Answered(x.r.Context(), anew.flight) {
		return x.follow(anew.flight, anew.body)
	}
	e := *x.found.Entry
	e.Checked, e.Compared = x.now, false // it was there then
	if x.h.node.Purger.IsPurged(&x.Lookup, &e) {
		return stepLookUp
	}
	x.slow, x.failed = true, true
	if x.found.Here {
		return stepHit
	}
	x.Validated = x.found.Entry.Generation // the owner has the body, and it will do
	return stepLookUp
}

// A refresh fetches a stale response anew, for no client.
type refresh struct {
	x      *exchange // its own
	flight *node.Flight
	body   *node.Follower // must be closed
}

// newRefresh begins a fetch in the background, or joins one that is under way.
func newRefresh(x *exchange) *refresh {
	again := new(*x)
	again.validation = nil
	again.background, again.Refresh, again.Alone, again.StandInAfter, again.original, again.decision = true, true, false, 0, nil, node.Decision{}
	f, body, leads := x.h.node.Join(&again.Lookup)
	anew := &refresh{again, f, body}
	if !leads {
		return anew
	}
	f.Lead(func() node.Ending { // background may panic
		r, cancel := routes.Background(x.r, x.FillTimeout, x.h.route().Define)
		x.h.route().Take(r, x.r)
		if x.content != nil {
			r.Method = x.r.Method
		}
		again.w = routes.Nobody{Fields: x.w.Header().Clone()} // what handlers in front have set is told from the response here too
		again.r, again.Header = r, r.Header
		guard.Go(func() {
			defer cancel()
			f.Lead(anew.lead)
		})
		return node.HandedOn
	})
	return anew
}

// lead leads the flight.
func (anew *refresh) lead() node.Ending {
	x, f := anew.x, anew.flight
	var ending node.Ending
	x.now = time.Now()
	if x.h.node.Find(&x.Lookup, x.now, &x.found); x.CanServe(&x.found) { // another refresh landed before this flight began
		return ending
	}
	if x.decision, ending = x.h.node.Ask(&x.Lookup, f, &x.found); x.decision.Action != node.Fetch && x.decision.Action != node.FetchAlone {
		return ending
	}
	_, ended := x.fetch(f)
	if x.err != nil {
		if c := x.h.logger.Check(zap.DebugLevel, "fetching a stale response anew"); c != nil {
			c.Write(zap.Error(x.err))
		}
	}
	return ended
}

// errNotShared ends a background fetch whose response no request waits for.
var errNotShared = errors.New("the response cannot be stored, and no client waits for it")
