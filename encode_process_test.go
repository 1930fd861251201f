//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

// startEncoding runs nodes whose sites compress behind the cache, as most do.
func startEncoding(t *testing.T, n int, o *origin, options ...string) cluster {
	t.Helper()
	c := newCluster(t, n, o, strings.Join(append(options, patient), "\n\t\t"))
	for _, p := range c {
		p.config = p.caddyfile("encode gzip")
		p.start()
	}
	c.awaitMembers()
	return c
}

// textOf returns text that compresses to about a half.
func textOf(size int) string {
	random := make([]byte, size/2)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(random) // never fails
	return hex.EncodeToString(random)
}

// getText gets what is compressed.
func (p *process) getText(path string, started ...func()) answer {
	return do(p.request(http.MethodGet, path, nil, "Accept-Encoding", "gzip"), started...)
}

// isText fails the test unless an answer is a text, or was cut off, and reports
// whether it is.
func (a answer) isText(t *testing.T, what, text string) bool {
	t.Helper()
	if a.err != nil {
		return false
	}
	var got []byte
	z, err := gzip.NewReader(strings.NewReader(a.body))
	if err == nil {
		got, err = io.ReadAll(z)
	}
	if a.status != http.StatusOK || err != nil || !bytes.Equal(got, []byte(text)) {
		t.Errorf("%s: a complete %d of %d bytes, of which %d are text: %v (%s)", what, a.status, len(a.body), len(got), err, a.cacheStatus())
		return false
	}
	return true
}

// pieces writes a text as it comes from an application, without a length.
func pieces(w http.ResponseWriter, random *rand.Rand, text string) {
	for len(text) > 0 {
		n := min(len(text), 1000+random.IntN(60_000))
		_, _ = io.WriteString(w, text[:n])
		w.(http.Flusher).Flush()
		text = text[n:]
	}
}

func TestEncodedBodyThatBreaksOff(t *testing.T) {
	seeds := seed.Of(t)
	const clients = 4
	text := textOf(800_000)
	var broken sync.Map // by path
	var reading atomic.Int32
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Etag", `"t"`)
		if _, again := broken.LoadOrStore(r.URL.Path, true); again {
			pieces(w, seeds.Rand(), text)
			return
		}
		pieces(w, seeds.Rand(), text[:len(text)/2])
		for reading.Load() < clients && r.Context().Err() == nil {
			time.Sleep(poll)
		}
		panic(http.ErrAbortHandler)
	})
	for _, nodes := range []int{1, 3} {
		c := startEncoding(t, nodes, o)
		for i := range 5 {
			path := fmt.Sprintf("/%d/%d", nodes, i)
			reading.Store(0)
			for j, a := range together(clients, clients, func(j int) answer {
				return c[(i+j)%nodes].getText(path, func() { reading.Add(1) })
			}) {
				a.isText(t, fmt.Sprintf("%s, client %d", path, j), text)
			}
			if a := c[0].getText(path); !a.isText(t, path+", afterwards", text) {
				t.Errorf("%s, afterwards: %v", path, a.err)
			}
		}
		c.awaitIdle()
	}
}

// TestEncodedBodyLargerThanIsStored: it is larger than max_body_size also when it is
// compressed, which shows amid the body.
func TestEncodedBodyLargerThanIsStored(t *testing.T) {
	seeds := seed.Of(t)
	text := textOf(5 << 20)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Etag", `"t"`)
		pieces(w, seeds.Rand(), text)
	})
	for _, nodes := range []int{1, 3} {
		c := startEncoding(t, nodes, o, "max_body_size 2MiB")
		for j, a := range together(3, 3, func(j int) answer { return c[j%nodes].getText(fmt.Sprint("/", nodes)) }) {
			if what := fmt.Sprintf("%d nodes, client %d", nodes, j); !a.isText(t, what, text) {
				t.Errorf("%s: %v", what, a.err)
			}
		}
		c.awaitIdle()
	}
}

// TestReadersOfAnEncodedBodyOutliveTheNodeThatFetchesIt: or are cut off, but get no
// other bytes.
func TestReadersOfAnEncodedBodyOutliveTheNodeThatFetchesIt(t *testing.T) {
	seeds := seed.Of(t)
	text := textOf(800_000)
	opened := make(gate)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Etag", `"t"`)
		pieces(w, seeds.Rand(), text[:len(text)/2])
		opened.wait(r)
		pieces(w, seeds.Rand(), text[len(text)/2:])
	})
	c := startEncoding(t, 3, o)
	others, victim := c[:2], c[2]
	streams := paths("stream", 8) // some of them are the victim's own
	var reading atomic.Int32
	var wg sync.WaitGroup
	for _, path := range streams {
		wg.Go(func() { victim.getText(path, func() { reading.Add(1) }) })
	}
	eventually(t, "all streams have begun", func() bool { return int(reading.Load()) == len(streams) })
	var whole atomic.Int32
	for _, path := range streams {
		for _, p := range others {
			wg.Go(func() {
				if p.getText(path, func() { reading.Add(1) }).isText(t, path+" on "+p.name, text) {
					whole.Add(1)
				}
			})
		}
	}
	eventually(t, "all read along", func() bool { return int(reading.Load()) == 3*len(streams) })
	victim.signal(syscall.SIGKILL)
	opened.open()
	wg.Wait()
	t.Logf("%d of %d readers have got a whole body", whole.Load(), 2*len(streams))
	for i, path := range streams {
		if p := others[i%2]; !p.getText(path).isText(t, path+" afterwards", text) {
			t.Errorf("%s on %s afterwards: cut off", path, p.name)
		}
	}
	others.awaitIdle()
}

// TestEncodedResponseCostsOneRequestEachTimeItExpires: a conditional one.
func TestEncodedResponseCostsOneRequestEachTimeItExpires(t *testing.T) {
	seeds := seed.Of(t)
	text := textOf(100_000)
	var full, notModified sync.Map // by path: *atomic.Int64
	count := func(m *sync.Map, path string) *atomic.Int64 {
		n, _ := m.LoadOrStore(path, new(atomic.Int64))
		return n.(*atomic.Int64)
	}
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		control := "max-age=1"
		if strings.HasSuffix(r.URL.Path, "/swr") {
			control += ", stale-while-revalidate=600"
		}
		w.Header().Set("Cache-Control", control)
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Etag", `"t"`)
		if r.Header.Get("If-None-Match") == `"t"` {
			count(&notModified, r.URL.Path).Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		count(&full, r.URL.Path).Add(1)
		pieces(w, seeds.Rand(), text)
	})
	for _, nodes := range []int{1, 3} {
		c := startEncoding(t, nodes, o)
		for _, kind := range []string{"max-age", "swr"} {
			path := fmt.Sprintf("/%d/%s", nodes, kind)
			began := time.Now()
			asked := 0
			eventually(t, "it has expired some times", func() bool {
				a := c[asked%nodes].getText(path)
				asked++
				if !a.isText(t, path, text) || a.header.Get("Etag") != `"t-gzip"` {
					t.Errorf("%s: %v %v", path, a.err, a.header)
				}
				return count(&notModified, path).Load() >= 3
			})
			expiries := int64(time.Since(began) / time.Second)
			if n := count(&full, path).Load(); n != 1 {
				t.Errorf("%s has been fetched %d times", path, n)
			}
			if n := count(&notModified, path).Load(); n > expiries {
				t.Errorf("%s has been validated %d times in %v", path, n, time.Since(began))
			}
		}
	}
}
