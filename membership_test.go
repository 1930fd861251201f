package caddygroupcache

import (
	"slices"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
)

// A member that cannot own keys is not on the ring, and a purge names it.
func TestRingOfMembers(t *testing.T) {
	p := newProcess("self", 1<<20)
	defer p.node.Close()
	all := []gossip.Member{
		{Name: "self", State: gossip.StateAlive, Peers: "127.0.0.1:1", Version: protocolVersion, Self: true},
		{Name: "suspect", State: gossip.StateSuspect, Peers: "127.0.0.1:2", Version: protocolVersion},
		{Name: "newer", State: gossip.StateAlive, Peers: "127.0.0.1:3", Version: protocolVersion + 1},
		{Name: "garbage", State: gossip.StateAlive, Version: protocolVersion},
	}
	p.membersChanged(all)
	var ring []string
	for _, n := range p.node.Ring.Load().Nodes() {
		ring = append(ring, n.Name)
	}
	if slices.Sort(ring); !slices.Equal(ring, []string{"self", "suspect"}) {
		t.Errorf("the ring is %v", ring)
	}
	if foreign := *p.node.Purger.Foreign.Load(); !slices.Equal(foreign, []string{"newer", "garbage"}) {
		t.Errorf("not on the ring: %v", foreign)
	}
	for _, state := range []string{gossip.StateDead, gossip.StateLeft} {
		if usable(gossip.Member{Name: "gone", State: state, Peers: "127.0.0.1:4", Version: protocolVersion}) {
			t.Errorf("one that is %s may own keys", state)
		}
	}
}
