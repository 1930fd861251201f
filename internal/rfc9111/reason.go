package rfc9111

// Reason names why a response was not served from the cache, or not stored.
// It is one byte on the wire between nodes, and the string that Cache-Status,
// metrics, logs and the admin API show. The zero value means "no reason".
//
// Values are part of the peer protocol: append, never reorder.
type Reason uint8

const (
	// None says that nothing stands in the way.
	None Reason = iota

	// What the request is.

	Method           // neither GET, HEAD nor QUERY
	Upgrade          // asks for another protocol (WebSocket)
	RequestBody      // content that the cache key does not cover
	RequestNoStore   // the client sent no-store
	RequestNoCache   // the client wants a validated answer
	Authorization    // the request carried credentials and the response does not allow sharing
	OnlyIfCached     // the client wants nothing fetched
	BadRequestTarget // host or target that no key may be built from

	// What the response is.

	Status           // a status code that is not stored
	NoStore          // Cache-Control: no-store
	Private          // Cache-Control: private
	SetCookie        // the response sets a cookie
	VaryStar         // Vary: *
	NoFreshness      // states no freshness and has nothing to validate with
	Expired          // stale on arrival and has nothing to validate with
	Partial          // 206
	EventStream      // an endless response by its type
	TooLarge         // longer than max_body_size
	Truncated        // shorter or longer than its Content-Length, or cut off
	HeaderTooBig     // more header fields than an entry may have
	Trailers         // ends with trailer fields, which are not stored
	StrayNotModified // a 304 nobody can use

	// What became of the fill.

	Aborted      // the upstream or a handler broke off
	FillTimeout  // took longer than fill_timeout
	Memory       // no room in flight under cache_size
	LeaderLost   // the node that was fetching is gone
	VaryMismatch // the response that came in was selected by other request fields
	HitForMiss   // known to be uncacheable: nobody waits for anybody
	Superseded   // a newer response, or a purge, came first

	// What the cluster did.

	PeerTimeout // the owner was silent for peer_timeout
	PeerError   // the owner refused, broke off or made no sense
	PeerDown    // the owner is known not to answer

	// Later additions: the wire forbids a better place.

	RequestStatus // a status that answers one request's own fields (401, 412, 416 ...)
	CatchingUp    // the node was away, and has yet to hear what was purged meanwhile
	NoVarySearch  // other parameters count by now than those that the key was made of
	Connection    // the request's Connection names fields: upstream will not get what the client sent
	Incomplete    // a part of the large body that is stored is gone, and could not be got again
	MustValidate  // what came for another request needs validation for each use
	ClearSiteData // the response clears what its client's browser keeps of the site
	Precondition  // the request has If-Match or If-Unmodified-Since, which the origin evaluates
	PartsOnly     // longer than half of what all nodes keep: only parts of it are stored
	Abandoned     // its client went away before it came, and nobody else waited
	Loop          // the request comes from a cache of the same group (RFC 8586)

	InFront      // what a handler in front of the cache has set forbids it, or can't be told from the response
	HandledError // made in place of an error of the upstream, and does not say so
	NotRouted    // a matcher keeps the request from the cache; for explain only
	ErrorRoute   // the request failed, and this is the route for errors
	VaryOnTheWay // varies by a field that Caddy sets for the upstream

	UpstreamFailed // it has failed, and what is stored may stand in
	Rule           // a response block of the config says no_store
	AuthBehind     // an authentication behind the cache decides whether the client may have it
	SecondUpstream // the upstream of handle_response has answered in place of the first one, which decides about the client

	reasonCount
)

var reasonNames = [reasonCount]string{
	None:             "",
	Method:           "method",
	Upgrade:          "upgrade",
	RequestBody:      "request-body",
	RequestNoStore:   "request-no-store",
	RequestNoCache:   "request-no-cache",
	Authorization:    "authorization",
	OnlyIfCached:     "only-if-cached",
	BadRequestTarget: "bad-target",
	Status:           "status",
	NoStore:          "no-store",
	Private:          "private",
	SetCookie:        "set-cookie",
	VaryStar:         "vary-star",
	NoFreshness:      "no-freshness",
	Expired:          "expired",
	Partial:          "partial",
	EventStream:      "event-stream",
	TooLarge:         "too-large",
	Truncated:        "truncated",
	HeaderTooBig:     "header-too-big",
	Trailers:         "trailers",
	StrayNotModified: "not-modified",
	Aborted:          "aborted",
	FillTimeout:      "fill-timeout",
	Memory:           "memory",
	LeaderLost:       "leader-lost",
	VaryMismatch:     "vary-mismatch",
	HitForMiss:       "hit-for-miss",
	Superseded:       "superseded",
	PeerTimeout:      "peer-timeout",
	PeerError:        "peer-error",
	PeerDown:         "peer-down",
	RequestStatus:    "request-status",
	NoVarySearch:     "no-vary-search",
	CatchingUp:       "catching-up",
	Connection:       "connection",
	Incomplete:       "incomplete",
	Abandoned:        "abandoned",
	Loop:             "loop",
	MustValidate:     "must-validate",
	ClearSiteData:    "clear-site-data",
	Precondition:     "precondition",
	PartsOnly:        "parts-only",
	HandledError:     "handled-error",
	NotRouted:        "not-routed",
	ErrorRoute:       "error-route",
	VaryOnTheWay:     "vary-on-the-way",
	UpstreamFailed:   "upstream-failed",
	Rule:             "rule",
	AuthBehind:       "auth-behind",
	SecondUpstream:   "second-upstream",
	InFront:          "in-front",
}

// String returns the name, "" for None and "unknown" for a value that a newer
// node may have sent.
func (r Reason) String() string {
	if r >= reasonCount {
		return "unknown"
	}
	return reasonNames[r]
}

// Known reports whether the value has a name here.
func (r Reason) Known() bool { return r < reasonCount }

// Reasons returns every named reason, for metrics and documentation.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount-1)
	for r := None + 1; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}

// RemembersUncacheable reports whether a response that was not stored for this
// reason makes its whole URL uncacheable for a while (hit-for-miss). Reasons
// that one client can provoke for everybody else must not.
func (r Reason) RemembersUncacheable() bool {
	switch r {
	case Status, NoStore, Rule, Private, SetCookie, ClearSiteData, VaryStar, VaryOnTheWay, NoFreshness, Expired,
		EventStream, TooLarge, PartsOnly, HeaderTooBig, Trailers, SecondUpstream:
		return true
	default:
		return false
	}
}

// ToldByHeader reports whether another response's header alone shows that this reason to
// call the URL uncacheable no longer holds.
func (r Reason) ToldByHeader() bool {
	switch r {
	case TooLarge, PartsOnly, HeaderTooBig, Trailers:
		return false
	default:
		return r.RemembersUncacheable()
	}
}
