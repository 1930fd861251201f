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
	onChange func(addr string, degraded bool) // may be nil; called without mu

	mu    sync.Mutex // guards below
	peers map[string]*health
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
	if b.fail(addr, now) {
		b.tell(addr, true)
	}
}

// fail reports whether the peer was healthy before.
func (b *breaker) fail(addr string, now time.Time) (degraded bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.peers[addr]
	degraded = h == nil
	switch {
	case h == nil:
		if b.peers == nil {
			b.peers = make(map[string]*health)
		}
		h = &health{pause: firstPause}
		b.peers[addr] = h
	case now.Before(h.until.Add(-h.pause / 2)):
		return false // one of many that were already under way
	default:
		h.pause = min(2*h.pause, longPause)
	}
	h.until = now.Add(h.pause)
	return degraded
}

func (b *breaker) succeeded(addr string) {
	b.mu.Lock()
	recovered := b.peers[addr] != nil
	delete(b.peers, addr)
	b.mu.Unlock()
	if recovered {
		b.tell(addr, false)
	}
}

// keep forgets all peers but those at some addresses.
func (b *breaker) keep(known map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.peers, func(addr string, _ *health) bool { return !known[addr] })
}
