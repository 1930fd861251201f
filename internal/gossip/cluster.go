package gossip

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
)

// Where a node listens unless its config says otherwise.
const (
	DefaultGossip = "127.0.0.1:7946"
	GossipPort    = "7946"
	PeersPort     = "8000"
)

// A Cluster is what a node's config says of its cluster.
type Cluster struct {
	Enabled                         bool   // there is one
	Gossip, Peers                   string // to bind
	AdvertiseGossip, AdvertisePeers string // to dial
	Join                            []string
	Keys                            []Keys
	Insecure                        bool
}

// Resolve fills in the defaults and checks all: a node has a cluster if the config says
// anything of one. The name is empty if the config has none.
func (c *Cluster) Resolve(name string, secrets []string) error {
	c.Enabled = c.Enabled || c.Gossip != "" || c.Peers != "" || len(c.Join) > 0 || name != "" || len(secrets) > 0 || c.Insecure
	if !c.Enabled {
		return nil
	}
	var err error
	if c.Keys, err = ReadSecrets(secrets); err != nil {
		return err
	}
	if err := c.addresses(); err != nil {
		return err
	}
	for _, seed := range c.Join {
		if err := CheckSeed(seed); err != nil {
			return err
		}
	}
	if name == "" {
		return nil
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("name %q: %w", name, err)
	}
	return nil
}

// addresses settles what is bound and what is advertised.
func (c *Cluster) addresses() error {
	if c.Gossip == "" {
		c.Gossip = DefaultGossip
	}
	gossip, err := ParseAddress("gossip", c.Gossip, GossipPort)
	if err != nil {
		return err
	}
	if c.Peers == "" {
		c.Peers = net.JoinHostPort(gossip.Addr().String(), PeersPort)
	}
	peers, err := ParseAddress("peers", c.Peers, PeersPort)
	if err != nil {
		return err
	}
	for option, bound := range map[string]netip.AddrPort{"gossip": gossip, "peers": peers} {
		if !bound.Addr().IsLoopback() && len(c.Keys) == 0 && !c.Insecure {
			return fmt.Errorf("%s %s is not a loopback address, and without a secret whoever reaches it could read and write the cache: add a secret, made with caddy groupcache keygen, or use 127.0.0.1 or [::1], or add insecure if nobody else can reach this network", option, bound)
		}
	}
	c.Gossip, c.Peers = gossip.String(), peers.String()
	if c.AdvertiseGossip, err = advertised("gossip", c.AdvertiseGossip, gossip, GossipPort); err != nil {
		return err
	}
	c.AdvertisePeers, err = advertised("peers", c.AdvertisePeers, peers, PeersPort)
	return err
}

// advertised returns the address that other nodes dial.
func advertised(option, advertise string, bound netip.AddrPort, port string) (string, error) {
	if advertise == "" {
		if bound.Addr().IsUnspecified() {
			return "", fmt.Errorf("%s %s is no address that other nodes can dial: add an advertise line that says which they can", option, bound)
		}
		return bound.String(), nil
	}
	addr, err := ParseAddress("advertise", advertise, port)
	if err != nil {
		return "", err
	}
	if addr.Addr().IsUnspecified() {
		return "", fmt.Errorf("advertise %s is no address that other nodes can dial", addr)
	}
	return addr.String(), nil
}

// ParseAddress reads host, host:port or :port, where the host is an IP address
// or localhost.
func ParseAddress(option, s, defaultPort string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), defaultPort
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s %q: the host must be an IP address or localhost, as in 10.0.0.1:%s", option, s, defaultPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("%s %q: the port must be a number from 1 to 65535", option, s)
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

// Accepts returns why a node that runs with c cannot go on with another configuration;
// nil: it can.
func (c *Cluster) Accepts(is Cluster) error {
	switch {
	case !is.Enabled:
		return errors.New("the node cannot leave its cluster while Caddy runs: restart it without the cluster's options")
	case len(c.Keys) == 0 && len(is.Keys) > 0:
		return errors.New("a node that was started without a secret cannot get one while Caddy runs, because until all nodes have one the cluster would fall apart: restart it")
	case len(c.Keys) > 0 && len(is.Keys) == 0:
		return errors.New("the last secret cannot go while Caddy runs: put the new one before it, or restart")
	}
	was := *c
	was.Join, was.Keys, was.Insecure = is.Join, is.Keys, is.Insecure
	if !reflect.DeepEqual(was, is) {
		return fmt.Errorf("gossip %s, peers %s and what they advertise cannot change while Caddy runs: restart it", c.Gossip, c.Peers)
	}
	return nil
}

// UniqueName returns a readable name that no other process has.
func UniqueName() string {
	host, err := os.Hostname()
	if err != nil || CheckName(host) != nil {
		host = "node"
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return host[:min(len(host), 100)] + "-" + hex.EncodeToString(b[:])
}
