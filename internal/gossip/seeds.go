package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

const (
	defaultPort    = 7946
	resolveTimeout = 3 * time.Second
	maxSeedAddrs   = 64 // per seed
)

// CheckSeed returns why a seed cannot be joined: it is no "host", "host:port",
// IP, or IPv6 address with or without brackets.
func CheckSeed(seed string) error {
	_, _, err := parseSeed(seed)
	return err
}

func parseSeed(seed string) (host string, port uint16, err error) {
	host, port, err = splitHostPort(seed)
	if err == nil && port == 0 {
		err = errors.New("port 0 cannot be dialed")
	}
	if err != nil {
		return "", 0, fmt.Errorf("reading the seed %q: %w; write an address or DNS name, with or without a port", seed, err)
	}
	return host, port, nil
}

func splitHostPort(s string) (host string, port uint16, err error) {
	if written, ok := bracketed(s); ok {
		return "", 0, fmt.Errorf("write %s, or [%s] if that is all of the address", written, s)
	}
	host, port = s, defaultPort
	if ip, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(ip, "]") {
		host = strings.TrimSuffix(ip, "]")
	} else if _, err := netip.ParseAddr(s); err != nil && strings.Contains(s, ":") {
		var digits string
		if host, digits, err = net.SplitHostPort(s); err != nil {
			return "", 0, err
		}
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("%q is no port", digits)
		}
		port = uint16(n)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return "", 0, errors.New("memberlist cannot dial an address with a zone")
		}
	} else if !validHostName(host) {
		return "", 0, fmt.Errorf("%q is neither an IP nor a host name", host)
	}
	return host, port, nil
}

// A resolvedSeed is a seed with its addresses in this round.
type resolvedSeed struct {
	seed  string
	addrs []netip.AddrPort
	err   error
}

// resolveSeeds resolves all seeds at the same time.
func (cfg *Config) resolveSeeds(ctx context.Context, seeds []string) []resolvedSeed {
	resolved := make([]resolvedSeed, len(seeds))
	var wg sync.WaitGroup
	for i, seed := range seeds {
		guard.GoWait(&wg, func() { resolved[i] = cfg.resolveSeed(ctx, seed) })
	}
	wg.Wait()
	return resolved
}

func (cfg *Config) resolveSeed(ctx context.Context, seed string) resolvedSeed {
	r := resolvedSeed{seed: seed}
	host, port, err := parseSeed(seed)
	if err != nil {
		r.err = err
		return r
	}
	ips, err := cfg.lookup(ctx, host)
	for _, ip := range ips {
		r.addrs = append(r.addrs, netip.AddrPortFrom(ip, port))
	}
	r.err = err
	return r
}

// lookup resolves host, which may be an IP, to all its addresses.
func (cfg *Config) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := cfg.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	var ips []netip.Addr
	for _, ip := range found {
		ip = ip.Unmap()
		if ip.IsValid() && ip.Zone() == "" && !slices.Contains(ips, ip) && len(ips) < maxSeedAddrs {
			ips = append(ips, ip)
		}
	}
	if len(ips) == 0 {
		return nil, errors.New("no address found")
	}
	return ips, nil
}
