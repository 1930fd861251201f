package store

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// When a record is gone, what was fetched before it can't be told from what was
// not, and is refused.
func TestWhatIsOlderThanTheOldestRecordIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, p purgeTest) {
		before := p.page("http://a.test/", "t")
		unrelated := p.page("http://a.test/", "u")
		time.Sleep(time.Second)
		p.Purge(Purge{Selectors: []Selector{{Tag, "t"}}})
		tick()
		after := p.page("http://a.test/", "t")
		time.Sleep(keepRecords + time.Second)
		synctest.Wait()
		for n, e := range map[int]*Entry{1: before, 2: unrelated} {
			if p.Commit(p.space, key(n), e, []byte("old")) != nil {
				t.Errorf("%d was stored", n)
			}
		}
		if p.Commit(p.space, key(3), after, []byte("new")) == nil {
			t.Error("what was fetched afterwards is refused")
		}
		// Another node has compared it lately.
		before.Checked = time.Now()
		p.PutEntry(p.space, key(4), before)
		p.want(key(4), "compared by another node", "fresh")
	})
}

func TestCrowdedRecordsLetNothingPurgedIn(t *testing.T) {
	for kind, n := range map[Kind]int{Tag: maxRecords + 10, Prefix: maxPrefixes + 10} {
		inBubble(t, func(t *testing.T, p purgeTest) {
			stored := p.Commit(p.space, key(1), p.page("http://a.test/", "t"), []byte("hello"))
			inFlight := p.page("http://a.test/", "t")
			tick()
			p.Purge(Purge{Selectors: []Selector{{Tag, "t"}}})
			p.Purge(Purge{Selectors: []Selector{{Prefix, "http://a.test/"}}})
			tick()
			p.crowd(kind, n)
			if p.purges.floor.IsZero() || len(p.purges.order) > maxRecords {
				t.Fatalf("%d records, none dropped", len(p.purges.order))
			}
			p.want(key(1), "stored before", "gone")
			if p.Commit(p.space, key(2), inFlight, []byte("old")) != nil {
				t.Error("what was in flight was stored")
			}
			renewed, _ := stored.WithFreshness(stored.Header(), stored.Fresh, time.Now())
			p.PutEntry(p.space, key(3), renewed)
			p.want(key(3), "validated afterwards", "gone")
			// A fetch of our own that began later is as good as ever.
			tick()
			if p.Commit(p.space, key(4), p.page("http://a.test/", "t"), []byte("new")) == nil {
				t.Error("what was fetched afterwards is refused")
			}
		})
	}
}

// TestGroupsOfPurgesAreForgotten: other nodes tell purges of groups of any name, and nothing
// is left of them with the records.
func TestGroupsOfPurgesAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, p purgeTest) {
		old := p.page("http://a.test/", "t")
		p.Commit(p.space, key(1), p.page("http://a.test/", "t"), []byte("hello"))
		tick()
		for i := range 3000 {
			kind := []Kind{All, Tag, Prefix}[i%3]
			p.Purge(Purge{Group: fmt.Sprint("group-", i), Selectors: []Selector{{kind, strings.Repeat("x", min(int(kind)-1, 1))}}, Soft: i%2 == 0})
		}
		p.Purge(Purge{Group: p.space.Name, Selectors: []Selector{{All, ""}}})
		time.Sleep(keepRecords + time.Second)
		synctest.Wait()
		p.purges.mu.Lock()
		left := len(p.purges.scopes)
		p.purges.mu.Unlock()
		if left > 0 {
			t.Errorf("%d are left", left)
		}
		p.want(key(1), "purged", "gone")
		if p.Commit(p.space, key(2), old, []byte("old")) != nil {
			t.Error("what was on its way was stored")
		}
	})
}

