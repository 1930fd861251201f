package peer

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// The version in the path is the protocol's: a node that speaks another one
// gets 404 and goes on alone.
const (
	pathCalls   = "/1/calls"
	pathLookup  = "/1/lookup"
	pathPublish = "/1/publish"
	pathPurge   = "/1/purge"
	pathPurges  = "/1/purges"
	pathLearn   = "/1/learn"
	pathChunk   = "/1/chunk"
	pathChunks  = "/1/chunks"
	pathStore   = "/1/store"

	pathHandOver = "/1/hand-over"
)

// A Backend answers for a node. Its methods must return when ctx ends.
type Backend interface {
	// Lookup answers a query through a, exactly once. What may wait it hands to
	// a.Later.
	Lookup(q *Query, a *Answer)
	// Publish takes a response, or what became of a lease. It returns the
	// generation under which the response is stored, or why it is not.
	Publish(ctx context.Context, p *Publication) (store.Generation, rfc9111.Reason)
	// Purge applies purges, and remembers those that have an ID. It returns what else names
	// the same responses by the node's own configuration, as purges, if room is not nil, which
	// tells whether there is memory for so many bytes more; ok is false if there is not.
	Purge(purges []store.Purge, room func(n int64) bool) (named []store.Purge, ok bool)
	// PurgeOldest is Purge for the oldest that another node remembers. It has forgotten older
	// ones, of which the youngest arrived there at a time.
	PurgeOldest(purges []store.Purge, dropped time.Time)
	// Purges returns those that it remembers, oldest first, and when the
	// youngest arrived that it has forgotten; zero: none.
	Purges() ([]store.Purge, time.Time)
	// Learn takes in which queries of a path are equivalent. The key stands
	// for the path; the fields have the response's No-Vary-Search.
	Learn(q *Query)
	// Chunk returns a chunk that the node has, or nil.
	Chunk(id ChunkID) []byte
	// PutChunk takes a chunk that the node owns.
	PutChunk(id ChunkID, chunk []byte)
	// TakeOver takes an entry of a query's key, with its body or first chunk, from
	// a node that leaves.
	TakeOver(q *Query, e *store.Entry, body []byte)
	// Heard returns the purges that the node has heard of lately, or reports
	// false if they are too many.
	Heard(now time.Time) ([]store.PurgeID, bool)
	// Reserve takes memory for what is read from the wire, until release. It
	// reports false when there is none.
	Reserve(n int64) (release func(), ok bool)
}

// A Server answers other nodes. All bytes from them enter here.
type Server struct {
	// OnRefusal, if not nil, is told of each connection and request that was
	// refused, and must not wait. It is set before Serve.
	OnRefusal func(why error)

	// Life is the number of this process, with which all answers are signed; 0: they
	// are not. It is set before Serve.
	Life uint64

	// Reporter, if not nil, answers for those who operate the cluster. It is set
	// before Serve.
	Reporter Reporter

	backend  Backend
	identity *Identity
	http     *http.Server
	refused  atomic.Int64
	spare    atomic.Int64  // of maxSpare, in use
	patience time.Duration // for the first frames of a request, and for each gift

	mu       sync.Mutex    // guards door outside of requests
	listener *authListener // nil before Serve
}

// NewServer returns a Server for a backend. It talks to whoever id accepts.
func NewServer(b Backend, id *Identity) *Server {
	s := &Server{backend: b, identity: id, patience: 10 * time.Second}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathCalls, s.calls)
	mux.HandleFunc("POST "+pathLookup, s.lookup)
	mux.HandleFunc("POST "+pathPublish, s.publish)
	mux.HandleFunc("POST "+pathPurge, s.purge)
	mux.HandleFunc("POST "+pathPurges, s.purges)
	mux.HandleFunc("POST "+pathLearn, s.learn)
	mux.HandleFunc("POST "+pathChunk, s.chunk)
	mux.HandleFunc("POST "+pathChunks, s.chunks)
	mux.HandleFunc("POST "+pathStore, s.store)
	mux.HandleFunc("POST "+pathHandOver, s.handOver)
	mux.HandleFunc("POST "+pathInspect, s.inspect)
	mux.HandleFunc("POST "+pathStatus, s.status)
	mux.HandleFunc("POST "+pathEntries, s.entries)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { s.refuse(w) })
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // the door does not let it in where there is a secret
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sign(w.Header(), s.Life)
			s.listener.attend(w, r, mux)
		}),
		ConnContext:       withConn,
		Protocols:         &protocols,
		HTTP2:             serverHTTP2(),
		MaxHeaderBytes:    8 << 10,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          log.New(refusals{s}, "", 0),
	}
	return s
}

