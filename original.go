package caddygroupcache

import (
	"context"
	"maps"
	"net/http"
	"net/url"

	"github.com/caddyserver/caddy/v2"
)

// An original is a request as it came to the cache. The handlers behind it may
// change the client's in place, so that placeholders show the change: handle_path
// does so to the path, request_header to the fields, and a route of a group (as
// handle makes them) that has had its turn is passed over after that. What the
// cache needs of the request once they have run is kept here, and so is what has
// to be put back before they run for it once more.
type original struct {
	request *http.Request // with a header that nobody changes
	client  *http.Request
	url     url.URL
	groups  map[string]struct{} // of routes, which had their turn before
	ran     bool
}

// routeGroups is the key under which Caddy keeps the groups of routes that have had
// their turn. It doesn't export its own.
const routeGroups = caddy.CtxKey("route_group")

func newOriginal(r *http.Request) *original {
	o := &original{request: r.WithContext(r.Context()), client: r, url: *r.URL}
	o.request.Header = r.Header.Clone()
	o.groups = maps.Clone(groupsOf(r))
	return o
}

func groupsOf(r *http.Request) map[string]struct{} {
	groups, _ := r.Context().Value(routeGroups).(map[string]struct{})
	return groups
}

// forUpstream returns what the handlers behind the cache are to be called with: the
// client's request as it came, but with the given header, which is theirs from here on,
// if that is not nil.
func (o *original) forUpstream(ctx context.Context, header http.Header) *http.Request {
	o.restore()
	o.ran = true
	if header != nil {
		o.setHeader(header)
	}
	return o.client.WithContext(ctx)
}

// setHeader changes the client's header in place.
func (o *original) setHeader(header http.Header) {
	clear(o.client.Header)
	maps.Copy(o.client.Header, header)
}

// restore puts back what the handlers have changed of the client's request.
func (o *original) restore() {
	if !o.ran {
		return
	}
	o.ran = false
	*o.client.URL = o.url
	o.setHeader(o.request.Header.Clone())
	maps.DeleteFunc(groupsOf(o.client), func(name string, _ struct{}) bool {
		_, had := o.groups[name]
		return !had
	})
}

// keep returns the question's request as it came, whatever becomes of the client's
// from here on.
func (q *question) keep(r *http.Request) *original {
	if q.original == nil {
		q.original = newOriginal(r)
		q.header = q.original.request.Header
	}
	return q.original
}
