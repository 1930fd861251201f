package peer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

// Look-ups, and publications that are small and complete, are calls on a stream
// that all of a connection share: one HTTP/2 request, whose body is the asker's
// messages and whose response is the answers. A request of its own for each
// would cost several times what the call is about; and what is asked at the same
// time goes in one write.
//
//	asker                          owner
//	       ── look-up 1, 2 ──►
//	       ◄── answer 2: a hit ──
//	       ◄── answer 1: a lease ── holds until the asker says that 1 is over,
//	       ── publication 3 ──►     or the stream ends
//	       ◄── answer 3 ─────────
//
// A message is a frame, whose payload is a number that the asker gives, and then
// the very frames that a request of its own would consist of. So no call waits
// behind what is long, that has to be asked for in a request of its own: bodies
// beyond MaxShared, fills that are still coming in, and whatever comes when the
// stream has more to do than it is to hold.
const (
	// MaxShared is the largest body that travels on the shared stream.
	MaxShared = 32 << 10
	// maxMessage bounds a message: a query, an entry and a body, or a query, a
	// lease, an entry and a body.
	maxMessage = 2*maxFrame + MaxShared + 256
	// maxAnswer bounds an answer, which few entries with their bodies are beyond. It is
	// what is kept for the next one (maxKept), so that no answer takes more.
	maxAnswer = maxKept - 16
	// maxWaiting is how many calls may wait for their answers. With maxAnswer
	// it bounds what answers can take here.
	maxWaiting = 512
	// maxQueued bounds what waits to be written, on either side.
	maxQueued = 1 << 20
	// maxHeld is how many leases, and look-ups that the owner thinks about, a
	// stream has room for.
	maxHeld = 4096
	// idleCalls is how long a stream without calls stays, which would keep its
	// connection from being closed.
	idleCalls = time.Minute
)

// errAlone says that a call has to be made in a request of its own.
var errAlone = errors.New("peer: not on the shared stream")

// A brokenOff error says that the stream broke before a call was answered.
type brokenOff struct{ why error }

func (b brokenOff) Error() string { return "calls broke off: " + b.why.Error() }
func (b brokenOff) Unwrap() error { return b.why }

// muxClient is the asker's side of a shared stream, and the body of its request.
type muxClient struct {
	wake chan struct{} // holds something while there is something to send
	done chan struct{} // closed at the end

	answerer http.Header // of the response: who answers. It is there before any answer

	// Set by start.
	cancel context.CancelFunc
	idle   *time.Timer

	mu      sync.Mutex // guards below
	queue   encoder    // messages
	sent    int        // of queue
	last    uint64     // number given to a call
	waiting map[uint64]chan *message
	held    map[uint64]struct{} // the calls that were answered with a lease
	used    bool                // since idle fired
	retired bool                // to end when nothing is under way
	err     error               // why it ended; nil: it has not
}

func newMuxClient() *muxClient {
	return &muxClient{
		wake: make(chan struct{}, 1), done: make(chan struct{}), cancel: func() {},
		waiting: make(map[uint64]chan *message), held: make(map[uint64]struct{}),
	}
}

// start begins the stream, over a connection that has room reserved for it. It
// calls again when the other side asks for another connection.
func (c *muxClient) start(ctx context.Context, conn *clientConn, addr string, again func()) {
	ctx, c.cancel = context.WithCancel(ctx)
	c.idle = guard.AfterFunc(idleCalls, c.endIfIdle)
	guard.Go(func() {
		err := errClosed // if an answer makes run panic
		defer func() { c.end(err) }()
		err = c.run(ctx, conn, addr, again)
	})
}

func (c *muxClient) run(ctx context.Context, conn *clientConn, addr string, again func()) error {
	req, err := newRequest(ctx, conn.scheme()+"://"+addr+pathCalls, c)
	if err != nil {
		conn.Release()
		return err
	}
	resp, err := conn.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return malformed("status " + resp.Status)
	}
	if resp.Header.Get(comeAgain) != "" {
		again()
	}
	c.answerer = resp.Header
	return c.receive(resp.Body)
}

// receive hands out answers.
func (c *muxClient) receive(r io.Reader) error {
	frames := &frameReader{r: bufio.NewReaderSize(r, MaxShared)}
	for {
		m := messages.Get().(*message)
		frames.own = m.memory
		kind, d, _, err := frames.nextOf(maxKept)
		if err != nil {
			return err
		}
		if kind != frameAnswer {
			return malformed("no answer to a call")
		}
		id := d.uint(math.MaxUint64, "call")
		if d.err != nil {
			return d.err
		}
		m.memory, m.frames = frames.own, d.rest
		c.answer(id, m)
	}
}

// A message is an answer that has come. A node gets as many of them as it has
// requests that others answer, so their memory is used again.
type message struct {
	memory []byte
	frames []byte // in memory
}

var messages = sync.Pool{New: func() any { return &message{memory: make([]byte, 0, 2<<10)} }}

// recycle lets go of a message whose bytes are not used any more.
func (m *message) recycle() {
	m.frames = nil
	messages.Put(m)
}

// answer hands an answer to the call that waits for it.
func (c *muxClient) answer(id uint64, m *message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answered := c.waiting[id]
	if answered == nil { // it came too late, and the owner has been told
		m.recycle()
		return
	}
	delete(c.waiting, id)
	if len(m.frames) > 0 && m.frames[0] == frameLease {
		c.held[id] = struct{}{}
	}
	answered <- m
	c.leaveLocked()
}

