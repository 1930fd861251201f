package peer

import "time"

// OnHealth has f told when a peer begins not to answer, and when it answers
// again. f must not wait. It is set before the first call.
func (c *caller) OnHealth(f func(addr string, degraded bool)) { c.breaker.onChange = f }

func (b *breaker) tell(addr string, degraded bool) {
	if b.onChange != nil {
		b.onChange(addr, degraded)
	}
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
