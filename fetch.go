package caddygroupcache

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-groupcache/caddy-groupcache/internal/delivery"
	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/front"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/span"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// fetch runs the next handlers as the leader of a flight.
func (x *exchange) fetch(f *node.Flight) (step, node.Ending) {
	out := x.outcome()
	for _, why := range []rfc9111.Reason{x.decision.Reason, x.waited} {
		if why != rfc9111.None && out.detail == "" {
			out.detail = why.String()
		}
	}
	x.forwarded()
	x.keepOriginal()
	call := &fetch{exchange: x, flight: f, out: out, stale: staleResponse{entry: x.decision.Stale}}
	defer call.over()
	x.err = call.callNext(x.w)
	return call.after(), node.Ending{Why: rfc9111.Aborted} // if it has not ended
}

// after says what comes after the fetch.
func (x *fetch) after() step {
	stale, body, err := x.stale, x.decision.StaleBody, x.err
	x.decision.StaleBody = nil // what the client takes its time over, deliver counts
	x.err = nil                // what is stored answers in its place
	switch {
	case x.first != nil:
		return stepDeliverPart
	case stale.renewed != nil && body != nil && !x.background && !x.h.node.Purger.IsPurged(&x.Lookup, stale.renewed):
		return (&storedResponse{entry: stale.renewed, body: body, status: statusRevalidated, detail: x.h.hitDetail(x.Key), now: time.Now()}).deliver(x.exchange)
	case x.staleIfError && stale.entry.Size > 0 && body == nil:
		x.Validated, x.failed = stale.entry.Generation, true // the owner has the body, and it will do
		return stepLookUp
	case x.staleIfError && !x.background:
		x.validation.End(0)
		return (&storedResponse{entry: stale.entry, body: body, status: statusStale, detail: detailLocal, now: time.Now()}).deliver(x.exchange)
	case x.silenced:
		x.Alone = x.Alone || stale.renewed == nil && !x.probe.lookAgain
		return stepLookUp
	}
	x.err = err
	return stepDone
}

// A fetch is one call of the next handlers by the leader of a flight.
type fetch struct {
	*exchange
	flight *node.Flight
	out    *outcome
	stale  staleResponse
	probe  probe
	lesson lesson

	whole     bool // the upstream is asked without the client's conditions and range
	sent      time.Time
	unshared  atomic.Bool // the response is its client's alone
	abandoned atomic.Bool // its client is gone, and no other request waited
	cancel    context.CancelCauseFunc
	stops     []func() bool
	orphan    node.Orphan
	published chan struct{}  // closed when the owner has answered; nil: no stream to it has begun
	concluded bool           // it is decided how flight and lease end: giving up comes too late
	silenced  bool           // the client has got nothing, and a stored response is to answer it
	judged    node.Rejection // why the response is not stored, for explain

	staleIfError bool // the upstream has failed, and the stored response may stand in (RFC 5861 §4)
}

// start returns what the handlers behind the cache are to be called with. If
// others may follow, the request outlives its client until the response turns out
// to be the client's alone.
func (x *fetch) start(w http.ResponseWriter) (*recorder, *http.Request) {
	ctx := x.r.Context()
	if !x.flight.Joinable() && !x.background {
		x.unshared.Store(true)
		x.cancel = func(error) {} // it goes with the client
	} else {
		ctx, x.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		x.stops = append(x.stops, guard.AfterContext(x.r.Context(), func() {
			switch {
			case x.unshared.Load():
				x.cancel(context.Canceled)
			case !x.background: // that has never had a client
				x.orphan.ClientGone(&x.h.node.Orphans, x)
			}
		}))
		x.flight.WhenExpired(x.expire)
	}
	var asked http.Header // nil: the client's
	switch {
	case x.replaces() && x.r.Method != http.MethodHead:
		asked = rfc9111.Conditional(x.r.Header, x.stale.entry.Header())
		x.stale.validating = true
	case x.replaces(): // compareHead looks at the response to the HEAD as the client asks it
	default:
		if asked = x.probe.ask(x); asked == nil && !x.Alone && rfc9111.HasConditions(x.r.Header) {
			asked = rfc9111.Conditional(x.r.Header, nil) // a fill needs the whole
		}
	}
	x.whole = asked != nil
	header := w.Header()
	t := &recorder{
		ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		x:                     x,
		header:                header.Clone(),
		before:                front.FieldsOf(header),
	}
	upstream := x.original.ForUpstream(ctx, asked)
	x.original.AddLoop(x.h.loopMember)
	x.sent = time.Now()
	return t, upstream
}

