package caddygroupcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// newHandler returns a handler on a node, without Caddy around it.
func newHandler(t testing.TB, n *node, set func(*Handler)) *Handler {
	t.Helper()
	h := new(Handler)
	if set != nil {
		set(h)
	}
	h.setDefaults()
	if err := h.check(); err != nil {
		t.Fatal(err)
	}
	h.policy = h.options()
	h.logger = zap.NewNop()
	h.node, h.space = n, n.store.Namespace(h.Group)
	h.named()
	h.counters = new(groupCounters).of(h.Group)
	return h
}

// keyOf returns the key of a request.
func keyOf(h *Handler, r *http.Request) (store.Key, bool) {
	a, ok := h.addressOf(r, fieldsOf(r.Header), requestURI(r))
	return a.key, ok
}

func newLoneNode(t testing.TB) *node {
	n := newNode("alone", 64<<20)
	t.Cleanup(n.close)
	return n
}

// request returns a request as Caddy would hand it to the handler.
func request(ctx context.Context, target string, fields ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, caddy.NewReplacer())
	return r.WithContext(ctx)
}

// do runs a request and returns what the client gets. A panic of
// http.ErrAbortHandler, which cuts the connection, makes the status -1.
func do(h *Handler, next caddyhttp.HandlerFunc, r *http.Request) (w *httptest.ResponseRecorder) {
	w = httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			w.Code = -1
		}
	}()
	if err := h.ServeHTTP(w, r, next); err != nil {
		w.Code = 599
	}
	return w
}

// fixed is an upstream that counts its requests.
func fixed(calls *atomic.Int64, body string, fields ...string) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		calls.Add(1)
		for i := 0; i+1 < len(fields); i += 2 {
			w.Header().Add(fields[i], fields[i+1])
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, err := io.WriteString(w, body)
		return err
	}
}

// confirmed is an upstream that says of its response, when asked, that it has not
// changed, and how long that holds.
func confirmed(calls, notModified *atomic.Int64, first, then string) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("If-None-Match") != `"1"` {
			return fixed(calls, "hello", "Cache-Control", first, "Etag", `"1"`)(w, r)
		}
		notModified.Add(1)
		w.Header().Set("Cache-Control", then)
		w.Header().Set("Etag", `"1"`)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
}

func wantStatus(t *testing.T, w *httptest.ResponseRecorder, want string) {
	t.Helper()
	if got := w.Header().Get("Cache-Status"); !strings.Contains(got, want) {
		t.Errorf("Cache-Status is %q, want %q in it", got, want)
	}
}

func TestMissThenHit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "X-A", "1", "X-A", "2")
		first := do(h, up, request(t.Context(), "/a"))
		wantStatus(t, first, "groupcache; fwd=uri-miss; fwd-status=200; stored")
		time.Sleep(10 * time.Second)
		second := do(h, up, request(t.Context(), "/a"))
		wantStatus(t, second, "groupcache; hit; ttl=50; detail=local")
		if second.Header().Get("Age") != "10" || second.Body.String() != "hello" || len(second.Header()["X-A"]) != 2 {
			t.Errorf("hit: %v %q", second.Header(), second.Body)
		}
		time.Sleep(51 * time.Second)
		wantStatus(t, do(h, up, request(t.Context(), "/a")), "fwd=stale; fwd-status=200; stored")
		wantStatus(t, do(h, up, request(t.Context(), "/b")), "fwd=uri-miss")
		if n := calls.Load(); n != 3 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestHeadIsServedFromAStoredGet(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	r := request(t.Context(), "/a")
	r.Method = http.MethodHead
	wantStatus(t, do(h, up, r), "fwd=uri-miss")
	do(h, up, request(t.Context(), "/a"))
	w := do(h, up, r)
	wantStatus(t, w, "hit")
	if w.Body.Len() != 0 || w.Header().Get("Content-Length") != "5" {
		t.Errorf("%v %q", w.Header(), w.Body)
	}
}

func TestWhatOtherHandlersSetBeforeIsNotStored(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	for client := range 2 {
		w := httptest.NewRecorder()
		w.Header().Set("X-Client", strconv.Itoa(client))
		w.Header().Set("Cache-Control", "max-age=60") // the upstream adds the same
		h.ServeHTTP(w, request(t.Context(), "/a"), up)
		if client == 1 {
			wantStatus(t, w, "hit")
			if got := w.Header()["X-Client"]; len(got) != 1 || got[0] != "1" {
				t.Errorf("second client got X-Client %v", got)
			}
		}
	}
}

func TestEditingAHitsHeaderDoesNotTouchTheEntry(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "X-A", "1", "X-B", "2")
	do(h, up, request(t.Context(), "/a"))
	w := do(h, up, request(t.Context(), "/a"))
	w.Header()["X-A"][0] = "changed in place"
	w.Header()["X-A"] = append(w.Header()["X-A"], "appended")
	again := do(h, up, request(t.Context(), "/a"))
	if again.Header().Get("X-A") != "1" || again.Header().Get("X-B") != "2" {
		t.Errorf("%v", again.Header())
	}
}

func TestBypass(t *testing.T) {
	var calls atomic.Int64
	h := newHandler(t, newLoneNode(t), nil)
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	do(h, up, request(t.Context(), "/a"))
	for name, change := range map[string]func(*http.Request){
		"fwd=method; fwd-status=200; detail=method": func(r *http.Request) { r.Method = http.MethodPost },
		"detail=upgrade": func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"detail=request-body": func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
		},
		"detail=connection":       func(r *http.Request) { r.Header.Set("Connection", "close, Accept-Language") },
		"detail=request-no-store": func(r *http.Request) { r.Header.Set("Cache-Control", "no-store") },
		"detail=bad-target":       func(r *http.Request) { r.Host = "" },
	} {
		r := request(t.Context(), "/a")
		change(r)
		before := calls.Load()
		wantStatus(t, do(h, up, r), name)
		if calls.Load() != before+1 {
			t.Errorf("%s: the upstream was not asked", name)
		}
	}
}

// followers runs n requests at the same time and returns what they got.
func followers(n int, get func(i int) *httptest.ResponseRecorder) func() []*httptest.ResponseRecorder {
	var wg sync.WaitGroup
	all := make([]*httptest.ResponseRecorder, n)
	for i := range n {
		wg.Go(func() { all[i] = get(i) })
	}
	return func() []*httptest.ResponseRecorder {
		wg.Wait()
		return all
	}
}

func TestManyRequestsOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			time.Sleep(time.Second)
			return fixed(&calls, "hello", "Cache-Control", "max-age=60")(w, r)
		}
		wait := followers(100, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
		start, collapsed := time.Now(), 0
		for _, w := range wait() {
			if w.Code != 200 || w.Body.String() != "hello" {
				t.Errorf("%d %q", w.Code, w.Body)
			}
			if strings.Contains(w.Header().Get("Cache-Status"), "collapsed") {
				collapsed++
			}
		}
		if calls.Load() != 1 || collapsed != 99 || time.Since(start) != time.Second {
			t.Errorf("%d fetches, %d collapsed, %v", calls.Load(), collapsed, time.Since(start))
		}
	})
}

