//go:build unix

package caddygroupcache_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
)

var cacheSize = flag.String("cache-size", "64MiB", "the cache_size whose bound TestMemoryIsBounded looks at")

// A hoard is all at once that makes a cache take more memory than it counts.
type hoard struct {
	t     *testing.T
	nodes cluster
	conns []net.Conn // of clients that do not read on
	mu    sync.Mutex // guards conns
}

const (
	hoardedBody  = 6 << 20 // a large body
	hoardedParts = 6       // its chunks
	heavyFields  = 60
	heavyField   = 1000 // bytes; together nearly what an entry may have
)

func hoardOrigin(t *testing.T) *origin {
	field := strings.Repeat("x", heavyField)
	return startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		switch kind, _, _ := strings.Cut(r.URL.Path[1:], "/"); kind {
		case "heavy":
			for i := range heavyFields {
				w.Header().Set("X-Heavy-"+strconv.Itoa(i), field)
			}
		case "variants":
			w.Header().Set("Vary", "X-Variant")
		case "large":
			w.Header().Set("Etag", `"1"`)
			http.ServeContent(w, r, "", time.Time{}, &endless{size: hoardedBody})
			return
		case "medium":
			w.Header().Set("Etag", `"1"`)
			http.ServeContent(w, r, "", time.Time{}, &endless{size: 700 << 10})
			return
		}
		_, _ = io.WriteString(w, "x")
	})
}

// ask gets a response, and forgets it.
func (h *hoard) ask(i int, path string, header ...string) {
	p := h.nodes[i%len(h.nodes)]
	if _, _, status, _, err := p.download(path, header...); err != nil || status != http.StatusOK {
		h.t.Errorf("%s%s: status %d, %v", p.name, path, status, err)
	}
}

// stall begins a response, and does not read on.
func (h *hoard) stall(i int, path, bytes string) {
	p := h.nodes[i%len(h.nodes)]
	// As over a network: on loopback the kernels would take it all, in segments of 64 KiB.
	narrow := func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64<<10)
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1460)
		})
	}
	conn, err := (&net.Dialer{Control: narrow}).DialContext(context.Background(), "tcp", p.http)
	if err != nil {
		h.t.Error(err)
		return
	}
	h.mu.Lock()
	h.conns = append(h.conns, conn)
	h.mu.Unlock()
	_ = conn.SetDeadline(time.Now().Add(hang))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, clientHost, bytes); err != nil {
		h.t.Error(err)
		return
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		h.t.Errorf("%s%s %q: %v", p.name, path, bytes, err)
	}
}

// TestMemoryIsBounded: whatever clients ask for, and however slowly they take it,
// a node takes no more than twice its cache_size and 128 MiB.
//
//	go test -run TestMemoryIsBounded -v -timeout 30m -cache-size 1GiB .
func TestMemoryIsBounded(t *testing.T) {
	bytes, err := humanize.ParseBytes(*cacheSize)
	if err != nil {
		t.Fatal(err)
	}
	size := int(bytes)
	if raceEnabled() {
		t.Skip("the race detector's own memory is many times as much")
	}
	c := newCluster(t, 2, hoardOrigin(t), patient)
	for _, p := range c {
		p.app = "cache_size " + *cacheSize
		p.start()
	}
	c.awaitMembers()
	h := &hoard{t: t, nodes: c}
	defer func() {
		for _, conn := range h.conns {
			conn.Close()
		}
	}()
	slow := min(size>>17, 1024)
	// Clients that stop amid each chunk, and amid bodies of one, on both nodes,
	// while new bodies throw out the old. Before the fills: these take the memory
	// that chunks would need on their way.
	each(slow/2/hoardedParts, 1, func(i int) {
		path := "/large/" + strconv.Itoa(i)
		h.ask(i, path)
		for j := range hoardedParts {
			h.stall(i+j, path, fmt.Sprintf("Range: bytes=%d-\r\n", j<<20))
		}
	})
	each(slow/4, 1, func(i int) {
		path := "/medium/" + strconv.Itoa(i)
		h.ask(i, path)
		h.stall(i, path, "")
	})
	var mix sync.WaitGroup
	mix.Go(func() {
		each(size>>12, 4, func(i int) { h.ask(i, "/tiny/"+strconv.Itoa(i)) })
	})
	mix.Go(func() {
		each(size>>16, 2, func(i int) { h.ask(i, "/heavy/"+strconv.Itoa(i)) })
	})
	mix.Go(func() {
		each(size>>13, 2, func(i int) { h.ask(i, "/variants/"+strconv.Itoa(i/100), "X-Variant", strconv.Itoa(i%100)) })
	})
	mix.Go(func() { // fills whose clients stop at once, so that they all go on at a time
		each(slow/4, slow/4, func(i int) { h.stall(i, "/large/fill"+strconv.Itoa(i), "") })
	})
	mix.Wait()
	each(size>>20, 8, func(i int) { h.ask(i, "/medium/more"+strconv.Itoa(i)) }) // what is still held has been thrown out
	bound := int64(2*size + 128<<20)
	for _, p := range c {
		s, err := p.status()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", p.name, s.Memory)
		figure(t, fmt.Sprintf("%s: peak of resident memory in MiB", p.name), p.memory()>>20, bound>>20, bound>>20)
	}
	t.Logf("%d clients that do not read on", len(h.conns))
}
