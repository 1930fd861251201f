//go:build unix

package caddygroupcache_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// digestOf returns the digest of so many bytes of an endless from start.
func digestOf(start, length int64) [sha256.Size]byte {
	h := sha256.New()
	_, _ = io.Copy(h, io.LimitReader(&endless{size: start + length, at: start}, length)) // never fails
	return [sha256.Size]byte(h.Sum(nil))
}

func startFiles(t *testing.T, size func(path string) int64) *origin {
	return startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, &endless{size: size(r.URL.Path)})
	})
}

// download returns what a client gets, without holding it.
func (p *process) download(path string, header ...string) (digest [sha256.Size]byte, n int64, status int, cacheStatus string, err error) {
	resp, err := (&http.Client{Transport: client.Transport}).Do(p.request(http.MethodGet, path, nil, header...))
	if err != nil {
		return digest, 0, 0, "", err
	}
	defer resp.Body.Close()
	h := sha256.New()
	n, err = io.Copy(h, resp.Body)
	return [sha256.Size]byte(h.Sum(nil)), n, resp.StatusCode, resp.Header.Get("Cache-Status"), err
}

func (p *process) downloads(t *testing.T, path string, start, length int64, header ...string) (cacheStatus string) {
	t.Helper()
	began := time.Now()
	got, n, status, cacheStatus, err := p.download(path, header...)
	if err != nil || n != length || got != digestOf(start, length) {
		t.Errorf("%s%s %q: status %d, %d bytes of %d (%s), %v", p.name, path, header, status, n, length, cacheStatus, err)
	}
	t.Logf("%s%s %q: %d MiB in %v: %s", p.name, path, header, n>>20, time.Since(began).Round(time.Millisecond), cacheStatus)
	return cacheStatus
}

func TestBodyOfAGigabyteTakesNoMemory(t *testing.T) {
	size := int64(1 << 30)
	if raceEnabled() {
		size = 100 << 20
	}
	o := startFiles(t, func(string) int64 { return size })
	c := newCluster(t, 1, o, "max_body_size 8GiB")
	p := c[0]
	p.app = "cache_size 64MiB"
	p.start()
	p.get("/warm")
	before := p.memory()
	for range 2 {
		p.downloads(t, "/large", 0, size)
	}
	middle := size/2 + 12345
	ranges := fmt.Sprintf("bytes=%d-%d", middle, middle+3<<20-1)
	fetched := 0
	for i := range 3 {
		cacheStatus := p.downloads(t, "/large", middle, 3<<20, "Range", ranges)
		if i == 0 {
			fetched = o.fetches("/large")
		} else if !strings.Contains(cacheStatus, "; hit;") || o.fetches("/large") != fetched {
			t.Errorf("a part that is stored: %s, %d fetches more", cacheStatus, o.fetches("/large")-fetched)
		}
	}
	figure(t, "growth of memory", p.memory()-before, 96<<20, 3*96<<20)
}

func TestLargeBodyIsSpreadOverTheCluster(t *testing.T) {
	const size = 40 << 20
	o := startFiles(t, func(string) int64 { return size })
	c := newCluster(t, 3, o, "max_body_size 1GiB\n"+patient)
	for _, p := range c {
		p.app = "cache_size 64MiB"
		p.start()
	}
	c.awaitMembers()
	before := make(map[string]int64)
	for _, p := range c {
		p.get("/warm")
		before[p.name] = p.memory()
	}
	o.mu.Lock()
	clear(o.count)
	o.mu.Unlock()
	c[0].downloads(t, "/large", 0, size)
	for _, p := range c {
		if s := p.downloads(t, "/large", 0, size); !strings.Contains(s, "; hit;") {
			t.Errorf("%s: %s", p.name, s)
		}
		if s := p.downloads(t, "/large", 20<<20+5, 10, "Range", fmt.Sprintf("bytes=%d-%d", 20<<20+5, 20<<20+14)); !strings.Contains(s, "; hit;") {
			t.Errorf("%s, a part: %s", p.name, s)
		}
	}
	if n := o.fetches("/large"); n != 1 {
		t.Errorf("%d fetches", n)
	}
	for _, p := range c {
		figure(t, "growth of memory of "+p.name, p.memory()-before[p.name], 96<<20, 3*96<<20)
	}
}

func TestSlowClientsOfACachedBodyTakeNoMemory(t *testing.T) {
	const size, clients = 8 << 20, 200
	o := startFiles(t, func(string) int64 { return size })
	c := newCluster(t, 1, o, "")
	p := c[0]
	p.app = "cache_size 64MiB"
	p.start()
	for range 3 {
		p.downloads(t, "/large", 0, size)
	}
	before := p.memory()
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for range clients {
		conn, err := net.Dial("tcp", p.http)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		if _, err := fmt.Fprintf(conn, "GET /large HTTP/1.1\r\nHost: %s\r\n\r\n", clientHost); err != nil {
			t.Fatal(err)
		}
	}
	// One KB each, as slow clients take it; the rest waits in the node.
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(hang))
		if _, err := io.ReadFull(conn, make([]byte, 1<<10)); err != nil {
			t.Fatal(err)
		}
	}
	figure(t, fmt.Sprintf("growth of memory for %d slow clients", clients), p.memory()-before, 32<<20, 3*32<<20)
	if n := o.fetches("/large"); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// TestDownloadsWhileTheUpstreamIsDeployed: half of the upstream's servers have another version
// of each file. Each client gets one of the two, and all of what it asks for.
func TestDownloadsWhileTheUpstreamIsDeployed(t *testing.T) {
	const size = 5_000_000
	var asked atomic.Int64
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		version := asked.Add(1) % 2
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Etag", fmt.Sprintf(`"%d"`, version))
		http.ServeContent(w, r, "", time.Time{}, &endless{size: size + version})
	})
	for _, nodes := range []int{1, 3} {
		c := startCluster(t, nodes, o, "")
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := range 12 {
					path := fmt.Sprintf("/%d/%d", nodes, (i*j)%20)
					for _, part := range []string{"bytes=3000000-3000099", "", "bytes=0-", "bytes=1500000-1500009"} {
						_, n, status, how, err := c[j%nodes].download(path, "Range", part)
						if err != nil || status == http.StatusOK && n < size {
							t.Errorf("%d nodes, %q: %d, %d bytes, %v: %s", nodes, part, status, n, err, how)
						}
					}
				}
			})
		}
		all.Wait()
	}
}
