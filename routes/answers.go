package routes

import (
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// answering tells which handlers of a server answer every request that comes to them, so that
// no request goes on to the handlers after them. Only handlers that are known to do so count: a
// list that is wrongly taken for one that answers hides an authentication.
type answering struct {
	named   map[string]*caddyhttp.Route
	invoked []string        // named routes that are being looked at
	shared  map[string]bool // groups in more than one list: a route elsewhere may have had their turn
	catches bool            // some subroute has routes for errors: an error may go on anywhere then
}

func newAnswering(server *caddyhttp.Server) *answering {
	a := &answering{named: server.NamedRoutes, shared: make(map[string]bool)}
	s := &surroundings{named: server.NamedRoutes}
	lists := make(map[string]*caddyhttp.Route) // the first route of the list that a group is in
	var walk func(caddyhttp.RouteList)
	walk = func(routes caddyhttp.RouteList) {
		for i := range routes {
			if group := routes[i].Group; group != "" {
				a.shared[group] = a.shared[group] || lists[group] != nil && lists[group] != &routes[0]
				lists[group] = &routes[0]
			}
			for _, handler := range routes[i].Handlers {
				if list, is := handler.(*caddyhttp.Subroute); is && list.Errors != nil {
					a.catches = true
				}
				s.eachList(handler, walk)
			}
		}
	}
	walk(server.Routes)
	return a
}

// ends reports whether no request goes on from a route to those after it.
func (a *answering) ends(one caddyhttp.Route) bool {
	return one.Terminal && !a.catches || a.any(one.Handlers)
}

// list reports whether routes answer every request. A route without matchers does, unless
// another one of its group has had its turn: Caddy passes it over then. Behind a terminal
// route, Caddy ends a request without an answer.
func (a *answering) list(routes caddyhttp.RouteList) bool {
	var passed []string // groups of routes that may have let a request pass
	for _, one := range routes {
		all := len(one.MatcherSets) == 0 && !a.shared[one.Group] && !slices.Contains(passed, one.Group)
		switch answers := a.any(one.Handlers); {
		case answers && all:
			return true
		case answers:
		case one.Terminal:
			return false
		case one.Group != "":
			passed = append(passed, one.Group)
		}
	}
	return false
}

func (a *answering) any(handlers []caddyhttp.MiddlewareHandler) bool {
	return slices.ContainsFunc(handlers, a.handler)
}

func (a *answering) handler(handler caddyhttp.MiddlewareHandler) bool {
	switch handler := handler.(type) {
	case *caddyhttp.StaticError, *reverseproxy.CopyResponseHandler:
		return !a.catches
	case *caddyhttp.StaticResponse:
		return handler.Abort || isFinal(handler.StatusCode)
	case *fileserver.FileServer:
		return !handler.PassThru && !a.catches
	case *reverseproxy.Handler:
		return !a.asksWho(handler) && !a.catches
	case *caddyhttp.Subroute: // its routes for errors go on to the same handlers
		return a.list(handler.Routes) && (handler.Errors == nil || a.list(handler.Errors.Routes))
	case *caddyhttp.Invoke:
		one := a.named[handler.Name]
		if one == nil || slices.Contains(a.invoked, handler.Name) {
			return false
		}
		a.invoked = append(a.invoked, handler.Name)
		defer func() { a.invoked = a.invoked[:len(a.invoked)-1] }()
		return a.list(caddyhttp.RouteList{*one})
	}
	return false
}

// isFinal reports whether respond ends with a status: after 103 (Early Hints) Caddy goes on.
// An upstream's status is a final one.
func isFinal(status caddyhttp.WeakString) bool {
	if status == "" || status == "{"+proxiedStatus+"}" {
		return true
	}
	n, err := strconv.Atoi(status.String())
	return err == nil && n != 103
}

// asksWho reports whether a handler lets only some clients on: an authentication, or a proxy
// that hands a request on if its upstream agrees, as forward_auth does: where no route in
// handle_response answers, Caddy goes on with the handlers after the proxy.
func (a *answering) asksWho(handler caddyhttp.MiddlewareHandler) bool {
	proxy, is := handler.(*reverseproxy.Handler)
	return moduleID(handler) == "http.handlers.authentication" || is && slices.ContainsFunc(proxy.HandleResponse, func(one caddyhttp.ResponseHandler) bool {
		return one.StatusCode == "" && !a.list(one.Routes)
	})
}
