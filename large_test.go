package caddygroupcache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

const mib = 1 << 20

// chunksOf counts the chunks beyond the first of a body that nodes hold.
func (c *testCluster) chunksOf(t *testing.T, target string) (perNode []int) {
	t.Helper()
	for i, n := range c.nodes {
		r := request(t.Context(), target)
		k, _ := keyOf(c.handlers[i], r)
		known := n.Store.Lookup(k, r.Header, time.Now())
		if known.Entry == nil {
			perNode = append(perNode, 0)
			continue
		}
		have := 0
		for j := 1; j < store.Chunks(known.Entry.Size); j++ {
			if (node.Owner{Node: n}).Chunk(peer.ChunkID{Key: k, Generation: known.Entry.Generation, Index: j}) != nil {
				have++
			}
		}
		perNode = append(perNode, have)
	}
	return perNode
}

func TestLargeBodyIsStoredInChunksAndServedEverywhere(t *testing.T) {
	for _, size := range []int{mib, mib + 1, 2 * mib, 6*mib + 12345} {
		for _, length := range []bool{true, false} {
			for leader := range 2 { // not the owner; the owner
				t.Run(fmt.Sprintf("%d bytes, length %v, leader %d", size, length, leader), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testLargeBody(t, size, length, leader) })
				})
			}
		}
	}
}

func testLargeBody(t *testing.T, size int, length bool, leader int) {
	c := newClusterInBubble(t, 3)
	up := &file{body: randomBody(size), length: length}
	target := c.target(1)
	wantBody(t, "the first", getLarge(t, c.handlers[leader], up, target), up.body)
	waitForCommit(t, c.nodes[1], 1)
	for range 2 {
		for i, h := range c.handlers {
			w := getLarge(t, h, up, target)
			wantBody(t, fmt.Sprint("node ", i), w, up.body)
			wantStatus(t, w, "groupcache; hit; ttl=")
			if w.Header().Get("Content-Length") != fmt.Sprint(size) {
				t.Errorf("Content-Length %q", w.Header().Get("Content-Length"))
			}
			for _, span := range [][2]int{{0, 9}, {size - 1, size - 1}, {size / 2, size - 1}, {mib - 5, min(mib+5, size-1)}} {
				w := getLarge(t, h, up, target, "Range", fmt.Sprintf("bytes=%d-%d", span[0], span[1]))
				wantBody(t, fmt.Sprint(span, " of node ", i), w, up.body[span[0]:span[1]+1])
				if w.Code != http.StatusPartialContent || w.Header().Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", span[0], span[1], size) {
					t.Errorf("%v: %d, Content-Range %q", span, w.Code, w.Header().Get("Content-Range"))
				}
			}
			w = getLarge(t, h, up, target, "Range", fmt.Sprintf("bytes=0-0,%d-", size-1))
			if size > mib && (w.Code != http.StatusPartialContent || !strings.HasPrefix(w.Header().Get("Content-Type"), "multipart/byteranges")) {
				t.Errorf("two parts: %d %s", w.Code, w.Header().Get("Content-Type"))
			}
		}
	}
	if n := len(up.requests()); n != 1 {
		t.Errorf("%d fetches", n)
	}
	if have := c.chunksOf(t, target); size > 5*mib && (have[0] < 1 || have[1] < 1 || have[2] < 1) {
		t.Errorf("nodes hold %v of %d chunks", have, store.Chunks(int64(size)))
	}
	for i, n := range c.nodes {
		poll(t, fmt.Sprint("nothing is in flight on node ", i), func() bool { return n.Budget.Used() == 0 })
	}
}

func TestReadersOnAllNodesJoinALargeStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 3)
		const size = 6<<20 + 77
		up := &file{body: randomBody(size), length: true, pause: make(chan struct{})}
		target := c.target(1)
		var readers sync.WaitGroup
		join := func(i int, fields ...string) {
			readers.Go(func() {
				w := getLarge(t, c.handlers[i%3], up, target, fields...)
				want := up.body
				if len(fields) > 0 {
					want = up.body[size-20 : size-10]
				}
				wantBody(t, fmt.Sprint("reader on node ", i%3, fields), w, want)
			})
		}
		join(0)
		for i := range len(up.body)/100_000 + 1 {
			up.pause <- struct{}{}
			if i%6 == 0 {
				join(i / 6)
				join(i/6, "Range", fmt.Sprintf("bytes=%d-%d", size-20, size-11))
			}
		}
		close(up.pause) // for whoever fetches too, which would be wrong, but must not hang
		readers.Wait()
		if n := len(up.requests()); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestSlowReaderOfALargeFillHoldsNothingBack(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, nil)
	up := &file{body: randomBody(12 << 20), length: true}
	release := make(chan struct{})
	var got bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := request(context.Background(), "/slow")
		_ = h.ServeHTTP(slowBody{httptest.NewRecorder(), &got, release}, r, up)
	}()
	waitForCommit(t, n, 1) // all has come in before the client takes a second byte
	poll(t, "only the first chunk is held", func() bool { return n.Budget.Used() <= store.ChunkSize })
	close(release)
	<-done
	if !bytes.Equal(got.Bytes(), up.body) {
		t.Errorf("the slow client got %d bytes", got.Len())
	}
}

type slowBody struct {
	http.ResponseWriter
	to      io.Writer
	release chan struct{}
}

func (s slowBody) Write(p []byte) (int, error) {
	<-s.release
	return s.to.Write(p)
}

func TestPartFarIntoAColdBodyIsAskedForByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 3)
		for _, h := range c.handlers {
			limitBodies(h, 32*mib)
		}
		up := &file{body: randomBody(20*mib + 1), tag: `"1"`, ranges: true}
		target := c.target(1)
		part := func(i, start, end int, status string, asked ...string) {
			t.Helper()
			w := getLarge(t, c.handlers[i], up, target, "Range", fmt.Sprintf("bytes=%d-%d", start, end))
			wantBody(t, fmt.Sprint(start, "-", end, " of node ", i), w, up.body[start:end+1])
			wantStatus(t, w, status)
			if got := up.requests(); fmt.Sprint(got) != fmt.Sprint(asked) {
				t.Errorf("the upstream was asked for %q, want %q", got, asked)
			}
		}
		slice := func(i int) string { return fmt.Sprintf("bytes=%d-%d", i*mib, min((i+1)*mib, len(up.body))-1) }
		part(0, 10*mib+5, 10*mib+9, "groupcache; fwd=uri-miss; fwd-status=206; stored", slice(0), slice(10))
		part(0, 10*mib+5, 10*mib+9, "groupcache; hit")
		part(2, 10*mib, 11*mib-1, "groupcache; hit")
		part(1, 0, 10, "groupcache; hit")
		part(1, 11*mib-2, 11*mib+1, "groupcache; fwd=partial; fwd-status=206; stored", slice(11))
		part(2, 20*mib, 20*mib, "groupcache; fwd=partial; fwd-status=206; stored", slice(20))
		// For one who wants it all, most is missing.
		w := getLarge(t, c.handlers[2], up, target)
		wantBody(t, "all of it", w, up.body)
		if got := up.requests(); len(got) != 1 || got[0] != "" {
			t.Errorf("the upstream was asked for %q, want the whole", got)
		}
		wantBody(t, "all of it again", getLarge(t, c.handlers[0], up, target), up.body)
		if got := up.requests(); len(got) > 0 {
			t.Errorf("asked for %q, which was there", got)
		}
	})
}

func TestLastBytesOfAColdBody(t *testing.T) {
	for _, size := range []int{1000, 5<<20 + 3} {
		synctest.Test(t, func(t *testing.T) {
			c := newClusterInBubble(t, 2)
			up := &file{body: randomBody(size), tag: `"1"`, ranges: true}
			target := c.target(1)
			for i := range 4 {
				w := getLarge(t, c.handlers[i%2], up, target, "Range", "bytes=-10")
				wantBody(t, "the last ten", w, up.body[size-10:])
			}
			if got := up.requests(); len(got) > 3 || strings.Contains(fmt.Sprint(got), "bytes=-") {
				t.Errorf("the upstream was asked for %q", got)
			}
		})
	}
}

