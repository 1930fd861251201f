// Package peer carries entries, bodies and leases between nodes: the wire, its
// client and server, the ring that says who owns what, and the breaker that
// leaves silent nodes alone. All bytes from other nodes enter here.
//
// It is HTTP/2 with a few kinds of frame in the bodies. Whatever a peer sends
// is bounded before it is allocated, and checked before it is used: the worst
// that a peer can do is to be of no help. Requests to be executed never cross
// the wire.
package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// The bodies of peer requests and answers are frames: a type byte, the length
// of the payload in four bytes, big endian, and the payload. Times cross the
// wire as ages, because the clocks of two nodes need not agree.
const (
	frameQuery   byte = 'q' // what is asked for, or published
	frameEntry   byte = 'e' // the header of a response
	frameData    byte = 'd' // some of its body
	frameEnd     byte = 'z' // the body is complete; its digest
	frameBroken  byte = 'x' // the fill broke off; why
	frameWait    byte = 'w' // somebody is fetching: the fill follows on this stream; perhaps the stale entry
	frameStandIn byte = 'f' // the upstream has failed: for how long it is not asked, then the header of what stands in
	frameLease   byte = 'l' // you fetch; the lease, then perhaps the stale entry
	frameNone    byte = 'n' // nothing for this request
	frameBypass  byte = 'b' // known to be uncacheable; why, and for how long
	frameVary    byte = 'v' // ask again with these request fields
	frameRefresh byte = 'r' // the entry after a 304: its body stays
	framePurge   byte = 'p' // a purge, or a part of one
	frameChunk   byte = 'c' // which chunk of a large body
	frameStored  byte = 's' // up to where the chunks of a body are stored
	frameAhead   byte = 'a' // some of the chunk that is coming in; it will be stored

	// On the stream that calls share (mux_client.go). The payload of the first three
	// begins with the call's number.
	frameLookup  byte = 'L' // what a look-up's own request would be
	framePublish byte = 'P' // what a publication's own request would be, whole
	frameAnswer  byte = 'A' // what their answers would be
	frameOver    byte = 'O' // no more is wanted of the call
	frameAlone   byte = 'o' // an answer: ask again in a request of your own
)

// Bounds of what is read from the wire, checked before anything is allocated.
const (
	// Of every frame but data: the largest entry that may be stored.
	maxFrame = store.MaxHeaderBytes + 8*store.MaxFields + maxURL + 2*rfc9111.MaxTags*(rfc9111.MaxTagLength+2) +
		store.MaxVaryNames*(maxFieldName+2) + 4096
	frameHead     = 5 // bytes before a payload
	maxFieldName  = store.MaxFieldName
	maxURL        = 32 << 10
	maxGroupName  = 64
	maxQueryBytes = 32 << 10 // of request fields in a query
	maxAge        = 100 * 365 * 24 * time.Hour
)

// ErrProtocol says that a peer sent what it must not send.
var ErrProtocol = errors.New("peer: malformed message")

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrProtocol, what) }

// CommonFields are the request fields that every query carries, because most
// Vary fields name one of them. Whether another one matters is only known to
// who has a response; the owner asks for it with frameVary.
var CommonFields = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Origin", "Pragma", "X-Requested-With",
}

// A Query says what a node wants of the owner.
type Query struct {
	Group string
	Key   store.Key
	Have  store.Generation // a body that the asker has already; 0: none
	// Validated is a body that the upstream has just confirmed to the asker,
	// who wants it however stale it is; 0: none.
	Validated store.Generation
	// Without is a body of which the asker has found chunks to be gone: it wants another one;
	// 0: none.
	Without store.Generation
	// Lead says that the asker would fetch the response itself.
	Lead bool
	// Refresh says that the asker has served what is stale, and now wants to
	// fetch: stale-while-revalidate is no answer.
	Refresh bool
	// Credentials says that the request carries an Authorization field.
	Credentials bool
	// Part says that the request is for a part within the first chunk, or beyond it.
	Part bool
	// Within is how long the asker's fill may take, if it leads one; 0: not told.
	Within time.Duration
	// Purges are all that the asker has heard of lately, if Told. An owner that
	// knows them has compared with them what it answers.
	Purges []store.PurgeID
	Told   bool
	Asked  time.Time   // when Purges was made up; it does not cross the wire
	Long   bool        // the answer will be too long to share a stream, it seems; this neither
	Names  []string    // selecting fields beyond CommonFields that Fields covers
	Fields http.Header // of the request; those of CommonFields and Names cross the wire
}

