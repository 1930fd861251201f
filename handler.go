package caddygroupcache

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// maxLooks bounds how often a request looks again because what it waited for
// came to nothing, or was not for it. After that it goes to the upstream.
const maxLooks = 3

// ServeHTTP serves a request from the cache, or has the next handlers make the
// response and stores it for others.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.Purge != nil && slices.Contains(h.Purge.Methods, r.Method) {
		return h.servePurge(w, r)
	}
	var q question
	if why := h.question(&q, r); why != rfc9111.None {
		return h.bypass(w, r, next, why)
	}
	h.node.busy.note(h, r, q.key)
	now := time.Now()
	if !h.node.upToDate(r.Context(), now, q.patience) {
		return h.bypass(w, r, next, rfc9111.CatchingUp)
	}
	var found finding
	h.find(r.Context(), &q, now, &found)
	if q.served(&found) && h.serveWhole(w, r, &q, found.entry, &found.body, q.statusOf(found.entry, found.use), h.node.whose(q.key), now) {
		return nil
	}
	if found.entry == nil && q.passes(&found) {
		return h.passOn(w, r, next, &q, &found)
	}
	return h.serve(w, r, next, q.kept(), found)
}

// serve serves what needs more than the first look has found.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, found finding) error {
	for looks := 1; ; looks++ {
		now := time.Now()
		if looks > 1 {
			if q.original != nil {
				q.original.restore()
			}
			q.address, _ = h.addressOf(r, fieldsOf(r.Header), requestURI(r)) // what counts of it may be known by now
			if !h.node.upToDate(r.Context(), now, q.patience) {
				return h.bypass(w, r, next, rfc9111.CatchingUp)
			}
			h.find(r.Context(), q, now, &found)
		}
		if q.oversized(found.entry) {
			q.upstream = rfc9111.TooLarge
		}
		serves := q.served(&found)
		if !serves && q.servedStale(&found) {
			h.refresh(r, next, q)
			serves = true
		}
		if serves {
			body := found.body
			found.body = nil // or a slow client would hold it, uncounted
			if h.serveHit(w, r, next, q, found.entry, body, q.statusOf(found.entry, found.use), h.node.whose(q.key), now) {
				return nil
			}
			continue
		}
		if done, err := h.obtain(w, r, next, q, &found, looks > maxLooks); done {
			return err
		}
	}
}

// obtain answers with what is not in this node's memory: with what another
// request, or the owner, has or is fetching, or with the next handlers' response.
// It reports false when the request has to look again.
func (h *Handler) obtain(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, found *finding, tired bool) (done bool, err error) {
	if q.passes(found) {
		return true, h.passOn(w, r, next, q, found)
	}
	if found.why != rfc9111.None || tired || q.upstream != rfc9111.None {
		q.alone = true
	}
	f, body, lead := h.node.join(q)
	// Look again after winning: between find and join the flight of
	// somebody else may have landed, stored its response and left.
	if lead && !q.alone {
		var again finding
		if h.node.find(q, time.Now(), &again); q.served(&again) {
			body.Close()
			f.end(rfc9111.None)
			return false, nil
		}
	}
	g := grant{fetch: true}
	switch {
	case !lead:
		g.fetch = false
	case q.upstream != rfc9111.None:
		g.why = q.upstream
	case !tired:
		g = h.node.ask(q, f, found)
	}
	if !g.fetch {
		return h.follow(w, r, next, q, f, body, found)
	}
	body.Close()
	out := h.outcomeOf(r, found)
	if q.directives.OnlyIfCached {
		f.end(rfc9111.OnlyIfCached)
		h.node.release(q, g, rfc9111.OnlyIfCached)
		return true, h.unavailable(w, out)
	}
	if q.far && !q.alone && g.stale == nil && g.why != rfc9111.HitForMiss && h.fetchFirst(w, r, next, q, f, g, out) {
		return true, nil
	}
	again, err := h.fetch(w, r, next, q, f, g, out)
	return !again, err
}

