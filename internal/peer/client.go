package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Errors of a call to a peer.
var (
	ErrTimeout = errors.New("peer: no answer in time")
	ErrDown    = errors.New("peer: known not to answer")
	// ErrGivenUp is the cause of a context whose caller waits for less than a healthy
	// peer may take: so its end says nothing about the peer.
	ErrGivenUp = errors.New("peer: not waited for any longer")
	ErrDigest  = errors.New("peer: body differs from its digest")
	ErrFields  = errors.New("peer: the request has fields that are too many, too long, or not valid")
)

// A Broken error says that the fill on the other side broke off.
type Broken struct{ Reason rfc9111.Reason }

func (b Broken) Error() string { return "peer: fill broke off: " + b.Reason.String() }

// HTTP/2 settings of both sides. A connection on which nothing arrives is
// pinged, so that whoever waits for a frozen or unplugged peer goes on alone.
const (
	pingAfter   = 300 * time.Millisecond
	pingTimeout = 500 * time.Millisecond
	maxStreams  = 4096
	maxFrameH2  = 64 << 10
)

func http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReadFrameSize:              maxFrameH2,
		MaxReceiveBufferPerConnection: 4 << 20,
		MaxReceiveBufferPerStream:     1 << 20,
		MaxDecoderHeaderTableSize:     4 << 10,
		MaxEncoderHeaderTableSize:     4 << 10,
		SendPingTimeout:               pingAfter,
		PingTimeout:                   pingTimeout,
		WriteByteTimeout:              5 * time.Second,
	}
}

// serverHTTP2 are the settings of the server: what has come, and is not read yet, counts
// in no budget, and who sends it decides how many connections there are.
func serverHTTP2() *http.HTTP2Config {
	c := http2Config()
	c.MaxConcurrentStreams = maxRequestsOfHost
	c.MaxReceiveBufferPerConnection, c.MaxReceiveBufferPerStream = 1<<20, 256<<10
	return c
}

// A Client asks other nodes, and tells them.
type Client struct{ caller }

// A caller calls other nodes, on connections that it keeps, and leaves alone those that do
// not answer.
type caller struct {
	// Reserve takes memory for what others answer, until release, or reports that there
	// is none; nil: that counts nowhere. It is set before the first call.
	Reserve func(n int64) (release func(), ok bool)

	pool    *connectionPool
	breaker breaker
	timers  sync.Pool // of look-ups, each of which needs one for a moment
}

// NewClient returns a Client. It talks to whoever id accepts.
func NewClient(id *Identity) *Client { return &Client{caller{pool: newConnectionPool(id)}} }

// DialWith makes the client dial otherwise than by TCP, as tests do. It comes
// before the first call, and goes for connections without secrets.
func (c *caller) DialWith(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	c.pool.transport.DialContext = dial
}

// Keep tells the client which peers there are. It forgets all others.
func (c *caller) Keep(peers []Node) {
	known := make(map[string]bool, len(peers))
	for _, p := range peers {
		known[p.Addr] = true
	}
	c.breaker.keep(known)
	c.pool.keep(known)
}

// Rekey is called after the secrets of the identity have changed: connections
// under one that is gone are not used any more, and the others replaced.
func (c *caller) Rekey() { c.pool.rekey() }

// Close closes all connections.
func (c *caller) Close() { c.pool.close() }

// ReplyKind says what an owner answered.
type ReplyKind uint8

// What an owner can answer to a look-up.
const (
	Hit    ReplyKind = iota // Entry, and the body unless the asker has it; it stands in for an upstream that fails if there is a For
	Follow                  // somebody is fetching: Header, then Body; Entry is the stale one that may stand in, or nil
	Lease                   // fetch it; Entry is the stale one, or nil
	None                    // nothing, and no lease was asked for; Entry is a stale one, or nil
	Bypass                  // uncacheable, for Reason, for a time of For
	Vary                    // ask again with the fields called Names
)

