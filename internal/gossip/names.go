package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxNodeName    = 255
	maxClusterName = 64
	maxPeerAddr    = 253 + len(":65535")
)

// checkName returns why a node cannot have a name.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > maxNodeName:
		return errors.New("it is too long")
	case !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		return errors.New("it has bytes that cannot be printed")
	}
	return nil
}

// CheckClusterName returns why a cluster cannot have a name; "" is none.
func CheckClusterName(s string) error {
	if len(s) > maxClusterName || strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return fmt.Errorf("cluster %q: a name of at most %d printable ASCII characters without spaces, such as production", s, maxClusterName)
	}
	return nil
}

// validPeerAddr reports whether s is host:port that can be dialed: an IP or a
// DNS name, a port in digits. A zone means something on one host only.
func validPeerAddr(s string) bool {
	if len(s) > maxPeerAddr {
		return false
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.IsUnspecified() && ip.Zone() == ""
	}
	return validHostName(host)
}

func validHostName(s string) bool {
	return s != "" && len(s) <= 253 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
	}) < 0
}
