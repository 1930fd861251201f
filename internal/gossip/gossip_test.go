package gossip

import (
	"bytes"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// The first test runs alone, since it counts goroutines.
func TestLeavesNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	a := startNode(t, "a", func(cfg *Config) { cfg.MergeState = func([]byte) error { return nil } })
	// A listener that is never accepted from swallows a join until TCPTimeout, which
	// no slow machine reaches.
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hole.Close() }()
	b := startNode(t, "b", func(cfg *Config) {
		cfg.Join = []string{a.Addr(), hole.Addr().String()}
		cfg.tune = func(c *memberlist.Config) {
			fast(c)
			c.TCPTimeout = 10 * patience
		}
	})
	waitRing(t, "a b", a, b)
	idle, err := net.Dial("tcp", a.Addr()) // says nothing, for ever
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()

	start := time.Now()
	if err := b.Leave(10 * patience); err != nil {
		t.Error(err)
	}
	if err := a.Leave(10 * patience); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("leaving took %v, so it waited for something", took)
	}
	if err := b.Leave(0); err != nil {
		t.Errorf("second Leave: %v", err)
	}
	buf := make([]byte, 1<<16)
	defer func() {
		if t.Failed() {
			t.Logf("%s", buf[:runtime.Stack(buf, true)])
		}
	}()
	waitFor(t, "all goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestThreeMembers(t *testing.T) {
	t.Parallel()
	production := func(cfg *Config) { cfg.tune = nil }
	a := startNode(t, "a", production)
	join := func(cfg *Config) { production(cfg); cfg.Join = []string{a.Addr()} }
	b, c := startNode(t, "b", join), startNode(t, "c", join)
	waitRing(t, "a b c", a, b, c)
	want := Member{Name: "c", State: StateAlive, Gossip: c.Addr(), Peers: "c.test:7947", Version: testVersion}
	if got := a.find("c"); got != want {
		t.Errorf("a sees %+v, want %+v", got, want)
	}
	want.Self = true
	if got := c.find("c"); got != want {
		t.Errorf("c sees itself as %+v, want %+v", got, want)
	}

	if err := c.Leave(5 * time.Second); err != nil {
		t.Error(err)
	}
	waitRing(t, "a b", a, b)
	for _, n := range []*node{a, b} {
		waitFor(t, "c to have left", func() bool { return n.find("c").State == StateLeft })
		// Neither does what follows make it dead, nor does it forget the address.
		if got := n.find("c"); got.Peers != "c.test:7947" || usable(got) {
			t.Errorf("after leaving: %+v", got)
		}
	}
	// The same name at the same address, with memberlist's counters begun anew.
	c = startNode(t, "c", func(cfg *Config) { join(cfg); cfg.Gossip = c.Addr() })
	waitRing(t, "a b c", a, b, c)
}

func TestDeathAndReturn(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", nil)
	b := startNode(t, "b", seeds(a.Addr()))
	c := startNode(t, "c", seeds(a.Addr()))
	waitRing(t, "a b c", a, b, c)
	c.kill()
	waitFor(t, "c to be suspect", func() bool {
		return a.find("c").State == StateSuspect || b.find("c").State == StateSuspect
	})
	waitRing(t, "a b", a, b)
	if got := a.find("c").State; got != StateDead {
		t.Errorf("c was killed and is %q", got)
	}
	// As a container that restarts: its name, a new address. Started at once, it
	// is refused at first, since it is not dead for long.
	again := startNode(t, "c", seeds(a.Addr()))
	if again.Addr() == c.Addr() {
		t.Skip("the kernel gave the same port twice")
	}
	waitRing(t, "a b c", a, b, again)
	waitFor(t, "a to know the new address", func() bool { return a.find("c").Gossip == again.Addr() })
}

