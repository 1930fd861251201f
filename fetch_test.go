package caddygroupcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

func TestLeaderPanics(t *testing.T) {
	for _, part := range []string{"", "hel"} {
		t.Run(fmt.Sprintf("after %d bytes", len(part)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, newLoneNode(t), nil)
				var calls atomic.Int64
				up := func(w http.ResponseWriter, r *http.Request) error {
					time.Sleep(time.Second)
					if calls.Load() > 0 {
						return fixed(&calls, "hello", "Cache-Control", "max-age=60")(w, r)
					}
					calls.Add(1)
					if part != "" {
						w.Header().Set("Cache-Control", "max-age=60")
						w.Header().Set("Content-Length", "5")
						io.WriteString(w, part)
						time.Sleep(time.Second)
					}
					panic(http.ErrAbortHandler)
				}
				wait := followers(10, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
				aborted := 0
				for _, w := range wait() {
					if w.Code == -1 {
						aborted++
						if w.Body.String() != part {
							t.Errorf("the leader's client got %q", w.Body)
						}
					} else if w.Code != 200 || w.Body.String() != "hello" {
						t.Errorf("%d %q", w.Code, w.Body)
					}
				}
				if aborted != 1 {
					t.Errorf("%d clients were cut off, want only the leader's", aborted)
				}
				if w := do(h, up, request(t.Context(), "/a")); w.Body.String() != "hello" {
					t.Errorf("the key is stuck: %q", w.Body)
				}
				if n := h.node.UnderWay().Fills; n != 0 {
					t.Errorf("%d flights are left", n)
				}
			})
		})
	}
}

func TestFillThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), func(h *Handler) { h.FillTimeout = caddy.Duration(10 * time.Second) })
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			if calls.Add(1) > 1 {
				return fixed(new(atomic.Int64), "0123456789", "Cache-Control", "max-age=60")(w, r)
			}
			w.Header().Set("Cache-Control", "max-age=60")
			for i := range 10 {
				io.WriteString(w, strconv.Itoa(i))
				time.Sleep(3 * time.Second)
			}
			return nil
		}
		start := time.Now()
		wait := followers(2, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
		for _, w := range wait() {
			if w.Body.String() != "0123456789" {
				t.Errorf("%d %q", w.Code, w.Body)
			}
		}
		if calls.Load() != 2 || time.Since(start) != 30*time.Second {
			t.Errorf("%d fetches in %v", calls.Load(), time.Since(start))
		}
	})
}

// TestPartOfAFillThatTakesTooLong: a client that wants a part which has not come when the
// fill ends gets that part, and not what comes next.
func TestPartOfAFillThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), func(h *Handler) { h.FillTimeout = caddy.Duration(10 * time.Second) })
		up := func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", "10")
			for i := range 10 {
				io.WriteString(w, strconv.Itoa(i))
				time.Sleep(3 * time.Second)
			}
			return nil
		}
		for part, want := range map[string]string{"bytes=7-8": "78", "bytes=2-8": "2345678", "bytes=0-1": "01"} {
			w := do(h, up, request(t.Context(), "/"+part, "Range", part))
			if w.Code != http.StatusPartialContent || w.Body.String() != want {
				t.Errorf("%s: %d %q", part, w.Code, w.Body)
			}
		}
	})
}

