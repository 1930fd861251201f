//go:build linux

package main

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What clients ask for. The kind of a page is the first part of its path.
const (
	stable = "stable" // fresh for ever: what is fetched twice was lost
	news   = "news"   // purged again and again: shows what is outdated
	short  = "short"  // stale after a second, and may be served so for long
	cold   = "cold"   // nobody has asked for it before
	slow   = "slow"   // its body takes slowBody
	unique = "unique" // the same, and each fetch gives other bytes
	large  = "large"  // of several chunks, in editions, with ranges
	drip   = "drip"   // large, and comes at the origin's rate
	kept   = "kept"   // like stable, but asked for by one client, and again after the fault
	events = "events" // server-sent events, without an end
)

const slowBody = 3 * time.Second

// largeBody is the size of a large body: it has a chunk that is not full.
const largeBody = 2<<20 + 512<<10

// What the origin does at the moment.
type mood int32

const (
	well    mood = iota
	failing      // answers 500
	dying        // breaks off amid the body
	tired        // takes tiredFor to answer
)

const tiredFor = 10 * time.Second

// brokenField is on answers that are errors of the origin: they are its own
// fault, with a cache and without.
const brokenField = "X-Lab-Broken"

// An origin is the upstream of all nodes of a trial.
type origin struct {
	mood    atomic.Int32
	recent  atomic.Int64 // when the mood changed last, in Unix nanoseconds
	version atomic.Int64 // of news
	edition atomic.Int64 // of large bodies
	mixed   atomic.Bool  // large bodies are of this edition or the next, by chance
	rate    atomic.Int64 // of drip, in bytes a second
	asked   atomic.Int64 // requests under way
	most    atomic.Int64 // of these there were so far
	server  http.Server

	mu      sync.Mutex // guards fetches
	fetches map[string]int
}

func newOrigin() *origin {
	o := &origin{fetches: make(map[string]int)}
	o.server.Handler = o
	return o
}

func (o *origin) serve(l net.Listener) { go o.server.Serve(l) }

// closeIdle closes connections that nodes keep for later.
func (o *origin) closeIdle() {
	o.server.SetKeepAlivesEnabled(false)
	o.server.SetKeepAlivesEnabled(true)
}

func (o *origin) is() mood { return mood(o.mood.Load()) }

func (o *origin) set(m mood) {
	o.recent.Store(time.Now().UnixNano())
	o.mood.Store(int32(m))
}

// troubled reports whether the origin isn't well, or still answers requests from
// when it was not.
func (o *origin) troubled() bool {
	return o.is() != well || time.Since(time.Unix(0, o.recent.Load())) < tiredFor
}

// fetched returns how often pages of a kind were fetched, and how many.
func (o *origin) fetched(kind string) (fetches, pages int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for path, n := range o.fetches {
		if kindOf(path) == kind {
			fetches, pages = fetches+n, pages+1
		}
	}
	return fetches, pages
}

// forget begins to count anew.
func (o *origin) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.fetches)
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if now := o.asked.Add(1); now > o.most.Load() {
		o.most.Store(now) // nearly: it is for people to read
	}
	defer o.asked.Add(-1)
	o.mu.Lock()
	o.fetches[r.URL.Path]++
	fetch := int64(o.fetches[r.URL.Path])
	o.mu.Unlock()
	kind := kindOf(r.URL.Path)
	if kind == events {
		serveEvents(w, r)
		return
	}
	control := "max-age=3600"
	var version int64
	switch kind {
	case news:
		version = o.version.Load()
	case unique:
		version = fetch
	case large:
		version = o.edition.Load()
		if o.mixed.Load() {
			version += rand.Int64N(2)
		}
	case short:
		control = "max-age=1, stale-while-revalidate=600, stale-if-error=600"
	}
	h := w.Header()
	h.Set("Cache-Control", control)
	h.Set("Surrogate-Key", kind)
	page := page(r.URL.Path, version)
	mood := o.is()
	if mood == failing || mood == dying {
		h.Set(brokenField, strconv.Itoa(int(mood)))
	}
	switch {
	case mood == failing:
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusInternalServerError)
		return
	case mood == tired:
		select {
		case <-time.After(tiredFor):
		case <-r.Context().Done():
			return
		}
	}
	if kind == large || kind == drip {
		if kind == drip {
			w = dripping{w, o.rate.Load()}
		}
		h.Set("Etag", `"`+strconv.FormatInt(version, 10)+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(page))
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(page)))
	switch {
	case mood == dying:
		_, _ = w.Write(page[:len(page)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case kind == slow || kind == unique:
		dripping{w, int64(len(page)) * int64(time.Second) / int64(slowBody)}.Write(page)
	default:
		_, _ = w.Write(page)
	}
}

// dripping writes so many bytes a second.
type dripping struct {
	http.ResponseWriter
	rate int64
}

func (d dripping) Write(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		some := min(int64(len(b)-n), max(d.rate/10, 1))
		if _, err = d.ResponseWriter.Write(b[n : n+int(some)]); err == nil {
			err = http.NewResponseController(d.ResponseWriter).Flush()
		}
		n += int(some)
		time.Sleep(time.Duration(some) * time.Second / time.Duration(d.rate))
	}
	return n, err
}

// serveEvents sends an event each half second until the client is gone.
func serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	ticks := time.NewTicker(500 * time.Millisecond)
	defer ticks.Stop()
	for {
		if _, err := io.WriteString(w, "data: news\n\n"); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-ticks.C:
		case <-r.Context().Done():
			return
		}
	}
}

func kindOf(path string) string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return kind
}

// page is the body of a path's version: its name in the first line, then bytes
// that no other page has.
func page(path string, version int64) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d\n", path, version)
	h := fnv.New64a()
	_, _ = h.Write(b.Bytes())
	seed := h.Sum64()
	filler := rand.New(rand.NewPCG(seed, seed))
	size := 1<<10 + int64(seed%(16<<10))
	switch kindOf(path) {
	case slow, unique:
		size = 300 << 10
	case large, drip:
		size = largeBody
	}
	for int64(b.Len()) < size {
		b.WriteString(strconv.FormatUint(filler.Uint64(), 36))
	}
	return b.Bytes()
}

// read tells which version of a path's page a body is.
func read(path string, body []byte) (version int64, err error) {
	first, _, _ := bytes.Cut(body, []byte("\n"))
	name, number, _ := strings.Cut(string(first), " ")
	if version, err = strconv.ParseInt(number, 10, 64); err != nil || name != path {
		return 0, fmt.Errorf("%s has a body that begins with %.60q", path, first)
	}
	if !bytes.Equal(body, page(path, version)) {
		return 0, fmt.Errorf("%s has a body of %d bytes that is not all its own: %w", path, len(body), io.ErrUnexpectedEOF)
	}
	return version, nil
}
