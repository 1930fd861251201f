//go:build unix

package caddygroupcache_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestStoppingNodeFinishesWhatOthersRead: a node stops, amid responses that other nodes'
// clients read along: it owns the keys of some, and leads others whose clients are gone. Each
// fetch gives other bytes, so no client could go on with another one.
func TestStoppingNodeFinishesWhatOthersRead(t *testing.T) {
	part := strings.Repeat("0123456789abcdef", 1024)
	opened := make(gate)
	var fetch atomic.Int64
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		unique := strings.Repeat(fmt.Sprintf("%08d", fetch.Add(1)), 2048)
		fmt.Fprint(w, bodyOf(r.URL.Path), unique)
		w.(http.Flusher).Flush()
		opened.wait(r)
		fmt.Fprint(w, part, unique)
	})
	c := newCluster(t, 3, o, patient)
	for _, p := range c {
		p.config = strings.Replace(p.caddyfile(""), "{\n", "{\n\tgrace_period 8s\n\tservers {\n\t\tprotocols h1 h2 h2c\n\t}\n", 1)
		p.start()
	}
	c.awaitMembers()
	others, leaver := c[:2], c[2]

	// Over HTTP/2 Caddy does not wait for what was asked for by a client that is gone.
	ctx, leave := context.WithCancel(t.Context())
	passing := &http.Transport{Protocols: new(http.Protocols)}
	passing.Protocols.SetUnencryptedHTTP2(true)
	var reading atomic.Int32
	var readers, gone sync.WaitGroup
	streams := paths("stream", 12)
	for i, path := range streams {
		if p := c[i%3]; p == leaver {
			resp, err := passing.RoundTrip(p.request(http.MethodGet, path, nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			gone.Go(func() { _, _ = io.Copy(io.Discard, resp.Body) })
		} else {
			readers.Go(func() { p.reads(t, path, &reading) })
		}
	}
	begun := len(streams) * 2 / 3
	eventually(t, "all streams have begun", func() bool { return int(reading.Load()) == begun })
	for _, path := range streams {
		for _, p := range others {
			readers.Go(func() { p.reads(t, path, &reading) })
		}
	}
	eventually(t, "all read along", func() bool { return int(reading.Load()) == begun+2*len(streams) })
	leave()
	gone.Wait()
	begin := time.Now()
	leaver.signal(syscall.SIGTERM)
	eventually(t, "it has left", func() bool { return others[0].states()["n3"] == "left" && others[1].states()["n3"] == "left" })
	time.Sleep(500 * time.Millisecond) // or it might not have had the time to end
	opened.open()
	readers.Wait()
	if code := leaver.awaitEnd(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("it ended after %v; %d fetches for %d streams", time.Since(begin), fetch.Load(), len(streams))
	if n := int(fetch.Load()); n != len(streams) {
		t.Errorf("%d fetches for %d streams", n, len(streams))
	}
	others.awaitIdle()
}

// reads reads a stream, which must not be cut off.
func (p *process) reads(t *testing.T, path string, reading *atomic.Int32) {
	a := do(p.request(http.MethodGet, path, nil), func() { reading.Add(1) })
	if want := 2*16384 + 16384 + len(bodyOf(path)); a.err != nil || len(a.body) != want {
		t.Errorf("%s on %s: %d bytes of %d, %v: %s", path, p.name, len(a.body), want, a.err, a.cacheStatus())
	}
}
