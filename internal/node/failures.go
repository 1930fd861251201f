package node

import (
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

const (
	// failureFor is how long the upstream is not asked again for a key for which it has
	// failed, if what is stored may stand in.
	failureFor = time.Second

	// maxFailures bounds the keys that are remembered: about 500 KiB at worst.
	maxFailures = 8192
)

// failures are the keys for which the upstream has failed within the last second, as far
// as this node knows. The zero value has none.
type failures struct {
	mu    sync.Mutex // guards below
	until map[store.Key]time.Time
}

// Note remembers that the upstream has just failed for a key.
func (f *failures) Note(k store.Key, now time.Time) { f.note(k, now, failureFor) }

// note remembers a failure for as long as another node says, a second at most.
func (f *failures) note(k store.Key, now time.Time, rest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until == nil || len(f.until) >= maxFailures { // those that are dropped cost one request each
		f.until = make(map[store.Key]time.Time)
	}
	f.until[k] = now.Add(min(rest, failureFor))
}

// rest returns for how long a failure still counts; 0: there was none lately.
func (f *failures) rest(k store.Key, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	until, noted := f.until[k]
	if noted && !now.Before(until) {
		delete(f.until, k)
	}
	return max(until.Sub(now), 0)
}

// Lately reports whether the upstream has failed for a key within the last second.
func (f *failures) Lately(k store.Key, now time.Time) bool { return f.rest(k, now) > 0 }
