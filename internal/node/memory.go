package node

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// Memory that was counted a moment ago stays until it is collected, and what comes in
// during a collection counts as live until the next: when large bodies come in fast, the
// heap grows to much more than twice what is counted. So Go's soft limit of memory is
// brought down to what the process is to take at most; the collector then runs more
// often, and has those who allocate help, when that is near.

const (
	// besideGo is what a process takes that no limit of Go's knows: the pages of its
	// program, and what the collector is late with.
	besideGo = 72 << 20

	memoryEvery = time.Second
	memoryStep  = 16 << 20 // a limit is set anew, which stops all goroutines for a moment, if it changes by so much
)

// firstLimit is the limit before any node changed it. Caddy sets one at its start, by the
// memory of the machine or container.
var firstLimit = sync.OnceValue(func() int64 { return debug.SetMemoryLimit(-1) })

// KeepMemory keeps the process below 2 × cacheSize + 128 MiB until ctx ends, as far as
// it is the cache that takes it. beside is what it takes now that Go does not know of. An
// operator's GOMEMLIMIT stands.
func KeepMemory(ctx context.Context, cacheSize int64, beside func() int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	was := firstLimit()
	defer debug.SetMemoryLimit(was)
	set := was
	ticks := time.NewTicker(memoryEvery)
	defer ticks.Stop()
	for {
		live, other := memoryInUse()
		unknown := beside()
		if limit := memoryLimit(2*cacheSize+128<<20-besideGo-unknown, was-unknown, live, other); limit/memoryStep != set/memoryStep {
			debug.SetMemoryLimit(limit)
			set = limit
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// memoryLimit returns the limit to be set where wanted is that of the cache, and most the
// one that is not to be exceeded in any case. live is what the last collection left, and
// other what Go takes beside the heap. Other modules may need more than the cache does: a
// limit that leaves no room for garbage would have the collector run all the time.
func memoryLimit(wanted, most, live, other int64) int64 {
	if live > wanted {
		return most // it is not the cache
	}
	return min(most, max(wanted, live+live/2+other))
}

// memoryInUse returns how much of the heap the last collection has left, and what Go has
// from the system beside the heap.
func memoryInUse() (live, other int64) {
	all := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(all)
	bytes := func(i int) int64 { return int64(min(all[i].Value.Uint64(), math.MaxInt64)) }
	return bytes(0), max(bytes(1)-bytes(2)-bytes(3)-bytes(4)-bytes(5), 0)
}
