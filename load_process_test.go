//go:build unix

package caddygroupcache_test

import (
	"flag"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var loadTime = flag.Duration("load-time", 3*time.Second, "for how long TestStalePageUnderLoad asks each site")

// TestStalePageUnderLoad: what frameworks send for a page, with an upstream that takes its
// time, and with one that hangs after its first answer.
func TestStalePageUnderLoad(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("refreshed, nodes: %d", nodes), func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(300 * time.Millisecond)
				w.Header().Set("Cache-Control", "s-maxage=1, stale-while-revalidate=60")
				fmt.Fprint(w, "page")
			})
			c := startCluster(t, nodes, o, "")
			slowest := loadOf(t, c)
			figure(t, "the slowest request but the first", slowest, 100*time.Millisecond, 2*time.Second)
			figure(t, "requests to the upstream", int64(o.fetches("/page")), int64(*loadTime/time.Second)+1, int64(*loadTime/time.Second)+1)
		})
		t.Run(fmt.Sprintf("hanging, nodes: %d", nodes), func(t *testing.T) {
			var hangs atomic.Bool
			over := make(chan struct{})
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if hangs.Load() {
					select {
					case <-r.Context().Done():
					case <-over:
					}
				}
				w.Header().Set("Cache-Control", "max-age=60, stale-if-error=600")
				w.Header().Set("Age", "59")
				fmt.Fprint(w, "page")
			})
			defer close(over)
			c := startCluster(t, nodes, o, "stale after 200ms")
			c[0].get("/page").is(t, "at first", "page")
			hangs.Store(true)
			awaitExpiry(t, time.Now())
			before := o.fetches("/page")
			slowest := loadOf(t, c)
			figure(t, "the slowest request", slowest, 300*time.Millisecond, 2*time.Second)
			figure(t, "requests to the upstream", int64(o.fetches("/page")-before), int64(*loadTime/time.Second), int64(*loadTime/time.Second))
		})
	}
}

// loadOf asks all nodes for a page, with some clients each, and returns how long the
// slowest request took but the first.
func loadOf(t *testing.T, c cluster) (slowest time.Duration) {
	t.Helper()
	c[0].get("/page").is(t, "the first", "page")
	var most atomic.Int64
	var asked atomic.Int64
	var all sync.WaitGroup
	for i := range 4 * len(c) {
		all.Go(func() {
			for begin := time.Now(); time.Since(begin) < *loadTime; {
				a := c[i%len(c)].get("/page")
				if a.is(t, c[i%len(c)].name, "page"); !a.hit() {
					t.Errorf("%s waited: %s", c[i%len(c)].name, a.cacheStatus())
				}
				asked.Add(1)
				for was := most.Load(); int64(a.took) > was && !most.CompareAndSwap(was, int64(a.took)); was = most.Load() {
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d requests", asked.Load())
	return time.Duration(most.Load())
}
