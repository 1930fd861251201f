package caddygroupcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-groupcache/caddy-groupcache/internal/freeport"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// waitFor polls cond until it holds, and fails the test if it never does.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// gossipNode is a membership under test and what it told.
type gossipNode struct {
	*membership
	calling atomic.Int32

	mu   sync.Mutex // guards last
	last []member
}

// fastGossip finds failures sooner than production does.
func fastGossip(c *memberlist.Config) {
	c.ProbeInterval = 200 * time.Millisecond
	c.ProbeTimeout = 100 * time.Millisecond
	c.GossipInterval = 20 * time.Millisecond
	c.DeadNodeReclaimTime = 300 * time.Millisecond
}

// startGossip starts a node on a free port, changed by change, which may be nil.
func startGossip(t *testing.T, name string, change func(*membershipConfig)) *gossipNode {
	t.Helper()
	n := new(gossipNode)
	cfg := membershipConfig{
		Name: name, Gossip: "127.0.0.1:0", Peers: name + ".test:7947",
		RejoinEvery: 50 * time.Millisecond, tune: fastGossip,
	}
	if change != nil {
		change(&cfg)
	}
	m, err := startMembership(cfg, func(list []member) {
		if n.calling.Add(1) != 1 {
			t.Errorf("%s: onChange is called concurrently", name)
		}
		n.mu.Lock()
		if slices.Equal(list, n.last) {
			t.Errorf("%s: onChange is called without a change: %v", name, list)
		}
		n.last = list
		n.mu.Unlock()
		n.calling.Add(-1)
	})
	if err != nil {
		t.Fatal(err)
	}
	n.membership = m
	t.Cleanup(n.kill)
	return n
}

func seeds(list ...string) func(*membershipConfig) {
	return func(cfg *membershipConfig) { cfg.Join = list }
}

// ring is the names of the usable members that onChange told of last.
func (n *gossipNode) ring() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for _, m := range n.last {
		if m.usable() {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, " ")
}

func (n *gossipNode) find(name string) member {
	for _, m := range n.Members() {
		if m.Name == name {
			return m
		}
	}
	return member{}
}

func waitRing(t *testing.T, want string, nodes ...*gossipNode) {
	t.Helper()
	for _, n := range nodes {
		waitFor(t, fmt.Sprintf("the ring of %s to be %q", n.cfg.Name, want), func() bool { return n.ring() == want })
	}
}

// freeAddr is an address that nobody else has until the test ends.
func freeAddr(t *testing.T) string {
	t.Helper()
	free, release, err := freeport.Tests.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return free[0]
}

