//go:build linux

package caddygroupcache_test

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

var mixes = flag.Int("mixes", 1, "how many random mixes TestMemoryIsBoundedForAnyMix tries")

// A wave is many requests of one kind, one after the other wave.
type wave struct {
	count   int // of URLs
	clients int // at the same time
	body    int
	fields  int  // response header fields
	field   int  // bytes of each
	stall   bool // clients read the beginning, and no more
}

func (w wave) String() string {
	return fmt.Sprintf("%d × %d B with %d fields of %d B, by %d clients (stall %v)", w.count, w.body, w.fields, w.field, w.clients, w.stall)
}

// bytes is about what the responses of a wave take.
func (w wave) bytes() int { return w.count * (w.body + w.fields*(w.field+12) + 200) }

// drawWave draws a wave whose responses take up to some times cache_size.
func drawWave(t *rapid.T) wave {
	w := wave{
		body:    1 << rapid.IntRange(0, 23).Draw(t, "body"),
		fields:  rapid.SampledFrom([]int{0, 3, 10, 60}).Draw(t, "fields"),
		field:   1 << rapid.IntRange(0, 10).Draw(t, "field"),
		clients: rapid.SampledFrom([]int{1, 4, 16, 64}).Draw(t, "clients"),
		stall:   rapid.IntRange(0, 4).Draw(t, "stall") == 0,
	}
	w.count = 1 // for bytes
	w.count = min(max(mixSize*rapid.IntRange(1, 6).Draw(t, "quarters")/4/w.bytes(), 1), 8000)
	if w.stall {
		w.count = min(w.count, 200)
	}
	return w
}

// mixOrigin answers with what the path says: /wave/number/body/fields/field.
func mixOrigin(t *testing.T) *origin {
	return startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		number := func(i int) (n int) { n, _ = strconv.Atoi(parts[i]); return n }
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Etag", `"1"`)
		value := strings.Repeat("x", number(5))
		for i := range number(4) {
			w.Header().Set("X-Field-"+strconv.Itoa(i), value)
		}
		w.Header().Set("Content-Length", parts[3])
		_, _ = io.Copy(w, &endless{size: int64(number(3))})
	})
}

// send has clients ask for all URLs of a wave.
func (h *hoard) send(id string, w wave) {
	each(w.count, w.clients, func(i int) {
		path := fmt.Sprintf("/%s-%d/%d/%d/%d/%d", id, i, i, w.body, w.fields, w.field)
		if w.stall {
			h.stall(i, path, "")
		} else {
			h.ask(i, path)
		}
	})
}

// hangUp ends the clients that do not read on.
func (h *hoard) hangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, conn := range h.conns {
		_ = conn.Close()
	}
	h.conns = nil
}

// forgetPeak has the kernel measure the peak of memory anew.
func (p *process) forgetPeak() {
	p.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		p.t.Skip("LEFT OUT: the peak of memory: ", err)
	}
}

// mixBound is what a node with a cache_size of 64 MiB takes at most.
const (
	mixSize  = 64 << 20
	mixBound = 2*mixSize + 128<<20
)

func startMixed(t *testing.T) *hoard {
	if raceEnabled() {
		t.Skip("the race detector's own memory is many times as much")
	}
	c := newCluster(t, 1, mixOrigin(t), patient)
	c[0].app = "cache_size 64MiB"
	c[0].start()
	h := &hoard{t: t, nodes: c}
	t.Cleanup(h.hangUp)
	return h
}

// peak returns the peak of resident memory while the waves of a mix come.
func (h *hoard) peak(id int, mix []wave) int64 {
	h.nodes[0].forgetPeak()
	for i, w := range mix {
		h.send(fmt.Sprintf("%d-%d", id, i), w)
	}
	h.hangUp()
	return h.nodes[0].memory()
}

// TestMemoryIsBoundedForTheWorstMix that is known: entries that fill the index, and then
// large bodies, which take its place and come in as fast as they can. It took 353 MiB
// when the index gave no room up until something was added to it, and nothing bounded
// garbage.
func TestMemoryIsBoundedForTheWorstMix(t *testing.T) {
	h := startMixed(t)
	peak := h.peak(0, []wave{
		{count: 10_000, clients: 16, body: 1, fields: 3, field: 10},
		{count: 30_000, clients: 16, body: 1, fields: 10, field: 110},
		{count: 60, clients: 16, body: 8 << 20},
	})
	figure(t, "peak of resident memory in MiB", peak>>20, mixBound>>20, mixBound>>20)
}

// TestMemoryIsBoundedForAnyMix of requests, one mix after the other on the same node.
//
//	go test -run TestMemoryIsBoundedForAnyMix -v -timeout 2h -mixes 1000 .
func TestMemoryIsBoundedForAnyMix(t *testing.T) {
	h := startMixed(t)
	draw := rapid.SliceOfN(rapid.Custom(drawWave), 2, 5)
	first, worst := seed.Of(t).Rand().IntN(1<<30), int64(0)
	for i := range *mixes {
		mix := draw.Example(first + i)
		if peak := h.peak(i, mix); peak > worst {
			worst = peak
			t.Logf("mix %d: %d MiB: %v", i, peak>>20, mix)
		}
	}
	figure(t, "peak of resident memory in MiB", worst>>20, mixBound>>20, mixBound>>20)
}