// NewQuery takes from a request what the owner must know of it.
func NewQuery(group string, k store.Key, request http.Header, vary []string) *Query {
	q := QueryOf(group, k, request, vary)
	q.Fields = make(http.Header, 4)
	for _, names := range [...][]string{CommonFields, q.Names} {
		for _, name := range names {
			if v := request[name]; len(v) > 0 {
				q.Fields[name] = v
			}
		}
	}
	return q
}

// QueryOf is NewQuery for a request whose header nobody changes until the query
// has been used.
func QueryOf(group string, k store.Key, request http.Header, vary []string) *Query {
	q := &Query{Group: group, Key: k, Fields: request}
	for _, name := range vary {
		if !isCommon(name) {
			q.Names = append(q.Names, name)
		}
	}
	return q
}

// check fails with ErrFields if the owner would not take the query. What a client
// sends must not look like a fault of the node that asks for it.
func (q *Query) check() error {
	n, size := 0, 0
	for _, names := range [...][]string{CommonFields, q.Names} {
		for _, name := range names {
			for _, v := range q.Fields[name] {
				if !httpguts.ValidHeaderFieldValue(v) {
					return ErrFields
				}
				n++
				size += len(name) + len(v)
			}
		}
	}
	if n > store.MaxFields || size > maxQueryBytes || len(q.Names) > store.MaxVaryNames {
		return ErrFields
	}
	return nil
}

// Covers reports whether the query says what the request has for every name.
func (q *Query) Covers(names []string) bool {
	for _, name := range names {
		if isCommon(name) {
			continue
		}
		if !slices.Contains(q.Names, name) {
			return false
		}
	}
	return true
}

func isCommon(name string) bool { return slices.Contains(CommonFields, name) }

// encoder appends to a frame's payload.
type encoder []byte

func (e *encoder) uint(v uint64)       { *e = binary.AppendUvarint(*e, v) }
func (e *encoder) bytes(b []byte)      { *e = append(*e, b...) }
func (e *encoder) dur(d time.Duration) { e.uint(uint64(min(max(d, 0), maxAge)) / 1000) } // microseconds
func (e *encoder) string(s string)     { e.uint(uint64(len(s))); *e = append(*e, s...) }
func (e *encoder) strings(all []string) {
	e.uint(uint64(len(all)))
	for _, s := range all {
		e.string(s)
	}
}

// frame appends a frame whose payload the function writes, if there is one.
func (e *encoder) frame(kind byte, payload func(*encoder)) {
	start := len(*e)
	*e = append(*e, kind, 0, 0, 0, 0)
	if payload != nil {
		payload(e)
	}
	binary.BigEndian.PutUint32((*e)[start+1:], uint32(len(*e)-start-5))
}

// A Ticket is what an owner gives with its answer to a look-up, and gets back
// with what was fetched after that.
type Ticket struct {
	Lease uint64 // 0: none
	// At is when the owner answered, by its own clock. It means nothing to
	// others.
	At [16]byte
}

func (e *encoder) ticket(t Ticket) {
	e.bytes(binary.BigEndian.AppendUint64(nil, t.Lease))
	e.bytes(t.At[:])
}

func (d *decoder) ticket() (t Ticket) {
	t.Lease = binary.BigEndian.Uint64(d.fixed(8, "lease"))
	copy(t.At[:], d.fixed(len(t.At), "time"))
	return t
}

// age encodes the time of a purge as an age, rounded up: an age may grow on the way, and
// must not shrink. It is that of the clock which is never set: by the other one a purge could
// seem older than it is.
func (e *encoder) age(now, t time.Time) { e.dur(now.Sub(t) + time.Microsecond) }