func TestReturnBeforeDeathIsNoticed(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", nil)
	b := startNode(t, "b", seeds(a.Addr()))
	waitRing(t, "a b", a, b)
	b.kill()
	again := startNode(t, "b", seeds(a.Addr()))
	waitFor(t, "a to know the new address", func() bool {
		got := a.find("b")
		return usable(got) && got.Gossip == again.Addr()
	})
	waitRing(t, "a b", a, again)
}

// otherMeta is a delegate of a build that writes its node meta otherwise.
type otherMeta struct {
	memberlist.Delegate
	meta []byte
}

func (o otherMeta) NodeMeta(int) []byte { return o.meta }

func TestOtherVersions(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", nil)
	metas := map[string][]byte{
		"newer":   meta{version: testVersion + 1, peers: "newer.test:7947"}.encode(),
		"garbage": {testVersion, 0xff, 0x00, ':', '1'},
		"long":    append([]byte{testVersion}, bytes.Repeat([]byte("x"), memberlist.MetaMaxSize-1)...),
		"empty":   {},
	}
	for name, meta := range metas {
		startNode(t, name, func(cfg *Config) {
			cfg.Join = []string{a.Addr()}
			cfg.tune = func(c *memberlist.Config) {
				fast(c)
				c.Delegate = otherMeta{c.Delegate, meta}
			}
		})
	}
	for name := range metas {
		waitFor(t, name+" to be a member", func() bool { return a.find(name).State == StateAlive })
		if usable(a.find(name)) {
			t.Errorf("%s is usable: %+v", name, a.find(name))
		}
	}
	if got := a.find("newer"); got.Version != testVersion+1 || got.Peers != "newer.test:7947" {
		t.Errorf("newer: %+v", got)
	}
	waitRing(t, "a", a)
}

func TestState(t *testing.T) {
	t.Parallel()
	var merged atomic.Int32
	a := startNode(t, "a", func(cfg *Config) {
		cfg.MergeState = func(b []byte) error {
			if string(b) != "state of b" {
				t.Errorf("merged %q", b)
			}
			merged.Add(1)
			return nil
		}
	})
	b := startNode(t, "b", func(cfg *Config) {
		cfg.Join = []string{a.Addr()}
		cfg.LocalState = func() []byte { return []byte("state of b") }
	})
	waitRing(t, "a b", a, b)
	waitFor(t, "b's state at a", func() bool { return merged.Load() > 0 })

	// A slow merge holds up no push/pull; states that do not fit are dropped.
	slow := &Membership{cfg: Config{MergeState: func([]byte) error { return nil }}, merges: make(chan []byte, 1)}
	for range 3 {
		delegate{slow}.MergeRemoteState([]byte("x"), false)
	}
	delegate{slow}.MergeRemoteState(make([]byte, maxLocalState+1), false)
	if n := slow.mergesDropped.Load(); n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	taken := startNode(t, "taken", nil)
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no name":       {func(c *Config) { c.Name = "" }, "node name"},
		"no peers":      {func(c *Config) { c.Peers = "host" }, "peer address"},
		"bad seed":      {func(c *Config) { c.Join = []string{"a:b:c"} }, "seed"},
		"short key":     {func(c *Config) { keyed(t, "", "1")(c); c.Keys[0].packets = []byte{1} }, "gossip key 1 of 1"},
		"no gossip":     {func(c *Config) { c.Gossip = "host:1" }, "ip:port"},
		"taken port":    {func(c *Config) { c.Gossip = taken.Addr() }, "free port"},
		"bad advertise": {func(c *Config) { c.AdvertiseGossip = "x y" }, "advertised"},
		"memberlist":    {func(c *Config) { c.tune = func(c *memberlist.Config) { c.ProtocolVersion = 99 } }, "starting gossip"},
	} {
		cfg := Config{Name: "a", Gossip: "127.0.0.1:0", Peers: "a.test:1"}
		tc.change(&cfg)
		m, err := Start(cfg)
		if err == nil {
			m.kill()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
