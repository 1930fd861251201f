package caddygroupcache

import (
	"fmt"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

// A slowClient takes what it is sent only after its gate is open.
type slowClient struct {
	*httptest.ResponseRecorder
	began chan struct{} // closed when the first bytes come
	once  sync.Once
	gate  chan struct{}
}

func (c *slowClient) Write(p []byte) (int, error) {
	c.once.Do(func() { close(c.began) })
	<-c.gate
	return c.ResponseRecorder.Write(p)
}

// TestWhatSlowClientsHoldIsCounted: bodies that are evicted while they are sent
// are counted as in flight or, where that is full, not kept in memory at all.
func TestWhatSlowClientsHoldIsCounted(t *testing.T) {
	const size, clients = 900 << 10, 8
	n := node.New("alone", 16<<20)
	t.Cleanup(n.Close)
	h := newHandler(t, n, nil)
	ups := make([]*file, clients)
	var wait sync.WaitGroup
	var slow []*slowClient
	var bodies []weak.Pointer[byte]
	for i := range clients {
		ups[i] = &file{body: randomBody(size + i), length: true} // which has the rest only after the beginning
		target := fmt.Sprintf("/%d", i)
		getLarge(t, h, ups[i], target)
		bodies = append(bodies, weakBody(t, h, target))
		c := &slowClient{ResponseRecorder: httptest.NewRecorder(), began: make(chan struct{}), gate: make(chan struct{})}
		slow = append(slow, c)
		wait.Go(func() {
			if err := h.ServeHTTP(c, request(t.Context(), target), ups[i]); err != nil {
				t.Error(err)
			}
		})
		<-c.began
	}
	held := n.Pins.Taken
	if held == 0 || held > n.Pins.Limit || n.Budget.Used() != held {
		t.Errorf("%d held of %d, %d counted", held, n.Pins.Limit, n.Budget.Used())
	}
	for i := range 40 { // throw them out
		getLarge(t, h, &file{body: make([]byte, size), length: true}, fmt.Sprintf("/other/%d", i))
	}
	var uncounted, gone int64
	for range 2 {
		runtime.GC()
	}
	for i, b := range bodies {
		switch {
		case b.Value() == nil:
			gone++
		case !isStored(h, fmt.Sprintf("/%d", i)):
			uncounted += int64(size + i)
		}
	}
	if (uncounted > held || gone == 0) && !raceDetector { // which keeps what is not used any more
		t.Errorf("%d bytes are in memory beside what is stored, %d are counted; %d bodies are gone", uncounted, held, gone)
	}
	for _, c := range slow {
		close(c.gate)
	}
	wait.Wait()
	for i, c := range slow {
		wantBody(t, fmt.Sprint("client ", i), c.ResponseRecorder, ups[i].body)
	}
	if n.Pins.Taken != 0 || n.Budget.Used() != 0 {
		t.Errorf("in the end %d are held, %d counted", n.Pins.Taken, n.Budget.Used())
	}
}

// weakBody points to the stored body of a target, and does not keep it.
func weakBody(t *testing.T, h *Handler, target string) weak.Pointer[byte] {
	t.Helper()
	r := request(t.Context(), target)
	k, _ := keyOf(h, r)
	e := h.node.Store.Lookup(k, r.Header, time.Now()).Entry
	if e == nil {
		t.Fatalf("%s is not stored", target)
	}
	body, err := h.node.Store.Body(k, e)
	if err != nil {
		t.Fatal(err)
	}
	return weak.Make(&body[0])
}
