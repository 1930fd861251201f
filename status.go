package caddygroupcache

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A cacheStatus is what became of a request: the placeholder
// {http.groupcache.status} and the status label.
type cacheStatus uint8

const (
	statusHit cacheStatus = iota
	statusStale
	statusRevalidated
	statusMiss
	statusCollapsed
	statusBypass
	statusCount
)

// Names are of type any so that setting a placeholder allocates nothing.
var statusNames = [statusCount]any{"hit", "stale", "revalidated", "miss", "collapsed", "bypass"}

// Where the body of a hit came from.
var (
	detailLocal any = "local"
	detailHot   any = "hot"
	detailPeer  any = "peer"
)

// An outcome becomes the Cache-Status member of a response (RFC 9211), its
// placeholders and its count.
type outcome struct {
	h         *Handler
	r         *http.Request
	repl      *caddy.Replacer
	fwd       string // why the request went to the upstream
	fwdStatus int
	stored    bool
	collapsed bool
	status    cacheStatus
	detail    string

	background bool // no request is to be answered
}

// outcomeOf begins the outcome of a request that goes to the upstream.
func (h *Handler) outcomeOf(r *http.Request, found *finding) *outcome {
	o := &outcome{h: h, r: r, repl: replacer(r), status: statusMiss}
	switch {
	case found.entry != nil && found.why != rfc9111.None:
		o.fwd, o.detail = "request", found.why.String()
	case found.entry != nil && found.use != rfc9111.Fresh:
		o.fwd = "stale"
	case found.entry == nil && found.known:
		o.fwd = "vary-miss"
	default:
		o.fwd = "uri-miss"
	}
	if found.uncacheable != rfc9111.None {
		o.detail = rfc9111.HitForMiss.String()
	}
	return o
}

// write adds the outcome to a response's header, after what caches nearer to
// the origin said.
func (o *outcome) write(header http.Header) {
	if o.background {
		return
	}
	o.h.counters.requests[o.status].Add(1)
	o.h.logDecision(o.r, o.status, o.fwd, o.detail, o.stored)
	// A handler of ours nearer to the origin has left a Cache-Status.
	setPlaceholders(o.repl, statusNames[o.status], o.detail, len(header["Cache-Status"]) > 0 || o.h.node.unnamed.Load())
	if o.h.cacheName == "" {
		return
	}
	b := make([]byte, 0, 96)
	b = append(b, o.h.cacheName...)
	b = append(b, "; fwd="...)
	b = append(b, o.fwd...)
	if o.fwdStatus != 0 {
		b = append(b, "; fwd-status="...)
		b = strconv.AppendInt(b, int64(o.fwdStatus), 10)
	}
	if o.stored {
		b = append(b, "; stored"...)
	}
	if o.collapsed {
		b = append(b, "; collapsed"...)
	}
	if o.detail != "" {
		b = append(b, "; detail="...)
		b = append(b, o.detail...)
	}
	header["Cache-Status"] = append(header["Cache-Status"], string(b))
}

// writeUnanswered is write for handlers that came back without having written anything:
// with an error, of which Caddy makes a response, or without, which is an empty 200.
func (o *outcome) writeUnanswered(header http.Header, err error) {
	if err != nil && o.detail == "" {
		o.detail = rfc9111.Aborted.String()
	}
	o.write(header)
}

// named takes in the name that the cache has in Cache-Status.
func (h *Handler) named() {
	h.hitLines = new(hitLines)
	if h.cacheName = h.CacheStatus; h.cacheName == cacheStatusOff {
		h.cacheName = ""
		h.node.unnamed.Store(true)
	}
}

// hitLines are what was said last in the Age and the Cache-Status of responses from the
// cache, because it is the same for a second at least, and of all that was stored together.
type hitLines [64]atomic.Pointer[hitLine]

type hitLine struct {
	age, ttl int64 // seconds
	status   cacheStatus
	detail   string
	text     string // Age and the member of Cache-Status, in one piece
	digits   int    // of Age
}

// hitFields returns the Age of a response from the cache and its member of
// Cache-Status.
func (h *Handler) hitFields(e *store.Entry, status cacheStatus, detail string, now time.Time) (age, member string) {
	a, ttl := int64(e.Fresh.Age(now)/time.Second), int64(e.Fresh.TTL(now)/time.Second)
	slot := &h.hitLines[uint64(a+ttl*31)%uint64(len(h.hitLines))]
	line := slot.Load()
	if line == nil || line.age != a || line.ttl != ttl || line.status != status || line.detail != detail {
		line = &hitLine{age: a, ttl: ttl, status: status, detail: detail}
		line.write(h.cacheName)
		slot.Store(line)
	}
	return line.text[:line.digits], line.text[line.digits:]
}

func (l *hitLine) write(cacheName string) {
	b := strconv.AppendInt(make([]byte, 0, 128), l.age, 10)
	l.digits = len(b)
	b = append(b, cacheName...)
	if l.status == statusRevalidated {
		b = append(b, "; fwd=stale; fwd-status=304"...)
	} else {
		b = append(b, "; hit; ttl="...)
		b = strconv.AppendInt(b, l.ttl, 10)
		b = append(b, "; detail="...)
		b = append(b, l.detail...)
	}
	l.text = string(b)
}

const (
	placeholderStatus = "http.groupcache.status"
	placeholderDetail = "http.groupcache.detail"
)

// setPlaceholders sets the placeholders. The map that Replacer.Set writes to has
// room for just those of reverse_proxy; two more would have it copied into one of
// twice the size, with each response that is fetched. If another handler of ours may
// have set them, and only then, it has to look.
func setPlaceholders(repl *caddy.Replacer, status, detail any, look bool) {
	if look {
		if _, set := repl.Get(placeholderStatus); set {
			repl.Set(placeholderStatus, status)
			repl.Set(placeholderDetail, detail)
			return
		}
	}
	repl.Map(func(name string) (any, bool) {
		switch name {
		case placeholderStatus:
			return status, true
		case placeholderDetail:
			return detail, true
		}
		return nil, false
	})
}

func replacer(r *http.Request) *caddy.Replacer {
	return r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}
