package caddygroupcache

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
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
