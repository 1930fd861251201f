package store

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A purgeTest is a store inside a synctest bubble. Time passes only when it
// waits.
type purgeTest struct {
	testing.TB
	*Store
	space *Namespace
}

func inBubble(t *testing.T, f func(t *testing.T, p purgeTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, space := newStore(t, 16<<20, 16<<20)
		f(t, purgeTest{t, s, space})
	})
}

// tick makes two times differ.
func tick() { time.Sleep(time.Millisecond) }

// page is an entry for a URL, fetched now.
func (p purgeTest) page(url string, tags ...string) *Entry {
	e := entry(p, time.Now(), nil)
	e.SetLabels(url, tags, nil)
	e.Fresh.Lifetime = time.Hour
	return e
}

// has reports whether a key has an entry that is fresh, or stale.
func (p purgeTest) has(k Key) string {
	e := p.Lookup(k, nil, time.Now()).Entry
	switch {
	case e == nil:
		return "gone"
	case e.Fresh.TTL(time.Now()) > 0:
		return "fresh"
	}
	return "stale"
}

func (p purgeTest) want(k Key, what, want string) {
	p.Helper()
	if got := p.has(k); got != want {
		p.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestPurgeTakesExactlyWhatItNames(t *testing.T) {
	const url = "http://a.test:8080/shop/x?b=1&a=2"
	for _, tt := range []struct {
		kind  Kind
		value string
		want  bool
	}{
		{All, "", true},
		{URL, url, true},
		{URL, "http://a.test:8080/shop/x?b=1&a=", false},
		{URL, "http://a.test:8080/shop/x?b=1&a=22", false},
		{URL, "http://a.test:8080/shop/x?a=2&b=1", false},
		{URL, "http://a.test:8080/shop/x", false},
		{URL, "https://a.test:8080/shop/x?b=1&a=2", false},
		{URL, "http://a.test/shop/x?b=1&a=2", false},
		{Prefix, "http://a.test:8080/shop", true},
		{Prefix, "http://a.test:8080/sh", true},
		{Prefix, "http://a.test:8080/shop/", true},
		{Prefix, url, true},
		{Prefix, url + "2", false},
		{Prefix, "http://a.test:8080/shop/y", false},
		{Prefix, "http://a.test:8080/Shop", false},
		{Prefix, "http://a.test:80", true},
		{Prefix, "https://a.test:8080/", false},
		{Prefix, "a.test", false},
		{Host, "a.test", true},
		{Host, "a.test:8080", true},
		{Host, "a.test:808", false},
		{Host, "a.test:80", false},
		{Host, "test", false},
		{Host, "b.a.test", false},
		{Host, "a.test.", false},
		{Tag, "t", true},
		{Tag, "two words", true},
		{Tag, "t1", false},
		{Tag, "T", false},
		{Tag, "", false},
		{Tag, "two", false},
		{Tag, "g", false}, // a cache group
		{Group, GroupOf(url, "g"), true},
		{Group, GroupOf("http://b.test:8080/", "g"), false},
		{Group, GroupOf(url, "t"), false},
		{OfKey, string(append([]byte(nil), func() []byte { k := key(1); return k[:] }()...)), true},
		{OfKey, string(append([]byte(nil), func() []byte { k := key(2); return k[:] }()...)), false},
	} {
		for _, group := range []string{"", "default", "other"} {
			inBubble(t, func(t *testing.T, p purgeTest) {
				e := p.page(url, "t", "two words")
				e.SetLabels(url, e.Tags(), []string{"g"})
				p.Commit(p.space, key(1), e, []byte("hello"))
				tick()
				p.Purge(Purge{Group: group, Selectors: []Selector{{tt.kind, tt.value}}})
				want := "fresh"
				if tt.want && group != "other" {
					want = "gone"
				}
				p.want(key(1), fmt.Sprintf("%s %q in group %q", tt.kind, tt.value, group), want)
				if entries := p.space.Entries.Load(); entries == 0 != (want == "gone") {
					t.Errorf("%s %q in group %q: %d entries", tt.kind, tt.value, group, entries)
				}
				// What is fetched from now on is not meant.
				tick()
				again := p.page(url, "t", "two words")
				again.SetLabels(url, again.Tags(), []string{"g"})
				if p.Commit(p.space, key(1), again, []byte("new")) == nil {
					t.Errorf("%s %q: what was fetched afterwards is refused", tt.kind, tt.value)
				}
				p.want(key(1), "fetched afterwards", "fresh")
			})
		}
	}
}

func TestHostOfASchemesOwnPort(t *testing.T) {
	for _, tt := range []struct {
		url, host string
		want      bool
	}{
		{"http://a.test/", "a.test:80", true},
		{"http://a.test/", "a.test:443", false},
		{"https://a.test/", "a.test:443", true},
		{"https://a.test/", "a.test", true},
		{"https://a.test:80/", "a.test:80", true},
		{"http://[::1]/", "[::1]", true},
		{"http://[::1]/", "[::1]:80", true},
		{"http://[::1]:8080/", "[::1]", true},
		{"http://[::1]:8080/", "[::1]:8080", true},
		{"http://[::1]:8080/", "[:", false},
	} {
		inBubble(t, func(t *testing.T, p purgeTest) {
			p.Commit(p.space, key(1), p.page(tt.url), []byte("hello"))
			tick()
			p.Purge(Purge{Selectors: []Selector{{Host, tt.host}}})
			if gone := p.has(key(1)) == "gone"; gone != tt.want {
				t.Errorf("host %s of %s: gone is %v", tt.host, tt.url, gone)
			}
		})
	}
}

func TestPurgeReachesAllVariantsAndOnlyThem(t *testing.T) {
	inBubble(t, func(t *testing.T, p purgeTest) {
		request := func(v string) http.Header { return http.Header{"X-V": {v}} }
		for _, v := range []string{"1", "2", "3"} {
			e := entry(t, time.Now(), request(v), "Vary", "X-V")
			e.SetLabels("http://a.test/", []string{"v" + v}, nil)
			p.Commit(p.space, key(1), e, []byte(v))
		}
		tick()
		p.Purge(Purge{Selectors: []Selector{{Tag, "v2"}}})
		for v, want := range map[string]bool{"1": true, "2": false, "3": true} {
			if got := p.Lookup(key(1), request(v), time.Now()).Entry != nil; got != want {
				t.Errorf("variant %s: %v", v, got)
			}
		}
		p.Purge(Purge{Selectors: []Selector{{URL, "http://a.test/"}}})
		if p.Lookup(key(1), request("1"), time.Now()).Any {
			t.Error("a variant is left")
		}
	})
}

func TestSoftPurge(t *testing.T) {
	inBubble(t, func(t *testing.T, p purgeTest) {
		strict := p.page("http://a.test/", "t")
		strict.Fresh.MustRevalidate = true
		old := p.page("http://a.test/", "t")
		old.Fresh.Lifetime = time.Microsecond
		p.Commit(p.space, key(1), p.page("http://a.test/", "t"), []byte("hello"))
		p.Commit(p.space, key(2), strict, []byte("hello"))
		p.Commit(p.space, key(3), old, []byte("hello"))
		p.Commit(p.space, key(4), p.page("http://a.test/"), []byte("hello"))
		time.Sleep(20 * time.Second)
		p.Purge(Purge{Soft: true, Selectors: []Selector{{Tag, "t"}}})
		for range 2 { // however often it is looked at
			for n, want := range map[int]time.Duration{1: time.Hour - 20*time.Second, 2: 0, 3: 0} {
				e := p.Lookup(key(n), nil, time.Now()).Entry
				if e == nil || e.Fresh.TTL(time.Now()) > 0 || e.Fresh.StaleWhileRevalidate != want || e.Fresh.StaleIfError != want {
					t.Errorf("%d: %+v", n, e)
				}
			}
		}
		p.want(key(4), "another", "fresh")
		if body, err := p.Body(key(1), p.Lookup(key(1), nil, time.Now()).Entry); string(body) != "hello" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
		tick()
		p.Commit(p.space, key(1), p.page("http://a.test/", "t"), []byte("new"))
		p.want(key(1), "fetched after a soft purge", "fresh")
		p.Purge(Purge{Selectors: []Selector{{Tag, "t"}}})
		p.want(key(2), "softened, and then purged", "gone")
	})
}

func TestWhatWasFetchedBeforeIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, p purgeTest) {
		before := p.page("http://a.test/", "t")
		tick()
		p.Purge(Purge{Selectors: []Selector{{Tag, "t"}}})
		for e, want := range map[*Entry]bool{p.page("http://a.test/", "t1"): false, before: true} {
			if hard, any := p.Purged(p.space, key(1), e); hard != want || any != want {
				t.Errorf("%v: %v, %v", e.Tags(), hard, any)
			}
		}
		if p.Commit(p.space, key(1), before, []byte("old")) != nil {
			t.Error("it was stored")
		}
		p.PutEntry(p.space, key(1), before)
		p.PutCopy(p.space, key(1), before, []byte("old"))
		p.want(key(1), "what was fetched before", "gone")

		soft := p.page("http://a.test/", "s")
		tick()
		p.Purge(Purge{Soft: true, Selectors: []Selector{{Tag, "s"}}})
		if hard, any := p.Purged(p.space, key(2), soft); hard || !any {
			t.Errorf("softly: %v, %v", hard, any)
		}
		p.Commit(p.space, key(2), soft, []byte("old"))
		p.want(key(2), "what was fetched before a soft purge", "stale")
	})
}

