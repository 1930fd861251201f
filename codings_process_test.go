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
	"time"
)

// What Go's HTTP client, which reverse_proxy uses, and compressing upstreams make of
// codings and parts.

// longText is a text of 3 MiB of which no two lines are alike.
func longText() string {
	var b strings.Builder
	for i := 0; b.Len() < 3<<20; i++ {
		fmt.Fprintf(&b, "line %d of a text that can be compressed\n", i)
	}
	return b.String()
}

// compressingOrigin serves a text like nginx: compressed to who takes gzip and asks for
// the whole, and parts of it as they are. It says in Vary what is given.
func compressingOrigin(text, vary string) http.HandlerFunc {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = io.WriteString(w, text) // never fails
	_ = w.Close()
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Content-Type", "text/plain")
		if vary != "" {
			w.Header().Set("Vary", vary)
		}
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && r.Header.Get("Range") == "" {
			w.Header().Set("Etag", `W/"1"`)
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed.Bytes()) // a client that is gone
			return
		}
		w.Header().Set("Etag", `"1"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}
}

// unpacked is the body of an answer without its coding.
func unpacked(t *testing.T, a answer) string {
	t.Helper()
	if a.header.Get("Content-Encoding") != "gzip" {
		return a.body
	}
	r, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestResumingOnAColdKey(t *testing.T) {
	text := longText()
	for _, nodes := range someOf(1, 3) {
		for _, vary := range []string{"", "Accept-Encoding"} {
			c := startCluster(t, nodes, startOrigin(t, compressingOrigin(text, vary)), "")
			for i, start := range []int{0, 5, 1 << 20, 2<<20 + 7} {
				path := fmt.Sprintf("/cold-%d", i)
				for j := range 2 * nodes { // the others find it warm
					a := c[j%nodes].get(path, "Range", fmt.Sprintf("bytes=%d-", start))
					if a.status != http.StatusPartialContent || a.body != text[start:] {
						t.Errorf("%d nodes, Vary %q, from %d, request %d: status %d, %d bytes, %s", nodes, vary, start, j, a.status, len(a.body), a.cacheStatus())
					}
				}
			}
		}
	}
}

// TestFarRangeLeavesTheWholeCompressed: who asks for the whole gets it compressed as
// before, and who asks for another part gets that from what is stored.
func TestFarRangeLeavesTheWholeCompressed(t *testing.T) {
	text := longText()
	part := func(a answer, at int) bool { return a.status == http.StatusPartialContent && a.body == text[at:at+100] }
	for _, nodes := range someOf(1, 3) {
		for _, vary := range []string{"", "Accept-Encoding"} {
			for _, takes := range []string{"", "identity", "gzip, br"} {
				o := startOrigin(t, compressingOrigin(text, vary))
				c := startCluster(t, nodes, o, "")
				ask := func(i, at int) answer {
					fields := []string{"Range", fmt.Sprintf("bytes=%d-%d", at, at+99)}
					if takes != "" {
						fields = append(fields, "Accept-Encoding", takes)
					}
					return c[i%nodes].get("/a", fields...)
				}
				what := fmt.Sprintf("%d nodes, Vary %q, Accept-Encoding %q", nodes, vary, takes)
				if a := ask(0, 2<<20); !part(a, 2<<20) {
					t.Errorf("%s: status %d, %d bytes, %s", what, a.status, len(a.body), a.cacheStatus())
				}
				for i := range nodes {
					if a := ask(i, 2<<20+1000); !part(a, 2<<20+1000) || !a.hit() {
						t.Errorf("%s, again at %d: status %d, %d bytes, %s", what, i, a.status, len(a.body), a.cacheStatus())
					}
				}
				for i := range 2 * nodes {
					a := c[i%nodes].get("/a", "Accept-Encoding", "gzip")
					if a.header.Get("Content-Encoding") != "gzip" || unpacked(t, a) != text || i > 0 && !a.hit() {
						t.Errorf("%s, the whole at %d: %s, %d bytes, %s", what, i, a.header.Get("Content-Encoding"), len(a.body), a.cacheStatus())
					}
				}
				for i := range nodes { // last: without a Vary it would be for all
					a := c[i].get("/a")
					if a.header.Get("Content-Encoding") != "" || a.body != text {
						t.Errorf("%s, the plain whole at %d: %s, %d bytes, %s", what, i, a.header.Get("Content-Encoding"), len(a.body), a.cacheStatus())
					}
				}
			}
		}
	}
}

// TestAlwaysCompressed: an upstream that sends gzip whoever asks, and does not say so,
// reaches no client that takes none, who would have got it without coding.
func TestAlwaysCompressed(t *testing.T) {
	const text = "a text"
	for _, nodes := range someOf(1, 3) {
		o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=600")
			w.Header().Set("Content-Encoding", "gzip")
			g := gzip.NewWriter(w)
			_, _ = io.WriteString(g, text)
			_ = g.Close()
		})
		c := startCluster(t, nodes, o, "")
		for k, first := range []string{"gzip", "", "identity"} {
			path := fmt.Sprintf("/%d", k)
			for i := range 3 * nodes {
				fields := []string{"Accept-Encoding", first}
				switch {
				case i%3 == 1 || i%3 == 0 && first == "":
					fields = nil
				case i%3 == 2:
					fields = []string{"Accept-Encoding", "gzip, br"}
				}
				a := c[i%nodes].get(path, fields...)
				if unpacked(t, a) != text {
					t.Errorf("%d nodes, request %d: %q", nodes, i, a.body)
				}
				if fields == nil && a.header.Get("Content-Encoding") != "" {
					t.Errorf("%d nodes, first %q, request %d: compressed, %s", nodes, first, i, a.cacheStatus())
				}
			}
		}
	}
}
