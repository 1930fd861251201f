// Package routes tells what the routes of a Caddy config make of a request around one of
// its handlers, by more than the URL that the client has sent.
package routes

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	maphandler "github.com/caddyserver/caddy/v2/modules/caddyhttp/map"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Route is what of the routes around a handler is part of its keys. nil: nothing.
type Route struct {
	name         string // what the rest is, and the matchers above, for all requests
	matchers     []any
	defines      []bool // whether a matcher can define placeholders of its regular expression
	placeholders []string
	regexps      []string // those placeholders that are of regular expressions
	kept         []string // names of all those that handlers behind the cache read
	carried      []string // placeholders that they tell the upstream
	responses    []string // names of placeholders of response fields that they read
	fields       []string // canonical
	target       bool     // what handlers in front have made of the URL is part of the key
	query        *inbound.Query

	// Fields that handlers behind the cache set for the upstream by what is not in the key,
	// canonical. A response that varies by one of them can't be stored.
	changed []string

	guards   [][]caddyhttp.MatcherSets // see Guarded: what is on the way from the cache to each authentication
	second   []*reverseproxy.Handler   // see askedTwo: those in handle_response of another one
	byMethod bool                      // see ByMethod
	ways     []caddyhttp.MatcherSets   // all matchers on the way to the handler, the nearest first

	defining []defining
}

// defining is a route in front of the cache whose matchers or map handlers define
// placeholders.
type defining struct {
	matchers caddyhttp.MatcherSets
	maps     []caddyhttp.MiddlewareHandler
}

// Define has a request that comes from no client get the placeholders that the routes in
// front of the cache define for it.
func (a *Route) Define(r *http.Request) {
	if a == nil {
		return
	}
	nothing := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	for _, one := range a.defining {
		if ok, err := one.matchers.AnyMatchWithError(r); !ok || err != nil {
			continue
		}
		for _, m := range one.maps {
			_ = m.ServeHTTP(Nobody{Fields: make(http.Header)}, r, nothing) // a map has no errors of its own
		}
	}
}

// ChangedFields returns the request fields that handlers behind the cache set by what is
// not in the key.
func (a *Route) ChangedFields() []string {
	if a == nil {
		return nil
	}
	return a.changed
}

// ByMethod reports whether a method matcher decides by itself what does not reach the cache.
func (a *Route) ByMethod() bool { return a != nil && a.byMethod }

// keepsByMethod reports whether a set of matchers keeps requests by their method alone. A
// method beside other matchers in a not, as in "neither a GET of a page nor one with a
// cookie", lets all other methods in.
func keepsByMethod(set caddyhttp.MatcherSet) bool {
	return slices.ContainsFunc(set, func(m any) bool {
		if not, ok := m.(*caddyhttp.MatchNot); ok {
			return slices.ContainsFunc(not.MatcherSets, func(negated caddyhttp.MatcherSet) bool {
				return len(negated) == 1 && moduleID(negated[0]) == "http.matchers.method"
			})
		}
		return moduleID(m) == "http.matchers.method"
	})
}

// Reaches reports whether the route brings a request to the handler, as far as that can be
// told without its client.
func (a *Route) Reaches(r *http.Request) bool {
	return a == nil || !slices.ContainsFunc(a.ways, func(sets caddyhttp.MatcherSets) bool {
		ok, err := sets.AnyMatchWithError(r)
		return !ok && err == nil
	})
}

// ID tells the route from others. Where handlers have the same settings and id, they have
// the same keys.
func (a *Route) ID() string {
	if a == nil {
		return ""
	}
	return a.name
}

// Take has a request that comes from no client know what handlers in front have left in
// placeholders for the client's.
func (a *Route) Take(to, from *http.Request) {
	if a == nil || len(a.placeholders)+len(a.carried) == 0 {
		return
	}
	had, has := replacerOf(from), replacerOf(to)
	for _, p := range slices.Concat(a.placeholders, a.carried) {
		name := strings.Trim(p, "{}")
		if value, ok := had.Get(name); ok {
			if _, known := has.Get(name); !known {
				has.Set(name, value)
			}
		}
	}
}

// TellsClients reports whether a request's key depends on more than its URL and settings, so
// that the keys of a URL can't all be told from another request.
func (a *Route) TellsClients() bool { return !a.ByURL() }

