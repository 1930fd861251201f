package caddygroupcache

import (
	"encoding/hex"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/cachestatus"
	"github.com/caddy-groupcache/caddy-groupcache/internal/explain"
	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
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
	detailLocal any = explain.Local
	detailHot   any = explain.HotCopy
	detailPeer  any = explain.FromPeer
	detailSlow  any = "slow" // wherever it came from
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

// write adds the outcome to a response's header, after what caches nearer to
// the origin said.
func (o *outcome) write(header http.Header) {
	if o.background {
		return
	}
	o.h.counters.requests[o.status].Add(1)
	if i := slices.Index(forwardNames[:], o.fwd); i >= 0 {
		o.h.counters.forwarded[i].Add(1)
	}
	o.h.logDecision(o.r, o.status, o.fwd, o.detail, o.stored)
	// A handler of ours nearer to the origin has left a Cache-Status.
	setPlaceholders(o.repl, statusNames[o.status], o.detail, len(header["Cache-Status"]) > 0 || o.h.unnamed.Load())
	if o.h.cacheName == "" {
		return
	}
	member := cachestatus.Fetched{
		Cache: o.h.cacheName, Fwd: o.fwd, FwdStatus: o.fwdStatus, Stored: o.stored, Collapsed: o.collapsed, Detail: o.detail,
	}
	header["Cache-Status"] = append(header["Cache-Status"], member.String())
}

// writeUnanswered is write for handlers that came back without having written anything:
// with an error, of which Caddy makes a response, or without, which is an empty 200.
func (o *outcome) writeUnanswered(header http.Header, err error) {
	if err != nil && o.detail == "" {
		o.detail = rfc9111.Aborted.String()
	}
	o.write(header)
}

// named takes in the names that the cache has in Cache-Status and in CDN-Loop.
func (h *Handler) named() {
	h.loopMember = rfc9111.LoopMember(h.node.Loops.Self, h.Group)
	h.hits = new(cachestatus.Hits)
	if h.cacheName = h.CacheStatus; h.cacheName == cacheStatusOff {
		h.cacheName = ""
		h.unnamed.Store(true)
	}
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

// logDecision logs at debug what became of a request.
func (h *Handler) logDecision(r *http.Request, status cacheStatus, fwd, detail string, stored bool) {
	if !h.logger.Core().Enabled(zap.DebugLevel) {
		return
	}
	h.writeDecision(r, status, fwd, detail, stored)
}

// writeDecision is apart because zap takes much of the stack even for a line that
// is not written.
func (h *Handler) writeDecision(r *http.Request, status cacheStatus, fwd, detail string, stored bool) {
	line := h.logger.Check(zap.DebugLevel, "decided")
	if line == nil {
		return
	}
	fields := []zap.Field{
		zap.String("group", h.Group), zap.String("method", r.Method), zap.String("url", urlOf(r)),
		zap.Any("status", statusNames[status]), zap.String("fwd", fwd), zap.String("detail", detail), zap.Bool("stored", stored),
	}
	if a, ok := h.addressOf(r, inbound.FieldsOf(r.Header), requestURI(r)); ok {
		fields = append(fields, zap.String("key", hex.EncodeToString(a.Key[:])))
	}
	line.Write(fields...)
}

// forwardNames say why a request that takes part in the cache goes to the upstream, as
// Cache-Status does (RFC 9211 §2.2).
var forwardNames = [4]string{"uri-miss", "vary-miss", "stale", "request"}
