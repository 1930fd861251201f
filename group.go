package caddygroupcache

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/rules"
)

// Handlers of one group are purged together. Their settings may differ:
//
//   - Those that say what a stored response may be used for are part of the key
//     (keyTerms). What one handler would not have stored, or not for this URL, no
//     handler that shares its keys has stored, on no node and before no reload.
//   - The others matter when a response comes in (ttl, stale, max_body_size), or to one
//     request (request_directives, fill_timeout, peer_timeout, cache_status, purge).
//     Each handler goes by its own, and freshness is that of the handler that stored.
//
// A request with an unsafe method, and a purge, concern what all of them have stored.

// handlersByGroup are the handlers of a config.
type handlersByGroup map[string]handlers

// handlers are some of those, mostly of one group.
type handlers []*Handler

// distinct are those of the handlers that differ, in their settings or by the routes around
// them.
func (all handlers) distinct() (some handlers) {
	for _, h := range all {
		if !slices.ContainsFunc(some, func(o *Handler) bool {
			return h.Group == o.Group && sameSettings(h, o) && h.route().ID() == o.route().ID()
		}) {
			some = append(some, h)
		}
	}
	return some
}

func sameSettings(h, o *Handler) bool {
	return h.Key == o.Key && h.terms == o.terms && h.MaxBodySize == o.MaxBodySize && h.RequestDirectives == o.RequestDirectives &&
		h.FillTimeout == o.FillTimeout && h.PeerTimeout == o.PeerTimeout && h.CacheStatus == o.CacheStatus && h.QueryMethod == o.QueryMethod &&
		reflect.DeepEqual(h.Purge, o.Purge) && reflect.DeepEqual(h.TTL, o.TTL) && reflect.DeepEqual(h.Stale, o.Stale) &&
		reflect.DeepEqual(h.Response, o.Response)
}

// keyTerms returns what of the settings tells a handler's entries from those of other
// handlers of the group, "" for the defaults.
func (h *Handler) keyTerms() string {
	var terms []string
	add := func(name string, differs bool, value any) {
		if differs {
			terms = append(terms, fmt.Sprintf("%s %q", name, value))
		}
	}
	if q := h.Query; q != nil {
		add("ignore", len(q.Ignore) > 0, q.Ignore)
		add("only", len(q.Only) > 0, q.Only)
		add("sort", q.Sort, "")
	}
	if c := h.Cookies; c != nil {
		add("cookies ignore", len(c.Ignore) > 0, c.Ignore)
		add("cookies only", len(c.Only) > 0, c.Only)
	}
	add("targeted", !slices.Equal(h.Targeted, rfc9111.DefaultTargets()), h.Targeted)
	add("set_cookie", h.SetCookie != refuseCookies, h.SetCookie)
	add("authorization", h.Authorization != honorCredentials, h.Authorization)
	add("tags", !slices.Equal(h.Tags, defaultTags()), h.Tags)
	add("expose_tags", h.ExposeTags, "")
	decides := rules.Terms(h.Response)
	add("response", decides != "", decides)
	return strings.Join(terms, " ")
}

// group returns the handlers of this one's group, of equal ones one.
func (h *Handler) group() handlers {
	if h.app == nil {
		return handlers{h}
	}
	h.app.mu.Lock()
	defer h.app.mu.Unlock()
	all, known := h.app.distinct[h.Group]
	if !known { // all handlers have been provisioned when the first request comes
		if h.app.distinct == nil {
			h.app.distinct = make(handlersByGroup)
		}
		all = h.app.groups[h.Group].distinct()
		h.app.distinct[h.Group] = all
	}
	return all
}

// byURL reports whether a change of a URL drops all that is stored of it: unless key
// templates tell more apart. Keys can't all be told from one request, for instance if its
// Host is in another case, or the route tells clients apart.
func (all handlers) byURL() bool {
	return slices.ContainsFunc(all, func(h *Handler) bool { return h.Key == "" || h.route().TellsClients() })
}

// keysOf returns the keys under which handlers without a key template can have stored
// responses to a target.
func (all handlers) keysOf(r *http.Request, uri string) (keys []store.Key) {
	for _, one := range all {
		if one.Key == "" {
			keys = append(keys, ownKeysOf(one, r, uri)...)
		}
	}
	return unique(keys)
}

// templatedKeysOf returns the keys that handlers with a template have for a request. The
// placeholders may say something else once it has been handed on.
func (all handlers) templatedKeysOf(r *http.Request) (keys []store.Key) {
	for _, one := range all {
		if one.Key != "" {
			keys = append(keys, ownKeysOf(one, r, requestURI(r))...)
		}
	}
	return unique(keys)
}

// selectorsOf returns what names the responses to a target, and to the request by a key
// template: their URL whatever else is in the key, and the keys that the request has.
func (all handlers) selectorsOf(r *http.Request, uri string) (names []store.Selector) {
	for _, one := range all {
		names = append(names, one.policy.Names(inbound.URLOf(r, uri), uri, true)...)
	}
	for _, k := range append(all.keysOf(r, uri), all.templatedKeysOf(r)...) {
		names = append(names, node.SelectorOf(k))
	}
	return unique(names)
}

func unique[T comparable](some []T) (all []T) {
	seen := make(map[T]bool, len(some))
	for _, one := range some {
		if !seen[one] {
			seen[one], all = true, append(all, one)
		}
	}
	return all
}

// explained returns those of the handlers that can decide differently about what is stored
// for a request. Of others it prefers one that the routes bring the request to.
func (all handlers) explained(r *http.Request) (some handlers) {
	for _, h := range all {
		i := slices.IndexFunc(some, func(o *Handler) bool {
			return h.Group == o.Group && h.Key == o.Key && h.terms == o.terms && h.RequestDirectives == o.RequestDirectives && h.route().ID() == o.route().ID()
		})
		switch {
		case i < 0:
			some = append(some, h)
		case !some[i].route().Reaches(r) && h.route().Reaches(r):
			some[i] = h
		}
	}
	return some
}