// AppendKey appends what a request has of the route.
func (a *Route) AppendKey(b []byte, r *http.Request) []byte {
	if a == nil || a.name == "" {
		return b
	}
	if len(a.kept) > 0 {
		defer keepRegexps(a.kept, replacerOf(r))()
	}
	b = store.AppendPart(b, a.name)
	b = appendPlaceholders(b, a.regexps, r)
	for i, m := range a.matchers {
		switch ok, err := ask(m, r); {
		case err != nil: // the route answers with it, whatever others get whom the matcher does not match
			b = append(b, 2)
		case ok:
			b = append(b, 1)
		default:
			b = append(b, 0)
		}
		if a.defines[i] { // the next one may define the same
			b = appendPlaceholders(b, a.regexps, r)
		}
	}
	b = appendPlaceholders(b, a.placeholders, r)
	if a.target {
		uri := r.URL.RequestURI()
		if a.query != nil {
			uri = a.query.Normalize(uri)
		}
		b = store.AppendPart(b, uri)
	}
	for _, name := range a.fields {
		b = append(b, byte(min(len(r.Header[name]), 255)))
		for _, line := range r.Header[name] {
			b = store.AppendPart(b, line)
		}
	}
	return b
}

// Cut removes cookies from a request that comes to the cache. If without them a matcher or
// a placeholder around the cache says something else, the request keeps them all: a guard
// behind the cache would miss what it looks for, and what handlers in front have made of the
// request by a cookie would be stored for those who don't send it.
func (a *Route) Cut(c *inbound.Cookies, r *http.Request) {
	lines := r.Header["Cookie"]
	if c == nil || len(lines) == 0 {
		return
	}
	if a == nil || a.name == "" {
		c.Cut(r.Header)
		return
	}
	all := a.AppendKey(nil, r)
	c.Cut(r.Header)
	if !bytes.Equal(all, a.AppendKey(nil, r)) {
		r.Header["Cookie"] = lines
	}
}

// appendPlaceholders appends what placeholders say of a request.
func appendPlaceholders(b []byte, placeholders []string, r *http.Request) []byte {
	if len(placeholders) == 0 {
		return b
	}
	repl := replacerOf(r)
	for _, p := range placeholders {
		b = store.AppendPart(b, repl.ReplaceAll(p, ""))
	}
	return b
}

// keepRegexps returns what puts placeholders of regular expressions back, by their names. The
// matchers that are asked for the key are not all asked on the way behind the cache.
func keepRegexps(names []string, repl *caddy.Replacer) (restore func()) {
	before := make(map[string]any)
	for _, name := range names {
		if value, ok := repl.Get(name); ok {
			before[name] = value
		}
	}
	return func() {
		for _, name := range names {
			if value, had := before[name]; had {
				repl.Set(name, value)
			} else {
				repl.Delete(name)
			}
		}
	}
}

// ask asks a matcher about a request.
func ask(m any, r *http.Request) (bool, error) {
	switch m := m.(type) {
	case caddyhttp.RequestMatcherWithError:
		return m.MatchWithError(r)
	//lint:ignore SA1019 other modules have only this one
	case caddyhttp.RequestMatcher:
		return m.Match(r), nil
	}
	return false, nil
}

// A Cache is the handler around which the routes are looked at.
type Cache struct {
	Handler   caddyhttp.MiddlewareHandler
	SameGroup func(caddyhttp.MiddlewareHandler) bool // of another handler
	Query     *inbound.Query                         // what counts of the query; nil: all
	Template  bool                                   // the key is a template, which may have nothing of the URL
}

// Around returns what the routes of all servers make of requests around a cache.
func Around(app *caddyhttp.App, of *Cache) *Route {
	s := &surroundings{cache: of}
	var own, others []*caddyhttp.Server // that have handlers of the group
	for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
		server := app.Servers[name]
		s.named, s.replies = server.NamedRoutes, newAnswering(server)
		s.hostChanges = s.changesHost(server.Routes)
		switch {
		case s.list(server.Routes):
			own = append(own, server)
			s.place = name + " " + s.place
		case hasGroup(server.Routes, server.NamedRoutes, of):
			others = append(others, server)
		}
	}
	s.listener = listenerOf(own, others)
	return s.route()
}

