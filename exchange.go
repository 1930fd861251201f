package caddygroupcache

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/span"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

// A step is where a request stands. Each is a method of exchange, which returns the next.
// exchange.run takes them in turn; join takes those that need the flight which it holds.
type step uint8

const (
	stepDone step = iota
	stepLookUp
	stepHit
	stepStale
	stepAwait
	stepValidate
	stepJoin
	stepFollow      // by join
	stepFetchAlone  // by join
	stepDeliverPart // by join
	stepPass
	stepBypass
)

// An exchange is one client's request on its way through the cache.
type exchange struct {
	h    *Handler
	w    http.ResponseWriter
	r    *http.Request // the client's; once there is an original, a copy that no handler changes
	next caddyhttp.Handler

	// What the request asks, as receive has found it. Where it looks up again, its key may
	// be another one.
	node.Lookup
	search      *rfc9111.SearchVariance // see inbound.Address
	unkeyed     bool                    // see inbound.Address
	around      []byte                  // see inbound.Addressing; made before the next handlers can change the request
	content     content                 // of a QUERY; nil: the request is none
	part        bool                    // the request has a Range
	far         bool                    // WantsPart, and the part is not in the first chunk
	conditional bool                    // the request may have a condition that a 304 fulfils
	background  bool                    // the request is a refresh, and has no client
	sampled     bool                    // the request counts among those of the busiest keys

	// What was found, and what comes next.
	now      time.Time // of the look-up
	found    node.Result
	decision node.Decision  // the owner's, if the request leads
	first    *firstChunk    // for stepDeliverPart
	reason   rfc9111.Reason // for stepBypass
	err      error          // of the next handlers

	// What another look-up needs of those before.
	lookUps    int
	original   *routes.Original // nil until the handlers behind the cache are to run
	waited     rfc9111.Reason   // why the flight that the request followed does not answer it
	validation *node.Validation // led by the request; ends before the response goes to the client, which may be slow; nil: none
	leftOut    http.Header      // fields of the 304 that has confirmed Validated, for this client alone
	failed     bool             // the upstream has failed or is slow, and the stored response stands in
	slow       bool             // the upstream is slow
	noParts    bool             // the upstream was asked for the first chunk, and that is of no use
}

// receive works out what a request asks of the cache. The reason is not None
// when that is nothing.
func (x *exchange) receive() rfc9111.Reason {
	h, r := x.h, x.r
	head := r.Method == http.MethodHead
	if r.Method != http.MethodGet && !head && x.content == nil {
		return rfc9111.Method
	}
	fields := inbound.FieldsOf(r.Header)
	switch {
	case fields.Has(inbound.LoopField) && rfc9111.InLoop(r.Header[rfc9111.LoopField], h.Group, h.node.Loops.Has):
		return rfc9111.Loop
	case fields.Has(inbound.ConnectionFields) && rfc9111.Upgrades(r.Header):
		return rfc9111.Upgrade
	case x.content == nil && inbound.HasBody(r):
		return rfc9111.RequestBody
	case fields.Has(inbound.ConnectionFields) && rfc9111.NamesFields(r.Header["Connection"]):
		return rfc9111.Connection
	case fields.Has(inbound.PreconditionFields):
		return rfc9111.Precondition // not applicable to a cache (RFC 9111 §4.3.2)
	case h.route().Guarded(r):
		return rfc9111.AuthBehind
	}
	x.Namespace, x.Header, x.SpanContext = h.space, r.Header, r.Context()
	x.Undirected = h.RequestDirectives == ignoreDirectives
	x.Credentials = !h.policy.IgnoreAuthorization && (fields.Has(inbound.AuthorizationField) && len(r.Header["Authorization"]) > 0 || authenticated(r))
	x.conditional = fields.Has(inbound.ConditionFields)
	x.part = fields.Has(inbound.RangeField) && len(r.Header["Range"]) > 0
	x.MaxBody = min(h.MaxBodySize, h.node.LargestBody())
	if x.content != nil {
		x.MaxBody = min(x.MaxBody, store.ChunkSize) // a chunk that is lost is got back by a GET
	}
	x.PeerTimeout, x.FillTimeout = time.Duration(h.PeerTimeout), time.Duration(h.FillTimeout)
	if fields.Has(inbound.DirectiveFields) && !x.Undirected {
		x.Directives = rfc9111.ParseRequest(r.Header)
		if x.Directives.NoStore {
			return rfc9111.RequestNoStore
		}
	}
	if x.part && !head && x.content == nil {
		near, far := rfc9111.AsksPart(r.Header["Range"], store.ChunkSize)
		x.WantsPart, x.far = near || far, far
	}
	// What another request gets meanwhile can't answer these.
	x.Alone = x.Credentials || x.Directives.NoCache || x.Directives.OnlyIfCached ||
		x.Directives.MaxAge.Set && x.Directives.MaxAge.D == 0
	if h.Stale != nil && !x.Alone {
		x.StandInAfter = time.Duration(h.Stale.After)
	}
	x.Alone = x.Alone || head
	x.around = h.route().AppendKey(nil, r)
	if !x.locate(fields) {
		return rfc9111.BadRequestTarget
	}
	if fields.Has(inbound.ConnectionFields) {
		rfc9111.DropUpgrade(r.Header)
	}
	return rfc9111.None
}