// question works out what a request asks of the cache. The reason is not None
// when that is nothing.
func (h *Handler) question(q *question, r *http.Request) rfc9111.Reason {
	head := r.Method == http.MethodHead
	if r.Method != http.MethodGet && !head {
		return rfc9111.Method
	}
	fields := fieldsOf(r.Header)
	switch {
	case fields.has(connectionFields) && wantsUpgrade(r.Header):
		return rfc9111.Upgrade
	case hasBody(r):
		return rfc9111.RequestBody
	case fields.has(connectionFields) && rfc9111.NamesFields(r.Header["Connection"]):
		return rfc9111.Connection
	}
	q.space, q.header, q.traced = h.space, r.Header, r.Context()
	q.undirected = h.RequestDirectives == ignoreDirectives
	q.credentials = fields.has(authorizationField) && len(r.Header["Authorization"]) > 0 && !h.policy.IgnoreAuthorization
	q.conditional = fields.has(conditionFields)
	q.part = fields.has(rangeField) && len(r.Header["Range"]) > 0
	q.maxBody = min(h.MaxBodySize, h.node.largestBody())
	q.patience, q.deadline = time.Duration(h.PeerTimeout), time.Duration(h.FillTimeout)
	if fields.has(directiveFields) && !q.undirected {
		q.directives = rfc9111.ParseRequest(r.Header)
		if q.directives.NoStore {
			return rfc9111.RequestNoStore
		}
	}
	q.far = q.part && !head && rfc9111.FarRange(r.Header["Range"], store.ChunkSize)
	q.alone = head || q.credentials || q.directives.NoCache || q.directives.OnlyIfCached
	var ok bool
	if q.address, ok = h.addressOf(r, fields, requestURI(r)); !ok {
		return rfc9111.BadRequestTarget
	}
	return rfc9111.None
}

func wantsUpgrade(header http.Header) bool {
	return len(header["Upgrade"]) > 0 || httpguts.HeaderValuesContainsToken(header["Connection"], "upgrade")
}

// hasBody reports whether a request has a body. Over HTTP/3 that shows only when
// its stream ends, unless it has a Content-Length. For a GET the end comes with
// the header, and nobody but its own client waits if it doesn't.
func hasBody(r *http.Request) bool {
	if r.ProtoMajor != 3 || r.ContentLength >= 0 {
		return r.ContentLength != 0 || len(r.TransferEncoding) > 0
	}
	var first [1]byte
	n, err := io.ReadFull(r.Body, first[:])
	if err == io.EOF {
		r.Body, r.ContentLength = http.NoBody, 0
		return false
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first[:n]), r.Body), r.Body}
	return true
}

// serveWhole answers with a stored response that is in one piece. It reports false when
// it isn't, or a part of it is asked for. Most requests end here, so nothing of the
// question outlives it. The caller's body is taken from it, because a slow client must
// hold no other than the one that is counted.
func (h *Handler) serveWhole(w http.ResponseWriter, r *http.Request, q *question, e *store.Entry, body *[]byte, status cacheStatus, detail any, now time.Time) bool {
	if e.Large() || q.part && wantsPart(r, e.Status) {
		return false
	}
	one, ok := h.node.holdBody(q.key, e, *body)
	if !ok {
		return false
	}
	defer h.node.holds.release(one)
	held := one.of(*body)
	*body = nil
	h.hitHeader(w, r, e, status, detail, now)
	if q.conditional && h.answerNotModified(w, r, e.Status, w.Header()) {
		return true
	}
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(held) // a client that is gone needs no error
	}
	return true
}