// decoder takes a payload apart. The first fault sticks; what is returned
// after it is empty.
type decoder struct {
	rest []byte
	text string // if not empty, ends with rest: strings are parts of it
	err  error
}

// sharing has all strings that follow lie in one, which is cheaper than each by
// itself. Whoever keeps one of them for long copies it, as entries do.
func (d *decoder) sharing() { d.text = string(d.rest) }

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = malformed(what)
	}
	d.rest = nil
}

func (d *decoder) uint(limit uint64, what string) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > limit {
		d.fail(what)
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) fixed(n int, what string) []byte {
	if len(d.rest) < n {
		d.fail(what)
		return make([]byte, n)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) dur(what string) time.Duration {
	return time.Duration(d.uint(uint64(maxAge)/1000, what)) * 1000
}

func (d *decoder) string(limit int, what string) string {
	n := int(d.uint(uint64(min(limit, len(d.rest))), what))
	if len(d.text) < len(d.rest) || d.err != nil {
		return string(d.fixed(n, what))
	}
	at := len(d.text) - len(d.rest)
	if d.fixed(n, what); d.err != nil {
		return ""
	}
	return d.text[at : at+n]
}

func (d *decoder) list(limit, length int, what string) []string {
	n := int(d.uint(uint64(limit), what))
	if n == 0 {
		return nil
	}
	all := make([]string, 0, n)
	for range n {
		all = append(all, d.string(length, what))
	}
	return all
}

func (d *decoder) names(what string) []string {
	n := int(d.uint(store.MaxVaryNames, what))
	if n == 0 {
		return nil
	}
	names := make([]string, 0, n)
	for range n {
		name := d.string(maxFieldName, what)
		if d.err == nil && (!httpguts.ValidHeaderFieldName(name) || http.CanonicalHeaderKey(name) != name) {
			d.fail(what)
		}
		names = append(names, name)
	}
	return names
}

func (d *decoder) done() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("bytes after the end")
	}
	return d.err
}

const (
	flagLead = 1 << iota
	flagCredentials
	flagRefresh
	flagTold
	flagPart
	flagWithin
	flagWithout
	queryFlags = 1<<iota - 1
)

// flagIf returns a flag that is set, or none.
func flagIf(set bool, flag uint64) uint64 {
	if set {
		return flag
	}
	return 0
}

func (q *Query) append(e *encoder) {
	e.string(q.Group)
	e.bytes(q.Key[:])
	e.uint(uint64(q.Have))
	e.uint(uint64(q.Validated))
	e.uint(flagIf(q.Lead, flagLead) | flagIf(q.Credentials, flagCredentials) | flagIf(q.Refresh, flagRefresh) |
		flagIf(q.Told, flagTold) | flagIf(q.Part, flagPart) | flagIf(q.Within > 0, flagWithin) | flagIf(q.Without != 0, flagWithout))
	if q.Within > 0 {
		e.dur(q.Within)
	}
	if q.Without != 0 {
		e.uint(uint64(q.Without))
	}
	e.uint(uint64(len(q.Purges)))
	for _, id := range q.Purges {
		e.uint(uint64(id))
	}
	e.strings(q.Names)
	n := 0
	for _, names := range [...][]string{CommonFields, q.Names} {
		for _, name := range names {
			n += len(q.Fields[name])
		}
	}
	e.uint(uint64(n))
	for _, names := range [...][]string{CommonFields, q.Names} {
		for _, name := range names {
			for _, v := range q.Fields[name] {
				e.string(name)
				e.string(v)
			}
		}
	}
}