// listenerOf names the listener of a handler, if handlers of its group stand at others too
// that have the same scheme: by ports, which are the same on all nodes, or if these are not
// enough, by addresses.
func listenerOf(own, others []*caddyhttp.Server) string {
	if len(own) == 0 {
		return ""
	}
	secure := func(s *caddyhttp.Server) bool { return len(s.TLSConnPolicies) > 0 }
	ports := portsOf(own[0])
	several := false
	for _, o := range others {
		if secure(o) != secure(own[0]) {
			continue
		}
		if portsOf(o) == ports {
			return strings.Join(own[0].Listen, " ")
		}
		several = true
	}
	if !several {
		return ""
	}
	return ports
}

func portsOf(s *caddyhttp.Server) string {
	var ports []string
	for _, addr := range s.Listen {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			port = addr
		}
		ports = append(ports, port)
	}
	slices.Sort(ports)
	return strings.Join(slices.Compact(ports), " ")
}

// surroundings are what stands around a handler.
type surroundings struct {
	cache    *Cache
	named    map[string]*caddyhttp.Route
	invoked  []string   // named routes that are being walked: none invokes itself for ever
	replies  *answering // of the server that is being walked
	listener string

	byMethod         bool
	ways             []caddyhttp.MatcherSets
	answered         bool     // by an upstream in front of the cache, as with forward_auth
	answers          []string // placeholders behind it, of what an upstream has answered
	changedByAnswers []string // fields that are set by those
	chosen           []string // placeholders of those answers that have chosen a list above it

	hostChanges bool // between a matcher of the host and the cache, perhaps

	place   string // where it stands in the routes of its server
	foreign bool   // whether some of the matchers are other modules than Caddy's

	way          string // what above is, with what is negated
	times        int    // how often it stands in the routes: a named route may be invoked at several places
	target       bool
	matchers     []any
	names        []string // of matchers
	placeholders []string
	fields       []string
	changed      []string
	made         []made // by handlers behind the cache, in their order
	carried      []string
	kept         []string
	responses    []string
	chain        []caddyhttp.MatcherSets // on the way from the cache to what is looked at
	rewritten    []string                // by handlers between: the groups of their routes, "" for none
	guards       [][]caddyhttp.MatcherSets
	answering    int                     // how many proxies have answered before the list that is walked
	second       []*reverseproxy.Handler // in such lists
	defining     []defining
}

func (s *surroundings) route() *Route {
	if s.times > 1 { // which way a request has come follows from the matchers on all of them
		for _, sets := range s.ways {
			s.matchersOf(sets)
		}
		s.ways, s.placeholders = nil, append(s.placeholders, s.chosen...)
	}
	if s.answered {
		s.placeholders, s.changed = append(s.placeholders, s.answers...), append(s.changed, s.changedByAnswers...)
	}
	slices.Sort(s.placeholders)
	slices.Sort(s.fields)
	r := &Route{matchers: s.matchers, placeholders: slices.Compact(s.placeholders), fields: slices.Compact(s.fields)}
	r.changed, r.byMethod, r.ways, r.defining = s.changed, s.byMethod, s.ways, s.defining
	r.target, r.query = s.target, s.cache.Query
	r.carried, r.responses = s.carried, s.responses
	r.guards, r.second = s.guards, s.second
	for _, m := range r.matchers {
		r.defines = append(r.defines, definesPlaceholders(m))
	}
	for _, p := range r.placeholders {
		if isOfRegexp(p) {
			r.regexps = append(r.regexps, p)
		}
	}
	if slices.Contains(r.defines, true) {
		r.kept = s.kept
	}
	if s.listener == "" && s.way == "" && len(r.matchers)+len(r.placeholders)+len(r.fields) == 0 && !r.target {
		return r
	}
	r.name = fmt.Sprintf("listener %q above %q behind %q placeholders %q fields %q", s.listener, s.way, s.names, r.placeholders, r.fields)
	if r.target {
		r.name += " target"
	}
	if s.foreign {
		r.name += " at " + s.place
	}
	return r
}

