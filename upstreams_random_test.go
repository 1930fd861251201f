package caddygroupcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

// A fickle upstream answers each request as chance has it, and lies about no byte: the
// response may change, be cut off, be another part than was asked for, an error, or late.
type fickle struct {
	bodies [][]byte
	mu     sync.Mutex // guards random and now
	random *rand.Rand
	now    int // the version that it has
	calls  atomic.Int64
	limit  int64 // of calls; beyond it, something goes on without end
}

func (u *fickle) draw(n int) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.random.IntN(n)
}

// one returns one of some texts.
func (u *fickle) one(of ...string) string { return of[u.draw(len(of))] }

func (u *fickle) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	if u.calls.Add(1) > u.limit {
		runtime.Goexit()
	}
	if u.draw(4) == 0 {
		u.mu.Lock()
		u.now = u.random.IntN(len(u.bodies))
		u.mu.Unlock()
	}
	u.mu.Lock()
	version := u.now
	u.mu.Unlock()
	switch u.draw(14) {
	case 0:
		return caddyhttp.Error(http.StatusBadGateway, errors.New("connection refused"))
	case 1:
		panic(http.ErrAbortHandler)
	case 2, 3:
		select {
		case <-time.After(time.Duration(u.draw(int(20 * time.Second)))):
		case <-r.Context().Done():
			return caddyhttp.Error(http.StatusGatewayTimeout, r.Context().Err())
		}
	}
	h, tag := w.Header(), fmt.Sprintf(`"%d"`, version)
	h.Set("Cache-Control", u.one("max-age=60", "max-age=1, stale-while-revalidate=60", "max-age=1, stale-if-error=60", "no-store", "private", "no-cache", "max-age=0, stale-if-error=60", ""))
	switch u.draw(8) {
	case 0:
		tag = "W/" + tag
	case 1:
		tag = ""
	}
	if tag != "" {
		h.Set("Etag", tag)
	}
	if u.draw(8) == 0 {
		h.Set("Vary", "X-Kind")
	}
	if u.draw(10) == 0 {
		status, _ := strconv.Atoi(u.one("404", "410", "416", "500", "503", "204"))
		w.WriteHeader(status)
		return nil
	}
	if tag != "" && r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return u.send(w, r, u.bodies[version])
}

// send sends the whole or a part, or some of it.
func (u *fickle) send(w http.ResponseWriter, r *http.Request, body []byte) error {
	var start, end int
	size, status := len(body), http.StatusOK
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &start, &end); n > 0 && start < size && size > 0 && u.draw(5) > 0 {
		if start < 0 { // the last bytes
			start, n = max(0, size+start), 1
		}
		if n == 1 || end >= size {
			end = size - 1
		}
		switch u.draw(8) {
		case 0:
			start = u.draw(end + 1)
		case 1:
			end = start + u.draw(end-start+1)
		}
		status, body = http.StatusPartialContent, body[start:end+1]
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end, size))
	}
	if u.draw(4) > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	for len(body) > 0 {
		n, err := w.Write(body[:min(len(body), 300_000)])
		if err != nil {
			return err
		}
		switch body = body[n:]; u.draw(40) {
		case 0:
			panic(http.ErrAbortHandler)
		case 1:
			time.Sleep(time.Second)
		}
	}
	return nil
}

// askRandomly sends a request as chance has it, whose client may go away, and returns what
// is wrong with the answer.
func (u *fickle) askRandomly(t *testing.T, h *Handler) error {
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r := request(ctx, "/a")
	if u.draw(5) == 0 {
		r.Method = http.MethodHead
	}
	for name, value := range map[string]string{
		"Range":         u.one("", "", "bytes=0-9", "bytes=1048570-1048580", "bytes=2500000-2500009", "bytes=100-", "bytes=-10"),
		"Cache-Control": u.one("", "", "", "", "no-cache", "max-stale", "only-if-cached"),
		"If-None-Match": u.one("", "", "", `"0"`),
		"Authorization": u.one("", "", "", "", "", "alice"),
		"X-Kind":        u.one("", "a"),
	} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	if u.draw(4) == 0 {
		time.AfterFunc(time.Duration(u.draw(int(3*time.Second))), leave)
	}
	w, cut := httptest.NewRecorder(), false
	func() {
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			} else if p != nil {
				cut = true
			}
		}()
		cut = h.ServeHTTP(w, r, u) != nil
	}()
	if err := u.check(w, cut || ctx.Err() != nil || r.Method == http.MethodHead); err != nil {
		return fmt.Errorf("%s %v: %d %v: %w", r.Method, r.Header, w.Code, w.Header(), err)
	}
	return nil
}

// check compares an answer with what the upstream has ever had.
func (u *fickle) check(w *httptest.ResponseRecorder, cut bool) error {
	got, start, size := w.Body.Bytes(), 0, -1
	switch w.Code {
	case http.StatusOK:
	case http.StatusPartialContent:
		var end int
		if n, err := fmt.Sscanf(w.Header().Get("Content-Range"), "bytes %d-%d/%d", &start, &end, &size); n != 3 {
			return fmt.Errorf("Content-Range: %w", err)
		}
		if !cut && len(got) != end-start+1 {
			return fmt.Errorf("%d bytes", len(got))
		}
	default:
		return nil
	}
	if length, err := strconv.Atoi(w.Header().Get("Content-Length")); err == nil && len(got) > length {
		return io.ErrShortWrite
	} else if err == nil && len(got) < length {
		cut = true // net/http closes the connection
	}
	for _, body := range u.bodies {
		if size >= 0 && len(body) != size || len(body) < start+len(got) || !cut && size < 0 && len(body) != len(got) {
			continue
		}
		if bytes.Equal(body[start:start+len(got)], got) {
			return nil
		}
	}
	return fmt.Errorf("%d bytes that the upstream never had there, cut: %t", len(got), cut)
}

// TestFickleUpstream: whatever an upstream does, and whoever asks at the same time, each
// request ends, after few requests to the upstream, with bytes of one response.
func TestFickleUpstream(t *testing.T) {
	seeds := seed.Of(t)
	const clients, rounds = 4, 6
	runs := 150
	if raceDetector {
		runs = 8
	}
	for i := range runs {
		nodes := 1 + i%3
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClusterInBubble(t, nodes)
				u := &fickle{random: seeds.Rand(), limit: 3 * clients * rounds}
				for _, size := range []int{3<<20 + 7, 3<<20 + 7, 1 << 20, 3<<20 + 9, 100, 0} {
					u.bodies = append(u.bodies, randomBody(size))
					u.bodies[len(u.bodies)-1] = append([]byte(fmt.Sprint(len(u.bodies))), u.bodies[len(u.bodies)-1][min(1, size):]...)
				}
				if u.draw(2) == 0 {
					c.staleAfter(200 * time.Millisecond)
				}
				if u.draw(4) == 0 { // a node is lost to the others
					time.AfterFunc(time.Duration(u.draw(int(10*time.Second))), func() { c.servers[0].Close() })
				}
				for range rounds {
					var all sync.WaitGroup
					for range clients {
						h := c.handlers[u.draw(nodes)]
						all.Go(func() {
							if err := u.askRandomly(t, h); err != nil {
								t.Error(err)
							}
						})
					}
					all.Wait()
					time.Sleep(time.Duration(u.draw(int(3 * time.Second))))
				}
				time.Sleep(2 * time.Minute) // what goes on in the background
				if n := u.calls.Load(); n > u.limit {
					t.Errorf("%d requests to the upstream", n)
				}
				for _, n := range c.nodes {
					idle(t, n)
				}
			})
		})
	}
}