func (d *decoder) query() *Query {
	d.sharing()
	q := &Query{Group: d.string(maxGroupName, "group name")}
	if !utf8.ValidString(q.Group) { // it becomes a label in metrics, which would not have it
		d.fail("group name")
	}
	copy(q.Key[:], d.fixed(len(q.Key), "key"))
	q.Have = store.Generation(d.uint(math.MaxUint64, "generation"))
	q.Validated = store.Generation(d.uint(math.MaxUint64, "generation"))
	flags := d.uint(queryFlags, "flags")
	q.Lead, q.Credentials, q.Refresh = flags&flagLead != 0, flags&flagCredentials != 0, flags&flagRefresh != 0
	q.Told, q.Part = flags&flagTold != 0, flags&flagPart != 0
	if flags&flagWithin != 0 {
		q.Within = d.dur("fill time")
	}
	if flags&flagWithout != 0 {
		q.Without = store.Generation(d.uint(math.MaxUint64, "generation"))
	}
	for range d.uint(store.MaxRecent, "purges") {
		q.Purges = append(q.Purges, store.PurgeID(d.uint(math.MaxUint64, "purge")))
	}
	q.Names = d.names("selecting fields")
	n := int(d.uint(store.MaxFields, "field count"))
	q.Fields = make(http.Header, min(n, 8))
	for range n {
		name := d.string(maxFieldName, "field name")
		value := d.string(maxQueryBytes, "field value")
		if d.err != nil {
			break
		}
		if !isCommon(name) && !slices.Contains(q.Names, name) || !httpguts.ValidHeaderFieldValue(value) {
			d.fail("field")
			break
		}
		q.Fields[name] = append(q.Fields[name], value)
	}
	return q
}

// Bits of an entry's flags on the wire.
const (
	entryMustRevalidate = 1 << iota
	entryNoCache
	entryHeuristic
	entrySharedAuth
	entryImmutable
	entryVolatile
	entryAppends
	entryFailed
	entryFlags = 1<<iota - 1
)

// appendEntry encodes e as it stands at now.
func appendEntry(enc *encoder, e *store.Entry, now time.Time) {
	enc.uint(uint64(e.Status))
	enc.uint(uint64(e.Size))
	enc.uint(e.Digest)
	enc.uint(uint64(e.Generation))
	c := e.VariantKey()
	enc.strings(c.Vary)
	enc.bytes(c.Selected[:])
	enc.string(c.Codings)
	enc.string(c.Languages)
	enc.bytes(c.Others[:])
	f := e.Fresh
	enc.string(e.URL())
	enc.strings(e.Tags())
	enc.strings(e.Groups())
	enc.uint(uint64(e.MadeBy()))
	enc.dur(rfc9111.Elapsed(f.Received, now))
	enc.dur(rfc9111.Elapsed(e.Fetched, now) + time.Microsecond) // rounded up, as age does
	enc.dur(rfc9111.Elapsed(e.Sent, now) + time.Microsecond)
	enc.dur(f.InitialAge)
	enc.dur(f.Delay)
	enc.dur(f.Lifetime)
	enc.dur(f.StaleWhileRevalidate)
	enc.dur(f.StaleIfError)
	var flags uint64
	for i, set := range []bool{f.MustRevalidate, f.NoCache, f.Heuristic, f.SharedAuth, f.Immutable, e.Volatile, e.Appends, e.Failed} {
		if set {
			flags |= 1 << i
		}
	}
	enc.uint(flags)
	enc.uint(uint64(e.NumFields()))
	for name, value := range e.Fields() {
		enc.string(name)
		enc.string(value)
	}
}

// entryIfAny decodes the entry at the end of a frame; nil: there is none.
func (d *decoder) entryIfAny(sent time.Time) *store.Entry {
	if len(d.rest) == 0 {
		return nil
	}
	return d.entry(sent, sent)
}

