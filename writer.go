package caddygroupcache

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/cespare/xxhash/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A tee is the ResponseWriter that the handlers behind the cache write to
// while their response may be stored. It decides when the header comes:
//
//   - direct: the response is its one client's, and goes to it untouched;
//   - filling: it goes into the flight's fill, and the client is served from
//     there like every follower, so that a slow or vanished client holds up
//     nobody;
//   - silent: the answer validates, or replaces by an error, what is stored,
//     and nobody gets to see it.
//
// Until it is direct a fetch that others may follow does not depend on its client's
// context.
type tee struct {
	caddyhttp.ResponseWriterWrapper
	x      *fetch
	header http.Header // what the handlers set; the client's own map unless x.discards
	before []lines     // what stood there before: not part of the response
	state  teeState
	status int

	body     *follower    // the client's place in the fill
	started  bool         // the client gets the body from pump
	pumped   chan error   // pump's result
	given    *given       // what the client has of the body; of the pump until it ends
	entry    *store.Entry // what the fill will be stored as
	length   int64        // Content-Length, or -1
	answered bool         // the client got a 304 instead of the body
}

type teeState uint8

const (
	undecided teeState = iota
	direct
	filling
	silent
)

// Header returns the header that the handlers behind the cache see.
func (t *tee) Header() http.Header { return t.header }

// Unwrap lets ResponseController reach the client's writer for what the tee
// doesn't do itself.
func (t *tee) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// WriteHeader passes interim responses on, and decides about the final one.
func (t *tee) WriteHeader(status int) {
	if t.state != undecided {
		return
	}
	if status < 200 {
		t.interim(status)
		return
	}
	t.status = status
	t.state = t.x.decide(t, status)
	if t.state == direct {
		t.passHeader(status)
	}
}

func (t *tee) interim(status int) {
	if status == http.StatusSwitchingProtocols {
		t.x.giveUp(rfc9111.Upgrade)
		t.state = direct
		t.passHeader(status)
		return
	}
	t.adoptHeader()
	t.ResponseWriter.WriteHeader(status)
}

// adoptHeader makes the client's header what the handlers made of it.
func (t *tee) adoptHeader() {
	if !t.x.discards {
		return // it is the same map
	}
	dst := t.ResponseWriter.Header()
	clear(dst)
	for name, values := range t.header {
		dst[name] = values
	}
}

// passHeader sends the response's header to the client as it is.
func (t *tee) passHeader(status int) {
	t.adoptHeader()
	t.x.out.fwdStatus = status
	t.x.out.write(t.ResponseWriter.Header())
	t.ResponseWriter.WriteHeader(status)
}

// Write takes some of the body.
func (t *tee) Write(p []byte) (int, error) {
	if t.state == undecided {
		t.WriteHeader(http.StatusOK)
	}
	switch t.state {
	case direct:
		return t.ResponseWriter.Write(p)
	case silent:
		if t.x.retry {
			return 0, errWholeNotWanted
		}
		return len(p), nil
	}
	n := 0
	var err error
	for err == nil && n < len(p) {
		var k int
		k, err = t.x.flight.fill.Write(p[n:min(n+store.ChunkSize, len(p))])
		n += k
		t.x.h.node.settle(t.x.q, t.x.flight, false)
	}
	if err == nil {
		// A whole body in one piece needs no goroutines: finish serves it.
		if t.x.flight.fill.Size() != t.length {
			t.x.publish(t)
			t.startPump()
		}
		return n, nil
	}
	// It doesn't fit, or took too long: from here on it is its client's alone.
	if err := t.overflow(reasonOf(err)); err != nil {
		return n, err
	}
	m, err := t.Write(p[n:])
	return n + m, err
}

// ReadFrom lets the client's writer splice what the cache has no part in.
func (t *tee) ReadFrom(r io.Reader) (int64, error) {
	if t.state == direct {
		return t.ResponseWriterWrapper.ReadFrom(r)
	}
	return io.Copy(writerOnly{t}, r)
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }

