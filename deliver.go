package caddygroupcache

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/cachestatus"
	"github.com/caddy-groupcache/caddy-groupcache/internal/delivery"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A storedResponse is an entry with its body, or the first chunk of that, on its way to a
// client, and what serving it is called.
type storedResponse struct {
	entry  *store.Entry
	body   []byte
	status cacheStatus
	detail any
	now    time.Time
}

// deliver answers with a stored response. If a part of it is lost that can't be got
// back, the request has to look up again.
func (s *storedResponse) deliver(x *exchange) step {
	if s.deliverWhole(x) {
		return stepDone
	}
	return s.deliverParts(x, func(mended bool) bool {
		if mended {
			out := &outcome{h: x.h, r: x.r, repl: replacer(x.r), fwd: "partial", fwdStatus: http.StatusPartialContent, stored: true, status: statusMiss}
			return out.newHeader(x.w, x.r, s.entry)
		}
		s.hitHeader(x)
		return delivery.AnswerNotModified(x.w, x.r, s.entry.Status)
	})
}

// deliverWhole answers with a stored response that is in one piece. It reports false when
// it isn't, or a part of it is asked for. Most requests end here, so nothing of the
// exchange outlives it. The body is taken from s, because a slow client must hold no
// other than the one that is counted.
func (s *storedResponse) deliverWhole(x *exchange) bool {
	e := s.entry
	if e.Failed {
		s.fail(x)
		return true
	}
	if e.Large() || x.part && delivery.WantsPart(x.r, e.Status) {
		return false
	}
	pin, ok := x.h.node.Pins.Body(x.Key, e, s.body)
	if !ok {
		return false
	}
	defer x.h.node.Pins.Release(pin)
	body := pin.Of(s.body)
	s.body = nil
	s.hitHeader(x)
	if x.conditional && delivery.AnswerNotModified(x.w, x.r, e.Status) {
		return true
	}
	x.w.WriteHeader(e.Status)
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(body) // a client that is gone needs no error
	}
	return true
}

// fail answers with a stored error, of which Caddy makes a response as it did of the first:
// with the fields that the handlers had set when they failed. {err.message} is the status
// text, as it is of an error without a message, such as those of file_server.
func (s *storedResponse) fail(x *exchange) step {
	h, header := x.h, x.w.Header()
	s.entry.WriteHeader(header, 0)
	header.Del("Content-Length") // of the entry, which has no body; the error's page may have one
	x.err = caddyhttp.Error(s.entry.Status, nil)
	if s.status == statusCollapsed {
		out := x.outcome()
		out.status, out.collapsed = s.status, true
		out.write(header)
		return stepDone
	}
	if _, member := s.fields(h); h.cacheName != "" {
		header["Cache-Status"] = append(header["Cache-Status"], member)
	}
	setPlaceholders(replacer(x.r), statusNames[s.status], s.detail, true)
	h.counters.requests[s.status].Add(1)
	h.logDecision(x.r, s.status, "", s.detail.(string), false)
	return stepDone
}

// deliverParts answers with a stored response, chunk by chunk. Header sets its header,
// also if a chunk came from the upstream, and reports whether that has answered the request.
func (s *storedResponse) deliverParts(x *exchange, header func(mended bool) bool) step {
	e := s.entry
	if e.Large() { // of which the upstream may be asked for a chunk
		x.keepOriginal()
	}
	c := &chunkSource{x: x, entry: e}
	body := delivery.NewBody(x.h.node, x.Key, e, s.body, c.get)
	defer body.Close()
	if e.Large() && x.r.Method != http.MethodHead && !(x.conditional && rfc9111.NotModified(x.r.Header, e.Status, e.Header())) {
		if err := c.ready(body); err != nil {
			x.Without = e.Generation // it is the upstream's turn
			return stepLookUp
		}
	}
	if header(c.mended) {
		return stepDone
	}
	var end int64
	var err error
	if delivery.WantsPart(x.r, e.Status) {
		end, err = delivery.ServePart(x.w, x.r, body)
	} else {
		x.w.WriteHeader(e.Status)
		if x.r.Method != http.MethodHead {
			end = body.Size
			err = body.Send(x.w, 0, end)
		}
	}
	if errors.As(err, new(delivery.MissingChunk)) && x.r.Context().Err() == nil {
		x.resume(delivery.NewPartWriter(x.w, body.Sent().At, end, body.Size), e, body.Sent())
	}
	return stepDone
}

// A chunkSource has the chunks of a stored body after the first, as one exchange gets them:
// from this node, from another one or from the upstream.
type chunkSource struct {
	x      *exchange
	entry  *store.Entry
	mended bool // one came from the upstream
}

