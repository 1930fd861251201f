//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestStaleIsServedWhileOneRefreshRuns(t *testing.T) {
	const seconds, rate, delay, fresh = 5, 200, time.Second, 2 * time.Second
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		w.Header().Set("Cache-Control", "max-age=2, stale-while-revalidate=30")
		io.WriteString(w, "body")
	})
	c := startCluster(t, 3, o, patient)
	c[0].get("/swr").is(t, "the first", "body")
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	start := time.Now()
	answers := together(seconds*rate, seconds*rate, func(i int) answer {
		<-tick.C
		return c[i%3].get("/swr")
	})
	var slowest time.Duration
	for i, a := range answers {
		a.is(t, fmt.Sprintf("request %d", i), "body")
		slowest = max(slowest, a.took)
	}
	figure(t, "the slowest request after the first", slowest, 50*time.Millisecond, delay)
	// The first, and one for each time that it has become stale: the age of a
	// response counts from its request. A busy machine takes more than 5 s for all.
	most := 3 + int64(time.Since(start)/fresh)
	figure(t, "fetches", int64(o.fetches("")), most, most)
}
