package node

import (
	"context"
	"math"
	"runtime/debug"
	"testing"
	"time"
)

// TestMemoryLimitLeavesRoomForOthers: the collector is not to run all the time because
// other modules take more than the cache.
func TestMemoryLimitLeavesRoomForOthers(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct{ wanted, most, live, other, want int64 }{
		{184 * mib, math.MaxInt64, 80 * mib, 10 * mib, 184 * mib},
		{184 * mib, math.MaxInt64, 120 * mib, 100 * mib, 280 * mib},    // the stacks of many connections
		{184 * mib, math.MaxInt64, 160 * mib, 10 * mib, 250 * mib},     // another module
		{184 * mib, math.MaxInt64, 500 * mib, 10 * mib, math.MaxInt64}, // one that needs much more
		{184 * mib, 100 * mib, 80 * mib, 10 * mib, 100 * mib},          // the container has no more
		{184 * mib, 100 * mib, 500 * mib, 10 * mib, 100 * mib},
	} {
		if got := memoryLimit(test.wanted, test.most, test.live, test.other); got != test.want {
			t.Errorf("%+v: %d MiB", test, got/mib)
		}
	}
}

// TestMemoryLimitEndsWithTheNode, and one that an operator has set stands.
func TestMemoryLimitEndsWithTheNode(t *testing.T) {
	for _, own := range []string{"", "5GiB"} {
		t.Run(own, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", own)
			was := debug.SetMemoryLimit(-1)
			ctx, end := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				KeepMemory(ctx, 1<<30, func() int64 { return 0 })
			}()
			if own == "" {
				for until := time.Now().Add(30 * time.Second); debug.SetMemoryLimit(-1) == was; time.Sleep(time.Millisecond) {
					if time.Now().After(until) {
						t.Fatal("no limit is set")
					}
				}
				end()
			}
			<-ended
			end()
			if now := debug.SetMemoryLimit(-1); now != was {
				t.Errorf("%d, was %d", now, was)
			}
		})
	}
}
