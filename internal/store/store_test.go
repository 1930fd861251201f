package store

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

func TestCommitThenLookup(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	stored := s.Commit(space, key(1), entry(t, now, nil, "X-A", "1"), []byte("hello"))
	got := s.Lookup(key(1), nil, now)
	if got.Entry != stored || !got.Any {
		t.Fatalf("got %+v", got)
	}
	body, err := s.Body(key(1), got.Entry)
	if err != nil || string(body) != "hello" || got.Entry.Size != 5 || got.Entry.Get("Content-Length") != "5" {
		t.Errorf("%q, %v, %+v", body, err, got.Entry)
	}
	if s.Lookup(key(2), nil, now).Entry != nil {
		t.Error("another key is there too")
	}
	if n, b := space.Entries.Load(), space.Bytes.Load(); n != 1 || b != 5 {
		t.Errorf("counted %d entries, %d bytes", n, b)
	}
}

// TestBodyOfAnotherLengthIsGone: an entry that claims more, or less, than its generation has.
func TestBodyOfAnotherLengthIsGone(t *testing.T) {
	s, space := newStore(t, 8<<20, 1<<20)
	for _, claim := range []int64{-1, 1, ChunkSize} {
		e := s.Commit(space, key(1), entry(t, now, nil), bytes.Repeat([]byte("x"), SmallBody+2))
		other := *e
		other.Size += claim
		s.PutEntry(space, key(1), &other)
		if body, err := s.Body(key(1), s.Lookup(key(1), nil, now).Entry); !errors.Is(err, ErrGone) {
			t.Errorf("%d bytes of %d, %v", len(body), other.Size, err)
		}
	}
}

func TestBodyIsNotCopiedByHits(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	e := s.Commit(space, key(1), entry(t, now, nil), []byte("hello"))
	a, _ := s.Body(key(1), e)
	b, _ := s.Body(key(1), e)
	if &a[0] != &b[0] {
		t.Error("two hits got two copies")
	}
}

func TestSameBytesKeepTheGeneration(t *testing.T) {
	for _, size := range []int{4, SmallBody + 1} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) { testSameBytes(t, size) })
	}
}

func testSameBytes(t *testing.T, size int) {
	s, space := newStore(t, 1<<20, 1<<20)
	same, other := bytes.Repeat([]byte("s"), size), bytes.Repeat([]byte("e"), size)
	first := s.Commit(space, key(1), entry(t, now, nil), bytes.Clone(same))
	second := s.Commit(space, key(1), entry(t, now.Add(time.Second), nil, "X-New", "1"), bytes.Clone(same))
	third := s.Commit(space, key(1), entry(t, now.Add(2*time.Second), nil), other)
	if first.Generation != second.Generation || second.Generation == third.Generation || third.Generation == 0 {
		t.Errorf("generations %x, %x, %x", first.Generation, second.Generation, third.Generation)
	}
	if got := s.Lookup(key(1), nil, now).Entry; got != third {
		t.Error("the newest is not what is found")
	}
	// Who still holds the old entry gets the old body.
	if body, err := s.Body(key(1), first); !bytes.Equal(body, same) || err != nil {
		t.Errorf("old body: %q, %v", body, err)
	}
	want := int64(2)
	if size <= SmallBody {
		want = 0 // they lie in their entries
	}
	if got := s.Usage().Main.Items; got != want {
		t.Errorf("%d bodies, want %d", got, want)
	}
}

func TestOlderResponseDoesNotReplaceANewerOne(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	newer := s.Commit(space, key(1), entry(t, now.Add(time.Second), nil), []byte("new"))
	if s.Commit(space, key(1), entry(t, now, nil), []byte("old")) != nil {
		t.Error("an older response was stored")
	}
	if s.Lookup(key(1), nil, now).Entry != newer {
		t.Error("the newer response is gone")
	}
}

func TestVariantsAreBoundedAndTheOldestGoes(t *testing.T) {
	s, space := newStore(t, 1<<20, 10<<20)
	request := func(i int) http.Header { return http.Header{"X-V": {fmt.Sprint(i)}} }
	for i := range MaxVariants + 5 {
		s.Commit(space, key(1), entry(t, now.Add(time.Duration(i)), request(i), "Vary", "X-V"), []byte(fmt.Sprint(i)))
	}
	for i := range MaxVariants + 5 {
		got := s.Lookup(key(1), request(i), now)
		if i < 5 {
			if got.Entry != nil || !got.Any {
				t.Errorf("variant %d: %+v", i, got)
			}
			continue
		}
		if body, err := s.Body(key(1), got.Entry); string(body) != fmt.Sprint(i) || err != nil {
			t.Errorf("variant %d: %q, %v", i, body, err)
		}
	}
	if n := space.Entries.Load(); n != MaxVariants {
		t.Errorf("%d entries counted", n)
	}
	if v := s.Lookup(key(1), nil, now).Vary; len(v) != 1 || v[0] != "X-V" {
		t.Errorf("vary %v", v)
	}
}

