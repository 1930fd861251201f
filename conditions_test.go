package caddygroupcache

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

// A link is an upstream whose response is there once: a second request gets 410.
type link struct {
	body    string
	fields  []string
	asked   []http.Header
	written int // of the body
}

func (l *link) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	l.asked = append(l.asked, r.Header.Clone())
	if len(l.asked) > 1 {
		w.WriteHeader(http.StatusGone)
		return nil
	}
	for i := 0; i < len(l.fields); i += 2 {
		w.Header().Set(l.fields[i], l.fields[i+1])
	}
	w.WriteHeader(http.StatusOK)
	for rest := l.body; rest != ""; {
		n, err := io.WriteString(w, rest[:min(len(rest), 5)])
		l.written += n
		if err != nil {
			panic(http.ErrAbortHandler) // as reverse_proxy does
		}
		rest = rest[n:]
	}
	return nil
}

// TestLinkThatIsThereOnce: whatever part of it a client wants, or on what condition,
// is made of the one response.
func TestLinkThatIsThereOnce(t *testing.T) {
	const body = "0123456789abcdefghij"
	ranges := []string{"Accept-Ranges", "bytes", "Content-Length", strconv.Itoa(len(body)), "Etag", `"1"`}
	for _, tt := range []struct {
		name      string
		request   []string
		response  []string
		status    int
		want      string
		ofContent string // Content-Range
		written   int    // at most
	}{
		{"from the start", []string{"Range", "bytes=0-"}, ranges, 206, body, "bytes 0-19/20", 20},
		{"a part", []string{"Range", "bytes=2-4"}, ranges, 206, "234", "bytes 2-4/20", 5},
		{"the end", []string{"Range", "bytes=15-"}, ranges, 206, "fghij", "bytes 15-19/20", 20},
		{"more than there is", []string{"Range", "bytes=15-99"}, ranges, 206, "fghij", "bytes 15-19/20", 20},
		{"beyond", []string{"Range", "bytes=20-"}, ranges, 200, body, "", 20},
		{"several", []string{"Range", "bytes=0-1,4-5"}, ranges, 200, body, "", 20},
		{"no range", []string{"Range", "lines=0-1"}, ranges, 200, body, "", 20},
		{"the same by tag", []string{"Range", "bytes=2-4", "If-Range", `"1"`}, ranges, 206, "234", "bytes 2-4/20", 5},
		{"another by tag", []string{"Range", "bytes=2-4", "If-Range", `"2"`}, ranges, 200, body, "", 20},
		{"no parts", []string{"Range", "bytes=2-4"}, ranges[2:], 200, body, "", 20},
		{"parts refused", []string{"Range", "bytes=2-4"}, append([]string{"Accept-Ranges", "none"}, ranges[2:]...), 200, body, "", 20},
		{"no length", []string{"Range", "bytes=2-4"}, ranges[:2], 200, body, "", 20},
		{"unchanged", []string{"If-None-Match", `"1"`}, ranges, 304, "", "", 0},
		{"unchanged, a part", []string{"If-None-Match", `W/"1"`, "Range", "bytes=2-4"}, ranges, 304, "", "", 0},
		{"changed", []string{"If-None-Match", `"2"`}, ranges, 200, body, "", 20},
		{"changed, a part", []string{"If-None-Match", `"2"`, "Range", "bytes=2-4"}, ranges, 206, "234", "bytes 2-4/20", 5},
	} {
		for _, control := range []string{"no-store", "private", "max-age=60"} { // the last: too large
			t.Run(tt.name+", "+control, func(t *testing.T) {
				h := newHandler(t, newLoneNode(t), func(h *Handler) { h.MaxBodySize = 10 })
				up := &link{body: body, fields: append(slices.Clone(tt.response), "Cache-Control", control)}
				w := do(h, up.ServeHTTP, request(t.Context(), "/a", tt.request...))
				if w.Code != tt.status || w.Body.String() != tt.want || w.Header().Get("Content-Range") != tt.ofContent {
					t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
				}
				if n := w.Header().Get("Content-Length"); n != "" && n != strconv.Itoa(len(tt.want)) {
					t.Errorf("Content-Length is %s", n)
				}
				if n := len(up.asked); n != 1 || up.asked[0].Get("Range") != "" && up.asked[0].Get("Range") != "bytes=0-1048575" {
					t.Errorf("the upstream was asked %v", up.asked)
				}
				if up.written > tt.written {
					t.Errorf("%d bytes of the upstream's were taken", up.written)
				}
				if used := h.node.Budget.Used(); used != 0 {
					t.Errorf("%d bytes in flight", used)
				}
			})
		}
	}
}

