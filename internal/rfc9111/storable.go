package rfc9111

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Options are the operator's choices that storing depends on. The zero value
// leaves everything to the response.
type Options struct {
	// TTL is how long a response is fresh that states no freshness, by status.
	// Key 0 stands for every status that RFC 9110 §15.1 calls heuristically
	// cacheable. What the response states goes first; a heuristic comes after.
	TTL map[int]time.Duration

	// StaleWhileRevalidate applies where the response does not say (RFC 5861
	// §3), but not to a response whose lifetime is zero, because max-age=0 is
	// how many origins ask for validation each time. Default 0: never.
	StaleWhileRevalidate time.Duration

	// StaleIfError applies where the response does not say (RFC 5861 §4).
	// Default 0: never.
	StaleIfError time.Duration

	// IgnoreRequestDirectives stores what a client asked not to store.
	IgnoreRequestDirectives bool

	// StoreSetCookie stores responses that set a cookie, with the cookie, as
	// RFC 9111 §7.3 leaves them. Default: they are not stored.
	StoreSetCookie bool

	// IgnoreAuthorization takes a request with Authorization for one like any
	// other. Default: §3.5.
	IgnoreAuthorization bool
}

// Exchange is one request and the header of its response.
type Exchange struct {
	Method   string
	Request  http.Header
	Status   int
	Response http.Header
	Sent     time.Time // request_time of RFC 9111 §4.2.3; zero: not known
	Received time.Time // response_time of §4.2.3: when the header arrived
}

// Storable decides whether a shared cache may store the response (RFC 9111 §3).
// If so it returns what to keep of it for Decide and the reason None; if not,
// the zero Freshness and why. It knows nothing of the body: what is too large or
// cut off is for the caller to see.
func Storable(x Exchange, o Options) (Freshness, Reason) {
	f, reason := storable(x, o)
	switch reason {
	case None, NoFreshness, Expired: // what else a header may say makes no other reason void
		if !areCanonical(x.Request) || !areCanonical(x.Response) {
			x.Request, x.Response = canonicalNames(x.Request), canonicalNames(x.Response)
			return storable(x, o)
		}
	}
	return f, reason
}

// storable is Storable for what has canonical names.
func storable(x Exchange, o Options) (Freshness, Reason) {
	var d ResponseDirectives
	d, x.Response = directivesOf(x.Response)
	if reason := requestForbids(x, d, o); reason != None {
		return Freshness{}, reason
	}
	if reason := statusForbids(x.Status, d, o); reason != None {
		return Freshness{}, reason
	}
	if reason := responseForbids(x, d, o); reason != None {
		return Freshness{}, reason
	}
	f, source := newFreshness(x, d, o)
	if reason := worthless(x, f, source); reason != None {
		return Freshness{}, reason
	}
	return f, None
}

// requestForbids looks for what lies with this one request. It goes first, so
// that no client's own fields are held against the URL (RemembersUncacheable).
func requestForbids(x Exchange, d ResponseDirectives, o Options) Reason {
	if x.Method != http.MethodGet {
		return Method
	}
	if !o.IgnoreRequestDirectives && ParseRequest(x.Request).NoStore {
		return RequestNoStore
	}
	if len(x.Request["Authorization"]) > 0 && !o.IgnoreAuthorization && !d.sharedAuth() {
		return Authorization
	}
	return None
}

// sharedAuth reports whether the response to a request with Authorization may
// be used for others (RFC 9111 §3.5). An s-maxage that cannot be read forbids
// stale use but permits nothing.
func (d ResponseDirectives) sharedAuth() bool {
	return d.Public || d.MustRevalidate || d.SMaxAge.Set && !d.SMaxAge.Broken
}

// statusForbids judges the status code (RFC 9111 §3).
func statusForbids(status int, d ResponseDirectives, o Options) Reason {
	_, named := o.TTL[status]
	switch {
	case status == http.StatusPartialContent:
		return Partial
	case status < 200, status > 599, status == http.StatusNotModified:
		return Status
	case answersRequestFields(status), blamesClient(status) && !named:
		return RequestStatus
	case d.MustUnderstand && !understood(status):
		return Status
	}
	return None
}

// understood are the status codes whose caching rules this package implements,
// in the sense of RFC 9111 §5.2.2.3.
func understood(status int) bool {
	switch status {
	case 302, 303, 307:
		return true
	}
	return status != http.StatusPartialContent && heuristicallyCacheable(status)
}

// heuristicallyCacheable are the status codes that RFC 9110 §15.1 lists.
func heuristicallyCacheable(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// answersRequestFields are statuses that answer a field of one request:
// credentials, a precondition, a range, Expect, the size of the header. RFC 9111
// §3 would let them be stored with explicit freshness. We do not, because no
// cache key holds those fields, and one client could spoil a URL for everybody.
func answersRequestFields(status int) bool {
	switch status {
	case 401, 407, 412, 416, 417, 421, 425, 426, 431:
		return true
	}
	return false
}

// blamesClient are statuses that say that something is wrong with one client's
// request, which may be any field of it, or with how often it comes. RFC 9111 §3
// would let them be stored with explicit freshness. We do so only where a TTL
// names the status, because one client's oversized or odd header would make an
// error of a URL for everybody, and many servers put Cache-Control on error pages.
func blamesClient(status int) bool {
	switch status {
	case 400, 408, 411, 413, 415, 429:
		return true
	}
	return false
}

// responseForbids looks for what the response says about itself (RFC 9111 §3,
// §4.1). A status that must-understand names has passed statusForbids, so
// no-store does not count beside it (§5.2.2.3).
func responseForbids(x Exchange, d ResponseDirectives, o Options) Reason {
	if d.NoStore && !d.MustUnderstand {
		return NoStore
	}
	if d.Private {
		return Private
	}
	if setsCookie(x.Response, d) && !o.StoreSetCookie {
		return SetCookie
	}
	if _, star := VaryNames(x.Response); star {
		return VaryStar
	}
	if isEventStream(x.Response) {
		return EventStream
	}
	return None
}

// setsCookie reports whether storing the response would hand a cookie on that
// was meant for its one client. RFC 9111 §7.3 leaves that to the origin. We do
// not, unless told to, because a session handed to a second client costs more
// than any miss. An origin that has private or no-cache name Set-Cookie has
// thought of it: the rest may be stored.
func setsCookie(h http.Header, d ResponseDirectives) bool {
	const name = "Set-Cookie"
	return len(h[name]) > 0 && !slices.Contains(d.PrivateFields, name) && !slices.Contains(d.NoCacheFields, name)
}

// isEventStream recognizes server-sent events, which belong to one client and
// do not end.
func isEventStream(h http.Header) bool {
	for _, line := range h["Content-Type"] {
		mediaType, _, _ := strings.Cut(line, ";")
		if strings.EqualFold(trimOWS(mediaType), "text/event-stream") {
			return true
		}
	}
	return false
}

// worthless says why an entry could never be used: it is of no status that may
// be kept without a lifetime (RFC 9111 §3), or it is stale from the start with
// nothing to validate it with and no permission to serve it stale.
func worthless(x Exchange, f Freshness, source lifetimeSource) Reason {
	unstated := source == sourceNone
	if unstated && !heuristicallyCacheable(x.Status) {
		return NoFreshness
	}
	if etag, lastModified := Validators(x.Response); etag != "" || lastModified != "" {
		return None
	}
	if unstated {
		return NoFreshness
	}
	left := f.TTL(x.Received) + max(f.StaleWhileRevalidate, f.StaleIfError)
	if left <= 0 || f.NoCache {
		return Expired
	}
	return None
}
