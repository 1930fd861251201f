// Package express answers requests before net/http sees them, where that comes to the
// same.
//
// net/http calls Read on a connection when it wants the next request: then the response
// before has been written. At that moment a Conn looks at the bytes first. If they are
// one whole, ordinary GET that a Site answers at once, it writes the response and reads
// on. If not, it hands the bytes on, and net/http sees the request as if nothing had been
// in front of it.
//
// So that it knows where a request begins, a Conn follows those that it hands on to
// their end. Where that can't be told for sure, as with a body, an upgrade or a pipeline
// that net/http has a part of, it looks at nothing of the connection any more.
package express

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

// Sizes in bytes.
const (
	bufferSize = 2 << 10 // of a buffer of ours, and so of the largest request that is answered from it
	maxHeader  = 8 << 10 // up to which a request that is handed on is followed
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A Site answers requests.
type Site interface {
	// Answer writes the response if it can be written without asking anybody. It reports
	// false, and has written nothing, if not. The request is used again for the same bytes.
	Answer(w *Writer, r *http.Request) bool
}

// Options are what connections go by.
type Options struct {
	Find    func(*http.Request) Site // nil: none is in charge. The same for the same request
	Context context.Context          // of requests
	Files   *Files                   // nil: bodies are sent from where they lie
	Targets *Targets                 // nil: each is looked at

	IdleTimeout   time.Duration // how long to wait for the next request; 0: for ever
	HeaderTimeout time.Duration // and for the rest of one that has begun
	WriteTimeout  time.Duration // how long a client may take nothing of a response
}

// A Listener accepts connections that answer what they can.
type Listener struct {
	net.Listener
	options Options
	open    *Open
	closed  atomic.Bool

	mu    sync.Mutex // guards below
	conns map[*Conn]struct{}
}

// Open are the responses that go on after their connection has been closed: net/http
// waits for none of them. The zero value has none. Its methods may be called at the same
// time.
type Open struct {
	mu   sync.Mutex
	n    int
	none chan struct{} // closed when there are none left; nil: nobody waits
}

// Wait waits until there are none, but no longer than the timeout.
func (o *Open) Wait(timeout time.Duration) {
	o.mu.Lock()
	if o.n == 0 {
		o.mu.Unlock()
		return
	}
	if o.none == nil {
		o.none = make(chan struct{})
	}
	none := o.none
	o.mu.Unlock()
	select {
	case <-none:
	case <-time.After(timeout):
	}
}

// close has a connection close when its response has been written. It reports false if it
// writes none.
func (o *Open) close(c *Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !c.state.CompareAndSwap(answering, closing) {
		return false
	}
	o.n++
	return true
}

func (o *Open) done() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n--; o.n == 0 && o.none != nil {
		close(o.none)
		o.none = nil
	}
}

// NewListener returns a listener in front of another one.
func NewListener(ln net.Listener, o Options, open *Open) *Listener {
	return &Listener{Listener: ln, options: o, open: open, conns: make(map[*Conn]struct{})}
}

// Close ends the lane, because its server stops. net/http closes connections that are between
// two requests, but takes those for new ones, and leaves them open for some seconds, of which it
// has seen no request. So they are closed here. That comes after the listener, which takes
// connections away from the next server as long as it is open, and waits for none of them:
// TLS says goodbye to a client that takes nothing for seconds.
func (l *Listener) Close() error {
	l.closed.Store(true)
	err := l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.state.CompareAndSwap(between, closing) {
			guard.Go(func() { _ = c.Conn.Close() }) // net/http is told by Read
		}
	}
	return err
}

// track notes that a connection is open, or is not any more.
func (l *Listener) track(c *Conn, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if open {
		l.conns[c] = struct{}{}
	} else {
		delete(l.conns, c)
	}
}

// Accept returns the next connection. Its methods are those that net/http looks for.
func (l *Listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: inner, l: l}
	c.stopped.L = &c.watching
	l.track(c, true)
	if of, ok := inner.(*tls.Conn); ok {
		c.tls = of
		return &tlsConn{c, of}, nil
	}
	if to, ok := inner.(io.ReaderFrom); ok {
		return &fileConn{c, to}, nil
	}
	return c, nil
}

// tlsConn is a Conn of which Caddy and net/http learn how it is encrypted.
type tlsConn struct {
	*Conn
	of *tls.Conn
}

func (c *tlsConn) ConnectionState() tls.ConnectionState { return c.of.ConnectionState() }

// fileConn is a Conn to which net/http can send a file.
type fileConn struct {
	*Conn
	to io.ReaderFrom
}

func (c *fileConn) ReadFrom(r io.Reader) (int64, error) { return c.to.ReadFrom(r) }

// CloseWrite closes the connection for what is sent, if that can be closed alone.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported // net/http closes all of it then
}

// What a Conn is doing, so that who closes it lets a response come to its end.
const (
	waiting int32 = iota
	between       // two requests of which the lane has answered the first
	answering
	closing // when the response has been written
)

