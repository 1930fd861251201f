package caddygroupcache

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestUnsafeRequestInvalidatesOnAllNodes(t *testing.T) {
	c := newCluster(t, 3)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "UNHEARD-OF"} {
		for poster := range 3 {
			var calls atomic.Int64
			get := func(w http.ResponseWriter, r *http.Request) error {
				return fixed(new(atomic.Int64), strconv.FormatInt(calls.Add(1), 10), "Cache-Control", "max-age=60")(w, r)
			}
			target := fmt.Sprintf("http://site.test/%s/%d", method, poster)
			warm := func(want string) {
				t.Helper()
				for i, h := range c.handlers {
					for _, path := range []string{"", "/made", "/other"} {
						r := request(t.Context(), target+path)
						r.RequestURI = r.URL.RequestURI()
						poll(t, fmt.Sprintf("node %d has %s%s", i, target, path), func() bool {
							return strings.Contains(do(h, get, r).Header().Get("Cache-Status"), "hit")
						})
					}
				}
				if n := fmt.Sprint(calls.Load()); n != want {
					t.Errorf("%s on node %d: %s fetches, want %s", method, poster, n, want)
				}
			}
			change := func(status int) {
				r := request(t.Context(), target)
				r.Method, r.RequestURI = method, r.URL.RequestURI()
				do(c.handlers[poster], func(w http.ResponseWriter, _ *http.Request) error {
					w.Header().Set("Location", target+"/made")
					w.Header().Set("Content-Location", "http://elsewhere.test/other")
					w.WriteHeader(status)
					return nil
				}, r)
			}
			warm("3")
			change(500)
			warm("3")
			change(201)
			warm("5") // the target and what Location names
		}
	}
}

func TestFetchThatBeganBeforeTheChangeIsNotStored(t *testing.T) {
	c := newCluster(t, 2)
	for leader := range 2 {
		target := c.target(0) + "?" + strconv.Itoa(leader)
		asked, goOn := make(chan struct{}), make(chan struct{})
		wait := followers(1, func(int) *httptest.ResponseRecorder {
			return do(c.handlers[leader], func(w http.ResponseWriter, r *http.Request) error {
				close(asked)
				<-goOn
				return fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=60")(w, r)
			}, request(t.Context(), target))
		})
		<-asked
		r := request(t.Context(), target)
		r.Method = http.MethodPost
		do(c.handlers[1-leader], fixed(new(atomic.Int64), "done"), r)
		// Who asks now gets the new one, while the old one is on its way.
		up := fixed(new(atomic.Int64), "new", "Cache-Control", "max-age=60")
		for i, h := range c.handlers {
			if w := do(h, up, request(t.Context(), target)); w.Body.String() != "new" {
				t.Errorf("leader %d: node %d served %q", leader, i, w.Body)
			}
		}
		close(goOn)
		if w := wait()[0]; w.Body.String() != "old" {
			t.Errorf("leader %d: its own client got %q", leader, w.Body)
		}
		for i, h := range c.handlers {
			poll(t, "the flights have ended", func() bool { left := c.nodes[i].UnderWay(); return left.Fills+left.Asks == 0 })
			if w := do(h, up, request(t.Context(), target)); w.Body.String() != "new" {
				t.Errorf("leader %d: node %d served %q afterwards", leader, i, w.Body)
			}
		}
	}
}

func TestSafeRequestInvalidatesNothing(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		c := newCluster(t, nodes)
		var calls atomic.Int64
		up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "Cache-Groups", `"g"`)
		for _, h := range c.handlers {
			do(h, up, request(t.Context(), "/a"))
		}
		for i, method := range []string{"QUERY", "PROPFIND", "REPORT", "SEARCH", "OPTIONS", "TRACE"} {
			r := request(t.Context(), "/a")
			r.Method, r.Body = method, io.NopCloser(strings.NewReader("select"))
			w := do(c.handlers[i%nodes], fixed(new(atomic.Int64), "found", "Location", "/a", "Cache-Group-Invalidation", `"g"`), r)
			want := "fwd=method; fwd-status=200; detail=method"
			if method == "QUERY" { // which is looked up
				want = "fwd=uri-miss; fwd-status=200; detail=no-freshness"
			}
			wantStatus(t, w, want)
			if w.Body.String() != "found" {
				t.Errorf("%s: %q", method, w.Body)
			}
		}
		for i, h := range c.handlers {
			wantStatus(t, do(h, up, request(t.Context(), "/a")), "hit")
			if calls.Load() != 1 {
				t.Errorf("node %d of %d: %d fetches", i, nodes, calls.Load())
			}
		}
	}
}

