package peer

import "time"

// OnHealth has f told when a peer begins not to answer, and when it answers
// again. f must not wait. It is set before the first call.
func (c *caller) OnHealth(f func(addr string, degraded bool)) { c.breaker.onChange = f }

// changedLocked notes a change, of which tell tells.
func (b *breaker) changedLocked(addr string, degraded bool) {
	if b.onChange != nil {
		b.changes = append(b.changes, change{addr, degraded})
	}
}

// tell tells of all changes in the order in which they came about, whichever calls they
// came from: the last one that is told of a peer is how it is. It may return while another
// call tells.
func (b *breaker) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.telling {
		return
	}
	b.telling = true
	defer func() { b.telling = false }()
	for len(b.changes) > 0 {
		one := b.changes[0]
		b.changes = b.changes[1:]
		b.tellUnlocked(one)
	}
}

// tellUnlocked tells of one change, without mu.
func (b *breaker) tellUnlocked(one change) {
	b.mu.Unlock()
	defer b.mu.Lock()
	b.onChange(one.addr, one.degraded)
}

// LeavesAlone reports whether a peer does not answer, and is not asked just now.
func (c *caller) LeavesAlone(peer Node) bool { return c.breaker.left(peer.Addr, time.Now()) }

// Degraded returns the addresses of the peers that do not answer.
func (c *caller) Degraded() map[string]bool {
	c.breaker.mu.Lock()
	defer c.breaker.mu.Unlock()
	degraded := make(map[string]bool, len(c.breaker.peers))
	for addr := range c.breaker.peers {
		degraded[addr] = true
	}
	return degraded
}
