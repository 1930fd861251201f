package caddygroupcache

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

// A stored response answers whatever request has its key. So what the route around the
// cache makes of a request has to follow from the key. Where it doesn't, what it depends
// on is part of the key: the results of matchers behind the cache that look at the client,
// such as those of abort and handle, and placeholders in what handlers behind it do; the
// listener, where handlers of one group stand at several; and request fields that handlers
// in front have set from placeholders, as forward_auth does. docs/compositions.md has the
// table. A plain site has nothing of this, and its keys are what they were.

// lazyRoute finds a handler's route at its first request: while it is provisioned, the
// routes are too.
type lazyRoute struct {
	ctx  caddy.Context
	once sync.Once
	is   *routes.Route
}

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
