package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// A member owns keys once it has answered at its peers address, and has told which
// purges it knows. Gossip alone shows that it can reach others, not that others can
// reach it: behind NAT, a closed port or with another member's address it would make
// each of its keys a miss on all nodes, for ever.
//
//	         ┌────────── dead, comes again ──────────┐
//	         ▼                                       │
//	──► asked, again and again ── answers ──► on the ring
//
// No hit is served while a member is asked for the first time, for catchUpFor at most,
// since it may know of purges that this node has missed. A member that was waited for
// in vain is not waited for again until it has answered once.

const (
	// A member that comes and goes is kept off the ring for a while when it comes
	// again, from the third time on, for firstHold and ever longer. That it did so is
	// forgotten when it has stayed for steadyFor.
	firstHold = 2500 * time.Millisecond
	longHold  = 10 * time.Second
	steadyFor = 10 * time.Minute

	// believeGoneAfter is how long a member still counts for purges that is thought
	// dead and has never answered: nobody can tell whether it runs.
	believeGoneAfter = time.Minute

	maxMembers = 4096 // that are remembered after they have gone
)

var errComesAndGoes = errors.New("it comes and goes: it is kept off the ring until it stays")

// members are the nodes that gossip tells of, and whether they have answered.
type members struct {
	node *Node

	mu     sync.Mutex // guards below, and is held to replace the ring
	byName map[string]*member
}

// A member is a node from when gossip tells of it to when it comes again, or comes as
// another process.
type member struct {
	peer.Node
	since    time.Time     // it is present, or gone
	gone     bool          // and not remembered for its share any more
	onRing   bool          // it has answered since it came
	silent   bool          // it has been waited for, and never answered since
	over     chan struct{} // closed when it has answered or is gone
	why      error         // of the last call that it did not answer since it came
	told     bool          // OnReach has been told of that
	comeback int           // how often it has come again
}

// Set makes the ring of the members that may own keys, this node among them: of those
// that have answered. It asks the others.
func (m *members) Set(nodes []peer.Node) {
	m.mu.Lock()
	came := m.noteLocked(nodes, time.Now())
	unchecked := m.applyLocked()
	m.mu.Unlock()
	var first []*member
	for _, one := range came {
		if one.onRing {
			continue
		}
		if !one.silent {
			first = append(first, one)
		}
		guard.Go(func() { m.admit(one) })
	}
	m.node.Purger.catchUp(unchecked, false)
	m.await(first)
}

// noteLocked takes in which nodes are there, and returns those that were not.
func (m *members) noteLocked(nodes []peer.Node, now time.Time) (came []*member) {
	if m.byName == nil {
		m.byName = make(map[string]*member)
	}
	present := make(map[string]bool, len(nodes))
	for _, o := range nodes {
		present[o.Name] = true
		was := m.byName[o.Name]
		if was != nil && was.Node == o && !was.gone {
			continue
		}
		// One without a number can't be told from another process at its address.
		is := &member{Node: o, since: now, over: make(chan struct{}), onRing: o.Name == m.node.Name || o.Life == 0}
		if was != nil {
			was.leave(now)
		}
		m.inheritLocked(is, now)
		m.byName[o.Name] = is
		came = append(came, is)
	}
	for _, one := range m.byName {
		if !present[one.Name] && !one.gone {
			one.leave(now)
		}
	}
	maps.DeleteFunc(m.byName, func(_ string, one *member) bool {
		return one.gone && (now.Sub(one.since) > steadyFor || len(m.byName) > maxMembers)
	})
	return came
}

// inheritLocked takes over what is known of members that had the name before, or the address:
// by default a process has a name of its own. One that is started again comes and goes like
// one that is lost and found.
func (m *members) inheritLocked(one *member, now time.Time) {
	for _, was := range m.byName {
		if was.Name != one.Name && was.Addr != one.Addr {
			continue
		}
		if now.Sub(was.since) <= steadyFor {
			one.comeback = max(one.comeback, was.comeback+1)
		}
		if was.Addr == one.Addr {
			one.silent = one.silent || was.silent
		}
		if was.Addr == one.Addr && was.Name == one.Name {
			one.why, one.told = was.why, was.told
		}
	}
}

// leave notes that a member is gone.
func (one *member) leave(now time.Time) {
	if one.gone {
		return
	}
	if !one.onRing {
		one.endWait()
	}
	if now.Sub(one.since) > steadyFor {
		one.comeback = 0
	}
	one.gone, one.onRing, one.since = true, false, now
}

func (one *member) endWait() {
	select {
	case <-one.over:
	default:
		close(one.over)
	}
}

// Left forgets a member that has said that it goes, and those before it at its address.
func (m *members) Left(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one := m.byName[name]; one != nil {
		one.leave(time.Now())
		maps.DeleteFunc(m.byName, func(_ string, was *member) bool { return was.gone && was.Addr == one.Addr })
	}
}

