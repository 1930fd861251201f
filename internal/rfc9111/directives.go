package rfc9111

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// Delta is a directive's number of seconds (delta-seconds, RFC 9111 §1.2.2).
// The zero value says that the directive is absent. More than 2^31 seconds
// read as 2^31 seconds.
type Delta struct {
	D      time.Duration // never negative; whole seconds
	Set    bool          // the directive is there, readable or not
	Broken bool          // it could not be read, and D is what caches least
}

// ResponseDirectives are the Cache-Control directives of a response (RFC 9111
// §5.2.2) with the extensions of RFC 5861 and RFC 8246.
type ResponseDirectives struct {
	NoStore         bool // §5.2.2.5
	NoCache         bool // §5.2.2.4, for the whole response
	Private         bool // §5.2.2.7, for the whole response
	Public          bool // §5.2.2.9
	MustRevalidate  bool // §5.2.2.2
	ProxyRevalidate bool // §5.2.2.8
	MustUnderstand  bool // §5.2.2.3
	Immutable       bool // RFC 8246 §2
	NoTransform     bool // §5.2.2.6

	// The fields that the qualified forms name, canonical. These alone, and not
	// the whole response, are then what may not be reused or shared.
	NoCacheFields, PrivateFields []string

	MaxAge               Delta // §5.2.2.1
	SMaxAge              Delta // §5.2.2.10
	StaleWhileRevalidate Delta // RFC 5861 §3
	StaleIfError         Delta // RFC 5861 §4
}

// ParseResponse reads the Cache-Control field lines of a response. What it does
// not know it ignores (RFC 9111 §5.2.3). Of several numbers for one directive
// the smallest counts, and one that cannot be read counts as 0 (§4.2.1).
func ParseResponse(h http.Header) ResponseDirectives {
	var r ResponseDirectives
	for _, line := range h["Cache-Control"] {
		for line != "" {
			var d directive
			d, line = cutDirective(line)
			r.add(d)
		}
	}
	return r
}

// add takes one directive in. One that restricts counts however badly it is
// written, one that permits only if it is well-formed.
func (r *ResponseDirectives) add(d directive) {
	switch d.name {
	case "no-store":
		r.NoStore = true
	case "no-cache":
		fields := d.fields()
		r.NoCacheFields = append(r.NoCacheFields, fields...)
		r.NoCache = r.NoCache || fields == nil
	case "private":
		fields := d.fields()
		r.PrivateFields = append(r.PrivateFields, fields...)
		r.Private = r.Private || fields == nil
	case "must-revalidate":
		r.MustRevalidate = true
	case "proxy-revalidate":
		r.ProxyRevalidate = true
	case "no-transform":
		r.NoTransform = true
	case "public":
		r.Public = r.Public || !d.broken
	case "must-understand":
		r.MustUnderstand = r.MustUnderstand || !d.broken
	case "immutable":
		r.Immutable = r.Immutable || !d.broken
	case "max-age":
		r.MaxAge = r.MaxAge.smaller(d.delta())
	case "s-maxage":
		r.SMaxAge = r.SMaxAge.smaller(d.delta())
	case "stale-while-revalidate":
		r.StaleWhileRevalidate = r.StaleWhileRevalidate.smaller(d.delta())
	case "stale-if-error":
		r.StaleIfError = r.StaleIfError.smaller(d.delta())
	}
}

// RequestDirectives are the Cache-Control directives of a request (RFC 9111
// §5.2.1) and its stale-if-error (RFC 5861 §4). The zero value asks for nothing.
type RequestDirectives struct {
	NoStore      bool  // §5.2.1.5
	NoCache      bool  // §5.2.1.4, or Pragma: no-cache
	OnlyIfCached bool  // §5.2.1.7
	MaxAge       Delta // §5.2.1.1
	MinFresh     Delta // §5.2.1.3; broken: 2^31 seconds
	MaxStale     Delta // §5.2.1.2
	AnyStale     bool  // max-stale without a number: however stale
	StaleIfError Delta // RFC 5861 §4
}

