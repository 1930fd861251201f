package gossip

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// testVersion is the protocol version of the nodes under test.
const testVersion = 7

// patience is how long a test waits on a busy machine.
const patience = 30 * time.Second

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

// A node is a membership under test, and what it has called back with.
type node struct {
	*Membership
	calling atomic.Int32

	mu   sync.Mutex // guards last
	last []Member
}

// fast has memberlist find failures sooner than in production.
func fast(c *memberlist.Config) {
	c.ProbeInterval = 200 * time.Millisecond
	c.ProbeTimeout = 100 * time.Millisecond
	c.GossipInterval = 20 * time.Millisecond
	c.DeadNodeReclaimTime = 300 * time.Millisecond
}

// startNode starts a node on a free port, changed by change, which may be nil.
func startNode(t *testing.T, name string, change func(*Config)) *node {
	t.Helper()
	n := new(node)
	cfg := Config{
		Name: name, Gossip: "127.0.0.1:0", Peers: name + ".test:7947", Version: testVersion,
		rejoinEvery: 50 * time.Millisecond, tune: fast,
		OnChange: func(list []Member) {
			if n.calling.Add(1) != 1 {
				t.Errorf("%s: OnChange is called concurrently", name)
			}
			n.mu.Lock()
			if slices.Equal(list, n.last) {
				t.Errorf("%s: OnChange is called without a change: %v", name, list)
			}
			n.last = list
			n.mu.Unlock()
			n.calling.Add(-1)
		},
	}
	if change != nil {
		change(&cfg)
	}
	m, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Membership = m
	t.Cleanup(n.kill)
	return n
}

// seeds configures what a node joins.
func seeds(list ...string) func(*Config) {
	return func(cfg *Config) { cfg.Join = list }
}

// usable reports whether a member may own keys, as the ring's side decides it.
func usable(m Member) bool { return m.Present() && m.Version == testVersion && m.Peers != "" }

// ring is the names of the usable members in the last list.
func (n *node) ring() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for _, m := range n.last {
		if usable(m) {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, " ")
}

// find returns a member as a node sees it.
func (n *node) find(name string) Member {
	for _, m := range n.Members() {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

func waitRing(t *testing.T, want string, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		waitFor(t, fmt.Sprintf("the ring of %s to be %q", n.cfg.Name, want), func() bool { return n.ring() == want })
	}
}

// freeAddr is an address that no other test uses until this one ends.
func freeAddr(t *testing.T) string {
	t.Helper()
	free, release, err := harness.Tests.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return free[0]
}

// keysOf makes the keys of secrets named by letters.
func keysOf(t testing.TB, letters string) []Keys {
	t.Helper()
	var all []Keys
	for _, l := range letters {
		k, err := deriveKeys(bytes.Repeat([]byte{byte(l)}, MinSecret), "")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	return all
}

// keyed configures a node that holds the secrets of some letters.
func keyed(t testing.TB, join, letters string) func(*Config) {
	return func(cfg *Config) {
		cfg.Keys, cfg.Identity = keysOf(t, letters), new(peer.Identity)
		if err := cfg.Identity.SetSecrets(PeerSecrets(cfg.Keys)); err != nil {
			t.Fatal(err)
		}
		if join != "" {
			cfg.Join = []string{join}
		}
	}
}

// rekey does what a reload with other secrets does.
func (n *node) rekey(t testing.TB, letters string) {
	t.Helper()
	keys := keysOf(t, letters)
	if err := n.cfg.Identity.SetSecrets(PeerSecrets(keys)); err != nil {
		t.Fatal(err)
	}
	if err := n.SetKeys(keys); err != nil {
		t.Fatal(err)
	}
}

// sealsWith reports whether gossip for another node is sealed with the key of a letter.
func (n *node) sealsWith(t testing.TB, letter string, to *node) bool {
	return n.seal.keyFor(n.roster.receiverAt(memberlist.Address{Name: to.cfg.Name})).id == keysOf(t, letter)[0].ID
}

// labeled puts the label before b, so that memberlist looks at it.
func labeled(b []byte) []byte {
	return append(append([]byte{244, byte(len(label))}, label...), b...)
}

// send writes bytes to an address.
func send(t *testing.T, network, addr string, b []byte) {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write(b); err != nil && network == "udp" {
		t.Fatal(err) // a stream may be closed by the other side
	}
	if network == "tcp" { // until that closes it: who goes away first has not been refused
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, conn)
	}
}
