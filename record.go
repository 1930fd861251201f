package caddygroupcache

import (
	"cmp"
	"errors"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/delivery"
	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/front"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A recorder is the ResponseWriter that the handlers behind the cache write to
// while their response may be stored. It decides when the header comes:
//
//   - direct: the response is its one client's, and goes to it as it comes, or
//     what the client wants of it does;
//   - filling: it goes into the flight's fill, and the client is served from
//     there like every follower, so that a slow or vanished client holds up
//     no other;
//   - silent: the response confirms a stored one, or is an error in whose place
//     that answers, and no client gets it.
//
// Until it is direct a fetch that others may follow does not depend on its client's
// context.
type recorder struct {
	caddyhttp.ResponseWriterWrapper
	x      *fetch
	header http.Header  // what the handlers set; the client's writer may change its own at any time
	before front.Fields // what stood there before: not part of the response
	state  recorderState
	status int

	body       *node.Follower // the client's place in the fill
	finished   bool           // finishClient was called
	pump       *pump          // sends the body to the client; nil: it has not begun
	delivered  *delivery.Sent // what the client has of the body; of the pump until it ends
	entry      *store.Entry   // what the fill will be stored as
	length     int64          // Content-Length, or -1
	answered   bool           // the client got a 304 instead of the body
	headerSent bool           // of a response that turned out to be the client's alone
}

// A pump sends a fill to the client. A panic of the client's writer, which may be that of
// another handler, belongs to the goroutine in which that one has called us.
type pump struct {
	running  sync.WaitGroup // until it is over, below are the goroutine's
	err      error
	panicked *guard.Panic
}

type recorderState uint8

const (
	undecided recorderState = iota
	direct
	filling
	silent
)

// Header returns the header that the handlers behind the cache see.
func (t *recorder) Header() http.Header { return t.header }

// Unwrap lets ResponseController reach the client's writer for what the recorder
// doesn't do itself.
func (t *recorder) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// WriteHeader passes interim responses on, and decides about the final one.
func (t *recorder) WriteHeader(status int) {
	if t.state != undecided {
		return
	}
	if status < 200 {
		t.interim(status)
		return
	}
	t.status = status
	t.state = t.x.decide(t, status)
	if t.state == direct && !t.headerSent {
		t.passHeader(t.status)
	}
}

func (t *recorder) interim(status int) {
	if t.x.probe.asked && t.x.far {
		return // the final one may not be for the client
	}
	if status == http.StatusSwitchingProtocols {
		t.x.giveUp(rfc9111.Upgrade)
		t.state = direct
		t.passHeader(status)
		return
	}
	// Followers wait for the final response, and not for this client to take the interim one.
	stalled := make(chan struct{})
	timer := guard.AfterFunc(t.x.PeerTimeout, func() { defer close(stalled); t.x.stall() })
	defer func() {
		if !timer.Stop() { // or the flight would end amid the final one
			<-stalled
		}
	}()
	dst := t.ResponseWriter.Header()
	was := dst.Clone()
	t.adoptHeader()
	t.ResponseWriter.WriteHeader(status)
	clear(dst) // the final one may be another's, which has none of these fields
	maps.Copy(dst, was)
}

// adoptHeader makes the client's header what the handlers made of it.
func (t *recorder) adoptHeader() {
	dst := t.ResponseWriter.Header()
	clear(dst)
	for name, values := range t.header {
		dst[name] = slices.Clip(values) // what is appended to one is not the other's
	}
}

// adoptTrailers gives the client the fields that came after the body.
func (t *recorder) adoptTrailers() {
	if t.state != direct && t.state != filling {
		return
	}
	dst := t.ResponseWriter.Header()
	for name, values := range t.header {
		if rfc9111.IsTrailer(t.header, name) {
			dst[name] = values
		}
	}
}

// sated reports whether the response is the client's alone, and what is left of it
// not for the client either.
func (t *recorder) sated() bool {
	return t.state == silent && (t.answered || t.x.probe.lookAgain) || t.state == direct && delivery.Satisfied(t.ResponseWriter)
}

// aside reports whether the response is the first chunk, for a client that wants another part.
func (t *recorder) aside() bool { return t.x.probe.isChunk.Load() && t.x.far }

// leavesClient reports whether the client has got nothing, and another response is to answer
// it. A first chunk that broke off is given up for that.
func (t *recorder) leavesClient() bool {
	if t.aside() && t.x.first == nil && !t.x.probe.lookAgain {
		t.state = t.x.probe.again(t.x, rfc9111.Partial) // it broke off
	}
	return t.state == silent && !t.answered
}

// partOf prepares what the client gets of a response that is coming in.
func (t *recorder) partOf(w http.ResponseWriter) (http.ResponseWriter, int) {
	if p := t.x.probe.part; p != nil {
		w, _ := delivery.OfPart(w, t.x.r, *p, w.Header()) // or all of the part: it says what it is
		return w, http.StatusPartialContent
	}
	return delivery.PartOf(w, t.x.r, t.status, w.Header())
}

// passHeader sends the response's header to its one client as it is. If the upstream
// was asked for the whole, without the client's conditions and range, then these are
// applied here, since the handlers do not run a second time. No part is made unless
// the response says that there are some: RFC 9110 §14.2 allows the whole.
func (t *recorder) passHeader(status int) {
	t.adoptHeader()
	w := t.ResponseWriter
	t.x.out.fwdStatus = cmp.Or(t.x.probe.cameAs, status)
	t.x.out.write(w.Header())
	if t.x.whole {
		if delivery.AnswerNotModified(w, t.x.r, status) {
			t.answered, t.state = true, silent
			return
		}
		if t.x.probe.allInPart || t.x.probe.part != nil || t.x.probe.cameAs == 0 && rfc9111.AcceptsRanges(w.Header()) {
			t.ResponseWriter, status = t.partOf(w)
		}
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write takes some of the body.
func (t *recorder) Write(p []byte) (int, error) {
	if t.state == undecided {
		t.WriteHeader(http.StatusOK)
	}
	switch {
	case t.sated():
		return 0, delivery.ErrSated
	case t.state == direct:
		return t.ResponseWriter.Write(p)
	case t.state == silent:
		return len(p), nil
	}
	n, err := t.fill(p)
	if err == nil {
		// A whole body in one piece needs no goroutines: finish serves it.
		if t.x.flight.Fill.Size() != t.length {
			t.x.publish(t, false)
			t.startPump()
		}
		return n, nil
	}
	// It doesn't fit, or took too long: from here on it is its client's alone.
	if err := t.overflow(t.x.whyEnded(err)); err != nil {
		return n, err
	}
	m, err := t.Write(p[n:])
	return n + m, err
}

// fill writes to the flight's fill.
func (t *recorder) fill(p []byte) (n int, err error) {
	f := t.x.flight
	if t.x.probe.isChunk.Load() && f.Fill.Size()+int64(len(p)) > t.length {
		return 0, node.Ended{Why: rfc9111.Truncated}
	}
	for err == nil && n < len(p) {
		var k int
		k, err = f.Fill.Write(p[n:min(n+store.ChunkSize, len(p))])
		if errors.Is(err, fill.ErrTooLarge) && t.x.outgrow() {
			err = nil
			continue
		}
		n += k
		f.Settle(&t.x.Lookup, false)
	}
	if err == nil && f.Outgrown.Load() && !t.x.followed() {
		err = fill.ErrTooLarge
	}
	return n, err
}

// ReadFrom lets the client's writer splice what the cache has no part in.
func (t *recorder) ReadFrom(r io.Reader) (int64, error) {
	if _, part := t.ResponseWriter.(*delivery.PartWriter); t.state == direct && !part {
		return t.ResponseWriterWrapper.ReadFrom(r)
	}
	return io.Copy(writerOnly{t}, r)
}

// writerOnly hides ReadFrom from io.Copy.
type writerOnly struct{ io.Writer }

// FlushError flushes the client's writer, or has the pump do it.
func (t *recorder) FlushError() error {
	switch t.state {
	case undecided:
		t.WriteHeader(http.StatusOK)
		return t.FlushError()
	case filling:
		t.x.publish(t, false)
		t.startPump() // it flushes whenever it has nothing to write
		return nil
	case silent:
		return nil
	}
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// overflow ends the flight and lets the client's writer catch up with what has
// been written so far.
func (t *recorder) overflow(why rfc9111.Reason) error {
	t.x.giveUp(why)
	if t.answered {
		t.state = silent
		return nil
	}
	if t.leavesClient() {
		return nil
	}
	t.startPump()
	t.pump.running.Wait()
	t.state = direct
	delivery.Reached(t.ResponseWriter, t.x.flight.Fill.Size())
	if t.pump.panicked != nil { // which finishClient has go on in the handler's own goroutine
		return errPanicked
	}
	if errors.As(t.pump.err, new(node.Ended)) {
		return nil // the pump has written all there was
	}
	return t.pump.err
}

// errPanicked ends a response whose client's writer has panicked.
var errPanicked = errors.New("the client's writer has panicked")

// startPump begins to send the fill to the client.
func (t *recorder) startPump() {
	if t.pump != nil || t.answered || t.aside() {
		return
	}
	p := new(pump)
	t.pump = p
	guard.GoWait(&p.running, func() {
		p.panicked = guard.Catch(func() {
			p.err = delivery.CopyFill(t.x.r.Context(), t.ResponseWriter, t.body, t.delivered)
		})
	})
	if t.length < 0 || t.length > node.InlineTransfer {
		runtime.Gosched() // the client is waiting for its first byte, and no reader for the next piece
	}
}

// sendHeader sends the header to a client that has got nothing yet: it need not
// wait for the owner.
func (t *recorder) sendHeader() {
	if t.length > 0 && t.pump == nil && !t.answered && !t.aside() {
		_ = http.NewResponseController(t.ResponseWriter).Flush()
	}
}

// finishClient returns when the client has all of a fill, or is gone, and reports whether the
// rest came from another response. What else a client does is not the fetch's business.
func (t *recorder) finishClient() (resumed bool) {
	if t.body == nil || t.finished {
		t.adoptTrailers()
		return false
	}
	t.finished = true
	defer t.body.Close()
	var err error
	switch {
	case t.pump != nil:
		t.pump.running.Wait()
		t.pump.panicked.Again()
		err = t.pump.err
	case !t.answered && !t.aside():
		err = delivery.CopyFill(t.x.r.Context(), t.ResponseWriter, t.body, t.delivered)
	}
	t.adoptTrailers() // not while the client's writer sends, which may look at its header
	if errors.Is(err, fill.ErrGone) {
		t.x.resume(t.ResponseWriter, t.entry, t.delivered)
		resumed = true
	}
	if rfc9111.HasTrailers(t.header) {
		// They are sent only after a chunked body, and net/http chunks a
		// short one only if it was flushed.
		_ = http.NewResponseController(t.ResponseWriter).Flush()
	}
	return resumed
}
