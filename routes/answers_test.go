package routes

import (
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// TestProxyWhoseListMayPassIsAnAuthentication: a list in handle_response has to answer every
// request, or Caddy goes on to the handlers after the proxy.
func TestProxyWhoseListMayPassIsAnAuthentication(t *testing.T) {
	type (
		handler = caddyhttp.MiddlewareHandler
		list    = caddyhttp.RouteList
	)
	some := caddyhttp.MatcherSets{{caddyhttp.MatchPath{"/a"}}}
	respond := &caddyhttp.StaticResponse{}
	status := func(code string) handler {
		return &caddyhttp.StaticResponse{StatusCode: caddyhttp.WeakString(code)}
	}
	proxy := func(routes list) *reverseproxy.Handler {
		return &reverseproxy.Handler{HandleResponse: []caddyhttp.ResponseHandler{{Routes: routes}}}
	}
	all := func(handlers ...handler) list { return list{{Handlers: handlers}} }
	within := func(routes list) list { return all(&caddyhttp.Subroute{Routes: routes}) }
	one := func(group string, sets caddyhttp.MatcherSets, handlers ...handler) caddyhttp.Route {
		return caddyhttp.Route{Group: group, MatcherSets: sets, Handlers: handlers}
	}
	named := map[string]*caddyhttp.Route{
		"answers": {Handlers: []handler{respond}},
		"passes":  {MatcherSets: some, Handlers: []handler{respond}},
		"again":   {Handlers: []handler{&caddyhttp.Invoke{Name: "again"}}},
		"list":    {Handlers: []handler{&caddyhttp.Subroute{Routes: list{one("i", some, respond), one("i", nil, respond)}}}},
		"grouped": {Group: "n", Handlers: []handler{respond}},
	}
	invoke := func(name string) handler { return &caddyhttp.Invoke{Name: name} }
	for name, tt := range map[string]struct {
		routes list
		want   bool
	}{
		"respond":                    {all(respond), false},
		"respond with a status":      {all(status("403")), false},
		"an upstream's status":       {all(status("{http.reverse_proxy.status_code}")), false},
		"any status":                 {all(status("{http.vars.status}")), true},
		"early hints":                {all(status("103")), true},
		"abort":                      {all(&caddyhttp.StaticResponse{StatusCode: "103", Abort: true}), false},
		"error":                      {all(&caddyhttp.StaticError{}), false},
		"copy_response":              {all(&reverseproxy.CopyResponseHandler{}), false},
		"copy_response_headers":      {all(&reverseproxy.CopyResponseHeadersHandler{}), true},
		"then respond":               {all(&reverseproxy.CopyResponseHeadersHandler{}, respond), false},
		"encode":                     {all(&encode.Encode{}), true},
		"file_server":                {all(&fileserver.FileServer{}), false},
		"pass_thru":                  {all(&fileserver.FileServer{PassThru: true}), true},
		"a proxy":                    {all(&reverseproxy.Handler{}), false},
		"a proxy that passes":        {all(proxy(nil)), true},
		"a proxy that answers":       {all(proxy(all(respond))), false},
		"empty":                      {nil, true},
		"a matcher":                  {list{one("", some, respond)}, true},
		"a matcher, then all":        {list{one("", some, respond), one("", nil, respond)}, false},
		"nested":                     {within(all(respond)), false},
		"a nested matcher":           {within(list{one("", some, respond)}), true},
		"a group":                    {list{one("g", some, respond), one("g", nil, respond)}, false},
		"a group that passes":        {list{one("g", some), one("g", nil, respond)}, true},
		"another group":              {list{one("g", some), one("h", nil, respond)}, false},
		"a group of a list above":    {list{one("outer", nil, respond)}, true},
		"a terminal route in front":  {list{{MatcherSets: some, Terminal: true}, one("", nil, respond)}, true},
		"errors that are answered":   {all(&caddyhttp.Subroute{Routes: all(respond), Errors: &caddyhttp.HTTPErrorConfig{Routes: all(respond)}}), false},
		"errors that pass":           {all(&caddyhttp.Subroute{Routes: all(respond), Errors: &caddyhttp.HTTPErrorConfig{}}), true},
		"invoke":                     {all(invoke("answers")), false},
		"invoke with a matcher":      {all(invoke("passes")), true},
		"invoked twice":              {list{one("", some, invoke("list")), one("", nil, invoke("list"))}, false},
		"invoke itself":              {all(invoke("again")), true},
		"invoke nothing":             {all(invoke("none")), true},
		"invoke a group":             {all(invoke("grouped")), false},
		"invoke a group once before": {list{one("", some, invoke("grouped")), one("", nil, invoke("grouped"))}, true},
	} {
		handler := proxy(tt.routes)
		a := newAnswering(&caddyhttp.Server{NamedRoutes: named, Routes: list{one("outer", nil, handler)}})
		if got := a.asksWho(handler); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
		if ends := a.ends(within(tt.routes)[0]); ends == tt.want {
			t.Errorf("%s: a route around the list ends %v", name, ends)
		}
	}
}

// TestErrorsMayGoOn: where a subroute has routes for errors, which Caddyfiles don't make, a handler
// that may fail answers nothing for sure, and ends no rewrite.
func TestErrorsMayGoOn(t *testing.T) {
	for name, tt := range map[string]struct {
		handler caddyhttp.MiddlewareHandler
		passes  bool
	}{
		"respond":       {&caddyhttp.StaticResponse{}, false},
		"error":         {&caddyhttp.StaticError{}, true},
		"file_server":   {&fileserver.FileServer{}, true},
		"copy_response": {&reverseproxy.CopyResponseHandler{}, true},
		"a proxy":       {&reverseproxy.Handler{}, true},
	} {
		one := caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{tt.handler}, Terminal: true}
		proxy := &reverseproxy.Handler{HandleResponse: []caddyhttp.ResponseHandler{{Routes: caddyhttp.RouteList{one}}}}
		around := &caddyhttp.Subroute{
			Routes: caddyhttp.RouteList{{Handlers: []caddyhttp.MiddlewareHandler{proxy}}},
			Errors: &caddyhttp.HTTPErrorConfig{},
		}
		a := newAnswering(&caddyhttp.Server{Routes: caddyhttp.RouteList{{Handlers: []caddyhttp.MiddlewareHandler{around}}}})
		if asks, ends := a.asksWho(proxy), a.ends(one); asks != tt.passes || ends == tt.passes {
			t.Errorf("%s: the proxy is an authentication: %v; the route ends: %v", name, asks, ends)
		}
	}
}