func TestDropSparesWhatTookItsPlace(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	old := s.Commit(space, key(1), entry(t, now, nil), []byte("a"))
	young := s.Commit(space, key(1), entry(t, now.Add(1), nil), []byte("b"))
	s.Drop(key(1), old)
	if s.Lookup(key(1), nil, now).Entry != young {
		t.Error("the newer entry is gone")
	}
	s.Drop(key(1), young)
	if s.Lookup(key(1), nil, now).Entry != nil {
		t.Error("the entry is still there")
	}
}

func TestUncacheableIsRememberedForAWhile(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	s.MarkUncacheable(space, key(1), rfc9111.Private, now.Add(time.Minute))
	if got := s.Lookup(key(1), nil, now); got.Uncacheable != rfc9111.Private {
		t.Errorf("%+v", got)
	}
	if got := s.Lookup(key(1), nil, now.Add(time.Minute)); got.Uncacheable != rfc9111.None {
		t.Errorf("after its time: %+v", got)
	}
	s.Commit(space, key(1), entry(t, now, nil), []byte("a"))
	if got := s.Lookup(key(1), nil, now); got.Uncacheable != rfc9111.None {
		t.Errorf("after a response was stored: %+v", got)
	}
	s.MarkUncacheable(space, key(1), rfc9111.Private, now.Add(time.Minute))
	if got := s.Lookup(key(1), nil, now); got.Uncacheable != rfc9111.None || got.Entry == nil {
		t.Errorf("a client's uncacheable response displaced a stored one: %+v", got)
	}
}

func TestIndexStaysWithinItsBudget(t *testing.T) {
	const budget = 3 << 20
	s, space := newStore(t, budget/2, budget/2)
	for i := range 10_000 {
		s.Commit(space, key(i), entry(t, now, nil, "X-Long", strings.Repeat("x", 200)), []byte("a"))
		s.LearnVary(space, key(-i), []string{"X-A"})
	}
	u := s.Usage()
	if u.IndexBytes > budget || u.IndexBytes < budget/2 {
		t.Errorf("%d bytes in an index of %d", u.IndexBytes, budget)
	}
	var cost, entries int64
	for i := range s.shards {
		for _, k := range s.shards[i].resources.keys() {
			r := s.shards[i].resources.get(k)
			cost += int64(r.cost)
			entries += int64(len(r.variants))
		}
	}
	if cost != u.IndexBytes || entries != space.Entries.Load() {
		t.Errorf("counted %d bytes, %d entries; are %d, %d", u.IndexBytes, space.Entries.Load(), cost, entries)
	}
}

func TestIndexTakesWhatBodiesLeave(t *testing.T) {
	const budget = 4 << 20
	s, space := newStore(t, budget/2, budget/2)
	small := func() {
		for i := range 10_000 {
			s.Commit(space, key(i), entry(t, now, nil), []byte("a"))
		}
	}
	small()
	alone := s.Usage().IndexBytes
	if alone < budget*3/4 {
		t.Errorf("small bodies take %d of %d", alone, budget)
	}
	bounded := func() {
		t.Helper()
		u := s.Usage()
		if all := u.IndexBytes + u.Main.Bytes + u.Hot.Bytes; all > budget+budget/32 || u.Main.Bytes < budget/3 {
			t.Errorf("%d in the index, %d of bodies: %d of %d", u.IndexBytes, u.Main.Bytes, all, budget)
		}
	}
	for i := range 60 { // which add nothing to the index
		s.PutChunk(key(i), 1, 1, make([]byte, 40_000), true)
	}
	bounded()
	for i := range 100 {
		s.Commit(space, key(-i), entry(t, now, nil), make([]byte, 40_000))
	}
	small()
	bounded()
}