// refusals counts what net/http would log: connections that broke the protocol.
type refusals struct{ s *Server }

func (r refusals) Write(p []byte) (int, error) {
	r.s.note(malformed(strings.TrimSpace(string(p))))
	return len(p), nil
}

func (s *Server) note(refusal error) {
	s.refused.Add(1)
	if s.OnRefusal != nil {
		s.OnRefusal(refusal)
	}
}

// Refused returns how many requests and connections were refused.
func (s *Server) Refused() int64 { return s.refused.Load() }

// Serve answers on l until Close. It returns nil then.
func (s *Server) Serve(l net.Listener) error {
	d := newAuthListener(l, s.identity, s.note)
	s.mu.Lock()
	s.listener = d
	s.mu.Unlock()
	if err := s.http.Serve(d); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	_ = d.Close() // net/http has not, if Close came before Serve
	return nil
}

// Rekey is called after the secrets of the identity have changed: nothing more
// is taken from connections under one that is gone.
func (s *Server) Rekey() {
	s.mu.Lock()
	d := s.listener
	s.mu.Unlock()
	if d != nil {
		d.rekey()
	}
}

// Close closes the listener and all connections.
func (s *Server) Close() error { return s.http.Close() }

func (s *Server) refuse(w http.ResponseWriter) {
	s.note(malformed("no request of this protocol"))
	w.WriteHeader(http.StatusNotFound)
}

// query reads a request that is nothing but a query, or refuses it.
func (s *Server) query(w http.ResponseWriter, r *http.Request) *Query {
	if r.ContentLength <= 0 || r.ContentLength > maxFrame+frameHead { // what more came would wait here, unread
		s.refuse(w)
		return nil
	}
	frames, inTime := s.frames(w, r)
	q, err := readQuery(frames)
	frames.close() // the query has copied what it keeps
	if err != nil {
		s.refuse(w)
		return nil
	}
	inTime()
	return q
}

// empty reports whether a request has no body.
func (s *Server) empty(w http.ResponseWriter, r *http.Request) bool {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.patience))
	n, err := r.Body.Read(make([]byte, 1))
	return n == 0 && err == io.EOF
}

// frames returns a reader of a request's body, and what ends the deadline by which
// the first of it has to come. Without that, each stream of a peer that sends half a
// frame would last as long as its connection.
func (s *Server) frames(w http.ResponseWriter, r *http.Request) (frames *frameReader, inTime func()) {
	frames = newFrameReader(r.Body)
	frames.memory = s.reserve
	body := http.NewResponseController(w)
	_ = body.SetReadDeadline(time.Now().Add(s.patience)) // fails for no HTTP/2 stream
	return frames, func() { _ = body.SetReadDeadline(time.Time{}) }
}

// maxSpare is what frames and purges may take here beside the node's budget, in bytes:
// look-ups and purges must get through when that is used up by bodies.
const maxSpare = 16 << 20

// reserve takes memory for what is read from the wire, until release.
func (s *Server) reserve(n int64) (release func(), ok bool) {
	if s.spare.Add(n) <= maxSpare {
		return func() { s.spare.Add(-n) }, true
	}
	s.spare.Add(-n)
	return s.backend.Reserve(n)
}

func readQuery(frames *frameReader) (*Query, error) {
	kind, d, _, err := frames.next()
	if err != nil || kind != frameQuery {
		return nil, malformed("no query")
	}
	q := d.query()
	return q, d.done()
}

func (s *Server) learn(w http.ResponseWriter, r *http.Request) {
	if q := s.query(w, r); q != nil {
		s.backend.Learn(q)
		w.WriteHeader(http.StatusOK)
	}
}

