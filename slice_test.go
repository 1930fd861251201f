package caddygroupcache

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// wrongParts are answers to the request for a chunk that must not become part of
// what is stored.
var wrongParts = map[string]func(a *partAnswer){
	"a 200 with a Content-Range": func(a *partAnswer) { a.status = http.StatusOK },
	"another part":               func(a *partAnswer) { a.start += 10 },
	"a shorter part":             func(a *partAnswer) { a.length -= 10; a.body = a.body[:len(a.body)-10] },
	"a part of a larger one":     func(a *partAnswer) { a.size += 10 },
	"of another response":        func(a *partAnswer) { a.header.Set("Etag", `"2"`) },
	"of a weak tag":              func(a *partAnswer) { a.header.Set("Etag", `W/"1"`) },
	"without a tag":              func(a *partAnswer) { a.header.Del("Etag") },
	"for one client":             func(a *partAnswer) { a.header.Set("Cache-Control", "private") },
	"not to be stored":           func(a *partAnswer) { a.header.Set("Cache-Control", "no-store") },
	"with a cookie":              func(a *partAnswer) { a.header.Set("Set-Cookie", "a=b") },
	"cut off":                    func(a *partAnswer) { a.body = a.body[:len(a.body)/2] },
	"longer than it says":        func(a *partAnswer) { a.body = append(bytes.Clone(a.body), 'x') },
	"an error":                   func(a *partAnswer) { a.status = http.StatusBadGateway },
	"gone":                       func(a *partAnswer) { a.status = http.StatusNotFound },
}

// stored reports whether a chunk of what is at a target came from what the
// upstream answered.
func whole(t *testing.T, h *Handler, up caddyhttp.Handler, target string) (w *httptest.ResponseRecorder, cut bool) {
	t.Helper()
	w = httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			cut = true
		}
	}()
	if err := h.ServeHTTP(w, request(t.Context(), target), up); err != nil {
		return w, true
	}
	return w, false
}

// A chunk that is gone, and an upstream that answers wrongly when it is asked
// for it: nobody gets a body that is put together wrongly, and nothing of the
// answer is kept.
func TestWrongPartsDoNotMendABody(t *testing.T) {
	for name, change := range wrongParts {
		t.Run(name, func(t *testing.T) {
			n := newLoneNode(t)
			h := newHandler(t, n, nil)
			up := &answers{body: randomBody(4 << 20)}
			if w, cut := whole(t, h, up, "/"); cut || !bytes.Equal(w.Body.Bytes(), up.body) {
				t.Fatal("the first was not whole")
			}
			forget(t, n, h, "/", 2)
			up.change = func(a *partAnswer) {
				a.body = bytes.Repeat([]byte("x"), len(a.body)) // so that it shows who gets it
				change(a)
			}
			for range 2 {
				w, cut := whole(t, h, up, "/")
				if got := w.Body.Bytes(); !bytes.HasPrefix(up.body, got) || !cut && len(got) != len(up.body) {
					t.Errorf("got %d bytes, cut off: %v, %s", len(got), cut, w.Header().Get("Cache-Status"))
				}
			}
		})
	}
}

// TestChunkThatDoesNotComeNow, though the upstream still has the same: the chunks that are
// stored stay.
func TestChunkThatDoesNotComeNow(t *testing.T) {
	const size = 4 << 20
	for name, crowded := range map[string]bool{"it breaks off": false, "there is no memory for it": true} {
		t.Run(name, func(t *testing.T) {
			n := newLoneNode(t)
			h := newHandler(t, n, nil)
			f := &file{body: randomBody(size), tag: `"1"`, ranges: true}
			getLarge(t, h, f, "/")
			forget(t, n, h, "/", 2)
			up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				if r.Header.Get("Range") != "bytes=2097152-3145727" {
					return caddyhttp.Error(http.StatusBadGateway, io.ErrUnexpectedEOF)
				}
				if crowded {
					return f.ServeHTTP(w, r)
				}
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Etag", f.tag)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 2097152-3145727/%d", size))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(f.body[2<<20 : 2<<20+1000])
				panic(http.ErrAbortHandler)
			})
			release := func() {}
			if crowded {
				release = takeAll(n.Budget)
			}
			r := request(t.Context(), "/", "Range", "bytes=2097152-2097161")
			if err := h.ServeHTTP(httptest.NewRecorder(), r, up); err == nil {
				t.Error("the chunk has come")
			}
			release()
			w := getLarge(t, h, up, "/", "Range", "bytes=0-9")
			wantBody(t, "another part", w, f.body[:10])
			wantStatus(t, w, "hit")
		})
	}
}

