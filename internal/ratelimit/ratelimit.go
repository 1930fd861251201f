// Package ratelimit bounds how often the log has a line of one kind: processes that can
// reach a port could fill it otherwise.
package ratelimit

import (
	"maps"
	"sync"
	"time"
)

// Quiet is the time between two lines of one kind.
const Quiet = time.Minute

// A Limiter lets one line of a kind through within Quiet, and counts the others. The zero
// value has seen none.
type Limiter struct {
	mu    sync.Mutex // guards kinds
	kinds map[string]*kind
}

type kind struct {
	at   time.Time // of the last line
	held int       // lines that were not written since
}

// Take reports whether a line of a kind may be written, and if so, how many were held back
// before it. Of more kinds than most in one time of Quiet, the others share a line.
func (l *Limiter) Take(name string, most int, now time.Time) (held int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kindLocked(name, most, now)
	if !k.at.IsZero() && now.Sub(k.at) < Quiet {
		k.held++
		return 0, false
	}
	held = k.held
	k.at, k.held = now, 0
	return held, true
}

// kindLocked returns the record of a kind. Kinds whose time is over make room: members have
// other names after each start, and would be among the others for ever after some of them.
func (l *Limiter) kindLocked(name string, most int, now time.Time) *kind {
	k := l.kinds[name]
	if k == nil {
		if len(l.kinds) >= most {
			maps.DeleteFunc(l.kinds, func(_ string, one *kind) bool { return now.Sub(one.at) >= Quiet })
		}
		if len(l.kinds) >= most {
			name = "" // the others
		}
		if k = l.kinds[name]; k == nil {
			k = new(kind)
			if l.kinds == nil {
				l.kinds = make(map[string]*kind)
			}
			l.kinds[name] = k
		}
	}
	return k
}