func TestWinnerOfAFlightLooksAgain(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	h.node.fills.mu.Lock()
	wait := followers(1, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
	poll(t, "the request has found nothing and wants to join", func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*flights).join(")
	})
	// Now somebody else's flight lands.
	r := request(t.Context(), "/a")
	k, _ := keyOf(h, r)
	e, _ := store.NewEntry(200, http.Header{}, r.Header, rfc9111.Freshness{Received: time.Now(), Lifetime: time.Minute}, time.Now())
	h.node.store.Commit(h.space, k, e, []byte("stored meanwhile"))
	h.node.fills.mu.Unlock()
	if w := wait()[0]; w.Body.String() != "stored meanwhile" || calls.Load() != 0 {
		t.Errorf("%q after %d fetches", w.Body, calls.Load())
	}
}

func TestEachClientOfAnUncacheableURLGetsItsOwn(t *testing.T) {
	for _, fields := range [][]string{
		{"Cache-Control", "private"},
		{"Cache-Control", "no-store"},
		{"Cache-Control", "max-age=60", "Set-Cookie", "a=b"},
		{"Cache-Control", "max-age=60", "Vary", "*"},
		{"Cache-Control", "max-age=60", "Vary", "Cookie"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), nil)
			var calls atomic.Int64
			up := func(w http.ResponseWriter, r *http.Request) error {
				time.Sleep(time.Second)
				return fixed(&calls, r.Header.Get("Cookie"), fields...)(w, r)
			}
			wait := followers(50, func(i int) *httptest.ResponseRecorder {
				return do(h, up, request(t.Context(), "/a", "Cookie", fmt.Sprint("client", i)))
			})
			start := time.Now()
			for i, w := range wait() {
				if w.Body.String() != fmt.Sprint("client", i) {
					t.Errorf("%v: client %d got %q", fields, i, w.Body)
				}
			}
			if calls.Load() != 50 || time.Since(start) != 2*time.Second {
				t.Errorf("%v: %d fetches in %v", fields, calls.Load(), time.Since(start))
			}
			wait = followers(50, func(i int) *httptest.ResponseRecorder {
				return do(h, up, request(t.Context(), "/a", "Cookie", fmt.Sprint("new", i)))
			})
			start = time.Now()
			for i, w := range wait() {
				if w.Body.String() != fmt.Sprint("new", i) {
					t.Errorf("%v: client %d got %q", fields, i, w.Body)
				}
			}
			if time.Since(start) != time.Second {
				t.Errorf("%v: known to be uncacheable, and yet somebody waited %v", fields, time.Since(start))
			}
		})
	}
}

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
				if n := h.node.fills.len(); n != 0 {
					t.Errorf("%d flights are left", n)
				}
			})
		})
	}
}

func TestFollowerIsCutOffWhenTheUpstreamSaysSomethingElseByNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", "5")
			if calls.Add(1) > 1 {
				_, err := io.WriteString(w, "other")
				return err
			}
			io.WriteString(w, "hel")
			time.Sleep(time.Second)
			panic(http.ErrAbortHandler)
		}
		wait := followers(2, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
		for _, w := range wait() {
			if w.Code != -1 || w.Body.String() != "hel" {
				t.Errorf("%d %q", w.Code, w.Body)
			}
		}
	})
}

func TestLeadersClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			time.Sleep(2 * time.Second)
			if err := r.Context().Err(); err != nil {
				return err
			}
			return fixed(&calls, "hello", "Cache-Control", "max-age=60")(w, r)
		}
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		go do(h, up, request(gone, "/a"))
		synctest.Wait()
		wait := followers(99, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
		for _, w := range wait() {
			if w.Code != 200 || w.Body.String() != "hello" {
				t.Errorf("%d %q", w.Code, w.Body)
			}
		}
		if calls.Load() != 1 {
			t.Errorf("%d fetches", calls.Load())
		}
	})
}

func TestUncacheableResponseEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		gone, leave := context.WithCancel(t.Context())
		start := time.Now()
		time.AfterFunc(5*time.Second, leave)
		do(h, func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(200)
			<-r.Context().Done()
			return r.Context().Err()
		}, request(gone, "/events"))
		if time.Since(start) != 5*time.Second {
			t.Errorf("the upstream's request ended after %v", time.Since(start))
		}
	})
}

// slowWriter is a client that takes a while for every write.
type slowWriter struct {
	*httptest.ResponseRecorder
	pause time.Duration
}

func (w slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.pause)
	return w.ResponseRecorder.Write(p)
}

func TestSlowLeadersClientHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		up := func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Cache-Control", "max-age=60")
			for range 10 {
				io.WriteString(w, "0123456789")
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}
		slow := slowWriter{httptest.NewRecorder(), time.Hour}
		done := make(chan error)
		go func() { done <- h.ServeHTTP(slow, request(t.Context(), "/a"), caddyhttp.HandlerFunc(up)) }()
		synctest.Wait()
		start := time.Now()
		w := do(h, up, request(t.Context(), "/a"))
		if w.Body.Len() != 100 || time.Since(start) != time.Second {
			t.Errorf("follower got %d bytes after %v", w.Body.Len(), time.Since(start))
		}
		wantStatus(t, do(h, up, request(t.Context(), "/a")), "hit")
		if err := <-done; err != nil || slow.Body.Len() != 100 {
			t.Errorf("leader's client got %d bytes, %v", slow.Body.Len(), err)
		}
	})
}

func TestTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), func(h *Handler) { h.MaxBodySize = 50_000 })
		var calls atomic.Int64
		whole := bytes.Repeat([]byte("0123456789"), 10_000)
		up := func(w http.ResponseWriter, r *http.Request) error {
			calls.Add(1)
			w.Header().Set("Cache-Control", "max-age=60")
			for rest := whole; len(rest) > 0; rest = rest[7000:] {
				if len(rest) < 7000 {
					_, err := w.Write(rest)
					return err
				}
				if _, err := w.Write(rest[:7000]); err != nil {
					return err
				}
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}
		wait := followers(5, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
		for _, w := range wait() {
			if !bytes.Equal(w.Body.Bytes(), whole) {
				t.Errorf("%d: got %d bytes", w.Code, w.Body.Len())
			}
		}
		if n := calls.Load(); n != 5 {
			t.Errorf("%d fetches", n)
		}
		wantStatus(t, do(h, up, request(t.Context(), "/a")), "detail=hit-for-miss")
		if used := h.node.budget.Used(); used != 0 {
			t.Errorf("%d bytes still in flight", used)
		}
	})
}

func TestTruncatedIsNotStored(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	do(h, func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", "10")
		_, err := io.WriteString(w, "short")
		return err
	}, request(t.Context(), "/a"))
	up := fixed(&calls, "whole", "Cache-Control", "max-age=60")
	wantStatus(t, do(h, up, request(t.Context(), "/a")), "stored")
	wantStatus(t, do(h, up, request(t.Context(), "/a")), "hit")
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

func TestUpstreamThatNeverAnswersDoesNotOutliveFillTimeoutAndClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		start := time.Now()
		do(h, func(w http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return r.Context().Err()
		}, request(gone, "/a"))
		if time.Since(start) != time.Duration(h.FillTimeout) {
			t.Errorf("ended after %v", time.Since(start))
		}
	})
}

func TestVariants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			calls.Add(1)
			time.Sleep(time.Second)
			return fixed(new(atomic.Int64), r.Header.Get("X-Lang"), "Cache-Control", "max-age=60", "Vary", "X-Lang")(w, r)
		}
		for round := range 2 {
			wait := followers(90, func(i int) *httptest.ResponseRecorder {
				return do(h, up, request(t.Context(), "/a", "X-Lang", strconv.Itoa(i%3)))
			})
			for i, w := range wait() {
				if w.Body.String() != strconv.Itoa(i%3) {
					t.Errorf("round %d: client %d got %q", round, i, w.Body)
				}
			}
			if n := calls.Load(); n != 3 {
				t.Errorf("round %d: %d fetches for 3 variants", round, n)
			}
		}
		wantStatus(t, do(h, up, request(t.Context(), "/a", "X-Lang", "new")), "fwd=vary-miss")
	})
}