// entry decodes an entry. Its age counts from now; for purges it counts from
// asOf, which is no later than when it was sent. Fields that this node would
// not have stored itself are dropped: those that could split a response, or
// belong to one connection or one client.
func (d *decoder) entry(now, asOf time.Time) *store.Entry {
	d.sharing()
	e := &store.Entry{
		Status:     int(d.uint(599, "status")),
		Size:       int64(d.uint(store.MaxBodySize, "size")),
		Digest:     d.uint(math.MaxUint64, "digest"),
		Generation: store.Generation(d.uint(math.MaxUint64, "generation")),
	}
	c := store.VariantKey{Vary: d.names("vary")}
	if e.Status < 200 {
		d.fail("status")
	}
	copy(c.Selected[:], d.fixed(len(c.Selected), "selection"))
	c.Codings = d.string(store.MaxNegotiated, "codings")
	c.Languages = d.string(store.MaxNegotiated, "languages")
	copy(c.Others[:], d.fixed(len(c.Others), "selection"))
	url := d.string(maxURL, "URL")
	tags := d.list(rfc9111.MaxTags, rfc9111.MaxTagLength, "tags")
	groups := d.list(rfc9111.MaxTags, rfc9111.MaxTagLength, "groups")
	madeBy := store.PurgeID(d.uint(math.MaxUint64, "purge"))
	e.Fresh.Received = now.Add(-d.dur("age"))
	e.Fetched = asOf.Add(-d.dur("age"))
	e.Sent = asOf.Add(-d.dur("age"))
	e.Checked = asOf
	e.Fresh.InitialAge = d.dur("initial age")
	e.Fresh.Delay = d.dur("delay")
	e.Fresh.Lifetime = d.dur("lifetime")
	e.Fresh.StaleWhileRevalidate = d.dur("stale-while-revalidate")
	e.Fresh.StaleIfError = d.dur("stale-if-error")
	flags := d.uint(entryFlags, "flags")
	e.Fresh.MustRevalidate = flags&entryMustRevalidate != 0
	e.Fresh.NoCache = flags&entryNoCache != 0
	e.Fresh.Heuristic = flags&entryHeuristic != 0
	e.Fresh.SharedAuth = flags&entrySharedAuth != 0
	e.Fresh.Immutable = flags&entryImmutable != 0
	e.Volatile = flags&entryVolatile != 0
	e.Appends = flags&entryAppends != 0
	e.Failed = flags&entryFailed != 0
	var few [24]store.Field // which most responses have no more of
	fields := few[:0]
	for range d.uint(store.MaxFields, "field count") {
		f := store.Field{Name: d.string(maxFieldName, "field name"), Value: d.string(store.MaxHeaderBytes, "field value")}
		if d.err == nil && rfc9111.StorableField(f.Name) && rfc9111.StorableValue(f.Value) {
			fields = append(fields, f)
		}
	}
	if d.err != nil {
		return e
	}
	e.SetChoice(c)
	e.SetLabels(url, tags, groups) // first, because setting the fields copies what is there
	e.SetFields(fields)
	e.SetMadeBy(madeBy)
	if length := e.Get("Content-Length"); length != "" && e.Generation != 0 && length != strconv.FormatInt(e.Size, 10) {
		d.fail("content length") // a client would be cut off, or wait for more
	}
	return e
}

// frameWriter writes frames, small ones in one piece with what follows.
type frameWriter struct {
	w   io.Writer // nil: all stays in buf
	buf encoder
}

func (w *frameWriter) frame(kind byte, payload func(*encoder)) { w.buf.frame(kind, payload) }

// data appends a data frame. Large bodies are written through, not copied.
func (w *frameWriter) data(p []byte) error {
	for len(p) > 0 {
		n := int(min(int64(len(p)), math.MaxUint32))
		w.buf = append(w.buf, frameData)
		w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(n))
		if n <= 4096 || w.w == nil {
			w.buf = append(w.buf, p[:n]...)
		} else {
			if err := w.flush(); err != nil {
				return err
			}
			if _, err := w.w.Write(p[:n]); err != nil {
				return err
			}
		}
		p = p[n:]
	}
	return nil
}

func (w *frameWriter) end(digest uint64, g store.Generation) {
	w.frame(frameEnd, func(e *encoder) {
		e.uint(digest)
		e.uint(uint64(g))
	})
}

func (w *frameWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.w.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// frameReader reads frames: from a stream, or from a message that is in memory.
type frameReader struct {
	r    *bufio.Reader // nil: of a message
	rest []byte        // of the message
	d    decoder       // of the last frame
	own  []byte        // where frames of a stream go one after the other; nil: each has its own memory

	// What frames longer than shortFrame are read into comes out of here; nil: it
	// comes out of nothing. The last frame's counts until close.
	memory  reserve
	release func()
}

// shortFrame is how long a frame may be that counts nowhere, in bytes: those of
// nearly all look-ups and purges.
const shortFrame = 4 << 10

// close lets go of the last frame's memory.
func (r *frameReader) close() {
	if r.release != nil {
		r.release()
		r.release = nil
	}
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, 4096)}
}

