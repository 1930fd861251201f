package store

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// withVariants returns a store with some variants of one key, each in gzip and in
// German, for clients that also take something made up.
func withVariants(t testing.TB, k Key, count int) *Store {
	t.Helper()
	s, space := newStore(t, 1<<20, 1<<20)
	for i := range count {
		header := http.Header{"Vary": {"Accept-Encoding, Accept-Language"}, "Content-Encoding": {"gzip"}, "Content-Language": {"de"}}
		request := http.Header{"Accept-Encoding": {fmt.Sprint("gzip, x", i)}, "Accept-Language": {fmt.Sprint("de, x", i)}}
		e, why := NewEntry(200, header, request, rfc9111.Freshness{Lifetime: time.Hour, Received: time.Now()}, time.Now())
		if why != rfc9111.None {
			t.Fatal(why)
		}
		s.Commit(space, k, e, []byte("x"))
	}
	return s
}

// longFields are requests with as much in the negotiated fields as Caddy's default
// read buffers take in one go, and one as browsers send it.
var longFields = map[string]http.Header{
	"plain":     {"Accept-Encoding": {"gzip, deflate, br, zstd"}, "Accept-Language": {"en-GB,en;q=0.5"}},
	"encodings": {"Accept-Encoding": {strings.Repeat("a;q=0.5, ", 15<<10/9)}, "Accept-Language": {"en"}},
	"languages": {"Accept-Encoding": {"br"}, "Accept-Language": {strings.Repeat("a;q=0.5, ", 15<<10/9)}},
	"members":   {"Accept-Encoding": {"gzip, " + strings.Repeat("a,", 60)}, "Accept-Language": {strings.Repeat("a,", 60)}},
	"quotes":    {"Accept-Encoding": {strings.Repeat(`"a" ,`, 3<<10)}, "Accept-Language": {strings.Repeat(`"`, 15<<10)}},
}

// TestWorkDoesNotGrowWithVariants counts allocations: a request's fields are
// brought to their normal form once.
func TestWorkDoesNotGrowWithVariants(t *testing.T) {
	k := Key{1}
	one, many := withVariants(t, k, 1), withVariants(t, k, MaxVariants)
	for name, request := range longFields {
		t.Run(name, func(t *testing.T) {
			allocs := func(s *Store) float64 {
				return testing.AllocsPerRun(20, func() { s.Lookup(k, request, time.Now()) })
			}
			if few, all := allocs(one), allocs(many); all > few {
				t.Errorf("%v allocations with one variant, %v with %d", few, all, MaxVariants)
			}
		})
	}
}

// TestLongFieldsAreTakenAsTheyCame, and are still told apart.
func TestLongFieldsAreTakenAsTheyCame(t *testing.T) {
	names := []string{"Accept-Encoding"}
	selected := func(value string) Selection { return computeSelection(names, http.Header{"Accept-Encoding": {value}}) }
	short, long := strings.Repeat("a,", 50), strings.Repeat("a,", rfc9111.MaxNormalized/2)
	if selected(short+"b") != selected("b,"+short[:len(short)-1]) {
		t.Error("the order of a few codings counts")
	}
	if selected(long+"b") == selected("b,"+long[:len(long)-1]) {
		t.Error("many codings were sorted")
	}
	if selected(long+"b") == selected(long+"c") {
		t.Error("two values select the same")
	}
}

func BenchmarkLookupLongFields(b *testing.B) {
	k := Key{1}
	s := withVariants(b, k, MaxVariants)
	for name, request := range longFields {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Lookup(k, request, time.Now())
			}
		})
	}
}

// TestVariantInUseStays, however many others are made up, and asked for again.
func TestVariantInUseStays(t *testing.T) {
	for _, again := range []int{0, 1} {
		t.Run(fmt.Sprint("asked for again ", again), func(t *testing.T) {
			s, space := newStore(t, 1<<20, 1<<20)
			put := func(value string) {
				s.Commit(space, key(1), entry(t, now, http.Header{"X-A": {value}}, "Vary", "X-A"), []byte("a"))
			}
			hit := func(value string) bool { return s.Lookup(key(1), http.Header{"X-A": {value}}, now).Entry != nil }
			put("in use")
			for i := range 10 * MaxVariants {
				put(fmt.Sprint(i))
				for range again {
					hit(fmt.Sprint(i))
				}
				if !hit("in use") {
					t.Fatalf("the variant in use is gone after %d others", i+1)
				}
			}
			if n := space.Entries.Load(); n != MaxVariants {
				t.Errorf("%d variants", n)
			}
		})
	}
}
