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

// mender returns how a chunk of an entry's body is got from the upstream, or nil
// if it can't be.
func (x *exchange) mender(e *store.Entry, i int) func() ([]byte, error) {
	tag := strongTag(e)
	if tag == "" || x.Credentials || x.Directives.OnlyIfCached {
		return nil
	}
	return func() ([]byte, error) {
		h, id := x.h, peer.ChunkID{Key: x.Key, Generation: e.Generation, Index: i}
		others := func() bool { return h.node.Chunks.Followed(id) }
		s, start := x.newSlicer(others), time.Now()
		s.start, s.size, s.tag = int64(i)*store.ChunkSize, e.Size, tag
		if err := s.fetch(x); err != nil {
			if s.outdated() && x.isStored(e) { // else another request has, and something newer may be on its way
				x.invalidateKey()
			}
			h.counters.fetched(fillFailed, time.Since(start))
			return nil, err
		}
		defer s.release()
		h.counters.fetched(fillStored, time.Since(start))
		h.node.Chunks.Store(id, s.body, x.PeerTimeout)
		x.mended = true
		return s.body, nil
	}
}

// isStored reports whether a body is what this node has of the key now.
func (x *exchange) isStored(e *store.Entry) bool {
	now := x.h.node.Store.Lookup(x.Key, x.r.Header, time.Now()).Entry
	return now != nil && now.Generation == e.Generation
}

// fetchFirst answers a request for a part far into a response that is not
// stored, as the leader of a flight: it asks the upstream for the first chunk,
// which tells all about the response, and then for those that the client wants.
// It reports false if it has not answered: then the whole is to be asked for. A response
// that turns out to be the client's alone is asked for once more, by its part.
func (x *exchange) fetchFirst(f *node.Flight) (next step, ending node.Ending, ok bool) {
	x.forwarded()
	x.keep()
	h, start := x.h, time.Now()
	s := x.newSlicer(f.Fill.Followed)
	s.lease = x.decision.Lease
	err := s.fetch(x)
	defer func(holds bool) {
		if holds && x.first == nil {
			s.release()
		}
	}(err == nil)
	if err != nil && x.r.Context().Err() != nil && !f.Fill.Followed() {
		h.counters.fetched(fillFailed, time.Since(start))
		h.counters.notStored[rfc9111.Abandoned].Add(1)
		h.node.Rejections.Note(x.Key, rfc9111.Abandoned, node.Rejection{})
		return stepDone, node.Ending{Why: rfc9111.LeaderLost}, true // a request that has come to wait looks again
	}
	if s.whole == 0 {
		return 0, ending, false // it doesn't answer with parts
	}
	e, why := h.policy.NewEntryOfPart(s.exchange(), s.whole, x.r, requestURI(x.r))
	if why == rfc9111.NoVarySearch || why == rfc9111.None && err != nil {
		// Parts of it can't be put together, but it may be stored as a whole.
		if why = rfc9111.None; s.whole > x.MaxBody {
			why = h.policy.TooLarge(s.whole)
		}
		err = errNoSlice
	}
	switch {
	case why != rfc9111.None:
		h.counters.notStored[why].Add(1)
		h.node.Rejections.Note(x.Key, why, h.policy.Rejection(why, s.status, x.r.Header, s.header))
		h.node.Remember(x.Namespace, x.Key, why)
		h.counters.fetched(fillNotStored, time.Since(start))
		x.Alone = true
		return stepLookUp, node.Ending{Why: why}, true
	case err != nil:
		return 0, ending, false
	}
	e.Size, e.Digest, e.Generation = s.whole, store.Digest(s.body), store.NewGeneration()
	e = f.CommitFirst(&x.Lookup, x.decision, e, s.body)
	h.counters.fetched(fillStored, time.Since(start))
	x.first = &firstChunk{storedResponse: storedResponse{entry: e, body: s.body}, out: x.outcome(), release: s.release}
	return stepDeliverPart, ending, true
}

