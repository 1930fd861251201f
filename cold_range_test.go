package caddygroupcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A once is an upstream whose response is there once, also in part: a second request gets
// 410. What it sends of 3 MiB is up to the test.
type once struct {
	body   []byte
	fields []string
	answer func(w http.ResponseWriter, r *http.Request, body []byte)
	asked  []string
}

func (o *once) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	o.asked = append(o.asked, strings.TrimSpace(r.Header.Get("Range")+" "+r.Header.Get("If-Range")))
	if len(o.asked) > 1 {
		w.WriteHeader(http.StatusGone)
		return nil
	}
	w.Header().Set("Content-Type", "video/x")
	for i := 0; i < len(o.fields); i += 2 {
		w.Header().Set(o.fields[i], o.fields[i+1])
	}
	o.answer(w, r, o.body)
	return nil
}

// send writes a response in pieces, as a proxy does, and breaks off as that does.
func send(w http.ResponseWriter, status int, body []byte) {
	w.WriteHeader(status)
	for len(body) > 0 {
		n, err := w.Write(body[:min(len(body), 32<<10)])
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		body = body[n:]
	}
}

// as206 returns an upstream's answer with a part, whatever it is asked for.
func as206(start, end int, size string) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, body []byte) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", start, end-1, size))
		w.Header().Set("Content-Length", strconv.Itoa(end-start))
		send(w, http.StatusPartialContent, body[start:end])
	}
}

// coldAnswers are what an upstream may make of a request for the first chunk, and what a
// client gets for bytes 100 to 109: those, or where they can't be made of it, what came.
var coldAnswers = map[string]struct {
	answer func(http.ResponseWriter, *http.Request, []byte)
	status int // of another answer than the part
	stored bool
}{
	"the first chunk": {answer: as206(0, 1<<20, "3145728"), stored: true},
	"the whole": {answer: func(w http.ResponseWriter, _ *http.Request, body []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set("Accept-Ranges", "bytes")
		send(w, http.StatusOK, body)
	}, stored: true},
	"the whole as a part":     {answer: as206(0, 3<<20, "3145728"), stored: true},
	"less than a chunk":       {answer: as206(0, 1000, "1000"), stored: true},
	"a part of a chunk":       {answer: as206(0, 4096, "3145728")},
	"the client's part alone": {answer: as206(100, 110, "3145728")},
	"of an unknown size":      {answer: as206(0, 1<<20, "*")},
	"another part":            {answer: as206(2<<20, 3<<20, "3145728"), status: 206},
	"parts of several": {answer: func(w http.ResponseWriter, _ *http.Request, body []byte) {
		w.Header().Set("Content-Type", "multipart/byteranges; boundary=x")
		send(w, http.StatusPartialContent, []byte("--x\r\n\r\n--x--\r\n"))
	}, status: 206},
	"a 200 that says it is a part": {answer: func(w http.ResponseWriter, _ *http.Request, body []byte) {
		w.Header().Set("Content-Range", "bytes 0-1048575/3145728")
		send(w, http.StatusOK, body[:1<<20])
	}, status: 200},
	"an error": {answer: func(w http.ResponseWriter, _ *http.Request, body []byte) { send(w, http.StatusNotFound, body[:100]) }, status: 404},
	"broken off after the client's part": {answer: func(w http.ResponseWriter, _ *http.Request, body []byte) {
		w.Header().Set("Content-Range", "bytes 0-1048575/3145728")
		w.Header().Set("Content-Length", "1048576")
		send(w, http.StatusPartialContent, body[:64<<10])
		panic(http.ErrAbortHandler)
	}},
}

// TestColdRangeIsAskedForOnce: whatever an upstream makes of the request for the first
// chunk, the client is answered of it.
func TestColdRangeIsAskedForOnce(t *testing.T) {
	body := randomBody(3 << 20)
	for name, tt := range coldAnswers {
		for _, fields := range [][]string{
			{"Cache-Control", "max-age=60", "Etag", `"1"`},
			{"Cache-Control", "max-age=60", "Etag", `W/"1"`},
			{"Cache-Control", "max-age=60"},
			{"Cache-Control", "no-store", "Etag", `"1"`},
			{"Cache-Control", "private"},
			{"Cache-Control", "max-age=60", "Etag", `"1"`, "No-Vary-Search", "params"},
		} {
			for _, nodes := range []int{1, 3} {
				t.Run(fmt.Sprint(name, ", ", fields, ", nodes: ", nodes), func(t *testing.T) {
					c := newCluster(t, nodes)
					up := &once{body: body, fields: fields, answer: tt.answer}
					checkColdRange(t, c, up, tt.status)
					stored := tt.stored && fields[1] == "max-age=60" && (len(fields) == 4 && fields[3] == `"1"` || name != "the first chunk")
					for _, h := range c.handlers {
						w := do(h, up.ServeHTTP, request(t.Context(), c.target(nodes-1), "Range", "bytes=200-209", "Cache-Control", "only-if-cached"))
						if stored && !bytes.Equal(w.Body.Bytes(), body[200:210]) || !stored && w.Code != http.StatusGatewayTimeout {
							t.Errorf("stored: %v: %d, %d bytes, %s", stored, w.Code, w.Body.Len(), w.Header().Get("Cache-Status"))
						}
					}
				})
			}
		}
	}
}

