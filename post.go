package caddygroupcache

import (
	"context"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A keeper stores the response to a POST that says it is what a GET of the same
// target would give: it has explicit freshness, and the target as its
// Content-Location (RFC 9110 §9.3.3). Nobody else waits for such a response, so
// it needs no flight; it is handed over when it is complete.
type keeper struct {
	h         *Handler
	r         *http.Request // as it came
	templated []store.Key   // what its target has, if a template makes it
	sent      time.Time
	before    []lines // what other handlers had set

	key   store.Key
	entry *store.Entry
	body  *fill.Fill[*store.Entry] // nil: nothing to keep
}

func newKeeper(h *Handler, r *http.Request, w http.ResponseWriter) *keeper {
	return &keeper{h: h, r: r, sent: time.Now(), before: linesOf(w.Header())}
}

// wants looks at the header, and reports whether the body is to be kept. What
// was stored has been invalidated under the given ID by then.
func (k *keeper) wants(status int, header http.Header, id store.PurgeID) bool {
	own := ownFields(header, k.before)
	if status != http.StatusOK || len(own["Trailer"]) > 0 || len(k.r.Header["Authorization"]) > 0 || rfc9111.NamesFields(k.r.Header["Connection"]) {
		return false
	}
	location := http.Header{"Content-Location": own["Content-Location"]}
	if !slices.Contains(rfc9111.Related(k.r, location), requestURI(k.r)) {
		return false
	}
	keys := k.templated
	if k.h.Key == "" {
		keys = k.h.keysOf(k.r, requestURI(k.r))
	}
	if len(keys) != 1 || len(own["No-Vary-Search"]) > 0 { // it is of several queries
		return false
	}
	policy := k.h.policy
	policy.TTL = nil // it takes explicit freshness
	fresh, why := rfc9111.Storable(rfc9111.Exchange{
		Method: http.MethodGet, Request: k.r.Header,
		Status: status, Response: own, Sent: k.sent, Received: time.Now(),
	}, policy)
	if why != rfc9111.None || fresh.Heuristic || fresh.TTL(time.Now()) <= 0 {
		return false
	}
	e, why := k.h.newEntry(k.r, status, own, fresh, k.sent)
	if why != rfc9111.None {
		return false
	}
	body := fill.New[*store.Entry](min(k.h.MaxBodySize, store.ChunkSize), store.ChunkSize, k.h.node.budget)
	if n, ok := contentLength(e); ok && body.Expect(n) != nil {
		body.Release()
		return false
	}
	e.SetMadeBy(id)
	k.key, k.entry, k.body = keys[0], e, body
	return true
}

// Write takes some of the body. It never fails: what is too large is not kept.
func (k *keeper) Write(p []byte) (int, error) {
	if k.body != nil {
		if _, err := k.body.Write(p); err != nil {
			k.close()
		}
	}
	return len(p), nil
}

// store hands the response over to the owner, if all of it has come.
func (k *keeper) store() {
	if k.body == nil {
		return
	}
	if n, ok := contentLength(k.entry); ok && k.body.Size() != n {
		return
	}
	n, h := k.h.node, k.h
	owner, self := n.ring.Load().Owner(k.key)
	if self {
		n.store.Commit(h.space, k.key, k.entry, k.body.Bytes())
		return
	}
	body := k.body.NewReader()
	defer body.Close()
	k.body.Close(nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(h.PeerTimeout))
	defer cancel()
	start := time.Now()
	_, err := n.client.Publish(ctx, owner, peer.NewQuery(h.space.Name, k.key, k.r.Header, k.entry.Vary()), peer.Ticket{}, k.entry, outgoing{body, nil})
	observePeer(operationPublish, err, time.Since(start))
}

// close lets go of what was kept.
func (k *keeper) close() {
	if k.body != nil {
		k.body.Release()
		k.body = nil
	}
}

var _ io.Writer = (*keeper)(nil)
