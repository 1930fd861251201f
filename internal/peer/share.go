package peer

import (
	"net"
	"sync/atomic"
)

// What one host can have of this node at a time. Each connection, request and call that
// waits takes memory that no budget counts, and to have the secret is all that a process
// needs to begin as many as it likes.
const (
	maxConnsOfHost    = 64
	maxRequestsOfHost = 2048
	maxCallsOfHost    = maxHeld
)

// A share is what a host has of this node now.
type share struct {
	conns    int // guarded by the listener's mu
	requests atomic.Int32
	calls    atomic.Int32
}

// take counts one more, unless there are so many.
func take(count *atomic.Int32, most int32) bool {
	if count.Add(1) <= most {
		return true
	}
	count.Add(-1)
	return false
}

// hostOf returns what connections from one host have in common.
func hostOf(conn net.Conn) string {
	addr := conn.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}