// TestValidationThatIsOfNoUse: a 304 that is about another response is asked for once, on
// whichever node.
func TestValidationThatIsOfNoUse(t *testing.T) {
	for asked := range 2 {
		synctest.Test(t, func(t *testing.T) {
			c := newClusterInBubble(t, 2)
			target := c.target(0)
			do(c.handlers[0], fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=1", "Etag", `"1"`), request(t.Context(), target))
			time.Sleep(10 * time.Second)
			var calls atomic.Int64
			w := do(c.handlers[asked], func(w http.ResponseWriter, r *http.Request) error {
				calls.Add(1)
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Etag", `"2"`)
				if r.Header.Get("If-None-Match") != "" {
					w.WriteHeader(http.StatusNotModified)
					return nil
				}
				_, err := io.WriteString(w, "new")
				return err
			}, request(t.Context(), target))
			if w.Body.String() != "new" || calls.Load() != 2 {
				t.Errorf("node %d: %q after %d requests to the upstream", asked, w.Body, calls.Load())
			}
		})
	}
}

// TestValidationThatIsItsClientsAlone: a 304 that says so, though the response that it confirms
// does not, costs the upstream no more requests than without a cache, and no other client gets it.
func TestValidationThatIsItsClientsAlone(t *testing.T) {
	for _, says := range []string{"private", "no-store", "private, max-age=60"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), nil)
			var calls atomic.Int64
			up := func(w http.ResponseWriter, r *http.Request) error {
				n := calls.Add(1)
				w.Header().Set("Etag", `"1"`)
				w.Header().Set("X-For", r.Header.Get("X-User"))
				w.Header().Set("Cache-Control", "max-age=1")
				if r.Header.Get("If-None-Match") != "" {
					w.Header().Set("Cache-Control", says)
					w.WriteHeader(http.StatusNotModified)
					return nil
				}
				_, err := fmt.Fprint(w, "page ", n)
				return err
			}
			validated := 0
			for i := range 12 {
				user := fmt.Sprint(i)
				w := do(h, up, request(t.Context(), "/a", "X-User", user))
				if got := w.Header().Get("X-For"); got != user || w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), "page ") {
					t.Errorf("%s: client %s has got %d %q of client %s (%s)", says, user, w.Code, w.Body, got, w.Header().Get("Cache-Status"))
				}
				if w.Header().Get("Cache-Control") == says {
					validated++
				}
				if calls.Load() != int64(i+1) {
					t.Fatalf("%s: %d requests to the upstream for %d clients", says, calls.Load(), i+1)
				}
				time.Sleep(2 * time.Second)
			}
			if validated == 0 {
				t.Errorf("%s: no validation", says)
			}
		})
	}
}

func TestUpstreamThatNeverAnswersDoesNotOutliveItsClientForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		start := time.Now()
		do(h, func(w http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return r.Context().Err()
		}, request(gone, "/a"))
		if took := time.Since(start); took != time.Second+node.OrphanGrace {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestStaleIfError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		do(h, fixed(&calls, "hello", "Cache-Control", "max-age=60, stale-if-error=600", "Etag", `"v1"`), request(t.Context(), "/a"))
		time.Sleep(2 * time.Minute)
		for name, up := range map[string]caddyhttp.HandlerFunc{
			"error":  func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(502, io.ErrUnexpectedEOF) },
			"answer": func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(503); return nil },
			"answer that breaks off": func(w http.ResponseWriter, _ *http.Request) error {
				w.WriteHeader(503)
				io.WriteString(w, "down for main")
				panic(http.ErrAbortHandler)
			},
			"answer that hangs": func(w http.ResponseWriter, r *http.Request) error {
				w.WriteHeader(503)
				io.WriteString(w, "down for main")
				<-r.Context().Done()
				panic(http.ErrAbortHandler)
			},
		} {
			time.Sleep(2 * time.Second) // for as long as the failure before is remembered
			start, n := time.Now(), calls.Load()
			wait := followers(3, func(int) *httptest.ResponseRecorder {
				return do(h, func(w http.ResponseWriter, r *http.Request) error {
					calls.Add(1)
					return up(w, r)
				}, request(t.Context(), "/a"))
			})
			for _, w := range wait() {
				if w.Code != 200 || w.Body.String() != "hello" {
					t.Errorf("%s: %d %q", name, w.Code, w.Body)
				}
			}
			if took := time.Since(start); took > errorBodyTime || calls.Load() != n+1 {
				t.Errorf("%s: %d requests to the upstream, in %v", name, calls.Load()-n, took)
			}
		}
		time.Sleep(time.Hour)
		w := do(h, func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(503); return nil }, request(t.Context(), "/a"))
		if w.Code != 503 {
			t.Errorf("after stale-if-error: %d", w.Code)
		}
	})
}