func TestReadersThatComeWhileAVaryingResponseStreamsShareIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			calls.Add(1)
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Vary", "Accept-Encoding")
			for range 10 {
				io.WriteString(w, "x")
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}
		wait := followers(5, func(i int) *httptest.ResponseRecorder {
			time.Sleep(time.Duration(i) * 150 * time.Millisecond)
			return do(h, up, request(t.Context(), "/a"))
		})
		for _, w := range wait() {
			if w.Body.String() != "xxxxxxxxxx" {
				t.Errorf("%q", w.Body)
			}
		}
		if calls.Load() != 1 {
			t.Errorf("%d fetches", calls.Load())
		}
	})
}

func TestRevalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls, notModified atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			time.Sleep(time.Second)
			if r.Header.Get("If-None-Match") == `"v1"` {
				notModified.Add(1)
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Etag", `"v1"`)
				w.WriteHeader(http.StatusNotModified)
				return nil
			}
			return fixed(&calls, "hello", "Cache-Control", "max-age=60", "Etag", `"v1"`)(w, r)
		}
		do(h, up, request(t.Context(), "/a"))
		time.Sleep(2 * time.Minute)
		wait := followers(20, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
		revalidated := 0
		for _, w := range wait() {
			if w.Code != 200 || w.Body.String() != "hello" {
				t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
			}
			if strings.Contains(w.Header().Get("Cache-Status"), "fwd=stale; fwd-status=304") {
				revalidated++
			}
		}
		if calls.Load() != 1 || notModified.Load() != 1 || revalidated != 1 {
			t.Errorf("%d fetches, %d validations, %d revalidated", calls.Load(), notModified.Load(), revalidated)
		}
		w := do(h, up, request(t.Context(), "/a", "If-None-Match", `"v1"`))
		wantStatus(t, w, "hit")
		if w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("conditional hit: %d %q", w.Code, w.Body)
		}
	})
}

func TestResponseThatIsNeverFreshIsValidatedForEachRequest(t *testing.T) {
	c := newCluster(t, 3)
	target := c.target(0)
	var calls, notModified atomic.Int64
	up := confirmed(&calls, &notModified, "max-age=0, must-revalidate", "max-age=0, must-revalidate")
	do(c.handlers[0], up, request(t.Context(), target))
	for i, h := range c.handlers {
		w := do(h, up, request(t.Context(), target))
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("node %d: %d %q", i, w.Code, w.Body)
		}
	}
	if calls.Load() != 1 || notModified.Load() != 3 {
		t.Errorf("%d fetches, %d validations", calls.Load(), notModified.Load())
	}
}

func TestClientThatWantsAValidatedAnswer(t *testing.T) {
	for _, directive := range []string{"no-cache", "max-age=0"} {
		c := newCluster(t, 2)
		target := c.target(0)
		var calls, notModified atomic.Int64
		up := confirmed(&calls, &notModified, "max-age=600", "max-age=600")
		do(c.handlers[0], up, request(t.Context(), target))
		w := do(c.handlers[0], up, request(t.Context(), target, "Cache-Control", directive))
		if w.Body.String() != "hello" || calls.Load() != 1 || notModified.Load() != 1 {
			t.Errorf("%s: %q after %d fetches, %d validations", directive, w.Body, calls.Load(), notModified.Load())
		}
		// The other node has nothing to validate, and stores what it fetches.
		if w := do(c.handlers[1], up, request(t.Context(), target, "Cache-Control", directive)); w.Body.String() != "hello" {
			t.Errorf("%s on the other node: %q", directive, w.Body)
		}
		wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "hit")
	}
}

func TestClientsPreconditionDoesNotMakeAURLUncacheable(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	w := do(h, func(w http.ResponseWriter, r *http.Request) error {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}, request(t.Context(), "/a", "Cache-Control", "no-cache", "If-None-Match", `"x"`))
	if w.Code != http.StatusNotModified {
		t.Errorf("%d", w.Code)
	}
	r := request(t.Context(), "/a")
	k, _ := keyOf(h, r)
	if known := h.node.store.Lookup(k, r.Header, time.Now()); known.Uncacheable != rfc9111.None {
		t.Errorf("uncacheable: %v", known.Uncacheable)
	}
	wantStatus(t, do(h, fixed(&calls, "hello", "Cache-Control", "max-age=60"), r), "stored")
}

func TestStaleWhileRevalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			n := calls.Add(1)
			time.Sleep(time.Second)
			if r.URL.Path != "/rewritten" || requestURI(r) != "/a" || r.Header.Get("If-None-Match") != "" || caddyhttp.GetVar(r.Context(), "var") != "value" {
				t.Errorf("fetch %d: %s, was %s, %v", n, r.URL, requestURI(r), r.Header)
			}
			return fixed(new(atomic.Int64), strconv.FormatInt(n, 10), "Cache-Control", "max-age=10, stale-while-revalidate=60")(w, r)
		}
		get := func(fields ...string) *httptest.ResponseRecorder {
			r := request(t.Context(), "/a", fields...)
			original := *r
			ctx := context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original)
			ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{"var": "value"})
			r = r.WithContext(ctx)
			rewritten := *r.URL
			rewritten.Path = "/rewritten"
			r.URL = &rewritten
			return do(h, up, r)
		}
		get()
		time.Sleep(20 * time.Second)
		start := time.Now()
		wait := followers(50, func(i int) *httptest.ResponseRecorder {
			if i%2 == 0 {
				return get("If-None-Match", "W/x")
			}
			return get()
		})
		for _, w := range wait() {
			if w.Body.String() != "1" || !strings.Contains(w.Header().Get("Cache-Status"), "hit; ttl=-1") {
				t.Errorf("%q %v", w.Body, w.Header())
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("clients waited %v", time.Since(start))
		}
		time.Sleep(2 * time.Second)
		if w := get(); w.Body.String() != "2" || calls.Load() != 2 {
			t.Errorf("%q after %d fetches", w.Body, calls.Load())
		}
		time.Sleep(time.Hour)
		if w := get(); w.Body.String() != "3" {
			t.Errorf("after the window: %q", w.Body)
		}
	})
}

func TestBackgroundFetchThatPanicsOrIsUncacheableHurtsNobody(t *testing.T) {
	for name, second := range map[string]caddyhttp.HandlerFunc{
		"aborts": func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) },
		"panics": func(http.ResponseWriter, *http.Request) error { panic("a bug") },
		"fails":  func(http.ResponseWriter, *http.Request) error { return io.ErrUnexpectedEOF },
		"endless": func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(200)
			<-r.Context().Done()
			return r.Context().Err()
		},
		"silent": func(w http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return r.Context().Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, newLoneNode(t), nil)
				var calls atomic.Int64
				do(h, fixed(&calls, "hello", "Cache-Control", "max-age=10, stale-while-revalidate=600"), request(t.Context(), "/a"))
				time.Sleep(20 * time.Second)
				if w := do(h, second, request(t.Context(), "/a")); w.Body.String() != "hello" {
					t.Errorf("%q", w.Body)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if n := h.node.fills.len(); n != 0 {
					t.Errorf("%d flights are left", n)
				}
			})
		})
	}
}

