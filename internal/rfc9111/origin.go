package rfc9111

import (
	"maps"
	"net/http"
	"slices"
)

// An Origin is what the upstream has said of a response in whose place a handler has
// made another one.
type Origin struct {
	Status int
	Header http.Header // fields that limit what may be stored

	Replaced bool // the response is that of another upstream, and Header is not known
}

// limited is storable for a response that was made in place of x.Origin's. Both have to
// allow it, and the shorter lifetime counts. Validators and Last-Modified are those of
// what the handler has found, which tell nothing of the upstream: without a lifetime that
// is stated or configured it is not stored.
func limited(x Exchange, o Options) (Freshness, Reason) {
	origin := x.Origin
	x.Origin = nil
	if origin.Replaced {
		return Freshness{}, SecondUpstream
	}
	if origin.Status >= http.StatusBadRequest && x.Status < http.StatusBadRequest {
		return Freshness{}, HandledError
	}
	d, _ := directivesOf(origin.Header, o.Targeted)
	if reason := responseForbids(Exchange{Response: origin.Header}, d, o); reason != None {
		return Freshness{}, reason
	}
	x.Response = maps.Clone(x.Response)
	delete(x.Response, "Etag")
	delete(x.Response, "Last-Modified")
	if !origin.states(origin.Header, o) {
		return storable(x, o)
	}
	said := x
	said.Response = maps.Clone(x.Response)
	for _, name := range stating(o) {
		delete(said.Response, name)
		if lines := origin.Header[name]; len(lines) > 0 {
			said.Response[name] = lines
		}
	}
	f, reason := storable(said, o)
	if reason != None || !origin.states(x.Response, o) {
		return f, reason
	}
	own, reason := storable(x, o)
	if f.Lifetime < own.Lifetime {
		own, f = f, own
	}
	own.NoCache, own.MustRevalidate = own.NoCache || f.NoCache, own.MustRevalidate || f.MustRevalidate
	own.SharedAuth = own.SharedAuth && f.SharedAuth
	own.StaleWhileRevalidate = min(own.StaleWhileRevalidate, f.StaleWhileRevalidate)
	own.StaleIfError = min(own.StaleIfError, f.StaleIfError)
	return own, reason
}

// stating are the fields that state how long a response is fresh.
func stating(o Options) []string {
	targets := o.Targeted
	if targets == nil {
		targets = defaultTargets
	}
	return append([]string{"Cache-Control", "Expires"}, targets...)
}

func (*Origin) states(header http.Header, o Options) bool {
	return slices.ContainsFunc(stating(o), func(name string) bool { return len(header[name]) > 0 })
}

// WithVary returns the header of a response with the fields that the origin says it
// was selected by.
func (o *Origin) WithVary(header http.Header) http.Header {
	if o == nil || len(o.Header["Vary"]) == 0 {
		return header
	}
	header = maps.Clone(header)
	header["Vary"] = append(slices.Clone(header["Vary"]), o.Header["Vary"]...)
	return header
}
