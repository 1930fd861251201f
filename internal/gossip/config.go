package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

const defaultRejoinEvery = 5 * time.Second

// A Config holds the parameters of Start. No field may be changed after that;
// SetJoin and SetKeys replace the seeds and the keys.
type Config struct {
	Name            string         // unique per process
	Cluster         string         // the name of the cluster; it may have none
	Gossip          string         // ip:port to bind (TCP and UDP); with port 0 a free one is chosen
	AdvertiseGossip string         // ip:port that others dial; "" = Gossip
	Peers           string         // host:port that others dial for cache traffic
	Version         uint8          // of the protocol that is spoken at Peers
	Life            uint64         // a random number of this process, for Member.Life; 0 = one is drawn where there are keys
	Join            []string       // seeds: "host", "host:port", IPs, IPv6 with and without brackets; default port 7946
	Keys            []Keys         // of each secret, in order of preference: see SetKeys; empty = plaintext
	Identity        *peer.Identity // holds the same secrets as Keys, always
	Logger          *zap.Logger    // nil = none
	rejoinEvery     time.Duration  // base interval for resolving and joining seeds again; 0 = 5 s

	// Resolve looks up a seed; nil = net.DefaultResolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// LocalState returns the state that this node adds to memberlist's
	// push/pull with another, at most 1 MiB; a longer one is not sent. It is
	// called on memberlist's goroutines, several at a time, and must not wait.
	// MergeState takes another node's state, one call at a time, on a goroutine
	// of its own; if it is too slow, states are dropped: the next push/pull
	// brings them again. A state that it returns an error for counts as refused.
	// Either may be nil.
	LocalState func() []byte
	MergeState func([]byte) error

	// Changed is called for each change of a member; the zero member stands for
	// none. OnChange is called after that with the members that are alive or
	// suspect, this node included, in order of name, if that list has changed.
	// Both are called from one goroutine, never concurrently, and not once
	// Leave has begun. They must not wait, nor call Leave, and may be nil.
	Changed  func(was, is Member)
	OnChange func([]Member)

	// Joined is called once, when all seeds have been tried for the first time, after
	// OnChange has been called with the members that they brought. It may be nil.
	Joined func()

	// tune shortens memberlist's timeouts in tests; nil otherwise.
	tune func(*memberlist.Config)
}

func (cfg *Config) setDefaults() {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.rejoinEvery <= 0 {
		cfg.rejoinEvery = defaultRejoinEvery
	}
}

func (cfg *Config) check() error {
	if err := checkName(cfg.Name); err != nil {
		return fmt.Errorf("checking the node name %q: %w; give this node a short printable name of its own", cfg.Name, err)
	}
	if !validPeerAddr(cfg.Peers) {
		return fmt.Errorf("checking the peer address %q: it is not host:port with a port from 1 to 65535; give the address at which the other nodes reach this one", cfg.Peers)
	}
	for _, seed := range cfg.Join {
		if err := CheckSeed(seed); err != nil {
			return err
		}
	}
	if len(cfg.Keys) > 0 && cfg.Identity == nil {
		return errors.New("keys without an identity for streams")
	}
	return nil
}

// advertised is the address that the others get to know for bound.
func (cfg *Config) advertised(bound netip.AddrPort) (netip.AddrPort, error) {
	if cfg.AdvertiseGossip == "" {
		return bound, nil
	}
	addr, err := netip.ParseAddrPort(cfg.AdvertiseGossip)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the advertised gossip address %q: %w; write it as ip:port", cfg.AdvertiseGossip, err)
	}
	return addr, nil
}

// isLocal reports whether the node can be reached from its own machine only.
func (cfg *Config) isLocal() bool {
	addr := cfg.AdvertiseGossip
	if addr == "" {
		addr = cfg.Gossip
	}
	at, err := netip.ParseAddrPort(addr)
	return err == nil && at.Addr().IsLoopback()
}