func TestWhatClearsABrowsersDataIsItsClientsAlone(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		c := newCluster(t, nodes)
		var calls atomic.Int64
		logout := fixed(&calls, "bye", "Cache-Control", "public, max-age=60", "Clear-Site-Data", `"cookies", "storage"`)
		for i := range 4 {
			w := do(c.handlers[i%nodes], logout, request(t.Context(), "/logout"))
			wantStatus(t, w, "detail=clear-site-data")
			if w.Header().Get("Clear-Site-Data") == "" || calls.Load() != int64(i+1) {
				t.Errorf("request %d: %d fetches, %v", i, calls.Load(), w.Header())
			}
		}
		// One that came with a validation is not kept with what it validates.
		calls.Store(0)
		do(c.handlers[0], fixed(&calls, "hello", "Cache-Control", "max-age=0", "Etag", `"1"`), request(t.Context(), "/a"))
		do(c.handlers[0], func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Clear-Site-Data", `"*"`)
			w.WriteHeader(http.StatusNotModified)
			return nil
		}, request(t.Context(), "/a"))
		w := do(c.handlers[0], logout, request(t.Context(), "/a"))
		wantStatus(t, w, "hit")
		if w.Header().Get("Clear-Site-Data") != "" || calls.Load() != 1 {
			t.Errorf("%d fetches, %v", calls.Load(), w.Header())
		}
	}
}

// TestHostInAnotherCaseInvalidates: both are one resource, though they are stored apart
// because an upstream may answer with its Host.
func TestHostInAnotherCaseInvalidates(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	get := func() string { return do(h, up, request(t.Context(), "http://a.test/x")).Header().Get("Cache-Status") }
	get()
	if s := get(); !strings.Contains(s, "hit") {
		t.Fatal(s)
	}
	r := request(t.Context(), "http://A.test:80/x")
	r.Method = http.MethodPut
	do(h, up, r)
	if s := get(); strings.Contains(s, "hit") {
		t.Errorf("%s after a PUT", s)
	}
}

// TestMovedResourcesAreInvalidated: what WebDAV's COPY and MOVE have made of the target of
// their Destination.
func TestMovedResourcesAreInvalidated(t *testing.T) {
	for _, method := range []string{"COPY", "MOVE"} {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
		get := func(path string) string {
			return do(h, up, request(t.Context(), "http://a.test"+path)).Header().Get("Cache-Status")
		}
		get("/to")
		get("/other")
		r := request(t.Context(), "http://a.test/from", "Destination", "http://a.test/to")
		r.Method = method
		do(h, up, r)
		if to, other := get("/to"), get("/other"); strings.Contains(to, "hit") || !strings.Contains(other, "hit") {
			t.Errorf("%s: its Destination %s, another one %s", method, to, other)
		}
	}
}

// TestNotModifiedWithAnotherVary: an entry that would be found by other fields is fetched
// anew.
func TestNotModifiedWithAnotherVary(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var whole atomic.Int64
	up := func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Cache-Control", "max-age=0, stale-if-error=60")
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") != "" {
			w.Header().Set("Vary", "X-Plan")
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		if whole.Add(1) > 1 {
			w.Header().Set("Vary", "X-Plan")
		}
		_, err := io.WriteString(w, "for "+r.Header.Get("X-Plan"))
		return err
	}
	for _, plan := range []string{"a", "b"} {
		if w := do(h, up, request(t.Context(), "/x", "X-Plan", plan)); w.Body.String() != "for "+plan {
			t.Errorf("%s: %q (%s)", plan, w.Body, w.Header().Get("Cache-Status"))
		}
	}
}

// TestRelativeLocationUnderARewrite is relative to what the client has sent, as the client
// takes it, and not to what a rewrite in front of the cache has made of that.
func TestRelativeLocationUnderARewrite(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	page := fixed(&calls, "page", "Cache-Control", "max-age=60")
	do(h, page, request(t.Context(), "/shop/made"))
	r := request(t.Context(), "/shop/form")
	r.Method, r.RequestURI = http.MethodPost, "/shop/form"
	original := *r
	r = r.WithContext(context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original))
	r.URL, r.RequestURI = &url.URL{Path: "/app/index.php/form"}, "/app/index.php/form"
	do(h, fixed(new(atomic.Int64), "done", "Location", "made"), r)
	do(h, page, request(t.Context(), "/shop/made"))
	if calls.Load() != 2 {
		t.Errorf("%d fetches: what Location names was not dropped", calls.Load())
	}
}