func TestClusterRefreshesOnceInTheBackground(t *testing.T) {
	c := newCluster(t, 3)
	target := c.target(0)
	var calls atomic.Int64
	goOn := make(chan struct{})
	up := func(w http.ResponseWriter, r *http.Request) error {
		n := calls.Add(1)
		if n > 1 {
			<-goOn
			return fixed(new(atomic.Int64), "new", "Cache-Control", "max-age=600")(w, r)
		}
		return fixed(new(atomic.Int64), "old", "Cache-Control", "max-age=0, stale-while-revalidate=600", "Etag", `"1"`)(w, r)
	}
	do(c.handlers[0], up, request(t.Context(), target))
	for range 5 {
		for i, h := range c.handlers {
			if w := do(h, up, request(t.Context(), target)); w.Body.String() != "old" {
				t.Errorf("node %d: %q", i, w.Body)
			}
		}
	}
	close(goOn)
	for i, h := range c.handlers {
		poll(t, fmt.Sprintf("node %d has the new one", i), func() bool {
			return do(h, up, request(t.Context(), target)).Body.String() == "new"
		})
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
}

func TestPartsOfAStoredResponse(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "0123456789", "Cache-Control", "max-age=60", "Etag", `"1"`, "Content-Type", "text/plain")
	do(h, up, request(t.Context(), "/a"))
	for want, fields := range map[string][]string{
		"206 345":                                {"Range", "bytes=3-5"},
		"206 789":                                {"Range", "bytes=-3"},
		"206 89":                                 {"Range", "bytes=8-", "If-Range", `"1"`},
		"200 0123456789":                         {"Range", "bytes=8-", "If-Range", `"2"`},
		"304 ":                                   {"Range", "bytes=8-", "If-None-Match", `"1"`},
		"416 invalid range: failed to overlap\n": {"Range", "bytes=10-"},
	} {
		w := do(h, up, request(t.Context(), "/a", fields...))
		if got := fmt.Sprintf("%d %s", w.Code, w.Body); got != want {
			t.Errorf("%v: got %q, want %q", fields, got, want)
		}
		wantStatus(t, w, "hit")
	}
	w := do(h, up, request(t.Context(), "/a", "Range", "bytes=0-1,8-9"))
	if w.Code != 206 || !strings.HasPrefix(w.Header().Get("Content-Type"), "multipart/byteranges") || !strings.Contains(w.Body.String(), "\r\n\r\n89\r\n") {
		t.Errorf("several: %d %v %q", w.Code, w.Header(), w.Body)
	}
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
}

func TestPartOfAColdResponseFillsTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			calls.Add(1)
			if r.Header.Get("Range") != "" {
				t.Error("a fill asks for a part")
			}
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Content-Length", "10")
			for i := range 10 {
				time.Sleep(time.Second)
				io.WriteString(w, strconv.Itoa(i))
			}
			return nil
		}
		ranges := []string{"bytes=3-5", "bytes=8-9", "bytes=7-", "", "bytes=0-1,3-4"}
		want := []string{"345", "89", "789", "0123456789", "0123456789"}
		wait := followers(20, func(i int) *httptest.ResponseRecorder {
			r := request(t.Context(), "/a")
			if ranges[i%5] != "" {
				r.Header.Set("Range", ranges[i%5])
			}
			return do(h, up, r)
		})
		for i, w := range wait() {
			if w.Body.String() != want[i%5] || (w.Code == 206) != (len(want[i%5]) < 10) {
				t.Errorf("%s: %d %q %v", ranges[i%5], w.Code, w.Body, w.Header())
			}
		}
		if calls.Load() != 1 {
			t.Errorf("%d fetches", calls.Load())
		}
		wantStatus(t, do(h, up, request(t.Context(), "/a")), "hit")
	})
}

func TestPartOfWhatIsNotStoredIsTheUpstreams(t *testing.T) {
	for name, fields := range map[string][]string{
		"private":   {"Cache-Control", "private"},
		"too large": {"Cache-Control", "max-age=60"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), func(h *Handler) { h.MaxBodySize = 5 })
			var asked []string
			up := func(w http.ResponseWriter, r *http.Request) error {
				asked = append(asked, r.Header.Get("Range"))
				w.Header().Add(fields[0], fields[1])
				if r.Header.Get("Range") != "" {
					w.Header().Set("Content-Range", "bytes 3-5/10")
					w.WriteHeader(206)
					_, err := io.WriteString(w, "345")
					return err
				}
				w.Header().Set("Content-Length", "10")
				if _, err := io.WriteString(w, "0123456789"); err != nil {
					panic(http.ErrAbortHandler) // as reverse_proxy does
				}
				return nil
			}
			for i := range 3 {
				w := do(h, up, request(t.Context(), "/a", "Range", "bytes=3-5"))
				if w.Code != 206 || w.Body.String() != "345" {
					t.Errorf("request %d: %d %q", i, w.Code, w.Body)
				}
				for name, lines := range w.Header() {
					if len(lines) != 1 {
						t.Errorf("request %d: %d lines of %s", i, len(lines), name)
					}
				}
			}
			if len(asked) != 4 {
				t.Errorf("asked the upstream for %q", asked)
			}
		})
	}
}