// list looks for the handler in a list of routes, and takes in what stands above, in front
// of and behind it there. It reports whether the handler is in there.
func (s *surroundings) list(routes caddyhttp.RouteList) (found bool) {
	for i, one := range routes {
		for j, handler := range one.Handlers {
			if handler == s.cache.Handler {
				s.times++
			} else if !s.nested(handler) {
				continue
			}
			found = true
			s.place = fmt.Sprintf("%d.%d ", i, j) + s.place
			s.ways, s.byMethod = append(s.ways, one.MatcherSets), s.byMethod || slices.ContainsFunc(one.MatcherSets, keepsByMethod)
			if len(s.leaves(one.MatcherSets, s.settled)) > 0 {
				s.way += s.nameOfSets(one.MatcherSets)
			}
			for _, before := range routes[:i] {
				if !excludes(before, one) {
					s.inFront(caddyhttp.RouteList{before}, false)
				}
			}
			s.inFront(caddyhttp.RouteList{{Handlers: one.Handlers[:j]}}, false)
			s.behind(one.Handlers[j+1:])
			for _, after := range routes[i+1:] {
				if excludes(one, after) {
					continue
				}
				s.routeBehind(after)
			}
		}
	}
	return found
}

// excludes reports whether a request never goes on from one route to one that stands after
// it in the list, such as that of another site, or another handle.
func excludes(one, after caddyhttp.Route) bool {
	return one.Terminal || one.Group != "" && one.Group == after.Group
}

// nameOfSets tells matchers from others, by what is negated and which are alternatives too.
func (s *surroundings) nameOfSets(sets caddyhttp.MatcherSets) string {
	var all []string
	for _, set := range sets {
		var names []string
		for _, m := range inOrder(set) {
			if not, ok := m.(*caddyhttp.MatchNot); ok {
				names = append(names, "not "+s.nameOfSets(caddyhttp.MatcherSets(not.MatcherSets)))
			} else if !s.settled(m) {
				names = append(names, s.nameOfMatcher(m))
			}
		}
		all = append(all, strings.Join(names, " and "))
	}
	return "(" + strings.Join(all, " or ") + ")"
}

// nested looks for the handler in the lists of another one.
func (s *surroundings) nested(handler caddyhttp.MiddlewareHandler) (found bool) {
	i := 0
	s.eachList(handler, func(routes caddyhttp.RouteList) {
		if s.list(routes) {
			found = true
			if chosen := chosenBy(handler); len(chosen) > 0 { // another upstream's answer has chosen the list
				s.answered, s.chosen = true, append(s.chosen, chosen...)
				s.way += fmt.Sprintf("answer %d ", i)
			}
		}
		i++
	})
	return found
}

// chosenBy returns the placeholders of what decides which list of a handler's routes an
// answer goes to. none: no answer decides.
func chosenBy(handler caddyhttp.MiddlewareHandler) (placeholders []string) {
	var of string
	var lists []caddyhttp.ResponseHandler
	switch handler := handler.(type) {
	case *reverseproxy.Handler:
		of, lists = "reverse_proxy", handler.HandleResponse
	case *intercept.Intercept:
		of, lists = "intercept", handler.HandleResponse
	default:
		return nil
	}
	placeholders = append(placeholders, "{http."+of+".status_code}")
	for _, one := range lists {
		if one.Match == nil {
			continue
		}
		for name := range one.Match.Headers {
			placeholders = append(placeholders, "{http."+of+".header."+name+"}")
		}
	}
	return placeholders
}

// eachList calls do with the routes in a handler.
func (s *surroundings) eachList(handler caddyhttp.MiddlewareHandler, do func(caddyhttp.RouteList)) {
	switch handler := handler.(type) {
	case *caddyhttp.Subroute:
		do(handler.Routes)
		if handler.Errors != nil {
			do(handler.Errors.Routes)
		}
	case *caddyhttp.Invoke:
		if one := s.named[handler.Name]; one != nil && !slices.Contains(s.invoked, handler.Name) {
			s.invoked = append(s.invoked, handler.Name)
			do(caddyhttp.RouteList{*one})
			s.invoked = s.invoked[:len(s.invoked)-1]
		}
	case *reverseproxy.Handler:
		for _, response := range handler.HandleResponse {
			do(response.Routes)
		}
	case *intercept.Intercept:
		for _, response := range handler.HandleResponse {
			do(response.Routes)
		}
	}
}

// hasGroup reports whether routes have a handler of the group.
func hasGroup(routes caddyhttp.RouteList, named map[string]*caddyhttp.Route, of *Cache) bool {
	return (&surroundings{cache: of, named: named}).hasGroup(routes)
}

func (s *surroundings) hasGroup(routes caddyhttp.RouteList) (found bool) {
	for _, one := range routes {
		for _, handler := range one.Handlers {
			if s.cache.SameGroup(handler) {
				return true
			}
			s.eachList(handler, func(routes caddyhttp.RouteList) { found = found || s.hasGroup(routes) })
			if found {
				return true
			}
		}
	}
	return false
}

