package caddygroupcache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
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
func (h *Handler) mender(r *http.Request, next caddyhttp.Handler, q *question, e *store.Entry, i int) func() ([]byte, error) {
	tag := strongTag(e)
	if next == nil || tag == "" || q.credentials || q.directives.OnlyIfCached {
		return nil
	}
	return func() ([]byte, error) {
		s, start := h.newSlicer(int64(i)*store.ChunkSize, e.Size, tag), time.Now()
		if err := s.fetch(r, next, q); err != nil {
			if s.outdated() {
				h.node.invalidate(store.NewPurgeID(), q.space, []store.Selector{selectorOf(q.key)}, q.patience)
			}
			h.counters.fetched(fillFailed, time.Since(start))
			return nil, err
		}
		defer s.release()
		h.counters.fetched(fillStored, time.Since(start))
		h.node.putChunk(peer.ChunkID{Key: q.key, Generation: e.Generation, Index: i}, s.body)
		q.mended = true
		return s.body, nil
	}
}

// fetchFirst answers a request for a part far into a response that is not
// stored, as the leader of a flight: it asks the upstream for the first chunk,
// which tells all about the response, and then for those that the client wants.
// It reports false, and has done nothing, if the upstream doesn't do that.
func (h *Handler) fetchFirst(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, q *question, f *flight, g grant, out *outcome) bool {
	r = q.keep(r).request
	s := h.newSlicer(0, 0, "")
	start := time.Now()
	if s.fetch(r, next, q) != nil {
		return false
	}
	defer s.release()
	e, why := h.judgeSlice(r, s)
	if why != rfc9111.None {
		return false
	}
	e = h.node.commitFirst(q, g, e, s.body)
	f.end(rfc9111.None)
	h.counters.fetched(fillStored, time.Since(start))
	out.stored, out.fwdStatus = true, http.StatusPartialContent
	h.serveStored(w, r, next, q, e, s.body, func(w http.ResponseWriter) bool {
		return h.newHeader(w, r, e, out)
	})
	return true
}

// judgeSlice makes an entry of the answer to the request for a first chunk.
func (h *Handler) judgeSlice(r *http.Request, s *slicer) (*store.Entry, rfc9111.Reason) {
	whole := rfc9111.Whole(s.header, s.size)
	switch {
	case s.size > h.MaxBodySize:
		return nil, rfc9111.TooLarge
	case len(whole["Trailer"]) > 0:
		return nil, rfc9111.Trailers
	case len(whole["No-Vary-Search"]) > 0:
		return nil, rfc9111.NoVarySearch
	}
	fresh, why := rfc9111.Storable(rfc9111.Exchange{
		Method: http.MethodGet, Request: s.asked,
		Status: http.StatusOK, Response: whole,
		Sent: s.sent, Received: s.received,
	}, h.policy)
	if why != rfc9111.None {
		return nil, why
	}
	e, why := h.newEntry(r, http.StatusOK, whole, fresh, s.sent)
	if why == rfc9111.None {
		e.Size, e.Digest, e.Generation = s.size, store.Digest(s.body), store.NewGeneration()
	}
	return e, why
}

// commitFirst stores an entry with the first chunk of its body, and returns it
// as stored, if it is.
func (n *node) commitFirst(q *question, g grant, e *store.Entry, first []byte) *store.Entry {
	if g.owner == nil {
		return cmp.Or(n.store.CommitSummed(q.space, q.key, e, first), e)
	}
	defer g.close()
	body := fill.New[*store.Entry](store.ChunkSize, store.ChunkSize, nil)
	defer body.Release()
	r := body.NewReader()
	defer r.Close()
	_, _ = body.Write(first) // it is no longer than the limit
	body.Close(nil)
	ctx, cancel := context.WithTimeout(context.Background(), chunkPatience)
	defer cancel()
	query := peer.NewQuery(q.space.Name, q.key, q.header, e.Vary())
	start := time.Now()
	generation, err := n.client.Publish(ctx, *g.owner, query, g.ticket, e, outgoing{r, nil})
	observePeer(operationPublish, err, time.Since(start))
	if err != nil {
		return e
	}
	stored := *e
	stored.Generation = generation
	n.store.PutCopy(q.space, q.key, &stored, first)
	return &stored
}

// A slicer is the client of a request for a slice.
type slicer struct {
	h       *Handler
	start   int64
	size    int64  // of the whole; 0: to be found out
	tag     string // of the whole; "": to be found out
	release func() // of its memory

	header         http.Header
	asked          http.Header // of the client's request
	sent, received time.Time
	status         int
	cancel         context.CancelFunc
	body           []byte // no longer than its capacity
}

func (h *Handler) newSlicer(start, size int64, tag string) *slicer {
	return &slicer{h: h, start: start, size: size, tag: tag, header: make(http.Header), release: func() {}}
}

// fetch asks the upstream. When it returns an error, the slicer holds nothing.
func (s *slicer) fetch(r *http.Request, next caddyhttp.Handler, q *question) (err error) {
	// Others may be waiting too: it does not end with the client.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), q.deadline)
	defer cancel()
	s.cancel = cancel
	kept := q.keep(r)
	header := rfc9111.Conditional(kept.request.Header, nil)
	length := int64(store.ChunkSize)
	if s.size > 0 {
		length = min(length, s.size-s.start)
	}
	rfc9111.AskPart(header, s.start, length, s.tag)
	s.asked, s.sent = kept.request.Header, time.Now()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			err = errNoSlice
		}
		if err != nil {
			s.release()
		}
	}()
	if err := next.ServeHTTP(s, kept.forUpstream(ctx, header)); err != nil {
		return fmt.Errorf("asking the upstream for a part: %w", err)
	}
	if len(s.body) == 0 || len(s.body) < cap(s.body) {
		return errNoSlice
	}
	return nil
}

func (s *slicer) Header() http.Header { return s.header }

// WriteHeader looks whether the answer is what was asked for.
func (s *slicer) WriteHeader(status int) {
	if status < 200 || s.status != 0 {
		return
	}
	s.status, s.received = status, time.Now()
	start, length, size, ok := rfc9111.ContentRange(s.header)
	tag := rfc9111.StrongTag(s.header)
	switch {
	case status != http.StatusPartialContent, !ok, start != s.start, length != store.ChunkLength(size, int(start/store.ChunkSize)):
	case tag == "" && size > store.ChunkSize: // it can't be put together
	case s.size == 0, s.size == size && s.tag == tag && s.shareable():
		if release, ok := s.h.node.Reserve(length); ok {
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
	_, why := rfc9111.Storable(rfc9111.Exchange{
		Method: http.MethodGet, Request: s.asked,
		Status: http.StatusOK, Response: rfc9111.Whole(s.header, s.size),
		Sent: s.sent, Received: s.received,
	}, s.h.policy)
	return why == rfc9111.None
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
