package routes

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// The routes in handle_response of reverse_proxy, or of intercept, make a response in
// place of the upstream's: a file that X-Accel-Redirect names, an error page. What the
// upstream has said counts for such a response too, but it is in none of its fields.
// Both handlers leave it in placeholders. What reverse_proxy itself answers with, also
// by copy_response, has its Via, and the fields that header_down has left.

const (
	proxiedStatus     = "http.reverse_proxy.status_code"
	proxiedField      = "http.reverse_proxy.header."
	proxiedAddress    = "http.reverse_proxy.upstream.hostport"
	interceptedStatus = "http.intercept.status_code"
	responseField     = "http.response.header."
)

// Enter has the placeholders of a request be those that handlers behind the cache expect, which
// write to the given header and not to the client's. Leave puts back what was before.
func (a *Route) Enter(repl *caddy.Replacer, header http.Header) (leave func()) {
	restore := ForgetProxied(repl)
	if a == nil || len(a.responses) == 0 {
		return restore
	}
	for _, name := range a.responses {
		repl.Set(name, field{header, http.CanonicalHeaderKey(strings.TrimPrefix(name, responseField))})
	}
	return func() {
		for _, name := range a.responses {
			repl.Delete(name)
		}
		restore()
	}
}

// A field is one of a header, as the header is when a placeholder is looked up.
type field struct {
	of   http.Header
	name string
}

// String returns its lines, as Caddy joins them.
func (f field) String() string { return strings.Join(f.of[f.name], ",") }

// ForgetProxied removes what a handler in front of the cache, such as forward_auth, has
// left in the placeholders, and returns what puts it back unless there is something newer.
func ForgetProxied(repl *caddy.Replacer) (restore func()) {
	var before map[string]any
	for _, name := range []string{proxiedStatus, interceptedStatus} {
		if value, ok := repl.Get(name); ok {
			if before == nil {
				before = make(map[string]any)
			}
			before[name] = value
			repl.Delete(name)
		}
	}
	return func() {
		for name, value := range before {
			if _, newer := repl.Get(name); !newer {
				repl.Set(name, value)
			}
		}
	}
}

// MadeOf returns what the upstream has said of the response that one with the given
// header was made in place of; nil: it is the upstream's own, or there was none.
func (a *Route) MadeOf(repl *caddy.Replacer, own http.Header, targeted []string) *rfc9111.Origin {
	if status, ok := repl.Get(interceptedStatus); ok {
		if status, ok := status.(int); ok && status >= http.StatusBadRequest {
			return &rfc9111.Origin{Status: status}
		}
	}
	value, _ := repl.Get(proxiedStatus)
	status, ok := value.(int)
	if ok && a.askedTwo(repl) {
		return &rfc9111.Origin{Status: status, Replaced: true}
	}
	if !ok || slices.ContainsFunc(own["Via"], func(line string) bool { return strings.HasSuffix(line, " Caddy") }) {
		return nil
	}
	o := &rfc9111.Origin{Status: status, Header: make(http.Header)}
	for _, name := range append([]string{"Cache-Control", "Expires", "Pragma", "Vary", "Set-Cookie", "Clear-Site-Data"}, targeted...) {
		if value, ok := repl.GetString(proxiedField + name); ok {
			o.Header[name] = []string{value}
		}
	}
	return o
}

// askedTwo reports whether the upstream that was asked last is one of a proxy in
// handle_response of another, as where X-Accel-Redirect names a file of a storage. The first
// upstream has decided about this client, and what the second says has taken the place of
// what the first did in the placeholders. An address that both have counts as the second's, and
// so does one with a placeholder, which may say something else by now.
func (a *Route) askedTwo(repl *caddy.Replacer) bool {
	if a == nil || len(a.second) == 0 {
		return false
	}
	asked, _ := repl.GetString(proxiedAddress)
	return slices.ContainsFunc(a.second, func(proxy *reverseproxy.Handler) bool {
		return proxy.DynamicUpstreams != nil || slices.ContainsFunc(proxy.Upstreams, func(one *reverseproxy.Upstream) bool {
			address, err := caddy.ParseNetworkAddress(one.Dial)
			return err != nil || strings.Contains(one.Dial, "{") || address.JoinHostPort(0) == asked
		})
	})
}