// serveHit answers with a stored response, of whose body the first chunk is at
// hand. It reports false when another part is lost that can't be got back: then the
// request has to look again.
func (h *Handler) serveHit(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, e *store.Entry, first []byte, status cacheStatus, detail any, now time.Time) bool {
	if h.serveWhole(w, r, q, e, &first, status, detail, now) {
		return true
	}
	return h.serveStored(w, r, next, q, e, first, func(w http.ResponseWriter) bool {
		if q.mended {
			out := &outcome{h: h, repl: replacer(r), fwd: "partial", fwdStatus: http.StatusPartialContent, stored: true, status: statusMiss}
			return h.newHeader(w, r, e, out)
		}
		h.hitHeader(w, r, e, status, detail, now)
		return h.answerNotModified(w, r, e.Status, w.Header())
	})
}

// serveStored answers with a stored response. Header sets its header, and
// reports whether that has answered the request.
func (h *Handler) serveStored(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, e *store.Entry, first []byte, header func(http.ResponseWriter) bool) bool {
	if e.Large() { // of which the upstream may be asked for a chunk
		r = q.keep(r).request
	}
	body := h.storedBody(r, next, q, e, first)
	defer body.close()
	if e.Large() && r.Method != http.MethodHead {
		if _, err := body.from(body.needs(r, e)); err != nil {
			h.lost(q, e, err)
			return false
		}
	}
	if header(w) {
		return true
	}
	var end int64
	var err error
	if wantsPart(r, e.Status) {
		end, err = servePart(w, r, body)
	} else {
		w.WriteHeader(e.Status)
		if r.Method != http.MethodHead {
			end = body.size
			err = body.write(w, 0, end)
		}
	}
	if errors.As(err, new(missingChunk)) && r.Context().Err() == nil {
		at := body.given.at
		h.resume(&partWriter{ResponseWriter: w, start: at, end: end, at: at}, r, next, q, e, body.given)
	}
	return true
}

// lost makes the most of an entry whose body can't be served: it is the
// upstream's turn.
func (h *Handler) lost(q *question, e *store.Entry, err error) {
	q.upstream = rfc9111.Incomplete
	if errors.Is(err, errChunkGone) {
		h.node.invalidate(store.NewPurgeID(), q.space, []store.Selector{selectorOf(q.key)}, q.patience)
	}
}

// hitHeader sets the header of a stored response.
func (h *Handler) hitHeader(w http.ResponseWriter, r *http.Request, e *store.Entry, status cacheStatus, detail any, now time.Time) {
	header := w.Header()
	lines := e.WriteHeader(header, 2)
	lines[0], lines[1] = h.hitFields(e, status, detail.(string), now)
	header["Age"] = lines[0:1:1]
	before := header["Cache-Status"]
	switch {
	case h.cacheName == "":
	case len(before) > 0:
		header["Cache-Status"] = append(before, lines[1])
	default:
		header["Cache-Status"] = lines[1:2:2]
	}
	// A handler of ours that served before this one, whose error this one is a route for,
	// has left a Cache-Status.
	setPlaceholders(replacer(r), statusNames[status], detail, len(before) > 0 || h.node.unnamed.Load())
	h.counters.requests[status].Add(1)
	h.logDecision(r, status, "", detail.(string), false)
}

// answerNotModified answers a conditional request with 304 if the client has
// the representation (RFC 9111 §4.3.2).
func (h *Handler) answerNotModified(w http.ResponseWriter, r *http.Request, status int, header http.Header) bool {
	if len(r.Header["If-None-Match"]) == 0 && len(r.Header["If-Modified-Since"]) == 0 {
		return false
	}
	if !rfc9111.NotModified(r.Header, status, header) {
		return false
	}
	header.Del("Content-Length")
	w.WriteHeader(http.StatusNotModified)
	return true
}