func TestSmallBodyStaysWithItsEntry(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	first := s.Commit(space, key(1), entry(t, now, nil), []byte("small"))
	renewed := *first // as it comes from another node after a 304
	renewed.setTail("")
	renewed.Sent = now.Add(time.Second)
	s.PutEntry(space, key(1), &renewed)
	got := s.Lookup(key(1), nil, now).Entry
	if body, err := s.Body(key(1), got); got == first || string(body) != "small" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	other := renewed
	other.Generation++
	s.PutEntry(space, key(2), &renewed)
	s.PutEntry(space, key(1), &other)
	for _, k := range []Key{key(1), key(2)} {
		if body, err := s.Body(k, s.Lookup(k, nil, now).Entry); !errors.Is(err, ErrGone) {
			t.Errorf("a body that nobody has: %q, %v", body, err)
		}
	}
}

func TestAScanSparesWhatIsPopular(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	const popular = 100
	for i := range popular {
		s.Commit(space, key(i), entry(t, now, nil), []byte("a"))
	}
	for i := range 20_000 {
		if i%100 == 0 {
			for p := range popular {
				s.Lookup(key(p), nil, now)
			}
		}
		s.Commit(space, key(popular+i), entry(t, now, nil), []byte("a"))
	}
	left := 0
	for p := range popular {
		if s.Lookup(key(p), nil, now).Entry != nil {
			left++
		}
	}
	if left < popular*9/10 {
		t.Errorf("%d of %d popular entries are left after a scan", left, popular)
	}
}

// TestPopularIsAListOfItsOwn: what is neither popular nor there any more leaves it,
// even if nothing comes into the Group.
func TestPopularIsAListOfItsOwn(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<18)
	listed := func() (n int) {
		for i := range s.shards {
			n += len(s.shards[i].popular)
		}
		return n
	}
	found := func(i int) {
		known := s.Lookup(key(i), nil, now)
		s.Found(key(i), &known)
	}
	large := make([]byte, 1<<10)
	for i := range 100 {
		s.Commit(space, key(i), entry(t, now, nil), large[:100+924*(i%2)])
		if listed() != i/2 {
			t.Fatalf("%d listed after %d were asked for", listed(), i)
		}
		for range 3 {
			found(i)
		}
	}
	for i := range 100 {
		s.Drop(key(i), s.Lookup(key(i), nil, now).Entry)
	}
	for i := range int64(shardCount) {
		s.touchPopular(i)
	}
	if listed() != 0 {
		t.Errorf("%d listed that are gone", listed())
	}
	s.Commit(space, key(1), entry(t, now, nil), large)
	if found(1); listed() != 1 {
		t.Error("what has become popular again is not listed")
	}
	for i := range 10_000 { // whose bodies the Group had before
		e := entry(t, now, nil)
		e.Size, e.Generation = 1<<10, NewGeneration()
		s.PutCopy(space, key(i), e, nil)
		found(i)
	}
	if there := int(s.Usage().Resources); there > 2000 || listed() > 2*there+shardCount {
		t.Errorf("%d listed of %d", listed(), there)
	}
}

func TestBodyThatTheGroupEvictedIsGone(t *testing.T) {
	s, space := newStore(t, 100_000, 1<<20)
	e := s.Commit(space, key(1), entry(t, now, nil), make([]byte, 50_000))
	s.Commit(space, key(2), entry(t, now, nil), make([]byte, 60_000))
	if _, err := s.Body(key(1), e); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
	// It can be stored again, and counts once.
	s.Commit(space, key(1), e, make([]byte, 30_000))
	if u := s.Usage(); u.Main.Bytes > s.BodyLimit() || u.Main.Items != 2 {
		t.Errorf("%+v", u.Main)
	}
}

func TestHotCopiesAreTakenNowAndThen(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	const n = 500
	here, sent := 0, strings.Repeat("h", SmallBody+1)
	for i := range n {
		e := entry(t, now, nil)
		e.Size, e.Generation = int64(len(sent)), Generation(i+1)
		s.PutCopy(space, key(i), e, []byte(sent))
		got := s.Lookup(key(i), nil, now).Entry
		if got == nil {
			t.Fatalf("copy %d of an entry is not there", i)
		}
		if body, err := s.Body(key(i), got); err == nil {
			here++
			if string(body) != sent {
				t.Errorf("%q", body)
			}
		}
	}
	if here == 0 || here > n/4 {
		t.Errorf("%d of %d copies have a body, want about a tenth", here, n)
	}
	if u := s.Usage(); u.Main.Items != 0 || u.Hot.Items != int64(here) {
		t.Errorf("main %+v, hot %+v", u.Main, u.Hot)
	}
}