// A Reply is an owner's answer to a look-up. It must be closed: that is what
// ends a lease.
type Reply struct {
	Kind   ReplyKind
	Entry  *store.Entry
	Ticket Ticket
	Reason rfc9111.Reason
	For    time.Duration
	Names  []string

	key      store.Key // that was asked for
	compared bool      // with all purges that the query told of
	sent     time.Time // ages count from here: nothing gets younger on the way
	frames   *frameReader
	body     io.Closer
	cancel   context.CancelCauseFunc // nil: of an answer on the shared stream
}

// Close ends the exchange.
func (r *Reply) Close() {
	if r.cancel != nil {
		r.cancel(nil)
	}
	_ = r.body.Close() // it fails for nothing that matters now
}

// Here reports whether all of the answer has come, so that nobody has to wait for
// the body.
func (r *Reply) Here() bool { return r.cancel == nil }

// Lookup asks a node for what it knows. It fails with ErrTimeout when there is
// no answer within timeout; a Reply that is Follow may take until ctx ends.
func (c *Client) Lookup(ctx context.Context, to Node, q *Query, timeout time.Duration) (*Reply, error) {
	begun := time.Now()
	reply := &Reply{key: q.Key, sent: q.Asked}
	if q.Asked.IsZero() {
		reply.sent = begun
	}
	err := q.check()
	if err != nil {
		return nil, fmt.Errorf("looking up at %s: %w", to.Name, err)
	}
	err = ErrDown
	if c.breaker.allow(to.Addr, begun) {
		if err = errAlone; !q.Long {
			err = c.lookupShared(ctx, to, q, timeout, reply)
		}
		if err == errAlone {
			err = c.lookupAlone(ctx, to, q, timeout-time.Since(begun), reply)
		}
	}
	c.judge(ctx, to, err)
	if err != nil {
		return nil, fmt.Errorf("looking up at %s: %w", to.Name, causeOf(ctx, err))
	}
	return reply, nil
}

// lookupShared looks up over the stream that calls share.
func (c *Client) lookupShared(ctx context.Context, to Node, q *Query, timeout time.Duration, reply *Reply) error {
	timer := c.timer(timeout)
	defer c.timers.Put(timer)
	defer timer.Stop()
	x, err := c.exchange(ctx, to, frameLookup, func(e *encoder) { e.frame(frameQuery, q.append) }, timer.C)
	if err != nil {
		return err
	}
	reply.frames, reply.body = &x.frames, x
	if err := reply.first(); err != nil {
		reply.Close()
		return err
	}
	return nil
}

// timer returns a timer that is to be stopped, and put back.
func (c *caller) timer(d time.Duration) *time.Timer {
	if t, ok := c.timers.Get().(*time.Timer); ok {
		t.Reset(d)
		return t
	}
	return time.NewTimer(d)
}

// lookupAlone looks up in a request of its own, over which a body of any size,
// or a fill, may come.
func (c *Client) lookupAlone(ctx context.Context, to Node, q *Query, timeout time.Duration, reply *Reply) error {
	ctx, cancel := context.WithCancelCause(ctx)
	watchdog := guard.AfterFunc(timeout, func() { cancel(ErrTimeout) })
	var query encoder
	query.frame(frameQuery, q.append)
	resp, err := c.post(ctx, to, pathLookup, bytes.NewReader(query), int64(len(query)))
	if err == nil {
		reply.body, reply.cancel = resp.Body, cancel
		reply.frames = c.frames(watched{resp.Body, func(err error) { c.judge(ctx, to, err) }})
		err = reply.first()
	}
	if !watchdog.Stop() {
		err = ErrTimeout
	}
	if err != nil {
		err = causeOf(ctx, err)
		cancel(nil)
		if resp != nil {
			_ = resp.Body.Close()
		}
	}
	return err
}

// frames returns a reader of an answer.
func (c *caller) frames(answer io.Reader) *frameReader {
	frames := newFrameReader(answer)
	frames.memory = c.Reserve
	return frames
}

