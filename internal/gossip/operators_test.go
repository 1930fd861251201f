package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// A member at a loopback address makes each node of another machine reach itself.
func TestMemberThatAdvertisesLoopbackIsRefused(t *testing.T) {
	member := func(gossip, peers string) *memberlist.Node {
		return &memberlist.Node{Name: "x", Addr: net.ParseIP(gossip), Port: 7946, Meta: meta{version: testVersion, peers: peers}.encode()}
	}
	for _, test := range []struct {
		gossip, peers string
		local, want   bool
	}{
		{"192.0.2.1", "192.0.2.1:8000", false, true},
		{"127.0.0.1", "192.0.2.1:8000", false, false},
		{"192.0.2.1", "127.0.0.1:8000", false, false},
		{"192.0.2.1", "localhost:8000", false, false},
		{"2001:db8::1", "[::1]:8000", false, false},
		{"127.0.0.1", "127.0.0.1:8000", true, true},
		{"192.0.2.1", "192.0.2.1:8000", true, true},
	} {
		ro := newRoster("self")
		ro.local = test.local
		if err := ro.accept(member(test.gossip, test.peers)); (err == nil) != test.want {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// A node on loopback doesn't join other machines, which could not reach it.
func TestNodeOnLoopbackJoinsNoOtherMachine(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.WarnLevel)
	a := startNode(t, "a", func(cfg *Config) { cfg.Join, cfg.Logger = []string{"192.0.2.7"}, zap.New(core) })
	waitFor(t, "it to say so", func() bool { return logs.Len() > 0 })
	waitRing(t, "a", a)
}

// A seed's errors are told when they change, and not for a port that has.
func TestEachNewErrorOfASeedIsTold(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	j := &joiner{m: &Membership{log: zap.New(core)}, outcomes: make(map[string]string)}
	for _, text := range []string{"refused", "read 10.0.0.1:1234: reset", "read 10.0.0.1:5678: reset", "another secret", "another secret"} {
		j.logOutcome("seed", outcome{seedUnreachable, errors.New(text)})
	}
	if n := logs.Len(); n != 3 {
		t.Errorf("%d lines", n)
	}
}

// A node that has met only itself has not joined.
func TestSeedThatLeadsBackIsNotJoined(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddrPort(freeAddr(t))
	core, logs := observer.New(zapcore.DebugLevel)
	seed := fmt.Sprintf("127.0.0.5:%d", addr.Port()) // which no interface has, and which leads to this host
	a := startNode(t, "a", func(cfg *Config) {
		cfg.Gossip, cfg.AdvertiseGossip = fmt.Sprintf("0.0.0.0:%d", addr.Port()), addr.String()
		cfg.Join, cfg.Logger = []string{seed}, zap.New(core)
	})
	about := func() []observer.LoggedEntry {
		return logs.Filter(func(e observer.LoggedEntry) bool { return e.ContextMap()["seed"] == seed }).All()
	}
	waitFor(t, "the seed to be tried", func() bool { return len(about()) > 0 })
	if slices.ContainsFunc(about(), func(e observer.LoggedEntry) bool { return e.Level >= zapcore.InfoLevel }) {
		t.Errorf("%v", about())
	}
	waitRing(t, "a", a)
}

// A member that was killed and started again is no stranger, nor are those who have not
// heard of that.
func TestRestartedMemberIsNoStranger(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	b := startNode(t, "b", keyed(t, "", "1"))
	start := func(name string) *node {
		return startNode(t, name, func(cfg *Config) {
			keyed(t, b.Addr(), "1")(cfg)
			cfg.Gossip = addr
		})
	}
	a := start("a")
	waitRing(t, "a b", a, b)
	before := a
	a.kill()
	a = start("a-again")
	// What b still sends to the one before.
	sealed := b.seal.seal(receiver{life: before.seal.life}, []byte("late"))
	if _, err := b.transport.sockets.WriteTo(sealed, addr); err != nil {
		t.Fatal(err)
	}
	waitRing(t, "a-again b", a, b)
	waitFor(t, "what came late to be settled", func() bool {
		a.late.mu.Lock()
		defer a.late.mu.Unlock()
		return len(a.late.held) == 0
	})
	if n := a.Refused() + b.Refused(); n != 0 {
		t.Errorf("%d refused", n)
	}
}

// Clusters of other names stay apart where an address is used again: without a secret,
// and with the same one.
func TestClustersOfOtherNamesStayApart(t *testing.T) {
	t.Parallel()
	for what, secret := range map[string]string{"plaintext": "", "one secret": "1"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			of := func(cluster, join string) func(*Config) {
				return func(cfg *Config) {
					cfg.Cluster = cluster
					if join != "" {
						cfg.Join = []string{join}
					}
					if secret == "" {
						return
					}
					keys, err := deriveKeys(bytes.Repeat([]byte(secret), MinSecret), cluster)
					if err != nil {
						t.Fatal(err)
					}
					cfg.Keys, cfg.Identity = []Keys{keys}, new(peer.Identity)
					if err := cfg.Identity.SetSecrets(PeerSecrets(cfg.Keys)); err != nil {
						t.Fatal(err)
					}
				}
			}
			a := startNode(t, "a", of("production", ""))
			b := startNode(t, "b", of("production", a.Addr()))
			strangers := []*node{startNode(t, "c", of("staging", a.Addr())), startNode(t, "d", of("", a.Addr()))}
			waitRing(t, "a b", a, b)
			waitFor(t, "the others to be noticed", func() bool { return a.Refused() > 3 })
			waitRing(t, "a b", a, b)
			for _, s := range strangers {
				if got := len(s.Members()); got != 1 || s.find("a").Name != "" {
					t.Errorf("%s has %d members", s.cfg.Name, got)
				}
			}
		})
	}
}
