package caddygroupcache

import (
	"context"
	"fmt"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
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
	n := newNode("alone", 16<<20)
	t.Cleanup(n.close)
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
	held := n.holds.taken
	if held == 0 || held > n.holds.limit || n.budget.Used() != held {
		t.Errorf("%d held of %d, %d counted", held, n.holds.limit, n.budget.Used())
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
	if len(n.holds.chunks) > 0 || n.holds.taken != 0 || n.budget.Used() != 0 {
		t.Errorf("in the end %v and %d are held, %d counted", n.holds.chunks, n.holds.taken, n.budget.Used())
	}
}

// isStored reports whether a target's body is where it is counted as stored.
func isStored(h *Handler, target string) bool {
	r := request(context.Background(), target)
	k, _ := keyOf(h, r)
	e := h.node.store.Lookup(k, r.Header, time.Now()).Entry
	if e == nil {
		return false
	}
	_, err := h.node.store.Body(k, e)
	return err == nil
}

// weakBody points to the stored body of a target, and does not keep it.
func weakBody(t *testing.T, h *Handler, target string) weak.Pointer[byte] {
	t.Helper()
	r := request(t.Context(), target)
	k, _ := keyOf(h, r)
	e := h.node.store.Lookup(k, r.Header, time.Now()).Entry
	if e == nil {
		t.Fatalf("%s is not stored", target)
	}
	body, err := h.node.store.Body(k, e)
	if err != nil {
		t.Fatal(err)
	}
	return weak.Make(&body[0])
}

// TestReadersOfAChunkShareIt: also where each has brought it from another node.
func TestReadersOfAChunkShareIt(t *testing.T) {
	n := newLoneNode(t)
	id := peer.ChunkID{Key: store.Key{1}, Generation: 1, Index: 1}
	brought := 0
	bring := func() ([]byte, error) {
		brought++
		return make([]byte, store.ChunkSize), nil
	}
	var first *byte
	var releases []func()
	for i := range 10 {
		p, release, err := n.part(id, int64(i), bring)
		if err != nil || len(p) != store.ChunkSize-i {
			t.Fatalf("%d bytes, %v", len(p), err)
		}
		if last := &p[len(p)-1]; first == nil {
			first = last
		} else if last != first {
			t.Error("not the same chunk")
		}
		releases = append(releases, release)
	}
	if brought != 1 || n.holds.taken != store.ChunkSize {
		t.Errorf("brought %d times, %d bytes held", brought, n.holds.taken)
	}
	for _, release := range releases {
		release()
	}
	if n.holds.taken != 0 || n.budget.Used() != 0 {
		t.Errorf("%d bytes are still held, %d counted", n.holds.taken, n.budget.Used())
	}
	// One that somebody else has brought meanwhile is let go of.
	late, release, err := n.part(id, 0, func() ([]byte, error) {
		_, _, err := n.part(id, 0, bring)
		return make([]byte, store.ChunkSize), err
	})
	if err != nil || n.holds.taken != store.ChunkSize || n.holds.chunks[id].readers != 2 || &late[0] != &n.holds.chunks[id].chunk[0] {
		t.Errorf("%d bytes held for two, %v", n.holds.taken, err)
	}
	release()
}

// TestPartWithoutMemoryIsACopy: of what another node had to send too, which is
// asked for it only once.
func TestPartWithoutMemoryIsACopy(t *testing.T) {
	n := newLoneNode(t)
	n.holds.limit = 0
	id := peer.ChunkID{Key: store.Key{1}, Generation: 1, Index: 1}
	want, brought := randomBody(store.ChunkSize), 0
	var got []byte
	for len(got) < len(want) {
		p, release, err := n.part(id, int64(len(got)), func() ([]byte, error) {
			if b, err := n.store.Chunk(id.Key, id.Generation, id.Index); err == nil {
				return b, nil
			}
			brought++
			return want, nil
		})
		if err != nil || len(p) > partSize {
			t.Fatalf("%d bytes, %v", len(p), err)
		}
		if &p[0] == &want[len(got)] {
			t.Fatal("not a copy")
		}
		if got = append(got, p...); release != nil {
			t.Fatal("something is held")
		}
	}
	if string(got) != string(want) || brought != 1 {
		t.Errorf("brought %d times", brought)
	}
}