// TestErrorOfARefreshIsReadToItsEnd: the upstream's connection is good for the next request.
func TestErrorOfARefreshIsReadToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		do(h, fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=1, stale-while-revalidate=600, stale-if-error=600"), request(t.Context(), "/a"))
		time.Sleep(10 * time.Second)
		ended := make(chan error, 1)
		do(h, func(w http.ResponseWriter, r *http.Request) error {
			w.WriteHeader(503)
			io.WriteString(w, "down for maintenance")
			ended <- r.Context().Err()
			return nil
		}, request(t.Context(), "/a"))
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestStoredErrorThatIsConfirmed: a 304 to the validation of a stored error leaves its client
// with the error.
func TestStoredErrorThatIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), func(h *Handler) { h.TTL = []TTL{{Duration: caddy.Duration(time.Second), Status: []int{404}}} })
		up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Etag", `"1"`)
			if r.Header.Get("If-None-Match") == "" {
				return caddyhttp.Error(http.StatusNotFound, errors.New("no such file"))
			}
			w.WriteHeader(http.StatusNotModified)
			return nil
		})
		for range 3 {
			w := httptest.NewRecorder()
			if err := h.ServeHTTP(w, request(t.Context(), "/a"), up); errorStatus(err) != http.StatusNotFound || err == nil {
				t.Errorf("%v, %d %s", err, w.Code, w.Header().Get("Cache-Status"))
			}
			time.Sleep(10 * time.Second)
		}
	})
}

func TestStaleIfErrorOnANodeThatDoesNotOwnTheKey(t *testing.T) {
	c := newCluster(t, 2)
	target := c.target(0)
	do(c.handlers[0], fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=0, stale-if-error=600", "Etag", `"1"`), request(t.Context(), target))
	down := func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(502, io.ErrUnexpectedEOF) }
	w := do(c.handlers[1], down, request(t.Context(), target))
	if w.Code != 200 || w.Body.String() != "hello" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	wantStatus(t, w, "hit; ttl=")
}

func TestHeadUpdatesTheStoredResponse(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tag     string // of the response to HEAD
		vary    string
		fetches int64 // by the GET after it
	}{
		{"the same", `"1"`, "", 0},
		{"another", `"2"`, "", 1},
		{"unclear", "", "", 1},
		{"varies by now", `"1"`, "X-User", 1},
	} {
		for asked := range 2 { // the owner, and another node
			t.Run(fmt.Sprintf("%s, node %d", tt.name, asked), func(t *testing.T) {
				c := newCluster(t, 2)
				target := c.target(0)
				var calls, validations atomic.Int64
				up := func(w http.ResponseWriter, r *http.Request) error {
					fields := []string{"Cache-Control", "max-age=0", "Etag", `"1"`}
					if r.Method == http.MethodHead {
						fields = []string{"Cache-Control", "max-age=60", "Etag", tt.tag, "X-New", "1", "Vary", tt.vary}
					}
					if r.Header.Get("If-None-Match") != "" {
						validations.Add(1)
					}
					return fixed(&calls, "hello", fields...)(w, r)
				}
				do(c.handlers[0], up, request(t.Context(), target))
				head := request(t.Context(), target)
				head.Method = http.MethodHead
				do(c.handlers[asked], up, head)
				calls.Store(0)
				for i, h := range c.handlers {
					w := do(h, up, request(t.Context(), target))
					if calls.Load() != tt.fetches*int64(i+1) || w.Body.String() != "hello" || tt.fetches == 0 && w.Header().Get("X-New") != "1" {
						t.Errorf("node %d: %d fetches, want %d for each; %v", i, calls.Load(), tt.fetches, w.Header())
					}
					if i == 0 && (validations.Load() > 0) != (tt.name == "unclear" || tt.vary != "") {
						t.Errorf("%d validations", validations.Load())
					}
				}
			})
		}
	}
}