// replaces reports whether the response confirms or replaces a stored one, which may stand in
// for an error.
func (x *fetch) replaces() bool { return x.stale.entry != nil && !x.Credentials }

// Wanted reports whether another request on this node waits for the fetch, or may use what
// has come in.
func (x *fetch) Wanted() bool {
	_, known := x.flight.Fill.Known()
	return known || x.probe.isChunk.Load() || x.flight.Fill.Readers() > 0
}

// Abandon ends a fetch that no request waits for. A request that has come to wait meanwhile
// looks again.
func (x *fetch) Abandon() bool {
	if !x.decision.Lease.ReleaseUnwanted() {
		return false
	}
	x.abandoned.Store(true)
	x.flight.Finish(node.Ending{Why: rfc9111.LeaderLost})
	x.unshared.Store(true)
	x.cancel(context.Canceled)
	return true
}

// over ends what has begun with a fetch and has not ended yet, on whatever way out: its
// timers, its context. The flight and its lease are the business of node.Lead.
func (x *fetch) over() {
	for _, stop := range x.stops {
		stop()
	}
	x.h.node.Orphans.End(&x.orphan)
	if x.cancel != nil {
		x.cancel(nil)
	}
}

// callNext has the next handlers answer, ends the fill and serves the client. If a
// handler panics, or the client's writer does, the panic goes on when that is done: the
// client's connection is cut, as without a cache.
func (x *fetch) callNext(w http.ResponseWriter) (err error) {
	t, upstream := x.start(w)
	defer x.original.RemoveLoop()
	start, fill := time.Now(), span.Start(x.r.Context(), spanFill)
	if fill != nil {
		upstream = upstream.WithContext(trace.ContextWithSpan(upstream.Context(), fill))
	}
	result, broke := fillFailed, true
	defer func() {
		x.h.counters.fetched(result, time.Since(start))
		span.End(fill, "result", fillResultNames[result], "reason", x.out.detail)
	}()
	defer func() {
		switch {
		case !broke:
		case x.staleIfError: // what is stored may stand in for a failure that breaks off, too
			x.giveUp(rfc9111.UpstreamFailed)
			err = nil
			unlessAborted(recover())
		case t.sated(), t.aside(): // the handlers were ended, because the client has all that it asked for
			result, err = fillNotStored, nil
			x.silenced = t.leavesClient()
			defer unlessAborted(recover())
			t.finishClient()
		default:
			x.giveUp(rfc9111.Truncated)
			x.flight.Finish(node.Ending{Why: rfc9111.Truncated}) // if it was not to be given up any more
			if t.finishClient() || delivery.Served(t.ResponseWriter) {
				unlessAborted(recover())
			}
		}
	}()
	leave := x.h.route().Enter(replacer(x.r), t.header)
	defer leave()
	err = x.next.ServeHTTP(t, upstream)
	if t.sated() {
		err = nil
	}
	result = x.finish(t, err)
	t.finishClient()
	x.silenced = t.leavesClient()
	broke = false
	return err
}

// unlessAborted goes on with a panic of the handlers, unless they have ended a response by it.
func unlessAborted(p any) {
	if p != nil && p != http.ErrAbortHandler {
		panic(p)
	}
}

// finish ends the flight after the handlers have returned, and tells how it went.
func (x *fetch) finish(t *recorder, err error) fillResult {
	switch {
	case t.state == undecided && err != nil && x.stale.standsIn(x, errorStatus(err)):
		x.staleIfError = true
		x.giveUp(rfc9111.UpstreamFailed)
		return fillFailed
	case t.state == undecided && err != nil && x.storeError(t, errorStatus(err)):
		t.adoptHeader()
		x.out.writeUnanswered(t.ResponseWriter.Header(), err)
		return fillStored
	case t.state == undecided:
		x.judged = node.Rejection{Why: rfc9111.Aborted, Part: x.probe.asked}
		x.endStored(errorStatus(err), rfc9111.Status)
		x.giveUp(x.failedRefresh(errorStatus(err), rfc9111.Aborted))
		t.adoptHeader()
		x.out.writeUnanswered(t.ResponseWriter.Header(), err)
		return fillFailed
	case t.state == filling && err != nil:
		x.giveUp(rfc9111.Aborted)
	case t.state == filling:
		x.complete(t)
	case x.staleIfError:
		x.giveUp(rfc9111.UpstreamFailed)
	}
	switch {
	case x.stale.renewed != nil:
		return fillRevalidated
	case x.out.stored:
		return fillStored
	case x.staleIfError || err != nil:
		return fillFailed
	}
	return fillNotStored
}

