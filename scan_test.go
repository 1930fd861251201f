package caddygroupcache

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

// TestScanLeavesTheHotSet: one-off URLs, many times what the cache holds, don't
// throw out what is asked for now and then, be it in the Group or in the index.
func TestScanLeavesTheHotSet(t *testing.T) {
	if raceDetector {
		t.Skip("60,000 requests one after the other: the race detector has nothing to find in them")
	}
	for _, size := range []int{100, 4 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			const hot, scan, between = 500, 30_000, 16
			n := node.New("alone", 16<<20)
			t.Cleanup(n.Close)
			h := newHandler(t, n, nil)
			var calls atomic.Int64
			up := fixed(&calls, string(make([]byte, size)), "Cache-Control", "max-age=60")
			for i := range 2 * hot {
				do(h, up, request(t.Context(), fmt.Sprintf("/hot/%d", i%hot)))
			}
			calls.Store(0)
			for i := range scan {
				do(h, up, request(t.Context(), fmt.Sprintf("/scan/%d", i)))
				if i%between == 0 {
					do(h, up, request(t.Context(), fmt.Sprintf("/hot/%d", i/between%hot)))
				}
			}
			if again := calls.Load() - scan; again > hot/100 {
				t.Errorf("%d fetches of what is hot", again)
			}
			if usage := n.Store.Usage(); usage.Main.Evictions+usage.IndexEvicted < scan/4 {
				t.Errorf("the scan has thrown out little: %+v", usage)
			}
		})
	}
}