func TestFollowerOfAPartGoesOnWhenTheFillBreaksOff(t *testing.T) {
	for _, at := range []int{1, 4, 6} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), nil)
			var calls atomic.Int64
			up := func(w http.ResponseWriter, r *http.Request) error {
				if calls.Add(1) > 1 {
					return fixed(new(atomic.Int64), "0123456789", "Cache-Control", "max-age=60")(w, r)
				}
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Content-Length", "10")
				io.WriteString(w, "0123456789"[:at])
				time.Sleep(time.Second)
				panic(http.ErrAbortHandler)
			}
			go do(h, up, request(t.Context(), "/a"))
			synctest.Wait()
			if w := do(h, up, request(t.Context(), "/a", "Range", "bytes=3-7")); w.Code != 206 || w.Body.String() != "34567" {
				t.Errorf("broken off at %d: %d %q", at, w.Code, w.Body)
			}
		})
	}
}

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
			poll(t, "the flights have ended", func() bool { return c.nodes[i].fills.len() == 0 && c.nodes[i].asks.len() == 0 })
			if w := do(h, up, request(t.Context(), target)); w.Body.String() != "new" {
				t.Errorf("leader %d: node %d served %q afterwards", leader, i, w.Body)
			}
		}
	}
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
		} {
			w := do(h, up, request(t.Context(), "/a"))
			if w.Code != 200 || w.Body.String() != "hello" {
				t.Errorf("%s: %d %q", name, w.Code, w.Body)
			}
		}
		time.Sleep(time.Hour)
		w := do(h, func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(503); return nil }, request(t.Context(), "/a"))
		if w.Code != 503 {
			t.Errorf("after stale-if-error: %d", w.Code)
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

func TestNoCacheIsValidatedWithTheOwnersEntry(t *testing.T) {
	c := newCluster(t, 2)
	target := c.target(0)
	var calls, notModified atomic.Int64
	up := func(w http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("If-None-Match") == `"1"` {
			notModified.Add(1)
			w.Header().Set("Cache-Control", "max-age=600")
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		return fixed(&calls, "hello", "Cache-Control", "max-age=600", "Etag", `"1"`)(w, r)
	}
	do(c.handlers[0], up, request(t.Context(), target))
	w := do(c.handlers[1], up, request(t.Context(), target, "Cache-Control", "no-cache"))
	if w.Code != 200 || w.Body.String() != "hello" || calls.Load() != 1 || notModified.Load() != 1 {
		t.Errorf("%d %q after %d fetches, %d validations", w.Code, w.Body, calls.Load(), notModified.Load())
	}
}

func TestCredentials(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	auth := func(target string) *http.Request { return request(t.Context(), target, "Authorization", "Basic eA==") }
	wantStatus(t, do(h, up, auth("/a")), "detail=authorization")
	wantStatus(t, do(h, up, request(t.Context(), "/a")), "fwd=uri-miss; fwd-status=200; stored")
	wantStatus(t, do(h, up, auth("/a")), "fwd=request; fwd-status=200; detail=authorization")
	shared := fixed(&calls, "hello", "Cache-Control", "public, max-age=60")
	do(h, shared, auth("/b"))
	wantStatus(t, do(h, shared, auth("/b")), "hit")
	wantStatus(t, do(h, shared, request(t.Context(), "/b")), "hit")
}

func TestOnlyIfCached(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	if w := do(h, up, request(t.Context(), "/a", "Cache-Control", "only-if-cached")); w.Code != 504 || calls.Load() != 0 {
		t.Errorf("%d after %d fetches", w.Code, calls.Load())
	}
	do(h, up, request(t.Context(), "/a"))
	wantStatus(t, do(h, up, request(t.Context(), "/a", "Cache-Control", "only-if-cached")), "hit")
}

func TestKeysKeepRequestsApart(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	seen := map[store.Key]string{}
	for _, target := range []string{
		"http://a.test/", "https://a.test/", "http://a.test:8080/", "http://b.test/", "http://A.test/",
		"http://a.test/a", "http://a.test/a/", "http://a.test//a", "http://a.test/%61", "http://a.test/a%2Fb", "http://a.test/a/b",
		"http://a.test/?", "http://a.test/?a", "http://a.test/?a=", "http://a.test/?a=1&b=2", "http://a.test/?b=2&a=1",
		"http://a.test/a+b", "http://a.test/a%20b", "http://a.test/%0a", "http://a.test/;a",
	} {
		r := request(t.Context(), target)
		r.RequestURI = strings.TrimPrefix(strings.TrimPrefix(target, "http://"+r.Host), "https://"+r.Host)
		k, ok := keyOf(h, r)
		if !ok {
			t.Errorf("%s has no key", target)
		}
		if other, dup := seen[k]; dup {
			t.Errorf("%s and %s have one key", target, other)
		}
		seen[k] = target
	}
	for _, fields := range [][]string{
		{"X-Forwarded-Host", "b.test"}, {"X-Host", "b.test"}, {"X-Forwarded-Proto", "https"}, {"X-Original-Url", "/b"},
		{"X-Host", "a", "X-Host", "b"}, {"X-Host", "a, b"}, {"X-Host", ""}, {"X-Http-Method-Override", "DELETE"}, {"Forwarded", "host=b.test"},
	} {
		k, _ := keyOf(h, request(t.Context(), "http://a.test/", fields...))
		if other, dup := seen[k]; dup {
			t.Errorf("%q and %s have one key", fields, other)
		}
		seen[k] = fields[0]
	}
	plain, _ := keyOf(h, request(t.Context(), "/a"))
	for _, name := range []string{"Cookie", "User-Agent", "X-Forwarded-For", "X-Request-Id"} {
		if k, _ := keyOf(h, request(t.Context(), "/a", name, "x")); k != plain {
			t.Errorf("%s makes another key", name)
		}
	}
}

func TestWhatNamesFieldsInConnectionIsNotStored(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	// What reverse_proxy makes of it: the upstream sees no language.
	up := func(w http.ResponseWriter, r *http.Request) error {
		if c := r.Header.Get("Connection"); c != "" {
			r.Header.Del(c)
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "Accept-Language")
		_, err := io.WriteString(w, "in "+r.Header.Get("Accept-Language"))
		return err
	}
	wantStatus(t, do(h, up, request(t.Context(), "/a", "Accept-Language", "de", "Connection", "Accept-Language")), "fwd=bypass; fwd-status=200; detail=connection")
	w := do(h, up, request(t.Context(), "/a", "Accept-Language", "de"))
	if w.Body.String() != "in de" {
		t.Errorf("%s: %s", w.Body, w.Header().Get("Cache-Status"))
	}
}

func TestManyRangesAreAnsweredWithTheWhole(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	body := strings.Repeat("0123456789", 10)
	up := fixed(&calls, body, "Cache-Control", "max-age=60", "Content-Type", "text/plain")
	do(h, up, request(t.Context(), "/a"))
	few := do(h, up, request(t.Context(), "/a", "Range", "bytes=0-0"+strings.Repeat(",2-2", 15)))
	many := do(h, up, request(t.Context(), "/a", "Range", "bytes=0-0"+strings.Repeat(",2-2", 16)))
	twice := do(h, up, request(t.Context(), "/a", "Range", "bytes=0-1", "Range", "bytes=2-3"))
	if few.Code != 206 || many.Code != 200 || many.Body.String() != body || twice.Code != 200 {
		t.Errorf("16: %d, 17: %d %q, in two lines: %d", few.Code, many.Code, many.Body, twice.Code)
	}
}

// A testCluster is some nodes with their peer servers, without memberlist.
type testCluster struct {
	nodes    []*node
	handlers []*Handler
	servers  []*peer.Server
	addrs    []peer.Node
}

// newCluster starts nodes on loopback.
func newCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	return newClusterAt(t, n, func(*node) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}

// newClusterInBubble starts nodes inside a synctest bubble. What takes a busy
// machine long takes no time there: nodes that move megabytes, or wait for each
// other, do not seem dead to each other.
func newClusterInBubble(t testing.TB, n int) *testCluster {
	t.Helper()
	net := newNetwork()
	return newClusterAt(t, n, net.attach)
}

func newClusterAt(t testing.TB, n int, listen func(*node) net.Listener) *testCluster {
	t.Helper()
	c := new(testCluster)
	for i := range n {
		node := newNode(fmt.Sprintf("node%d", i), 64<<20)
		listener := listen(node)
		server := peer.NewServer(node, node.identity)
		go server.Serve(listener)
		t.Cleanup(func() { server.Close(); node.close() })
		c.nodes = append(c.nodes, node)
		c.servers = append(c.servers, server)
		c.addrs = append(c.addrs, peer.Node{Name: node.name, Addr: listener.Addr().String()})
		c.handlers = append(c.handlers, newHandler(t, node, func(h *Handler) { h.PeerTimeout = caddy.Duration(2 * time.Second) }))
	}
	for _, node := range c.nodes {
		node.setRing(c.addrs)
	}
	return c
}

// target returns a path that the node owns.
func (c *testCluster) target(owner int) string {
	for i := 0; ; i++ {
		path := fmt.Sprintf("/%d", i)
		k, _ := keyOf(c.handlers[0], request(context.Background(), path))
		if o, _ := c.nodes[0].ring.Load().Owner(k); o.Name == c.nodes[owner].name {
			return path
		}
	}
}

func TestClusterFetchesOnceWhoeverAsksFirst(t *testing.T) {
	c := newCluster(t, 3)
	var calls atomic.Int64
	body := strings.Repeat("hello", 50_000)
	up := fixed(&calls, body, "Cache-Control", "max-age=60", "Etag", `"1"`)
	target := c.target(1)
	do(c.handlers[0], up, request(t.Context(), target))
	waitForCommit(t, c.nodes[1], 1)
	for range 5 {
		for i, h := range c.handlers {
			w := do(h, up, request(t.Context(), target))
			wantStatus(t, w, "groupcache; hit; ttl=")
			if w.Body.String() != body {
				t.Errorf("node %d: %d bytes", i, w.Body.Len())
			}
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "detail=local")
}

// patience is with what a busy machine may take long for.
const patience = 30 * time.Second

// poll waits until something is so.
func poll(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// waitForCommit waits until a node has stored n responses.
func waitForCommit(t *testing.T, n *node, want int64) {
	t.Helper()
	poll(t, fmt.Sprintf("%s has stored %d responses", n.name, want), func() bool {
		return n.store.Namespace(defaultGroup).Entries.Load() >= want
	})
}

func TestClusterReadsAlong(t *testing.T) {
	c := newCluster(t, 3)
	var calls atomic.Int64
	begun, goOn := make(chan struct{}), make(chan struct{})
	up := func(w http.ResponseWriter, r *http.Request) error {
		calls.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "first ")
		close(begun)
		<-goOn
		_, err := io.WriteString(w, "second")
		return err
	}
	target := c.target(0)
	wait := followers(30, func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[i%3], up, request(t.Context(), target))
	})
	<-begun
	close(goOn)
	for i, w := range wait() {
		if w.Code != 200 || w.Body.String() != "first second" {
			t.Errorf("client %d of node %d: %d %q", i, i%3, w.Code, w.Body)
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
}

func TestClusterVariesByFieldsThatNobodyExpects(t *testing.T) {
	c := newCluster(t, 3)
	var calls atomic.Int64
	up := func(w http.ResponseWriter, r *http.Request) error {
		return fixed(&calls, r.Header.Get("X-Device"), "Cache-Control", "max-age=60", "Vary", "X-Device")(w, r)
	}
	target := c.target(0)
	for round := range 4 {
		for i, h := range c.handlers {
			for _, device := range []string{"phone", "desk"} {
				w := do(h, up, request(t.Context(), target, "X-Device", device))
				if w.Body.String() != device {
					t.Errorf("round %d, node %d: %q got %q", round, i, device, w.Body)
				}
			}
			waitForCommit(t, c.nodes[0], 2)
		}
	}
	if calls.Load() != 2 {
		t.Errorf("%d fetches for 2 variants", calls.Load())
	}
}

func TestClusterRemembersUncacheable(t *testing.T) {
	c := newCluster(t, 2)
	var calls atomic.Int64
	up := fixed(&calls, "mine", "Cache-Control", "private")
	target := c.target(0)
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "detail=private")
	k, _ := keyOf(c.handlers[0], request(t.Context(), target))
	poll(t, "the owner learns that the URL is uncacheable", func() bool {
		return c.nodes[0].store.Lookup(k, nil, time.Now()).Uncacheable == rfc9111.Private
	})
	wantStatus(t, do(c.handlers[0], up, request(t.Context(), target)), "detail=private")
	asked := c.nodes[0].served.Load()
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "detail=private")
	if c.nodes[0].served.Load() != asked {
		t.Error("a node that knows that the URL is uncacheable asks the owner about it")
	}
	// Cacheable after all: one response shows it, the next one is stored.
	up = fixed(&calls, "everybody's", "Cache-Control", "max-age=60")
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "detail=hit-for-miss")
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "stored")
	waitForCommit(t, c.nodes[0], 1)
	for _, i := range []int{1, 0} {
		wantStatus(t, do(c.handlers[i], up, request(t.Context(), target)), "hit")
	}
}

