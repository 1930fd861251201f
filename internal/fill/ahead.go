package fill

import (
	"context"
	"io"
	"time"
)

// Lull is how long a chunk that is coming in may take before a reader of NextSettled gets its
// bytes ahead: a slow body is read along as it arrives, and of a fast one nothing is sent twice.
const Lull = 100 * time.Millisecond

// Ahead appends bytes of the chunk that is coming in elsewhere. They begin at a position in the
// body, and Extend takes their place. Those that don't follow what is here, or for which there
// is no room, are left out: a reader gets them with their chunk.
func (f *Fill[H]) Ahead(at int64, p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.body.settled() + f.body.chunk // where the chunk after it begins
	if f.closed || f.body.size < f.body.chunk || at != f.body.size || at+int64(len(p)) > min(next, f.body.limit) {
		return
	}
	_, _ = f.body.append(p)
	f.signalLocked()
}

// NextSettled is Next for a reader that needs no more of the further chunks than to know
// that they are elsewhere: then there are no bytes, and the position is the size up to which
// they are. Of a chunk that takes long it gets the bytes too, while ahead says so; the position
// is then where they begin in the body. Without a position the bytes are of the first chunk.
func (r *Reader[H]) NextSettled(ctx context.Context, idle func(), ahead func() bool) (p []byte, at int64, err error) {
	var lull <-chan time.Time
	for {
		p, at, coming, wake, err := r.settled()
		if wake == nil {
			return p, at, err
		}
		if idle != nil {
			idle()
			idle = nil
		}
		if lull == nil && r.at < coming && ahead() {
			timer := time.NewTimer(Lull)
			defer timer.Stop()
			lull = timer.C
		}
		select {
		case <-wake:
		case <-lull:
			r.due, lull = coming, nil
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

// settled returns what NextSettled does, or if there is nothing yet, what the next change
// closes, and up to where bytes of the chunk that is coming in are here. It lets go of the lock
// on every way out: the goroutine that publishes a body survives a panic.
func (r *Reader[H]) settled() (p []byte, at, coming int64, wake <-chan struct{}, err error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.at < min(f.body.size, f.body.chunk):
		p, _ = r.takeLocked()
	case f.body.away > r.told:
		r.told, r.at = f.body.away, max(r.at, f.body.away)
		at = f.body.away
	case r.at < min(r.due, f.body.size): // and all of it is here: it would have been told to be elsewhere
		at = r.at
		p, _ = r.takeLocked()
	case f.closed:
		if err = f.err; err == nil {
			err = io.EOF
		}
	default:
		coming, wake = min(f.body.size, f.body.settled()+f.body.chunk), f.waitLocked()
	}
	return p, at, coming, wake, err
}