// takeAll takes all that is left of a budget.
func takeAll(b *fill.Budget) (release func()) {
	var all int64
	for n := int64(1) << 40; n > 0; n /= 2 {
		for b.TakeFor(n) {
			all += n
		}
	}
	return func() { b.Give(all) }
}

// The same where nothing is stored yet, and the answer would tell all about it.
func TestWrongPartsAreNoBeginning(t *testing.T) {
	wrong := map[string]func(a *partAnswer){
		"more than max_body_size":            func(a *partAnswer) { a.size = 1 << 30 },
		"with queries that come to the same": func(a *partAnswer) { a.header.Set("No-Vary-Search", "key-order") },
		"with trailers":                      func(a *partAnswer) { a.header.Set("Trailer", "X-A") },
	}
	for name, change := range wrongParts {
		if name != "of another response" && name != "a part of a larger one" { // it can't be known
			wrong[name] = change
		}
	}
	for name, change := range wrong {
		t.Run(name, func(t *testing.T) {
			n := newLoneNode(t)
			h := newHandler(t, n, nil)
			up := &answers{body: randomBody(4 << 20), change: func(a *partAnswer) {
				if a.start == 0 && a.length == 1<<20 { // the first chunk; the client's own part is right
					change(a)
				}
			}}
			for i := range 3 {
				w := httptest.NewRecorder()
				r := request(t.Context(), "/", "Range", "bytes=3000000-3000009")
				if err := h.ServeHTTP(w, r, up); err != nil {
					t.Fatal(err)
				}
				switch w.Code {
				case http.StatusPartialContent:
					wantBody(t, "the part", w, up.body[3000000:3000010])
				case http.StatusOK:
					wantBody(t, "the whole", w, up.body)
				case http.StatusBadGateway, http.StatusNotFound: // it would have been the answer to each request
					if name != "an error" && name != "gone" {
						t.Errorf("status %d", w.Code)
					}
				default:
					t.Errorf("status %d", w.Code)
				}
				if s := w.Header().Get("Cache-Status"); i == 0 && strings.Contains(s, "fwd-status=206; stored") {
					t.Errorf("a wrong beginning was stored: %s", s)
				}
			}
		})
	}
}

// With credentials, nothing is fetched for others: neither a beginning nor a
// chunk that is gone.
func TestPartsForOneClientAreNotShared(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, nil)
	up := &answers{body: randomBody(4 << 20), change: func(*partAnswer) {}}
	w := getLarge(t, h, up, "/", "Range", "bytes=3000000-3000009", "Authorization", "Basic YTpi")
	wantBody(t, "a part", w, up.body[3000000:3000010])
	if n.Store.Usage().Resources != 0 {
		t.Error("stored with credentials")
	}
	if want := []string{"bytes=3000000-3000009"}; !slices.Equal(up.asked, want) {
		t.Errorf("with credentials the upstream was asked for %q, want %q", up.asked, want)
	}
	up = &answers{
		body: randomBody(4 << 20), control: "public, max-age=60",
		change: func(*partAnswer) { t.Error("a chunk was fetched with credentials") },
	}
	getLarge(t, h, up, "/public")
	forget(t, n, h, "/public", 2)
	func() {
		defer func() { _ = recover() }() // its client is cut off, or gets it all
		r := request(t.Context(), "/public", "Authorization", "Basic YTpi")
		r.Header.Del("Range")
		w := httptest.NewRecorder()
		_ = h.ServeHTTP(w, r, up)
		if !bytes.HasPrefix(up.body, w.Body.Bytes()) {
			t.Error("another body")
		}
	}()
}