// TestUncacheableURLBecomesCacheable: whatever the header of its responses said, and
// not what only a whole body shows, which would be looked at in vain each time.
func TestUncacheableURLBecomesCacheable(t *testing.T) {
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{[]string{"Cache-Control", "private"}, "stored"},
		{[]string{"Cache-Control", "max-age=60", "Set-Cookie", "a=b"}, "stored"},
		{[]string{"Cache-Control", "max-age=60", "Vary", "*"}, "stored"},
		{[]string{"Cache-Control", "max-age=60", "Trailer", "X-Sum"}, "detail=hit-for-miss"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), nil)
			var calls atomic.Int64
			up := fixed(&calls, "mine", c.fields...)
			for range 3 {
				if w := do(h, up, request(t.Context(), "/a")); w.Body.String() != "mine" || len(w.Header()["Cache-Status"]) != 1 {
					t.Errorf("%v: %q, %v", c.fields, w.Body, w.Header())
				}
			}
			up = fixed(&calls, "everybody's", "Cache-Control", "max-age=60")
			wantStatus(t, do(h, up, request(t.Context(), "/a")), "detail=hit-for-miss")
			wantStatus(t, do(h, up, request(t.Context(), "/a")), c.want)
			time.Sleep(uncacheableFor)
			w := do(h, up, request(t.Context(), "/a"))
			if w.Body.String() != "everybody's" {
				t.Errorf("%v: %q", c.fields, w.Body)
			}
			wantStatus(t, do(h, up, request(t.Context(), "/a")), "hit")
		})
	}
}

// TestPassedOnForItsOwnReason: whatever the response before it said, and however soon
// after that it comes.
func TestPassedOnForItsOwnReason(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	for i, c := range []struct {
		status int
		lines  []string // of Cache-Control
		want   string
	}{
		{http.StatusOK, []string{"private"}, "private"}, // not yet passed on
		{http.StatusOK, []string{"private"}, "private"},
		{http.StatusPartialContent, []string{"private"}, "partial"},
		{http.StatusOK, []string{"no-store"}, "no-store"},
		{http.StatusOK, []string{"no-store", "private"}, "no-store"},
		{http.StatusOK, []string{"private"}, "private"},
		{http.StatusOK, []string{"private"}, "private"},
		{http.StatusOK, nil, "no-freshness"},
	} {
		up := func(w http.ResponseWriter, _ *http.Request) error {
			w.Header()["Cache-Control"] = c.lines
			w.WriteHeader(c.status)
			_, err := w.Write([]byte("mine"))
			return err
		}
		was := h.counters.notStored[reasonNamed(t, c.want)].Load()
		wantStatus(t, do(h, up, request(t.Context(), "/a")), "detail="+c.want)
		if got := h.counters.notStored[reasonNamed(t, c.want)].Load() - was; got != 1 {
			t.Errorf("%d: %d counted as %s", i, got, c.want)
		}
	}
}

func reasonNamed(t *testing.T, name string) rfc9111.Reason {
	t.Helper()
	i := slices.IndexFunc(rfc9111.Reasons(), func(r rfc9111.Reason) bool { return r.String() == name })
	if i < 0 {
		t.Fatalf("no reason %q", name)
	}
	return rfc9111.Reasons()[i]
}

