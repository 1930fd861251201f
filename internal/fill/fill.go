// Package fill holds one response while it comes in: a header, then a body
// that only grows. One writer feeds it; any number of readers follow, each at
// its own pace and from the first byte, whenever they arrive.
//
// The writer never waits for a reader. Bytes that were published never change,
// so a reader may take as long as it likes over those that it has got. Memory is taken from a Budget before it is allocated, and given back when
// the writer and the last reader have let go.
//
// A large body need not stay in memory. It is divided into chunks of one size;
// the first stays, and each further one may be put elsewhere when it is
// complete. Who reads gets it back from there, through a function that the
// writer names, and does not notice, unless it is gone.
//
// The package knows nothing of HTTP: the header is whatever the caller says.
package fill

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"sync"
)

// Errors of Write. Either ends the fill: its readers get the same error.
var (
	ErrTooLarge = errors.New("fill: body is larger than its limit")
	ErrMemory   = errors.New("fill: no room left for bodies in flight")
)

// ErrGone is the error of a Reader whose next chunk cannot be got back. The
// fill itself goes on.
var ErrGone = errors.New("fill: a chunk is not where it was put")

// firstBlock is what the smallest body takes whose length is not known.
const firstBlock = 4 << 10

// early is the length of a body from which on its first piece is published before
// there is memory for all of the first chunk: to get that takes longer than to
// send the piece.
const early = 128 << 10

// copySize is how much a reader copies at a time of a chunk that may be put
// elsewhere any moment, and is not counted from then on.
const copySize = 32 << 10

// Chunks is how the chunks of a body beyond the first are got back: chunk i
// begins at byte i times their size. It returns what follows an offset in the
// chunk, all or some, which is the reader's until release (nil:
// for good).
type Chunks func(ctx context.Context, i int, offset int64) (p []byte, release func(), err error)

// A Fill is one response on its way in. Its life is: header unknown, header
// set, then closed, with a nil error when the body is complete. Closing may
// come first; then there never is a header.
type Fill[H any] struct {
	mu     sync.Mutex // guards all below
	body   body
	recall Chunks        // set before any chunk is elsewhere
	wake   chan struct{} // made by the first who waits, closed at the next change
	header H
	known  bool // header is set
	closed bool
	err    error // why it closed; nil: complete
	refs   int   // the writer and every open Reader
}

// New returns a Fill for a body of at most limit bytes, in chunks of a size,
// whose memory is taken from budget (nil: not counted). The caller is its
// writer and must Release it when done.
func New[H any](limit, chunk int64, budget *Budget) *Fill[H] {
	f := &Fill[H]{body: body{limit: limit, chunk: chunk, budget: budget}, refs: 1}
	f.body.digest.Reset()
	return f
}

// Expect announces the length of the body, so that memory for its first chunk
// is reserved before that comes in and it ends up in one piece. It must precede Write.
func (f *Fill[H]) Expect(n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed: // no release would give the memory back
		return cmp.Or(f.err, io.ErrClosedPipe)
	case n > f.body.limit:
		return ErrTooLarge
	case n <= 0 || f.body.length > 0 || len(f.body.first) > 0:
		return nil
	}
	first := min(n, f.body.chunk)
	if !f.body.budget.TakeFor(first) {
		return ErrMemory
	}
	f.body.length, f.body.owing = n, first
	f.body.held += first
	return nil
}

// Unlimit takes the limit off a body that has outgrown it while readers follow it.
func (f *Fill[H]) Unlimit() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.body.limit = math.MaxInt64
}

// Readers returns how many readers are open.
func (f *Fill[H]) Readers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refs - 1
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
		return 0, cmp.Or(f.err, io.ErrClosedPipe)
	}
	if f.body.size+int64(len(p)) > f.body.limit {
		return 0, ErrTooLarge
	}
	n, err := f.body.append(p)
	if err != nil {
		return n, err
	}
	f.signalLocked()
	return n, nil
}

// ReadFrom appends and publishes what it reads until EOF, without a copy. A
// reader that knows its end tells with the last bytes, or room is taken in vain.
func (f *Fill[H]) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for {
		b, err := f.room()
		if err != nil {
			return total, err
		}
		n, end := r.Read((*b)[len(*b):cap(*b)])
		if err := f.filled(b, n); err != nil {
			return total, err
		}
		total += int64(n)
		if end == io.EOF {
			return total, nil
		}
		if end != nil {
			return total, end
		}
	}
}

// room returns the block that the next bytes go to.
func (f *Fill[H]) room() (*[]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return nil, cmp.Or(f.err, io.ErrClosedPipe)
	case f.body.size >= f.body.limit:
		return nil, ErrTooLarge
	}
	if f.body.owing > 0 { // it is known how much there is to come
		return f.body.room(early / 2)
	}
	return f.body.room(1)
}

// filled publishes n bytes that were written into the room of a block.
func (f *Fill[H]) filled(b *[]byte, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return cmp.Or(f.err, io.ErrClosedPipe)
	}
	*b = (*b)[:len(*b)+n]
	f.body.size += int64(n)
	f.signalLocked()
	return nil
}

// PutElsewhere says how chunks that are not here any more are got back. It
// precedes Settle and Extend.
func (f *Fill[H]) PutElsewhere(recall Chunks) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recall = recall
}

// Unsettled returns the oldest chunk but the first that has not been settled,
// and its index, if all of it is here; the last one of a body is, if the caller
// says so. Otherwise the chunk is nil.
func (f *Fill[H]) Unsettled(last bool) (i int, chunk []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i = max(int(f.body.away/f.body.chunk), 1)
	if i <= f.body.gone || i > f.body.gone+len(f.body.rest) {
		return 0, nil
	}
	b := f.body.rest[i-1-f.body.gone]
	if int64(len(b)) < f.body.chunk && !last {
		return 0, nil
	}
	return i, b[:len(b):len(b)]
}

