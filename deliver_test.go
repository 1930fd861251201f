package caddygroupcache

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

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
	w := do(h, up, request(t.Context(), "/a", "Range", "Bytes=0-1,8-9"))
	if w.Code != 206 || !strings.HasPrefix(w.Header().Get("Content-Type"), "multipart/byteranges") || !strings.Contains(w.Body.String(), "\r\n\r\n89\r\n") {
		t.Errorf("several: %d %v %q", w.Code, w.Header(), w.Body)
	}
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
}

// TestPartsThatAreNone: of another unit, which a server has to pass over (RFC 9110 §14.2), and of
// nothing. A 416 is of no freshness: that of the response would have caches keep the 416.
func TestPartsThatAreNone(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	for path, body := range map[string]string{"/a": "0123456789", "/empty": ""} {
		up := fixed(&calls, body, "Cache-Control", "max-age=60", "Cdn-Cache-Control", "max-age=60", "Expires", "Fri, 01 Jan 2100 00:00:00 GMT", "Etag", `"1"`, "Content-Type", "text/plain")
		do(h, up, request(t.Context(), path))
		for ranges, want := range map[string]int{"lines=0-1": 200, "0-1": 200, "bytes=a-b": 200, "bytes=-0": 416, "bytes=-0,10-": 416, "bytes=-5": 206, "bytes=0-": 206} {
			if body == "" {
				want = 200
			}
			w := do(h, up, request(t.Context(), path, "Range", ranges))
			wantStatus(t, w, "hit")
			if w.Code != want || want == 200 && w.Body.String() != body {
				t.Errorf("%s, %s: %d %q", path, ranges, w.Code, w.Body)
			}
			if of := w.Header().Get("Content-Range"); (of != "") != (want > 200) || want == 416 && of != "bytes */10" {
				t.Errorf("%s, %s: Content-Range %q", path, ranges, of)
			}
			for _, name := range []string{"Cache-Control", "Cdn-Cache-Control", "Expires", "Etag"} {
				if (w.Header().Get(name) == "") != (want == 416) {
					t.Errorf("%s, %s: %d with %s %q", path, ranges, w.Code, name, w.Header().Get(name))
				}
			}
		}
	}
}

// TestContentMD5: clients compare it with the bytes that they get (RFC 1864).
func TestContentMD5(t *testing.T) {
	body := randomBody(3 << 20)
	h := newHandler(t, newLoneNode(t), nil)
	var calls atomic.Int64
	do(h, fixed(&calls, "0123456789", "Cache-Control", "max-age=60", "Content-Md5", "eB5eJF1p"), request(t.Context(), "/a"))
	up := &answers{body: body, change: func(a *partAnswer) { a.header.Set("Content-Md5", "of the part") }}
	for _, tt := range []struct {
		path, method, ranges string
		want                 bool
	}{
		{"/a", "GET", "", true}, {"/a", "HEAD", "", true}, {"/a", "GET", "bytes=0-1", false}, {"/a", "GET", "bytes=0-1,3-4", false}, {"/a", "GET", "bytes=10-", false},
		{"/parts", "GET", "bytes=2000000-2000009", false}, {"/parts", "GET", "", false},
	} {
		r := request(t.Context(), tt.path)
		if r.Method = tt.method; tt.ranges != "" {
			r.Header.Set("Range", tt.ranges)
		}
		w := do(h, up.ServeHTTP, r)
		if got := w.Header()["Content-Md5"]; (len(got) > 0) != tt.want {
			t.Errorf("%v: %d with %q (%s)", tt, w.Code, got, w.Header().Get("Cache-Status"))
		}
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
		if a, member := (&storedResponse{entry: e, status: status, detail: detail, now: now}).fields(h); a != strconv.Itoa(age) || member != want {
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