// storeError stores an error of the handlers whose status a ttl names, such as a 404 of
// file_server. It reports false if it can't be.
func (x *fetch) storeError(t *recorder, status int) bool {
	policy, _ := x.h.policy.Under(rfc9111.Exchange{Status: status, Response: t.before.Own(t.header)})
	if _, named := policy.TTL[status]; !named || x.replaces() || x.probe.asked {
		return false
	}
	e, why := x.judge(t, status, time.Now())
	if why != rfc9111.None {
		return false
	}
	e.Failed, t.entry, t.length, x.out.stored = true, e, 0, true
	x.flight.Begin(&x.Lookup, e)
	x.complete(t)
	return x.out.stored
}

// outgrow goes on with a fill that has become too large to be stored, for the
// requests that follow it, here or at the owner: the upstream may answer them with
// other bytes. It reports false if there are none. No request joins the flight from
// here on.
func (x *fetch) outgrow() bool {
	f := x.flight
	if f.Outgrown.Load() || !x.followed() {
		return false
	}
	f.Outgrown.Store(true)
	why := x.whyEnded(fill.ErrTooLarge)
	x.refuse(why)
	x.decision.Lease.GiveBack(why)
	f.Detach()
	f.Fill.Unlimit()
	return true
}

// followed reports whether a request other than the fetch's own reads the fill.
func (x *fetch) followed() bool {
	own := 1
	if x.published != nil {
		select {
		case <-x.published:
		default:
			if x.flight.Followed.Load() {
				return true
			}
			own++
		}
	}
	return x.flight.Fill.Readers() > own
}

// whyEnded names why a fill came to nothing.
func (x *fetch) whyEnded(err error) rfc9111.Reason {
	if errors.Is(err, fill.ErrTooLarge) {
		return x.h.policy.TooLarge(x.MaxBody + 1)
	}
	return node.ReasonOf(err)
}

// giveUp ends the flight, gives the lease back, and from here on ties the
// fetch to its client.
func (x *fetch) giveUp(why rfc9111.Reason) {
	if x.concluded {
		return
	}
	x.concluded = true
	if x.abandoned.Load() {
		why = rfc9111.Abandoned
	}
	if !x.flight.Outgrown.Load() {
		x.refuse(why)
	}
	x.flight.Finish(node.Ending{Why: why})
	x.unshared.Store(true)
	switch {
	case x.background:
		x.cancel(errNotShared)
	case x.flight.Joinable(): // else the fetch has always ended with its client
		if err := x.r.Context().Err(); err != nil {
			x.cancel(err)
		}
	}
}

// refuse notes why the response is not stored.
func (x *fetch) refuse(why rfc9111.Reason) {
	x.out.stored = false
	x.h.counters.notStored[why].Add(1)
	x.h.node.Rejections.Note(x.Key, why, x.judged)
	x.h.node.Remember(x.Namespace, x.Key, why)
}

// decide looks at the header of a final response.
func (x *fetch) decide(t *recorder, status int) recorderState {
	if x.stale.validating && status == http.StatusNotModified {
		return x.stale.confirm(t)
	}
	if x.stale.standsIn(x, status) {
		x.staleIfError = true
		if !x.background { // a request that follows waits for no body of an error, and the client not for long
			x.giveUp(rfc9111.UpstreamFailed)
		}
		x.stops = append(x.stops, guard.AfterFunc(errorBodyTime, func() { x.cancel(errNotShared) }).Stop)
		return silent
	}
	if x.r.Method == http.MethodHead && status == http.StatusOK && x.replaces() {
		x.stale.compareHead(t)
	}
	x.validation.End(0)
	received := time.Now()
	if date := t.header["Date"]; len(date) == 0 || date[0] == "" {
		t.header.Set("Date", received.UTC().Format(http.TimeFormat)) // RFC 9110 §6.6.1
	}
	if x.probe.asked {
		if state := x.probe.decide(t); state != undecided {
			return state
		}
		status = t.status
	}
	entry, why := x.judge(t, status, received)
	if x.probe.asked && status >= http.StatusBadRequest && why == rfc9111.None {
		why = rfc9111.RequestStatus // it may be about the Range
	}
	x.judged = x.h.policy.Rejection(why, status, x.r.Header, t.header)
	x.judged.Part = x.probe.asked && why == rfc9111.RequestStatus
	x.h.policy.HideTags(t.header)
	if why != rfc9111.None {
		x.out.detail = why.String()
		x.endStored(status, why)
		x.giveUp(x.failedRefresh(status, why))
		return direct
	}
	entry.Volatile = x.stale.validating
	t.entry = entry
	return x.open(t)
}

