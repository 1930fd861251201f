package caddygroupcache

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

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
		if n := calls.Load(); n != 1 { // who has followed it so far has the rest of it too
			t.Errorf("%d fetches", n)
		}
		wantStatus(t, do(h, up, request(t.Context(), "/a")), "detail=hit-for-miss")
		if used := h.node.Budget.Used(); used != 0 {
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

// A finalWriter is a client that takes no notice of interim responses.
type finalWriter struct{ *httptest.ResponseRecorder }

func (w finalWriter) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseRecorder.WriteHeader(status)
	}
}

// TestFieldsOfAnInterimResponse are not those of the response after it, wherever that comes
// from.
func TestFieldsOfAnInterimResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		status := http.StatusOK
		up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Link", "</old.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link") // as reverse_proxy does
			w.Header().Set("Cache-Control", "max-age=1, stale-if-error=600")
			w.Header().Set("Etag", `"1"`)
			w.WriteHeader(status)
			return nil
		})
		for _, status = range []int{http.StatusOK, http.StatusNotModified, http.StatusServiceUnavailable} {
			w := finalWriter{httptest.NewRecorder()}
			w.Header().Set("X-Front", "1")
			if err := h.ServeHTTP(w, request(t.Context(), "/a"), up); err != nil {
				t.Error(err)
			}
			if w.Code != http.StatusOK || w.Header().Get("Link") != "" || w.Header().Get("X-Front") != "1" {
				t.Errorf("after %d: %d %v", status, w.Code, w.Header())
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// A stalledWriter is a client that does not take an interim response before it is let to.
type stalledWriter struct {
	*httptest.ResponseRecorder
	stalled, let chan struct{}
}

func (w stalledWriter) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseRecorder.WriteHeader(status)
		return
	}
	close(w.stalled)
	<-w.let
}

// TestClientThatTakesNoInterimResponse: other requests do not wait for the client: they ask
// for themselves, and the client gets its response when it takes one.
func TestClientThatTakesNoInterimResponse(t *testing.T) {
	for owner := range 2 {
		synctest.Test(t, func(t *testing.T) {
			c := newClusterInBubble(t, 2)
			target := c.target(owner)
			var calls atomic.Int64
			up := func(w http.ResponseWriter, r *http.Request) error {
				calls.Add(1)
				w.WriteHeader(http.StatusEarlyHints)
				w.Header().Set("Cache-Control", "max-age=60")
				_, err := io.WriteString(w, "page")
				return err
			}
			slow := stalledWriter{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
			var all sync.WaitGroup
			all.Go(func() {
				if err := c.handlers[0].ServeHTTP(slow, request(t.Context(), target), caddyhttp.HandlerFunc(up)); err != nil {
					t.Error(err)
				}
			})
			<-slow.stalled
			begun := time.Now()
			wait := followers(6, func(i int) *httptest.ResponseRecorder {
				w := finalWriter{httptest.NewRecorder()}
				if err := c.handlers[i%2].ServeHTTP(w, request(t.Context(), target), caddyhttp.HandlerFunc(up)); err != nil {
					t.Error(err)
				}
				return w.ResponseRecorder
			})
			for _, w := range wait() {
				if w.Body.String() != "page" {
					t.Errorf("%d %q", w.Code, w.Body)
				}
			}
			if took := time.Since(begun); took > 2*time.Duration(c.handlers[0].PeerTimeout) {
				t.Errorf("owner %d: they have waited %v", owner, took)
			}
			close(slow.let)
			all.Wait()
			if slow.Body.String() != "page" || calls.Load() != 2 {
				t.Errorf("owner %d: %q after %d requests to the upstream", owner, slow.Body, calls.Load())
			}
			for _, n := range c.nodes {
				idle(t, n)
			}
		})
	}
}

// A lateWriter changes its header when the body comes, as encode and HTTP/3 do.
type lateWriter struct {
	*httptest.ResponseRecorder
	began chan struct{}
}

func (w lateWriter) Write(p []byte) (int, error) {
	select {
	case w.began <- struct{}{}:
	default:
	}
	w.Header().Set("Content-Encoding", "none")
	w.Header().Del("Content-Length")
	return w.ResponseRecorder.Write(p)
}

// TestHeaderIsItsWritersOwn: what the client's writer does to its header while a body comes
// in, and what the handlers do to theirs, do not meet.
func TestHeaderIsItsWritersOwn(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	w := lateWriter{httptest.NewRecorder(), make(chan struct{}, 1)}
	up := caddyhttp.HandlerFunc(func(to http.ResponseWriter, r *http.Request) error {
		to.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(to, "0123456789")
		<-w.began
		to.Header().Set(http.TrailerPrefix+"X-More", "2")
		return nil
	})
	if err := h.ServeHTTP(w, request(t.Context(), "/"), up); err != nil {
		t.Fatal(err)
	}
	if w.Body.String() != "0123456789" || w.Header().Get(http.TrailerPrefix+"X-More") != "2" {
		t.Errorf("%q, %v", w.Body, w.Header())
	}
}