// checkColdRange asks the first node for a part, and looks at what comes, and what is left.
func checkColdRange(t *testing.T, c *testCluster, up *once, status int) {
	t.Helper()
	w := do(c.handlers[0], up.ServeHTTP, request(t.Context(), c.target(len(c.nodes)-1), "Range", "bytes=100-109"))
	switch {
	case status != 0 && w.Code != status:
		t.Errorf("%d, want %d: %v", w.Code, status, w.Header())
	case status == 0 && (w.Code != 206 || !bytes.Equal(w.Body.Bytes(), up.body[100:110]) || w.Header().Get("Content-Length") != "10" ||
		!strings.HasPrefix(w.Header().Get("Content-Range"), "bytes 100-109/")):
		t.Errorf("%d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
	if !slices.Equal(up.asked, []string{"bytes=0-1048575"}) {
		t.Errorf("the upstream was asked for %q", up.asked)
	}
	for i, n := range c.nodes {
		poll(t, fmt.Sprint("nothing is under way on node ", i), func() bool { return n.UnderWay().Bytes == 0 && n.UnderWay().Fills == 0 })
	}
}

// TestColdRangeOnACondition: a client's If-Range decides at the upstream, and its other
// conditions here.
func TestColdRangeOnACondition(t *testing.T) {
	body := randomBody(3 << 20)
	for _, tt := range []struct {
		fields []string
		asked  string
		status int
	}{
		{[]string{"If-Range", `"1"`}, `bytes=0-1048575 "1"`, 206},
		{[]string{"If-Range", `"2"`}, `bytes=0-1048575 "2"`, 200},
		{[]string{"If-None-Match", `"1"`}, `bytes=0-1048575`, 304},
		{[]string{"If-None-Match", `"2"`}, `bytes=0-1048575`, 206},
	} {
		for _, control := range []string{"max-age=60", "no-store"} {
			t.Run(fmt.Sprint(tt.fields, control), func(t *testing.T) {
				up := &once{body: body, fields: []string{"Cache-Control", control, "Etag", `"1"`, "Accept-Ranges", "bytes"}}
				up.answer = func(w http.ResponseWriter, r *http.Request, body []byte) {
					if tag := r.Header.Get("If-Range"); tag != "" && tag != `"1"` {
						w.Header().Set("Content-Length", strconv.Itoa(len(body)))
						send(w, http.StatusOK, body)
						return
					}
					as206(0, 1<<20, "3145728")(w, r, body)
				}
				h := newHandler(t, newLoneNode(t), nil)
				w := do(h, up.ServeHTTP, request(t.Context(), "/a", append(tt.fields, "Range", "bytes=100-109")...))
				want := map[int][]byte{206: body[100:110], 200: body, 304: nil}[tt.status]
				if w.Code != tt.status || !bytes.Equal(w.Body.Bytes(), want) || (w.Header().Get("Content-Range") != "") != (tt.status == 206) {
					t.Errorf("%d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
				}
				if !slices.Equal(up.asked, []string{tt.asked}) {
					t.Errorf("the upstream was asked for %q", up.asked)
				}
			})
		}
	}
}

// TestFirstChunkThatIsRefused: a 416 has nothing for the client, so the whole is asked for.
func TestFirstChunkThatIsRefused(t *testing.T) {
	for _, size := range []int{0, 500} { // an empty body; a server that wants ranges to end within it
		h := newHandler(t, newLoneNode(t), nil)
		body := randomBody(size)
		var asked []string
		up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			asked = append(asked, r.Header.Get("Range"))
			w.Header().Set("Cache-Control", "max-age=60")
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", fmt.Sprint("bytes */", size))
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return nil
			}
			w.Header().Set("Content-Length", strconv.Itoa(size))
			send(w, http.StatusOK, body)
			return nil
		})
		for range 2 {
			w := do(h, up, request(t.Context(), "/", "Range", "bytes=0-9"))
			if size > 0 && (w.Code != 206 || w.Header().Get("Content-Range") != "bytes 0-9/500" || !bytes.Equal(w.Body.Bytes(), body[:10])) {
				t.Errorf("%d %v", w.Code, w.Header())
			}
			if size == 0 && w.Header().Get("Content-Range") != "" && w.Code != 416 {
				t.Errorf("%d %v", w.Code, w.Header())
			}
		}
		if !slices.Equal(asked, []string{"bytes=0-1048575", ""}) {
			t.Errorf("%d bytes: the upstream was asked for %q", size, asked)
		}
	}
}

