package routes

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// The express lane answers requests before Caddy's routes see them. So it has to know that
// these would bring the request to the cache, and do nothing else on the way: on it there
// may be matchers of host, path and method, which look at nothing but the request line and
// Host, and handlers that only tell others something.

// Find returns the handler to which routes bring a request first, if that is told by
// matchers of host, path and method alone; else nil. is reports whether a handler is one
// that is looked for.
func Find(routes caddyhttp.RouteList, r *http.Request, is func(caddyhttp.MiddlewareHandler) bool) caddyhttp.MiddlewareHandler {
	for _, one := range routes {
		if matched, sure := matchesSimply(one.MatcherSets, r); !sure {
			return nil
		} else if !matched {
			continue
		}
		for _, handler := range one.Handlers {
			if sub, ok := handler.(*caddyhttp.Subroute); ok {
				return Find(sub.Routes, r, is)
			} else if is(handler) {
				return handler
			} else if !tells(strings.TrimPrefix(moduleID(handler), "http.handlers.")) {
				return nil
			}
		}
		if one.Terminal || one.Group != "" { // of what follows some is passed over
			return nil
		}
	}
	return nil
}

// Has reports whether a handler stands in routes where Find looks for it: not in a named
// route, nor in those of another handler's answer or error.
func Has(routes caddyhttp.RouteList, handler caddyhttp.MiddlewareHandler) bool {
	return slices.ContainsFunc(routes, func(one caddyhttp.Route) bool {
		return slices.ContainsFunc(one.Handlers, func(h caddyhttp.MiddlewareHandler) bool {
			sub, ok := h.(*caddyhttp.Subroute)
			return h == handler || ok && Has(sub.Routes, handler)
		})
	})
}

// tells reports whether a handler only sets variables, which handlers behind it read, or says
// what is logged.
func tells(name string) bool { return name == "vars" || name == "log_append" }

// matchesSimply reports whether matchers match a request, and whether that is sure.
func matchesSimply(sets caddyhttp.MatcherSets, r *http.Request) (matched, sure bool) {
	sure = true
	for _, set := range sets {
		all, known := true, true
		for _, m := range set {
			if !isSimple(strings.TrimPrefix(moduleID(m), "http.matchers."), m) {
				known = false
			} else if ok, err := ask(m, r); !ok || err != nil {
				all, known = false, true // whatever the others say
				break
			}
		}
		if all && known {
			return true, true
		}
		sure = sure && known
	}
	return len(sets) == 0, sure
}

// isSimple reports whether a matcher looks at the request line and Host alone.
func isSimple(name string, settings any) bool {
	if !slices.Contains([]string{"host", "path", "method"}, name) {
		return false
	}
	text, err := json.Marshal(settings)
	return err == nil && !strings.Contains(string(text), "{") // a placeholder says anything
}

// A laneRoute is a route as a config has it.
type laneRoute struct {
	Match  []map[string]json.RawMessage `json:"match"`
	Handle []laneHandler                `json:"handle"`
}

type laneHandler struct {
	Handler string      `json:"handler"`
	Express bool        `json:"express"`
	Routes  []laneRoute `json:"routes"`
}

// InTheWay says what stands between the listener and a groupcache handler that has express
// among its options, in the routes of a server before its handlers are provisioned. "": nothing
// does, or there is no such handler. has reports whether there is one.
func InTheWay(routes caddyhttp.RouteList) (what string, has bool, err error) {
	all := make([]laneRoute, len(routes))
	for i, one := range routes {
		for _, set := range one.MatcherSets { // as automatic HTTPS has left them
			matchers := make(map[string]json.RawMessage)
			for _, m := range set {
				text, err := json.Marshal(m)
				if err != nil {
					return "", false, fmt.Errorf("matcher %s: %w", moduleID(m), err)
				}
				matchers[strings.TrimPrefix(moduleID(m), "http.matchers.")] = text
			}
			all[i].Match = append(all[i].Match, matchers)
		}
		for _, set := range one.MatcherSetsRaw {
			all[i].Match = append(all[i].Match, set)
		}
		for _, raw := range one.HandlersRaw {
			var h laneHandler
			if err := json.Unmarshal(raw, &h); err != nil {
				return "", false, fmt.Errorf("a handler: %w", err)
			}
			all[i].Handle = append(all[i].Handle, h)
		}
	}
	what, has = inTheWay(all)
	return what, has, nil
}

func inTheWay(routes []laneRoute) (what string, has bool) {
	before := "" // what takes all requests that come so far
	for _, one := range routes {
		open, matcher := one.takesAll()
		inFront := before // what stands in front of the next handler
		for _, h := range one.Handle {
			inside, found := "", h.Handler == "groupcache" && h.Express
			if h.Handler == "subroute" {
				inside, found = inTheWay(h.Routes)
			}
			if found && what == "" {
				what = cmp.Or(inFront, matcher, inside)
			}
			if has = has || found; !found && !tells(h.Handler) {
				inFront = cmp.Or(inFront, "the handler "+h.Handler)
			}
		}
		if open {
			before = inFront
		}
	}
	return what, has
}

// takesAll reports whether a route can take requests whatever their host, path and method
// are, and which of its matchers looks at more than these.
func (one *laneRoute) takesAll() (open bool, matcher string) {
	open = len(one.Match) == 0
	for _, set := range one.Match {
		simple := false
		for name, settings := range set {
			if isSimple(name, settings) {
				simple = true
			} else if matcher == "" || "the matcher "+name < matcher {
				matcher = "the matcher " + name
			}
		}
		open = open || !simple
	}
	return open, matcher
}

// CheckWrappers refuses listener wrappers of a server before which the lane would not understand a
// byte.
func CheckWrappers(wrappers []json.RawMessage) error {
	lane := false
	for _, raw := range wrappers {
		var one struct{ Wrapper string }
		if err := json.Unmarshal(raw, &one); err != nil {
			return fmt.Errorf("listener wrapper %s: %w", raw, err)
		}
		if lane && (one.Wrapper == "tls" || one.Wrapper == "proxy_protocol") {
			return fmt.Errorf("listener wrapper groupcache: it reads what %s leaves: write it after that", one.Wrapper)
		}
		lane = lane || one.Wrapper == "groupcache"
	}
	return nil
}

// ByURL reports whether a request's key has nothing of the routes but what follows from its
// URL and its listener.
func (a *Route) ByURL() bool {
	return a == nil || len(a.matchers)+len(a.placeholders)+len(a.fields) == 0 && !a.target
}
