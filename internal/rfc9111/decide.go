package rfc9111

import "time"

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

	// Validate: ask upstream first. ServeStaleOnError says what to do if that
	// fails.
	Validate
)

// Decide chooses among these for a request that the entry's key and selecting
// fields match. The reason is None unless the request, and not the entry's own
// age, asks for validation: RequestNoCache for no-cache, max-age, min-fresh and
// max-stale, Authorization if the entry may not be shared with this client
// (RFC 9111 §3.5; stricter than that section, because upstream may answer
// a known user differently without a word in Vary). The zero RequestDirectives
// ignores what the client asked for.
func Decide(req *RequestDirectives, hasAuthorization bool, f *Freshness, now time.Time) (Use, Reason) {
	if hasAuthorization && !f.SharedAuth {
		return Validate, Authorization
	}
	if req.NoCache {
		return Validate, RequestNoCache
	}
	if f.NoCache {
		return Validate, None
	}
	age, ttl := f.Age(now), f.TTL(now)
	// A reload asks with max-age=0. What is immutable and fresh needs no
	// validation for that, only for no-cache (RFC 8246 §2).
	reload := !f.Immutable || ttl <= 0
	if reload && (req.MaxAge.Set && age > req.MaxAge.D || req.MinFresh.Set && ttl < req.MinFresh.D) {
		return Validate, RequestNoCache
	}
	if ttl > 0 {
		return Fresh, None
	}
	return decideStale(req, f, -ttl)
}

// decideStale decides about a stale response (RFC 9111 §4.2.4).
func decideStale(req *RequestDirectives, f *Freshness, staleness time.Duration) (Use, Reason) {
	if f.MustRevalidate {
		return Validate, None
	}
	accepted := req.AnyStale || req.MaxStale.Set && staleness <= req.MaxStale.D
	// Who sends max-age, or a max-stale that is exceeded, wants nothing (that)
	// stale, whatever the origin allows (§5.2.1.1, §5.2.1.2).
	if !accepted && (req.MaxAge.Set || req.MaxStale.Set) {
		return Validate, RequestNoCache
	}
	if staleness < f.StaleWhileRevalidate {
		return StaleWhileRevalidate, None
	}
	if accepted {
		return Fresh, None
	}
	return Validate, None
}

// ServeStaleOnError reports whether the stored response may be served after
// validating it failed: no connection, or status 500, 502, 503 or 504 (RFC 5861
// §4). The client's stale-if-error takes the place of the response's. A response
// that is still fresh may be, since max-age and min-fresh of a request are
// wishes. Do not ask if Decide's reason was Authorization: the entry is then
// not for this client.
func ServeStaleOnError(req RequestDirectives, f Freshness, now time.Time) bool {
	if req.NoCache || f.NoCache {
		return false
	}
	ttl := f.TTL(now)
	if ttl > 0 {
		return true
	}
	window := f.StaleIfError
	if req.StaleIfError.Set {
		window = req.StaleIfError.D
	}
	return !f.MustRevalidate && -ttl < window
}
