package node

import (
	"slices"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A node that joins gets its keys from those that owned them before, without being asked for
// them: what nobody asks for in the minutes after it has joined would be lost to the next
// restart. Each giver sends what moves from itself, in the background, those keys first that
// are asked for.

const (
	// moveRate is how many bytes a second one node gives another that has joined: a tenth of
	// what a gigabit takes.
	moveRate = 12 << 20

	moveOverhead  = 1 << 10 // what an entry counts for beside its body, in bytes
	shortestPause = 10 * time.Millisecond

	retryMove = time.Second
	moveTries = 5
)

// A move hands a node that has joined what it owns from now on and this node owned before.
type move struct {
	node          *Node
	to            peer.Node
	before, after *peer.Ring
}

// begin begins a move in the background.
func (m move) begin() { guard.Go(m.run) }

// has reports whether a key moves.
func (m move) has(k store.Key) bool {
	_, mine := m.before.Owner(k)
	now, _ := m.after.Owner(k)
	return mine && now == m.to
}

func (m move) run() {
	n := m.node
	h := &handOver{node: n, ctx: n.Over, rate: moveRate}
	h.left.Store(n.Store.BodyLimit() / 2)
	gift := new(share)
	h.walk(func(k store.Key) *share {
		if !m.has(k) {
			return nil
		}
		return gift
	})
	for range moveTries {
		if len(gift.keys)+len(gift.chunks) == 0 || !slices.Contains(n.Others(), m.to) {
			return
		}
		// It may know of purges that this node has missed, and that are too long ago for it to
		// compare what comes in with them.
		err := n.Purger.ask(n.Over, m.to)
		if err == nil {
			err = h.once(m.to, gift)
		}
		if err == nil || !pause(n.Over, retryMove) {
			return
		}
	}
}
