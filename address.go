package caddygroupcache

import (
	"net/http"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

// addressing returns what makes the handler's cache key of a request.
func (h *Handler) addressing(r *http.Request) inbound.Addressing {
	return h.addressingBy(r, h.route().AppendKey(nil, r))
}

func (h *Handler) addressingBy(r *http.Request, around []byte) inbound.Addressing {
	a := inbound.Addressing{Group: h.Group, Terms: h.terms, Around: around, Query: h.Query, Store: h.node.Store, Template: h.Key}
	if h.Key != "" {
		a.Filled = replacer(r).ReplaceAll(h.Key, "")
	}
	return a
}

// addressOf returns the address that a request has, or would have for another
// target. It is false if there is none.
func (h *Handler) addressOf(r *http.Request, fields inbound.Fields, uri string) (inbound.Address, bool) {
	addresses := h.addressing(r)
	return addresses.Of(r, fields, uri)
}

// urlOf returns the URL by which the response to a request is purged.
func urlOf(r *http.Request) string { return inbound.URLOf(r, requestURI(r)) }

// pathOf returns the key that stands for all queries of a request's path.
func pathOf(h *Handler, r *http.Request, around []byte) store.Key {
	addresses := h.addressingBy(r, around)
	return addresses.Path(r, requestURI(r))
}

// ownKeysOf returns the keys under which a handler can store responses to a target.
func ownKeysOf(h *Handler, r *http.Request, uri string) []store.Key {
	addresses := h.addressing(r)
	a, ok := addresses.Of(r, inbound.FieldsOf(r.Header), uri)
	if !ok {
		return nil
	}
	return addresses.All(a, r, uri)
}

// A lesson is the No-Vary-Search of a storable response, if it tells what no node knew.
type lesson []string

// learn takes in what the header of a storable response says about queries. The
// response cannot be stored if the key was made of what other parameters say.
func (l *lesson) learn(x *fetch, own http.Header) rfc9111.Reason {
	if x.h.Key != "" || x.content != nil {
		return rfc9111.None // what the response says is of queries in URLs
	}
	said := rfc9111.ParseSearchVariance(own)
	if said.String() == x.search.String() {
		return rfc9111.None
	}
	x.h.node.Store.LearnSearchVariance(x.Namespace, pathOf(x.h, x.r, x.around), said)
	if x.search != nil {
		return rfc9111.NoVarySearch
	}
	*l = own["No-Vary-Search"]
	return rfc9111.None
}

// teach tells all nodes what was learned from a stored response, and stores it
// under the key that equivalent requests will have from now on.
func (l lesson) teach(x *fetch, e *store.Entry, body *node.Follower) {
	n, h := x.h.node, x.h
	var all sync.WaitGroup
	guard.GoWait(&all, func() {
		n.TellSearchVariance(x.Namespace, pathOf(h, x.r, x.around), l, x.PeerTimeout)
	})
	guard.GoWait(&all, func() {
		addresses := h.addressingBy(x.r, x.around)
		a, ok := addresses.Of(x.r, inbound.FieldsOf(x.r.Header), requestURI(x.r))
		if !ok || a.Search == nil { // it has been forgotten again
			return
		}
		if a.Unkeyed && e.Status >= http.StatusBadRequest {
			return // what the key has no more may be what is wrong
		}
		if x.flight.Generation != 0 {
			return // of a large body there is one copy
		}
		other := x.Lookup
		other.Key = a.Key
		n.StoreAtOwner(&other, e, x.flight.Fill.Bytes(), node.Outgoing{Follower: body, Flight: x.flight})
	})
	all.Wait()
}

// requestURI returns the request target as the client sent it, before any
// rewrite. Of one with scheme and host (RFC 9112 §3.2.2) these are left out: the
// host is the request's anyhow.
func requestURI(r *http.Request) string {
	uri := r.RequestURI
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		uri = original.RequestURI
		if uri == "" && original.URL != nil { // no client has sent it: httpInclude of templates has made it
			uri = original.URL.RequestURI()
		}
	}
	if strings.HasPrefix(uri, "/") {
		return uri
	}
	scheme, rest, absolute := strings.Cut(uri, "://")
	if !absolute || strings.Contains(scheme, ":") { // a:b://c/d has no host, and goes upstream as b://c/d
		return uri
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 && rest[i] == '/' {
		return rest[i:]
	} else if i >= 0 {
		return "/" + rest[i:]
	}
	return "/"
}

// A stored response answers whatever request has its key. So what the route around the
// cache makes of a request has to follow from the key. Where it doesn't, what it depends
// on is part of the key: the results of matchers behind the cache that look at the client,
// such as those of abort and handle, and placeholders in what handlers behind it do; the
// listener, where handlers of one group stand at several; and request fields that handlers
// in front have set from placeholders, as forward_auth does. docs/compositions.md has the
// table. A plain site has nothing of this, and its keys are what they were.

// route returns what of the route is part of the keys, or nil.
func (h *Handler) route() *routes.Route {
	if h.around == nil {
		return nil
	}
	h.around.once.Do(func() {
		if app, err := h.around.ctx.AppIfConfigured("http"); err == nil {
			h.around.is = routes.Around(app.(*caddyhttp.App), &routes.Cache{Handler: h, Query: h.Query, Template: h.Key != "", SameGroup: func(other caddyhttp.MiddlewareHandler) bool {
				o, ok := other.(*Handler)
				return ok && o.Group == h.Group
			}})
			if h.around.is.ByMethod() {
				h.logger.Warn("a method matcher stands before groupcache: requests that it keeps from the cache, such as PUT, invalidate nothing; remove it, since only GET, HEAD and QUERY are cached anyway", zap.String("group", h.Group))
			}
		}
	})
	return h.around.is
}

func replacer(r *http.Request) *caddy.Replacer {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}