// TestErrorOfARangeIsNotForAll: the failure of an upstream on a Range is for the client that sends one.
func TestErrorOfARangeIsNotForAll(t *testing.T) {
	for _, status := range []int{403, 404, 410, 500, 501} {
		for _, part := range []string{"bytes=0-0", "bytes=2000000-2000009"} {
			h := newHandler(t, newLoneNode(t), nil)
			up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				w.Header().Set("Cache-Control", "max-age=60")
				if r.Header.Get("Range") != "" {
					w.WriteHeader(status)
				}
				_, err := w.Write([]byte("a page"))
				return err
			})
			if w := do(h, up, request(t.Context(), "/", "Range", part)); w.Code != status {
				t.Errorf("%s: %d, want %d", part, w.Code, status)
			}
			for range 2 {
				if w := do(h, up, request(t.Context(), "/")); w.Code != 200 {
					t.Errorf("%d after %s: %d", status, part, w.Code)
				}
			}
			wantStatus(t, do(h, up, request(t.Context(), "/")), "groupcache; hit")
		}
	}
}

// TestColdFarRangeOfAnUpstreamWithoutParts: the whole that comes is what the part is made of.
func TestColdFarRangeOfAnUpstreamWithoutParts(t *testing.T) {
	body := randomBody(3 << 20)
	for _, control := range []string{"max-age=60", "no-store"} {
		for set, want := range map[string][]byte{"bytes=2000000-2000009": body[2000000:2000010], "bytes=-10": body[len(body)-10:], "bytes=3000000-": body[3000000:]} {
			h := newHandler(t, newLoneNode(t), nil)
			up := &once{body: body, fields: []string{"Cache-Control", control}, answer: coldAnswers["the whole"].answer}
			w := do(h, up.ServeHTTP, request(t.Context(), "/", "Range", set))
			wantBody(t, control+", "+set, w, want)
			if w.Code != http.StatusPartialContent || !slices.Equal(up.asked, []string{fmt.Sprint("bytes=0-", store.ChunkSize-1)}) {
				t.Errorf("%d, the upstream was asked for %q", w.Code, up.asked)
			}
		}
	}
}

// TestRestThatNeverComes: the first MiB comes as it is asked for, and each part beyond it
// wrongly. A client's request ends after a few requests to the upstream, with what the
// upstream has sent or with an error, whether the client stays or goes away.
func TestRestThatNeverComes(t *testing.T) {
	const enough = 3 // requests to the upstream: for the first MiB, for the client's part of it, for the whole
	body := randomBody(4 << 20)
	wrong := maps.Clone(wrongParts)
	wrong["unreachable from then on"] = nil
	for name, change := range wrong {
		for _, goes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the client goes: %t", name, goes), func(t *testing.T) {
				h := newHandler(t, newLoneNode(t), nil)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				var calls atomic.Int64
				var first atomic.Bool
				parts := &answers{body: body, change: func(a *partAnswer) {
					if a.start > 0 {
						a.body = bytes.Repeat([]byte("x"), len(a.body)) // so that a client that gets it is noticed
						change(a)
					}
				}}
				up := func(w http.ResponseWriter, r *http.Request) error {
					if calls.Add(1) > enough {
						t.Errorf("%d requests to the upstream", calls.Load())
						runtime.Goexit()
					}
					if first.Swap(true) && goes {
						leave()
					}
					if change == nil && calls.Load() > 1 {
						return caddyhttp.Error(http.StatusBadGateway, errors.New("connection refused"))
					}
					return parts.ServeHTTP(w, r)
				}
				w := httptest.NewRecorder()
				done := make(chan error, 1)
				go func() {
					defer close(done)
					defer func() { _ = recover() }() // a connection that is cut
					done <- h.ServeHTTP(w, request(ctx, "/", farPart...), caddyhttp.HandlerFunc(up))
				}()
				err, got := <-done, w.Body.Bytes()
				switch {
				case goes:
				case change == nil && errorStatus(err) != http.StatusBadGateway:
					t.Errorf("%v, %d", err, w.Code)
				case change != nil && (w.Code != http.StatusPartialContent || !bytes.Equal(got, body[2500000:2500010])):
					t.Errorf("%v, %d, %d bytes, %s", err, w.Code, len(got), w.Header().Get("Cache-Status"))
				}
				idle(t, h.node)
			})
		}
	}
}
