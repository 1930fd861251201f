// Package span begins and ends spans of OpenTelemetry under those that Caddy's tracing
// directive has begun for a request. Where it has not, there are none, and asking costs
// one look into the request's context. No span has a key, a URL or a tag.
package span

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

const tracerName = "github.com/caddy-groupcache/caddy-groupcache"

// Start begins a span under that of a context, or returns nil if there is none. The
// context may be nil.
func Start(ctx context.Context, name string) trace.Span {
	if ctx == nil {
		return nil
	}
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return nil
	}
	_, s := parent.TracerProvider().Tracer(tracerName).Start(ctx, name)
	return s
}

// End ends a span, if there is one, with attributes in pairs of name and value. Those
// without a value are left out.
func End(s trace.Span, attributes ...string) {
	if s == nil {
		return
	}
	for i := 0; i < len(attributes); i += 2 {
		if attributes[i+1] != "" {
			s.SetAttributes(attribute.String("groupcache."+attributes[i], attributes[i+1]))
		}
	}
	s.End()
}