// call sends a message and waits for its answer: until ctx ends or expired
// fires. Who is answered with a lease ends that with over.
func (c *muxClient) call(ctx context.Context, kind byte, write func(*encoder), expired <-chan time.Time) (id uint64, answer *message, err error) {
	id, answered, err := c.begin(kind, write)
	if err != nil {
		return 0, nil, err
	}
	select {
	case answer, ok := <-answered:
		if !ok {
			return 0, nil, brokenOff{c.err} // which does not change any more
		}
		return id, answer, nil
	case <-expired:
		err = ErrTimeout
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.over(id)
	return 0, nil, err
}

func (c *muxClient) begin(kind byte, write func(*encoder)) (id uint64, answered chan *message, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return 0, nil, brokenOff{c.err}
	case c.retired:
		return 0, nil, brokenOff{errClosed}
	case len(c.waiting) >= maxWaiting, len(c.held) >= maxHeld:
		return 0, nil, errAlone
	}
	queued := len(c.queue)
	c.queue.message(kind, c.last+1, write)
	if len(c.queue)-queued > maxMessage || len(c.queue) > maxQueued {
		c.queue = c.queue[:queued]
		return 0, nil, errAlone
	}
	c.last++
	c.used = true
	answered = make(chan *message, 1)
	c.waiting[c.last] = answered
	c.wakeLocked()
	return c.last, answered, nil
}

// over tells the other side that no more is wanted of a call that has not been
// answered, or was with a lease. Of others it has nothing to tell.
func (c *muxClient) over(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, held := c.held[id]
	if !held && c.waiting[id] == nil {
		return
	}
	delete(c.held, id)
	delete(c.waiting, id)
	if c.err == nil {
		c.queue.message(frameOver, id, func(*encoder) {})
		c.wakeLocked()
		c.leaveLocked()
	}
}

// wakeLocked wakes who is to send what is queued.
func (c *muxClient) wakeLocked() {
	select {
	case c.wake <- struct{}{}:
	default: // it knows already
	}
}

// message appends a message, which the function writes.
func (e *encoder) message(kind byte, id uint64, write func(*encoder)) {
	e.frame(kind, func(e *encoder) {
		e.uint(id)
		write(e)
	})
}

// Read gives HTTP/2 what has gathered since it read last.
func (c *muxClient) Read(p []byte) (int, error) {
	for {
		if n := c.unqueue(p); n > 0 {
			return n, nil
		}
		select {
		case <-c.wake:
			runtime.Gosched() // whoever is about to ask goes along in the same write
		case <-c.done:
			return 0, io.EOF
		}
	}
}

// unqueue takes what fits from the queue.
func (c *muxClient) unqueue(p []byte) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(p, c.queue[c.sent:])
	if c.sent += n; c.sent == len(c.queue) {
		c.queue, c.sent = c.queue[:0], 0
	}
	return n
}

// Close is how HTTP/2 says that it takes no more.
func (c *muxClient) Close() error {
	c.end(errClosed)
	return nil
}

// ended reports whether the stream is no more.
func (c *muxClient) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// retire lets no call begin any more, and ends the stream when there is none.
func (c *muxClient) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	c.leaveLocked()
}

// leaveLocked ends a stream that was retired and has nothing under way.
func (c *muxClient) leaveLocked() {
	if c.retired && len(c.waiting)+len(c.held) == 0 {
		c.endLocked(errClosed)
	}
}

func (c *muxClient) endIfIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used || len(c.waiting)+len(c.held) > 0 {
		c.used = false
		c.idle.Reset(idleCalls)
		return
	}
	c.endLocked(errClosed)
}

func (c *muxClient) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(why)
}

// endLocked has no call wait any more. The end of the stream ends all leases.
func (c *muxClient) endLocked(why error) {
	if c.err != nil {
		return
	}
	c.err = why
	if c.idle != nil {
		c.idle.Stop()
	}
	c.cancel()
	close(c.done)
	for id, answered := range c.waiting {
		delete(c.waiting, id)
		close(answered)
	}
}

// exchange makes a call over the stream that is shared with a peer. One that
// breaks off sooner than a ping could have found out is made again, once, over
// another connection: the other side has closed that one, perhaps before it saw
// the call. It returns errAlone when the call has to be made otherwise.
func (c *caller) exchange(ctx context.Context, to Node, kind byte, write func(*encoder), expired <-chan time.Time) (*exchange, error) {
	for again := false; ; again = true {
		conn, shared, err := c.pool.share(ctx, to.Addr, expired)
		if err != nil {
			return nil, err
		}
		sent := time.Now()
		id, answer, err := shared.call(ctx, kind, write, expired)
		switch {
		case err == nil && to.check(shared.answerer) != nil:
			shared.over(id)
			return nil, to.check(shared.answerer)
		case err == nil && len(answer.frames) == 0:
			return nil, malformed("the call was refused")
		case err == nil && answer.frames[0] == frameAlone:
			return nil, errAlone
		case err == nil:
			return &exchange{frameReader{rest: answer.frames}, answer, shared, id}, nil
		case errors.As(err, new(brokenOff)) && time.Since(sent) <= pingAfter:
			c.pool.abandon(conn)
			if again {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

// An exchange is a call that was answered.
type exchange struct {
	frames frameReader // of the answer
	answer *message
	shared *muxClient
	id     uint64
}

// read says that all of the answer has been read, and nothing refers to it.
func (e *exchange) read() {
	e.frames = frameReader{}
	e.answer.recycle()
}

// Close ends the lease, if the call was answered with one.
func (e *exchange) Close() error {
	e.shared.over(e.id)
	return nil
}
