package caddygroupcache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestPollingWhatIsNotStored: a client that polls gets its 304, though a fetch that might
// have been stored is made without the client's condition. Between polls it is forgotten
// that the response is not stored.
func TestPollingWhatIsNotStored(t *testing.T) {
	const modified = "Sat, 21 Nov 2026 12:00:00 GMT"
	for _, nodes := range []int{1, 3} {
		for _, not := range [][]string{
			{"Cache-Control", "private, no-cache"},
			{"Cache-Control", "no-store"},
			{"Cache-Control", "max-age=60", "Set-Cookie", "a=b"},
			{"Cache-Control", "max-age=60", "Vary", "*"},
			{"Cache-Control", "no-cache"}, // is stored, and needs the upstream's word for each
			{"Cache-Control", "max-age=1"},
		} {
			for _, conditions := range [][]string{
				{"If-None-Match", `W/"1"`}, {"If-None-Match", `"0", "1"`}, {"If-Modified-Since", modified},
				{"If-None-Match", `"1"`, "Range", "bytes=1-2"}, {"If-None-Match", `"1"`, "If-Modified-Since", "Sat, 21 Nov 2020 12:00:00 GMT"},
			} {
				t.Run(fmt.Sprintf("nodes: %d, %s, %s", nodes, strings.Join(not, " "), strings.Join(conditions, " ")), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { poll304(t, nodes, not, conditions, modified) })
				})
			}
		}
	}
}

func poll304(t *testing.T, nodes int, not, conditions []string, modified string) {
	c := newClusterInBubble(t, nodes)
	target := c.target(0)
	up := fixed(new(atomic.Int64), "hello", append([]string{"Etag", `"1"`, "Last-Modified", modified, "Accept-Ranges", "bytes"}, not...)...)
	ask := func(i int, fields ...string) *httptest.ResponseRecorder {
		return do(c.handlers[i], up, request(t.Context(), target, fields...))
	}
	if w := ask(0); w.Code != 200 || w.Body.String() != "hello" {
		t.Fatalf("at first: %d %q", w.Code, w.Body)
	}
	for poll := range 2 * nodes {
		time.Sleep(time.Minute)
		w := ask(poll%nodes, conditions...)
		if w.Code != http.StatusNotModified || w.Body.Len() > 0 || w.Header().Get("Content-Length") != "" || w.Header().Get("Etag") != `"1"` {
			t.Errorf("poll %d: %d %q %v", poll, w.Code, w.Body, w.Header())
		}
	}
	if w := ask(nodes-1, "If-None-Match", `"2"`); w.Code != 200 || w.Body.String() != "hello" {
		t.Errorf("with another tag: %d %q", w.Code, w.Body)
	}
}
