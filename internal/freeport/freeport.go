// Package freeport finds ports for servers that tests and tools start on
// loopback.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// A Range is the ports that one user takes. Users may run at the same time, and
// a port is not listened on yet when it is given away, so each has a range of its
// own. All are below the ports that connections are made from.
type Range struct{ first, end int }

// The users.
var (
	Bench       = Range{16000, 20000}
	Tests       = Range{20000, 26000}
	Lab         = Range{26000, 29000}
	Conformance = Range{29000, 32000}
)

var (
	mu    sync.Mutex // guards given
	given = make(map[string]bool)
)

// Take returns n loopback addresses (host:port) at which nobody listens, neither
// on TCP nor on UDP, and which this process is not given again before release.
func (r Range) Take(n int) (addrs []string, release func(), err error) {
	mu.Lock()
	defer mu.Unlock()
	release = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, addr := range addrs {
			delete(given, addr)
		}
	}
	for range 10 * (r.end - r.first) {
		if len(addrs) == n {
			return addrs, release, nil
		}
		addr := "127.0.0.1:" + strconv.Itoa(r.first+rand.IntN(r.end-r.first))
		if !given[addr] && isFree(addr) {
			given[addr] = true
			addrs = append(addrs, addr)
		}
	}
	for _, addr := range addrs {
		delete(given, addr)
	}
	return nil, nil, errors.New("found no free port from " + strconv.Itoa(r.first) + " to " + strconv.Itoa(r.end-1))
}

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