// A Conn is a connection with the lane in front. Only Close and what net.Conn promises
// for deadlines may be called while another call is under way.
type Conn struct {
	net.Conn
	l   *Listener
	tls *tls.Conn       // nil: it is not encrypted
	raw syscall.RawConn // nil: not known, or it takes no files

	state   atomic.Int32
	through atomic.Bool // nothing is looked at any more
	handed  []byte      // of a request of which net/http has had the beginning only

	// The request before, which is often the next one too.
	text    string
	request *http.Request
	site    Site

	encrypted *tls.ConnectionState // once a request has come over TLS

	buffer *[bufferSize]byte
	rest   []byte // of it: what is to be handed on before anything else
	early  int    // bytes of it: what has come while net/http answered

	watching sync.Mutex // guards below
	stopped  sync.Cond
	watched  bool // enough: see watch

	idleSet  time.Time // when the read deadline was last set here, in this Read
	writeSet time.Time // when the write deadline was; zero: there is none
}

// Read hands on what the lane does not answer.
func (c *Conn) Read(p []byte) (int, error) {
	switch {
	case len(c.rest) > 0:
		return c.handRest(p), nil
	case c.through.Load() && c.early > 0:
		c.rest, c.early = c.buffer[:c.early], 0
		return c.handRest(p), nil
	case c.through.Load():
		return c.Conn.Read(p)
	case len(p) == 1 && len(c.handed) == 0:
		return 0, c.watch()
	}
	return c.readRequest(p)
}

// leastRequest is how many bytes net/http waits for between requests. Fewer are none.
const leastRequest = 4

// readRequest answers what it can, and hands on the first bytes of what it can't.
func (c *Conn) readRequest(p []byte) (int, error) {
	b, own, n := c.roomFor(p)
	c.idleSet = time.Time{}
	for answered := false; ; {
		if n < leastRequest && (answered || n == 0) {
			m, err := c.readMore(b[n:], answered)
			if n += m; m == 0 && err != nil { // or it comes again
				refuseUnencrypted(err)
				c.stopLooking()
				n = 0
			}
			if n == 0 {
				release(own)
				return 0, err
			}
		}
		left, whole, err := c.answer(b[:n])
		if err != nil {
			release(own)
			return 0, err
		}
		answered = answered || left < n
		if n = left; n >= leastRequest || n > 0 && !answered {
			if !whole { // or the next byte begins another one
				c.follow(b[:n])
			}
			c.restoreDeadlines()
			if own == nil {
				return n, nil
			}
			c.buffer, c.rest = own, own[:n]
			return c.handRest(p), nil
		}
		c.waitForNext()
	}
}

// refuseUnencrypted tells a client that it has sent HTTP to a port with TLS, if that is why its
// handshake has failed. net/http does so, with the same bytes, for connections that it knows to
// be encrypted, and this one is behind the lane.
func refuseUnencrypted(err error) {
	var refused tls.RecordHeaderError
	if !errors.As(err, &refused) || refused.Conn == nil {
		return
	}
	switch string(refused.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		_, _ = io.WriteString(refused.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		_ = refused.Conn.Close()
	}
}

// roomFor returns what is read into, with what has come already: net/http's own buffer, so that
// a connection that waits has one only. What net/http looks for at first can be no more than an
// HTTP/2 preface; then it is a buffer of ours.
func (c *Conn) roomFor(p []byte) (b []byte, own *[bufferSize]byte, n int) {
	own, n = c.buffer, c.early
	c.buffer, c.early = nil, 0
	if len(p) >= bufferSize {
		if own != nil {
			copy(p, own[:n])
			release(own)
		}
		return p, nil, n
	}
	if own == nil {
		own = buffers.Get().(*[bufferSize]byte)
	}
	return own[:], own, n
}

func release(own *[bufferSize]byte) {
	if own != nil {
		buffers.Put(own)
	}
}

// readMore reads from the client. answered: net/http knows nothing of the request before, so
// the listener can end this.
func (c *Conn) readMore(b []byte, answered bool) (int, error) {
	if !answered {
		return c.Conn.Read(b)
	}
	if !c.state.CompareAndSwap(waiting, between) || c.l.closed.Load() { // the listener closes those that are between already
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b)
	if !c.state.CompareAndSwap(between, waiting) {
		return 0, net.ErrClosed
	}
	return n, err
}

// handRest hands on what has been read.
func (c *Conn) handRest(p []byte) int {
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		buffers.Put(c.buffer)
		c.buffer, c.rest = nil, nil
	}
	return n
}

// watch is what net/http does while it answers: it reads one byte, to see whether the client
// is still there, until it sets a deadline that has passed. If the client sends the next
// request meanwhile, that is kept for the next Read.
func (c *Conn) watch() error {
	buffer := buffers.Get().(*[bufferSize]byte)
	n, err := c.Conn.Read(buffer[:])
	if n == 0 { // or an error comes again
		buffers.Put(buffer)
		return err
	}
	c.buffer, c.early = buffer, n
	c.watching.Lock()
	defer c.watching.Unlock()
	for !c.watched {
		c.stopped.Wait()
	}
	return os.ErrDeadlineExceeded
}

