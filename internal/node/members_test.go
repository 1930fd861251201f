package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// TestHoldOfAMemberThatStartsAgain: each start is another process. Only one that crashes again
// and again is kept off the ring, wherever it comes back; not one that says that it goes, as in
// a rolling restart, nor one that has stayed for long.
func TestHoldOfAMemberThatStartsAgain(t *testing.T) {
	for name, one := range map[string]struct {
		stays                      time.Duration
		seen, left, moves, renamed bool // its end is noticed before it comes again, or announced; it has another address or name then
		held                       bool
	}{
		"crashes":                      {stays: time.Minute, seen: true, held: true},
		"crashes, and is back at once": {stays: time.Minute, held: true},
		"crashes, and moves":           {stays: time.Minute, seen: true, moves: true, held: true},
		"stops":                        {stays: time.Minute, seen: true, left: true},
		"crashes now and then":         {stays: steadyFor + time.Second, seen: true},
		"crashes now and then, and is back at once":              {stays: steadyFor + time.Second},
		"crashes, with another name":                             {stays: time.Minute, seen: true, renamed: true, held: true},
		"crashes, and is back at once with another name":         {stays: time.Minute, renamed: true, held: true},
		"crashes, and moves with another name":                   {stays: time.Minute, seen: true, moves: true, renamed: true},
		"stops, and has another name":                            {stays: time.Minute, seen: true, left: true, renamed: true},
		"crashes now and then, with another name":                {stays: steadyFor + time.Second, seen: true, renamed: true},
		"crashes now and then, and is back at once with another": {stays: steadyFor + time.Second, renamed: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLone(t)
			m, now := &n.Members, time.Now()
			var last []peer.Node
			for start := range 8 {
				is := peer.Node{Name: "one", Addr: "10.0.0.1:8000", Life: uint64(start + 1)}
				if one.moves {
					is.Addr = fmt.Sprintf("10.0.0.%d:8000", start+1)
				}
				if one.renamed {
					is.Name = fmt.Sprintf("one-%d", start+1)
				} else {
					last = nil
				}
				m.noteLocked(append(last, is), now)
				if hold, want := m.byName[is.Name].hold(), one.held && start >= 3; hold > 0 != want {
					t.Errorf("start %d: it is kept off the ring for %v", start, hold)
				}
				if last = []peer.Node{is}; one.seen {
					last = nil
				}
				m.noteLocked([]peer.Node{is}, now.Add(time.Second)) // what was there before is noticed to be gone
				now = now.Add(one.stays)
				if one.seen {
					m.noteLocked(nil, now)
				}
				if one.left {
					m.Left(is.Name)
				}
			}
		})
	}
}

// TestSilentMemberThatStartsAgain: hits have waited for it in vain, and do not wait again for
// another process at its address, whatever its name, until one has answered there. At another
// address it may answer.
func TestSilentMemberThatStartsAgain(t *testing.T) {
	m, was := &newLone(t).Members, peer.Node{Name: "one", Addr: "10.0.0.1:8000", Life: 1}
	m.noteSilent(m.noteLocked([]peer.Node{was}, time.Now()))
	again, renamed, elsewhere, later := was, was, was, was
	again.Life, renamed.Life, renamed.Name = 2, 3, "two"
	elsewhere.Life, elsewhere.Addr = 4, "10.0.0.2:8000"
	later.Life, later.Name = 5, "three"
	if came := m.noteLocked([]peer.Node{again}, time.Now()); !came[0].silent {
		t.Error("it is waited for again")
	}
	came := m.noteLocked([]peer.Node{again, renamed}, time.Now())
	if len(came) != 1 || !came[0].silent {
		t.Error("it is waited for again under another name")
	}
	if came := m.noteLocked([]peer.Node{elsewhere}, time.Now()); came[0].silent {
		t.Error("at another address it is not waited for")
	}
	m.answered(came[0])
	if came := m.noteLocked([]peer.Node{elsewhere, later}, time.Now()); len(came) != 1 || came[0].silent {
		t.Error("one has answered there, and the next is not waited for")
	}
}