// get returns a chunk.
func (c *chunkSource) get(i int) ([]byte, error) {
	x, e := c.x, c.entry
	id := peer.ChunkID{Key: x.Key, Generation: e.Generation, Index: i}
	ctx, cancel := context.WithTimeoutCause(x.r.Context(), x.FillTimeout, node.Ended{Why: rfc9111.FillTimeout})
	defer cancel()
	return x.h.node.Chunks.Get(ctx, id, store.ChunkLength(e.Size, i), x.PeerTimeout, c.mender(i))
}

// fewChunks is how many missing chunks a client waits for before it gets anything.
const fewChunks = 4

// ready sees to it that a client can get what it needs of a large body, before it gets the
// header of that. A chunk that no node has can only come from the upstream, which may have
// another body by now: so it is asked for it here, of many for the first one, and if most of
// them are missing, for the whole.
func (c *chunkSource) ready(body *delivery.Body) error {
	x, e := c.x, c.entry
	start, end := body.Needs(x.r, e)
	first, last := int(start/store.ChunkSize), int((end-1)/store.ChunkSize)
	missing := x.h.node.Chunks.Missing(peer.ChunkID{Key: x.Key, Generation: e.Generation}, first, last, x.PeerTimeout)
	if 2*len(missing) > last-first+1 && !x.WantsPart {
		return node.ErrChunkGone
	}
	if len(missing) > fewChunks {
		missing = missing[:1]
	}
	for _, i := range missing {
		if _, err := body.From(int64(i) * store.ChunkSize); err != nil {
			return err
		}
	}
	_, err := body.From(start)
	return err
}

// fields returns the Age of a stored response and its member of Cache-Status.
func (s *storedResponse) fields(h *Handler) (age, member string) {
	return h.hits.Fields(h.cacheName, cachestatus.Hit{
		Age: int64(s.entry.Fresh.Age(s.now) / time.Second), TTL: int64(s.entry.Fresh.TTL(s.now) / time.Second),
		Revalidated: s.status == statusRevalidated, Detail: s.detail.(string),
	})
}

// hitHeader sets the header of a stored response.
func (s *storedResponse) hitHeader(x *exchange) {
	h, header := x.h, x.w.Header()
	if x.slow && s.status == statusStale {
		s.detail = detailSlow
	}
	lines := s.entry.WriteHeader(header, 2)
	lines[0], lines[1] = s.fields(h)
	header["Age"] = lines[0:1:1]
	if x.r.Method == http.MethodHead {
		rfc9111.OtherContent(header)
	}
	for name, own := range x.leftOut {
		header[name] = append(slices.Clip(header[name]), own...)
	}
	before := header["Cache-Status"]
	switch {
	case h.cacheName == "":
	case len(before) > 0:
		header["Cache-Status"] = append(before, lines[1])
	default:
		header["Cache-Status"] = lines[1:2:2]
	}
	// A handler of ours that served before this one, whose error this one is a route for,
	// has left a Cache-Status.
	setPlaceholders(replacer(x.r), statusNames[s.status], s.detail, len(before) > 0 || h.unnamed.Load())
	h.counters.requests[s.status].Add(1)
	h.logDecision(x.r, s.status, "", s.detail.(string), false)
}

// newHeader sets the header of a response that has just come from the upstream,
// and reports whether a 304 has answered the request.
func (o *outcome) newHeader(w http.ResponseWriter, r *http.Request, e *store.Entry) bool {
	header := w.Header()
	e.WriteHeader(header, 0)
	if r.Method == http.MethodHead {
		rfc9111.OtherContent(header)
	}
	if age := e.Fresh.Age(time.Now()); age >= time.Second || len(header["Age"]) > 0 {
		header.Set("Age", strconv.FormatInt(int64(age/time.Second), 10))
	}
	o.write(header)
	return delivery.AnswerNotModified(w, r, e.Status)
}

// resume goes on with a response whose source broke off where the client's part
// ends, from the upstream: that is asked for the whole, and what the client has is
// compared with it. If that is another response by now, the client's is cut off, as
// it would have been without a cache.
func (x *exchange) resume(w http.ResponseWriter, e *store.Entry, g *delivery.Sent) {
	x.keepOriginal()
	s := delivery.NewResumer(w, e, g)
	err := s.Run(x.next.ServeHTTP, x.original.ForUpstream(x.r.Context(), rfc9111.Conditional(x.r.Header, nil)))
	if err != nil || s.Broken() {
		panic(http.ErrAbortHandler)
	}
	s.PassTrailers()
}
