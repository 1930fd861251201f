package caddygroupcache

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// behind returns a handler with another one between it and the upstream.
func behind(inner *Handler, up caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error { return inner.ServeHTTP(w, r, up) }
}

// nestings are the ways on which a second handler can stand behind a first one. The
// result asks the first one of a node.
var nestings = map[string]func(t *testing.T, up caddyhttp.Handler) (ask func(r *http.Request) *httptest.ResponseRecorder, nodes []*node.Node){
	"in one route": func(t *testing.T, up caddyhttp.Handler) (func(r *http.Request) *httptest.ResponseRecorder, []*node.Node) {
		h := newHandler(t, newLoneNode(t), nil)
		return func(r *http.Request) *httptest.ResponseRecorder { return do(h, behind(h, up), r) }, []*node.Node{h.node}
	},
	"on other nodes of the cluster": func(t *testing.T, up caddyhttp.Handler) (func(r *http.Request) *httptest.ResponseRecorder, []*node.Node) {
		b := newBubble(t, 3, nil)
		var lives []uint64
		for _, m := range b.nodes {
			lives = append(lives, m.Life)
		}
		var nodes []*node.Node
		for _, m := range b.nodes {
			m.Loops.Set(lives)
			nodes = append(nodes, m.Node)
		}
		var turn atomic.Int64
		return func(r *http.Request) *httptest.ResponseRecorder {
			i := int(turn.Add(1))
			return do(b.nodes[i%3].handler, func(w http.ResponseWriter, r *http.Request) error {
				return b.nodes[(i+1)%3].handler.ServeHTTP(w, request(t.Context(), r.URL.String(), fields(r.Header)...), up)
			}, r)
		}, nodes
	},
}

// fields returns the names and values of a header.
func fields(header http.Header) (all []string) {
	for name, values := range header {
		for _, value := range values {
			all = append(all, name, value)
		}
	}
	return all
}

// TestNestedHandlersDoNotWaitForEachOther: whatever is asked for, it takes as long as
// the upstream does.
func TestNestedHandlersDoNotWaitForEachOther(t *testing.T) {
	body := randomBody(3 << 20)
	for name, nest := range nestings {
		for kind, fields := range map[string][]string{"whole": nil, "far part": farPart, "no-cache": {"Cache-Control", "no-cache"}} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					up := &slow{after: time.Second, answer: whole206(body)}
					ask, nodes := nest(t, up)
					start := time.Now()
					wait := followers(9, func(int) *httptest.ResponseRecorder { return ask(request(t.Context(), "http://a.test/a", fields...)) })
					for i, w := range wait() {
						want := body
						if w.Code == http.StatusPartialContent {
							want = body[2500000:2500010]
						}
						if w.Code/100 != 2 || w.Body.String() != string(want) {
							t.Errorf("client %d: %d, %d bytes (%s)", i, w.Code, w.Body.Len(), w.Header().Get("Cache-Status"))
						}
					}
					// A part may be two requests after another.
					if took := time.Since(start); took > 2100*time.Millisecond {
						t.Errorf("it took %v", took)
					}
					for range 3 {
						w := ask(request(t.Context(), "http://a.test/a"))
						if s := w.Header()["Cache-Status"]; kind == "whole" && !strings.HasPrefix(s[len(s)-1], "groupcache; hit") {
							t.Errorf("afterwards: %q", s)
						}
					}
					time.Sleep(time.Second)
					for _, n := range nodes {
						idle(t, n)
					}
				})
			})
		}
	}
}

// TestNestedHandlersRefresh: in the background, once.
func TestNestedHandlersRefresh(t *testing.T) {
	for name, nest := range nestings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				up := &slow{after: time.Second}
				up.answer = func(w http.ResponseWriter, r *http.Request) error {
					return fixed(new(atomic.Int64), fmt.Sprint(calls.Add(1)), "Cache-Control", "max-age=10, stale-while-revalidate=600")(w, r)
				}
				ask, nodes := nest(t, up)
				ask(request(t.Context(), "http://a.test/a"))
				time.Sleep(20 * time.Second)
				for range 3 {
					if w := ask(request(t.Context(), "http://a.test/a")); w.Body.String() != "1" {
						t.Errorf("%q", w.Body)
					}
				}
				time.Sleep(2 * time.Second)
				if w := ask(request(t.Context(), "http://a.test/a")); w.Body.String() != "2" || calls.Load() != 2 {
					t.Errorf("%q after %d fetches", w.Body, calls.Load())
				}
				for _, n := range nodes {
					idle(t, n)
				}
			})
		})
	}
}

