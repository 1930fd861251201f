package caddygroupcache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/express"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

func init() { caddy.RegisterModule(new(Express)) }

// Express is the express lane of a server: a listener wrapper, to be named after `tls`, that
// answers hits of handlers with the option express before Caddy's HTTP server sees the
// request. docs/lane.md says which requests, and what a hit has no more.
type Express struct {
	app    *App
	server *caddyhttp.Server
}

// CaddyModule returns the Caddy module information.
func (*Express) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.listeners.groupcache", New: func() caddy.Module { return new(Express) }}
}

// UnmarshalCaddyfile sets up the wrapper, which has no options.
func (e *Express) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // its name
	if d.NextArg() || d.NextBlock(0) {
		return d.ArgErr()
	}
	return nil
}

// Provision checks the sites of its server that have the option express.
func (e *Express) Provision(ctx caddy.Context) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return errors.New("the listener wrapper groupcache is for servers of the http app")
	}
	e.server = server
	if err := routes.CheckWrappers(server.ListenerWrappersRaw); err != nil {
		return err
	}
	app, err := ctx.App("groupcache")
	if err != nil {
		return fmt.Errorf("loading the groupcache app: %w", err)
	}
	e.app = app.(*App)
	e.app.lanes.Store(server, e)
	what, has, err := routes.InTheWay(server.Routes)
	switch {
	case err != nil:
		return fmt.Errorf("looking for handlers with express: %w", err)
	case has && what != "":
		return fmt.Errorf("express: %s is in the way: in front of the cache, in its site, only matchers of host, path and method may stand; move it behind the cache with a route block, or leave express out", what)
	case has:
		return e.checkServer()
	}
	return nil
}

// checkServer refuses what the lane would leave out.
func (e *Express) checkServer() error {
	s := e.server
	withoutHTTP1 := func(protocols []string) bool { return protocols != nil && !slices.Contains(protocols, "h1") }
	for option, set := range map[string]bool{
		"protocols without h1": withoutHTTP1(s.Protocols) || slices.ContainsFunc(s.ListenProtocols, withoutHTTP1),
		"read_timeout":         s.ReadTimeout > 0, "write_timeout": s.WriteTimeout > 0,
		"write_min_rate": s.WriteMinRate > 0, "client authentication, or strict_sni_host,": s.StrictSNIHost != nil && *s.StrictSNIHost,
	} {
		if set {
			return fmt.Errorf("express: %s of the same server has no effect on what the lane answers: leave one of them out", option)
		}
	}
	return nil
}

// WrapListener puts the lane in front of a listener's connections.
func (e *Express) WrapListener(ln net.Listener) net.Listener {
	return express.NewListener(ln, express.Options{
		Find: func(r *http.Request) express.Site {
			h, ok := routes.Find(e.server.Routes, r, hasLane).(*Handler)
			if !ok {
				return nil
			}
			site := &laneSite{h: h}
			if e.server.Logs != nil {
				site.server = e.server
			}
			return site
		},
		Files:         e.app.process.laneFiles,
		Targets:       &e.app.process.targets,
		Context:       context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer()),
		IdleTimeout:   time.Duration(e.server.IdleTimeout),
		HeaderTimeout: time.Duration(e.server.ReadHeaderTimeout),
		WriteTimeout:  time.Duration(e.server.WriteIdleTimeout),
	}, &e.app.process.laneOpen)
}

func hasLane(handler caddyhttp.MiddlewareHandler) bool {
	h, ok := handler.(*Handler)
	return ok && h.Express && h.route().ByURL()
}

// noteTarget notes that the lane may have an answer to the next request like this one.
func noteTarget(h *Handler, r *http.Request) {
	if !h.Express {
		return
	}
	if original, known := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); known {
		h.app.process.targets.Note(original.RequestURI)
	}
}

// learnFront takes in what Caddy sets in each response, if this one is of a request that the
// lane could have answered: for others, handlers in front of the cache may have set more.
func (h *Handler) learnFront(header http.Header, r *http.Request) {
	if h.front.Knows(header) {
		return
	}
	server, served := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	original, known := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !served || !known {
		return
	}
	original.Host = r.Host
	if routes.Find(server.Routes, original.WithContext(r.Context()), hasLane) == h {
		h.front.Learn(header, len(server.TLSConnPolicies) > 0 && (server.Protocols == nil || slices.Contains(server.Protocols, "h3")))
	}
}

