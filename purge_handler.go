package caddygroupcache

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/purging"
	"github.com/caddy-groupcache/caddy-groupcache/options"
)

func init() { caddy.RegisterModule(new(PurgeHandler)) }

// PurgeHandler is a purge API on a route of the site, for applications that are to
// purge and not to reach Caddy's admin endpoint. It takes what POST
// /groupcache/purge takes, by POST, and answers alike; see PurgeRequest. It answers
// every request that it gets.
//
// Whoever may purge is named by Tokens and From, or authenticated by handlers
// before this one. A browser's requests from pages of other sites are refused.
type PurgeHandler struct {
	// The group that may be purged. Default: all groups, or what the request names.
	Group string `json:"group,omitempty"`

	// Whoever sends one of these as Authorization: Bearer may purge. Placeholders
	// are allowed. At least 16 bytes each.
	Tokens []string `json:"tokens,omitempty"`

	// Whoever comes from one of these addresses or ranges may purge; see From of
	// InBandPurge. Beside Tokens, both must fit.
	From []string `json:"from,omitempty"`

	// Says that handlers before this one, the listener or its client certificates
	// authenticate. Without Tokens and From it must be set, since everybody who
	// reaches the route may purge. Default: false.
	Authenticated bool `json:"authenticated,omitempty"`

	logger  *zap.Logger
	process *process
	purgers purging.Senders
	origins *http.CrossOriginProtection
}

// CaddyModule returns the Caddy module information.
func (*PurgeHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.groupcache_purge", New: func() caddy.Module { return new(PurgeHandler) }}
}

// Provision checks the options and finds the node.
func (h *PurgeHandler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.origins = http.NewCrossOriginProtection()
	if err := h.check(); err != nil {
		return err
	}
	app, err := ctx.App("groupcache")
	if err != nil {
		return fmt.Errorf("loading the groupcache app: %w", err)
	}
	h.process = app.(*App).process
	h.purgers, err = app.(*App).sendersOf(caddy.NewReplacer(), h.Tokens, h.From)
	return err
}

func (h *PurgeHandler) check() error {
	if len(h.Tokens) == 0 && len(h.From) == 0 && !h.Authenticated {
		return errors.New("groupcache_purge: everybody could purge: say who may, by token or from, or write authenticated if handlers before it, such as basic_auth, or the listener let nobody else in")
	}
	return checkRanges(h.From)
}

// ServeHTTP purges. It calls no next handler.
func (h *PurgeHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if cause := h.forbids(r); cause != "" {
		h.process.denials.refuse(h.logger, r, purging.Forbidden, cause)
		return caddyhttp.Error(http.StatusForbidden, errors.New("who asked for a purge may not"))
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return purging.WriteError(w, purging.Error{Status: http.StatusMethodNotAllowed, Text: "purge with POST, not " + r.Method})
	}
	result, err := h.purge(w, r)
	if err != nil {
		h.process.denials.refuse(h.logger, r, purging.NotUnderstood, answeredWhy)
		return purging.WriteError(w, err)
	}
	return result.Write(w)
}

// forbids returns why the sender of a request may not purge; "": it may.
func (h *PurgeHandler) forbids(r *http.Request) string {
	if err := h.origins.Check(r); err != nil {
		return "a browser sent it for a page of another site"
	}
	if len(h.Tokens) == 0 && len(h.From) == 0 {
		return ""
	}
	return whyForbidden(r, h.purgers)
}

func (h *PurgeHandler) purge(w http.ResponseWriter, r *http.Request) (result PurgeResult, err error) {
	req, err := purging.ReadRequest(w, r)
	if err != nil {
		return result, err
	}
	switch {
	case h.Group == "":
	case req.Group == "":
		req.Group = h.Group
	case req.Group != h.Group:
		return result, fmt.Errorf("group %.100q: this route purges group %s only", req.Group, h.Group)
	}
	purges, err := h.process.config.purgesOf(req)
	if err != nil {
		return result, err
	}
	return purgeAll(h.process.node, purges, h.logger), nil
}

func parsePurgeHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(PurgeHandler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from the directive. Syntax:
//
//	groupcache_purge [<matcher>] {
//		group         <name>
//		token         <secret>...
//		from          <address or range>...
//		authenticated
//	}
func (h *PurgeHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch option := d.Val(); option {
		case "group":
			if err := options.String(d, &h.Group); err != nil {
				return err
			}
		case "token", "from":
			if err := unmarshalPurgers(d, option, &h.Tokens, &h.From); err != nil {
				return err
			}
		case "authenticated":
			if err := options.Flag(d, &h.Authenticated); err != nil {
				return err
			}
		default:
			return d.Errf("unknown option %q of groupcache_purge: one of group, token, from, authenticated", option)
		}
	}
	if err := h.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*PurgeHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*PurgeHandler)(nil)
	_ caddyfile.Unmarshaler       = (*PurgeHandler)(nil)
)