// Whatever the upstream makes of a Range, the client gets the part that it
// asked for, or the whole.
func TestUpstreamsThatDoNotAnswerWithParts(t *testing.T) {
	body := randomBody(3 << 20)
	for name, up := range map[string]*file{
		"none":           {body: body, tag: `"1"`, length: true},
		"of weak tags":   {body: body, tag: `W/"1"`, ranges: true},
		"without tags":   {body: body, ranges: true},
		"without length": {body: body},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), nil)
			for i := range 3 {
				w := getLarge(t, h, up, "/", "Range", "bytes=2000000-2000009")
				switch w.Code {
				case http.StatusPartialContent:
					wantBody(t, "a part", w, body[2000000:2000010])
				case http.StatusOK:
					wantBody(t, "the whole", w, body)
				default:
					t.Errorf("status %d", w.Code)
				}
				if asked := len(up.requests()); i > 0 && asked > 0 {
					t.Errorf("%d requests for what is stored: %s", asked, w.Header().Get("Cache-Status"))
				}
			}
		})
	}
}

func TestChunkThatWasEvictedIsFetchedAgain(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, nil)
	h.logger = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.DebugLevel))
	up := &file{body: randomBody(4 << 20), tag: `"1"`, ranges: true}
	getLarge(t, h, up, "/")
	forget(t, n, h, "/", 2)
	up.requests()
	for i := range 2 {
		wantBody(t, "the whole", getLarge(t, h, up, "/"), up.body)
		if got := fmt.Sprint(up.requests()); i == 0 && got != "[bytes=2097152-3145727]" || i == 1 && got != "[]" {
			t.Errorf("round %d: the upstream was asked for %s", i, got)
		}
	}
}

// What can't be put together again is never served as if it were whole, and the
// next one fetches it anew.
func TestChunkThatIsLost(t *testing.T) {
	for name, change := range map[string]func(*file){
		"without a tag":     func(f *file) {},
		"changed meanwhile": func(f *file) { f.tag, f.body = `"2"`, randomBody(4<<20+1) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newLoneNode(t)
			h := newHandler(t, n, nil)
			up := &file{body: randomBody(4 << 20), length: true, ranges: name != "without a tag"}
			if up.ranges {
				up.tag = `"1"`
			}
			getLarge(t, h, up, "/")
			forget(t, n, h, "/", 2)
			was := up.body
			change(up)
			func() {
				defer func() { _ = recover() }() // the client is cut off
				w := getLarge(t, h, up, "/", "Range", "bytes=2097152-")
				if got := w.Body.Bytes(); !bytes.Equal(got, up.body[2<<20:]) {
					t.Errorf("a part that begins with what is lost: %d, %d bytes", w.Code, len(got))
				}
			}()
			forgotten := n.Store.Usage().Resources == 0
			w := httptest.NewRecorder()
			cut := func() (cut bool) {
				defer func() { cut = recover() == http.ErrAbortHandler }()
				r := request(t.Context(), "/")
				_ = h.ServeHTTP(w, r, up)
				return false
			}()
			if got := w.Body.Bytes(); !cut && !bytes.Equal(got, up.body) || cut && !bytes.HasPrefix(was, got) {
				t.Errorf("the whole (cut: %v, forgotten: %v): %d bytes", cut, forgotten, len(got))
			}
			poll(t, "it is whole again", func() bool { return bytes.Equal(getLarge(t, h, up, "/").Body.Bytes(), up.body) })
		})
	}
}

// change gives an upstream another version of its body.
func (f *file) change(tag string, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tag, f.body = tag, body
}

// TestChangedFileIsNotCutOff: of a body some chunks are stored, and the upstream has another
// one by now. Each client gets one of the two, and all of it, whatever it asks for first.
func TestChangedFileIsNotCutOff(t *testing.T) {
	old, now := randomBody(5_000_000), randomBody(5_000_001)
	for name, part := range map[string]string{"whole": "", "from the beginning": "bytes=0-", "from a stored chunk": "bytes=3000000-", "to a stored chunk": "bytes=1500000-3000000"} {
		for nodes := 1; nodes <= 3; nodes += 2 {
			t.Run(fmt.Sprintf("%s, %d nodes", name, nodes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newClusterInBubble(t, nodes)
					up := &file{body: old, tag: `"1"`, ranges: true}
					target := c.target(0)
					w := getLarge(t, c.handlers[0], up, target, "Range", "bytes=3000000-3000099")
					wantBody(t, "a part", w, old[3000000:3000100])
					up.change(`"2"`, now)
					for i, h := range c.handlers {
						var fields []string
						if part != "" {
							fields = []string{"Range", part}
						}
						want := getLarge(t, newHandler(t, newLoneNode(t), nil), up, target, fields...)
						wantBody(t, fmt.Sprint("node ", i), getLarge(t, h, up, target, fields...), want.Body.Bytes())
					}
				})
			})
		}
	}
}