// A 304 says that the origin would send the same again, but not that whoever
// purged it was wrong: the body was fetched before.
// Hashes share places in marks. Whoever shares one with what is purged is compared
// more closely, and nobody is skipped.
func TestPurgesThatShareAPlace(t *testing.T) {
	tagOf := make(map[uint64]string)
	var one, other string
	for n := 0; other == ""; n++ {
		tag := fmt.Sprint("tag", n)
		place := hashSelector(Tag, tag) % markPlaces
		if one = tagOf[place]; one != "" {
			other = tag
		}
		tagOf[place] = tag
	}
	inBubble(t, func(t *testing.T, p purgeTest) {
		p.Commit(p.space, key(1), p.page("http://a.test/1", one), []byte("1"))
		p.Commit(p.space, key(2), p.page("http://a.test/2", other), []byte("2"))
		tick()
		p.Purge(Purge{Selectors: []Selector{{Tag, one}}})
		p.Purge(Purge{Selectors: []Selector{{Tag, other + "?"}}})
		p.want(key(1), "purged", "gone")
		p.want(key(2), "not purged", "fresh")
		p.Purge(Purge{Selectors: []Selector{{Tag, one}}})
		p.Purge(Purge{Selectors: []Selector{{Tag, other}}, Soft: true})
		p.Purge(Purge{Selectors: []Selector{{Tag, one}}})
		p.want(key(2), "softly purged between two others", "stale")
		p.Purge(Purge{Selectors: []Selector{{Tag, other}}})
		p.want(key(2), "purged", "gone")
	})
}

