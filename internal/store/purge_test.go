package store

import (
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

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
		if len(p.purges.order) != 0 || len(p.purges.scopes) != 0 {
			t.Errorf("%d records are left", len(p.purges.order))
		}
		p.want(key(0), "purged", "gone")
		p.want(key(1), "not purged", "fresh")
	})
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
	seeds := seed.Of(t)
	for range 4 {
		random := seeds.Rand()
		all.Go(func() {
			for time.Now().Before(deadline) {
				n := random.IntN(tags)
				switch random.IntN(4) {
				case 0:
					begun := time.Now()
					if random.IntN(10) == 0 {
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
					if random.IntN(100) == 0 {
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
