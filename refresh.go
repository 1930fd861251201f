package caddygroupcache

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// refresh fetches a stale response anew in the background (RFC 5861 §3),
// unless that is already going on somewhere in the cluster. The request that
// found it stale does not wait.
func (h *Handler) refresh(r *http.Request, next caddyhttp.Handler, asked *question) {
	if asked.alone {
		return // with this client's credentials, say, nothing is fetched for others
	}
	q := *asked
	q.refresh, q.original = true, nil
	f, body, lead := h.node.join(&q)
	body.Close()
	if !lead {
		return
	}
	again, cancel := background(r, q.deadline)
	q.header = again.Header
	go func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				h.logger.Error("panic while a stale response was fetched anew", zap.Any("panic", p), zap.Stack("stack"))
			}
		}()
		h.runRefresh(again, next, &q, f)
	}()
}

func (h *Handler) runRefresh(r *http.Request, next caddyhttp.Handler, q *question, f *flight) {
	var found finding
	if h.node.find(q, time.Now(), &found); q.served(&found) { // somebody else's refresh landed before this flight began
		f.end(rfc9111.None)
		return
	}
	g := h.node.ask(q, f, &found)
	if !g.fetch {
		return
	}
	out := h.outcomeOf(r, &found)
	out.background = true
	if _, err := h.fetch(nobody{make(http.Header)}, r, next, q, f, g, out); err != nil {
		if c := h.logger.Check(zap.DebugLevel, "fetching a stale response anew"); c != nil {
			c.Write(zap.Error(err))
		}
	}
}

// background returns a copy of a request that does not end with its client. It
// has a Replacer and vars of its own, since those are not safe for concurrent
// use; placeholders that other handlers have set in the Replacer are lost.
func background(r *http.Request, deadline time.Duration) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), deadline)
	ctx = caddyhttp.ContextWithIdleTimeouts(ctx, nil, nil) // those are of the client's connection
	again := r.Clone(ctx)
	rewritten := again.URL
	if original, ok := ctx.Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		again.URL = cloneURL(original.URL)
		again.RequestURI = original.RequestURI
	}
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	again = caddyhttp.PrepareRequest(again, caddy.NewReplacer(), nobody{make(http.Header)}, server)
	again.URL = rewritten
	again.Method = http.MethodGet
	again.Header = rfc9111.Conditional(r.Header, nil)
	if vars, ok := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		maps.Copy(again.Context().Value(caddyhttp.VarsCtxKey).(map[string]any), vars)
	}
	maps.Copy(groupsOf(again), groupsOf(r))
	return again, cancel
}

func cloneURL(u *url.URL) *url.URL {
	c := *u
	return &c
}

// nobody is the client of a background fetch.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header         { return n.header }
func (n nobody) WriteHeader(int)             {}
func (n nobody) Write(p []byte) (int, error) { return len(p), nil }

// errNotShared ends a background fetch whose response nobody is waiting for.
var errNotShared = errors.New("the response cannot be stored, and no client waits for it")
