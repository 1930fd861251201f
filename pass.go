package caddygroupcache

import (
	"io"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-groupcache/caddy-groupcache/internal/front"
	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/span"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

// pass hands a request on for a URL whose responses are not stored, as this node
// knows (hit-for-miss): the response is its client's alone, and of the request nothing
// has to be kept for it. One that could be stored ends that for later requests.
func (x *exchange) pass() {
	x.forwarded()
	r := x.client()
	start, fill := time.Now(), span.Start(r.Context(), spanFill)
	if fill != nil {
		r = r.WithContext(trace.ContextWithSpan(r.Context(), fill))
	}
	h, out, result := x.h, x.outcome(), fillFailed
	p := &passed{
		h: h, r: r, space: x.Namespace, key: x.Key, credentials: x.Credentials, maxBody: x.MaxBody,
		mark: x.found.Uncacheable, before: front.FieldsOf(x.w.Header()), sent: start,
	}
	m := &outcomeWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: x.w}, out: out}
	m.look = func(status int, header http.Header) {
		why := p.judge(status, header)
		h.counters.notStored[why].Add(1)
		out.detail = why.String()
	}
	defer func() { // the handlers may panic
		if !m.wrote {
			h.counters.notStored[rfc9111.Aborted].Add(1)
			h.node.Rejections.Note(p.key, rfc9111.Aborted, node.Rejection{})
		}
		h.counters.fetched(result, time.Since(start))
		span.End(fill, "result", fillResultNames[result], "reason", out.detail)
	}()
	restore := routes.ForgetProxied(replacer(r))
	defer restore()
	x.err = m.run(x.next, r)
	if x.err == nil && m.wrote {
		result = fillNotStored
	}
}

// A passed request is one that pass hands on, with what is needed of it.
type passed struct {
	h           *Handler
	r           *http.Request
	space       *store.Namespace
	key         store.Key
	credentials bool
	maxBody     int64
	mark        rfc9111.Reason // why the URL was marked as uncacheable
	before      front.Fields   // in the header, before the handlers ran
	sent        time.Time
}

// judge looks whether the response still says that it isn't to be stored, and returns
// why it isn't. What says the same as another within the last second is not read again.
func (p *passed) judge(status int, header http.Header) rfc9111.Reason {
	h, received := p.h, time.Now()
	last := h.node.Rejections.Lately(p.key, received)
	if last.Why == p.mark && last.SaidBy(status, header) {
		return p.mark
	}
	own := p.before.Own(header)
	x := h.exchangeOf(replacer(p.r), status, own)
	x.Method, x.Sent, x.Received = p.r.Method, p.sent, received
	if p.credentials { // of other fields the handlers behind the cache may have made anything
		x.Request = http.Header{"Authorization": {""}}
	}
	policy, x := h.policy.Under(x)
	_, _, why := policy.Judge(x, p.maxBody)
	if _, ok := p.before.Edits(header); !ok && why == rfc9111.None {
		why = rfc9111.InFront
	}
	if _, _, size, ok := rfc9111.ContentRange(own); why == rfc9111.Partial && ok && size > p.maxBody {
		why = h.policy.TooLarge(size) // a part tells how long the whole is
	}
	if why == rfc9111.None {
		why = rfc9111.HitForMiss
		if p.mark.ToldByHeader() {
			h.node.Store.UnmarkUncacheable(p.key)
		}
	}
	h.node.Remember(p.space, p.key, why)
	if last.Why != why {
		h.node.Rejections.Note(p.key, why, h.policy.Rejection(why, status, p.r.Header, own))
	}
	return why
}

