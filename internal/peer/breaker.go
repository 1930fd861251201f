package peer

import (
	"maps"
	"sync"
	"time"
)

const (
	firstPause = 500 * time.Millisecond
	longPause  = 4 * time.Second
)

// A breaker keeps requests away from a peer that does not answer, or not soon
// enough: an answer that takes longer than its asker's patience is a failure too.
// After a failure the peer is left alone for a pause, which doubles while it keeps
// failing; then one request at a time tries it again. Whether a node is a
// member is not its business: a member can be unusable.
type breaker struct {
	onChange func(addr string, degraded bool) // may be nil; called without mu, one change after the other

	mu      sync.Mutex // guards below
	peers   map[string]*health
	changes []change // that onChange has not been told of, in their order
	telling bool     // a goroutine tells
}

// A change is that a peer begins not to answer, or answers again.
type change struct {
	addr     string
	degraded bool
}

type health struct {
	pause time.Duration // 0: healthy
	until time.Time
}

// allow reports whether a request may go to the peer now. When it lets one try
// a failing peer, the others stay away for another pause.
func (b *breaker) allow(addr string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.peers[addr]
	if h == nil {
		return true
	}
	if now.Before(h.until) {
		return false
	}
	h.until = now.Add(h.pause)
	return true
}

// left reports whether the peer is left alone now. Unlike allow, it lets no request try it.
func (b *breaker) left(addr string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.peers[addr]
	return h != nil && now.Before(h.until)
}

func (b *breaker) failed(addr string, now time.Time) {
	b.fail(addr, now)
	b.tell()
}

func (b *breaker) fail(addr string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.peers[addr]
	switch {
	case h == nil:
		if b.peers == nil {
			b.peers = make(map[string]*health)
		}
		h = &health{pause: firstPause}
		b.peers[addr] = h
		b.changedLocked(addr, true)
	case now.Before(h.until.Add(-h.pause / 2)):
		return // one of many that were already under way
	default:
		h.pause = min(2*h.pause, longPause)
	}
	h.until = now.Add(h.pause)
}

func (b *breaker) succeeded(addr string) {
	if b.succeed(addr) {
		b.tell()
	}
}

// succeed reports whether the peer had failed before.
func (b *breaker) succeed(addr string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers[addr] == nil {
		return false
	}
	delete(b.peers, addr)
	b.changedLocked(addr, false)
	return true
}

// keep forgets all peers but those at some addresses.
func (b *breaker) keep(known map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.peers, func(addr string, _ *health) bool { return !known[addr] })
}
