package caddygroupcache

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestNodeThatCannotBeReachedIsNamedAndToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		deaf := b.nodes[2]
		url := b.urlOf(deaf)
		for _, m := range b.nodes {
			m.get(t, up, url)
		}
		for _, m := range b.nodes[:2] {
			b.net.part(m.addr.Addr, deaf.addr.Addr, true)
		}
		begun := time.Now()
		code, result := b.nodes[0].purge(t, `{"tags": ["all"]}`)
		if took := time.Since(begun); code != 502 || took < node.PurgeDeadline || took > node.PurgeDeadline+time.Millisecond || !slices.Equal(result.Missing(), []string{deaf.Name}) {
			t.Errorf("%d %+v after %v", code, result, took)
		}
		for _, a := range result.Nodes {
			if (a.Name == deaf.Name) != (a.Error != "") {
				t.Errorf("%+v", a)
			}
		}
		for _, m := range b.nodes[:2] {
			if body, _ := m.get(t, up, url); strings.HasSuffix(body, " 1") {
				t.Errorf("%s has acknowledged and serves %q", m.Name, body)
			}
		}
		for _, m := range b.nodes[:2] {
			b.net.part(m.addr.Addr, deaf.addr.Addr, false)
		}
		time.Sleep(node.RemindEvery + node.PurgeDeadline + time.Second)
		if body, _ := deaf.get(t, up, url); strings.HasSuffix(body, " 1") {
			t.Errorf("%s was reachable again and serves %q", deaf.Name, body)
		}
		if n := b.nodes[0].UnderWay().Reminders; n != 0 {
			t.Errorf("%d nodes are still being told", n)
		}
	})
}

func TestNodeThatWasFrozenAsksBeforeItServesAHit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		for _, m := range b.nodes {
			m.Purger.NoteBeat()
			for _, u := range pages() {
				m.get(t, up, u)
			}
		}
		frozen := b.nodes[2]
		b.freeze(frozen, true)
		code, result := b.nodes[0].purge(t, `{"hosts": ["a.test"]}`)
		if code != 502 || !slices.Equal(result.Missing(), []string{frozen.Name}) {
			t.Errorf("%d %+v", code, result)
		}
		time.Sleep(time.Minute)
		for _, m := range b.nodes[:2] {
			m.Purger.NoteBeat()
		}
		b.freeze(frozen, false)
		// Its very first answer, before anything of it has run.
		for _, u := range pages() {
			body, status := frozen.get(t, up, u)
			if strings.HasPrefix(u, "http://a.test/") != strings.HasSuffix(body, " 2") {
				t.Errorf("%s: %q %s", u, body, status)
			}
		}
	})
}

func TestNodeThatCannotAskServesNoHits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		lonely := b.nodes[1]
		url := b.urlOf(lonely)
		lonely.Purger.NoteBeat()
		lonely.get(t, up, url)
		b.freeze(lonely, true)
		time.Sleep(time.Minute)
		if _, status := lonely.get(t, up, url); !strings.Contains(status, "detail=catching-up") {
			t.Errorf("nobody has told it anything: %s", status)
		}
		b.freeze(lonely, false)
		time.Sleep(2 * time.Second)
		lonely.Purger.NoteBeat()
		if _, status := lonely.get(t, up, url); !strings.Contains(status, "; hit;") {
			t.Errorf("it has been told: %s", status)
		}
		// If nobody ever answers, it goes on after a while, and at once when
		// there is nobody left to ask.
		b.freeze(lonely, true)
		time.Sleep(time.Minute)
		lonely.get(t, up, url)
		lonely.SetRing([]peer.Node{lonely.addr})
		time.Sleep(2 * time.Second)
		lonely.Purger.NoteBeat()
		if _, status := lonely.get(t, up, url); !strings.Contains(status, "; hit;") {
			t.Errorf("there is nobody to ask: %s", status)
		}
	})
}

func TestHealedPartitionsLearnFromEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 4, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		for _, m := range b.nodes {
			for _, u := range pages() {
				m.get(t, up, u)
			}
		}
		left, right := b.nodes[:2], b.nodes[2:]
		part := func(apart bool) {
			for _, l := range left {
				for _, r := range right {
					b.net.part(l.addr.Addr, r.addr.Addr, apart)
				}
			}
		}
		part(true)
		all := b.addrs()
		for i, m := range b.nodes {
			m.SetRing(all[i/2*2 : i/2*2+2])
		}
		b.settle()
		if code, result := left[0].purge(t, `{"hosts": ["a.test"]}`); code != 200 || len(result.Nodes) != 2 {
			t.Errorf("%d %+v", code, result)
		}
		if code, _ := right[1].purge(t, `{"tags": ["page-3"]}`); code != 200 {
			t.Errorf("%d", code)
		}
		time.Sleep(time.Minute)
		part(false)
		// They notice one after the other.
		begun := time.Now()
		for _, i := range []int{2, 0, 3, 1} {
			b.nodes[i].SetRing(all)
			b.settle()
		}
		for _, u := range pages() {
			purged := strings.HasPrefix(u, "http://a.test/") || strings.Contains(u, "/3?")
			for _, m := range b.nodes {
				if body, status := m.get(t, up, u); purged == strings.HasSuffix(body, " 1") {
					t.Errorf("%s: %s: %q %s", m.Name, u, body, status)
				}
			}
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestNewNodeLearnsWhatItsOwnersMayNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		b.nodes[0].purge(t, `{"tags": ["all"]}`)
		b.nodes[0].Purger.Invalidate(store.NewPurgeID(), b.nodes[0].handler.space, []store.Selector{{Kind: store.Tag, Value: "x"}}, time.Second)
		newcomer := b.start("newcomer", nil)
		for _, m := range b.nodes {
			m.SetRing(b.addrs())
		}
		b.settle()
		if list, _ := newcomer.Purger.Log.All(); len(list) != 1 || list[0].Selectors[0].Value != "all" {
			t.Errorf("it knows of %+v", list)
		}
	})
}

// purgeTooMuch purges more than a node can tell others.
func (m *bubbleNode) purgeTooMuch(t *testing.T) {
	t.Helper()
	tags := make([]string, 150)
	for i := range tags {
		tags[i] = fmt.Sprintf("%q", fmt.Sprint(strings.Repeat("x", 247), 100+i))
	}
	large := fmt.Sprintf(`{"tags": [%s]}`, strings.Join(tags, ", "))
	for range 20 {
		m.purge(t, large)
	}
	if list, dropped := m.Purger.Log.All(); dropped.IsZero() || len(list) < 2 {
		t.Fatalf("%d purges are left, dropped %v", len(list), dropped)
	}
}

// A log that is too short to tell what a node has missed makes it drop
// everything.
func TestNodeThatMissedTooMuchDropsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		const url = "http://a.test/1"
		away := b.nodes[1]
		away.Purger.NoteBeat()
		away.get(t, up, url)
		b.freeze(away, true)
		b.nodes[0].SetRing([]peer.Node{b.nodes[0].addr})
		b.nodes[0].purge(t, `{"tags": ["all"]}`)
		b.nodes[0].purgeTooMuch(t)
		b.nodes[0].SetRing(b.addrs())
		time.Sleep(time.Minute)
		b.freeze(away, false)
		b.nodes[0].Purger.NoteBeat()
		if body, status := away.get(t, up, url); !strings.HasSuffix(body, " 2") {
			t.Errorf("%q %s", body, status)
		}
		// From then on it knows all that there is to know.
		away.get(t, up, url)
		b.nodes[0].Purger.NoteBeat()
		list, dropped := b.nodes[0].Purger.Log.All()
		away.Purger.Learn(list, dropped)
		if _, status := away.get(t, up, url); !strings.Contains(status, "; hit;") {
			t.Errorf("told again what it knows: %s", status)
		}
	})
}

