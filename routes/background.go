package routes

import (
	"context"
	"crypto/tls"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// Background returns a copy of a request that does not end with its client. It
// has a Replacer and vars of its own, since those are not safe for concurrent
// use. define sets the placeholders in it that other handlers have defined.
func Background(r *http.Request, deadline time.Duration, define func(*http.Request)) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), deadline)
	ctx = caddyhttp.ContextWithIdleTimeouts(ctx, nil, nil) // those are of the client's connection
	again := r.Clone(ctx)
	rewritten := again.URL
	if original, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		u := *original.URL
		again.URL = &u
		again.RequestURI = original.RequestURI
	}
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	again = caddyhttp.PrepareRequest(again, caddy.NewReplacer(), Nobody{make(http.Header)}, server)
	again.Method = http.MethodGet
	again.Header = rfc9111.Conditional(r.Header, nil)
	if vars, ok := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		maps.Copy(again.Context().Value(caddyhttp.VarsCtxKey).(map[string]any), vars)
	}
	maps.Copy(groupsOf(again), groupsOf(r))
	define(again)
	again.URL = rewritten
	return again, cancel
}

// Nobody is the client of a request that no client has sent.
type Nobody struct{ Fields http.Header }

// Header returns the fields.
func (n Nobody) Header() http.Header { return n.Fields }

// WriteHeader does nothing.
func (Nobody) WriteHeader(int) {}

// Write does nothing.
func (Nobody) Write(p []byte) (int, error) { return len(p), nil }

// RequestFor returns a request for a URL of store.URLOf, as it would come from a
// client, though no client has sent it.
func RequestFor(method, u string, header http.Header) (*http.Request, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, u, nil)
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(u, "://")
	r.RequestURI = rest[strings.IndexByte(rest, '/'):]
	if r.URL.Scheme == "https" {
		r.TLS = new(tls.ConnectionState)
	}
	if header != nil {
		r.Header = header
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), Nobody{Fields: make(http.Header)}, nil), nil
}
