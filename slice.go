package caddygroupcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

// A slice is one chunk of a response that is asked for by itself, with a Range
// field: because it is not stored any more, or because the client wants nothing
// of the gigabytes before it. Chunks are put together to one body only under one
// strong entity tag (RFC 9111 §3.4).

// errNoSlice says that the upstream's answer is not the chunk that was asked
// for.
var errNoSlice = errors.New("the upstream did not answer with the part that was asked for")

// mender returns how a chunk is got from the upstream, or nil if it can't be.
func (c *chunkSource) mender(i int) func() ([]byte, error) {
	x, e := c.x, c.entry
	tag := strongTag(e)
	if tag == "" || x.Credentials || x.Directives.OnlyIfCached {
		return nil
	}
	return func() ([]byte, error) {
		h, id := x.h, peer.ChunkID{Key: x.Key, Generation: e.Generation, Index: i}
		others := func() bool { return h.node.Chunks.Followed(id) }
		s := &slicer{
			h: h, start: int64(i) * store.ChunkSize, size: e.Size, tag: tag, release: func() {}, others: others,
			header: make(http.Header),
		}
		start := time.Now()
		if err := s.fetch(x); err != nil {
			now := h.node.Store.Lookup(x.Key, x.r.Header, time.Now()).Entry
			if s.outdated() && now != nil && now.Generation == e.Generation { // else another request has, and something newer may be on its way
				h.node.Purger.InvalidateKey(&x.Lookup)
			}
			h.counters.fetched(fillFailed, time.Since(start))
			return nil, err
		}
		defer s.release()
		h.counters.fetched(fillStored, time.Since(start))
		h.node.Chunks.Store(id, s.body, x.PeerTimeout)
		c.mended = true
		return s.body, nil
	}
}

// A request for one range of a response that is not stored asks the upstream for the first
// chunk in place of the whole, if it needs no more than a part. What comes of that answers
// the request, whatever it is, because a second request may find nothing any more. There is
// one only where nothing of the first is what the client wants: a 416, or the first chunk
// when the client wants a part far from it.

// A probe is the request for the first chunk, and what came of it.
type probe struct {
	asked     bool
	isChunk   atomic.Bool   // the response is the first chunk, and is to be stored
	lookAgain bool          // what came has nothing for the client, and the request looks up again
	allInPart bool          // a 206 has the whole, so the upstream answers with parts
	cameAs    int           // the status that came, if the response is handled as another one; else 0
	part      *rfc9111.Part // what a 206 has of the whole, if it is sent to the client as that; else nil
}

// ask returns the header of a request for the first chunk, or nil if the upstream is not to
// be asked for that. A client's If-Range stays if the chunk has the client's part: an
// upstream that has something else answers with the whole.
func (p *probe) ask(x *fetch) http.Header {
	if !x.WantsPart || x.Alone || x.noParts || x.background || x.stale.entry != nil ||
		x.decision.Reason == rfc9111.HitForMiss || x.h.node.Rejections.WantsWhole(x.Key, time.Now()) {
		return nil
	}
	p.asked = true
	header := rfc9111.PartRequest(x.r.Header, 0, store.ChunkSize, "")
	if lines := x.r.Header["If-Range"]; len(lines) > 0 && !x.far {
		header["If-Range"] = lines
	}
	return header
}

