package fill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

func TestReadersThatComeAtAnyTimeGetTheWholeBody(t *testing.T) {
	t.Run("of a length that nobody knows", func(t *testing.T) { testReaders(t, false) })
	t.Run("of a length that was announced", func(t *testing.T) { testReaders(t, true) })
}

func testReaders(t *testing.T, announced bool) {
	random := seed.Of(t).Rand()
	body := make([]byte, 3<<20)
	for i := range body {
		body[i] = byte(random.Uint32())
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
		n := min(1+random.IntN(100_000), len(rest))
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
	random := seed.Of(t).Rand()
	body := make([]byte, 50)
	for i := range body {
		body[i] = byte(random.Uint32())
	}
	for _, expected := range []int64{0, int64(len(body))} {
		for chunk := range int64(len(body) + 2) {
			f := New[string](int64(len(body)), chunk+1, nil)
			if err := f.Expect(expected); err != nil {
				t.Fatal(err)
			}
			for rest := body; len(rest) > 0; {
				p := rest[:min(1+random.IntN(20), len(rest))]
				rest = rest[len(p):]
				var err error
				if random.IntN(2) == 0 {
					_, err = f.Write(p)
				} else {
					_, err = f.ReadFrom(&script{[]string{string(p)}, func() {}, io.EOF})
				}
				if err != nil {
					t.Fatal(err)
				}
				if random.IntN(4) == 0 {
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
		if p, size, err := settled.NextSettled(t.Context(), nil, never); string(p) != want.p || size != want.size || err != nil {
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
	if p, size, err := settled.NextSettled(t.Context(), nil, never); p != nil || size != 9 || err != nil {
		t.Errorf("got %q, %d, %v", p, size, err)
	}
	if _, _, err := settled.NextSettled(t.Context(), nil, never); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestBodyLongerThanAnnounced: it is for who writes to see that it is.
func TestBodyLongerThanAnnounced(t *testing.T) {
	b := NewBudget(1000)
	f := New[string](1000, 100, b)
	if err := f.Expect(150); err != nil {
		t.Fatal(err)
	}
	r := f.NewReader()
	body := bytes.Repeat([]byte("0123456789"), 30)
	for i := range 30 {
		if _, err := f.Write(body[10*i : 10*i+10]); err != nil {
			t.Fatal(err)
		}
	}
	f.Close(nil)
	if got, err := readAll(t, r); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	f.Release()
	if b.Used() != 0 {
		t.Errorf("%d bytes are still taken", b.Used())
	}
}

func TestBodyThatOutgrowsItsLimit(t *testing.T) {
	b := NewBudget(1000)
	f := New[string](150, 100, b)
	r := f.NewReader()
	if n := f.Readers(); n != 1 {
		t.Errorf("%d readers", n)
	}
	body := bytes.Repeat([]byte("0123456789"), 30)
	if _, err := f.Write(body[:140]); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write(body[140:160]); n != 0 || !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d, %v", n, err)
	}
	f.Unlimit()
	if _, err := f.Write(body[140:]); err != nil {
		t.Fatal(err)
	}
	f.Close(nil)
	if got, err := readAll(t, r); err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if n := f.Readers(); n != 0 {
		t.Errorf("%d readers", n)
	}
	f.Release()
	if b.Used() != 0 {
		t.Errorf("%d bytes are still taken", b.Used())
	}
}

// TestEndedFillExpectsNothing: no release gives back memory that is taken after the end.
func TestEndedFillExpectsNothing(t *testing.T) {
	why := errors.New("it took too long")
	for want, end := range map[error]func(*Fill[string]){
		why:                 func(f *Fill[string]) { f.Close(why) },
		io.ErrClosedPipe:    func(f *Fill[string]) { f.Close(nil) },
		io.ErrUnexpectedEOF: (*Fill[string]).Release,
	} {
		budget := NewBudget(1000)
		f := New[string](1000, 100, budget)
		if end(f); !errors.Is(f.Expect(50), want) || budget.Used() != 0 {
			t.Errorf("%v: %v, %d bytes in use", want, f.Expect(50), budget.Used())
		}
	}
}
