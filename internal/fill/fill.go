// Package fill holds one response while it comes in: a header, then a body
// that only grows. One writer feeds it; any number of readers follow, each at
// its own pace and from the first byte, whenever they arrive.
//
// The writer never waits for a reader. Bytes that were published never change
// and are never reused, so a reader may hold them for as long as it likes.
// Memory is taken from a Budget before it is allocated, and given back when
// the writer and the last reader have let go.
//
// The package knows nothing of HTTP: the header is whatever the caller says.
package fill

import (
	"context"
	"errors"
	"io"
	"sync"
)

// Errors of Write. Either ends the fill: its readers get the same error.
var (
	ErrTooLarge = errors.New("fill: body is larger than its limit")
	ErrMemory   = errors.New("fill: no room left for bodies in flight")
)

const (
	firstBlock = 4 << 10
	maxBlock   = 1 << 20
)

// A Fill is one response on its way in. Its life is: header unknown, header
// set, then closed, with a nil error when the body is complete. Closing may
// come first; then there never is a header.
type Fill[H any] struct {
	limit  int64
	budget *Budget

	mu     sync.Mutex    // guards all below
	wake   chan struct{} // made by the first who waits, closed at the next change
	header H
	known  bool // header is set
	closed bool
	err    error    // why it closed; nil: complete
	blocks [][]byte // published bytes; only the last block can still grow
	size   int64    // sum of len(blocks)
	held   int64    // bytes taken from budget
	refs   int      // the writer and every open Reader
}

// New returns a Fill for a body of at most limit bytes whose memory is taken
// from budget (nil: not counted). The caller is its writer and must Release it
// when done.
func New[H any](limit int64, budget *Budget) *Fill[H] {
	return &Fill[H]{limit: limit, budget: budget, refs: 1}
}

// Expect announces the length of the body, so that memory for all of it is
// reserved at once and the body ends up in one piece. It must precede Write.
func (f *Fill[H]) Expect(n int64) error {
	if n > f.limit {
		return ErrTooLarge
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n <= 0 || len(f.blocks) > 0 {
		return nil
	}
	return f.growLocked(n)
}

// SetHeader publishes the header: from here on readers may start.
func (f *Fill[H]) SetHeader(h H) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.header, f.known = h, true
	f.signalLocked()
}

// Write appends a copy of p and publishes it.
func (f *Fill[H]) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		if f.err != nil {
			return 0, f.err
		}
		return 0, io.ErrClosedPipe
	}
	if f.size+int64(len(p)) > f.limit {
		return 0, ErrTooLarge
	}
	n := len(p)
	for len(p) > 0 {
		last := len(f.blocks) - 1
		if last < 0 || len(f.blocks[last]) == cap(f.blocks[last]) {
			if err := f.growLocked(f.nextBlockLocked(len(p))); err != nil {
				return n - len(p), err
			}
			last++
		}
		b := f.blocks[last]
		k := copy(b[len(b):cap(b)], p)
		f.blocks[last] = b[:len(b)+k]
		f.size += int64(k)
		p = p[k:]
	}
	f.signalLocked()
	return n, nil
}

// nextBlockLocked doubles the body's room up to maxBlock, and takes no more
// than the limit leaves.
func (f *Fill[H]) nextBlockLocked(need int) int64 {
	want := max(firstBlock, min(f.size, maxBlock), min(int64(need), maxBlock))
	return min(want, f.limit-f.size)
}

func (f *Fill[H]) growLocked(n int64) error {
	if !f.budget.take(n) {
		return ErrMemory
	}
	f.held += n
	f.blocks = append(f.blocks, make([]byte, 0, n))
	return nil
}

// Close ends the fill: complete with a nil error, otherwise broken off, and
// err is what readers get once they have read what is there. Only the first
// Close counts.
func (f *Fill[H]) Close(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.closed, f.err = true, err
	f.signalLocked()
}

// Bytes returns the body so far in one piece; no copy is made when it was
// written into one block. The result must not be changed.
func (f *Fill[H]) Bytes() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.blocks) == 1 {
		return f.blocks[0][:len(f.blocks[0]):len(f.blocks[0])]
	}
	all := make([]byte, 0, f.size)
	for _, b := range f.blocks {
		all = append(all, b...)
	}
	return all
}

// Size returns how many bytes of body have come in.
func (f *Fill[H]) Size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

// Release lets go of the fill as its writer. An open fill is closed with
// io.ErrUnexpectedEOF, so that no reader waits for a writer that is gone.
func (f *Fill[H]) Release() {
	f.Close(io.ErrUnexpectedEOF)
	f.unref()
}

func (f *Fill[H]) unref() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs--
	if f.refs == 0 {
		f.budget.give(f.held)
		f.held, f.blocks = 0, nil
		f.err = io.ErrUnexpectedEOF // a reader that comes too late must not see an empty body
	}
}

// Header waits for the header. It fails when the fill is closed before there
// is one, or when ctx ends.
func (f *Fill[H]) Header(ctx context.Context) (H, error) {
	for {
		f.mu.Lock()
		if f.known {
			h := f.header
			f.mu.Unlock()
			return h, nil
		}
		if f.closed {
			err := f.err
			f.mu.Unlock()
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			var none H
			return none, err
		}
		wake := f.waitLocked()
		f.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			var none H
			return none, context.Cause(ctx)
		}
	}
}

// waitLocked returns a channel that the next change closes.
func (f *Fill[H]) waitLocked() <-chan struct{} {
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	return f.wake
}

func (f *Fill[H]) signalLocked() {
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// A Reader follows a Fill's body from its first byte. It is for one goroutine.
type Reader[H any] struct {
	f     *Fill[H]
	block int // the next bytes are f.blocks[block][off:]
	off   int
}

// NewReader adds a reader, which must be closed.
func (f *Fill[H]) NewReader() *Reader[H] {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs++
	return &Reader[H]{f: f}
}

// Next returns the next bytes: all that one block has to give, at least one.
// When nothing has come in yet it calls idle (if not nil) once, then waits. At
// the end of a complete body it returns io.EOF; of a broken one, its error.
func (r *Reader[H]) Next(ctx context.Context, idle func()) ([]byte, error) {
	f := r.f
	for {
		f.mu.Lock()
		if p := r.takeLocked(); p != nil {
			f.mu.Unlock()
			return p, nil
		}
		if f.closed {
			err := f.err
			f.mu.Unlock()
			if err == nil {
				err = io.EOF
			}
			return nil, err
		}
		wake := f.waitLocked()
		f.mu.Unlock()
		if idle != nil {
			idle()
			idle = nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (r *Reader[H]) takeLocked() []byte {
	for r.block < len(r.f.blocks) {
		b := r.f.blocks[r.block]
		if r.off < len(b) {
			p := b[r.off:len(b):len(b)]
			r.off = len(b)
			return p
		}
		if len(b) < cap(b) {
			return nil // this block still grows
		}
		r.block, r.off = r.block+1, 0
	}
	return nil
}

// Close lets go of the fill. A closed Reader must not be used.
func (r *Reader[H]) Close() { r.f.unref() }
