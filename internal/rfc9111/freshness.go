package rfc9111

import (
	"net/http"
	"strings"
	"time"
)

// Freshness is what the cache keeps of a response to decide about its reuse
// later. It is a plain value that travels between nodes. The zero value was
// stale long ago and is validated before any use.
type Freshness struct {
	Received   time.Time     // when the response header arrived, by the clock of the node that fetched it
	InitialAge time.Duration // corrected_initial_age at Received (RFC 9111 §4.2.3)
	Delay      time.Duration // what of InitialAge is the time that the response took to come, and no age that it states
	Lifetime   time.Duration // freshness_lifetime (§4.2.1), heuristic ones included

	// How long after Lifetime the response may still be served while it is
	// fetched again, or when that fails (RFC 5861). 0: not at all, also because
	// must-revalidate, proxy-revalidate or NoCache forbids it.
	StaleWhileRevalidate, StaleIfError time.Duration

	MustRevalidate bool // must-revalidate, proxy-revalidate or s-maxage: stale only in those two windows, whatever a client accepts
	NoCache        bool // no-cache for the whole response: validated each time
	Heuristic      bool // Lifetime is a guess (§4.2.2)
	SharedAuth     bool // may answer requests with Authorization (§3.5)
	Immutable      bool // does not change while it is fresh (RFC 8246 §2)
}

// Elapsed returns the time between two readings of the clock: by the one that may be set, or
// by the one that stands still while a machine is suspended, whichever has gone further. What
// is aged by it never passes for younger than it is.
func Elapsed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}

// Age returns current_age (RFC 9111 §4.2.3). It is never negative, also if the
// clock went back.
func (f Freshness) Age(now time.Time) time.Duration {
	return clamp(clamp(f.InitialAge) + clamp(Elapsed(f.Received, now)))
}

// TTL returns for how long the response is still fresh. Zero or less: it is
// stale, and has been for that long (RFC 9111 §4.2).
func (f Freshness) TTL(now time.Time) time.Duration {
	return clamp(f.Lifetime) - f.Age(now)
}

// AsAnswered returns the freshness without the time that the response took to come
// (RFC 9111 §4.2.3, response_delay). A request that has waited for it may use it as
// long as the response itself allows: with a lifetime of a second and an upstream
// that takes two, all that wait would otherwise find it stale, and ask one after the
// other.
func (f Freshness) AsAnswered() Freshness {
	f.InitialAge = clamp(f.InitialAge - f.Delay)
	return f
}

// AlwaysValidated reports whether a response was never good for another request
// without validation: it states no-cache, or had no lifetime left when it was made
// (RFC 9111 §4, §5.2.2.4).
func (f Freshness) AlwaysValidated() bool {
	f = f.AsAnswered()
	return f.NoCache || clamp(f.Lifetime+f.StaleWhileRevalidate) <= f.InitialAge
}

// StaleAsOf returns the freshness of a response that counts as stale from t on.
// For as long as it would have been fresh, it may still be served while it is
// fetched anew, or when that fails, if it may be served stale at all.
func (f Freshness) StaleAsOf(t time.Time) Freshness {
	left := f.TTL(t)
	if left <= 0 {
		return f
	}
	f.Lifetime -= left
	for _, window := range []*time.Duration{&f.StaleWhileRevalidate, &f.StaleIfError} {
		if !f.NoCache && (!f.MustRevalidate || *window > 0) {
			*window = clamp(*window + left)
		}
	}
	f.Immutable = false
	return f
}

// lifetimeSource says where a freshness lifetime comes from.
type lifetimeSource uint8

const (
	sourceNone       lifetimeSource = iota // nowhere: it is 0
	sourceResponse                         // the response states it
	sourceConfigured                       // Options.TTL
	sourceHeuristic                        // guessed from Last-Modified
)