// TestPreconditionsGoToTheUpstream: RFC 9111 §4.3.2 leaves them to the origin,
// whatever is stored.
func TestPreconditionsGoToTheUpstream(t *testing.T) {
	for _, conditions := range [][]string{
		{"If-Match", `"1"`, "Range", "bytes=3-"},
		{"If-Match", "*"},
		{"If-Unmodified-Since", "Sat, 21 Nov 2026 12:00:00 GMT", "If-None-Match", `"2"`, "If-Range", `"1"`},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, stored := range []bool{false, true} {
				h := newHandler(t, newLoneNode(t), nil)
				up := &link{body: "0123456789", fields: []string{"Cache-Control", "max-age=60", "Etag", `"1"`}}
				if stored {
					do(h, up.ServeHTTP, request(t.Context(), "/a"))
					up.asked = nil
				}
				r := request(t.Context(), "/a", conditions...)
				r.Method = method
				sent := r.Header.Clone()
				w := do(h, up.ServeHTTP, r)
				wantStatus(t, w, "groupcache; fwd=bypass; fwd-status=200; detail=precondition")
				if len(up.asked) != 1 || fmt.Sprint(up.asked[0]) != fmt.Sprint(sent) {
					t.Errorf("%s %q, stored %v: the upstream was asked %v", method, conditions, stored, up.asked)
				}
				if has := h.node.Store.Usage().Resources > 0; has != stored {
					t.Errorf("%s %q, stored %v: by now %v", method, conditions, stored, has)
				}
				r.Header.Set("Cache-Control", "only-if-cached")
				if w := do(h, up.ServeHTTP, r); w.Code != http.StatusGatewayTimeout || len(up.asked) != 1 {
					t.Errorf("only-if-cached: %d, %d requests", w.Code, len(up.asked))
				}
			}
		}
	}
}

// TestPartsOfABodyThatIsTooLarge: once it is known to be, each part costs one request
// of its own, for as long as parts are asked for.
func TestPartsOfABodyThatIsTooLarge(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for _, part := range []string{"bytes=0-999", "bytes=1000-1999", "bytes=2000000-2000999", "bytes=-1000"} {
			t.Run(fmt.Sprintf("%d nodes, %s", nodes, part), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newClusterInBubble(t, nodes)
					for _, h := range c.handlers {
						limitBodies(h, 2<<20)
					}
					up := &file{body: randomBody(3 << 20), tag: `"1"`, ranges: true}
					get := func(i int) {
						w := getLarge(t, c.handlers[i%nodes], up, "/a", "Range", part)
						if w.Code != http.StatusPartialContent || w.Body.Len() != 1000 || !bytes.Contains(up.body, w.Body.Bytes()) {
							t.Errorf("%d, %d bytes: %s", w.Code, w.Body.Len(), w.Header().Get("Cache-Status"))
						}
					}
					get(0)
					if asked := up.requests(); len(asked) > 2 {
						t.Errorf("the first time the upstream was asked for %q", asked)
					}
					time.Sleep(time.Second) // the other nodes hear of it
					for i := range 20 {
						get(i)
						if asked := up.requests(); !slices.Equal(asked, []string{part}) {
							t.Errorf("request %d: the upstream was asked for %q", i, asked)
						}
						time.Sleep(node.UncacheableFor / 10)
					}
				})
			})
		}
	}
}

// TestFarPartOfWhatIsNotStored: the first chunk tells that it isn't, and then the
// client's own part is asked for, not the gigabytes before it.
func TestFarPartOfWhatIsNotStored(t *testing.T) {
	for name, change := range map[string]func(h http.Header){
		"private":                        func(h http.Header) { h.Set("Cache-Control", "private") },
		"of a weak tag, and too large":   func(h http.Header) { h.Set("Etag", `W/"1"`) },
		"with queries, and too large":    func(h http.Header) { h.Set("No-Vary-Search", "key-order") },
		"of an encoder's, and too large": func(h http.Header) { h.Set("Etag", `"1-gzip"`) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newLoneNode(t)
			h := newHandler(t, n, func(h *Handler) { h.MaxBodySize = 1 << 30 })
			up := &answers{body: randomBody(int(n.LargestBody()) + 1<<20), change: func(a *partAnswer) { change(a.header) }}
			w := getLarge(t, h, up, "/", "Range", "bytes=3000000-3000009")
			wantBody(t, "a part", w, up.body[3000000:3000010])
			if want := []string{"bytes=0-1048575", "bytes=3000000-3000009"}; !slices.Equal(up.asked, want) {
				t.Errorf("the upstream was asked for %q, want %q: %s", up.asked, want, strings.Join(w.Header()["Cache-Status"], ", "))
			}
		})
	}
}