// applyLocked puts those members on the ring that have answered. It returns those new
// on it that could not be asked.
func (m *members) applyLocked() (unchecked []peer.Node) {
	var ring, known []peer.Node
	for _, one := range m.byName {
		if one.onRing {
			ring = append(ring, one.Node)
		}
		if !one.gone {
			known = append(known, one.Node)
		}
	}
	for _, o := range m.node.replaceRing(ring, known) {
		m.node.Purger.remind(o)
		if o.Life == 0 {
			unchecked = append(unchecked, o)
		}
	}
	return unchecked
}

// await has no hit served until members have answered, for catchUpFor at most.
func (m *members) await(first []*member) {
	if len(first) == 0 {
		return
	}
	m.node.Purger.Sync.Begin()
	guard.Go(func() {
		defer m.node.Purger.Sync.End()
		timeout := time.NewTimer(catchUpFor)
		defer timeout.Stop()
		for i, one := range first {
			select {
			case <-one.over:
			case <-timeout.C:
				m.noteSilent(first[i:])
				return
			}
		}
	})
}

func (m *members) noteSilent(all []*member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range all {
		select {
		case <-one.over:
		default:
			one.silent = true
		}
	}
}

// admit asks a member for the purges that it knows until it answers, and puts it on
// the ring; or until it is gone.
func (m *members) admit(one *member) {
	for wait := retryPurge; m.wants(one); wait = min(2*wait, RemindEvery) {
		err := m.node.Purger.ask(m.node.Over, one.Node)
		hold := wait
		if err == nil {
			hold = m.answered(one)
		} else {
			m.unanswered(one, err)
		}
		if hold == 0 || !pause(m.node.Over, hold) {
			return
		}
	}
}

func (m *members) wants(one *member) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byName[one.Name] == one && !one.gone
}

// answered notes that a member has answered, and puts it on the ring, unless it has
// to be kept off for some time more, which is returned.
func (m *members) answered(one *member) time.Duration {
	m.mu.Lock()
	told := one.told
	one.why, one.told = nil, false
	for _, other := range m.byName {
		if other.Addr == one.Addr {
			other.silent = false
		}
	}
	one.silent = false // also if another one has its name by now
	one.endWait()
	hold := max(0, one.hold()-time.Since(one.since))
	if hold > 0 {
		one.why = errComesAndGoes
	} else if m.byName[one.Name] == one && !one.gone {
		one.onRing = true
		m.applyLocked()
	}
	m.mu.Unlock()
	if told {
		m.reached(one.Node, nil)
	}
	return hold
}

// hold is how long a member is kept off the ring since it came.
func (one *member) hold() time.Duration {
	if one.comeback < 3 {
		return 0
	}
	return min(firstHold<<min(one.comeback-3, 4), longHold)
}

// unanswered notes why a member has not answered. What lasts for no longer than a
// start takes is told to nobody.
func (m *members) unanswered(one *member, err error) {
	other, known := errors.AsType[peer.OtherNode](err)
	m.mu.Lock()
	if known {
		err = fmt.Errorf("%s answers at its peers address %s: two members advertise one address", m.nameLocked(other.Life), one.Addr)
	}
	one.why = err
	tell := !one.told && (known || time.Since(one.since) > catchUpFor || one.silent)
	one.told = one.told || tell
	m.mu.Unlock()
	if tell {
		m.reached(one.Node, err)
	}
}

func (m *members) nameLocked(life uint64) string {
	for _, one := range m.byName {
		if one.Life == life && life != 0 {
			return one.Name
		}
	}
	if life == m.node.Life {
		return m.node.Name
	}
	return "another node"
}

func (m *members) reached(of peer.Node, why error) {
	if m.node.OnReach != nil {
		m.node.OnReach(of, why)
	}
}

// Unreachable returns why a member that is present is not on the ring; nil: it is, or
// it has not been asked for long.
func (m *members) Unreachable(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one := m.byName[name]; one != nil && !one.onRing && !one.gone {
		return one.why
	}
	return nil
}

// told returns who has to hear of a purge: the other nodes on the ring, and members
// that have not answered and may run.
func (m *members) told() []peer.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := m.node.Others()
	for _, one := range m.byName {
		switch {
		case one.onRing || slices.ContainsFunc(told, func(o peer.Node) bool { return o.Name == one.Name }):
		case !one.gone || one.silent && time.Since(one.since) < believeGoneAfter:
			told = append(told, one.Node)
		}
	}
	return told
}

// now returns a node as it is by now, if it was started again.
func (m *members) now(of peer.Node) peer.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if one := m.byName[of.Name]; one != nil && !one.gone {
		return one.Node
	}
	return of
}
