package caddygroupcache

import (
	"net"
	"net/http"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/delivery"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// follow serves a request from a flight that another request leads, or that is fed by
// the owner.
func (x *exchange) follow(f *node.Flight, body *node.Follower) step {
	e, err := x.AwaitHeader(x.r.Context(), f)
	if err != nil {
		return x.unanswered(err)
	}
	if x.h.node.Purger.PurgedSince(&x.Lookup, f, e) || !e.Matches(x.r.Header) || x.Excludes(e) {
		return stepLookUp // it is of before the purge, of another selection, or of a body with chunks that are gone
	}
	use := x.h.node.Reuse(&x.Lookup, e, time.Now())
	if use == rfc9111.Validate {
		x.Alone, x.StandInAfter, x.waited = true, 0, rfc9111.MustValidate
		return stepLookUp
	}
	status := statusCollapsed
	if e.Generation != 0 { // it was stored before: a remote hit
		if status = x.statusOf(e, use); use == rfc9111.StaleWhileRevalidate {
			x.refresh()
		}
		if e.Large() || e.Size <= node.PartSize && f.IsOver() {
			return x.deliverLanded(f, status)
		}
	}
	s := &storedResponse{entry: e, status: status, detail: detailPeer, now: time.Now()}
	if e.Failed {
		return s.fail(x)
	}
	var notModified bool
	if status == statusCollapsed {
		out := x.outcome()
		out.status, out.collapsed = status, true
		notModified = out.newHeader(x.w, x.r, e)
	} else {
		s.hitHeader(x)
		notModified = delivery.AnswerNotModified(x.w, x.r, e.Status)
	}
	if notModified {
		return stepDone
	}
	w, code := delivery.PartOf(x.w, x.r, e.Status, x.w.Header())
	w.WriteHeader(code)
	if x.r.Method == http.MethodHead {
		return stepDone
	}
	g := delivery.NewSent()
	if delivery.BrokeOff(delivery.CopyFill(x.r.Context(), w, body, g)) {
		x.resume(w, e, g)
	}
	return stepDone // complete, or the client is gone
}

// unanswered says what a request does that has followed a flight without a response.
func (x *exchange) unanswered(err error) step {
	switch why := node.ReasonOf(err); why {
	case rfc9111.None, rfc9111.LeaderLost, rfc9111.Memory, rfc9111.OnlyIfCached, rfc9111.NoVarySearch, rfc9111.Superseded, rfc9111.UpstreamFailed, rfc9111.Partial:
	case rfc9111.MustValidate: // what needs to be validated is known by now
		x.waited = why
	case rfc9111.FillTimeout: // it has waited for long enough
		x.Alone, x.waited = true, why
	default: // the upstream has answered, with what each request needs for itself
		x.Alone, x.StandInAfter = true, 0
	}
	return stepLookUp
}

// deliverLanded answers with a stored response that is being brought from the owner, as
// soon as all of it is here, of a large one the first chunk.
func (x *exchange) deliverLanded(f *node.Flight, status cacheStatus) step {
	select {
	case <-f.Over:
	case <-x.r.Context().Done():
		return stepDone
	}
	if f.Landed == nil {
		return stepLookUp
	}
	if x.oversized(f.Landed) {
		x.Bypass = rfc9111.PartsOnly
		return stepLookUp
	}
	return (&storedResponse{entry: f.Landed, body: f.Fill.Bytes(), status: status, detail: detailPeer, now: time.Now()}).deliver(x)
}

// validate answers with a response that is stored but needs the upstream's word for
// each request. Requests that the upstream can't tell apart share one.
func (x *exchange) validate() step {
	x.Alone, x.AskPrevious = true, true
	defer func() { x.AskPrevious = false }()
	if x.found.Entry.Volatile || hasCertificate(x.r) {
		return x.join(false)
	}
	x.keepOriginal()
	took := x.found.Entry.Fresh.Received.Sub(x.found.Entry.Sent)
	v, leads := x.h.node.Validations.Enter(x.r.Context(), &x.Lookup, senderOf(x.r), took)
	if !leads {
		x.Validated = v.Wait(x.r.Context(), x.FillTimeout)
		return stepLookUp // with the body that was confirmed, or alone
	}
	x.validation = v
	defer func() {
		v.End(x.confirmed())
		x.validation = nil
	}()
	return x.join(false)
}

// confirmed returns what requests that wait for this one's validation may use; 0: nothing,
// also if each client needs fields of its own.
func (x *exchange) confirmed() store.Generation {
	if x.failed || len(x.leftOut) > 0 {
		return 0
	}
	return x.Validated
}

// senderOf returns what the upstream can know of a request.
func senderOf(r *http.Request) *node.Sender {
	return &node.Sender{Host: r.Host, Target: requestURI(r), Proto: r.Proto, Address: remoteHost(r), Tls: r.TLS != nil, Header: r.Header}
}

// remoteHost returns the address of the client's end of a connection, without the port.
func remoteHost(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// hasCertificate reports whether a client has authenticated itself below HTTP.
func hasCertificate(r *http.Request) bool { return r.TLS != nil && len(r.TLS.PeerCertificates) > 0 }
