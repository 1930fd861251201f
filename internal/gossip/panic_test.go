package gossip

import (
	"sync/atomic"
	"testing"

	"github.com/hashicorp/memberlist"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

// TestMembershipOutlivesPanics: what one member tells, and this node has a bug with,
// is refused, and what others tell after that is not lost.
func TestMembershipOutlivesPanics(t *testing.T) {
	bug := func() {
		panic("a bug")
	}
	var merged, told, states atomic.Int32
	before := guard.Panics()
	a := startNode(t, "a", func(cfg *Config) {
		cfg.MergeState = func([]byte) error {
			if merged.Add(1) == 1 {
				bug()
			}
			return nil
		}
		cfg.LocalState = func() []byte {
			if states.Add(1) == 1 {
				bug()
			}
			return nil
		}
		cfg.Changed = func(_, is Member) {
			if is.Name == "b" && told.Add(1) == 1 {
				bug()
			}
		}
	})
	withState := func(cfg *Config) {
		cfg.Join = []string{a.Addr()}
		cfg.LocalState = func() []byte { return []byte("state") }
	}
	b := startNode(t, "b", withState)
	waitFor(t, "three panics at a", func() bool { return guard.Panics() >= before+3 })
	c := startNode(t, "c", withState)
	waitRing(t, "a b c", a, b, c)
	waitFor(t, "states at a after the one with the bug", func() bool { return merged.Load() > 1 })
	if a.Refused() == 0 {
		t.Error("the state with the bug does not count as refused")
	}
}

// TestDescriptionThatPanicsIsRefused: memberlist asks before it remembers a node.
func TestDescriptionThatPanicsIsRefused(t *testing.T) {
	var cb delegate // of no membership: whatever it is asked, it panics
	if err := cb.NotifyAlive(&memberlist.Node{Name: "a", Addr: []byte{127, 0, 0, 1}, Port: 1}); err == nil {
		t.Error("taken")
	}
	cb.NotifyJoin(&memberlist.Node{Name: "a"})
}