// errorBodyTime is how long the body of an error may take that what is stored stands in for.
const errorBodyTime = time.Second

// failedRefresh names a failure of the upstream to answer a refresh, so that the next one
// is tried a moment later and not by the next request; why names all else.
func (x *fetch) failedRefresh(status int, why rfc9111.Reason) rfc9111.Reason {
	if x.background && rfc9111.IsError(status) {
		return rfc9111.UpstreamFailed
	}
	return why
}

// endStored ends what is stored of a URL on all nodes when the upstream's answer, which
// is not stored itself, says that it is no longer what the upstream has.
func (x *fetch) endStored(status int, why rfc9111.Reason) {
	if !x.decision.Known || x.Credentials || !rfc9111.EndsStored(x.r.Method, status, why) {
		return
	}
	x.h.node.Purger.InvalidateKey(&x.Lookup)
}

// errorStatus is the status that Caddy answers with for an error of the handlers.
func errorStatus(err error) int {
	if e, ok := errors.AsType[caddyhttp.HandlerError](err); ok && e.StatusCode != 0 {
		return e.StatusCode
	}
	return http.StatusInternalServerError
}

// judge decides whether a response is stored, and as what.
func (x *fetch) judge(t *recorder, status int, received time.Time) (*store.Entry, rfc9111.Reason) {
	appends, ok := t.before.Edits(t.header)
	if !ok {
		return nil, rfc9111.InFront
	}
	answer := x.h.exchangeOf(replacer(x.r), status, t.before.Own(t.header))
	answer.Method, answer.Request, answer.Credentials, answer.Unkeyed = x.r.Method, x.r.Header, x.Credentials, x.unkeyed
	answer.Sent, answer.Received = x.sent, received
	if x.probe.allInPart {
		answer.Response = rfc9111.Apart(answer.Response)
	}
	policy, answer := x.h.policy.Under(answer)
	fresh, length, why := policy.Judge(answer, x.MaxBody)
	if why != rfc9111.None {
		return nil, why
	}
	if why := x.lesson.learn(x, answer.Response); why != rfc9111.None {
		return nil, why
	}
	t.length = length
	e, why := policy.NewEntry(answer, fresh, x.r, requestURI(x.r))
	if why == rfc9111.None {
		e.Appends = appends
	}
	return e, why
}

// open opens the fill to readers, and its client is the first of them.
func (x *fetch) open(t *recorder) recorderState {
	f := x.flight
	if f.IsOver() { // the header has come after the deadline
		if t.aside() {
			return x.probe.again(x, f.Why)
		}
		x.out.detail = f.Why.String()
		x.giveUp(f.Why)
		return direct
	}
	if t.length >= 0 {
		if err := f.Fill.Expect(t.length); err != nil {
			if t.aside() {
				return x.probe.again(x, rfc9111.Memory)
			}
			x.out.detail = node.ReasonOf(err).String()
			x.giveUp(node.ReasonOf(err))
			return direct
		}
	}
	if x.stops == nil { // no other request waits for it, and from here on it holds memory
		x.stops = append(x.stops, guard.AfterFunc(x.FillTimeout, x.expire).Stop)
	}
	x.out.stored = true
	noteTarget(x.h, x.r)
	if t.aside() {
		t.body = f.Fill.NewReader() // what is held is let go of with it
		return filling
	}
	before := front.FieldsOf(t.header)
	t.sendFilling()
	if before.ForbidsLate(t.ResponseWriter.Header(), x.h.policy.Options) {
		x.out.detail = rfc9111.InFront.String()
		x.giveUp(rfc9111.InFront)
		if t.answered {
			return silent
		}
		t.headerSent = true
		return direct
	}
	t.body, t.delivered = f.Fill.NewReader(), delivery.NewSent()
	if !x.probe.isChunk.Load() { // or readers would take the first chunk for the whole
		f.Begin(&x.Lookup, t.entry)
	}
	return filling
}