// TestErrorsAreTold: an error of the handlers behind the cache, of which Caddy makes a
// response, is told and counted like a response.
func TestErrorsAreTold(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	do(h, fixed(&calls, "mine", "Cache-Control", "private"), request(t.Context(), "/private"))
	noStore := request(t.Context(), "/a", "Cache-Control", "no-store")
	conditional := request(t.Context(), "/a", "If-None-Match", `"1"`)
	post := request(t.Context(), "/a")
	post.Method = http.MethodPost
	for _, c := range []struct {
		r      *http.Request
		want   string
		status cacheStatus
	}{
		{request(t.Context(), "/a"), "groupcache; fwd=uri-miss; detail=aborted", statusMiss},
		{conditional, "groupcache; fwd=uri-miss; detail=aborted", statusMiss},
		{request(t.Context(), "/private"), "groupcache; fwd=uri-miss; detail=hit-for-miss", statusMiss},
		{noStore, "groupcache; fwd=bypass; detail=request-no-store", statusBypass},
		{post, "groupcache; fwd=method; detail=method", statusBypass},
	} {
		counted := h.counters.requests[c.status].Load()
		w := do(h, func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("X-Tried", "yes")
			return caddyhttp.Error(http.StatusBadGateway, errors.New("no upstream"))
		}, c.r)
		if got := w.Header()["Cache-Status"]; !slices.Equal(got, []string{c.want}) || w.Header().Get("X-Tried") != "yes" {
			t.Errorf("%s %s: %q, want %q; %v", c.r.Method, c.r.URL, got, c.want, w.Header())
		}
		if got := replacer(c.r).ReplaceAll("{http.groupcache.status}", ""); got != statusNames[c.status] {
			t.Errorf("%s %s: placeholder %q", c.r.Method, c.r.URL, got)
		}
		if got := h.counters.requests[c.status].Load(); got != counted+1 {
			t.Errorf("%s %s: counted %d times", c.r.Method, c.r.URL, got-counted)
		}
	}
}

// TestPassedOnIsToldOnce: what is passed on for a URL known to be uncacheable is
// counted, and explained, like what was fetched before it was known.
func TestPassedOnIsToldOnce(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	r := request(t.Context(), "/a")
	k, _ := keyOf(h, r)
	var calls atomic.Int64
	for _, c := range []struct {
		up  caddyhttp.HandlerFunc
		why rfc9111.Reason
		end fillResult
	}{
		{fixed(&calls, "mine", "Cache-Control", "private"), rfc9111.Private, fillNotStored},
		{fixed(&calls, "mine", "Cache-Control", "no-store"), rfc9111.NoStore, fillNotStored},
		{func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }, rfc9111.Aborted, fillFailed},
		{func(http.ResponseWriter, *http.Request) error { return errors.New("no upstream") }, rfc9111.Aborted, fillFailed},
		{func(http.ResponseWriter, *http.Request) error { return nil }, rfc9111.Aborted, fillFailed},
	} {
		refused, ended := h.counters.notStored[c.why].Load(), h.counters.fills[c.end].Load()
		w := do(h, c.up, request(t.Context(), "/a"))
		if last, _ := h.node.refusals.of(k); last.why != c.why {
			t.Errorf("explained by %v, want %v", last.why, c.why)
		}
		if h.counters.notStored[c.why].Load() != refused+1 || h.counters.fills[c.end].Load() != ended+1 {
			t.Errorf("%v: %d refused, want %d; %d ended so, want %d", c.why, h.counters.notStored[c.why].Load(), refused+1, h.counters.fills[c.end].Load(), ended+1)
		}
		if w.Code == 200 && len(w.Header()["Cache-Status"]) != 1 {
			t.Errorf("%v: Cache-Status is %q", c.why, w.Header()["Cache-Status"])
		}
	}
}

// TestPlaceholdersAreOfTheLastHandler: of two in a route the outer one, which has the
// last word on the response, sets them last.
func TestPlaceholdersAreOfTheLastHandler(t *testing.T) {
	repl := caddy.NewReplacer()
	for _, want := range []string{"miss private", "hit local", "miss too-large"} {
		status, detail, _ := strings.Cut(want, " ")
		setPlaceholders(repl, status, detail, true)
		if got := repl.ReplaceAll("{http.groupcache.status} {http.groupcache.detail}", ""); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestPlaceholdersOfNestedHandlers: of two of which one is behind the other, the outer
// one sets them last, whatever the inner one leaves of a Cache-Status.
func TestPlaceholdersOfNestedHandlers(t *testing.T) {
	var calls atomic.Int64
	for _, name := range []string{"", cacheStatusOff} {
		n := newLoneNode(t)
		outer := newHandler(t, n, func(h *Handler) { h.Group = "a" })
		inner := newHandler(t, n, func(h *Handler) { h.Group, h.CacheStatus = "b", name })
		up := fixed(&calls, "mine", "Cache-Control", "private")
		stored := fixed(&calls, "everybody's", "Cache-Control", "max-age=60")
		do(inner, stored, request(t.Context(), "/a"))
		for _, c := range []struct {
			path string
			up   func(http.ResponseWriter, *http.Request) error
			want string
		}{
			{"/a", stored, "miss "}, // the inner one has a hit
			{"/b", up, "miss private"},
			{"/b", up, "miss private"}, // passed on
		} {
			r := request(t.Context(), c.path)
			do(outer, func(w http.ResponseWriter, r *http.Request) error {
				return inner.ServeHTTP(w, r, caddyhttp.HandlerFunc(c.up))
			}, r)
			if got := replacer(r).ReplaceAll("{http.groupcache.status} {http.groupcache.detail}", ""); got != c.want {
				t.Errorf("%s, inner cache_status %q: %q, want %q", c.path, name, got, c.want)
			}
		}
	}
}

// TestPlaceholdersOfAHitInAnErrorRoute: the handler in the route for the error of
// another one has the last word, also if that one leaves no Cache-Status.
func TestPlaceholdersOfAHitInAnErrorRoute(t *testing.T) {
	n := newLoneNode(t)
	for _, name := range []string{"", cacheStatusOff} {
		failing := newHandler(t, n, func(h *Handler) { h.Group, h.CacheStatus = "a"+name, name })
		fallback := newHandler(t, n, func(h *Handler) { h.Group = "b" })
		up := func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Cache-Control", "max-age=60")
			_, err := w.Write([]byte("hello"))
			return err
		}
		do(fallback, up, request(t.Context(), "/"))
		r, w := request(t.Context(), "/"), httptest.NewRecorder()
		down := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			return caddyhttp.Error(http.StatusBadGateway, errors.New("down"))
		})
		if err := failing.ServeHTTP(w, r, down); err == nil {
			t.Fatal("no error")
		}
		if err := fallback.ServeHTTP(w, r, down); err != nil || w.Body.String() != "hello" {
			t.Fatalf("%v, %q", err, w.Body)
		}
		if got := replacer(r).ReplaceAll("{http.groupcache.status} {http.groupcache.detail}", ""); got != "hit local" {
			t.Errorf("cache_status %q: %q", name, got)
		}
	}
}

// TestHitFieldsAreTheEntrys: whatever was said of other responses before.
func TestHitFieldsAreTheEntrys(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	now := time.Now()
	check := func(status cacheStatus, detail string, age, lifetime int) {
		t.Helper()
		e := new(store.Entry)
		e.Fresh = rfc9111.Freshness{Received: now, InitialAge: time.Duration(age) * time.Second, Lifetime: time.Duration(lifetime) * time.Second}
		want := fmt.Sprintf("groupcache; hit; ttl=%d; detail=%s", lifetime-age, detail)
		if status == statusRevalidated {
			want = "groupcache; fwd=stale; fwd-status=304"
		}
		if a, member := h.hitFields(e, status, detail, now); a != strconv.Itoa(age) || member != want {
			t.Errorf("Age %s, %q, want %d, %q", a, member, age, want)
		}
	}
	for _, age := range []int{0, 1, 2, 1000} {
		for _, lifetime := range []int{0, 64, 0, 128, 1, 1000} { // what is stale has a negative ttl
			for range 2 {
				check(statusHit, "local", age, lifetime)
			}
		}
	}
	check(statusHit, "local", 1, 100)
	check(statusHit, "peer", 1, 100)
	check(statusRevalidated, "peer", 1, 100)
	check(statusHit, "local", 31, 31)
	check(statusHit, "local", 0, 1) // 31 more of the one and one less of the other
	check(statusHit, "local", 64, 64)
	check(statusHit, "local", 0, 0)
}

