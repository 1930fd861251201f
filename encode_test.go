package caddygroupcache

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode/gzip"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

// Caddy's own encode stands behind the cache in most sites that compress. It keeps a
// strong tag strong, with its name appended, though its bytes depend on how its input
// arrives.

// encoded returns an upstream with Caddy's encode before it.
func encoded(t testing.TB, up caddyhttp.HandlerFunc) caddyhttp.HandlerFunc {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	e := &encode.Encode{EncodingsRaw: caddy.ModuleMap{"gzip": json.RawMessage("{}")}}
	if err := e.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, r *http.Request) error { return e.ServeHTTP(w, r, up) }
}

// textOf returns text that compresses to half of its size, more or less.
func textOf(size int) []byte {
	return fmt.Appendf(nil, "%x", randomBody(size/2))
}

// inPieces writes a body as a chunked response of an upstream arrives: no two times
// in the same pieces.
func inPieces(w http.ResponseWriter, random *rand.Rand, body []byte) error {
	for len(body) > 0 {
		n := min(len(body), 1000+random.IntN(60_000))
		if _, err := w.Write(body[:n]); err != nil {
			return err
		}
		_ = http.NewResponseController(w).Flush()
		body = body[n:]
	}
	return nil
}

// wantText fails the test unless a client has got all of a text, or was cut off.
func wantText(t *testing.T, what string, w *httptest.ResponseRecorder, want []byte) (whole bool) {
	t.Helper()
	if w.Code == -1 {
		return false
	}
	var body io.Reader = w.Body
	size := w.Body.Len()
	if w.Header().Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Errorf("%s: %d bytes: %v", what, size, err)
			return false
		}
		body = z
	}
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: a complete response of %d bytes, of which %d are text (%v), and not %d: %s", what, size, len(got), err, len(want), w.Header().Get("Cache-Status"))
		return false
	}
	return true
}

// TestEncodedBodyIsNotPutTogetherOfTwo: an upstream breaks off amid its first answer.
// The clients of the others get what decodes, or are cut off.
func TestEncodedBodyIsNotPutTogetherOfTwo(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for _, tag := range []string{`"t"`, `W/"t"`, ""} {
			t.Run(fmt.Sprintf("%d nodes, tag %s", nodes, tag), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					seeds := seed.Of(t)
					c, text := newClusterInBubble(t, nodes), textOf(600_000)
					var calls atomic.Int64
					up := encoded(t, func(w http.ResponseWriter, r *http.Request) error {
						w.Header().Set("Cache-Control", "max-age=60")
						w.Header().Set("Content-Type", "text/plain")
						if tag != "" {
							w.Header().Set("Etag", tag)
						}
						if calls.Add(1) > 1 {
							return inPieces(w, seeds.Rand(), text)
						}
						_ = inPieces(w, seeds.Rand(), text[:len(text)/2])
						time.Sleep(time.Second)
						panic(http.ErrAbortHandler)
					})
					wait := followers(3+nodes, func(i int) *httptest.ResponseRecorder {
						return do(c.handlers[i%nodes], up, request(t.Context(), "/a", "Accept-Encoding", "gzip"))
					})
					for i, w := range wait() {
						wantText(t, fmt.Sprint("client ", i), w, text)
					}
				})
			})
		}
	}
}

// TestEncodedBodyThatOutgrowsTheLimit: it is nobody's fault, and all clients have it,
// whichever node fetches it.
func TestEncodedBodyThatOutgrowsTheLimit(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for leader := range nodes {
			for _, limit := range []int64{100_000, 1_100_000} {
				t.Run(fmt.Sprintf("node %d of %d, %d bytes", leader, nodes, limit), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testOutgrown(t, nodes, leader, limit) })
				})
			}
		}
	}
}

func testOutgrown(t *testing.T, nodes, leader int, limit int64) {
	seeds := seed.Of(t)
	c, text := newClusterInBubble(t, nodes), textOf(int(limit)*2)
	for _, h := range c.handlers {
		limitBodies(h, limit)
	}
	var calls atomic.Int64
	up := encoded(t, func(w http.ResponseWriter, r *http.Request) error {
		calls.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Etag", `"t"`)
		for _, piece := range [][]byte{text[:50_000], text[50_000:100_000], text[100_000:]} {
			if err := inPieces(w, seeds.Rand(), piece); err != nil {
				return err
			}
			time.Sleep(time.Second)
		}
		return nil
	})
	target := c.target(0)
	get := func(i int) *httptest.ResponseRecorder {
		return do(c.handlers[(leader+i)%nodes], up, request(t.Context(), target, "Accept-Encoding", "gzip"))
	}
	wait := followers(1, get)
	synctest.Wait()
	for i, w := range append(followers(3, get)(), wait()...) {
		if !wantText(t, fmt.Sprint("client ", i), w, text) {
			t.Errorf("client %d was cut off", i)
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	time.Sleep(time.Second) // the owner hears of it
	for i := range nodes {
		wantStatus(t, get(i), "detail=hit-for-miss") // it was not stored, and all know
	}
	for i, n := range c.nodes {
		poll(t, fmt.Sprint("nothing is in flight on node ", i), func() bool { return n.Budget.Used() == 0 })
	}
}

// tagged is an upstream with a text of a strong tag, which counts its requests and
// those that it has answered with 304.
func tagged(t *testing.T, text []byte, control string, calls, notModified *atomic.Int64) caddyhttp.HandlerFunc {
	t.Helper()
	seeds := seed.Of(t)
	return func(w http.ResponseWriter, r *http.Request) error {
		calls.Add(1)
		w.Header().Set("Cache-Control", control)
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Etag", `"t"`)
		switch {
		case r.Header.Get("If-None-Match") == `"t"`:
			notModified.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return nil
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusOK)
			return nil
		}
		return inPieces(w, seeds.Rand(), text)
	}
}

// TestEncodedResponseIsValidatedOnce: encode takes its suffix off If-None-Match, and
// does not put it on the tag of a 304.
func TestEncodedResponseIsValidatedOnce(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, text := newClusterInBubble(t, nodes), textOf(100_000)
				var calls, notModified atomic.Int64
				up := encoded(t, tagged(t, text, "max-age=60", &calls, &notModified))
				get := func(i int, fields ...string) *httptest.ResponseRecorder {
					return do(c.handlers[i%nodes], up, request(t.Context(), "/a", append(fields, "Accept-Encoding", "gzip")...))
				}
				for round := range int64(4) {
					for i := range 2 * nodes {
						w := get(i + int(round))
						wantText(t, fmt.Sprint("client ", i), w, text)
						if got := w.Header().Get("Etag"); got != `"t-gzip"` {
							t.Errorf("the tag is %s", got)
						}
					}
					if w := get(0, "If-None-Match", `"x", "t-gzip"`); w.Code != http.StatusNotModified {
						t.Errorf("a client that has it gets %d", w.Code)
					}
					if calls.Load() != 1+round || notModified.Load() != round {
						t.Errorf("after %d expiries the upstream has had %d requests, %d of them in vain", round, calls.Load(), notModified.Load())
					}
					time.Sleep(61 * time.Second)
				}
			})
		})
	}
}

