//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestTruncatedResponseIsNeverStored(t *testing.T) {
	const size = 1000
	body := strings.Repeat("b", size)
	var broken, begun sync.Map // by path: what has been cut off; what the test wants to wait for
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if strings.HasPrefix(r.URL.Path, "/length") {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		if _, again := broken.LoadOrStore(r.URL.Path, true); again {
			io.WriteString(w, body)
			return
		}
		io.WriteString(w, body[:size/2])
		w.(http.Flusher).Flush()
		if g, ok := begun.Load(r.URL.Path); ok {
			g.(gate).wait(r)
		}
		panic(http.ErrAbortHandler)
	})
	c := startCluster(t, 3, o, patient)
	for i, p := range c {
		for _, kind := range []string{"/length/", "/chunked/"} {
			path := kind + p.name
			// Whole only if the node's transport has asked again by itself.
			if a := p.get(path); a.err == nil && a.body != body {
				t.Errorf("%s: got %d bytes as if they were all (%s)", path, len(a.body), a.cacheStatus())
			}
			next := c[(i+1)%3]
			a := next.get(path)
			a.is(t, path+", the next one", body)
			figure(t, path+", the next one", a.took, 100*time.Millisecond, 5*time.Second)
			// Its client may have it before the owner has.
			eventually(t, path+" is cached", func() bool {
				a := c[(i+2)%3].get(path)
				a.is(t, path+", later", body)
				return a.hit()
			})
			if n := o.fetches(path); n > 3 {
				t.Errorf("%s: %d fetches", path, n)
			}
		}
	}
	// Those who read along get all of it, or an error, but no wrong end.
	for _, kind := range []string{"/length/", "/chunked/"} {
		const readers = 30
		path := kind + "followed"
		g := make(gate)
		begun.Store(path, g)
		var reading atomic.Int32
		var wg sync.WaitGroup
		var whole atomic.Int32
		for i := range readers {
			wg.Go(func() {
				a := do(c[i%3].request(http.MethodGet, path, nil), func() { reading.Add(1) })
				switch {
				case a.err == nil && a.body != body:
					t.Errorf("%s: got %d bytes as if they were all (%s)", path, len(a.body), a.cacheStatus())
				case a.err == nil:
					whole.Add(1)
				}
			})
		}
		eventually(t, "all read along", func() bool { return reading.Load() == readers })
		g.open()
		wg.Wait()
		t.Logf("%s: %d of %d readers got a whole body from %d fetches", path, whole.Load(), readers, o.fetches(path))
		if whole.Load() < readers-1 {
			t.Errorf("%s: only %d of %d readers got a whole body", path, whole.Load(), readers)
		}
		c[0].get(path).is(t, path, body)
		c[1].get(path).is(t, path, body)
	}
	c.awaitIdle()
}

func TestHugeBodyStreamsThrough(t *testing.T) {
	const size, readers = 64 << 20, 4
	var reading atomic.Int32
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		io.WriteString(w, "begin")
		w.(http.Flusher).Flush()
		for r.URL.Path == "/followed" && reading.Load() < readers && r.Context().Err() == nil {
			time.Sleep(poll)
		}
		pattern(w, size-5)
	})
	want := sha256.New()
	io.WriteString(want, "begin")
	pattern(want, size-5)
	c := startCluster(t, 3, o, "")
	fetch := func(p *process, path string) (sum hash.Hash, first time.Duration, err error) {
		start := time.Now()
		resp, err := client.Do(p.request(http.MethodGet, path, nil))
		if err != nil {
			return nil, 0, err
		}
		defer resp.Body.Close()
		sum = sha256.New()
		begin := make([]byte, 1)
		if _, err = io.ReadFull(resp.Body, begin); err != nil {
			return nil, 0, err
		}
		sum.Write(begin)
		first = time.Since(start)
		reading.Add(1)
		_, err = io.Copy(sum, resp.Body)
		return sum, first, err
	}
	check := func(what string, sum hash.Hash, first time.Duration, err error) {
		switch {
		case err != nil:
			t.Errorf("%s: %v", what, err)
			return
		case !bytes.Equal(sum.Sum(nil), want.Sum(nil)):
			t.Errorf("%s: another body", what)
		}
		figure(t, what+": first byte", first, 500*time.Millisecond, 2*time.Second)
	}
	limit := int64(64)
	if raceEnabled() { // it takes several bytes of its own for each
		limit *= 3
	}
	for _, path := range []string{"/length", "/chunked"} {
		for _, p := range c {
			before := p.memory()
			sum, first, err := fetch(p, path)
			check(path+" on "+p.name, sum, first, err)
			figure(t, path+" on "+p.name+": MiB of memory", (p.memory()-before)>>20, 64, limit)
		}
	}
	reading.Store(0)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			sum, first, err := fetch(c[i%3], "/followed")
			check(fmt.Sprintf("/followed by %d", i), sum, first, err)
		})
	}
	wg.Wait()
	t.Logf("%d fetches for %d readers", o.fetches("/followed"), readers)
	for _, p := range c {
		t.Logf("%s: memory at its peak: %d MiB", p.name, p.memory()>>20)
	}
	c.awaitIdle()
}
