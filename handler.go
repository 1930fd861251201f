package caddygroupcache

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/cespare/xxhash/v2"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http/httpguts"

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
	q, why := h.question(r)
	if why != rfc9111.None {
		return h.bypass(w, r, next, why)
	}
	h.node.busy.note(h, r, q.key)
	for looks := 1; ; looks++ {
		if looks > 1 {
			q.address, _ = h.addressOf(r, requestURI(r)) // what counts of it may be known by now
		}
		now := time.Now()
		if !h.node.upToDate(r.Context(), now, q.patience) {
			return h.bypass(w, r, next, rfc9111.CatchingUp)
		}
		found := h.find(r.Context(), q, now)
		if q.served(found) {
			return h.serve(w, r, q, found)
		}
		if found.use == rfc9111.StaleWhileRevalidate && found.here {
			h.refresh(r, next, q)
			return h.serve(w, r, q, found)
		}
		if found.why != rfc9111.None || found.uncacheable != rfc9111.None || looks > maxLooks {
			q.alone = true
		}
		f, body, lead := h.node.join(q)
		// Look again after winning: between find and join the flight of
		// somebody else may have landed, stored its response and left.
		if lead && !q.alone {
			if again := h.node.find(q, time.Now()); q.served(again) {
				body.Close()
				f.end(rfc9111.None)
				return h.serve(w, r, q, again)
			}
		}
		g := grant{fetch: true}
		switch {
		case !lead:
			g.fetch = false
		case looks <= maxLooks:
			g = h.node.ask(q, f, found)
		}
		out := h.outcomeOf(r, found)
		if !g.fetch {
			if done, err := h.follow(w, r, next, q, f, body, out); done {
				return err
			}
			continue
		}
		body.Close()
		if q.directives.OnlyIfCached {
			f.end(rfc9111.OnlyIfCached)
			h.node.release(q, g, rfc9111.OnlyIfCached)
			return h.unavailable(w, out)
		}
		if again, err := h.fetch(w, r, next, q, f, g, out); !again {
			return err
		}
	}
}

// question works out what a request asks of the cache. The reason is not None
// when that is nothing.
func (h *Handler) question(r *http.Request) (*question, rfc9111.Reason) {
	head := r.Method == http.MethodHead
	switch {
	case r.Method != http.MethodGet && !head:
		return nil, rfc9111.Method
	case len(r.Header["Upgrade"]) > 0 || httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade"):
		return nil, rfc9111.Upgrade
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return nil, rfc9111.RequestBody
	case rfc9111.NamesFields(r.Header["Connection"]):
		return nil, rfc9111.Connection
	}
	q := &question{
		space:       h.space,
		header:      r.Header,
		credentials: len(r.Header["Authorization"]) > 0 && !h.policy.IgnoreAuthorization,
		maxBody:     h.MaxBodySize,
		patience:    time.Duration(h.PeerTimeout),
		deadline:    time.Duration(h.FillTimeout),
		traced:      r.Context(),
	}
	if q.undirected = h.RequestDirectives == ignoreDirectives; !q.undirected {
		q.directives = rfc9111.ParseRequest(r.Header)
	}
	if q.directives.NoStore {
		return nil, rfc9111.RequestNoStore
	}
	q.alone = head || q.credentials || q.directives.NoCache || q.directives.OnlyIfCached
	var ok bool
	if q.address, ok = h.addressOf(r, requestURI(r)); !ok {
		return nil, rfc9111.BadRequestTarget
	}
	return q, rfc9111.None
}

// serve answers a request from this node's memory.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, q *question, found finding) error {
	detail := detailHot
	if _, self := h.node.ring.Load().Owner(q.key); self {
		detail = detailLocal
	}
	h.serveEntry(w, r, found.entry, found.body, q.statusOf(found.entry, found.use), detail)
	return nil
}

func (h *Handler) serveEntry(w http.ResponseWriter, r *http.Request, e *store.Entry, body []byte, status cacheStatus, detail any) {
	if h.hitHeader(w, r, e, status, detail) {
		return
	}
	if wantsPart(r, e.Status) {
		servePart(w, r, body)
		return
	}
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that is gone needs no error
	}
}