func TestOneBodyPutByManyCountsOnce(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	e := entry(t, now, nil)
	e.Size, e.Generation = 1000, 7
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 50 {
				s.PutCopy(space, key(1), e, make([]byte, 1000))
			}
		})
	}
	all.Wait()
	if u := s.Usage(); u.Hot.Items > 1 || u.Hot.Bytes > 1100 {
		t.Errorf("%+v", u.Hot)
	}
}

func TestClosedStoreLeavesItsGroupToTheNext(t *testing.T) {
	first := New(123_456, 1<<20)
	first.Commit(first.Namespace("a"), key(1), entry(t, now, nil), []byte("old"))
	first.Close()
	second := New(123_456, 1<<20)
	defer second.Close()
	if first.bodies != second.bodies {
		t.Error("a second Group was made")
	}
	if second.Lookup(key(1), nil, now).Entry != nil {
		t.Error("the new store has an entry of the old one")
	}
}

func TestEntryLimits(t *testing.T) {
	many := http.Header{}
	for i := range MaxFields + 1 {
		many.Add("X-A", fmt.Sprint(i))
	}
	names := make([]string, MaxVaryNames+1)
	for i := range names {
		names[i] = fmt.Sprintf("X-%d", i)
	}
	long := strings.Repeat("X", MaxFieldName)
	for name, h := range map[string]http.Header{
		"too many fields":     many,
		"too many with one":   {"X-A": many["X-A"][1:]}, // Content-Length, which is added
		"too long":            {"X-A": {strings.Repeat("x", MaxHeaderBytes-2)}},
		"too long with names": {long: slices.Repeat([]string{""}, MaxHeaderBytes/MaxFieldName), "X": {""}},
		"too long a name":     {long + "X": {""}},
		"too many Vary names": {"Vary": {strings.Join(names, ", ")}},
		"too long in Vary":    {"Vary": {long + "X"}},
	} {
		if e, why := NewEntry(200, h, nil, rfc9111.Freshness{}, now); e != nil || why != rfc9111.HeaderTooBig {
			t.Errorf("%s: %v", name, why)
		}
	}
	for name, h := range map[string]http.Header{
		"as many fields":  {"X-A": many["X-A"][2:], "Content-Length": {"0"}},
		"as many but one": {"X-A": many["X-A"][2:]},
		"as long":         {"X-A": {strings.Repeat("x", MaxHeaderBytes-3)}},
		"as long a name":  {long: {""}},
		"as many in Vary": {"Vary": {strings.Join(names[1:], ", ")}},
		"as long in Vary": {"Vary": {long}},
	} {
		if _, why := NewEntry(200, h, nil, rfc9111.Freshness{}, now); why != rfc9111.None {
			t.Errorf("%s as may be: %v", name, why)
		}
	}
	if _, why := NewEntry(200, http.Header{"Vary": {"A", "*"}}, nil, rfc9111.Freshness{}, now); why != rfc9111.VaryStar {
		t.Errorf("Vary *: %v", why)
	}
}

// TestContentLengthIsWrittenInOneWay: another node would not take an entry that says
// otherwise than its size.
func TestContentLengthIsWrittenInOneWay(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	for i, tt := range []struct {
		status, size int
		said, stored string
	}{
		{200, 5, "5", "5"}, {200, 5, "", "5"}, {200, 5, "0005", "5"},
		{204, 0, "", ""}, {204, 0, "0", "0"}, {204, 0, "00", "0"},
	} {
		fields := []string{"X-A", "a", "Content-Length", tt.said, "X-Z", "z"}
		if tt.said == "" {
			fields = slices.Delete(fields, 2, 4)
		}
		e := entry(t, now, nil, fields...)
		e.Status = tt.status
		stored := s.Commit(space, key(i), e, []byte("hello")[:tt.size])
		if stored.Get("Content-Length") != tt.stored || stored.Get("X-A")+stored.Get("X-Z") != "az" {
			t.Errorf("%d, %q: %q", tt.status, tt.said, stored.Get("Content-Length"))
		}
	}
}

func TestEntryHeaderIsWhatWasStored(t *testing.T) {
	h := http.Header{"B": {"2"}, "A": {"1", "1b"}, "Empty": {""}}
	e, _ := NewEntry(200, h, nil, rfc9111.Freshness{}, now)
	got := e.Header()
	if fmt.Sprint(got) != fmt.Sprint(h) {
		t.Errorf("got %v, want %v", got, h)
	}
	got["A"][0] = "changed"
	_ = append(got["A"], "more")
	if e.Get("A") != "1" || e.Header()["B"][0] != "2" {
		t.Error("the entry changed with the header")
	}
}