// follow serves a request from a flight that somebody else leads, or that is
// fed by another node. It reports false when the request has to look again.
func (h *Handler) follow(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, f *flight, body *follower, found *finding) (bool, error) {
	defer body.Close()
	e, err := f.fill.Header(r.Context())
	if err != nil {
		if r.Context().Err() != nil {
			return true, caddyhttp.Error(statusClientClosed, err)
		}
		switch why := reasonOf(err); why {
		case rfc9111.None, rfc9111.LeaderLost, rfc9111.Memory, rfc9111.OnlyIfCached, rfc9111.NoVarySearch, rfc9111.Superseded:
			return false, nil // look again
		default:
			q.alone = true
			return false, nil
		}
	}
	if h.node.purgedSince(q, f, e) {
		return false, nil // it is of before the purge, and nobody else's either
	}
	if !e.Matches(r.Header) || q.credentials && !e.Fresh.SharedAuth {
		return false, nil // it is somebody else's
	}
	status := statusCollapsed
	if e.Generation != 0 { // it was stored before: a remote hit
		use, _ := rfc9111.Decide(&q.directives, q.credentials, &e.Fresh, time.Now())
		if status = q.statusOf(e, use); use == rfc9111.StaleWhileRevalidate {
			h.refresh(r, next, q)
		}
		if e.Large() || e.Size <= partSize && f.isOver() {
			return h.serveLanded(w, r, next, q, f, status), nil
		}
	}
	if h.followedHeader(w, r, e, status, found) {
		return true, nil
	}
	w, code := partOf(w, r, e.Status, w.Header())
	w.WriteHeader(code)
	if r.Method == http.MethodHead {
		return true, nil
	}
	g := newGiven(e)
	if brokeOff(copyFill(r.Context(), w, body, g)) {
		h.resume(w, r, next, q, e, g)
	}
	return true, nil // complete, or the client is gone
}

// serveLanded serves a stored response that is being brought from the owner, as
// soon as all of it is here, of a large one the first chunk.
func (h *Handler) serveLanded(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, f *flight, status cacheStatus) bool {
	select {
	case <-f.over:
	case <-r.Context().Done():
		return true
	}
	if f.landed == nil {
		return false
	}
	if q.oversized(f.landed) {
		q.upstream = rfc9111.TooLarge
		return false
	}
	return h.serveHit(w, r, next, q, f.landed, f.fill.Bytes(), status, detailPeer, time.Now())
}

// brokeOff reports whether a fill can't give its reader the rest of the body.
func brokeOff(err error) bool {
	return errors.As(err, new(ended)) || errors.Is(err, fill.ErrGone)
}

// followedHeader sets the header of a response that is followed, and reports
// whether a 304 has answered the request.
func (h *Handler) followedHeader(w http.ResponseWriter, r *http.Request, e *store.Entry, status cacheStatus, found *finding) bool {
	if status != statusCollapsed {
		h.hitHeader(w, r, e, status, detailPeer, time.Now())
		return h.answerNotModified(w, r, e.Status, w.Header())
	}
	out := h.outcomeOf(r, found)
	out.status, out.collapsed = statusCollapsed, true
	return h.newHeader(w, r, e, out)
}

// newHeader sets the header of a response that has just come from the upstream,
// and reports whether a 304 has answered the request.
func (h *Handler) newHeader(w http.ResponseWriter, r *http.Request, e *store.Entry, out *outcome) bool {
	header := w.Header()
	e.WriteHeader(header, 0)
	if age := e.Fresh.Age(time.Now()); age >= time.Second || len(header["Age"]) > 0 {
		header.Set("Age", strconv.FormatInt(int64(age/time.Second), 10))
	}
	out.write(header)
	return h.answerNotModified(w, r, e.Status, header)
}

// resume goes on with a response whose source broke off where the client's part
// ends, from the upstream. If that has another response by now, the client's is cut
// off, as it would have been without a cache.
func (h *Handler) resume(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, e *store.Entry, g *given) {
	kept := q.keep(r)
	header := rfc9111.Conditional(kept.request.Header, nil)
	s := &resumer{ResponseWriter: w, header: make(http.Header), status: e.Status, tag: strongTag(e), given: g}
	if s.tag != "" && g.at > 0 && e.Status == http.StatusOK {
		header["Range"] = []string{"bytes=" + strconv.FormatInt(g.at, 10) + "-"}
		header["If-Range"] = []string{s.tag}
	}
	err := next.ServeHTTP(s, kept.forUpstream(r.Context(), header))
	if size, known := contentLength(e); err != nil || s.at < g.at || known && s.at < size && !served(w) {
		panic(http.ErrAbortHandler)
	}
	s.passTrailers()
}

