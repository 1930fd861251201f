package gossip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestTwoSeedsStartTogether(t *testing.T) {
	t.Parallel()
	addrA, addrB := freeAddr(t), freeAddr(t)
	both := func(own string) func(*Config) {
		return func(cfg *Config) { cfg.Gossip, cfg.Join = own, []string{addrA, addrB} }
	}
	a, b := startNode(t, "a", both(addrA)), startNode(t, "b", both(addrB))
	waitRing(t, "a b", a, b)
	// A restarted seed.
	a.kill()
	waitRing(t, "b", b)
	a = startNode(t, "a", both(addrA))
	waitRing(t, "a b", a, b)
}

func TestSeedStartsLate(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	b := startNode(t, "b", seeds(addr, "nowhere.invalid:1"))
	waitRing(t, "b", b)
	a := startNode(t, "a", func(cfg *Config) { cfg.Gossip = addr })
	waitRing(t, "a b", a, b)
}

func TestSetJoin(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", nil)
	b := startNode(t, "b", func(cfg *Config) { cfg.rejoinEvery = time.Hour })
	waitRing(t, "b", b)
	b.SetJoin([]string{"not a seed", a.Addr()})
	waitRing(t, "a b", a, b)
}

func TestResolvesSeedsAgain(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", nil)
	_, port, _ := net.SplitHostPort(a.Addr())
	var answer atomic.Pointer[[]netip.Addr] // nil: no such host
	var calls atomic.Int32
	b := startNode(t, "b", func(cfg *Config) {
		cfg.Join = []string{"seeds.test:" + port}
		cfg.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
			calls.Add(1)
			if ips := answer.Load(); host == "seeds.test" && ips != nil {
				return *ips, nil
			}
			return nil, errors.New("no such host")
		}
	})
	asked := func(more int32) func() bool {
		want := calls.Load() + more
		return func() bool { return calls.Load() >= want }
	}
	waitFor(t, "the name to be looked up in vain", asked(2))
	// No node listens at the first two.
	answer.Store(&[]netip.Addr{netip.MustParseAddr("127.0.0.77")})
	waitFor(t, "the dead address to be tried", asked(2))
	answer.Store(&[]netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("::ffff:127.0.0.1")})
	waitRing(t, "a b", a, b)
}

// partition is a transport that cannot reach the addresses in cut.
type partition struct {
	memberlist.NodeAwareTransport
	cut *atomic.Pointer[[]string]
}

func (p *partition) blocked(addr string) bool {
	cut := p.cut.Load()
	return cut != nil && slices.Contains(*cut, addr)
}

func (p *partition) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if p.blocked(a.Addr) {
		return time.Now(), nil
	}
	return p.NodeAwareTransport.WriteToAddress(b, a)
}

func (p *partition) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if p.blocked(a.Addr) {
		return nil, errors.New("partitioned")
	}
	return p.NodeAwareTransport.DialAddressTimeout(a, timeout)
}

// Two halves find each other again although no node has a seed any more.
func TestHealsPartition(t *testing.T) {
	t.Parallel()
	cuts := make(map[string]*atomic.Pointer[[]string])
	start := func(name string, join ...string) *node {
		cuts[name] = new(atomic.Pointer[[]string])
		return startNode(t, name, func(cfg *Config) {
			cfg.Join = join
			cfg.tune = func(c *memberlist.Config) {
				fast(c)
				c.GossipToTheDeadTime = 200 * time.Millisecond // so that memberlist does not heal it by itself
				c.Transport = &partition{c.Transport.(memberlist.NodeAwareTransport), cuts[name]}
			}
		})
	}
	a := start("a")
	b, c, d := start("b", a.Addr()), start("c", a.Addr()), start("d", a.Addr())
	all := []*node{a, b, c, d}
	waitRing(t, "a b c d", all...)
	for _, n := range all {
		n.SetJoin(nil)
	}
	cuts["a"].Store(&[]string{c.Addr(), d.Addr()})
	cuts["b"].Store(&[]string{c.Addr(), d.Addr()})
	cuts["c"].Store(&[]string{a.Addr(), b.Addr()})
	cuts["d"].Store(&[]string{a.Addr(), b.Addr()})
	waitRing(t, "a b", a, b)
	waitRing(t, "c d", c, d)
	for _, n := range all {
		waitFor(t, "memberlist to give up on the dead", func() bool {
			n.roster.mu.Lock()
			defer n.roster.mu.Unlock()
			for _, r := range n.roster.records {
				if r.State == StateDead && time.Since(r.gone) < time.Second {
					return false
				}
			}
			return true
		})
	}
	for _, cut := range cuts {
		cut.Store(nil)
	}
	waitRing(t, "a b c d", all...)
}

func TestWildcard(t *testing.T) {
	t.Parallel()
	everywhere := func(join ...string) func(*Config) {
		return func(cfg *Config) {
			cfg.AdvertiseGossip = freeAddr(t)
			_, port, _ := net.SplitHostPort(cfg.AdvertiseGossip)
			cfg.Gossip, cfg.Join = "0.0.0.0:"+port, join
		}
	}
	a := startNode(t, "a", everywhere())
	_, port, _ := net.SplitHostPort(a.Addr())
	self := a.selfAddrs()
	for _, addr := range []string{"127.0.0.1:" + port, a.Addr()} {
		if !self(netip.MustParseAddrPort(addr)) {
			t.Errorf("%s is not known as the node itself", addr)
		}
	}
	b := startNode(t, "b", everywhere(a.Addr()))
	waitRing(t, "a b", a, b)
}

// TestJoinedComesAfterTheMembers: a purge that waits for it knows of all that the seeds have brought,
// and does not wait for seeds that are not there.
func TestJoinedComesAfterTheMembers(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", nil)
	for name, list := range map[string][]string{"b": {a.Addr()}, "c": {a.Addr(), "nowhere.invalid:1"}, "d": {"nowhere.invalid:1"}, "e": nil} {
		joined := make(chan []Member, 2)
		var last []Member // only the goroutine that calls back has it
		startNode(t, name, func(cfg *Config) {
			cfg.Join = list
			cfg.OnChange = func(members []Member) { last = slices.Clone(members) }
			cfg.Joined = func() { joined <- last }
		})
		select {
		case members := <-joined:
			if knows := slices.ContainsFunc(members, func(m Member) bool { return m.Name == "a" }); knows != (name == "b" || name == "c") {
				t.Errorf("%s: %v", name, members)
			}
		case <-time.After(patience):
			t.Fatalf("%s has not joined", name)
		}
	}
}
