package node

import (
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/span"
)

// Operations between nodes, as label values.
const (
	operationLookup  = "lookup"
	operationPublish = "publish"
	operationRefresh = "refresh"
	operationRelease = "release"
	operationPurge   = "purge"
	operationPurges  = "purges"
	operationLearn   = "learn"
	operationChunk   = "chunk"
	operationChunks  = "chunks"
	operationStore   = "store"

	operationHandOver = "hand_over"
)

// spanPeer, and the operation, is the name of a span of a call to another node.
const spanPeer = "groupcache peer "

// observe tells of a call to another node.
func (n *Node) observe(operation string, err error, took time.Duration) {
	if n.OnCall != nil {
		n.OnCall(operation, err, took)
	}
}

// observed tells of a call to another node on behalf of a request, and ends its span.
func (n *Node) observed(call trace.Span, operation string, err error, took time.Duration) {
	n.observe(operation, err, took)
	span.End(call, "result", CallResult(err))
}

func (q *Lookup) startPeerSpan(operation string) trace.Span {
	return span.Start(q.SpanContext, spanPeer+operation)
}

// CallResult says how a request to another node ended, as a label value.
func CallResult(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, new(peer.Broken)):
		return "refused"
	case errors.Is(err, peer.ErrDown):
		return "skipped"
	case errors.Is(err, peer.ErrTimeout), errors.Is(err, peer.ErrGivenUp):
		return "timeout"
	}
	return "error"
}