func (s *Server) lookup(w http.ResponseWriter, r *http.Request) {
	q := s.query(w, r)
	if q == nil {
		return
	}
	a := &Answer{key: q.Key, out: frameWriter{w: w}, flusher: http.NewResponseController(w), ctx: r.Context()}
	s.backend.Lookup(q, a)
	_ = a.out.flush() // an error is that of an asker that is gone
}

func (s *Server) publish(w http.ResponseWriter, r *http.Request) {
	frames, inTime := s.frames(w, r)
	defer frames.close()
	p, err := readPublication(frames)
	if err != nil {
		s.refuse(w)
		return
	}
	inTime()
	var writing sync.Mutex // guards over, and w until then
	over := false
	p.followed = sync.OnceFunc(func() {
		writing.Lock()
		defer writing.Unlock()
		if over {
			return
		}
		w.Header().Set(followed, "1")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // the publisher is gone: nobody to tell
	})
	answer := s.publication(r.Context(), p)
	writing.Lock()
	over = true
	writing.Unlock()
	_, _ = w.Write(answer) // the same
}

// publication has the backend take a publication, and returns what to answer.
func (s *Server) publication(ctx context.Context, p *Publication) []byte {
	gen, why := s.backend.Publish(ctx, p)
	var out frameWriter
	if why == rfc9111.None {
		out.frame(frameEnd, func(e *encoder) {
			e.bytes(p.Query.Key[:])
			e.uint(uint64(gen))
		})
	} else {
		out.frame(frameBroken, func(e *encoder) { e.uint(uint64(why)) })
	}
	return out.buf
}

// An Answer is how a backend answers a look-up. Whatever it says, it says of
// which key.
type Answer struct {
	key     store.Key
	out     frameWriter
	flusher *http.ResponseController
	ctx     context.Context // of what may wait; nil: nothing may

	shared *muxServer // the stream on which it answers a call; nil: it answers a request
	id     uint64     // there
	sent   bool

	// Compared says that what is answered has been compared with all purges
	// that the query tells of. It is set before anything is answered.
	Compared bool
	// Failing says that the upstream has just failed, and for how long the asker need not
	// try: a Hit stands in.
	Failing time.Duration
}

// Later calls answer, which may wait until the context ends, and then need not
// answer any more. The other methods are answer's from here on.
func (a *Answer) Later(answer func(context.Context)) {
	if a.ctx != nil {
		answer(a.ctx)
		return
	}
	a.shared.later(a, answer)
}

// finish sends the answer to a call, unless it has been sent.
func (a *Answer) finish() {
	if a.sent || a.ctx != nil && len(a.out.buf) == 0 {
		return
	}
	a.sent = true
	a.shared.send(a.id, a.out.buf)
}

// elsewhere has the asker of a call make a request of its own.
func (a *Answer) elsewhere() error {
	a.out.buf = append(a.out.buf[:0], alone...)
	return errAlone
}

func (a *Answer) say(kind byte, payload func(*encoder)) {
	a.out.frame(kind, func(enc *encoder) {
		enc.bytes(a.key[:])
		enc.flag(a.Compared)
		if payload != nil {
			payload(enc)
		}
	})
}

func entryNow(e *store.Entry) func(*encoder) {
	return func(enc *encoder) { appendEntry(enc, e, time.Now()) }
}

// Hit sends an entry and, unless the asker has it, its body, or the first
// chunk of a large one.
func (a *Answer) Hit(e *store.Entry, body []byte, asker store.Generation) {
	has := asker == e.Generation && e.Generation != 0
	if a.shared != nil && !has && len(body) > MaxShared {
		_ = a.elsewhere()
		return
	}
	if a.Failing > 0 {
		a.say(frameStandIn, func(enc *encoder) {
			enc.dur(a.Failing)
			appendEntry(enc, e, time.Now())
		})
	} else {
		a.say(frameEntry, entryNow(e))
	}
	if has {
		return
	}
	if a.out.data(body) == nil {
		a.out.end(e.Digest, e.Generation)
	}
}

// None says that there is nothing to be had without a lease, but perhaps a
// stale entry to validate.
func (a *Answer) None(t Ticket, stale *store.Entry) { a.say(frameNone, ticketAnd(t, stale)) }

func ticketAnd(t Ticket, stale *store.Entry) func(*encoder) {
	return func(e *encoder) {
		e.ticket(t)
		if stale != nil {
			appendEntry(e, stale, time.Now())
		}
	}
}

