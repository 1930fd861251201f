package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// A PurgeID tells purges apart, everywhere and for good.
type PurgeID uint64

// NewPurgeID returns an ID that nobody else has.
func NewPurgeID() PurgeID { return PurgeID(rand.Uint64()) }

// String returns the ID as logs, events and answers name a purge.
func (id PurgeID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// A Purge is one purge as nodes tell it each other.
type Purge struct {
	ID        PurgeID
	Group     string // "": all groups
	Soft      bool
	Selectors []Selector
	Fleeting  bool      // nobody who was away needs to be told: RFC 9111 §4.4 asks no more
	At        time.Time // of its arrival here
}

func (p *Purge) size() int {
	n := len(p.Group) + 48
	for _, s := range p.Selectors {
		n += len(s.Value) + 24
	}
	return n
}

// A PurgeLog remembers recent purges for nodes that were away. The zero value
// is empty.
//
// It is bounded, so a node that was away for too long cannot be told all it has
// missed. Such a node knows none of the purges that are left here while older
// ones are gone: that is how it finds out.
type PurgeLog struct {
	mu      sync.Mutex // guards below
	list    []Purge    // oldest first
	bytes   int
	dropped time.Time          // of the youngest that is gone; zero: none is
	added   uint64             // how many there were
	known   map[PurgeID]uint64 // those on the list, and in others: how many there were with each
	others  []PurgeID          // not on the list, or no more: oldest first
	recent  []arrived          // oldest first
}

type arrived struct {
	id PurgeID
	at time.Time
}

const (
	maxLogged      = 8 << 10
	maxLoggedBytes = 512 << 10
	maxOthers      = 64 << 10

	// MaxRecent is how many purges a look-up mentions.
	MaxRecent = 16
)

// Announce is called before a purge is applied, and Add after that. In between
// it is among the recent ones, but not known. Announce reports false for one
// that is known. Of calls that bring one purge at the same time, each applies it
// before it returns, and one is the first to add it.
func (l *PurgeLog) Announce(id PurgeID, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.known[id]; ok {
		return false
	}
	if l.recent = append(l.recent, arrived{id, at}); len(l.recent) > MaxRecent+1 {
		l.recent = l.recent[1:]
	}
	return true
}

// Add remembers a purge that has been applied. It reports false for one that is known.
func (l *PurgeLog) Add(p Purge) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.known[p.ID]; ok {
		return false
	}
	if l.known == nil {
		l.known = make(map[PurgeID]uint64)
	}
	l.added++
	l.known[p.ID] = l.added
	if p.Fleeting {
		l.forgetLocked(p.ID)
		return true
	}
	l.list, l.bytes = append(l.list, p), l.bytes+p.size()
	for len(l.list) > maxLogged || l.bytes > maxLoggedBytes && len(l.list) > 1 {
		l.dropLocked(l.list[0].At)
		l.forgetLocked(l.list[0].ID)
		l.bytes -= l.list[0].size()
		l.list = l.list[1:]
	}
	return true
}

// forgetLocked lets a purge be forgotten once many others are to be.
func (l *PurgeLog) forgetLocked(id PurgeID) {
	if l.others = append(l.others, id); len(l.others) > maxOthers {
		delete(l.known, l.others[0])
		l.others = l.others[1:]
	}
}

func (l *PurgeLog) dropLocked(at time.Time) {
	if at.After(l.dropped) {
		l.dropped = at
	}
}

// Dropped notes that older purges are gone on another node from which this one
// has learned.
func (l *PurgeLog) Dropped(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(at)
}

// Recent returns the purges that other nodes may not have heard of yet, or
// reports false if they are too many.
func (l *PurgeLog) Recent(now time.Time) ([]PurgeID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var recent []PurgeID
	for i := len(l.recent) - 1; i >= 0 && now.Sub(l.recent[i].at) < PurgeGrace; i-- {
		if len(recent) == MaxRecent {
			return nil, false
		}
		recent = append(recent, l.recent[i].id)
	}
	return recent, true
}

// Knows reports whether a purge was added not too long ago.
func (l *PurgeLog) Knows(id PurgeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.known[id]
	return ok
}

// Added returns how many purges were added.
func (l *PurgeLog) Added() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.added
}

// Knew is Knows for a time when so many purges had been added.
func (l *PurgeLog) Knew(id PurgeID, added uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	nth, ok := l.known[id]
	return ok && nth <= added
}

// All returns the purges, oldest first, and when the youngest arrived that is
// gone, zero if none is.
func (l *PurgeLog) All() (list []Purge, dropped time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append(list, l.list...), l.dropped
}
