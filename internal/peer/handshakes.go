package peer

import (
	"container/list"
	"net"
	"sync"
)

// PendingHandshakes is where connections wait that have not shown yet who they are.
// There is room for so many. When another one comes, the one that has waited
// longest must go: a node needs milliseconds, so that a connection that has waited long
// is none, and no attacker can keep nodes out by opening connections.
type PendingHandshakes struct {
	Room int

	mu      sync.Mutex // guards waiting, of net.Conn
	waiting list.List
}

// Enter lets a connection in until leave is called. Connections enter in the order in which
// they are accepted, so it is called before a connection gets a goroutine of its own.
func (l *PendingHandshakes) Enter(c net.Conn) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.waiting.Len() >= l.Room {
		_ = l.waiting.Remove(l.waiting.Front()).(net.Conn).Close()
	}
	place := l.waiting.PushBack(c)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.waiting.Remove(place) // does nothing if it had to go
	}
}

// Clear has everybody go.
func (l *PendingHandshakes) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.waiting.Len() > 0 {
		_ = l.waiting.Remove(l.waiting.Front()).(net.Conn).Close()
	}
}