// inFront takes in what handlers in front of the cache make of a request by what is not in
// the key: by a matcher, or fields that they set from placeholders. It reports whether
// they change requests at all. told: whether requests come there by what is not in the key.
//
// What has been made of a request counts beside the matchers: they are asked at the cache,
// when the fields that they look at may be gone.
func (s *surroundings) inFront(routes caddyhttp.RouteList, told bool) (changes bool) {
	for _, one := range routes {
		told := told || len(s.leaves(one.MatcherSets, s.follows)) > 0 || len(s.placeholdersOf(one.MatcherSets)) > 0
		here, d := false, defining{matchers: one.MatcherSets}
		for _, handler := range one.Handlers {
			switch moduleID(handler) {
			case "http.handlers.map":
				here = true
				d.maps = append(d.maps, handler)
				s.mapOf(handler, told)
			case "http.handlers.rewrite":
				here = true
				s.target = s.target || told || len(notInKey(handler)) > 0
			case "http.handlers.vars":
				here = true
				s.varsOf(handler, told)
			}
			if set, ok := handler.(*headers.Handler); ok {
				here = true // a line of a response that is set here too may be one or two behind
				if set.Request != nil {
					s.fieldsOf(set.Request, told)
				}
			}
			answers := false // what another upstream has answered decides
			switch handler.(type) {
			case *reverseproxy.Handler, *intercept.Intercept:
				answers, s.answered = true, true
			}
			s.eachList(handler, func(routes caddyhttp.RouteList) { here = s.inFront(routes, told || answers) || here })
		}
		if here {
			s.matchersOf(one.MatcherSets)
		}
		if len(d.maps) > 0 || hasRegexp(one.MatcherSets) {
			s.defining = append(s.defining, d)
		}
		changes = changes || here
	}
	return changes
}

// hasRegexp reports whether some of the matchers define placeholders.
func hasRegexp(sets caddyhttp.MatcherSets) bool {
	return slices.ContainsFunc(sets, func(set caddyhttp.MatcherSet) bool {
		return slices.ContainsFunc(set, func(m any) bool { return definesPlaceholders(m) })
	})
}

func isOfRegexp(placeholder string) bool { return strings.HasPrefix(placeholder, "{http.regexp.") }

func definesPlaceholders(m any) bool {
	return strings.HasSuffix(moduleID(m), "_regexp") || moduleID(m) == "http.matchers.expression"
}

// varsOf takes in those variables that handlers read without a placeholder, and those that
// tell which matcher has let a request through: it may have looked at what is gone by now.
func (s *surroundings) varsOf(handler any, told bool) {
	set, ok := handler.(*caddyhttp.VarsMiddleware)
	if !ok {
		return
	}
	for name, value := range *set {
		constant := len(notInKey(value)) == 0
		if told && constant || (name == "root" || name == "fs") && (told || !constant) {
			s.placeholders = append(s.placeholders, "{http.vars."+name+"}")
		}
	}
}

// mapOf takes in what a map tells of which matcher has let a request through.
func (s *surroundings) mapOf(handler any, told bool) {
	if set, ok := handler.(*maphandler.Handler); ok && told && len(notInKey(set.Source)) == 0 {
		for _, name := range set.Destinations {
			s.placeholders = append(s.placeholders, "{"+strings.Trim(name, "{}")+"}")
		}
	}
}

// fieldsOf takes in the request fields that a handler sets, or replaces parts of, by what is
// not in the key.
func (s *surroundings) fieldsOf(set *headers.HeaderOps, told bool) {
	take := func(name, text string) {
		if told || inbound.TellsClients(text) {
			s.fields = append(s.fields, http.CanonicalHeaderKey(name))
		}
	}
	for _, fields := range []http.Header{set.Set, set.Add} {
		for name, values := range fields {
			take(name, strings.Join(values, " "))
		}
	}
	for name, all := range set.Replace {
		for _, one := range all {
			take(name, one.Replace)
		}
	}
}

// matchersOf takes in those matchers around the cache that look at more than the key has.
func (s *surroundings) matchersOf(sets caddyhttp.MatcherSets) {
	for _, m := range s.leaves(sets, s.follows) {
		s.matchers, s.names = append(s.matchers, m), append(s.names, s.nameOfMatcher(m))
	}
	s.placeholders = append(s.placeholders, s.placeholdersOf(sets)...)
}

