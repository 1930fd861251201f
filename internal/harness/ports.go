package harness

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// A Range is the ports that one user takes. Users may run at the same time, and
// a port is not listened on yet when it is given away, so each has a range of its
// own. All are below the ports that connections are made from. The same user may
// run more than once at a time: claim keeps those apart.
type Range struct{ first, end int }

// The users.
var (
	Bench       = Range{16000, 20000}
	Tests       = Range{20000, 26000}
	Lab         = Range{26000, 29000}
	Conformance = Range{29000, 31000}
	Browser     = Range{31000, 32000}
)

var (
	mu    sync.Mutex                      // guards given
	given = make(map[string]net.Listener) // what claims each
)

// Take returns n loopback addresses (host:port) at which nobody listens, neither
// on TCP nor on UDP, and which nobody else is given before release.
func (r Range) Take(n int) (addrs []string, release func(), err error) {
	mu.Lock()
	defer mu.Unlock()
	release = func() {
		mu.Lock()
		defer mu.Unlock()
		giveBackLocked(addrs)
	}
	for range 10 * (r.end - r.first) {
		if len(addrs) == n {
			return addrs, release, nil
		}
		addr := "127.0.0.1:" + strconv.Itoa(r.first+rand.IntN(r.end-r.first))
		if _, taken := given[addr]; taken {
			continue
		}
		claimed, err := claim(addr)
		if err != nil {
			continue
		}
		if !isFree(addr) {
			claimed.Close()
			continue
		}
		given[addr] = claimed
		addrs = append(addrs, addr)
	}
	giveBackLocked(addrs)
	return nil, nil, errors.New("found no free port from " + strconv.Itoa(r.first) + " to " + strconv.Itoa(r.end-1))
}

func giveBackLocked(addrs []string) {
	for _, addr := range addrs {
		if claimed := given[addr]; claimed != nil {
			claimed.Close()
			delete(given, addr)
		}
	}
}

// claim keeps other processes from being given an address until its listener is
// closed, or the process ends. It is a socket that has a name in place of a file,
// which only Linux has; elsewhere nothing is claimed.
func claim(addr string) (net.Listener, error) {
	if runtime.GOOS != "linux" {
		return unclaimed{}, nil
	}
	return net.Listen("unix", "@caddy-groupcache-test-"+addr)
}

// unclaimed is the listener of a claim that cannot be made.
type unclaimed struct{ net.Listener }

func (unclaimed) Close() error { return nil }

func isFree(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	u.Close()
	return true
}

// OneListenerEach reports whether no TCP address of IPv4 is listened on twice, or true
// where the system does not tell. After a reload there may be two: Caddy says that the new
// config runs, and closes the listeners of the one before after that.
func OneListenerEach() bool {
	sockets, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return true
	}
	const stateListen = "0A" // TCP_LISTEN
	listening := make(map[string]bool)
	for line := range strings.Lines(string(sockets)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != stateListen {
			continue
		}
		if listening[f[1]] {
			return false
		}
		listening[f[1]] = true
	}
	return true
}
