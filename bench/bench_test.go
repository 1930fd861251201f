package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

func TestMain(m *testing.M) {
	harness.Become(roles)
	os.Exit(m.Run())
}

// What the figures are is no matter here; that every answer is what its case
// claims, the session itself checks.
func TestSession(t *testing.T) {
	if _, err := cpuTime(); err != nil {
		t.Skip(err)
	}
	page := filepath.Join(t.TempDir(), "performance.md")
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	b := newBench(f)
	// In so short a run both nodes of a pair may hold all of so few URLs.
	b.remoteURLs, b.remoteShare = 100, 0
	err := f.Parse([]string{
		"-only", "throughput,connections,entries,memory,ring,cost", "-sizes", "1KiB", "-connections", "4",
		"-rounds", "1", "-seconds", "0.05", "-entries", "1000", "-o", page,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"### 1KiB, HTTP/1.1\n", "### 1KiB, HTTP/1.1 over TLS", "### 1KiB, HTTP/2\n", "### 1KiB, HTTP/2 over TLS", "## By number of connections", "## By number of entries", "| local hit, express lane ", "| ceiling handler ", "| local hit ", "| local hit, 17 fields ", "| hot hit ", "| remote hit ",
		"| remote hit, secret ", "| 304 ", "| range, a quarter ", "| miss ", "| pass-through, private ", "| 1,000 ", "| ranges ",
		"(performance/cpu-1kib-http1.svg)", "(performance/entries.svg)", "(performance/ring.svg)",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(string(text), plotMark) {
		t.Error("a plot has no file")
	}
	plots, err := filepath.Glob(filepath.Join(strings.TrimSuffix(page, ".md"), "*.svg"))
	if err != nil || len(plots) != 10 {
		t.Errorf("%d plots, %v", len(plots), err)
	}
	for _, name := range plots {
		wellFormed(t, name)
	}
}

// What is compared gives clients as many fields as its name says.
func TestFields(t *testing.T) {
	l := lab{dir: t.TempDir()}
	origin, err := l.startOrigin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer origin.End()
	nodes, err := l.startCluster(t.Context(), cluster{sizes: []string{"64MiB"}, compare: true})
	if err != nil {
		t.Fatal(err)
	}
	defer endAll(nodes)
	n := nodes[0]
	for _, c := range []struct {
		name, url string
		fields    int
	}{
		{ceilingName, n.ceiling.addr + "/1024", 14},
		{"respond", n.respond.addr + "/1024", 14},
		{filesName, n.files.addr + "/1024.html", 14},
		{localName, n.cache.addr + "/1024", 14},
		{fullName, n.full.addr + "/1024", 17},
		{fullHitName, n.cache.addr + fullPrefix + "/1024", 17},
	} {
		var header http.Header
		for range 2 { // the second time it is a hit
			resp, err := http.Get("http://" + c.url)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			header = resp.Header
		}
		if len(header) != c.fields {
			t.Errorf("%s: %d fields, want %d: %v", c.name, len(header), c.fields, header)
		}
	}
}

func wellFormed(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := xml.NewDecoder(f); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// An answer that is not what its case is about must not count.
func TestCheck(t *testing.T) {
	hit := &target{status: http.StatusOK, length: 10, claims: []string{"detail=peer", "detail=hot"}}
	for _, c := range []struct {
		answer answer
		claim  int
		wrong  bool
	}{
		{answer{status: 200, length: 10, cache: []byte("groupcache; hit; ttl=5; detail=peer")}, 0, false},
		{answer{status: 200, length: 10, cache: []byte("groupcache; hit; ttl=5; detail=hot")}, 1, false},
		{answer{status: 200, length: 10, cache: []byte("groupcache; hit; ttl=5; detail=local")}, 0, true},
		{answer{status: 200, length: 10}, 0, true},
		{answer{status: 200, length: 9, cache: []byte("detail=peer")}, 0, true},
		{answer{status: 502, length: 10, cache: []byte("detail=peer")}, 0, true},
	} {
		claim, err := hit.check(&c.answer)
		if claim != c.claim || (err != nil) != c.wrong {
			t.Errorf("%d, %d bytes, %q: claim %d, %v", c.answer.status, c.answer.length, c.answer.cache, claim, err)
		}
	}
	l := &load{targets: []*target{{claims: hit.claims, share: 0.9}}}
	for peer, want := range map[int64]bool{95: true, 85: false} {
		if err := l.plausible(sample{requests: 100, claims: []int64{peer, 100 - peer}}); (err == nil) != want {
			t.Errorf("%d of 100 are what they should be: %v", peer, err)
		}
	}
	if err := l.plausible(sample{claims: make([]int64, 2)}); err == nil {
		t.Error("a round without answers counts")
	}
}

func TestQuantiles(t *testing.T) {
	all := []int{9, 1, 8, 2, 7, 3, 6, 4, 5, 10}
	for q, want := range map[float64]int{0: 1, 0.25: 3, 0.5: 6, 0.99: 10, 1: 10} {
		if got := quantile(all, q); got != want {
			t.Errorf("quantile %g is %d, want %d", q, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567.8: "1,234,568"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%g) is %q, want %q", n, got, want)
		}
	}
}
