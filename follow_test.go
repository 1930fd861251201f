package caddygroupcache

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

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
	h.node.Fills.Mu.Lock()
	wait := followers(1, func(int) *httptest.ResponseRecorder { return do(h, up, request(t.Context(), "/a")) })
	poll(t, "the request has found nothing and wants to join", func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*flights).join(")
	})
	// Now somebody else's flight lands.
	r := request(t.Context(), "/a")
	k, _ := keyOf(h, r)
	e, _ := store.NewEntry(200, http.Header{}, r.Header, rfc9111.Freshness{Received: time.Now(), Lifetime: time.Minute}, time.Now())
	h.node.Store.Commit(h.space, k, e, []byte("stored meanwhile"))
	h.node.Fills.Mu.Unlock()
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

// TestReadersOfALeaderThatEndsGoOnAtOnce: a node ends amid a fetch that it leads. A client
// that reads along on another node loses no time, whichever node owns the key: the upstream
// is asked again in the same moment. The client stands still for as long as the upstream
// takes to come to where the client is, since bytes are joined only after a comparison.
func TestReadersOfALeaderThatEndsGoOnAtOnce(t *testing.T) {
	const pieces, had, moment = 10, 5, 10 * time.Millisecond
	for name, owner := range map[string]int{"of the reader's node": 0, "of the leader": 1, "of a third node": 2} {
		t.Run("key "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 3, nil)
				var calls atomic.Int64
				ended, asked := make(chan struct{}), make(chan time.Time, 1)
				up := func(w http.ResponseWriter, r *http.Request) error {
					leads := calls.Add(1) == 1
					if !leads {
						asked <- time.Now()
					}
					w.Header().Set("Cache-Control", "max-age=60")
					for i := range pieces {
						_, _ = io.WriteString(w, strings.Repeat(fmt.Sprint(i), 1000))
						_ = http.NewResponseController(w).Flush()
						if leads && i == had-1 {
							<-ended
							return io.ErrUnexpectedEOF
						}
						time.Sleep(time.Second)
					}
					return nil
				}
				url := b.urlOf(b.nodes[owner])
				leader := followers(1, func(int) *httptest.ResponseRecorder { return do(b.nodes[1].handler, up, request(t.Context(), url)) })
				time.Sleep(time.Second / 2)
				reader := followers(1, func(int) *httptest.ResponseRecorder { return do(b.nodes[0].handler, up, request(t.Context(), url)) })
				time.Sleep((had - 1) * time.Second)
				end := time.Now()
				b.nodes[1].crash()
				again := <-asked
				close(ended)
				w := reader()[0]
				took := time.Since(end)
				leader()
				if w.Body.Len() != pieces*1000 || calls.Load() != 2 || !strings.Contains(w.Header().Get("Cache-Status"), "collapsed") {
					t.Errorf("%d: %d bytes after %d fetches: %s", w.Code, w.Body.Len(), calls.Load(), w.Header().Get("Cache-Status"))
				}
				if again.Sub(end) > moment || took > pieces*time.Second+moment {
					t.Errorf("the upstream was asked after %v, and the reader had all after %v", again.Sub(end), took)
				}
			})
		})
	}
}
