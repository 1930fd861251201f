package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// limited is a backend with so much memory for what is in flight.
type limited struct {
	backend
	left atomic.Int64
}

func (l *limited) Reserve(n int64) (func(), bool) {
	if l.left.Add(-n) < 0 {
		l.left.Add(n)
		return nil, false
	}
	return func() { l.left.Add(n) }, true
}

// hostile returns a client that says what it likes, over connections of a cluster's
// member, to a server with 16 MiB for what is in flight.
func hostile(t *testing.T, b *limited) (post func(ctx context.Context, path string, body io.Reader) (int, error), s *Server) {
	t.Helper()
	b.left.Store(16 << 20)
	id := identity(t, "1")
	to, s := serveAs(t, b, id)
	c := newClientAs(t, id)
	return func(ctx context.Context, path string, body io.Reader) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+to.Addr+path, body)
		if err != nil {
			return 0, err
		}
		if half, ok := body.(*halfSent); ok && path != pathPublish && path != pathHandOver {
			req.ContentLength = half.length
		}
		resp, err := c.pool.roundTrip(req, to.Addr)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}, s
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// halfSent is a frame without its last byte, and what tells that all the rest has
// been taken.
type halfSent struct {
	io.Reader
	end  context.Context // or Close
	stop context.CancelFunc
	sent func()

	length int64 // of what it claims to be
}

func newHalfSent(end context.Context, kind byte, claims, sends int, sent func()) *halfSent {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(claims))
	end, stop := context.WithCancel(end)
	return &halfSent{
		io.MultiReader(bytes.NewReader(head), io.LimitReader(zeros{}, int64(sends))), end, stop, sync.OnceFunc(sent), int64(frameHead + claims),
	}
}

func (h *halfSent) Close() error { h.stop(); return nil }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (h *halfSent) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if err == io.EOF {
		h.sent()
		<-h.end.Done()
	}
	return n, err
}

// TestHalfSentFramesTakeLittle: one connection with many look-ups of which the last
// byte does not come, and as many that only claim to be long.
func TestHalfSentFramesTakeLittle(t *testing.T) {
	post, _ := hostile(t, new(limited))
	for name, sends := range map[string]int{"claimed": 10, "sent": maxFrame - 1} {
		t.Run(name, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			defer end()
			before := heap()
			const streams = 500
			var over, under sync.WaitGroup
			for range streams {
				under.Add(1)
				over.Go(func() {
					done := sync.OnceFunc(under.Done)
					_, _ = post(ctx, pathLookup, newHalfSent(ctx, frameQuery, maxFrame, sends, done))
					done() // or it was refused
				})
			}
			under.Wait()
			grown := int64(heap()) - int64(before)
			for until := time.Now().Add(time.Second); grown > 80<<20 && time.Now().Before(until); {
				grown = int64(heap()) - int64(before) // what was refused is on its way out on a busy machine
			}
			if grown > 80<<20 {
				t.Errorf("%d look-ups that have half come take %d MiB", streams, grown>>20)
			}
			end()
			over.Wait()
		})
	}
}

// TestFirstFramesHaveADeadline: nobody waits for the rest of a message for ever.
func TestFirstFramesHaveADeadline(t *testing.T) {
	for _, path := range []string{pathLookup, pathPublish, pathPurge, pathPurges, pathLearn, pathChunk, pathStore, pathHandOver, pathInspect, pathStatus} {
		t.Run(strings.TrimPrefix(path, "/1/"), func(t *testing.T) {
			b := new(limited)
			b.purges = func() ([]store.Purge, time.Time) { return nil, time.Time{} }
			post, s := hostile(t, b)
			s.patience = 50 * time.Millisecond
			ctx, end := context.WithTimeout(t.Context(), 10*time.Second)
			defer end()
			body := newHalfSent(ctx, frameQuery, 100, 10, func() {})
			s.Reporter = reporter{}
			if path == pathPurges || path == pathStatus {
				body = newHalfSent(ctx, frameQuery, 0, 0, func() {})
				body.Reader, body.length = strings.NewReader(""), -1
			}
			code, err := post(ctx, path, body)
			if ctx.Err() != nil {
				t.Errorf("not refused in time: %d, %v", code, err)
			}
		})
	}
}

// TestPurgeMessageIsBounded as a whole: many purges, each of which is as large as it
// may be.
func TestPurgeMessageIsBounded(t *testing.T) {
	b := new(limited)
	var applied atomic.Int64
	b.purge = func(purges []store.Purge) { applied.Add(int64(len(purges))) }
	post, _ := hostile(t, b)
	selectors := make([]store.Selector, MaxSelectors)
	for i := range selectors {
		selectors[i] = store.Selector{Kind: store.Tag, Value: "t"}
	}
	many := make([]store.Purge, 1<<11)
	for i := range many {
		many[i] = store.Purge{ID: store.PurgeID(i + 1), Selectors: selectors}
	}
	message := EncodePurges(many, time.Time{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	code, err := post(t.Context(), pathPurge, bytes.NewReader(message))
	runtime.ReadMemStats(&after)
	if code == http.StatusOK || applied.Load() > 0 {
		t.Errorf("%d purges of %d bytes were applied: %d, %v", applied.Load(), len(message), code, err)
	}
	if took := int64(after.TotalAlloc - before.TotalAlloc); took > 64<<20 {
		t.Errorf("a message of %d MiB took %d MiB", len(message)>>20, took>>20)
	}
	if code, err := post(t.Context(), pathPurge, bytes.NewReader(EncodePurges(many[:8], time.Time{}))); code != http.StatusOK || applied.Load() != 8 {
		t.Errorf("8 purges: %d, %v", code, err)
	}
}

// TestPurgesGetThroughWithoutMemory, and look-ups.
func TestPurgesGetThroughWithoutMemory(t *testing.T) {
	b := new(limited)
	b.purge = func([]store.Purge) {}
	post, _ := hostile(t, b)
	b.left.Store(0)
	large := []store.Purge{{ID: 1, Selectors: []store.Selector{{Kind: store.URL, Value: strings.Repeat("u", MaxSelectorLength)}}}}
	if code, err := post(t.Context(), pathPurge, bytes.NewReader(EncodePurges(large, time.Time{}))); code != http.StatusOK {
		t.Errorf("%d, %v", code, err)
	}
}

// TestQueriesSayHowLongTheyAre: what came after one would wait unread, as long as the
// query does.
func TestQueriesSayHowLongTheyAre(t *testing.T) {
	b := new(limited)
	b.learn = func(*Query) { t.Error("learned") }
	post, s := hostile(t, b)
	var w frameWriter
	w.frame(frameQuery, NewQuery("g", store.Key{1}, nil, nil).append)
	code, err := post(t.Context(), pathLearn, io.MultiReader(bytes.NewReader(w.buf), strings.NewReader("more")))
	if code != http.StatusNotFound || s.Refused() != 1 {
		t.Errorf("%d, %v, %d refused", code, err, s.Refused())
	}
}
