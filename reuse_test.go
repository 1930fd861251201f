package caddygroupcache

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A personal upstream takes a while, and writes the request's cookie into its page.
type personal struct {
	cacheControl string
	asked, full  atomic.Int64
}

func (p *personal) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	p.asked.Add(1)
	time.Sleep(100 * time.Millisecond)
	tag := fmt.Sprintf("W/%q", "of-"+r.Header.Get("Cookie"))
	w.Header().Set("Etag", tag)
	if p.cacheControl != "" {
		w.Header().Set("Cache-Control", p.cacheControl)
	}
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	p.full.Add(1)
	_, err := io.WriteString(w, "page of "+r.Header.Get("Cookie"))
	return err
}

// together asks for a page with each cookie at the same time, and returns the answers.
func (c *testCluster) together(t *testing.T, up caddyhttp.HandlerFunc, target string, cookies []string, fields ...string) []*httptest.ResponseRecorder {
	answers := make([]*httptest.ResponseRecorder, len(cookies))
	var all sync.WaitGroup
	for i, cookie := range cookies {
		all.Go(func() {
			r := request(t.Context(), target, fields...)
			if cookie != "" {
				r.Header.Set("Cookie", cookie)
			}
			answers[i] = do(c.handlers[i%len(c.handlers)], up, r)
		})
	}
	all.Wait()
	return answers
}

func users(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("user=%d", i)
	}
	return names
}

// What cannot be reused without validation is for the request that it was fetched for.
func TestResponseWithoutLifetimeIsForOneRequest(t *testing.T) {
	for _, cc := range []string{"", "no-cache", "max-age=0", "max-age=0, must-revalidate", "public, no-cache", "s-maxage=0"} {
		for _, nodes := range []int{1, 3} {
			for _, fields := range [][]string{nil, {"Cache-Control", "max-stale"}, {"Cache-Control", "stale-if-error=600"}} {
				t.Run(fmt.Sprintf("%q on %d, %v", cc, nodes, fields), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c := newClusterInBubble(t, nodes)
						up := &personal{cacheControl: cc}
						for range 3 { // cold, then stored
							for i, w := range c.together(t, up.ServeHTTP, "/", users(9), fields...) {
								if want := fmt.Sprintf("page of user=%d", i); w.Code != 200 || w.Body.String() != want {
									t.Errorf("user %d: %d %q, %s", i, w.Code, w.Body, w.Header().Get("Cache-Status"))
								}
							}
						}
						if n := up.asked.Load(); n > 3*9 {
							t.Errorf("%d requests for %d", n, 3*9)
						}
					})
				})
			}
		}
	}
}

// Requests that the upstream can't tell apart share a validation, and none takes
// much longer than it would without a cache.
func TestValidationIsSharedByWhatIsTheSame(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			c := newClusterInBubble(t, nodes)
			up := new(personal)
			c.together(t, up.ServeHTTP, "/", []string{""})
			for range 3 {
				before, start := up.asked.Load(), time.Now()
				for _, w := range c.together(t, up.ServeHTTP, "/", make([]string, 16)) {
					if w.Code != 200 || w.Body.String() != "page of " {
						t.Errorf("%d nodes: %d %q, %s", nodes, w.Code, w.Body, w.Header().Get("Cache-Status"))
					}
				}
				if took := time.Since(start); took > 130*time.Millisecond {
					t.Errorf("%d nodes: took %v", nodes, took)
				}
				if n := up.asked.Load() - before; n >= 16/2 {
					t.Errorf("%d nodes: %d requests to the upstream", nodes, n)
				}
			}
			if n := up.full.Load(); n != 1 {
				t.Errorf("%d nodes: %d fetched in full", nodes, n)
			}
		})
	}
}

// A page that is another one each time is not waited for again and again.
func TestValidationOfWhatChangesIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 1)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, _ *http.Request) error {
			time.Sleep(100 * time.Millisecond)
			_, err := fmt.Fprint(w, calls.Add(1))
			return err
		}
		changing := func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Etag", fmt.Sprintf("%q", fmt.Sprint(calls.Load())))
			return up(w, r)
		}
		for range 2 {
			c.together(t, changing, "/", []string{""})
		}
		start, seen := time.Now(), make(map[string]bool)
		for _, w := range c.together(t, changing, "/", make([]string, 16)) {
			seen[w.Body.String()] = true
		}
		if took := time.Since(start); took > 101*time.Millisecond || len(seen) != 16 {
			t.Errorf("took %v, %d pages", took, len(seen))
		}
	})
}