// sendFilling sends the header of a response that is about to be filled.
func (t *recorder) sendFilling() {
	t.adoptHeader()
	t.x.out.fwdStatus = cmp.Or(t.x.probe.cameAs, t.status)
	w := t.ResponseWriter
	t.x.out.write(w.Header())
	if delivery.AnswerNotModified(w, t.x.r, t.status) {
		t.answered = true
		return
	}
	w, status := t.partOf(w)
	t.ResponseWriter = w
	w.WriteHeader(status)
}

// publish begins to hand the response to the owner, if another node is that: as a stream, or,
// of a small one that has come in one piece, whole. The client, which may be slow, is beside it.
func (x *fetch) publish(t *recorder, whole bool) {
	if x.probe.isChunk.Load() || x.decision.Owner == nil || x.published != nil || x.concluded || x.flight.IsOver() {
		return
	}
	x.decision.Lease.Use()
	x.published = make(chan struct{})
	body := x.flight.Fill.NewReader()
	// The request may look up again before the owner has answered.
	asked, decision := x.Lookup, x.decision
	decision.StaleBody = nil
	guard.Go(func() {
		defer close(x.published)
		if whole {
			x.flight.PublishWhole(&asked, decision, t.entry, body)
		} else {
			x.flight.PublishStream(&asked, decision, t.entry, body)
		}
	})
}

// A staleResponse is what is stored, for a fetch that is to confirm or replace it.
type staleResponse struct {
	entry      *store.Entry // nil: nothing is
	validating bool         // the upstream is asked whether it still holds
	renewed    *store.Entry // what a 304 made of it; nil: none did
}

// confirm decides about a 304.
func (s *staleResponse) confirm(t *recorder) recorderState {
	x, stale := t.x, s.entry
	answer := s.answer(t, http.StatusNotModified)
	renewed, why := s.renew(x, answer)
	if renewed != nil {
		s.renewed, x.concluded = renewed, true
		x.leftOut = x.h.policy.LeftOut(answer, stale.Status, stale.Header(), stale.Groups())
		x.Validated = renewed.Generation
		x.flight.Refresh(&x.Lookup, x.decision, renewed)
		x.flight.Finish(node.Ending{})
		x.validation.End(x.confirmed())
		return silent
	}
	if lent := x.h.policy.Lent(answer, stale); lent != nil && why != rfc9111.StrayNotModified && x.decision.StaleBody != nil && !x.background {
		s.renewed, x.leftOut = lent, x.h.policy.LeftOut(answer, stale.Status, stale.Header(), stale.Groups())
		x.validation.End(0)
	} else {
		why = rfc9111.StrayNotModified
	}
	x.h.node.Store.Drop(x.Key, stale)
	x.Without = stale.Generation // or the owner would offer it again
	x.giveUp(why)
	return silent
}

// answer returns a response without a body that says something of the stored one.
func (s *staleResponse) answer(t *recorder, status int) rfc9111.Exchange {
	x := t.x
	return rfc9111.Exchange{
		Method: x.r.Method, Request: x.r.Header, Credentials: x.Credentials,
		Status: status, Response: t.before.Own(t.header),
		Sent: x.sent, Received: time.Now(),
	}
}

// renew returns the stored entry as an answer updates it (RFC 9111 §3.2), or why it can't be
// stored so.
func (s *staleResponse) renew(x *fetch, answer rfc9111.Exchange) (*store.Entry, rfc9111.Reason) {
	stale := s.entry
	fields, fresh, why := x.h.policy.Revalidated(answer, stale.Status, stale.Header(), stale.Groups())
	switch {
	case x.h.route().MadeOf(replacer(x.r), answer.Response, x.h.Targeted) != nil: // of the upstream's own answer it says nothing
		return nil, rfc9111.StrayNotModified
	case why != rfc9111.None:
		return nil, why
	case !x.search.Stays(fields) || !sameVary(stale, fields):
		return nil, rfc9111.StrayNotModified
	}
	renewed, tooBig := stale.WithFreshness(fields, fresh, x.sent)
	if tooBig != rfc9111.None || !s.retag(x, renewed, answer.Response) {
		return nil, rfc9111.StrayNotModified
	}
	return renewed, rfc9111.None
}

// sameVary reports whether an updated header still names the fields by which its entry is
// found. If not, the response is fetched anew, to be stored under those.
func sameVary(stale *store.Entry, updated http.Header) bool {
	names, star := rfc9111.VaryNames(updated)
	return !star && slices.Equal(names, stale.Vary())
}

