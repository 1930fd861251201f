package caddygroupcache

import (
	"cmp"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// busyKeys is a sketch of which keys are asked for most: Space-Saving (Metwally
// et al., 2005) over one in busySample requests, in windows, so that what was
// busy a while ago is forgotten. It takes the same memory whatever is asked for.
// The zero value is empty.
type busyKeys struct {
	// Whether URLs are kept too, and not just hashes of keys.
	show atomic.Bool

	mu     sync.Mutex // guards below
	since  time.Time  // when now began
	now    map[store.Key]*busyKey
	least  int64                  // of any key of now when one was replaced: counts only grow
	before map[store.Key]*busyKey // the window before
}

type busyKey struct {
	count int64
	group string
	url   string // "" unless show
}

const (
	busySample = 16
	busyWindow = time.Minute
	maxBusy    = 256 // in each window
	maxBusyURL = 200
	busyShown  = 20
)

// note counts a request, if it is one of the sample.
func (b *busyKeys) note(h *Handler, r *http.Request, k store.Key) {
	if rand.Uint32()%busySample == 0 {
		b.count(h.Group, r, k, time.Now())
	}
}

func (b *busyKeys) count(group string, r *http.Request, k store.Key, now time.Time) {
	u := ""
	if b.show.Load() {
		if u = urlOf(r); len(u) > maxBusyURL {
			u = u[:maxBusyURL] + "…"
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turnLocked(now)
	one := b.now[k]
	if one == nil {
		one = &busyKey{group: group}
		if len(b.now) == maxBusy {
			one.count = b.replaceLocked()
		}
		b.now[k] = one
	}
	one.count++
	one.url = u
}

// replaceLocked makes room, and returns the count that the new key inherits.
func (b *busyKeys) replaceLocked() int64 {
	var least store.Key
	count := int64(math.MaxInt64)
	for k, one := range b.now {
		if one.count < count {
			least, count = k, one.count
		}
		if count <= b.least {
			break // there are mostly many such, and none with less
		}
	}
	delete(b.now, least)
	b.least = count
	return count
}

func (b *busyKeys) turnLocked(now time.Time) {
	passed := now.Sub(b.since)
	if b.now != nil && passed < busyWindow {
		return
	}
	b.before, b.now, b.since, b.least = b.now, make(map[store.Key]*busyKey), now, 0
	if passed >= 2*busyWindow {
		b.before = nil
	}
}

// BusyKey is a key that is asked for often.
type BusyKey struct {
	// The key's hash, as explain has it, and the URL where show_keys is on.
	Hash string `json:"hash"`
	URL  string `json:"url,omitempty"`

	// The group of its handlers.
	Group string `json:"group"`

	// About how many requests a second there were in the last minute or two.
	PerSecond float64 `json:"per_second"`
}

// top returns the busiest keys, the busiest first.
func (b *busyKeys) top(now time.Time) []BusyKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turnLocked(now)
	span := max(now.Sub(b.since), time.Second)
	if b.before != nil {
		span += busyWindow
	}
	sums := make(map[store.Key]busyKey, len(b.now))
	for _, window := range []map[store.Key]*busyKey{b.before, b.now} {
		for k, one := range window {
			sum := sums[k]
			sums[k] = busyKey{sum.count + one.count, one.group, one.url}
		}
	}
	all := make([]BusyKey, 0, len(sums))
	for k, sum := range sums {
		all = append(all, BusyKey{
			Hash: hex.EncodeToString(k[:]), URL: sum.url, Group: sum.group,
			PerSecond: float64(sum.count*busySample) / span.Seconds(),
		})
	}
	slices.SortFunc(all, func(a, b BusyKey) int {
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(a.Hash, b.Hash))
	})
	return all[:min(len(all), busyShown)]
}
