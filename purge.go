package caddygroupcache

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/events"
	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/purging"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/options"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

// A PurgeRequest is what POST /groupcache/purge takes.
type PurgeRequest = purging.Request

// A PurgeResult is what it answers.
type PurgeResult = purging.Result

func (p *process) servePurge(w http.ResponseWriter, r *http.Request) error {
	req, err := purging.ReadRequest(w, r)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	purges, err := p.config.purgesOf(req)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	return purgeAll(p.node, purges, p.config.logger()).Write(w)
}

// purgeAll applies purges in the whole cluster.
func purgeAll(n *node.Node, purges []store.Purge, logger *zap.Logger) PurgeResult {
	result := purging.Everywhere(&n.Purger, purges)
	var named events.KindCounts
	for _, one := range purges {
		named = append(named, one.Selectors...)
	}
	logger.Info("purged", zap.String("id", result.ID), zap.String("group", purges[0].Group), zap.Bool("soft", purges[0].Soft),
		zap.Object("named", named), zap.Int("nodes", len(result.Nodes)), zap.Strings("not_acknowledged", result.Missing()))
	return result
}

// purgesOf makes purges of a request. Nothing has been purged if it fails.
func (c *runningConfig) purgesOf(req PurgeRequest) ([]store.Purge, error) {
	handlers := c.handlersOf(req.Group)
	if req.Group != "" && len(handlers) == 0 {
		return nil, fmt.Errorf("group %q: no handler of the running config has it", req.Group)
	}
	selectors, err := req.Selectors(peer.MaxSelectorLength)
	if err != nil {
		return nil, err
	}
	return req.Purges(withKeys(selectors, handlers.distinct())), nil
}

// namesOf returns a purge's selectors, and the names that the config has for its URLs.
func (c *runningConfig) namesOf(p store.Purge) []store.Selector {
	if !slices.ContainsFunc(p.Selectors, func(s store.Selector) bool { return s.Kind == store.URL }) {
		return nil
	}
	return withKeys(p.Selectors, c.handlersOf(p.Group).distinct())
}

// withKeys adds to each URL the other names that handlers have for its responses: what they
// ignore of the URL may have been another in the request that fetched the response.
func withKeys(selectors []store.Selector, from handlers) (all []store.Selector) {
	for _, s := range selectors {
		all = append(all, s)
		if s.Kind != store.URL {
			continue
		}
		for _, h := range from {
			if r, err := routes.RequestFor(http.MethodGet, s.Value, nil); err == nil {
				all = append(all, handlers{h}.selectorsOf(r, r.RequestURI)...)
			}
		}
	}
	return unique(all)
}

// checkRanges checks what can be read before placeholders are filled in.
func checkRanges(from []string) error {
	for _, s := range from {
		if _, err := purging.ParseRange(s); err != nil && !options.HasPlaceholder(s) {
			return err
		}
	}
	return nil
}

// answeredWhy is the cause where the client knows more than the log may have.
const answeredWhy = "the answer says what would be right"

// whyForbidden returns why the sender of a request is not among those who may purge; "":
// it is.
func whyForbidden(r *http.Request, allowed purging.Senders) string {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return allowed.Forbid(r, client, forgeable(r))
}

// forgeable reports whether a client may have chosen its own address. Caddy takes
// the leftmost address of X-Forwarded-For, to which proxies only append, unless
// trusted_proxies_strict is set. The proxy's own address is no substitute: it would
// let all its clients in. A handler is told of trusted_proxies only with a request.
func forgeable(r *http.Request) bool {
	proxied, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	if !proxied {
		return false
	}
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return server == nil || server.TrustedProxiesStrict == 0
}

// servePurge answers a request that purges.
func (h *Handler) servePurge(w http.ResponseWriter, r *http.Request) error {
	if cause := whyForbidden(r, h.purgers); cause != "" {
		h.denials.refuse(h.logger, r, purging.Forbidden, cause)
		return caddyhttp.Error(http.StatusForbidden, errors.New("who asked for a purge may not"))
	}
	selectors, soft, err := purgeOf(h, r)
	if err != nil {
		h.denials.refuse(h.logger, r, purging.NotUnderstood, answeredWhy)
		h.logger.Debug("purge not understood", zap.Error(err))
		return purging.WriteError(w, err)
	}
	req := PurgeRequest{Group: h.Group, Soft: soft}
	return purgeAll(h.node, req.Purges(selectors), h.logger).Write(w)
}

// purgeOf returns what a request to a handler purges, and whether softly.
func purgeOf(h *Handler, r *http.Request) (selectors []store.Selector, soft bool, err error) {
	if inbound.HasBody(r) {
		return nil, false, purging.Malformed("a %s has no body: name what to purge by the URL or a field, or send JSON to POST /groupcache/purge or a route of groupcache_purge", r.Method)
	}
	p, err := purging.ReadInband(r, requestURI(r), h.Tags)
	if err != nil {
		return nil, false, err
	}
	selectors = withKeys(p.Selectors, h.group())
	if p.Own { // a key template may have fields in it
		selectors = unique(append(selectors, h.group().selectorsOf(r, requestURI(r))...))
	}
	return selectors, p.Soft, nil
}

// purgeRefusals counts the purges that were refused, and logs them.
type purgeRefusals struct{ purging.Refusals }

// refuse counts and logs a purge that is refused. The cause has nothing of the request
// in it.
func (p *purgeRefusals) refuse(logger *zap.Logger, r *http.Request, why purging.Refusal, cause string) {
	remote := remoteHost(r)
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if client == "" || forgeable(r) { // or a client could have as many lines as it likes
		client = remote
	}
	if held, log := p.Note(why, client, time.Now()); log {
		logger.Warn("purge refused", zap.String("client", client), zap.String("remote", remote), zap.String("method", r.Method),
			zap.String("reason", why.String()), zap.String("cause", cause), zap.Int("held_back", held))
	}
}