// ParseRequest reads the Cache-Control field lines of a request, and Pragma
// where there are none (RFC 9111 §5.4). Of several numbers the one that accepts
// fewer stored responses counts.
func ParseRequest(h http.Header) RequestDirectives {
	var r RequestDirectives
	lines := h["Cache-Control"]
	if len(lines) == 0 {
		r.NoCache = pragmaNoCache(h["Pragma"])
		return r
	}
	for _, line := range lines {
		for line != "" {
			var d directive
			d, line = cutDirective(line)
			r.add(d)
		}
	}
	r.AnyStale = r.AnyStale && !r.MaxStale.Set
	return r
}

func (r *RequestDirectives) add(d directive) {
	switch d.name {
	case "no-store":
		r.NoStore = true
	case "no-cache":
		r.NoCache = true
	case "only-if-cached":
		r.OnlyIfCached = true
	case "max-age":
		r.MaxAge = r.MaxAge.smaller(d.delta())
	case "stale-if-error":
		r.StaleIfError = r.StaleIfError.smaller(d.delta())
	case "min-fresh":
		minFresh := d.delta()
		if minFresh.Broken {
			minFresh.D = maxDelta
		}
		minFresh.D = max(minFresh.D, r.MinFresh.D)
		minFresh.Broken = minFresh.Broken || r.MinFresh.Broken
		r.MinFresh = minFresh
	case "max-stale":
		if !d.hasValue && !d.broken {
			r.AnyStale = true
			return
		}
		r.MaxStale = r.MaxStale.smaller(d.delta())
	}
}

// pragmaNoCache looks for no-cache among the members of Pragma (§5.4).
func pragmaNoCache(lines []string) bool {
	for _, line := range lines {
		for line != "" {
			var d directive
			d, line = cutDirective(line)
			if d.name == "no-cache" {
				return true
			}
		}
	}
	return false
}

// directive is one member of Cache-Control:
// token [ "=" ( token / quoted-string ) ] (RFC 9111 §5.2).
type directive struct {
	name     string // lower case; "" where the member begins with no token
	value    string // without its quotes
	hasValue bool
	broken   bool // something stands where the grammar allows nothing
}

// cutDirective takes the first directive off a field line. A broken member ends
// at the next comma, and a quote that is never closed is a byte like any other:
// it must not swallow the no-store behind it.
func cutDirective(s string) (d directive, rest string) {
	s = strings.TrimLeft(s, " \t,")
	n := tokenLen(s)
	d.name, s = strings.ToLower(s[:n]), s[n:]
	if strings.HasPrefix(s, `="`) {
		if n, closed := quotedLen(s[1:]); closed {
			var junk string
			d.value, d.hasValue = unquote(s[1:n+1]), true
			junk, rest, _ = strings.Cut(s[n+1:], ",")
			d.broken = trimOWS(junk) != ""
			return d, rest
		}
	}
	tail, rest, _ := strings.Cut(s, ",")
	tail = strings.TrimRight(tail, " \t")
	d.value, d.hasValue = strings.CutPrefix(tail, "=")
	d.broken = tail != "" && !(d.hasValue && isToken(d.value))
	return d, rest
}

// delta reads the directive's seconds, quoted or not (§5.2: recipients ought to
// accept both).
func (d directive) delta() Delta {
	n, ok := parseDelta(d.value)
	if !ok || d.broken {
		return Delta{Set: true, Broken: true}
	}
	return Delta{D: n, Set: true}
}

// smaller joins two directives of one name to the one that caches less
// (§4.2.1 leaves the choice).
func (a Delta) smaller(b Delta) Delta {
	if !a.Set {
		return b
	}
	return Delta{D: min(a.D, b.D), Set: true, Broken: a.Broken || b.Broken}
}

// essential are the fields without which the rest of a response means something
// else, or lands with the wrong request.
var essential = []string{"Cache-Control", "Content-Encoding", "Content-Type", "Expires", "Location", "Vary"}

// fields returns the field names of a qualified no-cache or private, nil if it
// stands for the whole response. It also does where the list cannot be read or
// names an essential field: §5.2.2.4 and §5.2.2.7 let a cache take the qualified
// form for the unqualified one.
func (d directive) fields() []string {
	if !d.hasValue || d.broken {
		return nil
	}
	var fields []string
	for name := range strings.SplitSeq(d.value, ",") {
		name = textproto.CanonicalMIMEHeaderKey(trimOWS(name))
		if name == "" {
			continue
		}
		if !isToken(name) || slices.Contains(essential, name) {
			return nil
		}
		fields = append(fields, name)
	}
	return fields
}
