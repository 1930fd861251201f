//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"
)

// conditions are what clients make their requests depend on, and what parts they ask
// for; SIZE stands for the size of the body.
func conditions() [][]string {
	const modified, before = "Sat, 21 Nov 2020 12:00:00 GMT", "Fri, 20 Nov 2020 12:00:00 GMT"
	validators := [][]string{
		nil,
		{"If-None-Match", `"1"`}, {"If-None-Match", `"2"`}, {"If-None-Match", `"2", W/"1"`}, {"If-None-Match", "*"},
		{"If-Modified-Since", modified}, {"If-Modified-Since", before},
		{"If-Match", `"1"`}, {"If-Match", `"2"`}, {"If-Match", "*"},
		{"If-Unmodified-Since", modified}, {"If-Unmodified-Since", before},
		{"If-Range", `"1"`}, {"If-Range", `"2"`}, {"If-Range", `W/"1"`}, {"If-Range", modified}, {"If-Range", before},
	}
	var all [][]string
	for _, condition := range validators {
		for _, part := range []string{"", "bytes=10-19", "bytes=0-", "bytes=-10", "bytes=0-1,5-6", "bytes=SIZE-"} {
			header := condition
			if part != "" {
				header = append(header[:len(header):len(header)], "Range", part)
			}
			all = append(all, header)
		}
	}
	return all
}

// conditionSizes are the sizes of bodies by kind: of one chunk, of several, and of
// what is not stored.
var conditionSizes = map[string]int64{"small": 3000, "chunks": 1<<20 + 5000, "private": 3000, "large": 2<<20 + 5000}

func startConditional(t *testing.T) *origin {
	modified := time.Date(2020, 11, 21, 12, 0, 0, 0, time.UTC)
	return startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		control := "max-age=600"
		switch {
		case kind == "private":
			control = "no-store"
		case strings.HasPrefix(rest, "stale/"):
			control = "max-age=0"
		}
		w.Header().Set("Cache-Control", control)
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", modified, &endless{size: conditionSizes[kind]})
	})
}

// TestConditionsAreMetAsWithoutACache compares with a site without a cache. Where it
// differs, what RFC 9110 allows beside it is given.
func TestConditionsAreMetAsWithoutACache(t *testing.T) {
	o := startConditional(t)
	for _, nodes := range []int{1, 3} {
		c := newCluster(t, nodes, o, "max_body_size 2MiB\n"+patient)
		twin := &process{t: t, http: freePorts(t, 1)[0]}
		c[0].config = c[0].caddyfile("") + fmt.Sprintf("http://:%s {\n\treverse_proxy %s\n}\n", twin.http[strings.LastIndexByte(twin.http, ':')+1:], o.addr())
		for _, p := range c {
			p.start()
		}
		c.awaitMembers()
		differs := make(map[string]int)
		for kind, size := range conditionSizes {
			for _, state := range []string{"cold", "stored", "stale"} {
				for i, condition := range conditions() {
					if (nodes > 1 || raceEnabled()) && i%5 != 0 {
						continue // each of them with some part; the race detector takes ten times as long
					}
					path := fmt.Sprintf("/%s/%s/%d/%d", kind, state, nodes, i)
					header := strings.Split(strings.ReplaceAll(strings.Join(condition, "\n"), "SIZE", fmt.Sprint(size)), "\n")
					if len(condition) == 0 {
						header = nil
					}
					if state != "cold" {
						c[i%nodes].get(path)
					}
					want, got := twin.get(path, header...), c[(i+1)%nodes].get(path, header...)
					what := fmt.Sprintf("%d nodes, %s, %s, %q", nodes, kind, state, header)
					if why := sameAnswer(want, got, size); why != "" {
						t.Errorf("%s: %s (%s)", what, why, got.cacheStatus())
					}
					if want.status != got.status {
						differs[fmt.Sprintf("%d in place of %d", got.status, want.status)]++
					}
				}
			}
		}
		t.Logf("%d nodes: %v", nodes, differs)
	}
}

// sameAnswer says in what an answer is another than that without a cache; "": it is
// the same, or one that RFC 9110 §14.2 allows in place of a part or of a 416: the whole.
func sameAnswer(want, got answer, size int64) string {
	switch {
	case want.err != nil || got.err != nil:
		return fmt.Sprint(want.err, got.err)
	case got.status == http.StatusOK && (want.status == http.StatusPartialContent || want.status == http.StatusRequestedRangeNotSatisfiable):
		if whole, _ := io.ReadAll(&endless{size: size}); got.body != string(whole) {
			return fmt.Sprintf("%d bytes that are not the whole", len(got.body))
		}
		return ""
	case got.status != want.status:
		return fmt.Sprintf("status %d, not %d", got.status, want.status)
	case got.status == http.StatusRequestedRangeNotSatisfiable:
		if a, b := want.header.Get("Content-Range"), got.header.Get("Content-Range"); a != b {
			return fmt.Sprintf("Content-Range %q, not %q", b, a)
		}
		return ""
	}
	if a, b := partsOf(want), partsOf(got); a != b {
		return fmt.Sprintf("%s, not %s", brief(b), brief(a))
	}
	return ""
}

// partsOf is an answer's body with the part that it is, or the parts that it has.
func partsOf(a answer) string {
	kind, params, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	if kind != "multipart/byteranges" {
		return a.header.Get("Content-Range") + "\n" + a.body
	}
	var all bytes.Buffer
	for parts := multipart.NewReader(strings.NewReader(a.body), params["boundary"]); ; {
		part, err := parts.NextPart()
		if err != nil {
			if err != io.EOF {
				return err.Error()
			}
			return all.String()
		}
		all.WriteString(part.Header.Get("Content-Range") + "\n")
		_, _ = io.Copy(&all, part) // from memory
	}
}