// SetReadDeadline sets the deadline, and ends watch if it has passed.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.stopWatching(!t.IsZero() && t.Before(time.Now()))
	return c.Conn.SetReadDeadline(t)
}

func (c *Conn) stopWatching(stop bool) {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.watched = stop
	c.stopped.Broadcast()
}

// answer answers the requests at the front of b, and moves what is left there. whole: that
// is one request.
func (c *Conn) answer(b []byte) (left int, whole bool, err error) {
	rest := b
	for len(rest) > 0 && len(c.handed) == 0 && !c.l.closed.Load() { // or net/http closes it
		end, v := c.find(rest)
		if whole = v >= foreign && end == len(rest); v != candidate || c.site == nil {
			break
		}
		if ok, err := c.respond(); err != nil {
			return 0, false, err
		} else if !ok {
			break
		}
		rest = rest[end:]
	}
	return copy(b, rest), whole, nil
}

// respond has the site answer. A connection that was closed meanwhile is closed now, also if the
// site panics, which net/http takes for the end of the connection.
func (c *Conn) respond() (ok bool, err error) {
	if !c.state.CompareAndSwap(waiting, answering) {
		return false, net.ErrClosed
	}
	defer func() {
		if !c.state.CompareAndSwap(answering, waiting) {
			_ = c.end()
			c.l.open.done()
			err = net.ErrClosed
		}
	}()
	w := writers.Get().(*Writer)
	w.conn = c
	defer func() { err = w.finish() }() // and never later: it is another response's then
	return c.site.Answer(w, c.request), nil
}

// find works out which site is in charge of the request at the front of b, and where
// that ends.
func (c *Conn) find(b []byte) (end int, v verdict) {
	if n := len(c.text); n > 0 && n <= len(b) && string(b[:n]) == c.text {
		return n, candidate
	}
	if end, v = scan(b); v != candidate {
		return end, v
	}
	if t := c.l.options.Targets; t != nil && !t.has(targetOf(b)) {
		return end, foreign
	}
	if c.tls != nil && c.encrypted == nil {
		state := c.tls.ConnectionState()
		c.encrypted = &state
	}
	c.text, c.site = string(b[:end]), nil
	if c.request = newRequest(c.l.options.Context, c.text, c.encrypted); c.request != nil {
		c.site = c.l.options.Find(c.request)
	}
	return end, v
}

// follow takes note of what is handed on to net/http.
func (c *Conn) follow(b []byte) {
	if len(b) == 0 {
		return
	}
	request := b
	if len(c.handed) > 0 {
		request = append(c.handed, b...)
	}
	switch end, v := scan(request); {
	case v == incomplete && len(request) <= maxHeader:
		c.handed = append(c.handed, b...)
	case v >= foreign && end == len(request): // the next byte begins another one
		c.handed = nil
	default:
		c.stopLooking()
	}
}

func (c *Conn) stopLooking() {
	c.through.Store(true)
	c.handed, c.text, c.request, c.site = nil, "", nil, nil
}

// deadlineStep is how much later than asked for a deadline may be: to set one takes longer
// than to look at the clock.
const deadlineStep = time.Second

// waitForNext sets the deadline for the next request, as net/http does. Over TLS a read may
// write too, such as the answer to a KeyUpdate (RFC 8446 §4.6.3): a write deadline that has
// passed would break the connection.
func (c *Conn) waitForNext() {
	if c.tls != nil {
		c.clearWriteDeadline()
	}
	if now := time.Now(); now.Sub(c.idleSet) > deadlineStep {
		c.idleSet = now
		_ = c.Conn.SetReadDeadline(deadline(now, c.l.options.IdleTimeout)) // Read will tell
	}
}

// restoreDeadlines leaves to net/http the deadlines that it expects: its own for the rest of
// a header, if that is to come, and none for what it writes.
func (c *Conn) restoreDeadlines() {
	if !c.idleSet.IsZero() {
		_ = c.Conn.SetReadDeadline(deadline(time.Now(), c.l.options.HeaderTimeout))
	}
	c.clearWriteDeadline()
}

func (c *Conn) clearWriteDeadline() {
	if !c.writeSet.IsZero() {
		c.writeSet = time.Time{}
		_ = c.Conn.SetWriteDeadline(time.Time{})
	}
}

// deadline returns when a timeout is over; 0 is never.
func deadline(now time.Time, timeout time.Duration) time.Time {
	if timeout <= 0 {
		return time.Time{}
	}
	return now.Add(timeout + deadlineStep)
}

// SetDeadline is what net/http calls when a handler takes the connection over: what comes
// is no HTTP then.
func (c *Conn) SetDeadline(t time.Time) error {
	c.through.Store(true)
	return c.Conn.SetDeadline(t)
}

// Close closes the connection, as soon as the response that is under way has been written.
// To close it again closes it at once.
func (c *Conn) Close() error {
	if c.l.open.close(c) {
		return nil
	}
	c.stopWatching(true)
	if !c.state.CompareAndSwap(waiting, closing) {
		c.state.CompareAndSwap(between, closing)
	}
	return c.end()
}

func (c *Conn) end() error {
	c.l.track(c, false)
	return c.Conn.Close()
}