// Bypass says that responses of this URL are not stored.
func (a *Answer) Bypass(why rfc9111.Reason, remember time.Duration) {
	a.say(frameBypass, func(e *encoder) {
		e.uint(uint64(why))
		e.dur(remember)
	})
}

// Vary asks for more request fields.
func (a *Answer) Vary(names []string) {
	a.say(frameVary, func(e *encoder) { e.strings(names) })
}

// Lease gives the asker a lease, and the stale entry if there is one. It lasts
// until the asker publishes, or the look-up's context ends.
func (a *Answer) Lease(t Ticket, stale *store.Entry) error {
	a.say(frameLease, ticketAnd(t, stale))
	return a.Flush()
}

// Follow says that a fill follows, and what may stand in if that takes long: Header, then Data, which is the first chunk,
// then Stored for more, then End, or Broken. It fails if none of these can
// come: the asker is gone, or has to ask again in a request of its own.
func (a *Answer) Follow(stale *store.Entry) error {
	if a.shared != nil {
		return a.elsewhere()
	}
	a.say(frameWait, func(e *encoder) {
		if stale != nil {
			appendEntry(e, stale, time.Now())
		}
	})
	return a.Flush()
}

// Header sends the header of a fill.
func (a *Answer) Header(e *store.Entry) { a.say(frameEntry, entryNow(e)) }

// Data sends some of the body of a fill.
func (a *Answer) Data(p []byte) error { return a.out.data(p) }

// Stored says up to where the further chunks of a fill can be had from their
// owners.
func (a *Answer) Stored(s Stored) error {
	a.out.frame(frameStored, s.append)
	return a.Flush()
}

// Ahead sends some of a further chunk that is slow to come in, from a position in the
// body. It will be part of what is stored.
func (a *Answer) Ahead(at int64, p []byte) error {
	a.out.ahead(at, p)
	return a.Flush()
}

// End says that a fill is complete.
func (a *Answer) End(digest uint64, g store.Generation) { a.out.end(digest, g) }

// Broken says that a fill broke off.
func (a *Answer) Broken(why rfc9111.Reason) {
	a.out.frame(frameBroken, func(e *encoder) { e.uint(uint64(why)) })
}

// Flush sends what was said so far.
func (a *Answer) Flush() error {
	if a.shared != nil {
		a.finish()
		return a.shared.write()
	}
	if err := a.out.flush(); err != nil {
		return err
	}
	return a.flusher.Flush()
}

// A Publication is what the holder of a lease sends.
type Publication struct {
	Query    *Query
	Ticket   Ticket
	Entry    *store.Entry
	Refresh  bool           // Entry is what a 304 made of a stored one; no body
	Released rfc9111.Reason // not None: the lease comes back, nothing is stored
	Unkept   bool           // the body, once it is complete, is not to be stored
	frames   *frameReader
	followed func() // tells the publisher; nil: it is not told any more
}

// Body hands the body to a sink as it arrives.
func (p *Publication) Body(to Sink) error {
	got, err := copyBody(p.frames, to)
	p.Unkept = got.generation == unkept
	return err
}

// Followed tells the publisher that others read the body here. Any goroutine may call it,
// at any time.
func (p *Publication) Followed() {
	if p.followed != nil {
		p.followed()
	}
}

func readPublication(frames *frameReader) (*Publication, error) {
	p := &Publication{frames: frames}
	var err error
	if p.Query, err = readQuery(frames); err != nil {
		return nil, err
	}
	kind, d, _, err := p.frames.next()
	if err != nil || kind != frameLease {
		return nil, malformed("no lease")
	}
	p.Ticket = d.ticket()
	if err := d.done(); err != nil {
		return nil, err
	}
	kind, d, _, err = p.frames.next()
	switch {
	case err != nil:
		return nil, err
	case kind == frameEntry || kind == frameRefresh:
		now := time.Now()
		p.Entry, p.Refresh = d.entry(now, now), kind == frameRefresh
	case kind == frameBroken:
		if p.Released = d.reason(); p.Released == rfc9111.None {
			return nil, malformed("released for no reason")
		}
	default:
		return nil, malformed("no header")
	}
	return p, d.done()
}
