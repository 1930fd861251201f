package routes

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// role is a matcher of another module than Caddy's, with a setting that JSON does not show.
type role struct{ is string }

func (role) CaddyModule() caddy.ModuleInfo { return caddy.ModuleInfo{ID: "http.matchers.role"} }
func (m role) MatchWithError(r *http.Request) (bool, error) {
	return r.Header.Get("X-Role") == m.is, nil
}
func (*here) CaddyModule() caddy.ModuleInfo                                         { return caddy.ModuleInfo{ID: "http.handlers.groupcache"} }
func (*here) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error { return nil }

// here is a cache.
type here struct{ _ int }

// TestMatchersOfOtherModulesAreToldApart: two caches behind such matchers have keys of their
// own, though the matchers look the same, and the same keys on each node.
func TestMatchersOfOtherModulesAreToldApart(t *testing.T) {
	ids := func() (ids []string) {
		caches := []*here{{}, {}}
		var routes caddyhttp.RouteList
		for i, is := range []string{"admin", "guest"} {
			routes = append(routes, caddyhttp.Route{
				Group: "roles", MatcherSets: caddyhttp.MatcherSets{{role{is}}},
				Handlers: []caddyhttp.MiddlewareHandler{caches[i]},
			})
		}
		app := &caddyhttp.App{Servers: map[string]*caddyhttp.Server{"srv0": {Listen: []string{":80"}, Routes: routes}}}
		for _, c := range caches {
			ids = append(ids, Around(app, &Cache{Handler: c, SameGroup: func(h caddyhttp.MiddlewareHandler) bool { return true }}).ID())
		}
		return ids
	}
	got := ids()
	if got[0] == got[1] {
		t.Errorf("both are %s", got[0])
	}
	if again := ids(); !slices.Equal(got, again) {
		t.Errorf("%s on one node, %s on another", got, again)
	}
}

// TestOrderOfMatchers: a config has the matchers of a set in an object, and Caddy makes them
// in any order. The keys are the same all the same.
func TestOrderOfMatchers(t *testing.T) {
	method, path, fields := caddyhttp.MatchMethod{"GET"}, caddyhttp.MatchPath{"/a"}, caddyhttp.MatchHeader{"Cookie": {"a=*"}}
	id := func(set ...any) string {
		c := &here{}
		app := &caddyhttp.App{Servers: map[string]*caddyhttp.Server{"srv0": {Listen: []string{":80"}, Routes: caddyhttp.RouteList{
			{MatcherSets: caddyhttp.MatcherSets{set}, Handlers: []caddyhttp.MiddlewareHandler{c}},
			{MatcherSets: caddyhttp.MatcherSets{set}},
		}}}}
		return Around(app, &Cache{Handler: c, SameGroup: func(h caddyhttp.MiddlewareHandler) bool { return true }}).ID()
	}
	not := func(set ...any) *caddyhttp.MatchNot {
		return &caddyhttp.MatchNot{MatcherSets: []caddyhttp.MatcherSet{set, {path}}}
	}
	for what, sets := range map[string][2][]any{
		"a set":       {{method, path, fields}, {fields, method, path}},
		"a not":       {{not(method, fields)}, {not(fields, method)}},
		"a not aside": {{method, not(method, fields)}, {not(fields, method), method}},
	} {
		if one, other := id(sets[0]...), id(sets[1]...); one != other {
			t.Errorf("%s: %s, and %s", what, one, other)
		}
	}
}

// TestMethodsBeforeTheCache: what a matcher keeps from the cache by its method alone.
func TestMethodsBeforeTheCache(t *testing.T) {
	method, fields := caddyhttp.MatchMethod{"GET", "HEAD"}, caddyhttp.MatchHeader{"Cookie": {"a=*"}}
	for what, tt := range map[string]struct {
		set  caddyhttp.MatcherSet
		want bool
	}{
		"a method":                        {caddyhttp.MatcherSet{method}, true},
		"a method beside another matcher": {caddyhttp.MatcherSet{fields, method}, true},
		"no such method":                  {caddyhttp.MatcherSet{&caddyhttp.MatchNot{MatcherSets: []caddyhttp.MatcherSet{{method}}}}, true},
		"no such method with such fields": {caddyhttp.MatcherSet{&caddyhttp.MatchNot{MatcherSets: []caddyhttp.MatcherSet{{method, fields}}}}, false},
		"fields":                          {caddyhttp.MatcherSet{fields}, false},
	} {
		c := &here{}
		app := &caddyhttp.App{Servers: map[string]*caddyhttp.Server{"srv0": {Listen: []string{":80"}, Routes: caddyhttp.RouteList{
			{MatcherSets: caddyhttp.MatcherSets{tt.set}, Handlers: []caddyhttp.MiddlewareHandler{c}},
		}}}}
		if got := Around(app, &Cache{Handler: c, SameGroup: func(h caddyhttp.MiddlewareHandler) bool { return true }}).ByMethod(); got != tt.want {
			t.Errorf("%s: %t", what, got)
		}
	}
}

// source has modules in fields that JSON does not show.
type source struct {
	inner []reverseproxy.UpstreamSource
	one   reverseproxy.UpstreamSource
	self  any
	Port  string
}

func (*source) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.upstreams.source"}
}
func (*source) GetUpstreams(*http.Request) ([]*reverseproxy.Upstream, error) { return nil, nil }

// TestSettingsOfModulesInModules: they count however deep they are.
func TestSettingsOfModulesInModules(t *testing.T) {
	s := &source{one: &source{Port: "{one}"}, inner: []reverseproxy.UpstreamSource{&source{Port: "{first}"}, &source{one: &source{Port: "{deep}"}}}}
	s.self = s
	text := textOf([]any{s})
	for _, want := range []string{"{one}", "{first}", "{deep}"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}
