package caddygroupcache

import (
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/express"
	"github.com/caddy-groupcache/caddy-groupcache/internal/front"
	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// maxLookUps bounds how often a request looks again because what it waited for
// came to nothing, or was not for it. After that it goes to the upstream.
const maxLookUps = 3

// ServeHTTP serves a request from the cache, or has the next handlers make the
// response and stores it for others.
//
//	step          what happens                                           leads to
//	receive       what does the request ask of the cache?                look up; bypass: nothing
//	look up       what does this node have?                              hit, stale, await, validate, join; pass: known to be uncacheable
//	hit           the stored response answers                            done; look up: a part of it is lost
//	stale         the stored response is fetched anew in the background  hit
//	await         the stored response is fetched anew in the background;   follow, hit, look up
//	              if that is slow, it stands in
//	validate      the upstream is asked for each request; equal          look up: another request has asked;
//	              requests wait for one of them                          as join
//	join          does another request fetch the same?                   follow: one does, or the owner has it; lead
//	lead          the owner of the key is asked once                     follow, look up, fetch, fetch alone
//	follow        the header comes: may that response answer this?       done; look up: it may not
//	fetch         the next handlers answer, and what they write is       done; look up: it was not to be stored; deliver part;
//	(alone)       recorded, published to the owner, and delivered        as hit: a 304 confirmed it, or an error let it stand in
//	deliver part  a part far into a body, after its first chunk          done
//	pass, bypass  the next handlers answer, nothing is kept              done
//
// A local hit is receive, look up, hit; a remote hit receive, look up, join, lead,
// follow; a miss receive, look up, join, lead, fetch. docs/design.md tells the three.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.Express {
		if sending := express.SendingOf(r); sending != nil {
			sending.Send(w, r)
			return nil
		}
	}
	h.route().Cut(h.Cookies, r)
	if h.Purge != nil && slices.Contains(h.Purge.Methods, r.Method) {
		return h.servePurge(w, r)
	}
	if r.Method == rfc9111.MethodQuery && h.QueryMethod != queryMethodOff {
		return h.serveQuery(w, r, next)
	}
	return h.serve(w, r, next, nil)
}

// serve is ServeHTTP for a request whose content, if it is a QUERY, has been read. A
// request that one look-up answers leaves nothing behind: its exchange is on the stack.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, content content) error {
	x := exchange{h: h, w: w, r: r, next: next, content: content}
	if why := x.receive(); why != rfc9111.None {
		return h.bypass(w, r, next, why)
	}
	switch {
	case r.Context().Value(caddyhttp.ErrorCtxKey) != nil:
		return h.bypass(w, r, next, rfc9111.ErrorRoute)
	case front.Forbids(w.Header(), h.policy.Options):
		h.noteFront(x.Key, w, r)
		return h.bypass(w, r, next, rfc9111.InFront)
	}
	if h.Express && r.ProtoMajor < 3 {
		h.learnFront(w.Header(), r)
	}
	x.sampled = h.node.HotKeys.Note(h.Group, x.Key, r, urlOf)
	at := x.lookUp()
	switch at {
	case stepHit:
		noteTarget(h, r)
		stored := x.takeFound()
		if stored.deliverWhole(&x) {
			return x.err
		}
		x.found.Body = stored.body
	case stepPass:
		if x.found.Entry == nil {
			x.pass()
			return x.err
		}
	}
	return new(x).run(at) // from here on it is on the heap
}

// noteFront notes for explain what forbids a request. It is apart from serve for the stack.
func (h *Handler) noteFront(k store.Key, w http.ResponseWriter, r *http.Request) {
	h.node.Rejections.Note(k, rfc9111.InFront, h.policy.Rejection(rfc9111.InFront, 0, r.Header, w.Header()))
}

// run has a request take its steps.
func (x *exchange) run(at step) error {
	for {
		switch at {
		case stepLookUp:
			at = x.lookUp()
		case stepHit:
			at = x.hit()
		case stepStale:
			x.refresh()
			at = x.hit()
		case stepAwait:
			at = x.awaitRefresh()
		case stepValidate:
			at = x.validate()
		case stepJoin:
			at = x.join(x.lookUps > maxLookUps)
		case stepPass:
			x.pass()
			return x.err
		case stepBypass:
			return x.h.bypass(x.w, x.client(), x.next, x.reason)
		default:
			return x.err
		}
	}
}

