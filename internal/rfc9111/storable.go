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

	// ForceTTL has TTL go before what a response of a status that it names states, all
	// but no-store and private.
	ForceTTL bool

	// StaleWhileRevalidate applies where the response does not say (RFC 5861
	// §3), but not to a response whose lifetime is zero, because max-age=0 is
	// how many origins ask for validation each time. Default 0: never.
	StaleWhileRevalidate time.Duration

	// StaleIfError applies where the response does not say (RFC 5861 §4), and to
	// none whose lifetime is zero either. Default 0: never.
	StaleIfError time.Duration

	// IgnoreRequestDirectives stores what a client asked not to store.
	IgnoreRequestDirectives bool

	// StoreSetCookie stores responses that set a cookie, with the cookie, as
	// RFC 9111 §7.3 leaves them, and those with Clear-Site-Data. Default: they
	// are not stored.
	StoreSetCookie bool

	// Targeted is the target list of RFC 9213 §2.2: the canonical names of the
	// response fields that speak to this cache instead of Cache-Control and
	// Expires, most wanted first. Default (nil): DefaultTargets.
	Targeted []string

	// IgnoreAuthorization takes a request with Authorization for one like any
	// other. Default: §3.5.
	IgnoreAuthorization bool
}

// Exchange is one request and the header of its response.
type Exchange struct {
	// The request is a known user's, by whatever means: it counts like one with
	// Authorization.
	Credentials bool

	// Unkeyed says that something of the request's URL is not in the key that the
	// response would be stored under. No error is stored there, because what was
	// left out may have caused it, and the next request under that key lacks it.
	Unkeyed bool

	// Request fields, canonical, that are set for the upstream on the way by what neither
	// the client's field nor the key has. A response that varies by one is not stored.
	Changed []string

	// What the upstream has said of the response that this one was made in place of;
	// nil: it is the upstream's.
	Origin *Origin

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
	if x.Origin != nil {
		return limited(x, o)
	}
	var d ResponseDirectives
	d, x.Response = directivesOf(x.Response, o.Targeted)
	if _, named := o.TTL[x.Status]; named && o.ForceTTL {
		d, x.Response = d.withoutLifetime(), withoutPlain(x.Response)
	}
	if reason := requestForbids(x, d, o); reason != None {
		return Freshness{}, reason
	}
	if reason := statusForbids(x, d, o); reason != None {
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

// ForbidsShared reports whether what was said of a response before it is made forbids
// that a shared cache has part in it: no-store, private, or no-cache for all of it.
func ForbidsShared(said http.Header, o Options) bool {
	d, _ := directivesOf(said, o.Targeted)
	return d.NoStore || d.Private || d.NoCache
}

// requestForbids looks for what lies with this one request. It goes first, so
// that no client's own fields are held against the URL (RemembersUncacheable).
func requestForbids(x Exchange, d ResponseDirectives, o Options) Reason {
	if x.Method != http.MethodGet && x.Method != MethodQuery {
		return Method
	}
	if !o.IgnoreRequestDirectives && ParseRequest(x.Request).NoStore {
		return RequestNoStore
	}
	if (x.Credentials || len(x.Request["Authorization"]) > 0) && !o.IgnoreAuthorization && !d.sharedAuth() {
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

// withoutLifetime returns the directives without those that say how long a response may be
// used without validation.
func (d ResponseDirectives) withoutLifetime() ResponseDirectives {
	d.Public = d.Public || d.SMaxAge.Set && !d.SMaxAge.Broken // see sharedAuth
	d.MaxAge, d.SMaxAge, d.NoCache = Delta{}, Delta{}, false
	return d
}

// statusForbids judges the status code (RFC 9111 §3).
func statusForbids(x Exchange, d ResponseDirectives, o Options) Reason {
	status := x.Status
	_, named := o.TTL[status]
	switch {
	case status == http.StatusPartialContent:
		return Partial
	case status < 200, status > 599, status == http.StatusNotModified:
		return Status
	case answersRequestFields(status), blamesClient(status) && !named:
		return RequestStatus
	case x.Unkeyed && status >= 400:
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
	return status != http.StatusPartialContent && HeuristicallyCacheable(status)
}

// HeuristicallyCacheable reports whether a status is one of those that RFC 9110 §15.1 lists, but for
// 414: answersRequestFields tells why.
func HeuristicallyCacheable(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 501:
		return true
	}
	return false
}

// answersRequestFields are statuses that answer a field of one request:
// credentials, a precondition that is there or is missing, a range, Expect, the
// size of the header or of the request line; or that come from the network between
// (511). RFC 9111 §3 would let most of them be stored with explicit freshness, and
// RFC 9110 §15.5.15 lets 414 be stored without. We do not, because no cache key
// holds those fields, and one client could spoil a URL for everybody. A key need not
// hold what makes a target too long, and one that does would hold it for nobody else.
// For 428, 431 and 511 RFC 6585 §3, §5 and §6 forbid it.
func answersRequestFields(status int) bool {
	switch status {
	case 401, 407, 412, 414, 416, 417, 421, 425, 426, 428, 431, 511:
		return true
	}
	return false
}

// blamesClient are statuses that say that something is wrong with one client's
// request, which may be any field of it, or with how often it comes. RFC 9111 §3
// would let them be stored with explicit freshness, but for 429 (RFC 6585 §4). We
// do so only where a TTL names the status, because one client's oversized or odd
// header would make an error of a URL for everybody, and many servers put
// Cache-Control on error pages.
func blamesClient(status int) bool {
	switch status {
	case 400, 406, 408, 409, 411, 413, 415, 422, 429:
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
	if hasForAll(x.Response, d, "Set-Cookie") && !o.StoreSetCookie {
		return SetCookie
	}
	if hasForAll(x.Response, d, "Clear-Site-Data") && !o.StoreSetCookie {
		return ClearSiteData
	}
	names, star := VaryNames(x.Response)
	if star {
		return VaryStar
	}
	if slices.ContainsFunc(names, func(name string) bool { return setOnTheWay(name) || slices.Contains(x.Changed, name) }) {
		return VaryOnTheWay
	}
	if isEventStream(x.Response) {
		return EventStream
	}
	return None
}

// setOnTheWay reports whether reverse_proxy makes a field for the upstream of what is
// neither in the client's field of that name nor in the cache key, such as the client's
// address. X-Forwarded-Host and -Proto are not among them: these come from the key, or
// are part of it.
func setOnTheWay(name string) bool {
	switch name {
	case "X-Forwarded-For", "X-Real-Ip", "X-Client-Ip", "Forwarded", "Via":
		return true
	}
	return false
}

// isForOneClient reports whether a field speaks to the browser of one client. RFC
// 9111 §7.3 leaves what becomes of Set-Cookie to the origin. We store neither it
// nor Clear-Site-Data, unless told to, because a session handed to a second
// client, or a page that logs everybody out, costs more than any miss. What
// Clear-Site-Data clears are quoted strings (W3C Clear Site Data §3.1): browsers
// ignore the field without any, and so do we.
func isForOneClient(name string, lines []string) bool {
	switch name {
	case "Set-Cookie":
		return len(lines) > 0
	case "Clear-Site-Data":
		return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, `"`) })
	}
	return false
}

// hasForAll reports whether storing the response would hand a field on that was
// meant for its one client. An origin that has private or no-cache name the field
// has thought of it: the rest may be stored.
func hasForAll(h http.Header, d ResponseDirectives, name string) bool {
	return isForOneClient(name, h[name]) && !slices.Contains(d.PrivateFields, name) && !slices.Contains(d.NoCacheFields, name)
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
	if unstated && !HeuristicallyCacheable(x.Status) {
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
