package node

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

// HotKeys is a sketch of which keys are asked for most: Space-Saving (Metwally
// et al., 2005) over one in busySample requests, in windows, so that what was
// busy a while ago is forgotten. It takes the same memory whatever is asked for.
// The zero value is empty.
type HotKeys struct {
	// Whether URLs are kept too, and not just hashes of keys.
	Show atomic.Bool

	mu     sync.Mutex // guards below
	since  time.Time  // when now began
	Now    map[store.Key]*busyKey
	least  int64                  // of any key of now when one was replaced: counts only grow
	before map[store.Key]*busyKey // the window before
}

type busyKey struct {
	count  int64
	missed int64 // of these, what the cache had no answer for
	group  string
	url    string // "" unless show
}

const (
	hotSample = 16
	hotWindow = time.Minute
	maxHot    = 256 // in each window
	maxHotURL = 200
	hotShown  = 20
)

// Note counts a request, if it is one of the sample, and reports whether it is. urlOf makes the URL of one that
// is to be shown.
func (b *HotKeys) Note(group string, k store.Key, r *http.Request, urlOf func(*http.Request) string) (sampled bool) {
	if rand.Uint32()%hotSample == 0 {
		u := ""
		if b.Show.Load() {
			u = urlOf(r)
		}
		b.Count(group, k, u, time.Now())
		return true
	}
	return false
}

// Count counts a request, with the URL of its key if that may be shown, at a time.
func (b *HotKeys) Count(group string, k store.Key, u string, now time.Time) {
	if len(u) > maxHotURL {
		u = u[:maxHotURL] + "…"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turnLocked(now)
	one := b.Now[k]
	if one == nil {
		one = &busyKey{group: group}
		if len(b.Now) == maxHot {
			one.count = b.replaceLocked()
		}
		b.Now[k] = one
	}
	one.count++
	one.url = u
}

// Missed notes of a request of the sample that the cache has no answer for it.
func (b *HotKeys) Missed(k store.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one := b.Now[k]; one != nil {
		one.missed++
	}
}

// replaceLocked makes room, and returns the count that the new key inherits.
func (b *HotKeys) replaceLocked() int64 {
	var least store.Key
	count := int64(math.MaxInt64)
	for k, one := range b.Now {
		if one.count < count {
			least, count = k, one.count
		}
		if count <= b.least {
			break // there are mostly many such, and none with less
		}
	}
	delete(b.Now, least)
	b.least = count
	return count
}

func (b *HotKeys) turnLocked(now time.Time) {
	passed := now.Sub(b.since)
	if b.Now != nil && passed < hotWindow {
		return
	}
	b.before, b.Now, b.since, b.least = b.Now, make(map[store.Key]*busyKey), now, 0
	if passed >= 2*hotWindow {
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

	// How many of these the upstream was asked for, and why the last response was not
	// stored.
	MissesPerSecond float64 `json:"misses_per_second"`
	Reason          string  `json:"reason,omitempty"`
}

// Busiest returns the busiest keys, the busiest first, and those that the upstream is asked
// for most.
func (n *Node) Busiest(now time.Time) (busiest, missed []BusyKey) {
	all := n.HotKeys.top(now)
	for i := range all {
		if k, err := hex.DecodeString(all[i].Hash); err == nil && len(k) == len(store.Key{}) {
			if last, known := n.Rejections.Of(store.Key(k)); known {
				all[i].Reason = last.Why.String()
			}
		}
	}
	missed = slices.DeleteFunc(slices.Clone(all), func(k BusyKey) bool { return k.MissesPerSecond == 0 })
	slices.SortStableFunc(missed, func(a, b BusyKey) int { return cmp.Compare(b.MissesPerSecond, a.MissesPerSecond) })
	return all[:min(len(all), hotShown)], missed[:min(len(missed), hotShown)]
}

// top returns the keys that were counted, the busiest first.
func (b *HotKeys) top(now time.Time) []BusyKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turnLocked(now)
	span := max(now.Sub(b.since), time.Second)
	if b.before != nil {
		span += hotWindow
	}
	sums := make(map[store.Key]busyKey, len(b.Now))
	for _, window := range []map[store.Key]*busyKey{b.before, b.Now} {
		for k, one := range window {
			sum := sums[k]
			sums[k] = busyKey{sum.count + one.count, sum.missed + one.missed, one.group, one.url}
		}
	}
	all := make([]BusyKey, 0, len(sums))
	for k, sum := range sums {
		if !b.Show.Load() { // any more: a reload may have switched it off
			sum.url = ""
		}
		all = append(all, BusyKey{
			Hash: hex.EncodeToString(k[:]), URL: sum.url, Group: sum.group,
			PerSecond: float64(sum.count*hotSample) / span.Seconds(), MissesPerSecond: float64(sum.missed*hotSample) / span.Seconds(),
		})
	}
	slices.SortFunc(all, func(a, b BusyKey) int {
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(a.Hash, b.Hash))
	})
	return all
}