func TestSelectionsTellValuesApart(t *testing.T) {
	names := []string{"X-A", "X-B"}
	seen := map[Selection]http.Header{}
	for _, h := range []http.Header{
		{}, {"X-A": {""}}, {"X-A": {"1"}}, {"X-B": {"1"}}, {"X-A": {"1"}, "X-B": {"1"}}, {"X-A": {"11"}}, {"X-A": {"1"}, "X-B": {""}},
	} {
		s := Select(names, h)
		if other, dup := seen[s]; dup {
			t.Errorf("%v and %v are the same", h, other)
		}
		seen[s] = h
	}
}

func TestNamespacesAreBounded(t *testing.T) {
	s, _ := newStore(t, 1<<20, 1<<20)
	for i := range maxNamespaces * 2 {
		s.Namespace(fmt.Sprint(i))
	}
	if n := len(s.Namespaces()); n != maxNamespaces {
		t.Errorf("%d namespaces", n)
	}
	if s.Namespace("one more") != nil || s.Namespace("default") == nil {
		t.Error("wrong namespaces are left")
	}
}

func TestManyAtOnce(t *testing.T) {
	s, space := newStore(t, 1<<20, 1<<20)
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 2000 {
				k := key(i % 300)
				want := fmt.Appendf(nil, "body of %d", i%300)
				switch (i + g) % 4 {
				case 0:
					s.Commit(space, k, entry(t, now.Add(time.Duration(i)), nil), want)
				case 1:
					s.Drop(k, s.Lookup(k, nil, now).Entry)
				default:
					if e := s.Lookup(k, nil, now).Entry; e != nil {
						if got, err := s.Body(k, e); err == nil && !bytes.Equal(got, want) {
							t.Errorf("key %d has %q", i%300, got)
						}
					}
				}
			}
		})
	}
	all.Wait()
}

func TestPeersLeaveRoomForOwnNamespaces(t *testing.T) {
	s := New(1<<20, 1<<20)
	defer s.Close()
	for i := range 2 * maxNamespaces {
		s.NamespaceOfPeer(fmt.Sprint(i))
	}
	if n := len(s.Namespaces()); n != maxNamespaces/2 {
		t.Errorf("peers made %d namespaces", n)
	}
	if s.NamespaceOfPeer("7") == nil || s.NamespaceOfPeer("new") != nil || s.Namespace("new") == nil || s.NamespaceOfPeer("new") == nil {
		t.Error("what peers made is in the way")
	}
}

func TestCopiesMakeRoomForOwnEntries(t *testing.T) {
	const own, others = 1500, 20_000
	s, space := newStore(t, 1<<20, 1<<20)
	copyOf := func(n int) {
		e := entry(t, now, nil)
		e.Size, e.Digest, e.Generation = 1, Digest([]byte("c")), 1
		s.PutCopy(space, key(n), e, []byte("c"))
	}
	left := func(from, count int) (n int) {
		for i := range count {
			if s.Lookup(key(from+i), nil, now).Entry != nil {
				n++
			}
		}
		return n
	}
	for n := range others {
		copyOf(own + n)
	}
	if n := left(own, others); n < 3*own {
		t.Errorf("%d copies are kept where there is nothing else", n)
	}
	for n := range own {
		s.Commit(space, key(n), entry(t, now, nil), []byte("o"))
	}
	before := left(own, others)
	for n := range others {
		copyOf(own + n)
	}
	if n := left(0, own); n != own {
		t.Errorf("%d of %d own entries are left after copies came", n, own)
	}
	if n := left(own, others); n < before/2 {
		t.Errorf("%d copies are left of %d", n, before)
	}
	// A copy that this node comes to own is one no more.
	s.Commit(space, key(own+others), entry(t, now, nil), []byte("o"))
	s.PutCopy(space, key(own+others+1), entry(t, now, nil), nil)
	sh := s.shard(key(own + others + 1))
	r := sh.resources.get(key(own + others + 1))
	if sh.queueOf(r) != &sh.copies {
		t.Error("a copy is not among the copies")
	}
	s.Commit(space, key(own+others+1), entry(t, now.Add(time.Second), nil), []byte("o"))
	if sh.queueOf(r) != &sh.own {
		t.Error("what was a copy is not among this node's own")
	}
}
