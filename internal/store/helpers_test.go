package store

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func key(n int) (k Key) {
	// Spread over the shards as SHA-256 would.
	binary.LittleEndian.PutUint64(k[:], uint64(n)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(k[8:], uint64(n))
	return k
}

func entry(t testing.TB, sent time.Time, request http.Header, fields ...string) *Entry {
	t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
	e, why := NewEntry(200, h, request, rfc9111.Freshness{Received: sent, Lifetime: time.Minute}, sent)
	if why != rfc9111.None {
		t.Fatal(why)
	}
	return e
}

func newStore(t testing.TB, bodies, index int64) (*Store, *Namespace) {
	s := New(bodies+groupsMade.Add(1), index)
	t.Cleanup(s.Close)
	return s, s.Namespace("default")
}

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

// crowd has the store drop records that are young.
func (p purgeTest) crowd(kind Kind, n int) {
	for i := range n {
		p.Purge(Purge{Selectors: []Selector{{kind, fmt.Sprint("http://other.test/", i)}}})
	}
	synctest.Wait()
}

// groupsMade makes every test's size its own: a closed store's Group, full of
// bodies, goes to the next store of its size.
var groupsMade atomic.Int64
