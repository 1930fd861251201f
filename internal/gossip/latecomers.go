package gossip

import (
	"io"
	"net"
	"sync"
)

// latecomers are packets that were sealed by a process with the secret, and for
// another process than this one: by a member that has not heard yet that this node was
// started again, or that it has the address of another one; or by whoever has recorded
// them. A node that has just started does not know its members yet, so it finds out
// a little later, and only the latter counts as refused.
type latecomers struct {
	mu   sync.Mutex // guards held
	held []latecomer
}

type latecomer struct {
	life uint64 // of the sender
	from net.Addr
	why  string // the line about it
	seen int    // how often it has been looked at
}

const (
	// maxLatecomers is several times what one member sends until it hears of a restart.
	maxLatecomers = 256
	// settleAfter is how often a packet is looked at, a second each: a node that has
	// just started knows the members by then.
	settleAfter = 5
)

// hold keeps in mind a packet, or reports false if there are too many.
func (l *latecomers) hold(life uint64, from net.Addr, why string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) >= maxLatecomers { // more, if some came while settle looked at the others
		return false
	}
	l.held = append(l.held, latecomer{life, from, why, 0})
	return true
}

// settle writes the line about each packet whose sender turns out to be no member there.
func (l *latecomers) settle(knows func(life uint64, at net.Addr) bool, log io.Writer) {
	l.mu.Lock()
	all := l.held
	l.held = nil
	l.mu.Unlock()
	var young []latecomer
	for _, one := range all {
		switch {
		case knows(one.life, one.from):
		case one.seen == settleAfter:
			_, _ = io.WriteString(log, one.why) // a memberlistLog takes all
		default:
			one.seen++
			young = append(young, one)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = append(young, l.held...)
}
