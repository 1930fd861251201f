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