// What turned out to be private is not asked for in parts that others could use.
func TestPartOfAPrivateBodyIsAskedForOnce(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, nil)
	up := &answers{body: randomBody(4 << 20), control: "private", change: func(*partAnswer) {}}
	for range 2 {
		up.asked = nil
		w := getLarge(t, h, up, "/", "Range", "bytes=3000000-3000009")
		wantBody(t, "a part", w, up.body[3000000:3000010])
	}
	if want := []string{"bytes=3000000-3000009"}; !slices.Equal(up.asked, want) {
		t.Errorf("the second time the upstream was asked for %q, want %q", up.asked, want)
	}
}

// Without a strong tag no part can be known to belong to what is stored, so the
// upstream is not asked for one.
func TestChunkWithoutAStrongTagIsNotAskedFor(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, nil)
	up := &answers{body: randomBody(4 << 20), tag: `W/"1"`, change: func(*partAnswer) {}}
	getLarge(t, h, up, "/")
	forget(t, n, h, "/", 2)
	w, cut := whole(t, h, up, "/")
	if got := w.Body.Bytes(); !bytes.HasPrefix(up.body, got) || !cut && len(got) != len(up.body) {
		t.Errorf("got %d bytes, cut off: %v", len(got), cut)
	}
	for _, part := range up.asked {
		if part != "" {
			t.Errorf("the upstream was asked for %s", part)
		}
	}
}

func TestOnlyIfCachedDoesNotMend(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, nil)
	up := &answers{body: randomBody(4 << 20)}
	getLarge(t, h, up, "/")
	forget(t, n, h, "/", 2)
	up.asked = nil
	w := getLarge(t, h, up, "/", "Range", "bytes=2097152-2097160", "Cache-Control", "only-if-cached")
	if w.Code != http.StatusGatewayTimeout || len(up.asked) != 0 {
		t.Errorf("%d, the upstream was asked for %q", w.Code, up.asked)
	}
}

// What has been validated needs no first chunk: a part of it is served after the
// 304.
func TestPartOfAStaleBodyIsValidatedFirst(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, nil)
	body := randomBody(4 << 20)
	var asked []string
	up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		asked = append(asked, r.Header.Get("Range")+r.Header.Get("If-None-Match"))
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") != "" {
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		w.Header().Set("Cache-Control", "max-age=0")
		_, err := w.Write(body)
		return err
	})
	getLarge(t, h, up, "/")
	w := getLarge(t, h, up, "/", "Range", "bytes=3000000-3000009")
	wantBody(t, "a part", w, body[3000000:3000010])
	if got := fmt.Sprint(asked); got != `[ "1"]` {
		t.Errorf("the upstream was asked with %s", got)
	}
}

// A mortal is a node whose chunk of a body is lost when the client of another node has the
// header: its own node dies then.
type mortal struct {
	h      *Handler
	target string
	die    func()
}

// newMortal stores a body of which chunk 2 is on the node that dies, and the chunks before
// on the one that is asked. It is for a synctest bubble.
func newMortal(t *testing.T, up caddyhttp.Handler) *mortal {
	c := newClusterInBubble(t, 2)
	m := &mortal{h: c.handlers[0], die: func() { c.servers[1].Close() }}
	ring := c.nodes[0].Ring.Load()
	for i := 0; ; i++ {
		m.target = fmt.Sprintf("/%d", i)
		k, _ := keyOf(m.h, request(t.Context(), m.target))
		_, first := ring.Owner(k)
		_, second := ring.Owner(store.ChunkKey(k, 1))
		if _, third := ring.Owner(store.ChunkKey(k, 2)); first && second && !third {
			break
		}
	}
	getLarge(t, c.handlers[1], up, m.target)
	waitForCommit(t, c.nodes[0], 1)
	return m
}

// A dyingClient has a node die when it has got the first of a body.
type dyingClient struct {
	*httptest.ResponseRecorder
	once sync.Once
	die  func()
}

func (c *dyingClient) Write(p []byte) (int, error) {
	defer c.once.Do(c.die)
	return c.ResponseRecorder.Write(p)
}

// get asks for the body, and reports whether the client was cut off.
func (m *mortal) get(t *testing.T, up caddyhttp.Handler, fields ...string) (got []byte, cut bool) {
	w := &dyingClient{ResponseRecorder: httptest.NewRecorder(), die: m.die}
	defer func() { got = w.Body.Bytes() }()
	defer func() { cut = cut || recover() == http.ErrAbortHandler }()
	return nil, m.h.ServeHTTP(w, request(t.Context(), m.target, fields...), up) != nil
}

