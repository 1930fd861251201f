package fill

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

func never() bool  { return false }
func always() bool { return true }

// TestSlowChunkIsReadAhead: a body goes from fill to fill as it does from node to node, and
// what is read from the last one comes a lull after it was written, and is the same in the end
// however much of it was ahead.
func TestSlowChunkIsReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk, step = 1000, 50
		e := &elsewhere{chunks: make(map[int][]byte)}
		body := bytes.Repeat([]byte("0123456789"), 250)
		budget := NewBudget(10 * chunk)
		var fills []*Fill[string]
		for i := range 3 {
			fills = append(fills, New[string](1<<20, chunk, budget))
			fills[i].PutElsewhere(e.recall)
			if i > 0 {
				go pump(t, fills[i-1].NewReader(), fills[i])
			}
		}
		var got []byte // read after Wait only
		reader := fills[2].NewReader()
		defer reader.Close()
		go func() {
			for p, err := reader.Next(t.Context(), nil); err == nil; p, err = reader.Next(t.Context(), nil) {
				got = append(got, p...)
			}
		}()
		for at := step; at <= len(body); at += step {
			if _, err := fills[0].Write(body[at-step : at]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * Lull)
			synctest.Wait()
			if !bytes.Equal(got, body[:at]) {
				t.Fatalf("%d bytes have arrived of %d", len(got), at)
			}
			e.settle(fills[0], at == len(body))
		}
		fills[0].Close(nil)
		synctest.Wait()
		for _, f := range fills {
			f.Release()
		}
		reader.Close()
		if used := budget.Used(); used != 0 || !bytes.Equal(got, body) {
			t.Errorf("%d in use at the end, %d bytes read of %d", used, len(got), len(body))
		}
	})
}

// pump feeds a fill as another node does.
func pump(t *testing.T, from *Reader[string], to *Fill[string]) {
	defer from.Close()
	for {
		p, at, err := from.NextSettled(t.Context(), nil, always)
		switch {
		case err != nil:
			to.Close(nil)
			return
		case at == 0:
			_, err = to.Write(p)
		case p != nil:
			to.Ahead(at, p)
		default:
			err = to.Extend(at)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// TestWhatComesAheadIsOnlyWhatFollows what is there, and takes no more than there is.
func TestWhatComesAheadIsOnlyWhatFollows(t *testing.T) {
	f := New[string](100, 10, NewBudget(15))
	f.PutElsewhere((&elsewhere{}).recall)
	ahead := func(at int64, p string, size int64) {
		t.Helper()
		if f.Ahead(at, []byte(p)); f.Size() != size {
			t.Errorf("%q at %d: %d bytes, want %d", p, at, f.Size(), size)
		}
	}
	ahead(0, "before", 0)
	if _, err := f.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	ahead(10, "no room", 10)
	f.body.budget = nil
	ahead(11, "a hole", 10)
	ahead(10, "more than a chunk", 10)
	ahead(10, "begin", 15)
	ahead(10, "again", 15)
	if err := f.Extend(12); err == nil {
		t.Error("less is stored than was ahead")
	}
	if err := f.Extend(20); err != nil || f.Size() != 20 {
		t.Errorf("%d bytes, %v", f.Size(), err)
	}
	ahead(20, "the next", 28)
	f.Close(nil)
	ahead(28, "x", 28)
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

// TestReaderOfAReleasedFill: one that is in the middle of a chunk ahead, in a goroutine that
// nobody waits for.
func TestReaderOfAReleasedFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk = 3 * copySize
		f := New[string](1<<20, chunk, nil)
		r := f.NewReader()
		if _, err := f.Write(make([]byte, chunk+2*copySize)); err != nil {
			t.Fatal(err)
		}
		for ahead := false; !ahead; {
			p, at, err := r.NextSettled(t.Context(), nil, always)
			if err != nil || len(p) == 0 {
				t.Fatalf("%d bytes at %d, %v", len(p), at, err)
			}
			ahead = at > 0
		}
		r.Close()
		f.Release()
		if p, at, err := r.NextSettled(t.Context(), nil, always); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes at %d, %v", len(p), at, err)
		}
	})
}