// decide looks at the answer to a request for the first chunk. It returns undecided for
// what is the whole, or an error.
func (p *probe) decide(t *recorder) recorderState {
	x := t.x
	switch t.status {
	case http.StatusPartialContent:
	case http.StatusRequestedRangeNotSatisfiable: // an empty body, or an upstream that knows no more of ranges
		x.judged = node.Rejection{Why: rfc9111.Partial, Status: t.status, Part: true}
		return p.again(x, rfc9111.Partial)
	case http.StatusOK:
		if len(t.header["Content-Range"]) == 0 {
			return undecided
		}
	default:
		return undecided
	}
	p.cameAs = t.status
	part, ok := rfc9111.ReadPart(t.before.Own(t.header))
	ok = ok && t.status == http.StatusPartialContent
	if ok && part.Start == 0 && part.Length == part.Size { // all that there is
		rfc9111.MakeWhole(t.header, part.Size)
		t.status, p.allInPart = http.StatusOK, true
		return undecided
	}
	why := rfc9111.Partial
	if ok {
		p.part = &part
		if part.Start == 0 && part.Length == store.ChunkSize && part.Size > 0 {
			if why = p.judge(t, part.Size); why == rfc9111.None {
				return x.open(t)
			}
		}
	}
	x.judged = x.h.policy.Rejection(why, t.status, x.r.Header, t.header)
	x.judged.Part = why == rfc9111.Partial
	x.endStored(http.StatusOK, why)
	if x.far {
		return p.again(x, why)
	}
	x.h.policy.HideTags(t.header)
	x.out.detail = why.String()
	x.giveUp(why)
	return direct
}

// judge decides whether a response is stored of which the first chunk comes. Partial:
// not by parts.
func (p *probe) judge(t *recorder, size int64) rfc9111.Reason {
	x := t.x
	appends, ok := t.before.Edits(t.header)
	if !ok {
		return rfc9111.InFront
	}
	answer := x.h.exchangeOf(replacer(x.r), t.status, t.before.Own(t.header))
	answer.Request, answer.Credentials, answer.Sent = x.r.Header, x.Credentials, x.sent
	e, why := x.h.policy.NewEntryOfPart(answer, size, x.r, requestURI(x.r))
	untagged := why == rfc9111.None && rfc9111.StrongTag(answer.Response) == ""
	switch {
	case (why == rfc9111.NoVarySearch || untagged) && size > x.MaxBody:
		return x.h.policy.TooLarge(size)
	case why == rfc9111.NoVarySearch, untagged:
		return rfc9111.Partial
	case why != rfc9111.None:
		return why
	}
	e.Size, e.Generation, e.Appends = size, store.NewGeneration(), appends
	t.entry, t.length = e, store.ChunkSize
	p.isChunk.Store(true)
	rfc9111.MakeWhole(t.header, size)
	t.status = http.StatusOK
	return rfc9111.None
}

// again has the request look up again, because what came has nothing for its client: to ask
// for the whole, or, where the response is its client's alone, for the client's own range.
func (p *probe) again(x *fetch, why rfc9111.Reason) recorderState {
	x.giveUp(why)
	p.lookAgain, x.noParts = true, true
	x.Alone = why != rfc9111.Partial
	return silent
}

// commit stores a response whose first chunk has come.
func (p *probe) commit(t *recorder) {
	x := t.x
	body := x.flight.Fill.Bytes()
	t.entry.Digest = x.flight.Fill.Digest()
	if x.far { // the reader counts what the client gets a part of
		x.first = &firstChunk{out: x.out, release: x.flight.Fill.NewReader().Close}
	}
	x.concluded = true
	e := x.flight.CommitFirst(&x.Lookup, x.decision, t.entry, body)
	x.flight.Finish(node.Ending{})
	if x.far {
		x.first.storedResponse = storedResponse{entry: e, body: body}
	}
}

// deliverPart answers from a first chunk that has just been fetched. If the client's part
// does not come, the upstream is asked for the whole.
func (first *firstChunk) deliverPart(x *exchange) step {
	x.first, x.noParts = nil, true
	defer first.release()
	first.out.stored, first.out.fwdStatus = true, http.StatusPartialContent
	return first.deliverParts(x, func(bool) bool { return first.out.newHeader(x.w, x.r, first.entry) })
}

// A slicer is the client of a request for a slice.
type slicer struct {
	h       *Handler
	start   int64
	size    int64       // of the whole
	tag     string      // of the whole
	release func()      // of its memory
	others  func() bool // whether another request on this node waits for it

	repl     *caddy.Replacer  // of the request
	answer   rfc9111.Exchange // so far
	header   http.Header
	asked    http.Header // of the client's request
	known    bool        // the question has credentials
	sent     time.Time
	status   int
	whole    int64       // the size of the whole as the upstream states it; 0: its answer is not the part
	same     bool        // its answer is the part, of what is stored
	answered atomic.Bool // status is known
	cancel   context.CancelFunc
	orphan   node.Orphan
	body     []byte // no longer than its capacity
}

