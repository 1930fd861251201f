package fill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"
)

func readAll(t *testing.T, r *Reader[string]) ([]byte, error) {
	t.Helper()
	defer r.Close()
	var all []byte
	for {
		p, err := r.Next(t.Context(), nil)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if len(p) == 0 {
			t.Fatal("Next returned nothing")
		}
		all = append(all, p...)
	}
}

func TestReadersThatComeAtAnyTimeGetTheWholeBody(t *testing.T) {
	t.Run("of a length that nobody knows", func(t *testing.T) { testReaders(t, false) })
	t.Run("of a length that was announced", func(t *testing.T) { testReaders(t, true) })
}

func testReaders(t *testing.T, announced bool) {
	body := make([]byte, 3<<20)
	for i := range body {
		body[i] = byte(rand.Uint32())
	}
	f := New[string](int64(len(body)), 1<<20, nil)
	if announced {
		if err := f.Expect(int64(len(body))); err != nil {
			t.Fatal(err)
		}
	}
	var readers sync.WaitGroup
	join := func() {
		r := f.NewReader()
		readers.Go(func() {
			got, err := readAll(t, r)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, len(body))
			}
		})
	}
	join()
	f.SetHeader("header")
	for rest := body; len(rest) > 0; {
		n := min(1+rand.IntN(100_000), len(rest))
		if _, err := f.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
		join()
	}
	f.Close(nil)
	join()
	if !bytes.Equal(f.Bytes(), body[:1<<20]) {
		t.Error("Bytes differs from what was written")
	}
	readers.Wait()
}

// script is a reader that gives its pieces one by one, the last one with EOF.
type script struct {
	rest []string
	next func() // called before each
	end  error
}

func (s *script) Read(p []byte) (int, error) {
	s.next()
	n := copy(p, s.rest[0])
	if s.rest[0] = s.rest[0][n:]; s.rest[0] == "" {
		s.rest = s.rest[1:]
	}
	if len(s.rest) == 0 {
		return n, s.end
	}
	return n, nil
}

func TestReadFromPublishesAsItReads(t *testing.T) {
	for _, expected := range []int64{0, 10} {
		f := New[string](10, 4, nil)
		f.SetHeader("header")
		if err := f.Expect(expected); err != nil {
			t.Fatal(err)
		}
		whole, early := f.NewReader(), f.NewReader()
		var seen []byte
		n, err := f.ReadFrom(&script{[]string{"abc", "defgh", "ij"}, func() {
			for int64(len(seen)) < f.Size() { // what was read before is there already
				p, err := early.Next(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				seen = append(seen, p...)
			}
		}, io.EOF})
		if n != 10 || err != nil || f.Size() != 10 || len(seen) < 8 {
			t.Errorf("%d bytes, %v; %d, of which %q was seen before the end", n, err, f.Size(), seen)
		}
		f.Close(nil)
		early.Close()
		if got, err := readAll(t, whole); err != nil || string(got) != "abcdefghij" {
			t.Errorf("%q, %v", got, err)
		}
		f.Release()
	}
}

// TestDigestIsOfTheFirstChunk: however it came in.
func TestDigestIsOfTheFirstChunk(t *testing.T) {
	body := make([]byte, 50)
	for i := range body {
		body[i] = byte(rand.Uint32())
	}
	for _, expected := range []int64{0, int64(len(body))} {
		for chunk := range int64(len(body) + 2) {
			f := New[string](int64(len(body)), chunk+1, nil)
			if err := f.Expect(expected); err != nil {
				t.Fatal(err)
			}
			for rest := body; len(rest) > 0; {
				p := rest[:min(1+rand.IntN(20), len(rest))]
				rest = rest[len(p):]
				var err error
				if rand.IntN(2) == 0 {
					_, err = f.Write(p)
				} else {
					_, err = f.ReadFrom(&script{[]string{string(p)}, func() {}, io.EOF})
				}
				if err != nil {
					t.Fatal(err)
				}
				if rand.IntN(4) == 0 {
					f.Digest() // which may be asked for any time
				}
			}
			if got, want := f.Digest(), xxhash.Sum64(f.Bytes()); got != want {
				t.Errorf("chunks of %d, expected %d: %x, want %x", chunk+1, expected, got, want)
			}
		}
	}
}

func TestReadFromThatFails(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		limit int64
		end   error
		next  func(*Fill[string])
		want  error
	}{
		"the reader breaks off": {10, broken, func(*Fill[string]) {}, broken},
		"it gives too much":     {3, io.EOF, func(*Fill[string]) {}, ErrTooLarge},
		"the fill is closed":    {10, io.EOF, func(f *Fill[string]) { f.Close(broken) }, broken},
	} {
		f := New[string](test.limit, 4, nil)
		n, err := f.ReadFrom(&script{[]string{"ab", "cd"}, func() { test.next(f) }, test.end})
		if !errors.Is(err, test.want) || n != f.Size() {
			t.Errorf("%s: %d of %d bytes, %v", name, n, f.Size(), err)
		}
		f.Release()
	}
}

func TestNextCallsIdleOnceBeforeItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New[string](10, 1<<20, nil)
		r := f.NewReader()
		calls := 0
		go func() {
			time.Sleep(time.Second)
			f.SetHeader("") // wakes the reader without giving it anything
			time.Sleep(time.Second)
			f.Write([]byte("x"))
		}()
		p, err := r.Next(t.Context(), func() { calls++ })
		if string(p) != "x" || err != nil || calls != 1 {
			t.Errorf("got %q, %v after %d calls of idle", p, err, calls)
		}
	})
}

func TestHeaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New[string](10, 1<<20, nil)
		go func() {
			time.Sleep(time.Second)
			f.SetHeader("here")
		}()
		start := time.Now()
		h, err := f.Header(t.Context())
		if h != "here" || err != nil || time.Since(start) != time.Second {
			t.Errorf("got %q, %v after %v", h, err, time.Since(start))
		}
	})
}

func TestWaitersLeaveWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		f := New[string](10, 1<<20, nil)
		if _, err := f.Header(ctx); !errors.Is(err, gone) {
			t.Errorf("Header: %v", err)
		}
		if _, err := f.NewReader().Next(ctx, nil); !errors.Is(err, gone) {
			t.Errorf("Next: %v", err)
		}
	})
}

func TestBrokenFill(t *testing.T) {
	broken := errors.New("broken")
	t.Run("before the header", func(t *testing.T) {
		f := New[string](10, 1<<20, nil)
		f.Close(broken)
		if _, err := f.Header(t.Context()); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("complete without a header", func(t *testing.T) {
		f := New[string](10, 1<<20, nil)
		f.Close(nil)
		if _, err := f.Header(t.Context()); err == nil {
			t.Error("got a header")
		}
	})
	t.Run("amid the body", func(t *testing.T) {
		f := New[string](10, 1<<20, nil)
		r := f.NewReader()
		f.SetHeader("")
		f.Write([]byte("abc"))
		f.Close(broken)
		f.Close(nil) // only the first counts
		got, err := readAll(t, r)
		if string(got) != "abc" || !errors.Is(err, broken) {
			t.Errorf("got %q, %v", got, err)
		}
		if _, err := f.Write([]byte("d")); !errors.Is(err, broken) {
			t.Errorf("Write after Close: %v", err)
		}
	})
	t.Run("by a writer that is gone", func(t *testing.T) {
		f := New[string](10, 1<<20, nil)
		r := f.NewReader()
		f.Release()
		if _, err := readAll(t, r); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	})
}

func TestReaderAfterEverybodyLetGoDoesNotSeeAnEmptyBody(t *testing.T) {
	f := New[string](10, 1<<20, nil)
	f.Write([]byte("abc"))
	f.Close(nil)
	f.Release()
	if got, err := readAll(t, f.NewReader()); err == nil {
		t.Errorf("got %q and no error", got)
	}
}

func TestLimit(t *testing.T) {
	f := New[string](10, 1<<20, nil)
	if err := f.Expect(11); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Expect: %v", err)
	}
	if _, err := f.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{1}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Write: %v", err)
	}
	if f.Size() != 10 {
		t.Errorf("size %d after a write that did not fit", f.Size())
	}
}

func TestExpectedBodyIsInOnePiece(t *testing.T) {
	for _, size := range []int{100_000, 400_000} {
		f := New[string](1<<20, 1<<20, nil)
		if err := f.Expect(int64(size)); err != nil {
			t.Fatal(err)
		}
		early := f.NewReader()
		defer early.Close()
		piece := make([]byte, size/10)
		for i := range piece {
			piece[i] = byte(i)
		}
		f.Write(piece)
		first, err := early.Next(t.Context(), nil)
		if err != nil || !bytes.Equal(first, piece) {
			t.Errorf("of %d bytes, the first piece has %d, %v", size, len(first), err)
		}
		for range 9 {
			f.Write(piece)
		}
		if rest, err := early.Next(t.Context(), nil); len(rest) != size-len(first) || err != nil {
			t.Errorf("of %d bytes, what follows the first piece has %d, %v", size, len(rest), err)
		}
		r := f.NewReader()
		defer r.Close()
		if p, err := r.Next(t.Context(), nil); !bytes.Equal(p, bytes.Repeat(piece, 10)) || err != nil {
			t.Errorf("of %d bytes, a late reader's first piece has %d, %v", size, len(p), err)
		}
		if a, b := f.Bytes(), f.Bytes(); &a[0] != &b[0] {
			t.Errorf("Bytes copied a body of %d bytes that is in one piece", size)
		}
	}
}