// TestRestThatIsNotOfTheSameResponse: a chunk is gone, and the upstream has by now
// what a test says. Bytes tell, and so do the fields that the client has.
func TestRestThatIsNotOfTheSameResponse(t *testing.T) {
	body := randomBody(3 << 20)
	other := bytes.Clone(body)
	other[100] ^= 1 // before the chunk that is gone
	for name, test := range map[string]struct {
		now    []byte
		fields []string
		status int
		whole  bool // the client gets all
	}{
		"the same":               {body, []string{"Etag", `"1"`}, 200, true},
		"the same, streamed":     {body, []string{"Etag", `"1"`, "Content-Length", ""}, 200, true},
		"other bytes":            {other, []string{"Etag", `"1"`}, 200, false},
		"of another tag":         {body, []string{"Etag", `"2"`}, 200, false},
		"of a weak tag":          {body, []string{"Etag", `W/"1"`}, 200, true},
		"without a tag":          {body, []string{"Etag", ""}, 200, false},
		"in a coding":            {body, []string{"Etag", `"1"`, "Content-Encoding", "gzip"}, 200, false},
		"of another type":        {body, []string{"Etag", `"1"`, "Content-Type", "text/html"}, 200, false},
		"of another length":      {append(bytes.Clone(body), 'x'), []string{"Etag", `"1"`}, 200, false},
		"an error":               {body, []string{"Etag", `"1"`}, 503, false},
		"a part, asked for none": {body[2<<20:], []string{"Etag", `"1"`}, 206, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMortal(t, &answers{body: body})
				// The chunk itself can't be had; the whole can.
				up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
					if r.Header.Get("Range") != "" {
						return io.ErrUnexpectedEOF
					}
					w.Header().Set("Content-Length", strconv.Itoa(len(test.now)))
					for i := 0; i < len(test.fields); i += 2 {
						w.Header().Set(test.fields[i], test.fields[i+1])
					}
					w.WriteHeader(test.status)
					_, err := w.Write(test.now)
					return err
				})
				got, cut := m.get(t, up)
				if cut == test.whole || !bytes.HasPrefix(body, got) || test.whole && len(got) != len(body) {
					t.Errorf("got %d bytes of %d, cut off: %v", len(got), len(body), cut)
				}
			})
		})
	}
}

// A chunk is gone, and without a strong tag what the client has got by then is
// compared with what the upstream sends.
func TestRestOfABodyWithoutATag(t *testing.T) {
	body := randomBody(4 << 20)
	other := bytes.Clone(body)
	other[1<<20] ^= 1 // in a chunk that the client has
	for name, test := range map[string]struct {
		now   []byte
		part  string
		start int
		whole bool // the client gets all that it wants
	}{
		"the same":                   {body, "", 0, true},
		"another":                    {other, "", 0, false},
		"a part of the same":         {body, "bytes=1048576-", 1 << 20, true},
		"a part of another":          {other, "bytes=1048576-", 1 << 20, false},
		"a part after what differs":  {other, "bytes=1048577-", 1<<20 + 1, true},
		"shorter":                    {body[:3<<20], "", 0, false},
		"shorter than the beginning": {body[:1000], "", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := &answers{body: body, tag: `W/"1"`, change: func(*partAnswer) {}}
				m := newMortal(t, up)
				up.body = test.now
				var fields []string
				if test.part != "" {
					fields = []string{"Range", test.part}
				}
				got, cut := m.get(t, up, fields...)
				want := body[test.start:]
				if cut == test.whole || !bytes.HasPrefix(want, got) || test.whole && len(got) != len(want) {
					t.Errorf("got %d bytes of %d, cut off: %v", len(got), len(want), cut)
				}
			})
		})
	}
}

func TestPartOfAColdResponseFillsTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			calls.Add(1)
			if set := r.Header.Get("Range"); set != "" && set != "bytes=0-1048575" {
				t.Error("a fill asks for", set) // and not for the first chunk
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

// TestPartOfWhatIsNotStored: it is made of the first response, of which the whole was
// asked for, and then the upstream's.
func TestPartOfWhatIsNotStored(t *testing.T) {
	for name, control := range map[string]string{"private": "private", "too large": "max-age=60"} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), func(h *Handler) { h.MaxBodySize = 5 })
			var asked []string
			up := func(w http.ResponseWriter, r *http.Request) error {
				asked = append(asked, r.Header.Get("Range"))
				w.Header().Add("Cache-Control", control)
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
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
			if want := []string{"bytes=0-1048575", "bytes=3-5", "bytes=3-5"}; !slices.Equal(asked, want) {
				t.Errorf("asked the upstream for %q", asked)
			}
		})
	}
}

// A leaver is a client that is gone when the header of a certain part has come: at once when
// something is done meanwhile, or else a second later.
type leaver struct {
	*httptest.ResponseRecorder
	at   string // in the header of the part
	done <-chan struct{}
}

func (l leaver) Write(p []byte) (int, error) {
	if !strings.Contains(string(p), l.at) {
		return l.ResponseRecorder.Write(p)
	}
	select {
	case <-l.done:
	case <-time.After(time.Second):
	}
	return 0, io.ErrClosedPipe
}

// TestSeveralPartsEndWithTheirRequest: what they need of the upstream is asked for by the request
// itself. So no handler runs when it has ended, and a panic of one is the request's.
func TestSeveralPartsEndWithTheirRequest(t *testing.T) {
	for name, panics := range map[string]bool{"a client that leaves": false, "a handler that panics": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLoneNode(t)
				h := newHandler(t, n, nil)
				up := &answers{body: randomBody(11 << 20)}
				getLarge(t, h, up, "/")
				forgetAll(t, n, h, "/", []int{5, 6, 7, 8, 9}) // of more than a few, all but the first are asked for when they are needed
				asked := make(chan struct{})
				var running atomic.Int64
				up.change = func(a *partAnswer) {
					if a.start != 8<<20 {
						return
					}
					running.Add(1)
					defer running.Add(-1)
					close(asked)
					if panics {
						panic("of a handler")
					}
					time.Sleep(time.Second)
				}
				client := leaver{httptest.NewRecorder(), "bytes 8388608-", asked}
				if panics {
					client.at = "never"
				}
				r := request(t.Context(), "/", "Range", "bytes=0-9,8388608-8388617")
				caught := guard.Catch(func() { _ = h.ServeHTTP(client, r, up) })
				if (caught != nil) != panics || client.Code != http.StatusPartialContent {
					t.Errorf("%d, a panic: %v", client.Code, caught)
				}
				if running.Load() > 0 {
					t.Error("a handler runs, and the request has ended")
				}
				time.Sleep(time.Minute)
				if n.Pins.Taken != 0 || n.Budget.Used() != 0 {
					t.Errorf("%d bytes pinned, %d in flight", n.Pins.Taken, n.Budget.Used())
				}
			})
		})
	}
}

// TestAnswerWithoutABodyNeedsNone: what is gone of a large body is not asked for where the answer
// is a 304, or a 416.
func TestAnswerWithoutABodyNeedsNone(t *testing.T) {
	for _, gone := range [][]int{{2}, {1, 2, 3}} { // a chunk would be fetched, or the whole
		n := newLoneNode(t)
		h := newHandler(t, n, nil)
		up := &answers{body: randomBody(4 << 20), change: func(*partAnswer) {}}
		getLarge(t, h, up, "/")
		forgetAll(t, n, h, "/", gone)
		up.asked = nil
		for want, fields := range map[int][]string{304: {"If-None-Match", `"1"`}, 416: {"Range", "bytes=4194304-"}} {
			w := do(h, up.ServeHTTP, request(t.Context(), "/", fields...))
			wantStatus(t, w, "hit")
			if w.Code != want || len(up.asked) > 0 {
				t.Errorf("%q without %v: %d, and the upstream was asked for %q", fields, gone, w.Code, up.asked)
			}
		}
		wantBody(t, "another condition", do(h, up.ServeHTTP, request(t.Context(), "/", "If-None-Match", `"2"`)), up.body)
	}
}
