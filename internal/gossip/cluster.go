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
	defaultGossip = "127.0.0.1:7946"
	GossipPort    = "7946"
	PeersPort     = "8000"
)

// A Cluster is what a node's config says of its cluster.
type Cluster struct {
	Enabled                         bool   // there is one
	Name                            string // of the cluster; "" unless others may be met
	Gossip, Peers                   string // to bind
	AdvertiseGossip, AdvertisePeers string // to dial
	Join                            []string
	Keys                            []Keys
	Insecure                        bool
}

// Resolve fills in the defaults and checks all: a node has a cluster if the config says
// anything of one. The name is empty if the config has none.
func (c *Cluster) Resolve(name string, secrets []string) error {
	c.Enabled = c.Enabled || c.Gossip != "" || c.Peers != "" || len(c.Join) > 0 || name != "" || len(secrets) > 0 || c.Insecure || c.Name != ""
	if !c.Enabled {
		return nil
	}
	if err := CheckClusterName(c.Name); err != nil {
		return err
	}
	var err error
	if c.Keys, err = ReadSecrets(c.Name, secrets); err != nil {
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
	if err := checkName(name); err != nil {
		return fmt.Errorf("name %q: %w", name, err)
	}
	return nil
}

// addresses settles what is bound and what is advertised.
func (c *Cluster) addresses() error {
	if c.Gossip == "" {
		c.Gossip = defaultGossip
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
	if gossip.Port() == peers.Port() && overlap(gossip.Addr(), peers.Addr()) {
		return fmt.Errorf("gossip %s and peers %s are one address, and both listen on TCP: give peers another port, such as %s", gossip, peers, PeersPort)
	}
	for option, bound := range map[string]netip.AddrPort{"gossip": gossip, "peers": peers} {
		if !bound.Addr().IsLoopback() && len(c.Keys) == 0 && !c.Insecure {
			return fmt.Errorf("%s %s is not a loopback address, and without a secret whoever reaches it could read and write the cache: add a secret, made with caddy groupcache keygen, or use 127.0.0.1 or [::1], or add insecure if nobody else can reach this network", option, bound)
		}
	}
	c.Gossip, c.Peers = gossip.String(), peers.String()
	if err := c.checkAdvertised(); err != nil {
		return err
	}
	if c.AdvertiseGossip, err = advertised("gossip", c.AdvertiseGossip, gossip, GossipPort); err != nil {
		return err
	}
	if c.AdvertisePeers, err = advertised("peers", c.AdvertisePeers, peers, PeersPort); err != nil {
		return err
	}
	return c.checkLoopback()
}

// checkLoopback refuses a node that others are to find at their own loopback address.
func (c *Cluster) checkLoopback() error {
	gossip, peers := netip.MustParseAddrPort(c.AdvertiseGossip), netip.MustParseAddrPort(c.AdvertisePeers) // made by advertised
	switch {
	case gossip.Addr().IsLoopback() != peers.Addr().IsLoopback():
		return fmt.Errorf("other nodes are told to dial gossip %s and peers %s, and one of them is a loopback address, which only this machine reaches: give both options an address of this machine, or add an advertise line", gossip, peers)
	case !gossip.Addr().IsLoopback():
		return nil
	}
	for _, seed := range c.Join {
		host, _, err := parseSeed(seed)
		if err != nil {
			continue // Resolve says so
		}
		if ip, err := netip.ParseAddr(host); err == nil && !ip.IsLoopback() {
			return fmt.Errorf("join %s is another machine, which cannot reach gossip %s: give gossip the address of this machine that other nodes dial", seed, gossip)
		}
	}
	return nil
}

// overlap reports whether two listeners of one port can't have these addresses.
func overlap(a, b netip.Addr) bool { return a == b || a.IsUnspecified() || b.IsUnspecified() }

// checkAdvertised refuses what hostname -i prints where a host has several addresses.
func (c *Cluster) checkAdvertised() error {
	a, aErr := netip.ParseAddr(strings.Trim(c.AdvertiseGossip, "[]"))
	b, bErr := netip.ParseAddr(strings.Trim(c.AdvertisePeers, "[]"))
	if aErr == nil && bErr == nil && a != b {
		return fmt.Errorf("advertise %s %s: two addresses of this host? The first is for gossip and the second for peers: leave out the one that other nodes can't dial, or write the ports if both are meant", a, b)
	}
	return nil
}

// Takes returns an error if one of the node's listeners has a port that somebody else
// listens at, whose host is an IP address or else counts as any.
func (c *Cluster) Takes(who, host string, port uint) error {
	if !c.Enabled {
		return nil
	}
	ip, err := netip.ParseAddr(host)
	if host == "localhost" {
		ip, err = netip.ParseAddr("127.0.0.1")
	}
	for option, own := range map[string]string{"gossip": c.Gossip, "peers": c.Peers} {
		bound, _ := netip.ParseAddrPort(own) // Resolve has made it
		if uint(bound.Port()) == port && (err != nil || overlap(ip, bound.Addr())) {
			return fmt.Errorf("%s %s is where %s listens: give it a port of its own", option, own, who)
		}
	}
	return nil
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
	if fields := strings.Fields(strings.Trim(s, "[]")); len(fields) > 1 {
		return netip.AddrPort{}, fmt.Errorf("%s %q: several addresses, as hostname -i prints them: write the one that other nodes dial", option, s)
	}
	if written, ok := bracketed(s); ok {
		return netip.AddrPort{}, fmt.Errorf("%s %q: is %s the port? Write %s if it is, else [%s]", option, s, written[strings.LastIndexByte(written, ':')+1:], written, s)
	}
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

// bracketed returns an IPv6 address without brackets and what looks like a port, as they
// are to be written. fd77::1:7946 is an address too, and nobody means it.
func bracketed(s string) (written string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasPrefix(s, "[") {
		return "", false
	}
	host, port := s[:i], s[i+1:]
	ip, err := netip.ParseAddr(host)
	if _, noPort := strconv.ParseUint(port, 10, 16); err != nil || !ip.Is6() || noPort != nil || len(port) < 4 && isAddr(s) {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
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
	if c.Name != is.Name {
		return fmt.Errorf("the cluster's name cannot change from %q to %q while Caddy runs: restart it", c.Name, is.Name)
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
	if err != nil || checkName(host) != nil {
		host = "node"
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return host[:min(len(host), 100)] + "-" + hex.EncodeToString(b[:])
}