// maxGrace is how long responses may go on when the process ends, if Caddy has no grace
// period.
const maxGrace = 10 * time.Second

// Cleanup waits for responses that are still being written when the process ends, those of
// configs before too. A reload waits for none.
func (e *Express) Cleanup() error {
	if e.app == nil || !caddy.Exiting() {
		return nil
	}
	grace := maxGrace
	if by := e.app.process.stopBy.Load(); by != nil {
		grace = time.Until(*by)
	}
	e.app.process.laneOpen.Wait(grace)
	return nil
}

// checkExpress refuses the option express where no lane can answer.
func (a *App) checkExpress(ctx caddy.Context, h *Handler) error {
	if !h.Express {
		return nil
	}
	if h.Key != "" {
		return errors.New("express: a key template can have anything of a request: leave one of them out")
	}
	if _, has := a.lanes.Load(ctx.Value(caddyhttp.ServerCtxKey)); !has {
		return errors.New("express: its server has no express lane: write `servers { listener_wrappers { groupcache } }` into the global options")
	}
	return nil
}

// checkLanes refuses the option express where what stands behind the cache looks at the
// client: that shows when all of the config is provisioned.
func (a *App) checkLanes() error {
	for _, group := range a.groups {
		for _, h := range group {
			switch {
			case !h.Express:
			case !a.hasLaneFor(h):
				return fmt.Errorf("express, in group %s: the lane does not look for the cache in a named route, nor in handle_errors or handle_response: leave express out there", h.Group)
			case !h.route().ByURL():
				return fmt.Errorf("express, in group %s: handlers or matchers around the cache look at more of a request than its URL: leave express out, or move them to another site", h.Group)
			}
		}
	}
	return nil
}

func (a *App) hasLaneFor(h *Handler) (has bool) {
	a.lanes.Range(func(_, lane any) bool {
		has = routes.Has(lane.(*Express).server.Routes, h)
		return !has
	})
	return has
}

// A laneSite is a handler as the express lane sees it.
type laneSite struct {
	h      *Handler
	server *caddyhttp.Server // sees what the lane answers, because it has access logs; nil: none does
}

// Answer answers a request of the express lane if it is a plain hit: the steps receive,
// look up and hit of ServeHTTP.
func (site *laneSite) Answer(w *express.Writer, r *http.Request) bool {
	h := site.h
	h.route().Cut(h.Cookies, r)
	x := exchange{h: h, r: r}
	if x.receive() != rfc9111.None || x.lookUp() != stepHit {
		return false
	}
	s := x.takeFound()
	e := s.entry
	if s.status != statusHit || e.Failed || e.Large() || e.Appends {
		return false
	}
	pin, ok := h.node.Pins.Body(x.Key, e, s.body)
	if !ok {
		return false
	}
	defer h.node.Pins.Release(pin)
	body := pin.Of(s.body)
	if !w.Header(e, h.front) {
		return false
	}
	w.FromFile(x.Key, e.Generation, body)
	age, member := s.fields(h)
	w.Field("Age", age)
	if h.cacheName != "" {
		w.Field("Cache-Status", member)
	}
	if site.server != nil {
		s.body = nil
		if !site.sendThrough(w, s, body) {
			return false
		}
	} else {
		h.counters.requests[statusHit].Add(1)
		h.logDecision(r, statusHit, "", s.detail.(string), false)
		w.Send(body)
	}
	h.node.HotKeys.Note(h.Group, x.Key, r, urlOf)
	return true
}

// sendThrough sends a hit of the lane while its server handles the request, whose handlers
// learn from hitHeader what the response is.
func (site *laneSite) sendThrough(w *express.Writer, s storedResponse, body []byte) bool {
	return w.SendThrough(site.server, body, func(w http.ResponseWriter, r *http.Request) {
		x := exchange{h: site.h, w: w, r: r}
		s.hitHeader(&x)
		w.WriteHeader(s.entry.Status)
	})
}

// Interface guards
var (
	_ caddy.ListenerWrapper = (*Express)(nil)
	_ caddy.Provisioner     = (*Express)(nil)
	_ caddy.CleanerUpper    = (*Express)(nil)
	_ caddyfile.Unmarshaler = (*Express)(nil)
)