// bypass hands a request on that the cache has no part in.
func (h *Handler) bypass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, why rfc9111.Reason) error {
	out := &outcome{h: h, r: r, repl: replacer(r), fwd: "bypass", status: statusBypass, detail: why.String()}
	if why == rfc9111.Method {
		out.fwd = "method"
	}
	if why == rfc9111.Precondition && h.RequestDirectives != ignoreDirectives && rfc9111.ParseRequest(r.Header).OnlyIfCached {
		unavailable(w, out)
		return nil
	}
	m := &outcomeWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, out: out}
	m.inner = why == rfc9111.Loop
	if why != rfc9111.Method || rfc9111.Safe(r.Method) {
		return m.run(next, r)
	}
	kept := routes.NewOriginal(r, nil)
	k := newPostRecorder(h, kept.Request, w)
	if h.Key != "" { // its placeholders may say something else then
		k.templated = ownKeysOf(h, r, requestURI(r))
	}
	templated := h.group().templatedKeysOf(r)
	defer k.close()
	m.look = func(status int, header http.Header) {
		id := store.NewPurgeID()
		if h.invalidate(kept.Request, templated, status, header, id) && r.Method == http.MethodPost && k.wants(status, header, id) {
			m.keep, out.stored = k, true
		}
	}
	restore := routes.ForgetProxied(replacer(r))
	defer restore()
	if err := m.run(next, kept.ForUpstream(r.Context(), nil)); err != nil {
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
	if status < 200 || status > 399 || len(r.Host) > inbound.MaxHost {
		return false
	}
	keys, group := templated, h.group()
	var selectors []store.Selector
	for _, target := range append([]string{requestURI(r)}, rfc9111.Related(r, requestURI(r), header)...) {
		keys = append(keys, group.keysOf(r, target)...)
		for _, one := range group {
			selectors = append(selectors, one.policy.Names(inbound.URLOf(r, target), target, group.byURL())...)
		}
	}
	for _, k := range keys {
		selectors = append(selectors, node.SelectorOf(k))
	}
	for _, name := range rfc9111.InvalidatedGroups(header) {
		selectors = append(selectors, store.Selector{Kind: store.Group, Value: store.GroupOf(urlOf(r), name)})
	}
	if len(selectors) > 0 {
		h.node.Purger.Invalidate(id, h.space, unique(selectors), time.Duration(h.PeerTimeout))
	}
	return len(selectors) > 0
}

// statusClientClosed is what Caddy logs for a client that went away.
const statusClientClosed = 499

// An outcomeWriter adds the outcome to a response of which nothing is kept for other requests.
type outcomeWriter struct {
	caddyhttp.ResponseWriterWrapper
	out   *outcome
	wrote bool
	inner bool                                 // the response goes to a handler of the same group
	look  func(status int, header http.Header) // called before the header is sent, if not nil
	keep  *postRecorder                        // gets the body too; nil: nothing is kept
}

// run has handlers answer a request.
func (m *outcomeWriter) run(next caddyhttp.Handler, r *http.Request) error {
	err := next.ServeHTTP(m, r)
	if !m.wrote {
		m.out.writeUnanswered(m.ResponseWriter.Header(), err)
	}
	return err
}

// WriteHeader marks the final response, and leaves interim ones as they are.
func (m *outcomeWriter) WriteHeader(status int) {
	if !m.wrote && (status >= 200 || status == http.StatusSwitchingProtocols) {
		m.wrote = true
		header := m.ResponseWriter.Header()
		if m.look != nil {
			m.look(status, header)
		}
		m.out.fwdStatus = status
		if !m.inner { // that one stores the tags, and hides them
			m.out.h.policy.HideTags(header)
		}
		m.out.write(header)
	}
	m.ResponseWriter.WriteHeader(status)
}

func (m *outcomeWriter) Write(p []byte) (int, error) {
	if !m.wrote {
		m.WriteHeader(http.StatusOK)
	}
	if m.keep != nil {
		_, _ = m.keep.Write(p) // never fails
	}
	return m.ResponseWriter.Write(p)
}

// ReadFrom lets the client's writer splice.
func (m *outcomeWriter) ReadFrom(r io.Reader) (int64, error) {
	if !m.wrote {
		m.WriteHeader(http.StatusOK)
	}
	if m.keep != nil {
		r = io.TeeReader(r, m.keep)
	}
	return m.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError flushes the client's writer.
func (m *outcomeWriter) FlushError() error {
	if !m.wrote {
		m.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(m.ResponseWriter).Flush()
}

// unavailable answers only-if-cached when nothing is (RFC 9111 §5.2.1.7).
func unavailable(w http.ResponseWriter, out *outcome) {
	out.detail = rfc9111.OnlyIfCached.String()
	out.write(w.Header())
	w.WriteHeader(http.StatusGatewayTimeout)
}