// Settle lets go of the chunk that Unsettled has returned: it is elsewhere.
func (f *Fill[H]) Settle(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refs == 0 {
		return
	}
	b := f.body.rest[0]
	f.body.free(b)
	f.body.rest[0] = nil
	f.body.rest, f.body.gone = f.body.rest[1:], i
	f.body.away = int64(i)*f.body.chunk + int64(len(b))
	f.signalLocked()
}

// Extend makes the body size bytes long. What is new of it is elsewhere: the
// first chunk must be complete, and be followed by nothing that was written; what came Ahead
// it takes the place of. It costs the same for any size, since sizes are what another node
// claims.
func (f *Fill[H]) Extend(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return cmp.Or(f.err, io.ErrClosedPipe)
	case size > f.body.limit:
		return ErrTooLarge
	case f.body.size < f.body.chunk, f.recall == nil, f.body.settled()%f.body.chunk != 0, size <= f.body.settled(), size < f.body.size:
		return io.ErrUnexpectedEOF
	}
	f.body.dropAhead()
	f.body.size, f.body.away, f.body.gone = size, size, int((size-1)/f.body.chunk)
	f.signalLocked()
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

// Bytes returns the first chunk so far in one piece; no copy is made when it
// was written into one block, and fills most of that. The result must not be
// changed.
func (f *Fill[H]) Bytes() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.body.firstChunk()
}

// Digest returns the xxHash of the first chunk so far.
func (f *Fill[H]) Digest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.body.firstDigest()
}

// Whole returns Bytes, Digest and Size of a body that has come in, or reports false if the
// fill has been released: then nothing is here any more, which is not an empty body.
func (f *Fill[H]) Whole() (first []byte, digest uint64, size int64, here bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refs == 0 {
		return nil, 0, 0, false
	}
	return f.body.firstChunk(), f.body.firstDigest(), f.body.size, true
}

// Size returns how many bytes of body have come in.
func (f *Fill[H]) Size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.body.size
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
		f.body.release()
		f.err = cmp.Or(f.err, io.ErrUnexpectedEOF) // a reader that comes too late must not see an empty body
	}
}

// Known returns the header, if there is one yet.
func (f *Fill[H]) Known() (h H, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.header, f.known
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
	at    int64 // of the next byte in the body
	block int   // of the first chunk: where at is, or before that
	begin int64 // of the block in the body

	told int64 // how much NextSettled has said to be elsewhere
	due  int64 // up to where it gives bytes of the chunk that is coming in

	release func() // lets go of what Next has got back; nil: nothing
	copied  []byte // what Next has copied
	closed  bool
}

// NewReader adds a reader, which must be closed.
func (f *Fill[H]) NewReader() *Reader[H] {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refs++
	return &Reader[H]{f: f}
}

// Skip leaves out bytes that may not have come in yet.
func (r *Reader[H]) Skip(n int64) { r.at += n }

// Next returns the next bytes, good until the next call: some, and at least one.
// When nothing has come in yet it calls idle (if not nil) once, then
// waits. At the end of a complete body it returns io.EOF; of a broken one, its
// error. The error is ErrGone when a chunk could not be got back.
func (r *Reader[H]) Next(ctx context.Context, idle func()) ([]byte, error) {
	r.letGo()
	p, i, err := r.next(ctx, idle)
	if err != nil || p != nil {
		return p, err
	}
	p, release, err := r.f.recall(ctx, i, r.at-int64(i)*r.f.body.chunk)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, ErrGone
	}
	r.release = release
	r.at += int64(len(p))
	return p, nil
}

func (r *Reader[H]) letGo() {
	if r.release != nil {
		r.release()
		r.release = nil
	}
}

// next waits until the body is longer than what was read. It returns bytes that are
// here, or the index of the chunk that is not.
func (r *Reader[H]) next(ctx context.Context, idle func()) ([]byte, int, error) {
	f := r.f
	for {
		f.mu.Lock()
		if r.at < f.body.size {
			defer f.mu.Unlock()
			p, i := r.takeLocked()
			return p, i, nil
		}
		if f.closed {
			err := f.err
			f.mu.Unlock()
			if err == nil {
				err = io.EOF
			}
			return nil, 0, err
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
			return nil, 0, context.Cause(ctx)
		}
	}
}

// takeLocked returns what follows r.at, of which there is something.
func (r *Reader[H]) takeLocked() ([]byte, int) {
	f := r.f
	var b []byte
	if r.at < f.body.chunk {
		for r.at-r.begin >= int64(len(f.body.first[r.block])) {
			r.begin += int64(len(f.body.first[r.block]))
			r.block++
		}
		b = f.body.first[r.block][r.at-r.begin:]
	} else {
		i := int(r.at / f.body.chunk)
		if i <= f.body.gone {
			return nil, i
		}
		b = f.body.rest[i-1-f.body.gone][r.at-int64(i)*f.body.chunk:]
		r.copied = append(r.copied[:0], b[:min(len(b), copySize)]...)
		b = r.copied
	}
	r.at += int64(len(b))
	return b[:len(b):len(b)], 0
}

// Close lets go of the fill. A closed Reader must not be used, but may be closed
// again.
func (r *Reader[H]) Close() {
	if r.closed {
		return
	}
	r.closed = true
	r.letGo()
	r.f.unref()
}