// settled reports whether a matcher on the way to the cache lets either all requests with one
// key through or none. A key template is meant to join hosts, but what it leaves out of a URL
// may have brought the request to another cache.
func (s *surroundings) settled(m any) bool {
	if moduleID(m) != "http.matchers.path_regexp" && len(notInKey(m)) > 0 {
		return false
	}
	return s.keyed(m) && (!s.cache.Template || moduleID(m) == "http.matchers.host" || moduleID(m) == "http.matchers.protocol")
}

// placeholdersOf returns what the key has to have for matchers that look only at what is
// in the key: they may compare it with something else.
func (s *surroundings) placeholdersOf(sets caddyhttp.MatcherSets) (all []string) {
	for _, m := range s.leaves(sets, func(m any) bool { return !s.keyed(m) || moduleID(m) == "http.matchers.path_regexp" }) {
		all = append(all, notInKey(m)...)
	}
	return all
}

// leaves are the matchers in sets, also in those that are negated, but for some.
func (s *surroundings) leaves(sets caddyhttp.MatcherSets, but func(m any) bool) (all []any) {
	for _, set := range sets {
		for _, m := range inOrder(set) {
			if not, ok := m.(*caddyhttp.MatchNot); ok {
				for _, negated := range not.MatcherSets {
					all = append(all, s.leaves(caddyhttp.MatcherSets{negated}, but)...)
				}
			} else if !but(m) {
				all = append(all, m)
			}
		}
	}
	return all
}

// inOrder returns the matchers of a set in one order on all nodes. A config has them in an
// object, which has no order: Caddy makes them in another one at each start and reload. An
// object has each module once.
func inOrder(set caddyhttp.MatcherSet) []any {
	return slices.SortedFunc(slices.Values(set), func(a, b any) int { return strings.Compare(moduleID(a), moduleID(b)) })
}

// keyed reports whether a matcher looks only at what is in the key, or at files.
func (s *surroundings) keyed(m any) bool {
	if p, ok := m.(*caddyhttp.MatchProtocol); ok {
		return *p == "http" || *p == "https"
	}
	switch moduleID(m) {
	case "http.matchers.host":
		return !s.hostChanges
	case "http.matchers.path", "http.matchers.path_regexp", "http.matchers.file":
		return true
	case "http.matchers.query":
		return s.cache.Query == nil
	}
	return false
}

// changesHost reports whether handlers in routes give requests another Host, so that the key
// does not have the one which the sites' matchers have seen.
func (s *surroundings) changesHost(routes caddyhttp.RouteList) (changes bool) {
	for _, one := range routes {
		for _, handler := range one.Handlers {
			s.eachList(handler, func(routes caddyhttp.RouteList) { changes = changes || s.changesHost(routes) })
			if set, ok := handler.(*headers.Handler); ok {
				eachChange(set.Request, func(name, _ string) {
					pattern := strings.ToLower(strings.Trim(name, "*"))
					changes = changes || strings.Contains("host", pattern) || strings.Contains(pattern, "{")
				})
			}
		}
	}
	return changes
}

// follows reports whether the result of a matcher follows from the key. A key template
// may have nothing of the URL, and of a query what No-Vary-Search leaves.
func (s *surroundings) follows(m any) bool {
	switch id := moduleID(m); {
	case id == "http.matchers.query", s.cache.Template && id != "http.matchers.file":
		return false
	}
	return s.keyed(m)
}

func replacerOf(r *http.Request) *caddy.Replacer {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		return repl
	}
	return caddy.NewReplacer()
}

// CheckPorts refuses what takes is against: a host and port of a site. The modules are
// those around a handler, the http app among them, whose servers are known already.
func CheckPorts(around []caddy.Module, takes func(whose, host string, port uint) error) error {
	for _, m := range around {
		app, ok := m.(*caddyhttp.App)
		if !ok {
			continue
		}
		for _, server := range app.Servers {
			for _, listen := range server.Listen {
				at, err := caddy.ParseNetworkAddress(listen)
				if err != nil || !strings.HasPrefix(at.Network, "tcp") {
					continue // Caddy says what is wrong with it
				}
				for port := at.StartPort; port <= at.EndPort; port++ {
					if err := takes("a site ("+listen+")", at.Host, port); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
