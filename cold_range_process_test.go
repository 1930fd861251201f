//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// coldSize is that of the bodies which the upstream of cold ranges has.
const coldSize = 16 << 20

// startParts is an upstream of large bodies that counts what it sends. The first element
// of a path says how it answers.
func startParts(t *testing.T, sent *atomic.Int64) *origin {
	return startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		h, kind := w.Header(), strings.Split(r.URL.Path, "/")[1]
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Etag", `"1"`)
		h.Set("Cache-Control", "max-age=600")
		switch kind {
		case "private":
			h.Set("Cache-Control", "no-store")
		case "weak":
			h.Set("Etag", `W/"1"`)
		case "none":
			r.Header.Del("Range")
		}
		http.ServeContent(countingWriter{w, sent}, r, "", time.Time{}, &endless{size: coldSize})
	})
}

// A countingWriter counts the bytes of a response.
type countingWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.sent.Add(int64(n))
	return n, err
}

// contentOf returns so many bytes of an endless from start.
func contentOf(start, length int64) []byte {
	b := make([]byte, length)
	_, _ = io.ReadFull(&endless{size: start + length, at: start}, b) // never fails
	return b
}

// isPart checks that an answer is the part of a body that was asked for.
func (a answer) isPart(t *testing.T, what string, start, length int64) {
	t.Helper()
	if a.err != nil || a.status != http.StatusPartialContent || !bytes.Equal([]byte(a.body), contentOf(start, length)) ||
		a.header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", start, start+length-1, coldSize) {
		t.Errorf("%s: %d, %d bytes, %q, %s, %v", what, a.status, len(a.body), a.header.Get("Content-Range"), a.cacheStatus(), a.err)
	}
}

// clusterOfParts starts nodes with room for what startParts has.
func clusterOfParts(t *testing.T, nodes int, sent *atomic.Int64) (cluster, *origin) {
	o := startParts(t, sent)
	c := newCluster(t, nodes, o, patient)
	for _, p := range c {
		p.app = "cache_size 256MiB"
		p.start()
	}
	c.awaitMembers()
	return c, o
}

// TestColdRangesCostNoWhole: what an upstream sends for small ranges of large bodies.
func TestColdRangesCostNoWhole(t *testing.T) {
	const requests, mib = 20, 1 << 20
	for _, nodes := range someOf(1, 3) {
		var sent atomic.Int64
		c, o := clusterOfParts(t, nodes, &sent)
		for kind, limits := range map[string]struct{ each, same int64 }{
			"parts":   {requests * mib, mib},
			"private": {requests * mib, 2 * mib},       // then the client's own ranges
			"weak":    {requests * mib, 20 * mib},      // then the whole, which is stored
			"none":    {requests * coldSize, coldSize}, // it knows no parts
		} {
			for _, same := range []bool{false, true} {
				began, fetched := sent.Load(), o.fetches("")
				for i := range requests {
					path := fmt.Sprintf("/%s/%d", kind, i)
					if same {
						path = fmt.Sprintf("/%s/same", kind)
					}
					c[i%nodes].get(path, "Range", "bytes=0-0").isPart(t, path, 0, 1)
				}
				bytes, fetches := sent.Load()-began, o.fetches("")-fetched
				t.Logf("nodes: %d, %s, the same: %v: %d requests, the upstream sent %.1f MiB for %d", nodes, kind, same, requests, float64(bytes)/mib, fetches)
				limit := limits.each
				if same {
					limit = limits.same * int64(nodes) // each node finds out for itself
					if kind == "parts" || kind == "none" {
						limit = limits.same
					}
				}
				if bytes > limit+mib/2 || fetches > requests {
					t.Errorf("nodes: %d, %s, the same: %v: %d bytes of %d, %d fetches", nodes, kind, same, bytes, limit, fetches)
				}
			}
		}
	}
}

// TestColdRangesAtTheSameTime: clients that want other ranges of a cold body, or all of it,
// get these, and what they cost the upstream is not more than without the first chunk.
func TestColdRangesAtTheSameTime(t *testing.T) {
	for _, nodes := range someOf(1, 3) {
		var sent atomic.Int64
		c, o := clusterOfParts(t, nodes, &sent)
		for _, kind := range []string{"parts", "private", "weak", "none"} {
			for round := range 3 {
				path := fmt.Sprintf("/%s/%d", kind, round)
				together(12, 12, func(i int) answer {
					at := int64(i) * 1000
					a := c[i%nodes].get(path, "Range", fmt.Sprintf("bytes=%d-%d", at, at+99))
					a.isPart(t, path, at, 100)
					return a
				})
				if kind == "parts" && o.fetches(path) != 1 {
					t.Errorf("nodes: %d, %s: %d fetches", nodes, path, o.fetches(path))
				}
				path += "/mixed"
				together(6, 6, func(i int) answer {
					p, at := c[i/2%nodes], int64(i)*1000
					if i%2 == 0 {
						a := p.get(path, "Range", fmt.Sprintf("bytes=%d-%d", at, at+99))
						a.isPart(t, path, at, 100)
						return a
					}
					got, n, status, _, err := p.download(path)
					if err != nil || status != http.StatusOK || n != coldSize || got != digestOf(0, coldSize) {
						t.Errorf("%s: %d, %d bytes, %v", path, status, n, err)
					}
					return answer{}
				})
				if n := o.fetches(path); n > 2 && kind == "parts" || n > 6 {
					t.Errorf("nodes: %d, %s: %d fetches", nodes, path, n)
				}
			}
		}
		c.awaitIdle()
	}
}
