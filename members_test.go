package caddygroupcache

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// owners returns the names of the nodes on a node's ring.
func owners(m *bubbleNode) (names []string) {
	for _, o := range m.Ring.Load().Nodes() {
		names = append(names, o.Name)
	}
	return names
}

// A member that reaches others, and that nobody reaches, costs the others hits for one
// second, once, however often gossip has it die and live.
func TestMemberThatNobodyReachesCostsOthersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		healthy, deaf := b.nodes[:2], b.nodes[2]
		for _, m := range healthy {
			b.net.part(m.addr.Addr, deaf.addr.Addr, true)
			m.SetRing(nil)
			m.Members.Set(b.addrs()[:2])
		}
		b.settle()
		for _, m := range healthy {
			for _, u := range pages() {
				m.get(t, up, u)
				m.get(t, up, u)
			}
		}
		fetched := s.fetches()
		for round := range 6 {
			for _, m := range healthy {
				m.Members.Set(b.addrs())
			}
			if round == 0 {
				time.Sleep(time.Second + time.Millisecond)
			}
			for range 30 {
				for _, m := range healthy {
					for _, u := range pages() {
						if _, status := m.get(t, up, u); !strings.Contains(status, "hit") {
							t.Fatalf("round %d: %s", round, status)
						}
					}
				}
				time.Sleep(100 * time.Millisecond)
			}
			for _, m := range healthy {
				if names := owners(m); slices.Contains(names, deaf.Name) || m.Members.Unreachable(deaf.Name) == nil {
					t.Fatalf("the ring of %s is %v", m.Name, names)
				}
				m.Members.Set(b.addrs()[:2])
			}
			time.Sleep(2 * time.Second)
		}
		if n := s.fetches(); n != fetched {
			t.Errorf("%d fetches", n-fetched)
		}
		// It may be there although gossip thinks that it is dead.
		code, result := healthy[0].purge(t, `{"tags": ["all"]}`)
		if code != 502 || !slices.Equal(result.Missing(), []string{deaf.Name}) {
			t.Errorf("%d %+v", code, result)
		}
	})
}

// A member that is reachable at last becomes an owner, and learns what was purged. One
// that says that it goes is not waited for.
func TestMemberThatIsReachedAtLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		one, late := b.nodes[0], b.nodes[2]
		late.SetRing([]peer.Node{late.addr})
		url := b.urlOf(late)
		late.get(t, up, url)
		b.net.part(one.addr.Addr, late.addr.Addr, true)
		one.SetRing(nil)
		one.Members.Set(b.addrs())
		time.Sleep(5 * time.Second)
		if code, result := one.purge(t, `{"tags": ["all"]}`); code != 502 || !slices.Equal(result.Missing(), []string{late.Name}) {
			t.Errorf("unreachable: %d %+v", code, result)
		}
		b.net.part(one.addr.Addr, late.addr.Addr, false)
		time.Sleep(2*node.RemindEvery + time.Second)
		if names := owners(one); len(names) != 3 || one.Members.Unreachable(late.Name) != nil {
			t.Errorf("the ring is %v", names)
		}
		if body, _ := late.get(t, up, url); strings.HasSuffix(body, " 1") {
			t.Errorf("it serves %q", body)
		}
		one.Members.Left(late.Name)
		one.Members.Set(b.addrs()[:2])
		if code, result := one.purge(t, `{"tags": ["all"]}`); code != 200 || len(result.Nodes) != 2 {
			t.Errorf("after it has left: %d %+v", code, result)
		}
	})
}

// One that comes and goes is kept off the ring.
func TestMemberThatFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		one, flapping := b.nodes[0], b.nodes[2]
		one.SetRing(nil)
		on := 0
		for range 20 {
			one.Members.Set(b.addrs())
			time.Sleep(2 * time.Second)
			if slices.Contains(owners(one), flapping.Name) {
				on++
			}
			one.Members.Set(b.addrs()[:2])
			time.Sleep(2 * time.Second)
		}
		if on != 3 {
			t.Errorf("it was on the ring %d times", on)
		}
		one.Members.Set(b.addrs())
		time.Sleep(11 * time.Second)
		if !slices.Contains(owners(one), flapping.Name) {
			t.Errorf("it stays: the ring is %v", owners(one))
		}
	})
}

// What another node acknowledges is not acknowledged: where two members advertise one
// address, and where two have changed places.
func TestAnotherNodeAcknowledgesNothing(t *testing.T) {
	for what, swapped := range map[string]bool{"doubled": false, "swapped": true} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 3, nil)
				all := b.addrs()
				all[2].Addr = all[1].Addr
				missing := []string{all[2].Name}
				if swapped {
					all[1].Addr = b.nodes[2].addr.Addr
					missing = []string{all[1].Name, all[2].Name}
				}
				b.nodes[0].SetRing(nil)
				b.nodes[0].Members.Set(all)
				time.Sleep(2 * time.Second)
				if names := owners(b.nodes[0]); len(names) != 3-len(missing) {
					t.Errorf("the ring is %v", names)
				}
				code, result := b.nodes[0].purge(t, `{"tags": ["all"]}`)
				got := result.Missing()
				if slices.Sort(got); code != 502 || !slices.Equal(got, missing) {
					t.Errorf("%d %+v", code, result)
				}
				if why := b.nodes[0].Members.Unreachable(all[2].Name); why == nil || !strings.Contains(why.Error(), all[1].Name+" answers") {
					t.Errorf("shown: %v", why)
				}
				// Nor does one answer for another that was on the ring.
				b.nodes[0].SetRing(all)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				q := peer.NewQuery("default", [32]byte{1}, nil, nil)
				if _, err := b.nodes[0].Client.Lookup(ctx, all[2], q, time.Second); !errors.As(err, new(peer.OtherNode)) {
					t.Errorf("a look-up: %v", err)
				}
			})
		})
	}
}
