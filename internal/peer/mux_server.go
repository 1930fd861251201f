package peer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

// flushAt is from how many bytes on answers are written although there are more
// calls to be read.
const flushAt = 64 << 10

// maxSharedStreams is how many shared streams a connection can have. One is what
// nodes use, but they may begin another before this side knows that it is over.
const maxSharedStreams = 4

// muxServer is the owner's side of a shared stream. One goroutine reads the calls
// and answers at once what it can; what may wait gets a goroutine of its own.
type muxServer struct {
	s    *Server
	conn *serverConn // nil without a secret
	host *share
	ctx  context.Context
	idle *Answer // for the next look-up; nil: the last one's is still in use

	late sync.WaitGroup // calls that may wait

	writing sync.Mutex // held to write; guards spare, and comes before mu
	out     io.Writer
	flush   func() error
	spare   []byte

	mu    sync.Mutex // guards below
	queue encoder    // answers that are not written yet
	open  map[uint64]context.CancelFunc
	err   error // of writing
}

// calls answers the calls on a shared stream, until the asker or the connection
// ends it.
func (s *Server) calls(w http.ResponseWriter, r *http.Request) {
	streams := r.Context().Value(streamsKey{}).(*atomic.Int32)
	defer streams.Add(-1)
	if streams.Add(1) > maxSharedStreams {
		s.refuse(w)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	as := &muxServer{s: s, ctx: ctx, out: w, flush: http.NewResponseController(w).Flush, open: make(map[uint64]context.CancelFunc)}
	as.conn, _ = ctx.Value(connKey{}).(*serverConn)
	as.host = ctx.Value(shareKey{}).(*share)
	defer as.late.Wait() // nothing may be written after this handler, however it ends
	defer cancel()
	w.WriteHeader(http.StatusOK)
	err := as.flush()
	if err == nil {
		err = as.serve(r.Body)
	}
	if errors.Is(err, ErrProtocol) {
		s.note(err)
	}
}

// serve answers what it reads.
func (as *muxServer) serve(r io.Reader) error {
	// A query copies what it keeps, and a publication is dealt with at once.
	frames := &frameReader{r: bufio.NewReaderSize(r, MaxShared), own: make([]byte, 0, 512), memory: as.s.reserve}
	defer frames.close()
	for {
		if !frames.buffered() || as.due() {
			if err := as.write(); err != nil {
				return err
			}
		}
		kind, d, _, err := frames.nextOf(maxMessage)
		if err != nil {
			return err
		}
		if kind != frameLookup && kind != framePublish && kind != frameOver {
			return malformed("no call")
		}
		id := d.uint(math.MaxUint64, "call")
		if d.err != nil {
			return d.err
		}
		switch {
		case kind == frameOver:
			as.over(id)
		case as.answering(id):
			return malformed("a call that is under way already")
		default:
			as.answer(kind, id, d.rest)
		}
	}
}

// answering reports whether a call is under way.
func (as *muxServer) answering(id uint64) bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	return as.open[id] != nil
}

// answer answers a call, or has the asker make it again.
func (as *muxServer) answer(kind byte, id uint64, message []byte) {
	if as.conn != nil {
		// A request of its own is told of a connection under old secrets what
		// there is to be told.
		if as.conn.outdated.Load() || !as.conn.begin() {
			as.send(id, alone)
			return
		}
		defer as.conn.end()
	}
	frames := frameReader{rest: message}
	ok := guard.Run(func() {
		if kind == framePublish {
			as.publish(id, &frames)
		} else {
			as.lookup(id, &frames)
		}
	})
	if !ok { // that ends this call, and not the leases that others have on the stream
		as.idle = nil
		as.refuse(id)
	}
}

// alone is the answer that has the asker make a request of its own. An empty one
// refuses the call.
var alone = []byte{frameAlone, 0, 0, 0, 0}

func (as *muxServer) refuse(id uint64) {
	as.s.note(malformed("no call of this protocol"))
	as.send(id, nil)
}

func (as *muxServer) lookup(id uint64, frames *frameReader) {
	q, err := readQuery(frames)
	if err != nil || len(frames.rest) > 0 {
		as.refuse(id)
		return
	}
	if as.idle == nil {
		as.idle = new(Answer)
	}
	a := as.idle
	*a = Answer{key: q.Key, out: frameWriter{buf: a.out.buf[:0]}, shared: as, id: id}
	as.s.backend.Lookup(q, a)
	if as.idle == a {
		a.finish()
	}
}

func (as *muxServer) publish(id uint64, frames *frameReader) {
	p, err := readPublication(frames)
	if err != nil {
		as.refuse(id)
		return
	}
	as.send(id, as.s.publication(as.ctx, p))
}

// later answers a look-up that may wait in a goroutine of its own, until the
// asker has no more use for it.
func (as *muxServer) later(a *Answer, answer func(context.Context)) {
	as.idle = nil
	if !as.room() {
		as.send(a.id, alone)
		return
	}
	if as.conn != nil && !as.conn.begin() {
		as.host.calls.Add(-1)
		as.send(a.id, alone)
		return
	}
	ctx, cancel := context.WithCancel(as.ctx)
	a.ctx = ctx
	as.mu.Lock()
	as.open[a.id] = cancel
	as.mu.Unlock()
	guard.GoWait(&as.late, func() {
		defer as.host.calls.Add(-1)
		if as.conn != nil {
			defer as.conn.end()
		}
		defer as.over(a.id)
		if ok := guard.Run(func() { answer(ctx) }); !ok && !a.sent {
			as.refuse(a.id)
			a.sent = true
		}
		a.finish()
		_ = as.write() // serve finds out that the stream is broken
	})
}

// room reports whether one more call may wait, and counts it.
func (as *muxServer) room() bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	return len(as.open) < maxHeld && take(&as.host.calls, maxCallsOfHost)
}

// over ends a call that may wait, if it is still under way.
func (as *muxServer) over(id uint64) {
	as.mu.Lock()
	cancel := as.open[id]
	delete(as.open, id)
	as.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// send queues an answer. What there is no room for, or is longer than an asker takes
// here, has to be asked for again: so who reads slowly, or not at all, takes no more
// memory. That ends the call, and the lease that it would have been answered with.
func (as *muxServer) send(id uint64, message []byte) {
	as.mu.Lock()
	defer as.mu.Unlock()
	if len(message) > maxAnswer || len(as.queue)+len(message) > maxQueued {
		message = alone
		if cancel := as.open[id]; cancel != nil {
			cancel()
		}
	}
	as.queue.message(frameAnswer, id, func(e *encoder) { e.bytes(message) })
}

// write writes what has gathered. Only one at a time does, and those who wait
// for it find that theirs has been written.
func (as *muxServer) write() error {
	as.writing.Lock()
	defer as.writing.Unlock()
	as.mu.Lock()
	p, err := as.queue, as.err
	as.queue = as.spare[:0]
	as.mu.Unlock()
	as.spare = nil
	if err == nil && len(p) > 0 {
		if _, err = as.out.Write(p); err == nil {
			err = as.flush()
		}
	}
	if err != nil {
		as.mu.Lock()
		as.err = err
		as.mu.Unlock()
		return err // p is lost: HTTP/2 may still read it
	}
	as.spare = p
	return nil
}

// due reports whether so much has gathered that it is to be written.
func (as *muxServer) due() bool {
	as.mu.Lock()
	defer as.mu.Unlock()
	return len(as.queue) >= flushAt
}
