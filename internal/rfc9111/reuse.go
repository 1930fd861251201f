package rfc9111

import (
	"net/http"
	"time"
)

// Use says what may be done with a stored response for a request now
// (RFC 9111 §4).
type Use uint8

const (
	// Fresh: serve it. It may still be stale, where the client's max-stale
	// accepts that.
	Fresh Use = iota

	// StaleWhileRevalidate: serve it, and fetch it anew in the background
	// (RFC 5861 §3).
	StaleWhileRevalidate

	// StaleIfError: serve it in place of the error (RFC 5861 §4).
	StaleIfError

	// Validate: ask upstream first.
	Validate
)

var useNames = [...]string{
	Fresh: "fresh", StaleWhileRevalidate: "stale-while-revalidate", StaleIfError: "stale-if-error", Validate: "validate",
}

// String returns the use as explanations and spans name it.
func (u Use) String() string { return useNames[u] }

// How says how a response comes to a request that it was not fetched for.
type How uint8

const (
	// Stored: it lies in a node's memory.
	Stored How = iota

	// Collapsed: it is arriving, because another request asked for it meanwhile.
	// Its freshness is that of Freshness.AsAnswered.
	Collapsed

	// Confirmed: the upstream has just answered this very request with a 304 for it.
	Confirmed

	// Outage: asking the upstream has failed: no connection, or status 500, 502,
	// 503 or 504 (RFC 5861 §4).
	Outage
)

// Request is what a request says of the stored responses that it accepts. The
// zero value accepts what the response itself allows.
type Request struct {
	Directives  RequestDirectives // zero: they are not honored
	Credentials bool              // it has an Authorization field
}

// Reuse decides whether a response may answer a request now that it was not
// fetched for, and whose key and selecting fields it matches. It is the only
// place that decides that, whichever way the response comes (RFC 9111 §4).
//
// A response that is Collapsed is no better than one that was Stored: what states
// no lifetime, or no-cache, was made for the one request that it answers, and
// needs validation for each other (§5.2.2.4). Without validation it is for that
// request alone.
//
// The reason is None unless the request, and not the response's own age, asks for
// validation: RequestNoCache for no-cache, max-age, min-fresh and max-stale,
// Authorization if the response may not be shared with this client (§3.5;
// stricter than that section, because upstream may answer a known user
// differently without a word in Vary).
func Reuse(req *Request, f *Freshness, how How, now time.Time) (Use, Reason) {
	switch {
	case req.Credentials && !f.SharedAuth:
		return Validate, Authorization
	case how == Confirmed:
		return Fresh, None
	case how == Outage:
		return reuseInOutage(&req.Directives, f, now), None
	case req.Directives.NoCache:
		return Validate, RequestNoCache
	case f.NoCache:
		return Validate, None
	}
	d, age, ttl := &req.Directives, f.Age(now), f.TTL(now)
	// A reload asks with max-age=0. What is immutable and fresh needs no
	// validation for that, only for no-cache (RFC 8246 §2).
	reload := !f.Immutable || ttl <= 0
	if reload && (d.MaxAge.Set && age > d.MaxAge.D || d.MinFresh.Set && ttl < d.MinFresh.D) {
		return Validate, RequestNoCache
	}
	if ttl > 0 {
		return Fresh, None
	}
	return reuseStale(d, f, -ttl)
}

// reuseStale decides about a stale response (RFC 9111 §4.2.4). What never had a
// lifetime is not stale but was made for one request, so no client's max-stale
// makes another's response of it.
func reuseStale(d *RequestDirectives, f *Freshness, staleness time.Duration) (Use, Reason) {
	if f.MustRevalidate && f.StaleWhileRevalidate == 0 {
		return Validate, None
	}
	accepted := f.Lifetime > 0 && (d.AnyStale || d.MaxStale.Set && staleness <= d.MaxStale.D)
	// Who sends max-age, or a max-stale that is exceeded, wants nothing (that)
	// stale, whatever the origin allows (§5.2.1.1, §5.2.1.2).
	if !accepted && (d.MaxAge.Set || d.MaxStale.Set) {
		return Validate, RequestNoCache
	}
	if staleness < f.StaleWhileRevalidate {
		return StaleWhileRevalidate, None
	}
	if accepted && !f.MustRevalidate {
		return Fresh, None
	}
	return Validate, None
}

// reuseInOutage decides after validating a response has failed (RFC 5861 §4). The
// client's stale-if-error takes the place of the response's, for what has had a
// lifetime, but makes it no longer where validation is a must. What is still fresh may be served too, since max-age and min-fresh of
// a request are wishes.
func reuseInOutage(d *RequestDirectives, f *Freshness, now time.Time) Use {
	if d.NoCache || f.NoCache {
		return Validate
	}
	ttl := f.TTL(now)
	if ttl > 0 {
		return Fresh
	}
	window := f.StaleIfError
	if wish := d.StaleIfError; wish.Set && f.Lifetime > 0 && (!f.MustRevalidate || wish.D < window) {
		window = wish.D
	}
	if -ttl < window {
		return StaleIfError
	}
	return Validate
}

// IsError reports whether a status is one of the errors that a stored response may stand
// in for (RFC 5861 §4).
func IsError(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