// hitHeader sets the header of a stored response, and reports whether a 304
// has answered the request.
func (h *Handler) hitHeader(w http.ResponseWriter, r *http.Request, e *store.Entry, status cacheStatus, detail any) bool {
	now := time.Now()
	header := w.Header()
	e.WriteHeader(header)
	lines := make([]string, 2)
	lines[0] = strconv.FormatInt(int64(e.Fresh.Age(now)/time.Second), 10)
	header["Age"] = lines[0:1:1]
	if h.cacheName != "" {
		lines[1] = h.hitStatus(status, int64(e.Fresh.TTL(now)/time.Second), detail.(string))
		if stored := header["Cache-Status"]; len(stored) > 0 {
			header["Cache-Status"] = append(stored, lines[1])
		} else {
			header["Cache-Status"] = lines[1:2:2]
		}
	}
	repl := replacer(r)
	repl.Set(placeholderStatus, statusNames[status])
	repl.Set(placeholderDetail, detail)
	h.counters.requests[status].Add(1)
	h.logDecision(r, status, "", detail.(string), false)
	return h.answerNotModified(w, r, e.Status, header)
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
func (h *Handler) follow(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, f *flight, body *follower, out *outcome) (bool, error) {
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
			out.detail = why.String()
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
		use, _ := rfc9111.Decide(q.directives, q.credentials, e.Fresh, time.Now())
		if status = q.statusOf(e, use); use == rfc9111.StaleWhileRevalidate {
			h.refresh(r, next, q)
		}
	}
	if h.followedHeader(w, r, e, status, out) {
		return true, nil
	}
	w, code := partOf(w, r, e.Status, w.Header())
	w.WriteHeader(code)
	if r.Method == http.MethodHead {
		return true, nil
	}
	n, err := copyFill(r.Context(), w, body)
	if !errors.As(err, new(ended)) {
		return true, nil // complete, or the client is gone
	}
	return true, h.resume(w, r, next, f, e.Status, n)
}

// followedHeader sets the header of a response that is followed, and reports
// whether a 304 has answered the request.
func (h *Handler) followedHeader(w http.ResponseWriter, r *http.Request, e *store.Entry, status cacheStatus, out *outcome) bool {
	if status != statusCollapsed {
		return h.hitHeader(w, r, e, status, detailPeer)
	}
	header := w.Header()
	e.WriteHeader(header)
	if age := e.Fresh.Age(time.Now()); age >= time.Second || len(header["Age"]) > 0 {
		header.Set("Age", strconv.FormatInt(int64(age/time.Second), 10))
	}
	out.status, out.collapsed = statusCollapsed, true
	out.write(header)
	return h.answerNotModified(w, r, e.Status, header)
}

// resume goes on with a response whose source broke off after n bytes, from
// the upstream. If that is another response by now, the client's is cut off,
// as it would have been without a cache.
func (h *Handler) resume(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, f *flight, status int, n int64) error {
	sent := f.fill.NewReader()
	defer sent.Close()
	digest := xxhash.New()
	for left := n; left > 0; {
		p, err := sent.Next(r.Context(), nil)
		if err != nil {
			return caddyhttp.Error(statusClientClosed, err)
		}
		p = p[:min(int64(len(p)), left)]
		_, _ = digest.Write(p) // never fails
		left -= int64(len(p))
	}
	whole := r.WithContext(r.Context())
	whole.Header = rfc9111.Conditional(r.Header, nil)
	s := newResumer(w, status, n, digest.Sum64())
	if err := next.ServeHTTP(s, whole); err != nil || s.skip > 0 {
		panic(http.ErrAbortHandler)
	}
	s.passTrailers()
	return nil
}

// fetch runs the next handlers as the leader of a flight. It reports true when
// the request has to look again.
func (h *Handler) fetch(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, f *flight, g grant, out *outcome) (again bool, err error) {
	if g.why != rfc9111.None && out.detail == "" {
		out.detail = g.why.String()
	}
	if g.why == rfc9111.HitForMiss {
		f = h.node.solo(q) // the one it led is over
	}
	x := &fetch{h: h, r: r, q: q, flight: f, grant: g, out: out}
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
		h.serveEntry(w, r, g.stale, g.staleBody, statusStale, detailLocal)
		return false, nil
	case x.retry, t.state == silent && !t.answered:
		q.alone = q.alone || !x.renewed
		return true, nil
	}
	return false, err
}

// bypass hands a request on that the cache has no part in.
func (h *Handler) bypass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, why rfc9111.Reason) error {
	out := &outcome{h: h, r: r, repl: replacer(r), fwd: "bypass", status: statusBypass, detail: why.String()}
	if why == rfc9111.Method {
		out.fwd = "method"
	}
	m := &marker{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, out: out}
	if why != rfc9111.Method || rfc9111.Safe(r.Method) {
		return next.ServeHTTP(m, r)
	}
	k := newKeeper(h, r, w)
	defer k.close()
	m.changed = func(status int, header http.Header) {
		id := store.NewPurgeID()
		if h.invalidate(r, status, header, id) && r.Method == http.MethodPost && k.wants(status, header, id) {
			m.keep, out.stored = k, true
		}
	}
	if err := next.ServeHTTP(m, r); err != nil {
		return err
	}
	k.store()
	return nil
}

// invalidate drops what is stored of the resources that an unsafe request has
// changed (RFC 9111 §4.4): its own target, what Location and Content-Location
// name on the same origin, and the origin's groups that the response names (RFC
// 9875 §3). It reports whether there was anything to drop. A key template may tell more apart
// than targets; then only what this request's own key names is dropped.
func (h *Handler) invalidate(r *http.Request, status int, header http.Header, id store.PurgeID) bool {
	if status < 200 || status > 399 {
		return false
	}
	targets := []string{requestURI(r)}
	if h.Key == "" {
		targets = append(targets, rfc9111.Related(r, header)...)
	}
	var selectors []store.Selector
	for _, target := range targets {
		for _, k := range h.keysOf(r, target) {
			selectors = append(selectors, selectorOf(k))
		}
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
