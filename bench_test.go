package caddygroupcache

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// nullWriter is a client's writer that keeps nothing.
type nullWriter struct {
	header http.Header
	n      int
}

func (w *nullWriter) Header() http.Header { return w.header }
func (w *nullWriter) WriteHeader(int)     {}
func (w *nullWriter) Write(p []byte) (int, error) {
	w.n += len(p)
	return len(p), nil
}

func benchmark(b *testing.B, h *Handler, up caddyhttp.Handler, target func(i int) string, size int) {
	w := &nullWriter{header: make(http.Header, 16)}
	r := request(b.Context(), target(0), "Accept", "*/*", "Accept-Encoding", "gzip", "User-Agent", "benchmark")
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.RequestURI = target(i)
		clear(w.header)
		*replacer(r) = *caddy.NewReplacer() // each request has its own
		replacer(r).Map(noPlaceholder)      // and that of Caddy's HTTP server besides
		w.n = 0
		if err := h.ServeHTTP(w, r, up); err != nil || w.n != size {
			b.Fatalf("%d bytes, %v", w.n, err)
		}
	}
}

var sizes = []int{1 << 10, 10 << 10, 1 << 20}

func BenchmarkLocalHit(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			h := newHandler(b, node.New("alone", 64<<20), nil)
			benchmark(b, h, typical(size), func(int) string { return "/a" }, size)
		})
	}
}

// BenchmarkLongFields is a hit, without the HTTP server around it, of a response
// with as many variants as there may be, for a request with 15 KB in a field that it
// varies by, and how much longer that takes than for a browser's request. Both take
// turns.
func BenchmarkLongFields(b *testing.B) {
	up := fixed(new(atomic.Int64), strings.Repeat("x", 1<<10), "Cache-Control", "max-age=3600", "Vary", "Accept-Encoding, Accept-Language")
	for _, name := range []string{"Accept-Encoding", "Accept-Language"} {
		b.Run(name, func(b *testing.B) {
			h := newHandler(b, node.New("alone", 64<<20), nil)
			w := &nullWriter{header: make(http.Header, 16)}
			hits := func(value string) (each time.Duration) {
				r := request(b.Context(), "/", name, value)
				start := time.Now()
				for range 100 {
					clear(w.header)
					if err := h.ServeHTTP(w, r, up); err != nil {
						b.Fatal(err)
					}
				}
				return time.Since(start) / 100
			}
			long := strings.Repeat("a;q=0.5, ", 15<<10/9)
			for i := range store.MaxVariants {
				hits("x" + strconv.Itoa(i))
			}
			var plain, hostile []time.Duration
			for b.Loop() {
				plain, hostile = append(plain, hits("x")), append(hostile, hits(long))
			}
			b.ReportMetric(float64(middle(plain)), "ns/hit")
			b.ReportMetric(float64(middle(hostile)), "ns/hit-long")
			b.ReportMetric(float64(middle(hostile))/float64(middle(plain)), "ratio")
		})
	}
}

// BenchmarkHitDuringPurges is a hit, without the HTTP server around it, while
// 10,000 purges of single tags a second come in, and what it is without them.
// Both take turns, so that a machine which has other work too slows both.
func BenchmarkHitDuringPurges(b *testing.B) {
	h := newHandler(b, node.New("alone", 64<<20), nil)
	up := typical(10 << 10)
	r := request(b.Context(), "/", "Accept-Encoding", "gzip")
	w := &nullWriter{header: make(http.Header, 16)}
	n := 0
	hits := func() (each time.Duration) {
		start := time.Now()
		for range 20_000 {
			n++
			r.RequestURI = "/" + strconv.Itoa(n%1000)
			clear(w.header)
			if err := h.ServeHTTP(w, r, up); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start) / 20_000
	}
	hits()
	purged := 0
	purge := func() {
		for range 10 {
			purged++
			node.Owner{Node: h.node}.Purge([]store.Purge{{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.Tag, Value: "deploy" + strconv.Itoa(purged)}}}}, nil)
		}
	}
	var quiet, purging []time.Duration
	for b.Loop() {
		quiet = append(quiet, hits())
		stop := every(time.Millisecond, purge)
		purging = append(purging, hits())
		stop()
	}
	without, with := middle(quiet), middle(purging)
	b.ReportMetric(float64(without), "ns/hit")
	b.ReportMetric(float64(with), "ns/hit-purging")
	b.ReportMetric(float64(with)/float64(without), "ratio")
}

