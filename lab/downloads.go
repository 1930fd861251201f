//go:build linux

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Faults amid bodies that take their time, or have parts.

// A reading is what a client got of a body that it read as it came.
type reading struct {
	answer
	silence time.Duration // the longest wait for some of it, the header counts too
}

// download reads a body, or a range of it ("bytes=0-9"), at no more than so many bytes a
// second; 0: as it comes. However long it takes.
func (n *node) download(path, part string, rate int) (d reading) {
	r, err := n.asking(path)
	if err != nil {
		d.err = err
		return d
	}
	if part != "" {
		r.Header.Set("Range", part)
	}
	patient := &http.Client{Transport: n.clients.Transport}
	start := time.Now()
	resp, err := patient.Do(r)
	d.silence = time.Since(start)
	if err != nil {
		d.err = err
		return d
	}
	defer resp.Body.Close()
	d.status, d.cacheStatus = resp.StatusCode, resp.Header.Get("Cache-Status")
	var body []byte
	buf := make([]byte, 32<<10)
	for d.err == nil {
		start = time.Now()
		var some int
		some, d.err = resp.Body.Read(buf)
		d.silence = max(d.silence, time.Since(start))
		body = append(body, buf[:some]...)
		if rate > 0 {
			time.Sleep(time.Duration(some) * time.Second / time.Duration(rate))
		}
	}
	if d.err == io.EOF {
		d.err = nil
	}
	switch {
	case d.err != nil:
	case d.status == http.StatusOK:
		d.version, d.wrong = read(path, body)
	case d.status == http.StatusPartialContent:
		d.version, d.wrong = readPart(path, resp.Header, body)
	default:
		d.err = fmt.Errorf("status %d", d.status)
	}
	return d
}

// readPart tells which version of a path's page a part is of: the one that its ETag names.
func readPart(path string, h http.Header, part []byte) (version int64, err error) {
	version, err = strconv.ParseInt(strings.Trim(h.Get("Etag"), `"`), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: part with the ETag %s", path, h.Get("Etag"))
	}
	var first, last, size int
	if _, err := fmt.Sscanf(h.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size); err != nil {
		return 0, fmt.Errorf("%s: part with Content-Range %q", path, h.Get("Content-Range"))
	}
	whole := page(path, version)
	if size != len(whole) || last >= size || first > last || string(whole[first:last+1]) != string(part) {
		return 0, fmt.Errorf("%s: %s has %d bytes that are not all of version %d", path, h.Get("Content-Range"), len(part), version)
	}
	return version, nil
}

// downloads has a client of a node read a body, and judges what it got, unless the node
// stopped meanwhile.
func (l *load) downloads(n *node, path, part string, rate int) (d reading) {
	epoch := n.epoch.Load()
	d = n.download(path, part, rate)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case n.epoch.Load() != epoch:
		return d
	case d.err != nil:
		l.errors.add("download of %s %s from %s: %v (%s)", path, part, n.Name, d.err, d.cacheStatus)
	case d.wrong != nil:
		l.wrong.add("download of %s %s from %s: %v (%s)", path, part, n.Name, d.wrong, d.cacheStatus)
	}
	l.counted++
	return d
}

// changeFiles has parts of files stored that then change, all at once, and later one
// upstream after the other. What a client gets is whole, and of one edition.
func changeFiles(t *trial) error {
	const files, more = 8, 20 // many more would throw out the pages of the load
	anywhere := func() *node { return t.nodes[rand.IntN(len(t.nodes))] }
	parts := []string{"bytes=1100000-1100099", "bytes=-100", "bytes=0-99"} // for the last one the whole is fetched
	path := func(i int) string { return fmt.Sprintf("/%s/%d", large, i) }
	for i := range files {
		t.load.downloads(anywhere(), path(i), parts[i%2], 0)
	}
	edition := t.origin.edition.Add(1)
	for i := range files {
		if d := t.load.downloads(anywhere(), path(i), "", 0); d.version != edition && d.err == nil {
			t.fail("a whole of edition %d, when parts of it were stored and %d was there", d.version, edition)
		}
	}

	t.origin.mixed.Store(true)
	defer t.origin.mixed.Store(false)
	lasts := 10 * time.Second
	if t.lab.quick {
		lasts = 2 * time.Second
	}
	end := time.Now().Add(lasts)
	var all sync.WaitGroup
	for client := range 8 {
		all.Go(func() {
			for i := client; time.Now().Before(end); i++ {
				part := ""
				if rand.IntN(2) == 0 {
					part = parts[rand.IntN(len(parts))]
				}
				t.load.downloads(anywhere(), path(files+i%more), part, 0)
			}
		})
	}
	all.Wait()
	fetches, pages := t.origin.fetched(large)
	t.note("%d files, %d requests for them or parts of them have reached the origin", pages, fetches)
	return nil
}

// stopLeader stops the node that others' clients read along from. Each fetch gives other
// bytes, so that no client could go on with another one.
func stopLeader(t *trial) error {
	if err := amidFills(t, unique, (*node).stop); err != nil {
		return err
	}
	if fetches, pages := t.origin.fetched(unique); fetches != pages {
		t.fail("%d fetches of %d bodies, amid which a node stopped", fetches, pages)
	}
	return t.nodes[1].again()
}

// followSlowly has clients of all nodes read what comes in at a snail's pace by way of one.
func followSlowly(t *trial) error {
	const most = 2 * time.Second // a chunk takes 16
	t.origin.rate.Store(64 << 10)
	silences := make([]time.Duration, len(t.nodes))
	var all sync.WaitGroup
	for i, n := range t.nodes {
		all.Go(func() {
			time.Sleep(time.Duration(i) * time.Second)
			silences[i] = t.load.downloads(n, "/"+drip+"/1", "", 0).silence
		})
	}
	all.Wait()
	for i, silence := range silences {
		if silence > most {
			t.fail("%v of silence for a client of %s", silence.Round(time.Millisecond), t.nodes[i].Name)
		}
	}
	fetches, _ := t.origin.fetched(drip)
	t.note("%d bytes at %d a second, %d fetch: no client waited longer for some than %v", largeBody, t.origin.rate.Load(), fetches, slices.Max(silences).Round(time.Millisecond))
	return nil
}
