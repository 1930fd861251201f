package fill

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

func TestSettledChunksAreReadFromElsewhere(t *testing.T) {
	random := seed.Of(t).Rand()
	const chunk = 1000
	body := make([]byte, 10_500)
	for i := range body {
		body[i] = byte(random.Uint32())
	}
	for _, announced := range []bool{false, true} {
		budget := NewBudget(4 * chunk)
		f := New[string](1<<20, chunk, budget)
		if announced {
			f.Expect(int64(len(body)))
		}
		e := &elsewhere{chunks: make(map[int][]byte)}
		f.PutElsewhere(e.recall)
		var readers sync.WaitGroup
		join := func(skip int) {
			r := f.NewReader()
			r.Skip(int64(skip))
			readers.Go(func() {
				got, err := readAll(t, r)
				if err != nil || !bytes.Equal(got, body[min(skip, len(body)):]) {
					t.Errorf("after %d: got %d bytes, %v", skip, len(got), err)
				}
			})
		}
		for rest := body; len(rest) > 0; {
			n := min(1+random.IntN(chunk), len(rest))
			if _, err := f.Write(rest[:n]); err != nil {
				t.Fatalf("with %d of memory in use: %v", budget.Used(), err)
			}
			rest = rest[n:]
			e.settle(f, len(rest) == 0)
			join(0)
			join(random.IntN(len(body) + 10))
		}
		f.Close(nil)
		join(0)
		readers.Wait()
		if held := e.held.Load(); held != 0 {
			t.Errorf("readers have not let go of %d parts", held)
		}
		if used := budget.Used(); used != chunk {
			t.Errorf("%d in use when all but the first chunk is elsewhere", used)
		}
		f.Release()
		if used := budget.Used(); used != 0 {
			t.Errorf("%d in use at the end", used)
		}
	}
}

func TestReaderOfAChunkThatIsGone(t *testing.T) {
	f := New[string](100, 10, nil)
	f.PutElsewhere((&elsewhere{}).recall)
	r := f.NewReader()
	f.Write(make([]byte, 20))
	f.Settle(1)
	if p, err := r.Next(t.Context(), nil); len(p) != 10 || err != nil {
		t.Errorf("first chunk: %d, %v", len(p), err)
	}
	if _, err := r.Next(t.Context(), nil); !errors.Is(err, ErrGone) {
		t.Errorf("second chunk: %v", err)
	}
	if _, err := f.Write([]byte("more")); err != nil {
		t.Errorf("the fill went on with %v", err)
	}
}

// TestReaderKeepsNothingOfWhatIsSettled: a slow one would keep a chunk in memory
// that nobody counts any more.
func TestReaderKeepsNothingOfWhatIsSettled(t *testing.T) {
	f := New[string](100, 10, nil)
	defer f.Release()
	r := f.NewReader()
	defer r.Close()
	f.Write([]byte("0123456789abcdefghij"))
	for _, want := range []string{"0123456789", "abcdefghij"} {
		p, err := r.Next(t.Context(), nil)
		if string(p) != want || err != nil {
			t.Fatalf("got %q, %v", p, err)
		}
		if _, chunk := f.Unsettled(true); want[0] == 'a' && &p[0] == &chunk[0] {
			t.Error("the reader has the chunk itself")
		}
	}
}

// TestClaimedSizesCostNothing: a node says how long a body is whose chunks are
// elsewhere, and may say anything.
func TestClaimedSizesCostNothing(t *testing.T) {
	const chunk = 1 << 10
	f := New[string](1<<50, chunk, nil)
	defer f.Release()
	f.PutElsewhere((&elsewhere{chunks: make(map[int][]byte)}).recall)
	if _, err := f.Write(make([]byte, chunk)); err != nil {
		t.Fatal(err)
	}
	claimed := []int64{2 * chunk, 1 << 50}
	if n := testing.AllocsPerRun(1, func() { // which runs it once before
		if err := f.Extend(claimed[0]); err != nil {
			t.Error(err)
		}
		claimed = claimed[1:]
	}); n > 0 {
		t.Errorf("%g allocations", n)
	}
	r := f.NewReader()
	defer r.Close()
	r.Skip(1<<50 - 1)
	if _, err := r.Next(t.Context(), nil); !errors.Is(err, ErrGone) {
		t.Errorf("the last byte: %v", err)
	}
}
