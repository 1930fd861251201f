package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// TestFillsOfOthersHaveABound: whatever time another node asks for. The time itself is not
// run through, since a day of nodes that talk takes a minute.
func TestFillsOfOthersHaveABound(t *testing.T) {
	for said, want := range map[time.Duration]time.Duration{
		maxFillTime - 1:  maxFillTime - 1,
		maxFillTime + 1:  maxFillTime,
		1000 * time.Hour: maxFillTime,
		1 << 62:          maxFillTime,
	} {
		if got := fillTimeOf(&peer.Query{Within: said}); got != want {
			t.Errorf("who asks for %v gets %v, want %v", said, got, want)
		}
	}
}

// TestOwnerThatLagsStaysReachable: an owner that may have missed purges answers before its
// asker takes it for silent, so the circuit of the owner stays closed. The asker fetches for
// itself, and the owner may have what comes of that.
func TestOwnerThatLagsStaysReachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other, l := newLone(t), newPipes()
		serveOn(t, l, Owner{other})
		owner := peer.Node{Name: other.Name, Addr: "owner.test:8000"}
		n, q := newAskerBy(t, owner, l.dial)
		q.PeerTimeout = DefaultPeerTimeout
		synctest.Wait() // until they know each other's purges
		other.Purger.Sync.Begin()
		defer other.Purger.Sync.End()
		f, r, _ := n.Join(q)
		defer r.Close()
		decision := Lead(f, func() (Decision, Ending) { return n.Ask(q, f, new(Result)) })
		if decision.Action != Fetch || decision.Reason != rfc9111.None || decision.Owner == nil || n.Client.LeavesAlone(owner) {
			t.Errorf("decided %+v; the owner's circuit is open: %v", decision, n.Client.LeavesAlone(owner))
		}
	})
}
