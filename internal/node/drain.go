package node

import (
	"context"
	"time"
)

// A node that stops has clients of other nodes to think of: those that read along what it
// fetches, and those that read along by way of it. Where each fetch gives other bytes they
// could not go on without it.

// drainEvery is how often a node that stops looks whether others still read from it.
const drainEvery = 20 * time.Millisecond

// Drain returns when no other node reads anything here that is still coming in, or at a time;
// nil: however long that takes. No new ones come once the node has left the ring.
func (n *Node) Drain(by *time.Time) {
	ctx, cancel := n.Over, context.CancelFunc(func() {})
	if by != nil {
		ctx, cancel = context.WithDeadline(ctx, *by)
	}
	defer cancel()
	for n.readers.Load() > 0 && pause(ctx, drainEvery) {
	}
}
