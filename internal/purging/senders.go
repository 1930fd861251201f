package purging

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// minToken is the length of the shortest token, in bytes.
const minToken = 16

// Senders are those who may purge: who sends a token, and who comes from an address. If
// there are tokens and ranges, both must fit. The zero value is nobody.
type Senders struct {
	tokens [][sha256.Size]byte // their digests, so that all are compared in the same time
	ranges []netip.Prefix
}

// AddToken lets in who sends a token as Authorization: Bearer. It returns an error if the
// token is too short.
func (s *Senders) AddToken(token string) error {
	if token = strings.TrimSpace(token); len(token) < minToken {
		return fmt.Errorf("purge token: %d bytes are too few: at least %d, hard to guess, as caddy groupcache keygen makes them", len(token), minToken)
	}
	s.tokens = append(s.tokens, sha256.Sum256([]byte(token)))
	return nil
}

// AddRange lets in who comes from an address or range, in the form of ParseRange.
func (s *Senders) AddRange(text string) error {
	r, err := ParseRange(text)
	if err == nil {
		s.ranges = append(s.ranges, r)
	}
	return err
}

// mappedBits are those of an IPv6 address before the IPv4 address that is mapped to it.
const mappedBits = 96

// ParseRange reads an address, or a range such as 10.0.0.0/8. IPv4 that is written as IPv6
// (::ffff:10.0.0.5) is IPv4, as clients' addresses are.
func ParseRange(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap()
		return addr.Prefix(addr.BitLen())
	}
	r, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return r, fmt.Errorf("purge from %q: an address, or a range such as 10.0.0.0/8", s)
	case r.Addr().Is4In6() && r.Bits() < mappedBits:
		return r, fmt.Errorf("purge from %q: it has all of IPv4 and other addresses in it: write 0.0.0.0/0 for IPv4, and a range of IPv6", s)
	case r.Addr().Is4In6():
		r = netip.PrefixFrom(r.Addr().Unmap(), r.Bits()-mappedBits)
	}
	return r.Masked(), nil
}

// Causes to refuse a sender.
const (
	noToken        = "no valid token in Authorization: Bearer"
	notInFrom      = "the address is not in from"
	forgeableAddr  = "the address may be forged: set trusted_proxies_strict beside trusted_proxies"
	nobodyMayPurge = "nobody may"
)

// Forbid returns why the sender of a request may not purge; "": it may. client is the
// address that the server takes it for, and "" the one that the connection comes from.
// A forgeable one is what the client says itself.
func (s *Senders) Forbid(r *http.Request, client string, forgeable bool) string {
	switch {
	case len(s.tokens) == 0 && len(s.ranges) == 0:
		return nobodyMayPurge
	case len(s.tokens) > 0 && !s.knows(r):
		return noToken
	case len(s.ranges) > 0 && forgeable:
		return forgeableAddr
	case len(s.ranges) > 0 && !s.covers(r, client):
		return notInFrom
	}
	return ""
}

func (s *Senders) knows(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, found := sha256.Sum256([]byte(strings.TrimSpace(token))), 0
	for _, want := range s.tokens {
		found |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return found == 1 && strings.EqualFold(scheme, "Bearer")
}

func (s *Senders) covers(r *http.Request, client string) bool {
	if client == "" {
		client, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	addr, err := netip.ParseAddr(client)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(s.ranges, func(r netip.Prefix) bool { return r.Contains(addr) })
}
