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
		stays             time.Duration
		seen, left, moves bool // its end is noticed before it comes again, or announced; it has another address then
		held              bool
	}{
		"crashes":                      {stays: time.Minute, seen: true, held: true},
		"crashes, and is back at once": {stays: time.Minute, held: true},
		"crashes, and moves":           {stays: time.Minute, seen: true, moves: true, held: true},
		"stops":                        {stays: time.Minute, seen: true, left: true},
		"crashes now and then":         {stays: steadyFor + time.Second, seen: true},
		"crashes now and then, and is back at once": {stays: steadyFor + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLone(t)
			m, now := &n.Members, time.Now()
			for start := range 8 {
				is := peer.Node{Name: "one", Addr: "10.0.0.1:8000", Life: uint64(start + 1)}
				if one.moves {
					is.Addr = fmt.Sprintf("10.0.0.%d:8000", start+1)
				}
				came := m.noteLocked([]peer.Node{is}, now)
				if len(came) != 1 {
					t.Fatalf("start %d: %d members came", start, len(came))
				}
				if hold, want := came[0].hold(), one.held && start >= 3; hold > 0 != want {
					t.Errorf("start %d: it is kept off the ring for %v", start, hold)
				}
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
// another process at its address. At another address it may answer.
func TestSilentMemberThatStartsAgain(t *testing.T) {
	m, was := &newLone(t).Members, peer.Node{Name: "one", Addr: "10.0.0.1:8000", Life: 1}
	m.noteSilent(m.noteLocked([]peer.Node{was}, time.Now()))
	again, elsewhere := was, was
	again.Life, elsewhere.Life, elsewhere.Addr = 2, 3, "10.0.0.2:8000"
	if came := m.noteLocked([]peer.Node{again}, time.Now()); !came[0].silent {
		t.Error("it is waited for again")
	}
	if came := m.noteLocked([]peer.Node{elsewhere}, time.Now()); came[0].silent {
		t.Error("at another address it is not waited for")
	}
}