// TestChangedFileIsFetchedOnce by all those together who find that chunks of it are gone.
func TestChangedFileIsFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newLoneNode(t)
		h := newHandler(t, n, nil)
		up := &file{body: randomBody(5_000_000), tag: `"1"`, ranges: true}
		getLarge(t, h, up, "/", "Range", "bytes=3000000-3000099")
		up.change(`"2"`, randomBody(5_000_001))
		up.requests()
		for _, w := range followers(20, func(int) *httptest.ResponseRecorder { return getLarge(t, h, up, "/") })() {
			wantBody(t, "a client", w, up.body)
		}
		if asked := up.requests(); len(asked) != 1 {
			t.Errorf("the upstream was asked for %q", asked)
		}
	})
}

// TestEvictedChunkOfAChangedFile: most of a body is there, and the upstream is asked for the
// rest before the header is sent.
func TestEvictedChunkOfAChangedFile(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, nil)
	up := &file{body: randomBody(5_000_000), tag: `"1"`, ranges: true}
	getLarge(t, h, up, "/")
	forget(t, n, h, "/", 3)
	up.change(`"2"`, randomBody(5_000_001))
	wantBody(t, "the whole", getLarge(t, h, up, "/"), up.body)
}

func TestLargeBodySurvivesADeadOwnerOfChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClusterInBubble(t, 3)
		up := &file{body: randomBody(9 << 20), tag: `"1"`, ranges: true}
		target := c.target(1)
		wantBody(t, "the first", getLarge(t, c.handlers[0], up, target), up.body)
		waitForCommit(t, c.nodes[1], 1)
		c.servers[2].Close() // it stays on the ring
		var slices atomic.Int64
		for i := range 2 {
			up.requests()
			wantBody(t, fmt.Sprint("node ", i), getLarge(t, c.handlers[i], up, target), up.body)
			for _, asked := range up.requests() {
				if asked == "" {
					t.Error("the whole was fetched again")
				}
				slices.Add(1)
			}
		}
		t.Logf("%d chunks fetched again", slices.Load())
	})
}

func TestBodyThatWouldThrowOutAllOthersIsNotStored(t *testing.T) {
	n := newLoneNode(t)
	h := newHandler(t, n, func(h *Handler) { h.MaxBodySize = 1 << 30 })
	up := &file{body: randomBody(int(n.LargestBody()) + 1), tag: `"1"`, ranges: true}
	for range 2 {
		w := getLarge(t, h, up, "/")
		wantBody(t, "the whole", w, up.body)
		if s := w.Header().Get("Cache-Status"); !strings.Contains(s, "parts-only") && !strings.Contains(s, "hit-for-miss") {
			t.Error(s)
		}
	}
	up.requests()
	for i := range 2 {
		w := getLarge(t, h, up, "/", "Range", "bytes=5000000-5000004")
		wantBody(t, "a part", w, up.body[5000000:5000005])
		if n := len(up.requests()); n != 2*(1-i) {
			t.Errorf("round %d: %d requests: %s", i, n, w.Header().Get("Cache-Status"))
		}
	}
	// That parts of it are stored does not make the whole go through the cache.
	up.requests()
	wantBody(t, "the whole", getLarge(t, h, up, "/"), up.body)
	if got := up.requests(); len(got) != 1 || got[0] != "" {
		t.Errorf("the upstream was asked for %q", got)
	}
}

// limitBodies changes max_body_size of a handler that has been set up.
func limitBodies(h *Handler, size int64) { h.MaxBodySize, h.policy.MaxBodySize = size, size }
