package caddygroupcache

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Spans stand under the one that Caddy's tracing directive has begun for a
// request. Where it has not, there are none, and asking costs one look into the
// request's context. No span has a key, a URL or a tag.
const tracerName = "github.com/caddy-groupcache/caddy-groupcache"

// Names of spans.
const (
	spanLookup = "groupcache lookup" // what this node has
	spanPeer   = "groupcache peer "  // and the operation: a call to another node
	spanFill   = "groupcache fill"   // from asking the upstream to the end of its response
)

// startSpan begins a span under that of a context, or returns nil if there is
// none.
func startSpan(ctx context.Context, name string) trace.Span {
	if ctx == nil {
		return nil
	}
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return nil
	}
	_, span := parent.TracerProvider().Tracer(tracerName).Start(ctx, name)
	return span
}

// endSpan ends a span, if there is one, with attributes in pairs.
func endSpan(span trace.Span, attributes ...string) {
	if span == nil {
		return
	}
	for i := 0; i < len(attributes); i += 2 {
		if attributes[i+1] != "" {
			span.SetAttributes(attribute.String("groupcache."+attributes[i], attributes[i+1]))
		}
	}
	span.End()
}

// find is node.find in a span.
func (h *Handler) find(ctx context.Context, q *question, now time.Time, found *finding) {
	span := startSpan(ctx, spanLookup)
	h.node.find(q, now, found)
	if span != nil {
		found.endSpan(span)
	}
}

func (f *finding) endSpan(span trace.Span) {
	endSpan(span, "found", f.name(), "reason", f.why.String())
}

// name says in a word what was found.
func (f *finding) name() string {
	switch {
	case f.entry == nil:
		return "nothing"
	case !f.here:
		return "entry"
	}
	return useNames[f.use]
}

// observed counts a call to another node on behalf of a question, and ends its
// span.
func (q *question) observed(span trace.Span, operation string, err error, took time.Duration) {
	observePeer(operation, err, took)
	endSpan(span, "result", peerResult(err))
}

func (q *question) startPeerSpan(operation string) trace.Span {
	return startSpan(q.traced, spanPeer+operation)
}