// retag gives an entry the tags and groups that came with its validation, if
// any did. It reports false if there are too many.
func (s *staleResponse) retag(x *fetch, e *store.Entry, own http.Header) bool {
	tags, few := rfc9111.Tags(own, x.h.Tags)
	groups, fewGroups := rfc9111.CacheGroups(own)
	tags, groups, fewInAll := x.h.policy.Relabel(tags, groups, e.Tags(), e.Groups())
	e.SetLabels(e.URL(), tags, groups)
	return few && fewGroups && fewInAll
}

// compareHead lets the response to a HEAD update the stored one to a GET, or
// drop it everywhere (RFC 9111 §4.3.5).
func (s *staleResponse) compareHead(t *recorder) {
	x, answer := t.x, s.answer(t, http.StatusOK)
	switch rfc9111.CompareHead(s.entry.Header(), answer.Response) {
	case rfc9111.Other:
		x.h.node.Purger.InvalidateKey(&x.Lookup)
	case rfc9111.Same:
		if renewed, _ := s.renew(x, answer); renewed != nil {
			x.flight.Refresh(&x.Lookup, x.decision, renewed)
		}
	}
}

// standsIn reports whether what is stored answers a GET or HEAD in place of
// a response with this status (RFC 5861 §4).
func (s *staleResponse) standsIn(x *fetch, status int) bool {
	if s.entry == nil || s.entry.Failed || x.Credentials || !rfc9111.IsError(status) {
		return false
	}
	stale := *s.entry
	stale.Checked, stale.Compared = x.sent, false // it was there then
	purged := x.h.node.Purger.IsPurged(&x.Lookup, &stale)
	use, _ := rfc9111.Reuse(&x.Request, &s.entry.Fresh, rfc9111.Outage, time.Now())
	return !purged && use != rfc9111.Validate
}

// complete stores the response if all of it has come.
func (x *fetch) complete(t *recorder) {
	size := x.flight.Fill.Size()
	if x.lesson != nil {
		body := x.flight.Fill.NewReader()
		defer body.Close()
		defer func() {
			if x.out.stored {
				x.lesson.teach(x, t.entry, body)
			}
		}()
	}
	switch {
	case rfc9111.HasTrailers(t.header):
		x.giveUp(rfc9111.Trailers)
	case t.length >= 0 && size != t.length:
		x.giveUp(rfc9111.Truncated)
	case x.probe.isChunk.Load():
		x.probe.commit(t)
	case x.flight.Outgrown.Load():
		x.concluded = true
		x.flight.Settle(&x.Lookup, true)
		x.flight.Finish(node.Landed(nil, x.flight.Fill.Digest()))
	case x.decision.Owner == nil:
		x.concluded = true
		x.flight.Settle(&x.Lookup, true)
		x.flight.Finish(x.flight.Commit(&x.Lookup, t.entry))
	default:
		x.publish(t, size <= node.InlineTransfer) // unless it has begun
		x.concluded = true
		x.flight.Settle(&x.Lookup, true)
		final := *t.entry
		final.Size, final.Generation, final.Digest = size, x.flight.Generation, x.flight.Fill.Digest()
		x.decision.Lease.Use() // or its end would be that of the flight
		x.flight.Finish(node.Landed(&final, final.Digest))
		t.sendHeader()
		x.awaitOwner()
	}
}

// awaitOwner holds back the end of the response until the owner has it, so that a request
// that comes to any node after that is a hit. A silent owner is not waited for.
func (x *fetch) awaitOwner() {
	if x.published == nil {
		return // it took too long
	}
	patience := time.NewTimer(x.PeerTimeout)
	defer patience.Stop()
	select {
	case <-x.published:
	case <-patience.C:
	}
}

// expire ends a fill that takes too long. Its client is still served.
func (x *fetch) expire() { x.leave(rfc9111.FillTimeout) }

// stall ends the flight of a request whose client holds the fetch up: another request leads.
func (x *fetch) stall() { x.leave(rfc9111.LeaderLost) }

// leave ends the flight, and leaves the response to the fetch's own client.
func (x *fetch) leave(why rfc9111.Reason) {
	x.flight.Finish(node.Ending{Why: why})
	x.unshared.Store(true)
	if err := x.r.Context().Err(); err != nil {
		x.cancel(err)
	}
}
