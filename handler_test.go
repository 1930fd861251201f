package caddygroupcache

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

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