// every calls f again and again, until it is stopped.
func every(d time.Duration, f func()) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticks := time.NewTicker(d)
		defer ticks.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticks.C:
				f()
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// What the owner sends a node for a request of its client, without a secret in
// plaintext, with one over mutual TLS; one client at a time, and as many as keep
// all processors busy.
func BenchmarkRemoteHit(b *testing.B) {
	for _, secured := range []string{"plain", "secret"} {
		for _, size := range sizes {
			b.Run(fmt.Sprintf("%s/%dKiB", secured, size>>10), func(b *testing.B) {
				c := newCluster(b, 2)
				if secured == "secret" {
					c.secure(b)
				}
				hit := c.remoteHits(b, 1, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					hit[0]()
				}
			})
			b.Run(fmt.Sprintf("%s/%dKiB/parallel", secured, size>>10), func(b *testing.B) {
				c := newCluster(b, 2)
				if secured == "secret" {
					c.secure(b)
				}
				const clients = 4
				hits := c.remoteHits(b, clients*runtime.GOMAXPROCS(0), size)
				var next atomic.Int64
				b.SetBytes(int64(size))
				b.SetParallelism(clients)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					hit := hits[next.Add(1)-1]
					for pb.Next() {
						hit()
					}
				})
			})
		}
	}
}

// secure gives all nodes one secret.
func (c *testCluster) secure(t testing.TB) {
	t.Helper()
	for _, n := range c.nodes {
		if err := n.Identity.SetSecrets([]peer.Secret{{ID: "s", Seed: make([]byte, 32)}}); err != nil {
			t.Fatal(err)
		}
	}
}

// remoteHits stores pages at the first node, and returns a function for each
// that has the second node bring it.
func (c *testCluster) remoteHits(b *testing.B, pages, size int) []func() {
	n, h := c.nodes[1], c.handlers[1]
	up := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		return errors.New("it was fetched, not brought")
	})
	var hits []func()
	for i := 0; len(hits) < pages; i++ {
		target := "/" + strconv.Itoa(i)
		r := request(b.Context(), target, "Accept-Encoding", "gzip")
		k, _ := keyOf(h, r)
		if owner, _ := n.Ring.Load().Owner(k); owner.Name != c.nodes[0].Name {
			continue
		}
		do(c.handlers[0], typical(size), request(b.Context(), target, "Accept-Encoding", "gzip"))
		w := &nullWriter{header: make(http.Header, 16)}
		hits = append(hits, func() {
			n.Store.Drop(k, n.Store.Lookup(k, r.Header, time.Now()).Entry) // or else the copy here would do
			clear(w.header)
			w.n = 0
			if err := h.ServeHTTP(w, r, up); err != nil || w.n != size {
				b.Errorf("%d bytes, %v", w.n, err)
			}
		})
	}
	return hits
}

func BenchmarkMiss(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			h := newHandler(b, node.New("alone", 64<<20), nil)
			benchmark(b, h, typical(size), func(i int) string { return "/" + strconv.Itoa(i) }, size)
		})
	}
}

func BenchmarkPassThrough(b *testing.B) {
	h := newHandler(b, node.New("alone", 64<<20), nil)
	up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Cache-Control", "private")
		_, err := w.Write(make([]byte, 1024))
		return err
	})
	benchmark(b, h, up, func(int) string { return "/a" }, 1024)
}

// A hit must not cost more the larger its body is, and not much at all.
func TestLocalHitAllocations(t *testing.T) {
	for _, size := range sizes {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := typical(size)
		counted := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			calls.Add(1)
			return up(w, r)
		})
		r := request(t.Context(), "/a", "Accept-Encoding", "gzip")
		w := &nullWriter{header: make(http.Header, 16)}
		// The miss is no hit, and few hits come after it on a busy machine.
		h.ServeHTTP(w, r, counted)
		run := func(serve func()) testing.BenchmarkResult {
			return testing.Benchmark(func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					clear(w.header)
					*replacer(r) = *caddy.NewReplacer() // each request has its own
					replacer(r).Map(noPlaceholder)      // and that of Caddy's HTTP server besides
					serve()
				}
			})
		}
		without, with := run(func() {}), run(func() { h.ServeHTTP(w, r, counted) })
		allocs, bytes := with.AllocsPerOp()-without.AllocsPerOp(), with.AllocedBytesPerOp()-without.AllocedBytesPerOp()
		t.Logf("%7d bytes: %s, %d B/op, %d allocs/op", size, with, bytes, allocs)
		if allocs > maxHitAllocs {
			t.Errorf("%d bytes: %d allocations, want at most %d", size, allocs, maxHitAllocs)
		}
		// The race detector has bytes of its own counted.
		if bytes > maxHitBytes && !raceDetector {
			t.Errorf("%d bytes: %d bytes allocated, want at most %d whatever the size", size, bytes, maxHitBytes)
		}
		if calls.Load() != 1 {
			t.Errorf("%d fetches", calls.Load())
		}
	}
}

func noPlaceholder(string) (any, bool) { return nil, false }

const maxHitAllocs, maxHitBytes = 3, 360