// TestStaleIsValidatedWhereTheOwnerCallsItUncacheable: what the owner says of the
// URL does not make void what this node has of it.
func TestStaleIsValidatedWhereTheOwnerCallsItUncacheable(t *testing.T) {
	c := newCluster(t, 2)
	var calls, notModified atomic.Int64
	up := confirmed(&calls, &notModified, "max-age=0", "max-age=600")
	target := c.target(0)
	do(c.handlers[1], up, request(t.Context(), target))
	waitForCommit(t, c.nodes[0], 1)
	k, _ := keyOf(c.handlers[0], request(t.Context(), target))
	owner := c.nodes[0].store
	owner.Drop(k, owner.Lookup(k, nil, time.Now()).Entry)
	owner.MarkUncacheable(owner.Namespace(c.handlers[0].Group), k, rfc9111.Private, time.Now().Add(time.Minute))
	if w := do(c.handlers[1], up, request(t.Context(), target)); w.Code != 200 || w.Body.String() != "hello" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if calls.Load() != 1 || notModified.Load() != 1 {
		t.Errorf("%d fetches, %d validations", calls.Load(), notModified.Load())
	}
}

func TestClusterRevalidatesOnce(t *testing.T) {
	c := newCluster(t, 3)
	var calls, notModified atomic.Int64
	up := confirmed(&calls, &notModified, "max-age=0", "max-age=600")
	target := c.target(0)
	do(c.handlers[1], up, request(t.Context(), target))
	waitForCommit(t, c.nodes[0], 1)
	for _, i := range []int{2, 1, 0} {
		w := do(c.handlers[i], up, request(t.Context(), target))
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("node %d: %d %q", i, w.Code, w.Body)
		}
	}
	if calls.Load() != 1 || notModified.Load() != 1 {
		t.Errorf("%d fetches, %d validations", calls.Load(), notModified.Load())
	}
}

func TestOwnerThatIsGoneCostsNobodyAnything(t *testing.T) {
	c := newCluster(t, 2)
	c.servers[0].Close()
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	target := c.target(0)
	w := do(c.handlers[1], up, request(t.Context(), target))
	wantStatus(t, w, "stored; detail=peer-error")
	wantStatus(t, do(c.handlers[1], up, request(t.Context(), target)), "hit")
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
}

func TestNodesThatDisagreeAboutTheRingDoNotWaitForEachOther(t *testing.T) {
	c := newCluster(t, 2)
	// Each believes that the other one owns everything.
	c.nodes[0].setRing(c.addrs[1:])
	c.nodes[1].setRing(c.addrs[:1])
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	wait := followers(40, func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[i%2], up, request(t.Context(), "/a"))
	})
	for i, w := range wait() {
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("client %d: %d %q", i, w.Code, w.Body)
		}
	}
	if n := calls.Load(); n > 2 {
		t.Errorf("%d fetches by 2 nodes", n)
	}
}

func TestLeaderThatDiesIsFollowedByAnother(t *testing.T) {
	c := newCluster(t, 2)
	target := c.target(0)
	k, _ := keyOf(c.handlers[0], request(t.Context(), target))
	// A third node gets the lease, and is never heard of again.
	third := peer.NewClient(new(peer.Identity))
	query := peer.NewQuery(defaultGroup, k, nil, nil)
	query.Lead = true
	reply, err := third.Lookup(t.Context(), c.addrs[0], query, patience)
	if err != nil || reply.Kind != peer.Lease {
		t.Fatalf("%v, %v", reply, err)
	}
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	wait := followers(20, func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[i%2], up, request(t.Context(), target))
	})
	// It has asked, and asked again to read along.
	poll(t, "node 1 has joined", func() bool { return c.nodes[0].served.Load() == 3 })
	if calls.Load() != 0 {
		t.Error("somebody did not wait for the leader")
	}
	reply.Close()
	for i, w := range wait() {
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("client %d: %d %q", i, w.Code, w.Body)
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestUpstreamErrorOnAnotherNodeHoldsUpNobody(t *testing.T) {
	c := newCluster(t, 2)
	target := c.target(0)
	asked, fail := make(chan struct{}), make(chan struct{})
	go do(c.handlers[1], func(http.ResponseWriter, *http.Request) error {
		close(asked)
		<-fail
		return io.ErrUnexpectedEOF
	}, request(t.Context(), target))
	<-asked
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60")
	wait := followers(20, func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[i%2], up, request(t.Context(), target))
	})
	close(fail)
	for i, w := range wait() {
		if w.Code != 200 || w.Body.String() != "hello" {
			t.Errorf("client %d: %d %q", i, w.Code, w.Body)
		}
	}
}

func TestNoGoroutineIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("traffic", func(t *testing.T) {
		c := newCluster(t, 3)
		up := func(w http.ResponseWriter, r *http.Request) error {
			switch r.URL.Path[1:2] {
			case "1":
				return io.ErrUnexpectedEOF
			case "2":
				return fixed(new(atomic.Int64), "mine", "Cache-Control", "private")(w, r)
			case "3":
				w.Header().Set("Cache-Control", "max-age=60")
				io.WriteString(w, "partial")
				panic(http.ErrAbortHandler)
			}
			return fixed(new(atomic.Int64), strings.Repeat("x", 100_000), "Cache-Control", "max-age=60")(w, r)
		}
		followers(300, func(i int) *httptest.ResponseRecorder {
			return do(c.handlers[i%3], up, request(t.Context(), fmt.Sprintf("/%d", i%50)))
		})()
		for _, n := range c.nodes {
			poll(t, "no flight and no memory is left", func() bool {
				return n.fills.len() == 0 && n.asks.len() == 0 && n.budget.Used() == 0
			})
		}
	})
	poll(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// Over HTTP/3 a request doesn't say that it has no body.
func TestHTTP3(t *testing.T) {
	var calls atomic.Int64
	up := fixed(&calls, "page", "Cache-Control", "max-age=60")
	h := newHandler(t, newLoneNode(t), nil)
	ask := func(body io.Reader) *http.Request {
		r := request(t.Context(), "/a")
		r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/3.0", 3, 0
		r.Body, r.ContentLength = io.NopCloser(body), -1
		return r
	}
	do(h, func(w http.ResponseWriter, r *http.Request) error {
		if r.ContentLength != 0 {
			t.Errorf("the upstream is sent a body of %d bytes", r.ContentLength)
		}
		return up(w, r)
	}, ask(strings.NewReader("")))
	wantStatus(t, do(h, up, ask(strings.NewReader(""))), "groupcache; hit")

	broken := errors.New("reset")
	for _, body := range []string{"", "b", "body"} {
		for _, end := range []error{io.EOF, broken} {
			if body == "" && end == io.EOF {
				continue
			}
			w := do(h, func(w http.ResponseWriter, r *http.Request) error {
				got, err := io.ReadAll(r.Body)
				if string(got) != body || err != nil != (end == broken) {
					t.Errorf("the upstream is sent %q, %v, want %q, %v", got, err, body, end)
				}
				return up(w, r)
			}, ask(io.MultiReader(strings.NewReader(body), iotest.ErrReader(end))))
			wantStatus(t, w, "detail=request-body")
		}
	}
}