// TestInnerHandlerSaysWhy, and leaves the outer one what is the outer one's: the tags.
func TestInnerHandlerSaysWhy(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "Surrogate-Key", "a b")
	w := do(h, behind(h, up), request(t.Context(), "/a"))
	want := []string{"groupcache; fwd=bypass; fwd-status=200; detail=loop", "groupcache; fwd=uri-miss; fwd-status=200; stored"}
	if got := w.Header()["Cache-Status"]; !slices.Equal(got, want) || w.Header().Get("Surrogate-Key") != "" {
		t.Errorf("%q, tags %q", got, w.Header().Get("Surrogate-Key"))
	}
	h.node.Purger.Everywhere([]store.Purge{{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.Tag, Value: "b"}}}})
	if do(h, behind(h, up), request(t.Context(), "/a")); calls.Load() != 2 {
		t.Errorf("%d fetches after a purge by the tag", calls.Load())
	}
}

// TestWhoIsPassedStraightThrough: what comes from this cluster and this group, and nothing
// else.
func TestWhoIsPassedStraightThrough(t *testing.T) {
	n := newLoneNode(t)
	n.Loops.Set([]uint64{n.Life, 7, 0})
	h := newHandler(t, n, func(h *Handler) { h.Group = "a b" })
	for name, test := range map[string]struct {
		lines []string
		want  bool
	}{
		"nobody":                      {nil, false},
		"a CDN":                       {[]string{"cloudflare; loops=1"}, false},
		"this process":                {[]string{rfc9111.LoopMember(node.LoopID(n.Life), "a b")}, true},
		"another member":              {[]string{rfc9111.LoopMember(node.LoopID(7), "a b")}, true},
		"another group":               {[]string{rfc9111.LoopMember(node.LoopID(7), "a")}, false},
		"another cluster":             {[]string{rfc9111.LoopMember(node.LoopID(8), "a b")}, false},
		"a member that tells no life": {[]string{rfc9111.LoopMember(node.LoopID(0), "a b")}, false},
		"another one, then a member":  {[]string{"x", "y, " + rfc9111.LoopMember(node.LoopID(7), "a b")}, true},
	} {
		r := request(t.Context(), "/"+strings.ReplaceAll(name, " ", "-"))
		r.Header["Cdn-Loop"] = test.lines
		w := do(h, fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=60"), r)
		if got := strings.Contains(w.Header().Get("Cache-Status"), "detail=loop"); got != test.want {
			t.Errorf("%s: %s", name, w.Header().Get("Cache-Status"))
		}
	}
	n.Loops.Set(nil)
	if !n.Loops.Has(node.LoopID(n.Life)) || n.Loops.Has(node.LoopID(7)) {
		t.Error("of no cluster, the process is not the only member")
	}
}

// TestWhatTheUpstreamIsTold: what the client has said, and then who fetches. It makes no
// other variant, and nothing of it is left in the client's request: an error route may
// have a cache too.
func TestWhatTheUpstreamIsTold(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	own := node.LoopID(h.node.Life) + "; group=default"
	var calls atomic.Int64
	var got []string
	up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		got = r.Header["Cdn-Loop"]
		if r.URL.Path == "/fails" {
			return caddyhttp.Error(http.StatusBadGateway, http.ErrServerClosed)
		}
		return fixed(&calls, "hello", "Cache-Control", "max-age=60", "Vary", "CDN-Loop")(w, r)
	})
	for _, client := range [][]string{nil, {"a"}, {"a; b=c", "d"}} {
		for _, path := range []string{"/a", "/fails"} {
			r := request(t.Context(), path)
			if client != nil {
				r.Header["Cdn-Loop"] = slices.Clone(client)
			}
			got = nil
			_ = h.ServeHTTP(httptest.NewRecorder(), r, up)
			if want := append(slices.Clone(client), own); !slices.Equal(got, want) {
				t.Errorf("%s: the upstream is told %q, want %q", path, got, want)
			}
			if left, there := r.Header["Cdn-Loop"]; !slices.Equal(left, client) || there != (client != nil) {
				t.Errorf("%s: the client's request is left with %q", path, left)
			}
		}
	}
	before := calls.Load()
	for _, client := range []string{"", "a"} {
		r := request(t.Context(), "/a")
		if client != "" {
			r.Header.Set("Cdn-Loop", client)
		}
		wantStatus(t, do(h, up.ServeHTTP, r), "groupcache; hit")
	}
	if calls.Load() != before {
		t.Error("the field makes another variant")
	}
}