// locate works out where the responses to a request are stored. It reports false if
// that is nowhere.
func (x *exchange) locate(fields inbound.Fields) bool {
	addresses := x.h.addressingBy(x.r, x.around)
	a, ok := addresses.Of(x.r, fields, requestURI(x.r))
	x.Key, x.search, x.unkeyed = a.Key, a.Search, a.Unkeyed
	if x.content != nil {
		x.Key = x.content.Key(x.Key, x.r.Header)
	}
	return ok
}

// find is node.Find in a span.
func (x *exchange) find() {
	lookup := span.Start(x.r.Context(), spanLookup)
	x.h.node.Find(&x.Lookup, x.now, &x.found)
	if lookup != nil {
		span.End(lookup, "found", foundName(&x.found), "reason", x.found.Reason.String())
	}
}

// foundName says in a word what was found.
func foundName(f *node.Result) string {
	switch {
	case f.Entry == nil:
		return "nothing"
	case !f.Here:
		return "entry"
	}
	return f.Use.String()
}

// oversized reports whether an entry is of a body so large that only parts of it
// are served from the cache.
func (x *exchange) oversized(e *store.Entry) bool {
	return e != nil && e.Large() && e.Size > x.MaxBody && !x.part
}

// forwarded notes that a request goes to the upstream.
func (x *exchange) forwarded() {
	if x.sampled && !x.background {
		x.sampled = false
		x.h.node.HotKeys.Missed(x.Key)
	}
}

// statusOf returns what serving a stored entry is called.
func (x *exchange) statusOf(e *store.Entry, use rfc9111.Use) cacheStatus {
	switch {
	case use == rfc9111.StaleWhileRevalidate, use == rfc9111.StaleIfError, x.failed:
		return statusStale
	case x.Validated != 0 && e.Generation == x.Validated:
		return statusRevalidated
	}
	return statusHit
}

// hitDetail tells whether this node owns a key, or has a copy: the detail of a hit.
func (h *Handler) hitDetail(k store.Key) (detail any) {
	if _, self := h.node.Ring.Load().Owner(k); self {
		return detailLocal
	}
	return detailHot
}

// keepOriginal has the exchange go by a copy of the request, because the next handlers may
// change the client's.
func (x *exchange) keepOriginal() {
	if x.original == nil {
		x.original = routes.NewOriginal(x.r, x.content)
		x.r = x.original.Request
		x.Header = x.r.Header
	}
}

// client returns the client's request, as it came.
func (x *exchange) client() *http.Request {
	if x.original == nil {
		return x.r
	}
	return x.original.Client()
}

// A QUERY is a GET whose key has the content, and what tells its meaning (RFC 10008 §2.7):
// the same lookups, flights, leases, conditions and purges.

// content is the content of a QUERY; nil: the request is none.
type content = inbound.Content

// authenticated reports whether an authentication handler before this one has
// given the request a user. The upstream's response may depend on that user,
// whatever the request's fields say.
func authenticated(r *http.Request) bool {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	_, known := repl.Get("http.auth.user.id")
	return known
}

// Names of spans.
const (
	spanLookup = "groupcache lookup" // what this node has
	spanFill   = "groupcache fill"   // from asking the upstream to the end of its response
)

// A firstChunk is that of a response which deliverPart answers from.
type firstChunk struct {
	storedResponse
	out     *outcome
	release func() // of its memory
}

// outcome begins the outcome of a request that goes to the upstream.
func (x *exchange) outcome() *outcome {
	found := &x.found
	o := &outcome{h: x.h, r: x.r, repl: replacer(x.r), status: statusMiss, background: x.background}
	switch {
	case found.Entry != nil && found.Reason != rfc9111.None:
		o.fwd, o.detail = "request", found.Reason.String()
	case found.Entry != nil && found.Use != rfc9111.Fresh:
		o.fwd = "stale"
	case found.Entry == nil && found.Known:
		o.fwd = "vary-miss"
	default:
		o.fwd = "uri-miss"
	}
	if found.Uncacheable != rfc9111.None {
		o.detail = rfc9111.HitForMiss.String()
	}
	return o
}

// exchangeOf returns what the policy is asked about a response that has just come, with all
// that decides which requests it may answer: every way into the store begins here. The
// caller adds the request, and whether that has credentials.
func (h *Handler) exchangeOf(repl *caddy.Replacer, status int, own http.Header) rfc9111.Exchange {
	origin := h.route().MadeOf(repl, own, h.Targeted)
	return rfc9111.Exchange{
		Method: http.MethodGet, Status: status, Response: origin.WithVary(own), Origin: origin,
		Changed: h.route().ChangedFields(), Received: time.Now(),
	}
}