// An outage brings back only what was once good without validation.
func TestStaleIfErrorNeedsALifetime(t *testing.T) {
	for _, cc := range []string{"", "max-age=0", "no-cache"} {
		for _, nodes := range []int{1, 3} {
			c := newCluster(t, nodes)
			for _, h := range c.handlers {
				h.policy.StaleIfError = time.Hour
			}
			up := &personal{cacheControl: cc}
			c.together(t, up.ServeHTTP, "/", users(1))
			down := func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(502, io.ErrUnexpectedEOF) }
			for i, w := range c.together(t, down, "/", users(3), "Cache-Control", "stale-if-error=60") {
				if w.Code != 599 {
					t.Errorf("%q, %d nodes, user %d: %d %q", cc, nodes, i, w.Code, w.Body)
				}
			}
		}
	}
}

// A definite answer that is not stored ends what is stored, on all nodes; a failure,
// and what is wrong with one request, does not.
func TestDefiniteAnswerEndsWhatIsStored(t *testing.T) {
	answer := func(status int, cc string) caddyhttp.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Cache-Control", cc)
			w.WriteHeader(status)
			_, err := io.WriteString(w, "new")
			return err
		}
	}
	fails := func(status int) caddyhttp.HandlerFunc {
		return func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(status, io.EOF) }
	}
	for _, tt := range []struct {
		name string
		up   caddyhttp.HandlerFunc
		ends bool
	}{
		{"404", answer(404, "no-store"), true},
		{"410", answer(410, "private"), true},
		{"302", answer(302, "no-store"), true},
		{"200, no-store", answer(200, "no-store"), true},
		{"403", answer(403, "no-store"), true},
		{"404 of a handler", fails(404), true},
		{"403 of a handler", fails(403), true},
		{"429", answer(429, "no-store"), false},
		{"503", answer(503, "no-store"), false},
		{"502 of a handler", fails(502), false},
	} {
		for _, stale := range []string{"stale-while-revalidate=600", "stale-if-error=600"} {
			for _, nodes := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s, %s, %d", tt.name, stale, nodes), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c := newClusterInBubble(t, nodes)
						var calls atomic.Int64
						up := fixed(&calls, "old", "Cache-Control", "max-age=10, "+stale, "Etag", `"1"`)
						for range 2 {
							c.together(t, up, "/", make([]string, nodes))
							synctest.Wait()
						}
						time.Sleep(20 * time.Second)
						do(c.handlers[0], tt.up, request(t.Context(), "/"))
						synctest.Wait()
						time.Sleep(time.Second) // what runs in the background waits for other nodes
						down := fails(503)
						for i, w := range c.together(t, down, "/", make([]string, nodes)) {
							if old := w.Body.String() == "old"; old == tt.ends {
								t.Errorf("node %d: %d %q, %s", i, w.Code, w.Body, w.Header().Get("Cache-Status"))
							}
						}
					})
				})
			}
		}
	}
}

// Only a failure of the upstream makes room for what is stale.
func TestHandlersDenialIsNoOutage(t *testing.T) {
	for _, status := range []int{403, 404, 410, 500, 502, 503, 504} {
		h := newHandler(t, newLoneNode(t), func(h *Handler) { h.Stale = &Stale{IfError: caddy.Duration(time.Hour)} })
		var calls atomic.Int64
		do(h, fixed(&calls, "old", "Cache-Control", "max-age=0, stale-if-error=600", "Etag", `"1"`), request(t.Context(), "/"))
		w := do(h, func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(status, io.EOF) }, request(t.Context(), "/"))
		if stale := strings.HasPrefix(w.Body.String(), "old"); stale != (status >= 500) {
			t.Errorf("%d: %d %q", status, w.Code, w.Body)
		}
	}
}