// lookUp looks into this node's memory.
func (x *exchange) lookUp() step {
	if x.lookUps++; x.lookUps > 1 {
		if err := x.r.Context().Err(); err != nil { // the client is gone
			x.err = caddyhttp.Error(statusClientClosed, err)
			return stepDone
		}
		if x.original != nil {
			x.original.Restore()
		}
		x.locate(inbound.FieldsOf(x.r.Header)) // what counts of it may be known by now
	}
	x.now = time.Now()
	if !x.h.node.Purger.UpToDate(x.r.Context(), x.now, x.PeerTimeout) {
		x.reason = rfc9111.CatchingUp
		return stepBypass
	}
	x.find()
	if x.oversized(x.found.Entry) {
		x.Bypass = rfc9111.PartsOnly
	}
	switch {
	case x.CanServe(&x.found):
		return stepHit
	case x.CanServeStale(&x.found):
		return stepStale
	case x.Passes(&x.found):
		return stepPass
	case x.MayStandIn(x.found.Entry, x.now):
		return stepAwait
	case x.found.AlwaysValidated() && !x.Alone:
		return stepValidate
	}
	return stepJoin
}

// hit answers with the stored response that was found.
func (x *exchange) hit() step {
	stored := x.takeFound()
	return stored.deliver(x)
}

// takeFound returns the stored response that was found. The exchange keeps no body, or a
// slow client would hold it, uncounted.
func (x *exchange) takeFound() storedResponse {
	e, body := x.found.Entry, x.found.Body
	x.found.Body = nil
	return storedResponse{entry: e, body: body, status: x.statusOf(e, x.found.Use), detail: x.h.hitDetail(x.Key), now: x.now}
}

// join has the request follow a flight, or lead one. When its look-ups are used up, it
// leads a flight of its own, and does not ask the owner.
func (x *exchange) join(usedUp bool) step {
	if x.found.Reason != rfc9111.None || usedUp || x.Bypass != rfc9111.None {
		x.Alone = true
	}
	f, body, leads := x.h.node.Join(&x.Lookup)
	defer body.Close()
	next := stepFollow
	if leads {
		next = node.Lead(f, func() (step, node.Ending) { return x.lead(f, body, usedUp) })
	}
	switch next {
	case stepFollow:
		if leads {
			x.validation.End(0) // the owner has something newer
		}
		return x.follow(f, body)
	case stepFetchAlone:
		x.Alone = true
		alone := x.h.node.Solo(&x.Lookup)
		return node.Lead(alone, func() (step, node.Ending) { return x.fetch(alone) })
	case stepDeliverPart:
		return x.first.deliverPart(x)
	}
	return next
}

// lead finds out what a flight is to be fed with. Its reader is for a request that
// follows what the owner sends.
func (x *exchange) lead(f *node.Flight, body *node.Follower, usedUp bool) (step, node.Ending) {
	// Between look-up and join another flight may have landed, stored its response and
	// left.
	if !x.Alone {
		var again node.Result
		if x.h.node.Find(&x.Lookup, time.Now(), &again); x.CanServe(&again) {
			return stepLookUp, node.Ending{}
		}
	}
	var ending node.Ending
	switch x.decision = (node.Decision{Known: x.found.Entry != nil}); {
	case x.Bypass != rfc9111.None:
		x.decision.Reason = x.Bypass
	case !usedUp:
		x.decision, ending = x.h.node.Ask(&x.Lookup, f, &x.found)
	}
	switch x.decision.Action {
	case node.LookAgain:
		return stepLookUp, ending
	case node.Follow:
		return stepFollow, ending
	}
	body.Close()
	if x.Directives.OnlyIfCached {
		unavailable(x.w, x.outcome())
		return stepDone, node.Ending{Why: rfc9111.OnlyIfCached}
	}
	if x.decision.Action == node.FetchAlone {
		return stepFetchAlone, ending
	}
	return x.fetch(f)
}

// serveQuery serves a QUERY from the cache, or passes it.
func (h *Handler) serveQuery(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	content, err := inbound.ReadContent(r)
	if err != nil {
		return h.bypass(w, r, next, rfc9111.RequestBody)
	}
	// Not before it has come: clients that send nothing would take all the memory.
	release, ok := h.node.Budget.Take(int64(len(content)))
	if !ok {
		return h.bypass(w, r, next, rfc9111.Memory)
	}
	defer release()
	return h.serve(w, r, next, content)
}