func TestValidationDoesNotResurrect(t *testing.T) {
	for _, soft := range []bool{false, true} {
		inBubble(t, func(t *testing.T, p purgeTest) {
			stored := p.Commit(p.space, key(1), p.page("http://a.test/", "t"), []byte("hello"))
			tick()
			p.Purge(Purge{Soft: soft, Selectors: []Selector{{Tag, "t"}}})
			tick()
			renewed, _ := stored.WithFreshness(stored.Header(), stored.Fresh, time.Now())
			p.PutEntry(p.space, key(1), renewed)
			want := "gone"
			if soft {
				want = "fresh" // that is what a soft purge asks for
			}
			p.want(key(1), fmt.Sprint("validated after a purge, soft ", soft), want)

			asked := time.Now()
			tick()
			p.Purge(Purge{Soft: soft, Selectors: []Selector{{Tag, "t"}}})
			renewed, _ = stored.WithFreshness(stored.Header(), stored.Fresh, asked)
			p.PutEntry(p.space, key(1), renewed)
			if soft {
				want = "stale"
			}
			p.want(key(1), fmt.Sprint("validated during a purge, soft ", soft), want)
		})
	}
}

// What another node has compared may look older than it is, and is kept; what
// it can't have compared is not.
func TestEntriesOfOtherNodes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		compared bool
		asked    time.Duration // after the purge
		want     string
	}{
		{"compared with it", true, time.Millisecond, "fresh"},
		{"compared before", true, -time.Millisecond, "gone"},
		{"compared at that time", true, 0, "gone"},
		{"not compared", false, time.Millisecond, "gone"},
	} {
		inBubble(t, func(t *testing.T, p purgeTest) {
			time.Sleep(time.Second)
			e := p.page("http://a.test/", "t")
			e.Fetched = e.Fetched.Add(-time.Millisecond)
			e.Checked, e.Compared = time.Now().Add(tt.asked), tt.compared
			p.Purge(Purge{Selectors: []Selector{{Tag, "t"}}})
			p.PutEntry(p.space, key(1), e)
			p.want(key(1), tt.name, tt.want)
			time.Sleep(time.Second)
			p.Purge(Purge{Selectors: []Selector{{Tag, "t"}}})
			p.want(key(1), tt.name+", and then purged here", "gone")
		})
	}
}

func TestSweepFreesWhatWasPurged(t *testing.T) {
	inBubble(t, func(t *testing.T, p purgeTest) {
		for n := range 1000 {
			p.Commit(p.space, key(n), p.page("http://a.test/", fmt.Sprint("t", n%2)), []byte("hello"))
		}
		before := p.Usage().IndexBytes
		tick()
		p.Purge(Purge{Selectors: []Selector{{Tag, "t0"}}})
		time.Sleep(keepRecords + time.Second)
		synctest.Wait()
		if left, bytes := p.space.Entries.Load(), p.Usage().IndexBytes; left != 500 || bytes >= before {
			t.Errorf("%d entries, %d bytes of %d", left, bytes, before)
		}
		if len(p.purges.order) != 0 || len(p.purges.scopes[""].exact) != 0 {
			t.Errorf("%d records are left", len(p.purges.order))
		}
		p.want(key(0), "purged", "gone")
		p.want(key(1), "not purged", "fresh")
	})
}

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