// A node that the others had given up serves hits again before they have it on
// their rings. A purge meanwhile succeeds without it; as soon as it is back it
// is told, since it has no reason to ask.
func TestNodeThatWasGivenUpIsToldWhatItCannotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		givenUp := b.nodes[1]
		url := b.urlOf(givenUp)
		givenUp.get(t, up, url)
		all := b.addrs()
		for _, i := range []int{0, 2} {
			b.nodes[i].SetRing([]peer.Node{all[0], all[2]})
		}
		if code, result := b.nodes[0].purge(t, `{"tags": ["all"]}`); code != 200 || len(result.Nodes) != 2 {
			t.Errorf("%d %+v", code, result)
		}
		b.nodes[2].SetRing(all)
		b.settle()
		for _, i := range []int{1, 2} {
			if body, status := b.nodes[i].get(t, up, url); !strings.HasSuffix(body, " 2") {
				t.Errorf("node%d: %q %s", i, body, status)
			}
		}
	})
}

// TestNodeThatWasGivenUpAndMissedTooMuch drops everything, too, though it asks nobody: it is
// told that not all can be told. That is so if it has heard of the latest purges by then, which
// gossip brings.
func TestNodeThatWasGivenUpAndMissedTooMuch(t *testing.T) {
	for name, heard := range map[string]bool{"it has heard of none": false, "it has heard of the latest": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 2, nil)
				s := &shop{asked: make(map[string]int)}
				up := s.handler()
				const url = "http://a.test/1"
				purger, givenUp := b.nodes[0], b.nodes[1]
				givenUp.get(t, up, url)
				purger.SetRing([]peer.Node{purger.addr})
				purger.purge(t, `{"tags": ["all"]}`)
				purger.purgeTooMuch(t)
				if heard {
					for range 100 {
						purger.purge(t, `{"tags": ["another"]}`)
					}
					givenUp.Purger.Merge(peer.EncodePurges(purger.Purger.Latest(), time.Time{}))
				}
				purger.SetRing(b.addrs())
				b.settle()
				if body, status := givenUp.get(t, up, url); !strings.HasSuffix(body, " 2") {
					t.Errorf("%q %s", body, status)
				}
				if _, status := givenUp.get(t, up, url); !strings.Contains(status, "; hit;") {
					t.Errorf("told what it knows by now: %s", status)
				}
			})
		})
	}
}

// TestWhatMovesIsNoOlderThanAPurge: a node that was apart hands keys to the one that owns
// them again, and has not heard of a purge that is too long ago for the other to compare
// what comes in with.
func TestWhatMovesIsNoOlderThanAPurge(t *testing.T) {
	// What is said at once arrives in any order, as by these lags, in microseconds.
	lags := []int{4, 0, 264, 7, 380, 1428, 3000, 3000, 2, 3000, 813, 766, 512, 3, 41, 0}
	for first := range lags {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, 2, nil)
			next := first
			b.net.slow(func() time.Duration {
				next++
				return time.Duration(lags[next%len(lags)]) * time.Microsecond
			})
			apart, owner := b.nodes[0], b.nodes[1]
			s := &shop{asked: make(map[string]int)}
			up, url := s.handler(), b.urlOf(owner)
			b.net.part(apart.addr.Addr, owner.addr.Addr, true)
			for _, m := range b.nodes {
				m.SetRing([]peer.Node{m.addr})
			}
			apart.get(t, up, url)
			if code, result := owner.purge(t, `{"tags": ["all"]}`); code != 200 {
				t.Fatal(code, result)
			}
			time.Sleep(130 * time.Second) // longer than a purge is compared with what comes in
			b.net.part(apart.addr.Addr, owner.addr.Addr, false)
			for _, m := range b.nodes {
				m.SetRing(b.addrs())
			}
			time.Sleep(10 * time.Second)
			for _, m := range b.nodes {
				if body, status := m.get(t, up, url); strings.HasSuffix(body, " 1") {
					t.Errorf("lags from %d: %s serves %q from before the purge: %s", first, m.Name, body, status)
				}
			}
		})
	}
}