// FlushError flushes the client's writer, or has the pump do it.
func (t *tee) FlushError() error {
	switch t.state {
	case undecided:
		t.WriteHeader(http.StatusOK)
		return t.FlushError()
	case filling:
		t.x.publish(t)
		t.startPump() // it flushes whenever it has nothing to write
		return nil
	case silent:
		return nil
	}
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// overflow ends the flight and lets the client's writer catch up with what has
// been written so far.
func (t *tee) overflow(why rfc9111.Reason) error {
	t.x.giveUp(why)
	if t.answered {
		t.state = silent
		return nil
	}
	t.startPump()
	err := <-t.pumped
	t.pumped <- err
	t.state = direct
	if errors.As(err, new(ended)) {
		return nil // the pump has written all there was
	}
	return err
}

// startPump begins to send the fill to the client.
func (t *tee) startPump() {
	if t.started || t.answered {
		return
	}
	t.started = true
	t.pumped = make(chan error, 1)
	go func() {
		t.pumped <- copyFill(t.x.r.Context(), t.ResponseWriter, t.body, t.given)
	}()
	if t.length < 0 || t.length > inlineTransfer {
		runtime.Gosched() // the client is waiting for its first byte, nobody for the next piece
	}
}

// sendHeader sends the header to a client that has got nothing yet: it need not
// wait for the owner.
func (t *tee) sendHeader() {
	if t.length > 0 && !t.started && !t.answered {
		_ = http.NewResponseController(t.ResponseWriter).Flush()
	}
}

// finishClient returns when the client has all of a fill, or is gone. What a
// client does is not the fetch's business, so it has no result.
func (t *tee) finishClient() {
	var err error
	switch {
	case t.body == nil:
		return
	case t.started:
		err = <-t.pumped
	case !t.answered:
		err = copyFill(t.x.r.Context(), t.ResponseWriter, t.body, t.given)
	}
	if errors.Is(err, fill.ErrGone) {
		t.x.h.resume(t.ResponseWriter, t.x.r, t.x.next, t.x.q, t.entry, t.given)
	}
	t.body.Close()
	if hasTrailers(t.header) {
		// They are sent only after a chunked body, and net/http chunks a
		// short one only if it was flushed.
		_ = http.NewResponseController(t.ResponseWriter).Flush()
	}
}

// copyFill copies a fill to a client as it comes in, and notes in g what that has
// got. The error is nil when the body is complete; brokeOff tells whether it is
// the fill's.
func copyFill(ctx context.Context, w http.ResponseWriter, body *follower, g *given) error {
	flush := func() { _ = http.NewResponseController(w).Flush() }
	if part, ok := w.(*partWriter); ok { // what comes before need not be brought
		body.Skip(part.start)
		part.at = part.start
		g.begin(part.start)
	}
	for {
		p, err := body.Next(ctx, flush)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := w.Write(p)
		g.add(p[:n])
		if err != nil || served(w) {
			return err
		}
	}
}

// A fetch is one run of the handlers behind the cache by the leader of a
// flight.
type fetch struct {
	h      *Handler
	r      *http.Request // the client's, as it came
	next   caddyhttp.Handler
	q      *question
	flight *flight
	grant  grant
	out    *outcome

	validating bool // the upstream is asked whether grant.stale still holds
	discards   bool // the response may turn out not to be for the client, and must leave no trace
	sent       time.Time
	own        atomic.Bool // the response is its client's alone
	cancel     context.CancelCauseFunc
	stops      []func() bool
	published  chan struct{} // closed when the owner has answered; nil: no stream to it has begun
	given      bool          // flight and lease are given up
	renewed    bool          // a 304 made grant.stale fresh
	failed     bool          // an error that what is stored may stand in for
	retry      bool          // the handlers must run again, for this client alone
	lesson     []string      // No-Vary-Search, if it tells what nobody knew
	judged     refusal       // what is known of the response, for explain
}

// start returns what the handlers behind the cache are to be called with. If
// others may follow, the request outlives its client until the response turns out
// to be the client's alone.
func (x *fetch) start(w http.ResponseWriter) (*tee, *http.Request) {
	ctx := x.r.Context()
	if !x.joinable() && !x.out.background {
		x.own.Store(true)
		x.cancel = func(error) {} // it goes with the client
	} else {
		ctx, x.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		x.stops = append(x.stops, context.AfterFunc(x.r.Context(), func() {
			if x.own.Load() {
				x.cancel(context.Canceled)
			}
		}))
		x.limit()
	}
	var asked http.Header // nil: the client's
	switch {
	case x.grant.stale != nil && x.r.Method == http.MethodGet && !x.q.credentials:
		asked = rfc9111.Conditional(x.r.Header, x.grant.stale.Header())
		x.validating, x.discards = true, true
	case !x.q.alone && hasConditions(x.r.Header):
		asked = rfc9111.Conditional(x.r.Header, nil) // a fill needs the whole
		x.discards = len(x.r.Header["Range"]) > 0
	}
	header := w.Header()
	t := &tee{
		ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		x:                     x,
		header:                header,
		before:                linesOf(header),
	}
	if x.discards {
		t.header = header.Clone()
		if t.header == nil {
			t.header = make(http.Header)
		}
	}
	upstream := x.q.original.forUpstream(ctx, asked)
	x.sent = time.Now()
	return t, upstream
}

// joinable reports whether others may follow.
func (x *fetch) joinable() bool { return x.flight.table != nil }

// limit bounds how long the fill may take.
func (x *fetch) limit() {
	x.stops = append(x.stops, time.AfterFunc(x.q.deadline, x.expire).Stop)
}

func (x *fetch) stop() {
	for _, stop := range x.stops {
		stop()
	}
	x.cancel(nil)
}

// finish ends the flight after the handlers have returned, waits for the
// client, and tells how it went.
func (x *fetch) finish(t *tee, err error) fillResult {
	switch {
	case t.state == undecided && err != nil && x.validating && x.mayServeStale():
		x.failed = true
		x.giveUp(rfc9111.Aborted)
		return fillFailed
	case t.state == undecided:
		x.giveUp(rfc9111.Aborted)
		t.adoptHeader()
		x.out.writeUnanswered(t.ResponseWriter.Header(), err)
		return fillFailed
	case t.state == filling && err != nil:
		x.giveUp(rfc9111.Aborted)
	case t.state == filling:
		x.complete(t)
	case x.failed:
		x.giveUp(rfc9111.Aborted)
	}
	t.finishClient()
	switch {
	case x.renewed:
		return fillRevalidated
	case x.out.stored:
		return fillStored
	case x.failed || err != nil:
		return fillFailed
	}
	return fillNotStored
}

func hasConditions(h http.Header) bool {
	for _, name := range []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range"} {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}

// giveUp ends the flight, gives the lease back, and from here on ties the
// fetch to its client.
func (x *fetch) giveUp(why rfc9111.Reason) {
	if x.given {
		return
	}
	x.given = true
	x.out.stored = false
	x.h.counters.notStored[why].Add(1)
	x.h.node.refusals.note(x.q.key, why, x.judged)
	x.h.node.giveUp(x.q, x.flight, why)
	x.h.node.release(x.q, x.grant, why)
	x.own.Store(true)
	switch {
	case x.out.background:
		x.cancel(errNotShared)
	case x.joinable(): // others always were
		if err := x.r.Context().Err(); err != nil {
			x.cancel(err)
		}
	}
}

// decide looks at the header of a final response.
func (x *fetch) decide(t *tee, status int) teeState {
	if x.validating {
		if status == http.StatusNotModified {
			return x.decideNotModified(t)
		}
		if standsForError(status) && x.mayServeStale() {
			x.failed = true
			return silent
		}
	}
	if x.r.Method == http.MethodHead && status == http.StatusOK && x.grant.stale != nil && !x.q.credentials {
		x.compareHead(ownFields(t.header, t.before))
	}
	received := time.Now()
	if date := t.header["Date"]; len(date) == 0 || date[0] == "" {
		t.header.Set("Date", received.UTC().Format(http.TimeFormat)) // RFC 9110 §6.6.1
	}
	entry, why := x.judge(t, status, received)
	x.judged = newRefusal(why, status, x.r.Header, t.header)
	x.h.hideTags(t.header)
	if why != rfc9111.None {
		x.out.detail = why.String()
		x.giveUp(why)
		return x.alone()
	}
	t.entry = entry
	return x.open(t)
}

// alone passes the response to its one client. A client that wants a part has
// to ask again: for a fill the whole was asked for.
func (x *fetch) alone() teeState {
	if x.q.alone || len(x.r.Header["Range"]) == 0 {
		return direct
	}
	x.retry = true
	x.cancel(errWholeNotWanted)
	return silent
}

var errWholeNotWanted = errors.New("the client wants a part of what cannot be stored")

// judge decides whether a response is stored, and as what.
func (x *fetch) judge(t *tee, status int, received time.Time) (*store.Entry, rfc9111.Reason) {
	own := ownFields(t.header, t.before)
	fresh, length, why := x.h.judge(rfc9111.Exchange{
		Method: x.r.Method, Request: x.r.Header,
		Status: status, Response: own,
		Sent: x.sent, Received: received,
	}, x.q.maxBody)
	if why != rfc9111.None {
		return nil, why
	}
	if why := x.learn(own); why != rfc9111.None {
		return nil, why
	}
	t.length = length
	return x.h.newEntry(x.r, status, own, fresh, x.sent)
}

// judge decides whether a response may be stored whose body is no larger than the
// limit. Length is what it states, or -1.
func (h *Handler) judge(x rfc9111.Exchange, limit int64) (fresh rfc9111.Freshness, length int64, why rfc9111.Reason) {
	switch {
	case len(x.Response["Trailer"]) > 0:
		return fresh, -1, rfc9111.Trailers
	case x.Status == http.StatusNotModified:
		return fresh, -1, rfc9111.StrayNotModified // the client's own precondition: says nothing about the URL
	}
	fresh, why = rfc9111.Storable(x, h.policy)
	stated := x.Response.Get("Content-Length")
	if why != rfc9111.None || stated == "" {
		return fresh, -1, why
	}
	length, err := strconv.ParseInt(stated, 10, 64)
	if err != nil || length < 0 || length > limit {
		return fresh, -1, rfc9111.TooLarge
	}
	return fresh, length, rfc9111.None
}

// newEntry makes an entry of a storable response to a request that left at the
// given time.
func (h *Handler) newEntry(r *http.Request, status int, own http.Header, fresh rfc9111.Freshness, sent time.Time) (*store.Entry, rfc9111.Reason) {
	tags, few := rfc9111.Tags(own, h.Tags)
	groups, fewGroups := rfc9111.CacheGroups(own)
	if !few || !fewGroups {
		return nil, rfc9111.HeaderTooBig
	}
	h.hideTags(own)
	e, why := store.NewEntry(status, rfc9111.StoredHeader(own, h.policy), r.Header, fresh, sent)
	if why == rfc9111.None {
		e.SetLabels(urlOf(r), tags, groups)
	}
	return e, why
}

// hideTags removes the fields that are for this cache only.
func (h *Handler) hideTags(header http.Header) {
	if h.ExposeTags {
		return
	}
	for _, name := range h.Tags {
		delete(header, name)
	}
}

// ownFields returns the fields that the handlers behind the cache have set.
// Those that were there before belong to this client's response, and may hold
// what is nobody else's. The result is the header itself if nothing is left of them.
func ownFields(header http.Header, before []lines) http.Header {
	left := func(was lines) bool {
		values, there := header[was.name]
		return there && slices.Equal(was.values, values)
	}
	if !slices.ContainsFunc(before, left) {
		return header
	}
	own := maps.Clone(header)
	for _, was := range before {
		if left(was) {
			delete(own, was.name)
		}
	}
	return own
}

// lines are those of one field.
type lines struct {
	name   string
	values []string
}

// linesOf returns what a header has now. There is little in it before a response
// is made, so a map would cost more.
func linesOf(header http.Header) []lines {
	all := make([]lines, 0, len(header))
	for name, values := range header {
		all = append(all, lines{name, values})
	}
	return all
}

// open opens the fill to readers, and its client is the first of them.
func (x *fetch) open(t *tee) teeState {
	n := x.h.node
	f := x.flight
	if t.length >= 0 {
		if err := f.fill.Expect(t.length); err != nil {
			x.out.detail = reasonOf(err).String()
			x.giveUp(reasonOf(err))
			return x.alone()
		}
	}
	if x.stops == nil { // from here on it holds memory
		x.limit()
	}
	t.body, t.given = f.fill.NewReader(), newGiven(t.entry)
	n.begin(x.q, f, t.entry)
	x.out.stored = true
	t.adoptHeader()
	x.out.fwdStatus = t.status
	w := t.ResponseWriter
	x.out.write(w.Header())
	if x.h.answerNotModified(w, x.r, t.status, w.Header()) {
		t.answered = true
		return filling
	}
	w, status := partOf(w, x.r, t.status, w.Header())
	t.ResponseWriter = w
	w.WriteHeader(status)
	return filling
}

// publish begins to stream the response to the owner, if another node is that. A
// small one that comes in one piece needs no stream: complete sends it.
func (x *fetch) publish(t *tee) {
	if x.grant.owner == nil || x.published != nil || x.given {
		return
	}
	x.published = make(chan struct{})
	body := x.flight.fill.NewReader()
	go func() {
		defer close(x.published)
		x.h.node.publish(x.q, x.flight, x.grant, t.entry, body)
	}()
}

func (x *fetch) decideNotModified(t *tee) teeState {
	stale, own := x.grant.stale, ownFields(t.header, t.before)
	received := time.Now()
	fields, fresh, why := rfc9111.Revalidated(rfc9111.Exchange{
		Method: x.r.Method, Request: x.r.Header,
		Status: http.StatusNotModified, Response: own,
		Sent: x.sent, Received: received,
	}, stale.Status, stale.Header(), x.h.policy)
	if why == rfc9111.None && x.sameSearch(fields) {
		renewed, tooBig := stale.WithFreshness(fields, fresh, x.sent)
		if tooBig == rfc9111.None && x.retag(renewed, own) {
			x.renewed, x.given = true, true
			x.q.validated = renewed.Generation
			x.h.node.refresh(x.q, x.grant, renewed)
			x.flight.end(rfc9111.None)
			return silent
		}
	}
	x.h.node.store.Drop(x.q.key, stale)
	x.giveUp(rfc9111.StrayNotModified)
	return silent
}

// retag gives an entry the tags and groups that came with its validation, if
// any did. It reports false if there are too many.
func (x *fetch) retag(e *store.Entry, own http.Header) bool {
	tags, few := rfc9111.Tags(own, x.h.Tags)
	groups, fewGroups := rfc9111.CacheGroups(own)
	if len(tags) == 0 {
		tags = e.Tags()
	}
	if len(groups) == 0 {
		groups = e.Groups()
	}
	e.SetLabels(e.URL(), tags, groups)
	return few && fewGroups
}

// compareHead lets the response to a HEAD update the stored one to a GET, or
// drop it everywhere (RFC 9111 §4.3.5).
func (x *fetch) compareHead(own http.Header) {
	stale := x.grant.stale
	switch rfc9111.CompareHead(stale.Header(), own) {
	case rfc9111.Other:
		x.h.node.invalidate(store.NewPurgeID(), x.q.space, []store.Selector{selectorOf(x.q.key)}, x.q.patience)
	case rfc9111.Same:
		fields, fresh, why := rfc9111.Revalidated(rfc9111.Exchange{
			Method: x.r.Method, Request: x.r.Header,
			Status: http.StatusOK, Response: own,
			Sent: x.sent, Received: time.Now(),
		}, stale.Status, stale.Header(), x.h.policy)
		if why != rfc9111.None || !x.sameSearch(fields) {
			return
		}
		if renewed, tooBig := stale.WithFreshness(fields, fresh, x.sent); tooBig == rfc9111.None && x.retag(renewed, own) {
			x.h.node.refresh(x.q, x.grant, renewed)
		}
	}
}

// standsForError are the answers that RFC 5861 §4 counts as errors.
func standsForError(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func (x *fetch) mayServeStale() bool {
	stale := *x.grant.stale
	stale.Checked, stale.Compared = x.sent, false // it was there then
	purged, _ := x.h.node.store.Purged(x.q.space, x.q.key, &stale)
	return !purged && rfc9111.ServeStaleOnError(x.q.directives, x.grant.stale.Fresh, time.Now())
}

// complete stores the response if all of it has come.
func (x *fetch) complete(t *tee) {
	size := x.flight.fill.Size()
	if x.lesson != nil {
		body := x.flight.fill.NewReader()
		defer func() {
			if x.out.stored {
				x.teach(t.entry, body)
			}
			body.Close()
		}()
	}
	switch {
	case hasTrailers(t.header):
		x.giveUp(rfc9111.Trailers)
	case t.length >= 0 && size != t.length:
		x.giveUp(rfc9111.Truncated)
	case x.grant.owner == nil:
		x.given = true
		x.h.node.settle(x.q, x.flight, true)
		x.h.node.commit(x.q, x.flight, t.entry)
	default:
		whole := x.published == nil && size <= inlineTransfer
		if !whole {
			x.publish(t)
		}
		x.given = true
		x.h.node.settle(x.q, x.flight, true)
		final := *t.entry
		final.Size, final.Generation, final.Digest = size, x.flight.generation, x.flight.fill.Digest()
		x.flight.land(&final, final.Digest)
		t.sendHeader()
		if whole {
			x.h.node.publishWhole(x.q, x.flight, x.grant, t.entry)
		} else {
			x.awaitOwner()
		}
	}
}

// awaitOwner holds back the end of the response until the owner has it, so that
// who asks any node after that gets a hit. A silent owner is not waited for.
func (x *fetch) awaitOwner() {
	patience := time.NewTimer(x.q.patience)
	defer patience.Stop()
	select {
	case <-x.published:
	case <-patience.C:
	}
}

// hasTrailers reports whether fields came after the body (http.TrailerPrefix).
func hasTrailers(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// expire ends a fill that takes too long. Its client is still served.
func (x *fetch) expire() {
	x.flight.end(rfc9111.FillTimeout)
	x.own.Store(true)
	if err := x.r.Context().Err(); err != nil {
		x.cancel(err)
	}
}

// given is what a client has got of a body: the bytes from start to at.
type given struct {
	start, at int64
	digest    *xxhash.Digest // of them; nil: a strong tag tells what they belong to
}

func newGiven(e *store.Entry) *given {
	if strongTag(e) != "" {
		return new(given)
	}
	return &given{digest: xxhash.New()}
}

func strongTag(e *store.Entry) string {
	return rfc9111.StrongTag(http.Header{"Etag": e.Lines("Etag")})
}

// begin says where the client's part begins.
func (g *given) begin(at int64) { g.start, g.at = at, at }

func (g *given) add(p []byte) {
	g.at += int64(len(p))
	if g.digest != nil {
		_, _ = g.digest.Write(p) // never fails
	}
}

// A resumer serves the rest of a response whose first bytes a client has got
// from elsewhere. The upstream answers with the rest or with the whole, of which
// it drops what the client has. That this is the same response is known by a
// strong tag, or else by comparing what the client has.
type resumer struct {
	http.ResponseWriter
	header http.Header
	status int
	tag    string // a strong one, or ""
	given  *given
	at     int64 // in the body that comes in
	digest xxhash.Digest
	wrote  bool // the header
}

// Header returns a header that nobody will see: the client has got one.
func (s *resumer) Header() http.Header { return s.header }

// WriteHeader breaks off if this is not the response that the client has the
// beginning of.
func (s *resumer) WriteHeader(status int) {
	if status < 200 || s.wrote {
		return
	}
	s.wrote = true
	s.digest.Reset()
	if s.tag != "" && s.tag != rfc9111.StrongTag(s.header) {
		panic(http.ErrAbortHandler)
	}
	if status == http.StatusPartialContent && s.tag != "" {
		if start, length, size, ok := rfc9111.ContentRange(s.header); ok && start == s.given.at && start+length == size {
			s.at = s.given.at
			return
		}
	}
	if status != s.status {
		panic(http.ErrAbortHandler)
	}
}

func (s *resumer) Write(p []byte) (int, error) {
	if !s.wrote {
		s.WriteHeader(http.StatusOK)
	}
	old := max(min(int64(len(p)), s.given.at-s.at), 0)
	s.compare(p[:old])
	if p = p[old:]; len(p) == 0 {
		return int(old), nil
	}
	n, err := s.ResponseWriter.Write(p)
	s.at += int64(n)
	return int(old) + n, err
}

// compare takes bytes that come before what the client is to get, and breaks off
// when those that it has turn out to be others.
func (s *resumer) compare(p []byte) {
	if len(p) == 0 {
		return
	}
	before := min(max(s.given.start-s.at, 0), int64(len(p)))
	s.at += int64(len(p))
	if s.given.digest == nil {
		return
	}
	_, _ = s.digest.Write(p[before:]) // never fails
	if s.at == s.given.at && s.digest.Sum64() != s.given.digest.Sum64() {
		panic(http.ErrAbortHandler)
	}
}

// passTrailers gives the client the fields that came after the body.
func (s *resumer) passTrailers() {
	for name, values := range s.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			s.ResponseWriter.Header()[name] = values
		}
	}
}

// FlushError flushes what the client may have.
func (s *resumer) FlushError() error {
	if s.at < s.given.at {
		return nil
	}
	return http.NewResponseController(s.ResponseWriter).Flush()
}

// A marker adds the outcome to a response of which nothing is kept for those who ask
// for the same.
type marker struct {
	caddyhttp.ResponseWriterWrapper
	out   *outcome
	wrote bool
	look  func(status int, header http.Header) // called before the header is sent, if not nil
	keep  *keeper                              // gets the body too; nil: nobody
}

// run has handlers answer a request.
func (m *marker) run(next caddyhttp.Handler, r *http.Request) error {
	err := next.ServeHTTP(m, r)
	if !m.wrote {
		m.out.writeUnanswered(m.ResponseWriter.Header(), err)
	}
	return err
}

// WriteHeader marks the final response, and leaves interim ones as they are.
func (m *marker) WriteHeader(status int) {
	if !m.wrote && (status >= 200 || status == http.StatusSwitchingProtocols) {
		m.wrote = true
		header := m.ResponseWriter.Header()
		if m.look != nil {
			m.look(status, header)
		}
		m.out.fwdStatus = status
		m.out.h.hideTags(header)
		m.out.write(header)
	}
	m.ResponseWriter.WriteHeader(status)
}

func (m *marker) Write(p []byte) (int, error) {
	if !m.wrote {
		m.WriteHeader(http.StatusOK)
	}
	if m.keep != nil {
		_, _ = m.keep.Write(p) // never fails
	}
	return m.ResponseWriter.Write(p)
}

// ReadFrom lets the client's writer splice.
func (m *marker) ReadFrom(r io.Reader) (int64, error) {
	if !m.wrote {
		m.WriteHeader(http.StatusOK)
	}
	if m.keep != nil {
		r = io.TeeReader(r, m.keep)
	}
	return m.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError flushes the client's writer.
func (m *marker) FlushError() error {
	if !m.wrote {
		m.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(m.ResponseWriter).Flush()
}

func contentLength(e *store.Entry) (int64, bool) {
	n, err := strconv.ParseInt(e.Get("Content-Length"), 10, 64)
	return n, err == nil && n >= 0
}