// crowd has the store drop records that are young.
func (p purgeTest) crowd(kind Kind, n int) {
	for i := range n {
		p.Purge(Purge{Selectors: []Selector{{kind, fmt.Sprint("http://other.test/", i)}}})
	}
	synctest.Wait()
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

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// poll waits until something is so that another goroutine brings about.
func poll(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// Whatever purges, fetches and sweeps do at the same time, nothing is found
// that was fetched before a purge which had returned.
func TestNothingPurgedIsFoundWhateverHappensMeanwhile(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	const tags = 8
	var purged [tags]atomic.Pointer[time.Time]
	now := time.Now()
	for i := range purged {
		purged[i].Store(&now)
	}
	var all sync.WaitGroup
	var found atomic.Int64
	deadline := time.Now().Add(500 * time.Millisecond)
	for range 4 {
		all.Go(func() {
			for time.Now().Before(deadline) {
				n := rand.IntN(tags)
				switch rand.IntN(4) {
				case 0:
					begun := time.Now()
					if rand.IntN(10) == 0 {
						s.Purge(Purge{Selectors: []Selector{{Prefix, fmt.Sprint("http://a.test/", n)}}})
					} else {
						s.Purge(Purge{Selectors: []Selector{{Tag, fmt.Sprint(n)}}})
					}
					for was := purged[n].Load(); begun.After(*was) && !purged[n].CompareAndSwap(was, &begun); was = purged[n].Load() {
					}
				case 1:
					e := entry(t, time.Now(), nil)
					e.SetLabels(fmt.Sprint("http://a.test/", n), []string{fmt.Sprint(n)}, nil)
					runtime.Gosched()
					s.Commit(space, key(n), e, fmt.Append(nil, n))
				case 2:
					if rand.IntN(100) == 0 {
						s.sweepPurges()
					}
				default:
					since := *purged[n].Load()
					if e := s.Lookup(key(n), nil, now).Entry; e != nil {
						found.Add(1)
						if e.Fetched.Before(since) {
							t.Errorf("found what was fetched %v before a purge had begun", since.Sub(e.Fetched))
						}
					}
				}
			}
		})
	}
	all.Wait()
	if found.Load() == 0 {
		t.Error("nothing was ever found")
	}
}

// Readers who look amid a purge must not note that they have seen it.
func TestReadersAmidAPurgeDoNotHideIt(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	p := purgeTest{t, s, space}
	done := make(chan struct{})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					s.Lookup(key(1), nil, now)
				}
			}
		})
	}
	for n := range 50_000 {
		s.Commit(space, key(1), p.page("http://a.test/1", "t"), nil)
		s.Purge(Purge{Selectors: []Selector{{Tag, "t"}}})
		if s.Lookup(key(1), nil, now).Entry != nil {
			t.Errorf("found after purge %d", n)
			break
		}
	}
	close(done)
	all.Wait()
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

// benchmarkHits looks up stored entries while something else goes on.
func benchmarkHits(b *testing.B, purgesPerSecond int, batch int) {
	s, space := newStore(b, 64<<20, 64<<20)
	const entries = 10_000
	for n := range entries {
		e := entry(b, time.Now(), nil, "Content-Type", "text/html")
		e.SetLabels(fmt.Sprint("http://a.test/", n), []string{"a", "b", fmt.Sprint("tag", n)}, nil)
		s.Commit(space, key(n), e, []byte("hello"))
	}
	done := make(chan struct{})
	var all sync.WaitGroup
	if purgesPerSecond > 0 {
		all.Go(func() {
			ticks := time.NewTicker(time.Second * time.Duration(batch) / time.Duration(purgesPerSecond))
			defer ticks.Stop()
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-ticks.C:
				}
				for i := range batch {
					s.Purge(Purge{Selectors: []Selector{{Tag, fmt.Sprint("deploy", n*batch+i)}}})
				}
			}
		})
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if s.Lookup(key(n%entries), nil, now).Entry == nil {
			b.Fatal("a hit was purged")
		}
		n += 7
	}
	close(done)
	all.Wait()
}

// Compare these two: what a look-up takes more while 10,000 purges of single tags
// a second come in.
func BenchmarkHitWithoutPurges(b *testing.B)     { benchmarkHits(b, 0, 0) }
func BenchmarkHitDuring10000Purges(b *testing.B) { benchmarkHits(b, 10_000, 10) }