func TestEncodedResponseIsRefreshedInTheBackground(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, text := newClusterInBubble(t, nodes), textOf(100_000)
				var calls, notModified atomic.Int64
				up := encoded(t, tagged(t, text, "max-age=60, stale-while-revalidate=600", &calls, &notModified))
				get := func(i int) *httptest.ResponseRecorder {
					return do(c.handlers[i%nodes], up, request(t.Context(), "/a", "Accept-Encoding", "gzip"))
				}
				for round := range int64(4) {
					for i := range nodes {
						wantText(t, "a client", get(i), text)
						time.Sleep(100 * time.Millisecond)
					}
					if calls.Load() != 1+round || notModified.Load() != round {
						t.Errorf("after %d expiries the upstream has had %d requests, and answered %d with 304", round, calls.Load(), notModified.Load())
					}
					wantStatus(t, get(0), "groupcache; hit; ttl=5")
					time.Sleep(61 * time.Second)
				}
			})
		})
	}
}

// TestHeadOfAnEncodedResponse: encode leaves alone what has no body.
func TestHeadOfAnEncodedResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, text := newHandler(t, newLoneNode(t), nil), textOf(100_000)
		var calls, notModified atomic.Int64
		up := encoded(t, tagged(t, text, "max-age=60", &calls, &notModified))
		get := func(method string) *httptest.ResponseRecorder {
			r := request(t.Context(), "/a", "Accept-Encoding", "gzip")
			r.Method = method
			return do(h, up, r)
		}
		get(http.MethodGet)
		time.Sleep(61 * time.Second)
		get(http.MethodHead)
		calls.Store(0)
		w := get(http.MethodGet)
		wantText(t, "after a HEAD", w, text)
		wantStatus(t, w, "groupcache; hit")
		if calls.Load() != 0 {
			t.Errorf("%d fetches", calls.Load())
		}
	})
}

// TestPartsOfAnEncodedResponse: a client puts parts together too, and the bytes are
// others the next time.
func TestPartsOfAnEncodedResponse(t *testing.T) {
	h, text := newHandler(t, newLoneNode(t), nil), textOf(100_000)
	var calls, notModified atomic.Int64
	up := encoded(t, tagged(t, text, "max-age=60", &calls, &notModified))
	for range 2 { // cold, and stored
		for _, fields := range [][]string{{"Range", "bytes=1000-"}, {"Range", "bytes=1000-", "If-Range", `"t-gzip"`}} {
			w := do(h, up, request(t.Context(), "/a", append(fields, "Accept-Encoding", "gzip")...))
			if w.Code != http.StatusOK {
				t.Errorf("%q: %d", fields, w.Code)
			}
			wantText(t, fmt.Sprint(fields), w, text)
		}
	}
	if calls.Load() != 1 {
		t.Errorf("%d fetches", calls.Load())
	}
}

// TestChunkOfAnEncodedBodyIsNotAskedForByItself: its tag is not a strong one in truth.
func TestChunkOfAnEncodedBodyIsNotAskedForByItself(t *testing.T) {
	for name, fields := range map[string][2]string{
		"a coding":    {`"1"`, "br"},
		"a suffix":    {`"1-gzip"`, ""},
		"both":        {`"1-gzip"`, "gzip"},
		"no encoding": {`"1"`, "identity"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLoneNode(t)
			h := newHandler(t, n, nil)
			parts := &answers{body: randomBody(4 << 20), tag: fields[0], change: func(*partAnswer) {}}
			up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				w.Header().Set("Content-Encoding", fields[1])
				return parts.ServeHTTP(w, r)
			})
			takes := []string{"Accept-Encoding", "gzip, br"}
			getLarge(t, h, up, "/", takes...)
			forget(t, n, h, "/", 2, takes...)
			wantBody(t, "the rest", getLarge(t, h, up, "/", takes...), parts.body)
			if asked := strings.Join(parts.asked, ""); (asked != "") != (name == "no encoding") {
				t.Errorf("the upstream was asked for %q", parts.asked)
			}
		})
	}
}
