package caddygroupcache

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-groupcache/caddy-groupcache/internal/span"
)

// traced runs a request under a span, as Caddy's tracing does, and returns the
// spans below it, each with its attributes.
func traced(t *testing.T, serve func(ctx context.Context)) (spans []string) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	ctx, root := provider.Tracer("test").Start(t.Context(), "request")
	serve(ctx)
	root.End()
	for _, s := range recorder.Ended() {
		if s.Name() == "request" {
			continue
		}
		if s.Parent().SpanID() != root.SpanContext().SpanID() {
			t.Errorf("%s does not belong to the request", s.Name())
		}
		name := s.Name()
		for _, a := range s.Attributes() {
			name += " " + strings.TrimPrefix(string(a.Key), "groupcache.") + "=" + a.Value.AsString()
		}
		spans = append(spans, name)
	}
	return spans
}

func TestSpansOfARequest(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	private := fixed(&calls, "hello", "Cache-Control", "private")
	for _, c := range []struct {
		what string
		next func(http.ResponseWriter, *http.Request) error
		path string
		want []string
	}{
		{"a miss", up, "/a", []string{"groupcache lookup found=nothing", "groupcache fill result=stored"}},
		{"a hit", up, "/a", []string{"groupcache lookup found=fresh"}},
		{"not stored", private, "/b", []string{"groupcache lookup found=nothing", "groupcache fill result=not_stored reason=private"}},
	} {
		got := traced(t, func(ctx context.Context) { do(h, c.next, request(ctx, c.path)) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

// TestHandlersBehindTheCacheStandUnderItsFill: what they trace belongs there.
func TestHandlersBehindTheCacheStandUnderItsFill(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	var inside trace.Span
	up := func(w http.ResponseWriter, r *http.Request) error {
		inside = trace.SpanFromContext(r.Context())
		return fixed(&calls, "hello", "Cache-Control", "max-age=60")(w, r)
	}
	traced(t, func(ctx context.Context) { do(h, up, request(ctx, "/a")) })
	if s, ok := inside.(sdk.ReadOnlySpan); !ok || s.Name() != spanFill {
		t.Errorf("the upstream is asked in %v", inside)
	}
}

func TestWithoutTracingThereAreNoSpans(t *testing.T) {
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { span.End(span.Start(ctx, spanLookup), "found", "nothing") }); n > 0 {
		t.Errorf("%v allocations for nothing", n)
	}
	// A trace that is not sampled costs nothing either.
	provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))
	ctx, _ = provider.Tracer("test").Start(ctx, "request")
	if span.Start(ctx, spanLookup) != nil {
		t.Error("a span that nobody records")
	}
}
