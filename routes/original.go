package routes

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// An Original is a request as it came to the cache. The handlers behind it may
// change the client's in place, so that placeholders show the change: handle_path
// does so to the path, request_header to the fields, and a route of a group (as
// handle makes them) that has had its turn is passed over after that. What the
// cache needs of the request once they have run is kept here, and so is what has
// to be put back before they run for it once more.
type Original struct {
	Request *http.Request // with a header that nobody changes
	client  *http.Request
	url     url.URL
	groups  map[string]struct{} // of routes, which had their turn before
	content inbound.Content
	ran     bool
}

// routeGroups is the key under which Caddy keeps the groups of routes that have had
// their turn. It doesn't export its own.
const routeGroups = caddy.CtxKey("route_group")

// NewOriginal keeps a request, and its content if it is a QUERY.
func NewOriginal(r *http.Request, content inbound.Content) *Original {
	o := &Original{Request: r.WithContext(r.Context()), client: r, url: *r.URL, content: content}
	o.Request.Header = r.Header.Clone()
	o.groups = maps.Clone(groupsOf(r))
	return o
}

func groupsOf(r *http.Request) map[string]struct{} {
	groups, _ := r.Context().Value(routeGroups).(map[string]struct{})
	return groups
}

// ForUpstream returns what the handlers behind the cache are to be called with: the
// client's request as it came, but with the given header, which is theirs from here on,
// if that is not nil.
func (o *Original) ForUpstream(ctx context.Context, header http.Header) *http.Request {
	o.Restore()
	o.ran = true
	if header != nil {
		o.setHeader(header)
	}
	o.content.PutBack(o.client)
	return o.client.WithContext(ctx)
}

// setHeader changes the client's header in place.
func (o *Original) setHeader(header http.Header) {
	clear(o.client.Header)
	maps.Copy(o.client.Header, header)
}

// AddLoop adds a member to the CDN-Loop field of what ForUpstream has returned. That is
// the client's header, so RemoveLoop takes it away again when the handlers have
// returned: a cache in an error route is behind nobody.
func (o *Original) AddLoop(member string) {
	o.client.Header[rfc9111.LoopField] = append(slices.Clone(o.Request.Header[rfc9111.LoopField]), member)
}

// RemoveLoop takes it away.
func (o *Original) RemoveLoop() {
	if lines := o.Request.Header[rfc9111.LoopField]; lines != nil {
		o.client.Header[rfc9111.LoopField] = slices.Clone(lines)
	} else {
		delete(o.client.Header, rfc9111.LoopField)
	}
}

// Restore puts back what the handlers have changed of the client's request.
func (o *Original) Restore() {
	if !o.ran {
		return
	}
	o.ran = false
	*o.client.URL = o.url
	o.content.PutBack(o.client)
	o.setHeader(o.Request.Header.Clone())
	maps.DeleteFunc(groupsOf(o.client), func(name string, _ struct{}) bool {
		_, had := o.groups[name]
		return !had
	})
}

// Client returns the client's request, as it came.
func (o *Original) Client() *http.Request {
	o.Restore()
	return o.client
}