// fetch asks the upstream. When it returns an error, the slicer holds nothing.
func (s *slicer) fetch(x *exchange) (err error) {
	x.keepOriginal()
	r := x.r
	// Others may be waiting too: it does not end with the client.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), x.FillTimeout)
	defer cancel()
	s.cancel = cancel
	orphans := &s.h.node.Orphans
	defer orphans.End(&s.orphan)
	defer guard.AfterContext(r.Context(), func() { s.orphan.ClientGone(orphans, s) })()
	header := rfc9111.PartRequest(r.Header, s.start, min(store.ChunkSize, s.size-s.start), s.tag)
	s.asked, s.known, s.sent = r.Header, x.Credentials, time.Now()
	whole := false
	defer func() { // on whatever way out
		if !whole {
			s.release()
		}
	}()
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			err = errNoSlice
		} else if p != nil {
			panic(p)
		}
	}()
	upstream := x.original.ForUpstream(ctx, header)
	x.original.AddLoop(s.h.loopMember)
	defer x.original.RemoveLoop()
	s.repl = replacer(r)
	defer routes.ForgetProxied(s.repl)()
	if err := x.next.ServeHTTP(s, upstream); err != nil {
		return fmt.Errorf("asking the upstream for a part: %w", err)
	}
	if len(s.body) == 0 || len(s.body) < cap(s.body) {
		return errNoSlice
	}
	whole = true
	return nil
}

func (s *slicer) Header() http.Header { return s.header }

// WriteHeader looks whether the answer is what was asked for.
func (s *slicer) WriteHeader(status int) {
	if status < 200 || s.status != 0 {
		return
	}
	s.status, s.answer = status, s.h.exchangeOf(s.repl, status, s.header)
	s.header = s.answer.Response
	s.answered.Store(true)
	start, length, size, ok := rfc9111.ContentRange(s.header)
	tag := rfc9111.StrongTag(s.header)
	if status == http.StatusPartialContent && ok && start == s.start && length == store.ChunkLength(size, int(start/store.ChunkSize)) {
		s.whole = size
	}
	switch {
	case s.whole == 0:
	case tag == "": // it can't be put together
	case s.size == size && s.tag == tag && s.shareable():
		s.same = true
		if release, ok := s.h.node.Budget.Take(length); ok {
			s.release = release
			s.body = make([]byte, 0, length)
			return
		}
	}
	s.cancel()
}

// outdated reports whether the answer shows that what is stored is not what the
// upstream has, or that the upstream doesn't answer with parts.
func (s *slicer) outdated() bool {
	switch s.status {
	case http.StatusOK, http.StatusPartialContent, http.StatusNotFound, http.StatusGone, http.StatusRequestedRangeNotSatisfiable:
		return !s.same // else it broke off, or there is no memory for it
	}
	return false
}

// shareable reports whether what came may be put to what is stored.
func (s *slicer) shareable() bool {
	x := s.answer
	x.Request, x.Credentials, x.Sent = s.asked, s.known, s.sent
	return s.h.policy.Shareable(x, s.size)
}

func (s *slicer) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	if len(s.body)+len(p) > cap(s.body) {
		s.cancel()
		return 0, io.ErrShortWrite
	}
	s.body = append(s.body, p...)
	return len(p), nil
}

// Wanted reports whether another request waits for a slice, or may use what has come in.
func (s *slicer) Wanted() bool { return s.answered.Load() || s.others() }

// Abandon ends the request for a slice.
func (s *slicer) Abandon() bool {
	s.cancel()
	return true
}

func strongTag(e *store.Entry) string {
	return rfc9111.StrongTag(http.Header{"Etag": e.Lines("Etag"), "Content-Encoding": e.Lines("Content-Encoding")})
}
