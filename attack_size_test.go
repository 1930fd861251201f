//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// boundless is an origin whose pages have more variants, fields or bytes than there
// seem to be.
func boundless(bomb []byte, page string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		switch r.URL.Path {
		case "/bomb":
			if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				w.Header().Set("Content-Encoding", "gzip")
				w.Header().Set("Vary", "Accept-Encoding")
				w.Write(bomb)
				return
			}
		case "/vary":
			w.Header().Set("Vary", "X-Any")
		case "/fields":
			for i := range 1000 {
				w.Header().Set(fmt.Sprint("X-", i), "y")
			}
		case "/names":
			for i := range 100 {
				w.Header().Add("Vary", fmt.Sprint("X-", i))
			}
		}
		fmt.Fprint(w, page)
	}
}

// TestAttackMemory: what can be made without end takes bounded memory.
func TestAttackMemory(t *testing.T) {
	bomb := new(bytes.Buffer)
	z := gzip.NewWriter(bomb)
	io.CopyN(z, zeros{}, 64<<20)
	z.Close()
	page := strings.Repeat("p", 100_000)
	o := startOrigin(t, boundless(bomb.Bytes(), page))
	c := newCluster(t, 1, o, "max_body_size 1MiB")
	p := c[0]
	p.app = "cache_size 64MiB"
	p.start()
	entries := func() int64 {
		s, err := p.status()
		if err != nil {
			t.Fatal(err)
		}
		if m := s.Memory; m.Main+m.Hot+m.Index+m.InFlight > 64<<20 || m.Limit != 64<<20 {
			t.Errorf("more than cache_size: %+v", m)
		}
		return s.Groups[0].Entries
	}

	// Compression bombs: Go's transport inflates what the client has not asked to
	// be compressed, and max_body_size is about what it has become.
	for range 3 {
		a := p.get("/bomb")
		if a.status != 200 || len(a.body) != 64<<20 || a.hit() {
			t.Errorf("bomb: %d, %d bytes (%s)", a.status, len(a.body), a.cacheStatus())
		}
	}
	if a := p.get("/bomb", "Accept-Encoding", "gzip"); a.status != 200 || len(a.body) != bomb.Len() {
		t.Errorf("the bomb as it is: %d, %d bytes", a.status, len(a.body))
	}

	// Vary abuse: 32 variants of a URL, and no response that varies by more than 16 fields.
	for i := range 200 {
		p.get("/vary", "X-Any", fmt.Sprint(i)).is(t, "variant", page)
	}
	if a := p.get("/vary", "X-Any", "199"); !a.hit() {
		t.Errorf("the last variant: %s", a.cacheStatus())
	}
	if n := entries(); n > 40 {
		t.Errorf("%d entries after 200 variants", n)
	}
	for _, path := range []string{"/fields", "/names"} {
		p.get(path).is(t, path, page)
		if a := p.get(path); a.hit() {
			t.Errorf("%s was stored", path)
		}
	}

	// Unbounded cardinality: one-off URLs, as a query of random numbers.
	before := o.fetches("")
	for i := range 1500 {
		p.get(fmt.Sprintf("/one-off?%d", i)).is(t, "one-off", page)
	}
	if o.fetches("") != before+1500 {
		t.Error("some were not fetched")
	}
	t.Logf("%d entries", entries())
	c.awaitIdle()
	entries()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestAttackRange: no request for parts costs much more than the whole
// (CVE-2011-3192, httpd; CVE-2017-7529, nginx; RFC 9110 §17.15).
func TestAttackRange(t *testing.T) {
	page := strings.Repeat("0123456789", 10_000)
	c, o := startAttacked(t, 1, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, page)
	}, "")
	p := c[0]
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("%d-%d", i*10, i*10)
	}
	cases := []struct{ header, source string }{
		{"bytes=" + strings.Join(many, ","), "many small ones (CVE-2011-3192)"},
		{"bytes=" + strings.Repeat("0-,", 5000) + "0-", "many of the whole (CVE-2011-3192)"},
		{"bytes=0-,0-,0-,0-,0-", "a few of the whole"},
		{"bytes=5-0", "backwards"},
		{"bytes=-9223372036854775807,-9223372036854775000", "suffixes that overflow when added (CVE-2017-7529)"},
		{"bytes=-99999999999999999999999", "a suffix beyond 64 bits"},
		{"bytes=0-99999999999999999999999", "an end beyond 64 bits (CVE-2021-31808, Squid)"},
		{"bytes=18446744073709551615-18446744073709551616", "a beginning beyond 63 bits"},
		{"bytes=-0", "nothing"},
		{"bytes=", "no range"},
		{"lines=0-5", "another unit"},
		{"bytes=0-0\x01", "a control character"},
		{"bytes=a-b", "no numbers"},
		{"bytes=+1-+2", "signs"},
		{"bytes=0-0,,,,,,,,,,,,,,,,,,,,,,,,,,", "empty ones"},
	}
	for _, w := range ways {
		for i, a := range cases {
			path := fmt.Sprintf("/range/%d", i%2) // hits and misses
			if got := w.get(p, path, "Range", a.header); len(got.body) > len(page)+8<<10 {
				t.Errorf("%s: %s: %d bytes for a page of %d", w.name, a.source, len(got.body), len(page))
			}
			w.get(p, path).is(t, w.name+": "+a.source, page)
		}
	}
	if n := o.fetches(""); n != 4 {
		t.Errorf("%d fetches of two pages, over http and over https", n)
	}
}
