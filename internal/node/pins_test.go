package node

import (
	"bytes"
	"errors"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// newLone returns a node without others.
func newLone(t *testing.T) *Node {
	t.Helper()
	n := New("alone", 64<<20)
	t.Cleanup(n.Close)
	return n
}

// TestReadersOfAChunkShareIt: also where each has brought it from another node.
func TestReadersOfAChunkShareIt(t *testing.T) {
	n := newLone(t)
	id := peer.ChunkID{Key: store.Key{1}, Generation: store.NewGeneration(), Index: 1}
	brought := 0
	bring := func() ([]byte, error) {
		brought++
		return make([]byte, store.ChunkSize), nil
	}
	var first *byte
	var releases []func()
	for i := range 10 {
		p, release, err := n.Pins.Part(id, int64(i), bring)
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
	if brought != 1 || n.Pins.Taken != store.ChunkSize {
		t.Errorf("brought %d times, %d bytes held", brought, n.Pins.Taken)
	}
	for _, release := range releases {
		release()
	}
	if n.Pins.Taken != 0 || n.Budget.Used() != 0 {
		t.Errorf("%d bytes are still held, %d counted", n.Pins.Taken, n.Budget.Used())
	}
	// One that somebody else has brought meanwhile is let go of.
	late, release, err := n.Pins.Part(id, 0, func() ([]byte, error) {
		_, _, err := n.Pins.Part(id, 0, bring)
		return make([]byte, store.ChunkSize), err
	})
	if err != nil || n.Pins.Taken != store.ChunkSize || n.Pins.pinned[id].readers != 2 || &late[0] != &n.Pins.pinned[id].chunk[0] {
		t.Errorf("%d bytes held for two, %v", n.Pins.Taken, err)
	}
	release()
}

// TestPartWithoutMemoryIsACopy: of what another node had to send too, which is
// asked for it only once.
func TestPartWithoutMemoryIsACopy(t *testing.T) {
	n := newLone(t)
	n.Pins.Limit = 0
	id := peer.ChunkID{Key: store.Key{1}, Generation: store.NewGeneration(), Index: 1}
	want, brought := bytes.Repeat([]byte("0123456789abcdef"), store.ChunkSize/16), 0
	var got []byte
	for len(got) < len(want) {
		p, release, err := n.Pins.Part(id, int64(len(got)), func() ([]byte, error) {
			if b, err := n.Store.Chunk(id.Key, id.Generation, id.Index); err == nil {
				return b, nil
			}
			brought++
			return want, nil
		})
		if err != nil || len(p) > PartSize {
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

// TestPartBeyondAChunk: what another copy of a chunk has and the pinned one has not is gone, and
// holds nothing.
func TestPartBeyondAChunk(t *testing.T) {
	n := newLone(t)
	id := peer.ChunkID{Key: store.Key{1}, Generation: store.NewGeneration(), Index: 1}
	const short = 2 * PartSize
	_, release, err := n.Pins.Part(id, 0, func() ([]byte, error) { return make([]byte, short), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{short, short + 1} {
		if p, _, err := n.Pins.Part(id, offset, nil); !errors.Is(err, ErrChunkGone) {
			t.Errorf("at %d of %d: %d bytes, %v", offset, short, len(p), err)
		}
	}
	release()
	p, _, err := n.Pins.Part(id, short, func() ([]byte, error) {
		_, release, err = n.Pins.Part(id, 0, func() ([]byte, error) { return make([]byte, short), nil })
		return make([]byte, store.ChunkSize), err
	})
	if !errors.Is(err, ErrChunkGone) {
		t.Errorf("of a copy that is longer than the pinned one: %d bytes, %v", len(p), err)
	}
	release()
	if n.Pins.Taken != 0 || n.Budget.Used() != 0 {
		t.Errorf("%d bytes are still held, %d counted", n.Pins.Taken, n.Budget.Used())
	}
}