// The first test runs alone, since it counts goroutines.
func TestMembershipLeavesNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	a := startGossip(t, "a", func(cfg *membershipConfig) { cfg.MergeState = func([]byte) {} })
	// A listener that is never accepted from swallows a join until TCPTimeout, which
	// no slow machine reaches.
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hole.Close() }()
	b := startGossip(t, "b", func(cfg *membershipConfig) {
		cfg.Join = []string{a.Addr(), hole.Addr().String()}
		cfg.tune = func(c *memberlist.Config) {
			fastGossip(c)
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

func TestMembershipThreeMembers(t *testing.T) {
	t.Parallel()
	production := func(cfg *membershipConfig) { cfg.tune = nil }
	a := startGossip(t, "a", production)
	join := func(cfg *membershipConfig) { production(cfg); cfg.Join = []string{a.Addr()} }
	b, c := startGossip(t, "b", join), startGossip(t, "c", join)
	waitRing(t, "a b c", a, b, c)
	want := member{Name: "c", State: stateAlive, Gossip: c.Addr(), Peers: "c.test:7947", Version: protocolVersion}
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
	for _, n := range []*gossipNode{a, b} {
		waitFor(t, "c to have left", func() bool { return n.find("c").State == stateLeft })
		// Neither does what follows make it dead, nor does it forget the address.
		if got := n.find("c"); got.Peers != "c.test:7947" || got.usable() {
			t.Errorf("after leaving: %+v", got)
		}
	}
	// The same name at the same address, with memberlist's counters begun anew.
	c = startGossip(t, "c", func(cfg *membershipConfig) { join(cfg); cfg.Gossip = c.Addr() })
	waitRing(t, "a b c", a, b, c)
}

func TestMembershipDeathAndReturn(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", nil)
	b := startGossip(t, "b", seeds(a.Addr()))
	c := startGossip(t, "c", seeds(a.Addr()))
	waitRing(t, "a b c", a, b, c)
	c.kill()
	waitFor(t, "c to be suspect", func() bool {
		return a.find("c").State == stateSuspect || b.find("c").State == stateSuspect
	})
	waitRing(t, "a b", a, b)
	if got := a.find("c").State; got != stateDead {
		t.Errorf("c was killed and is %q", got)
	}
	// As a container that restarts: its name, a new address. Started at once, it
	// is refused at first, since it is not dead for long.
	again := startGossip(t, "c", seeds(a.Addr()))
	if again.Addr() == c.Addr() {
		t.Skip("the kernel gave the same port twice")
	}
	waitRing(t, "a b c", a, b, again)
	waitFor(t, "a to know the new address", func() bool { return a.find("c").Gossip == again.Addr() })
}

func TestMembershipReturnBeforeDeathIsNoticed(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", nil)
	b := startGossip(t, "b", seeds(a.Addr()))
	waitRing(t, "a b", a, b)
	b.kill()
	again := startGossip(t, "b", seeds(a.Addr()))
	waitFor(t, "a to know the new address", func() bool {
		got := a.find("b")
		return got.usable() && got.Gossip == again.Addr()
	})
	waitRing(t, "a b", a, again)
}

func TestMembershipTwoSeedsStartTogether(t *testing.T) {
	t.Parallel()
	addrA, addrB := freeAddr(t), freeAddr(t)
	both := func(own string) func(*membershipConfig) {
		return func(cfg *membershipConfig) { cfg.Gossip, cfg.Join = own, []string{addrA, addrB} }
	}
	a, b := startGossip(t, "a", both(addrA)), startGossip(t, "b", both(addrB))
	waitRing(t, "a b", a, b)
	// A restarted seed.
	a.kill()
	waitRing(t, "b", b)
	a = startGossip(t, "a", both(addrA))
	waitRing(t, "a b", a, b)
}

func TestMembershipSeedStartsLate(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	b := startGossip(t, "b", seeds(addr, "nowhere.invalid:1"))
	waitRing(t, "b", b)
	a := startGossip(t, "a", func(cfg *membershipConfig) { cfg.Gossip = addr })
	waitRing(t, "a b", a, b)
}

func TestMembershipSetJoin(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", nil)
	b := startGossip(t, "b", func(cfg *membershipConfig) { cfg.RejoinEvery = time.Hour })
	waitRing(t, "b", b)
	b.SetJoin([]string{"not a seed", a.Addr()})
	waitRing(t, "a b", a, b)
}

func TestMembershipResolvesSeedsAgain(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", nil)
	_, port, _ := net.SplitHostPort(a.Addr())
	var answer atomic.Pointer[[]netip.Addr] // nil: no such host
	var calls atomic.Int32
	b := startGossip(t, "b", func(cfg *membershipConfig) {
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
	// Nobody listens at the first two.
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
func TestMembershipHealsPartition(t *testing.T) {
	t.Parallel()
	cuts := make(map[string]*atomic.Pointer[[]string])
	start := func(name string, join ...string) *gossipNode {
		cuts[name] = new(atomic.Pointer[[]string])
		return startGossip(t, name, func(cfg *membershipConfig) {
			cfg.Join = join
			cfg.tune = func(c *memberlist.Config) {
				fastGossip(c)
				c.GossipToTheDeadTime = 200 * time.Millisecond // so that memberlist does not heal it by itself
				c.Transport = &partition{c.Transport.(memberlist.NodeAwareTransport), cuts[name]}
			}
		})
	}
	a := start("a")
	b, c, d := start("b", a.Addr()), start("c", a.Addr()), start("d", a.Addr())
	all := []*gossipNode{a, b, c, d}
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
			n.membership.mu.Lock()
			defer n.membership.mu.Unlock()
			for _, r := range n.nodes {
				if r.State == stateDead && time.Since(r.gone) < time.Second {
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

// keysOf makes the keys of secrets named by letters.
func keysOf(t testing.TB, letters string) []clusterKeys {
	t.Helper()
	var all []clusterKeys
	for _, l := range letters {
		k, err := deriveKeys(bytes.Repeat([]byte{byte(l)}, minSecret))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	return all
}

// keyed configures a node that holds the secrets of some letters.
func keyed(t testing.TB, join, letters string) func(*membershipConfig) {
	return func(cfg *membershipConfig) {
		cfg.Keys, cfg.Identity = keysOf(t, letters), new(peer.Identity)
		if err := cfg.Identity.SetSecrets(peerSecrets(cfg.Keys)); err != nil {
			t.Fatal(err)
		}
		if join != "" {
			cfg.Join = []string{join}
		}
	}
}

// rekey does what a reload with other secrets does.
func (n *gossipNode) rekey(t testing.TB, letters string) {
	t.Helper()
	keys := keysOf(t, letters)
	if err := n.cfg.Identity.SetSecrets(peerSecrets(keys)); err != nil {
		t.Fatal(err)
	}
	if err := n.SetKeys(keys); err != nil {
		t.Fatal(err)
	}
}

// sealsWith reports whether gossip of a node is sealed with the key of a letter.
func (n *gossipNode) sealsWith(t testing.TB, letter string) bool {
	return bytes.Equal(n.keyring.GetPrimaryKey(), keysOf(t, letter)[0].gossip)
}

func TestMembershipKeys(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", keyed(t, "", "1"))
	b := startGossip(t, "b", keyed(t, a.Addr(), "1"))
	waitRing(t, "a b", a, b)
	if n := a.Refused(); n != 0 {
		t.Errorf("%d refused before there were strangers", n)
	}
	wrong := startGossip(t, "wrong", keyed(t, a.Addr(), "2"))
	waitFor(t, "the wrong key to be refused", func() bool { return a.Refused() > 0 })
	refused := a.Refused()
	plain := startGossip(t, "plain", seeds(a.Addr()))
	waitFor(t, "plaintext to be refused", func() bool { return a.Refused() > refused })
	refused = a.Refused()
	packet := gossipPacket([]byte{0, 1, 2, 3}) // plaintext
	sendGossip(t, "udp", a.Addr(), packet)
	waitFor(t, "many more to be refused", func() bool { return a.Refused() > refused+5 })
	waitRing(t, "a b", a, b)
	waitRing(t, "wrong", wrong)
	waitRing(t, "plain", plain)
	if got := len(wrong.Members()); got != 1 {
		t.Errorf("a stranger has learned of %d members", got)
	}
	wrong.kill()
	plain.kill()

	for _, letters := range []string{"21", "2"} {
		for _, n := range []*gossipNode{a, b} {
			n.rekey(t, letters)
		}
	}
	c := startGossip(t, "c", keyed(t, a.Addr(), "2"))
	waitRing(t, "a b c", a, b, c)
	old := startGossip(t, "old", keyed(t, a.Addr(), "1"))
	refused = a.Refused()
	waitFor(t, "the old key to be refused", func() bool { return a.Refused() > refused })
	waitRing(t, "a b c", a, b, c)
	waitRing(t, "old", old)

	short := keysOf(t, "32")
	short[1].gossip = []byte("short")
	for _, tc := range []struct {
		node *gossipNode
		keys []clusterKeys
		want string
	}{
		{a, nil, "restart"},
		{a, short, "key 2 of 2"},
		{plain, keysOf(t, "1"), "restart"},
		{plain, nil, ""},
	} {
		err := tc.node.SetKeys(tc.keys)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("SetKeys(%d keys): %v, want %q", len(tc.keys), err, tc.want)
		}
	}
}

func TestRotate(t *testing.T) {
	key := func(c byte) []byte { return bytes.Repeat([]byte{c}, 16) }
	ringOf := func(s string) (keys [][]byte) {
		for i := range len(s) {
			keys = append(keys, key(s[i]))
		}
		return keys
	}
	for _, tc := range []struct{ from, to string }{
		{"a", "a"}, {"a", "b"}, {"a", "ba"}, {"a", "ab"}, {"ab", "b"}, {"ab", "a"},
		{"abc", "cd"}, {"abcd", "bd"}, {"abc", "def"}, {"abc", "cba"}, {"ab", "aa"},
	} {
		var ring *memberlist.Keyring
		for range 300 { // enough for the race detector to meet a write where readers read
			var err error
			if ring, err = memberlist.NewKeyring(ringOf(tc.from), key(tc.from[0])); err != nil {
				t.Fatal(err)
			}
			stop, reading := make(chan struct{}), make(chan struct{})
			var reader sync.WaitGroup
			reader.Go(func() { // as memberlist reads to open a packet
				close(reading)
				for {
					for _, k := range ring.GetKeys() {
						if len(k) != 16 {
							t.Error("torn key")
						}
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
			<-reading
			if err := rotate(ring, ringOf(tc.to)); err != nil {
				t.Fatalf("%s to %s: %v", tc.from, tc.to, err)
			}
			close(stop)
			reader.Wait()
		}
		got := ring.GetKeys()
		if !bytes.Equal(got[0], key(tc.to[0])) {
			t.Errorf("%s to %s: first key %q", tc.from, tc.to, got[0])
		}
		for _, k := range got {
			if !strings.Contains(tc.to, string(k[:1])) {
				t.Errorf("%s to %s: %q is still there", tc.from, tc.to, k)
			}
		}
		for _, c := range tc.to {
			if !slices.ContainsFunc(got, func(k []byte) bool { return k[0] == byte(c) }) {
				t.Errorf("%s to %s: %q is missing", tc.from, tc.to, c)
			}
		}
	}
}

// otherMeta is a delegate of a build that writes its node meta otherwise.
type otherMeta struct {
	memberlist.Delegate
	meta []byte
}

func (o otherMeta) NodeMeta(int) []byte { return o.meta }

func TestMembershipOtherVersions(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", nil)
	metas := map[string][]byte{
		"newer":   nodeMeta{version: protocolVersion + 1, peers: "newer.test:7947"}.encode(),
		"garbage": {protocolVersion, 0xff, 0x00, ':', '1'},
		"long":    append([]byte{protocolVersion}, bytes.Repeat([]byte("x"), memberlist.MetaMaxSize-1)...),
		"empty":   {},
	}
	for name, meta := range metas {
		startGossip(t, name, func(cfg *membershipConfig) {
			cfg.Join = []string{a.Addr()}
			cfg.tune = func(c *memberlist.Config) {
				fastGossip(c)
				c.Delegate = otherMeta{c.Delegate, meta}
			}
		})
	}
	for name := range metas {
		waitFor(t, name+" to be a member", func() bool { return a.find(name).State == stateAlive })
		if a.find(name).usable() {
			t.Errorf("%s is usable: %+v", name, a.find(name))
		}
	}
	if got := a.find("newer"); got.Version != protocolVersion+1 || got.Peers != "newer.test:7947" {
		t.Errorf("newer: %+v", got)
	}
	waitRing(t, "a", a)
}

// gossipPacket puts our label before b, so that memberlist looks at it.
func gossipPacket(b []byte) []byte {
	return append(append([]byte{244, byte(len(gossipLabel))}, gossipLabel...), b...)
}

func sendGossip(t *testing.T, network, addr string, b []byte) {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(b); err != nil && network == "udp" {
		t.Fatal(err) // a stream may be closed on us
	}
}

func TestMembershipGarbage(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", nil)
	b := startGossip(t, "b", seeds(a.Addr()))
	waitRing(t, "a b", a, b)
	payloads := [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"), {0}, {244}, {244, 0}, {244, 255, 'x'}, bytes.Repeat([]byte{0xc1}, 1400), gossipPacket(nil),
	}
	for kind := range 16 { // each message type, and more
		for _, body := range [][]byte{nil, {0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x81}, 300), {0x81, 0xa5, 'N', 'o', 'd', 'e', 's', 0xff}} {
			payloads = append(payloads, gossipPacket(append([]byte{byte(kind)}, body...)))
		}
	}
	for _, p := range payloads {
		sendGossip(t, "udp", a.Addr(), p)
		sendGossip(t, "tcp", a.Addr(), p)
	}
	waitFor(t, "garbage to be refused", func() bool { return a.Refused() > int64(len(payloads)/2) })
	c := startGossip(t, "c", seeds(a.Addr()))
	waitRing(t, "a b c", a, b, c)
}

func TestMembershipManyStreams(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", nil)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	waitFor(t, "a stream too many to be refused", func() bool {
		c, err := net.Dial("tcp", a.Addr())
		if err == nil {
			conns = append(conns, c)
		}
		a.transport.mu.Lock()
		defer a.transport.mu.Unlock()
		if a.transport.inbound > maxStreams {
			t.Fatalf("%d streams", a.transport.inbound)
		}
		return a.Refused() > 0
	})
	b := startGossip(t, "b", seeds(a.Addr())) // as soon as the idle ones time out
	waitRing(t, "a b", a, b)
}

func TestGossipTransportEnds(t *testing.T) {
	t.Parallel()
	tr, err := newGossipTransport(netip.MustParseAddrPort("127.0.0.1:0"), gossipSecurity{}, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := tr.DialTimeout(l.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn.(*gossipConn).budget = 3
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Write([]byte("12345")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "123" || !errors.Is(err, errStreamTooLong) {
		t.Errorf("read %q, %v from a stream that is too long", got, err)
	}
	sendGossip(t, "udp", fmt.Sprintf("127.0.0.1:%d", tr.GetAutoBindPort()), []byte("nobody takes it"))
	_ = tr.Shutdown()
	_ = tr.Shutdown() // again
	if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing after the end: %v", err)
	}
	if _, err := tr.DialTimeout(l.Addr().String(), time.Second); err == nil {
		t.Error("dialed after the end")
	}
	if len(tr.open) != 0 {
		t.Errorf("%d streams are left", len(tr.open))
	}
}

func TestMembershipState(t *testing.T) {
	t.Parallel()
	var merged atomic.Int32
	a := startGossip(t, "a", func(cfg *membershipConfig) {
		cfg.MergeState = func(b []byte) {
			if string(b) != "state of b" {
				t.Errorf("merged %q", b)
			}
			merged.Add(1)
		}
	})
	b := startGossip(t, "b", func(cfg *membershipConfig) {
		cfg.Join = []string{a.Addr()}
		cfg.LocalState = func() []byte { return []byte("state of b") }
	})
	waitRing(t, "a b", a, b)
	waitFor(t, "b's state at a", func() bool { return merged.Load() > 0 })

	// A slow merge holds up nobody; what does not fit is dropped.
	slow := &membership{cfg: membershipConfig{MergeState: func([]byte) {}}, merges: make(chan []byte, 1)}
	for range 3 {
		callbacks{slow}.MergeRemoteState([]byte("x"), false)
	}
	callbacks{slow}.MergeRemoteState(make([]byte, maxLocalState+1), false)
	if n := slow.mergesDropped.Load(); n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
}

// What memberlist's events cannot tell apart in a live cluster at will.
func TestMembershipRecords(t *testing.T) {
	m := &membership{cfg: membershipConfig{Name: "self", RejoinEvery: time.Second}, changed: make(chan struct{}, 1), nodes: make(map[string]*nodeRecord)}
	cb := callbacks{m}
	node := func(name string, meta []byte) *memberlist.Node {
		return &memberlist.Node{Name: name, Addr: net.IPv4(192, 0, 2, 1), Port: 7946, Meta: meta}
	}
	state := func() string { return m.Members()[0].State }
	up, bye := nodeMeta{version: protocolVersion, peers: "x.test:1"}.encode(), nodeMeta{version: protocolVersion, leaving: true}.encode()
	cb.NotifyJoin(node("x", up))
	m.noteSuspect("x")
	if state() != stateSuspect || !m.Members()[0].usable() {
		t.Errorf("after a failed probe: %+v", m.Members()[0])
	}
	cb.NotifyPingComplete(node("x", up), 0, nil)
	if state() != stateAlive {
		t.Errorf("after an answer: %s", state())
	}
	cb.NotifyLeave(node("x", up))
	if state() != stateDead {
		t.Errorf("gone without a word: %s", state())
	}

	// A dead one is tried ever more rarely.
	now := time.Now()
	var tries int
	for range 600 {
		now = now.Add(time.Second)
		if _, dead := m.targets(now); len(dead) == 1 {
			tries++
		}
	}
	if tries < 12 || tries > 20 {
		t.Errorf("%d tries in ten minutes", tries)
	}
	cb.NotifyJoin(node("x", up))
	cb.NotifyUpdate(node("x", bye))
	if got := m.Members()[0]; got.State != stateLeft || got.Peers != "x.test:1" {
		t.Errorf("after its announcement: %+v", got)
	}
	cb.NotifyLeave(node("x", bye))
	if state() != stateLeft {
		t.Errorf("after it left: %s", state())
	}
	m.nodes["x"].gone = time.Now().Add(-forgetAfter - time.Second)
	if got := m.Members(); len(got) != 0 {
		t.Errorf("not forgotten: %v", got)
	}
	for i := range maxGone + 9 {
		cb.NotifyJoin(node(fmt.Sprint(i), up))
		cb.NotifyLeave(node(fmt.Sprint(i), up))
	}
	if got := m.Members(); len(got) != maxGone || m.nodes[fmt.Sprint(maxGone+8)] == nil {
		t.Errorf("%d gone members are kept, want the last %d", len(got), maxGone)
	}

	for i := range maxMembers {
		cb.NotifyJoin(node(fmt.Sprint(i), up))
	}
	for name, n := range map[string]*memberlist.Node{
		"too many":    node("new", up),
		"no name":     node("", up),
		"long name":   node(strings.Repeat("x", 256), up),
		"bad name":    node("a\nb", up),
		"no address":  {Name: "1", Port: 1},
		"odd address": {Name: "1", Addr: net.IP{1, 2, 3}, Port: 1},
		"no port":     {Name: "1", Addr: net.IPv4(192, 0, 2, 1)},
		"long meta":   node("1", make([]byte, 513)),
	} {
		if err := cb.NotifyAlive(n); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if err := cb.NotifyAlive(node("1", up)); err != nil {
		t.Error(err)
	}
}

func TestMembershipStartErrors(t *testing.T) {
	t.Parallel()
	taken := startGossip(t, "taken", nil)
	for name, tc := range map[string]struct {
		change func(*membershipConfig)
		want   string
	}{
		"no name":       {func(c *membershipConfig) { c.Name = "" }, "node name"},
		"no peers":      {func(c *membershipConfig) { c.Peers = "host" }, "peer address"},
		"bad seed":      {func(c *membershipConfig) { c.Join = []string{"a:b:c"} }, "seed"},
		"short key":     {func(c *membershipConfig) { keyed(t, "", "1")(c); c.Keys[0].gossip = []byte{1} }, "gossip key 1 of 1"},
		"no gossip":     {func(c *membershipConfig) { c.Gossip = "host:1" }, "ip:port"},
		"taken port":    {func(c *membershipConfig) { c.Gossip = taken.Addr() }, "free port"},
		"bad advertise": {func(c *membershipConfig) { c.AdvertiseGossip = "x y" }, "advertised"},
		"memberlist":    {func(c *membershipConfig) { c.tune = func(c *memberlist.Config) { c.ProtocolVersion = 99 } }, "starting gossip"},
	} {
		cfg := membershipConfig{Name: "a", Gossip: "127.0.0.1:0", Peers: "a.test:1"}
		tc.change(&cfg)
		m, err := startMembership(cfg, nil)
		if err == nil {
			m.kill()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestMembershipWildcard(t *testing.T) {
	t.Parallel()
	everywhere := func(join ...string) func(*membershipConfig) {
		return func(cfg *membershipConfig) {
			cfg.AdvertiseGossip = freeAddr(t)
			_, port, _ := net.SplitHostPort(cfg.AdvertiseGossip)
			cfg.Gossip, cfg.Join = "0.0.0.0:"+port, join
		}
	}
	a := startGossip(t, "a", everywhere())
	_, port, _ := net.SplitHostPort(a.Addr())
	self := a.selfAddrs()
	for _, addr := range []string{"127.0.0.1:" + port, a.Addr()} {
		if !self(netip.MustParseAddrPort(addr)) {
			t.Errorf("%s is not known as the node itself", addr)
		}
	}
	b := startGossip(t, "b", everywhere(a.Addr()))
	waitRing(t, "a b", a, b)
}

func TestParseSeed(t *testing.T) {
	for seed, want := range map[string]string{
		"host":            "host 7946",
		"host:1":          "host 1",
		"a.b-c_d:65535":   "a.b-c_d 65535",
		"192.0.2.1":       "192.0.2.1 7946",
		"192.0.2.1:8":     "192.0.2.1 8",
		"2001:db8::1":     "2001:db8::1 7946",
		"[2001:db8::1]":   "2001:db8::1 7946",
		"[2001:db8::1]:8": "2001:db8::1 8",
		"":                "", "host:": "", "host:x": "", "host:0": "", "host:65536": "", ":1": "", "a b": "",
		"a/b:1": "", "[fe80::1%eth0]:1": "", "fe80::1%eth0": "", "[host": "", "a:b:c": "", "[]": "",
	} {
		host, port, err := parseSeed(seed)
		got := fmt.Sprint(host, " ", port)
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("parseSeed(%q): %q, %v, want %q", seed, got, err, want)
		}
	}
}

func TestGossipLogLevels(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	var refused atomic.Int64
	var suspects []string
	g := &gossipLog{log: zap.New(core), refused: &refused, suspect: func(s string) { suspects = append(suspects, s) }, kinds: make(map[string]*logKind)}
	for _, line := range []string{
		"[DEBUG] memberlist: one", "[INFO] memberlist: two", "[WARN] memberlist: three", "[ERR] memberlist: four",
		"[ERROR] memberlist: five", "Err: six", "[ERR] Failed to shutdown", "[INFO] memberlist: Suspect a b has failed, no acks received",
		"[ERR] memberlist: Decrypt packet failed: x from=1", "[ERR] memberlist: Decrypt packet failed: y from=2",
	} {
		if n, err := g.Write([]byte(line + "\n")); n != len(line)+1 || err != nil {
			t.Fatal(n, err)
		}
	}
	var got []string
	for _, e := range logs.All() {
		got = append(got, e.Level.String()+" "+e.Message)
	}
	want := []string{
		"debug one", "info two", "warn three", "error four", "error five", "error Err: six", "error Failed to shutdown",
		"info Suspect a b has failed, no acks received", "warn refused a stranger",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if refused.Load() != 2 || !slices.Equal(suspects, []string{"a b"}) {
		t.Errorf("%d refused, suspects %q", refused.Load(), suspects)
	}
	for i := range 1000 {
		g.refusal("gossip", fmt.Sprintf("%s-%s", strings.Repeat("x", i%99), strings.Repeat("y", i/99)))
	}
	if len(g.kinds) > maxLogKinds+1 {
		t.Errorf("%d kinds of lines", len(g.kinds))
	}
}

func FuzzNodeMeta(f *testing.F) {
	for _, seed := range []string{
		"", "\x01", "\x01a:1", "\x01[::1]:7947", "\x02later:1", "\x01a:0", "\x01a:99999", "\x01:1", "\x01[::]:1", "\x01[fe80::1%lo]:1",
		"\x01\xff:1", "\x01a b:1", "\x01a:+1", "\x01" + strings.Repeat("a", 511),
		"\x01a:1\x00", "\x01a:1\x0012345678", "\x01a:1\x0012345678abcdef", "\x01a:1\x0012345678abcdefghijkl", "\x01a:1\x0012345678abc",
		"\x01a:1\x0012345678" + strings.Repeat("abcdef", maxSecrets+1), "\x01a:1\x00" + strings.Repeat("\x00", 14),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, meta []byte) {
		n := decodeNodeMeta(meta)
		peers := n.peers
		if len(meta) > 0 && n.version != meta[0] {
			t.Errorf("version %d", n.version)
		}
		if n.leaving && peers != "" {
			t.Errorf("leaving with address %q", peers)
		}
		if peers == "" {
			return
		}
		if !validPeerAddr(peers) || !bytes.Equal(n.encode(), meta) || len(meta) > memberlist.MetaMaxSize {
			t.Errorf("%q is decoded to %q", meta, peers)
		}
		if _, err := net.ResolveTCPAddr("tcp", "127.0.0.1:"+peers[strings.LastIndexByte(peers, ':')+1:]); err != nil {
			t.Errorf("%q: %v", peers, err)
		}
	})
}