func TestPurgesTakeBoundedMemory(t *testing.T) {
	s, _ := newStore(t, 1<<20, 1<<20)
	var log PurgeLog
	before := heap()
	for i := range 1_000_000 {
		p := Purge{ID: PurgeID(i + 1), Selectors: []Selector{{Tag, fmt.Sprint("tag", i)}}, At: time.Now()}
		log.Announce(p.ID, p.At)
		s.Purge(Purge{Selectors: p.Selectors})
		log.Add(p)
	}
	poll(t, "the sweep keeps up", func() bool {
		s.purges.mu.Lock()
		defer s.purges.mu.Unlock()
		return len(s.purges.order) <= maxRecords && len(s.purges.scopes[""].exact) <= maxRecords
	})
	if grown := heap() - before; grown > 32<<20 {
		t.Errorf("%d MiB for 1,000,000 purges", grown>>20)
	} else {
		t.Logf("%d KiB for 1,000,000 purges", grown>>10)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(&log)
}

func TestPurgeLogRemembers(t *testing.T) {
	var l PurgeLog
	add := func(p Purge) bool {
		if !l.Announce(p.ID, p.At) {
			return false
		}
		l.Add(p)
		return true
	}
	at := time.Now()
	one := Purge{ID: 1, At: at, Selectors: []Selector{{Tag, "t"}}}
	if l.Knows(1) || !l.Announce(1, at) || l.Knows(1) {
		t.Error("known before it was applied")
	}
	if recent, told := l.Recent(at); !told || !slices.Equal(recent, []PurgeID{1}) {
		t.Errorf("announced, but not among the recent: %v, %v", recent, told)
	}
	l.Add(one)
	if !l.Knows(1) || add(one) {
		t.Error("not known afterwards")
	}
	add(Purge{ID: 2, At: at.Add(time.Second), Fleeting: true})
	if list, dropped := l.All(); len(list) != 1 || list[0].ID != 1 || !dropped.IsZero() || !l.Knows(2) {
		t.Errorf("%v, %v", list, dropped)
	}
	if recent, told := l.Recent(at.Add(PurgeGrace)); !told || !slices.Equal(recent, []PurgeID{2}) {
		t.Errorf("recent: %v, %v", recent, told)
	}
	for id := PurgeID(3); id < 3+MaxRecent; id++ {
		add(Purge{ID: id, At: at.Add(time.Second)})
	}
	if recent, told := l.Recent(at.Add(2 * time.Second)); told {
		t.Errorf("%d recent ones", len(recent))
	}
	if recent, told := l.Recent(at.Add(time.Hour)); !told || len(recent) != 0 {
		t.Errorf("after an hour: %v, %v", recent, told)
	}
}

func TestPurgeLogIsBoundedAndSaysSo(t *testing.T) {
	for name, size := range map[string]int{"many": 4, "large": 40 << 10} {
		t.Run(name, func(t *testing.T) {
			var l PurgeLog
			at := time.Now()
			add := func(i int) {
				p := Purge{ID: PurgeID(i), At: at.Add(time.Duration(i)), Selectors: []Selector{{Tag, strings.Repeat("x", size)}}}
				l.Announce(p.ID, p.At)
				l.Add(p)
			}
			i := 1
			for ; ; i++ {
				if add(i); l.dropped.IsZero() && i <= maxLogged {
					continue
				}
				if l.bytes > maxLoggedBytes || i > maxLogged+1 {
					t.Fatalf("%d bytes, %d purges", l.bytes, i)
				}
				if list, dropped := l.All(); !dropped.IsZero() {
					if list[0].ID != 2 || len(list) != i-1 || !dropped.Equal(at.Add(1)) {
						t.Errorf("the first left is %d of %d, dropped %v", list[0].ID, len(list), dropped.Sub(at))
					}
					break
				}
			}
			if !l.Knows(1) {
				t.Error("what is gone from the list would be applied again")
			}
			l.Dropped(at.Add(time.Hour))
			add(i + 1)
			if _, dropped := l.All(); !dropped.Equal(at.Add(time.Hour)) {
				t.Errorf("dropped %v", dropped.Sub(at))
			}
		})
	}
}

// However many fleeting purges come by, those on the list stay known: another
// node hands them over again and again.
func TestListedPurgesStayKnown(t *testing.T) {
	var l PurgeLog
	at := time.Now()
	l.Announce(1, at)
	l.Add(Purge{ID: 1, At: at})
	for id := PurgeID(2); id < 2+2*maxOthers; id++ {
		l.Announce(id, at)
		l.Add(Purge{ID: id, At: at, Fleeting: true})
	}
	if list, _ := l.All(); len(list) != 1 || !l.Knows(1) {
		t.Errorf("%d on the list, known: %v", len(list), l.Knows(1))
	}
	if len(l.known) > maxOthers+1 || len(l.recent) > MaxRecent+1 {
		t.Errorf("%d are known, %d recent", len(l.known), len(l.recent))
	}
}