// deliverPart answers from a first chunk that has just been fetched.
func (x *exchange) deliverPart() step {
	defer x.first.release()
	x.first.out.stored, x.first.out.fwdStatus = true, http.StatusPartialContent
	return x.deliverParts(&x.first.storedResponse, func(w http.ResponseWriter) bool {
		return x.newHeader(w, x.first.entry, x.first.out)
	})
}

// A slicer is the client of a request for a slice.
type slicer struct {
	h       *Handler
	start   int64
	size    int64       // of the whole; 0: to be found out
	tag     string      // of the whole; "": to be found out
	release func()      // of its memory
	others  func() bool // whether somebody else on this node waits for it
	lease   *node.Lease // under which it is asked for

	repl     *caddy.Replacer  // of the request
	answer   rfc9111.Exchange // so far
	header   http.Header
	asked    http.Header // of the client's request
	known    bool        // the question has credentials
	sent     time.Time
	status   int
	whole    int64       // the size of the whole as the upstream states it; 0: its answer is not the part
	answered atomic.Bool // status is known
	cancel   context.CancelFunc
	orphan   node.Orphan
	body     []byte // no longer than its capacity
}

// newSlicer returns a slicer for the first chunk of a response. others reports whether
// any request on this node but the client's waits for it.
func (x *exchange) newSlicer(others func() bool) *slicer {
	return &slicer{h: x.h, header: make(http.Header), release: func() {}, others: others}
}

// fetch asks the upstream. When it returns an error, the slicer holds nothing.
func (s *slicer) fetch(x *exchange) (err error) {
	x.keep()
	r := x.r
	// Others may be waiting too: it does not end with the client.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), x.FillTimeout)
	defer cancel()
	s.cancel = cancel
	orphans := &s.h.node.Orphans
	defer orphans.End(&s.orphan)
	defer guard.AfterContext(r.Context(), func() { s.orphan.ClientGone(orphans, s) })()
	header := rfc9111.Conditional(r.Header, nil)
	length := int64(store.ChunkSize)
	if s.size > 0 {
		length = min(length, s.size-s.start)
	}
	if len(r.Header["Accept-Encoding"]) == 0 {
		delete(header, "Accept-Encoding") // with a Range it is as the client's
	}
	rfc9111.AskPart(header, s.start, length, s.tag)
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
	s.status, s.answer = status, s.h.answered(s.repl, status, s.header)
	s.header = s.answer.Response
	s.answered.Store(true)
	start, length, size, ok := rfc9111.ContentRange(s.header)
	tag := rfc9111.StrongTag(s.header)
	if status == http.StatusPartialContent && ok && start == s.start && length == store.ChunkLength(size, int(start/store.ChunkSize)) {
		s.whole = size
	}
	switch {
	case s.whole == 0:
	case tag == "" && size > store.ChunkSize: // it can't be put together
	case s.size == 0 && size <= s.h.MaxBodySize, s.size == size && s.tag == tag && s.shareable():
		if release, ok := s.h.node.Budget.Take(length); ok {
			s.release, s.size, s.tag = release, size, tag
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
		return len(s.body) < cap(s.body) || cap(s.body) == 0
	}
	return false
}

// shareable reports whether what came may be put to what is stored.
func (s *slicer) shareable() bool {
	return s.h.policy.Shareable(s.exchange(), s.size)
}

// exchange returns what the upstream was asked, and its answer.
func (s *slicer) exchange() rfc9111.Exchange {
	x := s.answer
	x.Request, x.Credentials, x.Sent = s.asked, s.known, s.sent
	return x
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

// Wanted reports whether somebody waits for a slice beside its client, or may make use
// of what has come.
func (s *slicer) Wanted() bool { return s.answered.Load() || s.others() }

// Abandon ends the request for a slice.
func (s *slicer) Abandon() bool {
	if !s.lease.ReleaseUnwanted() {
		return false
	}
	s.cancel()
	return true
}

func strongTag(e *store.Entry) string {
	return rfc9111.StrongTag(http.Header{"Etag": e.Lines("Etag"), "Content-Encoding": e.Lines("Content-Encoding")})
}