// fetch runs the next handlers as the leader of a flight. It reports true when the
// request has to look again.
func (h *Handler) fetch(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, f *flight, g grant, out *outcome) (again bool, err error) {
	if g.why != rfc9111.None && out.detail == "" {
		out.detail = g.why.String()
	}
	if g.why == rfc9111.HitForMiss {
		q.alone = true
		f = h.node.solo(q) // the one it led is over
	}
	r = q.keep(r).request
	x := &fetch{h: h, r: r, next: next, q: q, flight: f, grant: g, out: out}
	t, upstream := x.start(w)
	defer x.stop()
	start, span, broke := time.Now(), startSpan(r.Context(), spanFill), true
	if span != nil {
		upstream = upstream.WithContext(trace.ContextWithSpan(upstream.Context(), span))
	}
	defer func() {
		if !broke {
			return
		}
		endSpan(span, "result", fillResultNames[fillFailed])
		p := recover()
		if x.retry && p == http.ErrAbortHandler {
			q.alone, again, err = true, true, nil
			return
		}
		x.giveUp(rfc9111.Truncated)
		t.finishClient()
		h.counters.fetched(fillFailed, time.Since(start))
		panic(p) // the client's connection is cut, as without a cache
	}()
	err = next.ServeHTTP(t, upstream)
	broke = false
	result := x.finish(t, err)
	h.counters.fetched(result, time.Since(start))
	endSpan(span, "result", fillResultNames[result], "reason", out.detail)
	switch {
	case x.failed && g.stale.Size > 0 && g.staleBody == nil:
		q.validated, q.failed = g.stale.Generation, true // the owner has the body, and it will do
		return true, nil
	case x.failed && !out.background:
		x.grant.staleBody = nil // what the client takes its time over, serveHit counts
		return !h.serveHit(w, r, next, q, g.stale, g.staleBody, statusStale, detailLocal, time.Now()), nil
	case x.retry, t.state == silent && !t.answered:
		q.alone = q.alone || !x.renewed
		return true, nil
	}
	return false, err
}

// passOn hands a request on for a URL whose responses are not stored, as this node
// knows (hit-for-miss): the response is its client's alone, and of the request nothing
// has to be kept for it. One that could be stored ends that for those who come after.
func (h *Handler) passOn(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, found *finding) error {
	start, span := time.Now(), startSpan(r.Context(), spanFill)
	if span != nil {
		r = r.WithContext(trace.ContextWithSpan(r.Context(), span))
	}
	out, result := h.outcomeOf(r, found), fillFailed
	p := &passing{
		h: h, r: r, space: q.space, key: q.key, credentials: q.credentials, maxBody: q.maxBody,
		mark: found.uncacheable, before: linesOf(w.Header()), sent: start,
	}
	m := &marker{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, out: out}
	m.look = func(status int, header http.Header) {
		why := p.judge(status, header)
		h.counters.notStored[why].Add(1)
		out.detail = why.String()
	}
	defer func() { // the handlers may panic
		if !m.wrote {
			h.counters.notStored[rfc9111.Aborted].Add(1)
			h.node.refusals.note(p.key, rfc9111.Aborted, refusal{})
		}
		h.counters.fetched(result, time.Since(start))
		endSpan(span, "result", fillResultNames[result], "reason", out.detail)
	}()
	err := m.run(next, r)
	if err == nil && m.wrote {
		result = fillNotStored
	}
	return err
}

// A passing is one request that passOn hands on, with what is needed of its question.
type passing struct {
	h           *Handler
	r           *http.Request
	space       *store.Namespace
	key         store.Key
	credentials bool
	maxBody     int64
	mark        rfc9111.Reason // why the URL was marked as uncacheable
	before      []lines        // in the header, before the handlers ran
	sent        time.Time
}