// next reads a frame's head, and its payload unless it is data, of which it
// returns the length only: the caller reads that itself. The payload is good
// until the next call.
func (r *frameReader) next() (kind byte, payload *decoder, length int64, err error) {
	return r.nextOf(maxFrame)
}

// nextOf is next for frames of up to limit bytes.
func (r *frameReader) nextOf(limit int64) (kind byte, payload *decoder, length int64, err error) {
	var head []byte
	if r.r == nil {
		head, err = r.take(5)
	} else if head, err = r.r.Peek(5); err == nil {
		_, err = r.r.Discard(5)
	} else if err == io.EOF && len(head) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, 0, fmt.Errorf("reading a frame: %w", err)
	}
	kind, length = head[0], int64(binary.BigEndian.Uint32(head[1:]))
	if kind == frameData {
		return kind, nil, length, nil
	}
	if length > limit {
		return 0, nil, 0, malformed("frame too long")
	}
	b, err := r.take(length)
	if err != nil {
		return 0, nil, 0, fmt.Errorf("reading a frame: %w", err)
	}
	r.d = decoder{rest: b}
	return kind, &r.d, length, nil
}

// buffered reports whether the next frame of a stream can be read without
// waiting.
func (r *frameReader) buffered() bool {
	n := r.r.Buffered()
	if n < 5 {
		return false
	}
	head, err := r.r.Peek(5)
	return err == nil && int64(n-5) >= int64(binary.BigEndian.Uint32(head[1:]))
}

// take returns the next n bytes.
func (r *frameReader) take(n int64) ([]byte, error) {
	if r.r == nil {
		if n > int64(len(r.rest)) {
			return nil, io.ErrUnexpectedEOF
		}
		b := r.rest[:n:n]
		r.rest = r.rest[n:]
		return b, nil
	}
	r.close()
	if r.memory != nil && n > shortFrame && (r.own == nil || n > maxKept) {
		return r.takeCounted(n)
	}
	if r.own == nil || n > maxKept {
		b := make([]byte, n)
		_, err := io.ReadFull(r.r, b)
		return b, err
	}
	r.own = slices.Grow(r.own[:0], int(n))[:n]
	_, err := io.ReadFull(r.r, r.own)
	return r.own, err
}

// takeCounted reads a long frame. It takes memory as the bytes arrive: what a peer
// only claims to send takes none.
func (r *frameReader) takeCounted(n int64) ([]byte, error) {
	b := make([]byte, 0, shortFrame)
	for {
		got, err := io.ReadFull(r.r, b[len(b):min(int64(cap(b)), n)])
		b = b[:len(b)+got]
		if err != nil || int64(len(b)) == n {
			return b, err
		}
		room := min(4*int64(cap(b)), n)
		release, ok := r.memory(room)
		if !ok {
			return nil, ErrRefused
		}
		b = append(make([]byte, 0, room), b...)
		r.close()
		r.release = release
	}
}

// maxKept bounds the memory that is kept for the next frame.
const maxKept = 64 << 10

// Read reads the bytes of a data frame.
func (r *frameReader) Read(p []byte) (int, error) {
	if r.r != nil {
		return r.r.Read(p)
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// reason reads why something came to nothing. One that only a newer node knows
// is as good as none of ours.
func (d *decoder) reason() rfc9111.Reason {
	why := rfc9111.Reason(d.uint(math.MaxUint8, "reason"))
	if !why.Known() {
		return rfc9111.PeerError
	}
	return why
}

// broken reads why the other side's fill broke off.
func (d *decoder) broken() error {
	why := d.reason()
	if err := d.done(); err != nil {
		return err
	}
	return Broken{why}
}

// about checks that an answer is about the key that was asked for.
func (d *decoder) about(k store.Key) {
	if store.Key(d.fixed(len(k), "key")) != k {
		d.fail("an answer about another key")
	}
}