// newFreshness gathers what has to be kept. must-revalidate and proxy-revalidate
// forbid stale use whatever else is said (RFC 9111 §5.2.2.2, §5.2.2.8). s-maxage
// means the same for a shared cache (§5.2.2.10), but only by implication, and most
// who send it beside stale-while-revalidate or stale-if-error mean these: they and
// the operator's options go first (but see meansSMaxAge), and no client's wish does.
func newFreshness(x Exchange, d ResponseDirectives, o Options) (Freshness, lifetimeSource) {
	f := Freshness{
		Received:       x.Received,
		MustRevalidate: d.MustRevalidate || d.ProxyRevalidate || d.SMaxAge.Set,
		NoCache:        d.NoCache,
		SharedAuth:     d.sharedAuth(),
		Immutable:      d.Immutable,
	}
	f.InitialAge, f.Delay = initialAge(x)
	lifetime, source := lifetimeOf(x, d, o)
	f.Lifetime, f.Heuristic = lifetime, source == sourceHeuristic
	if d.MustRevalidate || d.ProxyRevalidate || d.NoCache {
		return f, source
	}
	if f.Lifetime > 0 && !d.meansSMaxAge() {
		f.StaleWhileRevalidate, f.StaleIfError = clamp(o.StaleWhileRevalidate), clamp(o.StaleIfError)
	}
	if d.StaleWhileRevalidate.Set {
		f.StaleWhileRevalidate = d.StaleWhileRevalidate.D
	}
	if d.StaleIfError.Set {
		f.StaleIfError = d.StaleIfError.D
	}
	return f, source
}

// meansSMaxAge reports whether s-maxage states the very number that max-age does.
// For a shared cache it then changes nothing but what it implies, so that must be
// what it is there for: the operator's stale options, which apply where a response
// does not say, give way to it.
func (d ResponseDirectives) meansSMaxAge() bool {
	return d.SMaxAge.Set && d.MaxAge.Set && d.SMaxAge.D == d.MaxAge.D
}

// lifetimeOf calculates freshness_lifetime: s-maxage, max-age, Expires
// (RFC 9111 §4.2.1), then the operator's TTL, then a heuristic (§4.2.2).
func lifetimeOf(x Exchange, d ResponseDirectives, o Options) (time.Duration, lifetimeSource) {
	if d.SMaxAge.Set {
		return d.SMaxAge.D, sourceResponse
	}
	if d.MaxAge.Set {
		return d.MaxAge.D, sourceResponse
	}
	if expires, present, ok := dateField(x.Response, "Expires"); present {
		if !ok {
			return 0, sourceResponse // §5.3: "0" and the like are in the past
		}
		return clamp(expires.Sub(dateOf(x))), sourceResponse
	}
	ttl, ok := o.TTL[x.Status]
	if !ok && HeuristicallyCacheable(x.Status) {
		ttl, ok = o.TTL[0]
	}
	if ok {
		return clamp(ttl), sourceConfigured
	}
	if ttl := heuristicLifetime(x, d); ttl > 0 {
		return ttl, sourceHeuristic
	}
	return 0, sourceNone
}

// heuristicLifetime guesses a tenth of the time since the last modification
// (RFC 9111 §4.2.2), at most a day, so that a wrong guess ends by itself. It
// takes a status that allows it, or public. Where the request had cookies the response
// may be its client's, and is not guessed about unless it is public.
func heuristicLifetime(x Exchange, d ResponseDirectives) time.Duration {
	modified, _, ok := dateField(x.Response, "Last-Modified")
	if !ok || !d.Public && (!HeuristicallyCacheable(x.Status) || len(x.Request["Cookie"]) > 0) {
		return 0
	}
	return min(clamp(dateOf(x).Sub(modified))/10, 24*time.Hour)
}

// dateOf returns date_value: Date, or the time of receipt where Date is missing
// or cannot be read (RFC 9110 §6.6.1).
func dateOf(x Exchange) time.Time {
	if date, _, ok := dateField(x.Response, "Date"); ok {
		return date
	}
	return x.Received
}

// initialAge calculates corrected_initial_age (RFC 9111 §4.2.3). The time of
// receipt is cut to whole seconds for apparent_age, because Date is: otherwise a
// response with max-age=1 would lose up to all of it. The second result is what
// of it is the delay, beyond the age that the response states.
func initialAge(x Exchange) (age, delayed time.Duration) {
	date := dateOf(x)
	apparent := clamp(x.Received.Truncate(time.Second).Sub(date))
	var delay time.Duration
	if !x.Sent.IsZero() {
		delay = clamp(Elapsed(x.Sent, x.Received))
		if !date.Before(x.Sent.Truncate(time.Second)) {
			apparent = 0 // it was made for this request, and is no older than the delay
		}
	}
	stated := ageValue(x.Response)
	age = clamp(max(apparent, stated+delay))
	return age, age - clamp(max(apparent, stated))
}

// ageValue returns age_value, the first readable member of the Age field lines.
// RFC 9111 §5.1 looks at the very first only. We go on to the next, because
// a response that says in any place how old it is should not pass for new.
func ageValue(h http.Header) time.Duration {
	for _, line := range h["Age"] {
		for member := range strings.SplitSeq(line, ",") {
			if age, ok := parseDelta(trimOWS(member)); ok {
				return age
			}
		}
	}
	return 0
}