// judge looks whether the response still says that it isn't to be stored, and returns
// why it isn't. What says the same as another within the last second is not read again.
func (p *passing) judge(status int, header http.Header) rfc9111.Reason {
	h, received := p.h, time.Now()
	last := h.node.refusals.lately(p.key, received)
	if last.why == p.mark && last.saidBy(status, header) {
		return p.mark
	}
	own := ownFields(header, p.before)
	x := rfc9111.Exchange{Method: p.r.Method, Status: status, Response: own, Sent: p.sent, Received: received}
	if p.credentials { // of other fields the handlers behind the cache may have made anything
		x.Request = http.Header{"Authorization": {""}}
	}
	_, _, why := h.judge(x, p.maxBody)
	if why == rfc9111.None {
		why = rfc9111.HitForMiss
		if p.mark.ToldByHeader() {
			h.node.store.UnmarkUncacheable(p.key)
		}
	}
	h.node.remember(p.space, p.key, why)
	if last.why != why {
		h.node.refusals.note(p.key, why, newRefusal(why, status, p.r.Header, own))
	}
	return why
}

// bypass hands a request on that the cache has no part in.
func (h *Handler) bypass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, why rfc9111.Reason) error {
	out := &outcome{h: h, r: r, repl: replacer(r), fwd: "bypass", status: statusBypass, detail: why.String()}
	if why == rfc9111.Method {
		out.fwd = "method"
	}
	m := &marker{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, out: out}
	if why != rfc9111.Method || rfc9111.Safe(r.Method) {
		return m.run(next, r)
	}
	kept := newOriginal(r)
	k := newKeeper(h, kept.request, w)
	if h.Key != "" { // its placeholders may say something else then
		k.templated = h.keysOf(r, requestURI(r))
	}
	defer k.close()
	m.look = func(status int, header http.Header) {
		id := store.NewPurgeID()
		if h.invalidate(kept.request, k.templated, status, header, id) && r.Method == http.MethodPost && k.wants(status, header, id) {
			m.keep, out.stored = k, true
		}
	}
	if err := m.run(next, kept.forUpstream(r.Context(), nil)); err != nil {
		return err
	}
	k.store()
	return nil
}

// invalidate drops what is stored of the resources that an unsafe request has
// changed (RFC 9111 §4.4): its own target, what Location and Content-Location
// name on the same origin, and the origin's groups that the response names (RFC
// 9875 §3). It reports whether there was anything to drop. A key template may tell more apart
// than targets; then only what this request's own key names is dropped, which is given.
func (h *Handler) invalidate(r *http.Request, templated []store.Key, status int, header http.Header, id store.PurgeID) bool {
	if status < 200 || status > 399 || len(r.Host) > maxHost {
		return false
	}
	keys := templated
	if h.Key == "" {
		for _, target := range append([]string{requestURI(r)}, rfc9111.Related(r, header)...) {
			keys = append(keys, h.keysOf(r, target)...)
		}
	}
	var selectors []store.Selector
	for _, k := range keys {
		selectors = append(selectors, selectorOf(k))
	}
	for _, group := range rfc9111.InvalidatedGroups(header) {
		selectors = append(selectors, store.Selector{Kind: store.Group, Value: store.GroupOf(urlOf(r), group)})
	}
	if len(selectors) > 0 {
		h.node.invalidate(id, h.space, selectors, time.Duration(h.PeerTimeout))
	}
	return len(selectors) > 0
}

// unavailable answers only-if-cached when nothing is (RFC 9111 §5.2.1.7).
func (h *Handler) unavailable(w http.ResponseWriter, out *outcome) error {
	out.detail = rfc9111.OnlyIfCached.String()
	out.write(w.Header())
	w.WriteHeader(http.StatusGatewayTimeout)
	return nil
}

// statusClientClosed is what Caddy logs for a client that went away.
const statusClientClosed = 499