func TestBudgetIsTakenBeforeAndGivenBackAfter(t *testing.T) {
	budget := NewBudget(100_000)
	f := New[string](1<<20, 1<<20, budget)
	if err := f.Expect(60_000); err != nil {
		t.Fatal(err)
	}
	g := New[string](1<<20, 1<<20, budget)
	if err := g.Expect(60_000); !errors.Is(err, ErrMemory) {
		t.Errorf("second fill: %v", err)
	}
	if n, err := g.Write(make([]byte, 60_000)); n > 40_000 || !errors.Is(err, ErrMemory) {
		t.Errorf("wrote %d, %v", n, err)
	}
	g.Release()
	if got := budget.Used(); got != 60_000 {
		t.Errorf("%d in use after the second was let go of", got)
	}
	r := f.NewReader()
	f.Close(nil)
	f.Release()
	if got := budget.Used(); got != 60_000 {
		t.Errorf("%d in use while a reader holds on", got)
	}
	r.Close()
	if got := budget.Used(); got != 0 {
		t.Errorf("%d in use at the end", got)
	}
}

func TestPublishedBytesNeverChange(t *testing.T) {
	f := New[string](1<<20, 1<<20, nil)
	r := f.NewReader()
	f.Write([]byte("first"))
	p, _ := r.Next(t.Context(), nil)
	f.Write(bytes.Repeat([]byte("x"), 100_000))
	_ = append(p, "overwrite"...) // its capacity ends with it
	if got := f.Bytes(); string(p) != "first" || string(got[:5]) != "first" || got[5] != 'x' {
		t.Errorf("published bytes changed: %q, %q", p, got[:10])
	}
}

// elsewhere keeps the chunks of a fill that are settled.
type elsewhere struct {
	mu     sync.Mutex
	chunks map[int][]byte
	asked  int
	held   atomic.Int64 // parts that readers have and not let go of
}

func (e *elsewhere) settle(f *Fill[string], last bool) {
	for {
		i, b := f.Unsettled(last)
		if b == nil {
			return
		}
		e.mu.Lock()
		e.chunks[i] = bytes.Clone(b)
		e.mu.Unlock()
		f.Settle(i)
	}
}

func (e *elsewhere) recall(_ context.Context, i int, offset int64) ([]byte, func(), error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if e.chunks[i] == nil {
		return nil, nil, errors.New("not here")
	}
	e.held.Add(1)
	p := e.chunks[i][offset:]
	return p[:(len(p)+1)/2], func() { e.held.Add(-1) }, nil
}

func TestSettledChunksAreReadFromElsewhere(t *testing.T) {
	const chunk = 1000
	body := make([]byte, 10_500)
	for i := range body {
		body[i] = byte(rand.Uint32())
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
			n := min(1+rand.IntN(chunk), len(rest))
			if _, err := f.Write(rest[:n]); err != nil {
				t.Fatalf("with %d of memory in use: %v", budget.Used(), err)
			}
			rest = rest[n:]
			e.settle(f, len(rest) == 0)
			join(0)
			join(rand.IntN(len(body) + 10))
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

func TestExtendedFill(t *testing.T) {
	newFill := func() (*Fill[string], *elsewhere) {
		e := &elsewhere{chunks: map[int][]byte{1: []byte("bbbb"), 2: []byte("c")}}
		f := New[string](20, 4, nil)
		f.PutElsewhere(e.recall)
		return f, e
	}
	f, e := newFill()
	if err := f.Extend(8); err == nil {
		t.Error("extended before the first chunk is there")
	}
	f.Write([]byte("aaaa"))
	if err := f.Extend(21); !errors.Is(err, ErrTooLarge) {
		t.Errorf("beyond the limit: %v", err)
	}
	late, settled := f.NewReader(), f.NewReader()
	defer settled.Close()
	if err := f.Extend(8); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		p    string
		size int64
	}{{"aaaa", 0}, {"", 8}} {
		if p, size, err := settled.NextSettled(t.Context(), nil); string(p) != want.p || size != want.size || err != nil {
			t.Errorf("got %q, %d, %v; want %v", p, size, err, want)
		}
	}
	if e.asked != 0 {
		t.Error("a reader that needs no chunk got one")
	}
	if err := f.Extend(9); err != nil {
		t.Fatal(err)
	}
	if err := f.Extend(10); err == nil {
		t.Error("extended beyond what was the last chunk")
	}
	f.Close(nil)
	if got, err := readAll(t, late); string(got) != "aaaabbbbc" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if held := e.held.Load(); held != 0 {
		t.Errorf("readers have not let go of %d parts", held)
	}
	if p, size, err := settled.NextSettled(t.Context(), nil); p != nil || size != 9 || err != nil {
		t.Errorf("got %q, %d, %v", p, size, err)
	}
	if _, _, err := settled.NextSettled(t.Context(), nil); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
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
