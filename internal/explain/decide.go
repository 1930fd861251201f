package explain

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// What becomes of a request, as an explanation names it.
const (
	Hit         = "hit"
	Stale       = "stale"
	Revalidate  = "revalidate"
	Fetch       = "fetch"
	Bypass      = "bypass"
	Unavailable = "unavailable"
	Purges      = "purge"
)

// Where the body of a hit comes from.
const (
	Local    = "local"
	HotCopy  = "hot"
	FromPeer = "peer"
)

// A Question asks what would become of a request.
type Question struct {
	Request *http.Request
	Group   string // of the handler that would serve it
	Purges  bool   // its method purges

	// What it asks of the cache, as the handler reads it. Bypass says why that is
	// nothing.
	Lookup *node.Lookup
	Bypass rfc9111.Reason

	// Whether there is a cache key; what it is made of, and the URL that purges name.
	Keyed    bool
	Key, URL string
}

// Decide returns the decision of one group's handlers, with what the nodes know.
func Decide(ctx context.Context, n *node.Node, q *Question) Group {
	g := Group{Group: q.Group}
	if q.Keyed {
		owner, _ := n.Ring.Load().Owner(q.Lookup.Key)
		g.Key, g.Hash, g.Owner = q.Key, hex.EncodeToString(q.Lookup.Key[:]), owner.Name
		g.Nodes = survey(ctx, n, q.Lookup, owner)
		g.Purges = purgesOf(n, q.Lookup, q.URL, g.tags())
	}
	g.decide(n, q)
	g.Words = g.words(q.Request.Method)
	return g
}

// decide follows Handler.ServeHTTP with what the nodes know.
func (g *Group) decide(n *node.Node, q *Question) {
	r := q.Request
	switch {
	case q.Purges:
		g.Verdict = Purges
		return
	case q.Bypass != rfc9111.None:
		g.Verdict = Bypass
		g.blame(q.Bypass, r.Header)
		return
	case n.Purger.Sync.Lag.Load():
		g.Verdict = Bypass
		g.blame(rfc9111.CatchingUp, nil)
		return
	}
	self := g.Nodes[0]
	if g.serves(self) {
		g.Detail = HotCopy
		if self.Owner {
			g.Detail = Local
		}
		return
	}
	known := []Knowledge{self}
	if !self.Owner && len(g.Nodes) > 1 {
		owner := g.Nodes[1]
		if g.serves(owner) {
			g.Detail = FromPeer
			return
		}
		known = append(known, owner)
	}
	g.Verdict = Fetch
	if q.Lookup.Directives.OnlyIfCached {
		g.Verdict = Unavailable
		g.blame(rfc9111.OnlyIfCached, r.Header)
		return
	}
	g.decideFetch(r, known)
}

// serves reports whether a node has what the request may get.
func (g *Group) serves(know Knowledge) bool {
	for _, v := range know.Variants {
		if !v.Matches || v.Body == "" || v.Reason == rfc9111.Authorization.String() {
			continue
		}
		switch v.Use {
		case rfc9111.Fresh.String():
			g.Verdict = Hit
			return true
		case rfc9111.StaleWhileRevalidate.String():
			g.Verdict = Stale
			return true
		}
	}
	return false
}

// decideFetch finds why there is no hit.
func (g *Group) decideFetch(r *http.Request, known []Knowledge) {
	others := int64(-1) // seconds since other variants were fetched; -1: there are none
	for _, know := range known {
		if know.failure != nil {
			g.blame(node.PeerReason(know.failure), nil)
			g.Cause = know.Error
			return
		}
		for _, v := range know.Variants {
			if others < 0 || v.AgeSeconds < others {
				others = v.AgeSeconds
			}
			if !v.Matches {
				continue
			}
			if (v.ETag != "" || v.LastModified != "") && r.Method == http.MethodGet {
				g.Verdict = Revalidate
			}
			g.blameVariant(&v, r.Header)
			return
		}
	}
	if last := g.lastRefusal(); last != nil && (others < 0 || last.SecondsAgo <= others) {
		g.blameNamed(last.Reason, nil)
		if g.Cause = last.Field; last.Value != "" {
			g.Cause += ": " + last.Value
		}
		if last.Reason == rfc9111.NoFreshness.String() && last.Status != 0 && !rfc9111.HeuristicallyCacheable(last.Status) {
			g.Change = fmt.Sprintf("let the upstream send Cache-Control with max-age or s-maxage, or set a ttl that names the status, as in ttl 10m %d: one without a status is not for such", last.Status)
		}
		return
	}
	for _, know := range known {
		if know.Uncacheable != nil {
			g.blameNamed(know.Uncacheable.Reason, nil)
			return
		}
	}
	switch {
	case others >= 0:
		g.blame(rfc9111.VaryMismatch, nil)
		g.Cause = "Vary: " + strings.Join(g.vary(), ", ")
	case r.Method == http.MethodHead:
		g.blame(rfc9111.Method, nil)
	}
}

// staleReason is what Cache-Status calls a fetch of what is stored and stale (RFC 9211 §2.2).
const staleReason = "stale"

// blameVariant names why a stored response that the request matches does not answer it.
func (g *Group) blameVariant(v *Variant, request http.Header) {
	switch {
	case v.Body == "" && v.Use != rfc9111.Validate.String():
		return // it is somewhere else, or had to make room
	case v.Reason != "":
		g.blameNamed(v.Reason, request)
	case v.NoCache, v.LifetimeSeconds == 0:
		g.blame(rfc9111.MustValidate, nil)
	default:
		g.Reason, g.Cause = staleReason, "for "+secondsWords(-v.TTLSeconds)
		g.Change = "a longer lifetime, or stale-while-revalidate in the response's Cache-Control, or stale while_revalidate"
		if v.StaleForbiddenBy != "" {
			g.Cause += ", and " + v.StaleForbiddenBy + " forbids to serve it so"
		}
	}
}

// lastRefusal is the latest that any node remembers.
func (g *Group) lastRefusal() (last *NotStored) {
	for _, know := range g.Nodes {
		if s := know.NotStored; s != nil && (last == nil || s.SecondsAgo < last.SecondsAgo) {
			last = s
		}
	}
	return last
}

func (g *Group) vary() []string {
	for _, know := range g.Nodes {
		if len(know.Vary) > 0 {
			return know.Vary
		}
	}
	return nil
}

// blame names a reason, and what of the request is behind it.
func (g *Group) blame(why rfc9111.Reason, request http.Header) {
	field, value := rfc9111.Cause(why, request, nil, nil)
	if g.Cause = field; value != "" {
		g.Cause += ": " + value
	}
	g.Reason, g.Change = why.String(), reasonWords[why].change
}

func (g *Group) blameNamed(name string, request http.Header) {
	for _, why := range rfc9111.Reasons() {
		if why.String() == name {
			g.blame(why, request)
		}
	}
}