// watched tells when an answer breaks off, as it does when pings have found that
// nobody is there any more. Whoever asks next need not find out again.
type watched struct {
	io.Reader
	broken func(error)
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil && err != io.EOF {
		w.broken(err)
	}
	return n, err
}

// causeOf prefers why we cancelled to "context canceled".
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// judge tells the breaker how a call went. A caller that gave up says nothing
// about the peer, nor does the answer of another one, which the address belongs to.
func (c *caller) judge(ctx context.Context, to Node, err error) {
	switch cause := context.Cause(ctx); {
	case errors.Is(err, ErrRefused), errors.Is(err, errBodyPanicked): // for want of memory here, or by a bug
	case err == nil:
		c.breaker.succeeded(to.Addr)
	case errors.As(err, new(OtherNode)):
	case cause == nil || errors.Is(cause, ErrTimeout):
		if !errors.Is(err, ErrDown) {
			c.breaker.failed(to.Addr, time.Now())
		}
	}
}

func (c *caller) call(ctx context.Context, to Node, path string, body io.Reader, length int64) (*http.Response, error) {
	if !c.breaker.allow(to.Addr, time.Now()) {
		return nil, ErrDown
	}
	return c.post(ctx, to, path, body, length)
}

func (c *caller) post(ctx context.Context, to Node, path string, body io.Reader, length int64) (*http.Response, error) {
	req, err := newRequest(ctx, "https://"+to.Addr+path, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = length
	if parts, ok := body.(*parts); ok {
		req.GetBody = func() (io.ReadCloser, error) { return guardedBody{io.NopCloser(parts.again())}, nil }
	}
	resp, err := c.pool.roundTrip(req, to.Addr)
	if err != nil {
		return nil, err
	}
	if err := to.check(resp.Header); err != nil {
		resp.Body.Close()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, malformed("status " + resp.Status)
	}
	return resp, nil
}

func newRequest(ctx context.Context, url string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err == nil && req.Body != nil && req.Body != http.NoBody {
		req.Body = guardedBody{req.Body}
	}
	return req, err
}

// errBodyPanicked ends a request whose body has panicked.
var errBodyPanicked = errors.New("peer: this node has a bug with what it sends")

// A guardedBody is the body of a request. net/http reads and closes it in a goroutine of its
// own, where a panic would end the process.
type guardedBody struct{ io.ReadCloser }

func (b guardedBody) Read(p []byte) (n int, err error) {
	if !guard.Run(func() { n, err = b.ReadCloser.Read(p) }) {
		return 0, errBodyPanicked
	}
	return n, err
}

func (b guardedBody) Close() (err error) {
	if !guard.Run(func() { err = b.ReadCloser.Close() }) {
		return errBodyPanicked
	}
	return err
}

func (r *Reply) first() error {
	defer r.frames.close() // what is decoded has been copied
	kind, d, _, err := r.frames.next()
	if err != nil {
		return err
	}
	if d == nil {
		return malformed("data before an answer")
	}
	d.about(r.key)
	r.compared = d.flag()
	switch kind {
	case frameEntry:
		r.Kind, r.Entry = Hit, d.entry(r.sent, r.sent)
	case frameStandIn:
		r.Kind, r.For, r.Entry = Hit, d.dur("time of a failure"), d.entry(r.sent, r.sent)
	case frameWait:
		r.Kind, r.Entry = Follow, d.entryIfAny(r.sent)
	case frameLease:
		r.Kind, r.Ticket, r.Entry = Lease, d.ticket(), d.entryIfAny(r.sent)
	case frameNone:
		r.Kind, r.Ticket, r.Entry = None, d.ticket(), d.entryIfAny(r.sent)
	case frameBypass:
		r.Kind, r.Reason, r.For = Bypass, d.reason(), d.dur("bypass time")
	case frameVary:
		r.Kind, r.Names = Vary, d.names("selecting fields")
	default:
		return malformed("unknown answer")
	}
	if r.Entry != nil {
		r.Entry.Compared = r.compared
	}
	return d.done()
}

// Header waits for the header of a fill that is followed.
func (r *Reply) Header() (*store.Entry, error) {
	defer r.frames.close()
	kind, d, _, err := r.frames.next()
	switch {
	case err != nil:
		return nil, err
	case kind == frameEntry:
		d.about(r.key)
		r.compared = d.flag()
		e := d.entry(time.Now(), r.sent)
		e.Compared = r.compared
		return e, d.done()
	case kind == frameBroken:
		return nil, d.broken()
	}
	return nil, malformed("no header")
}

// Body hands the body to a sink as it arrives (of a large hit, the first chunk)
// and returns its generation, 0 if the owner does not store it. A body that is
// not what its sender says is an error, and so is one that does not belong to
// the entry of a hit.
func (r *Reply) Body(to Sink) (store.Generation, error) {
	got, err := copyBody(r.frames, to)
	if x, shared := r.body.(*exchange); shared {
		x.read()
	}
	if e := r.Entry; err == nil && r.Kind == Hit && (got.generation != e.Generation || got.digest != e.Digest || got.size != min(e.Size, store.ChunkSize)) {
		return 0, malformed("the body of another entry")
	}
	return got.generation, err
}

// received is what a body turned out to be.
type received struct {
	size       int64  // of the first chunk
	digest     uint64 // of that
	generation store.Generation
}

func copyBody(frames *frameReader, to Sink) (received, error) {
	defer frames.close()
	digest := xxhash.New()
	var got received
	var stored, ahead int64 // up to where further chunks are stored, and have come
	for {
		kind, d, n, err := frames.next()
		switch {
		case err != nil:
			return got, err
		case kind == frameData:
			if got.size += n; got.size > store.ChunkSize {
				return got, malformed("a first chunk that is too large")
			}
			if err := copyData(frames, to, digest, n); err != nil {
				return got, err
			}
		case kind == frameStored:
			next := d.stored()
			if err := d.done(); err != nil {
				return got, err
			}
			if err := to.Stored(next); err != nil {
				return got, err
			}
			stored = next.Size
		case kind == frameAhead:
			at, p := d.ahead()
			if err := d.done(); err != nil {
				return got, err
			}
			ahead = at + int64(len(p))
			to.Ahead(at, p)
		case kind == frameEnd:
			got.digest = d.uint(math.MaxUint64, "digest")
			got.generation = store.Generation(d.uint(math.MaxUint64, "generation"))
			if err := d.done(); err != nil {
				return got, err
			}
			if got.digest != digest.Sum64() {
				return got, ErrDigest
			}
			if ahead > stored {
				return got, malformed("an end before all is stored")
			}
			return got, nil
		case kind == frameBroken:
			return got, d.broken()
		default:
			return got, malformed("frame amid a body")
		}
	}
}

// copyData hands n bytes on in the pieces in which they arrive. A sink that reads
// for itself, as a fill does, gets them without a copy between.
func copyData(r *frameReader, w io.Writer, digest hash.Hash64, n int64) error {
	if n == 0 {
		return nil
	}
	data := &dataReader{r, digest, n}
	if to, ok := w.(io.ReaderFrom); ok {
		_, err := to.ReadFrom(data)
		return err
	}
	_, err := io.Copy(w, data)
	return err
}

// A dataReader reads the bytes of a data frame, and says with the last of them
// that there are no more. Of a stream that is read past the buffer of frames: small
// reads would have HTTP/2 tell the other side of each.
type dataReader struct {
	frames *frameReader
	digest hash.Hash64
	left   int64
}

func (d *dataReader) Read(p []byte) (int, error) {
	n, err := d.frames.Read(p[:min(int64(len(p)), d.left)])
	_, _ = d.digest.Write(p[:n]) // never fails
	switch d.left -= int64(n); {
	case d.left == 0:
		return n, io.EOF
	case err != nil:
		return n, fmt.Errorf("reading a body: %w", io.ErrUnexpectedEOF)
	}
	return n, nil
}

// Body is a body that is still coming in: the next bytes of the first chunk; or
// with no bytes, up to where the others are stored; or bytes of one that is slow to
// come in, which begin where the others are stored or after that. An error of it that has a
// method Reason() rfc9111.Reason says why it broke off.
type Body interface {
	Next(ctx context.Context, idle func()) ([]byte, Stored, error)
}

// ErrUnkept ends a Body that is complete, and is not to be stored.
var ErrUnkept = errors.New("peer: complete, and not to be stored")

// unkept is the generation that says so on the wire.
const unkept store.Generation = 1

// followed is the header field by which an owner says, while a publication comes in,
// that others read it there.
const followed = "Groupcache-Followed"

// Publish streams a response to the owner that gave the ticket, in a request of
// its own (without a
// lease the owner takes it if nobody else is fetching). It returns the generation
// under which the owner stored it, or Broken with the reason why it did not.
// A body that has a method Followed hears of it when others read it at the owner.
func (c *Client) Publish(ctx context.Context, to Node, p *Publication, body Body) (store.Generation, error) {
	if err := p.Query.check(); err != nil {
		return 0, publishing(to, err)
	}
	stream := &bodyStream{ctx: ctx, frame: publishHead(frameEntry, p.Query, p.Ticket, p.Entry), body: body, digest: xxhash.New()}
	resp, err := c.call(ctx, to, pathPublish, stream, -1)
	if body, ok := body.(interface{ Followed() }); ok && err == nil && resp.Header.Get(followed) != "" {
		body.Followed()
	}
	return c.thanksIn(ctx, to, p.Query.Key, resp, err)
}

// PublishWhole is Publish for a small body that is complete.
func (c *Client) PublishWhole(ctx context.Context, to Node, p *Publication, body []byte) (store.Generation, error) {
	if err := p.Query.check(); err != nil {
		return 0, publishing(to, err)
	}
	w := frameWriter{buf: publishHead(frameEntry, p.Query, p.Ticket, p.Entry)}
	_ = w.data(body) // it is not written anywhere yet
	w.end(store.Digest(body), 0)
	return c.tell(ctx, to, p.Query.Key, w.buf)
}

// Refresh tells the owner what a 304 said of a stored entry.
func (c *Client) Refresh(ctx context.Context, to Node, q *Query, ticket Ticket, e *store.Entry) error {
	if err := q.check(); err != nil {
		return publishing(to, err)
	}
	_, err := c.tell(ctx, to, q.Key, publishHead(frameRefresh, q, ticket, e))
	return err
}

// Release gives a lease back: the response is not to be stored, for a reason.
func (c *Client) Release(ctx context.Context, to Node, q *Query, ticket Ticket, why rfc9111.Reason) error {
	if err := q.check(); err != nil {
		return publishing(to, err)
	}
	w := frameWriter{buf: publishHead(0, q, ticket, nil)}
	w.frame(frameBroken, func(e *encoder) { e.uint(uint64(why)) })
	_, err := c.tell(ctx, to, q.Key, w.buf)
	return err
}

// Learn tells a node which queries of a path are equivalent: the query's key
// stands for the path, and its fields have No-Vary-Search. Nil means that it
// knows.
func (c *Client) Learn(ctx context.Context, to Node, q *Query) error {
	var w frameWriter
	w.frame(frameQuery, q.append)
	err := q.check()
	var resp *http.Response
	if err == nil {
		resp, err = c.call(ctx, to, pathLearn, bytes.NewReader(w.buf), int64(len(w.buf)))
		c.judge(ctx, to, err)
	}
	if err != nil {
		return fmt.Errorf("telling %s of equivalent queries: %w", to.Name, causeOf(ctx, err))
	}
	return resp.Body.Close()
}

func publishHead(kind byte, q *Query, ticket Ticket, e *store.Entry) []byte {
	var w frameWriter
	w.frame(frameQuery, q.append)
	w.frame(frameLease, func(enc *encoder) { enc.ticket(ticket) })
	if e != nil {
		w.frame(kind, func(enc *encoder) { appendEntry(enc, e, time.Now()) })
	}
	return w.buf
}

func publishing(to Node, err error) error { return fmt.Errorf("publishing to %s: %w", to.Name, err) }

// tell makes a publication that is all there.
func (c *Client) tell(ctx context.Context, to Node, key store.Key, publication []byte) (store.Generation, error) {
	err := ErrDown
	if c.breaker.allow(to.Addr, time.Now()) {
		var x *exchange
		if x, err = c.exchange(ctx, to, framePublish, func(e *encoder) { e.bytes(publication) }, nil); err == nil {
			return c.thanks(ctx, to, key, &x.frames, nil)
		}
		if err == errAlone {
			resp, err := c.post(ctx, to, pathPublish, bytes.NewReader(publication), int64(len(publication)))
			return c.thanksIn(ctx, to, key, resp, err)
		}
	}
	return c.thanks(ctx, to, key, nil, err)
}

func (c *Client) thanksIn(ctx context.Context, to Node, key store.Key, resp *http.Response, err error) (store.Generation, error) {
	if err != nil {
		return c.thanks(ctx, to, key, nil, err)
	}
	defer resp.Body.Close()
	return c.thanks(ctx, to, key, c.frames(resp.Body), nil)
}

// thanks reads what an owner made of a publication, unless that failed.
func (c *Client) thanks(ctx context.Context, to Node, key store.Key, frames *frameReader, err error) (g store.Generation, _ error) {
	c.judge(ctx, to, err)
	if err == nil {
		g, err = readThanks(frames, key)
	}
	if err != nil && !errors.As(err, new(Broken)) {
		err = publishing(to, causeOf(ctx, err))
	}
	return g, err
}

func readThanks(frames *frameReader, key store.Key) (store.Generation, error) {
	defer frames.close()
	kind, d, _, err := frames.next()
	switch {
	case err != nil:
		return 0, err
	case kind == frameEnd:
		d.about(key)
		gen := d.uint(math.MaxUint64, "generation")
		return store.Generation(gen), d.done()
	case kind == frameBroken:
		return 0, d.broken()
	}
	return 0, malformed("unknown answer")
}

// bodyStream turns a Body into frames while HTTP/2 reads them.
type bodyStream struct {
	ctx    context.Context
	frame  []byte // what was framed and not yet read
	data   []byte // what follows it, as it is
	body   Body
	digest *xxhash.Digest
	err    error
}

func (s *bodyStream) Read(p []byte) (int, error) {
	for len(s.frame) == 0 && len(s.data) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.fetch()
	}
	n := copy(p, s.frame)
	s.frame = s.frame[n:]
	m := copy(p[n:], s.data)
	s.data = s.data[m:]
	return n + m, nil
}

func (s *bodyStream) fetch() {
	data, stored, err := s.body.Next(s.ctx, nil)
	var w frameWriter
	switch {
	case err == nil && data == nil:
		w.frame(frameStored, stored.append)
	case err == nil && stored.Size > 0:
		w.ahead(stored.Size, data)
	case err == nil:
		_, _ = s.digest.Write(data)
		w.buf = binary.BigEndian.AppendUint32([]byte{frameData}, uint32(len(data)))
		s.data = data
	case errors.Is(err, io.EOF):
		w.end(s.digest.Sum64(), 0)
		s.err = io.EOF
	case errors.Is(err, ErrUnkept):
		w.end(s.digest.Sum64(), unkept)
		s.err = io.EOF
	default:
		why := rfc9111.Truncated
		var named interface{ Reason() rfc9111.Reason }
		if errors.As(err, &named) {
			why = named.Reason()
		}
		w.frame(frameBroken, func(e *encoder) { e.uint(uint64(why)) })
		s.err = io.EOF
	}
	s.frame = w.buf
}
