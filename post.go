package caddygroupcache

import (
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/front"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A postRecorder stores the response to a POST that says it is what a GET of the same
// target would give: it has explicit freshness, and the target as its
// Content-Location (RFC 9110 §9.3.3). No other request waits for it, so
// it needs no flight; it is handed over when it is complete.
type postRecorder struct {
	h         *Handler
	r         *http.Request // as it came
	templated []store.Key   // what its target has, if a template makes it
	sent      time.Time
	before    front.Fields // what other handlers had set

	key   store.Key
	entry *store.Entry
	body  *fill.Fill[*store.Entry] // nil: nothing to keep
}

func newPostRecorder(h *Handler, r *http.Request, w http.ResponseWriter) *postRecorder {
	return &postRecorder{h: h, r: r, sent: time.Now(), before: front.FieldsOf(w.Header())}
}

// wants looks at the header, and reports whether the body is to be kept. What
// was stored has been invalidated under the given ID by then.
func (k *postRecorder) wants(status int, header http.Header, id store.PurgeID) bool {
	own := k.before.Own(header)
	appends, ok := k.before.Edits(header)
	if status != http.StatusOK || !ok || len(own["Trailer"]) > 0 || len(k.r.Header["Authorization"]) > 0 || rfc9111.NamesFields(k.r.Header["Connection"]) {
		return false
	}
	location := http.Header{"Content-Location": own["Content-Location"]}
	if !slices.Contains(rfc9111.Related(k.r, requestURI(k.r), location), requestURI(k.r)) {
		return false
	}
	keys := k.templated
	if k.h.Key == "" {
		keys = ownKeysOf(k.h, k.r, requestURI(k.r))
	}
	if len(keys) != 1 || len(own["No-Vary-Search"]) > 0 { // it is of several queries
		return false
	}
	answer := k.h.exchangeOf(replacer(k.r), status, own)
	answer.Request, answer.Credentials, answer.Sent = k.r.Header, authenticated(k.r), k.sent
	policy, answer := k.h.policy.Explicit().Under(answer)
	fresh, _, why := policy.Judge(answer, k.h.MaxBodySize)
	if why != rfc9111.None || fresh.Heuristic || fresh.TTL(time.Now()) <= 0 {
		return false
	}
	e, why := policy.NewEntry(answer, fresh, k.r, requestURI(k.r))
	if why != rfc9111.None {
		return false
	}
	body := fill.New[*store.Entry](min(k.h.MaxBodySize, store.ChunkSize), store.ChunkSize, k.h.node.Budget)
	if n, ok := e.ContentLength(); ok && body.Expect(n) != nil {
		body.Release()
		return false
	}
	e.Appends = appends
	e.SetMadeBy(id)
	k.key, k.entry, k.body = keys[0], e, body
	return true
}

// Write takes some of the body. It never fails: what is too large is not kept.
func (k *postRecorder) Write(p []byte) (int, error) {
	if k.body != nil {
		if _, err := k.body.Write(p); err != nil {
			k.close()
		}
	}
	return len(p), nil
}

// store hands the response over to the owner, if all of it has come.
func (k *postRecorder) store() {
	if k.body == nil {
		return
	}
	if n, ok := k.entry.ContentLength(); ok && k.body.Size() != n {
		return
	}
	n, h := k.h.node, k.h
	body := k.body.NewReader()
	defer body.Close()
	k.body.Close(nil)
	q := node.Lookup{Namespace: h.space, Key: k.key, Header: k.r.Header, PeerTimeout: time.Duration(h.PeerTimeout)}
	n.StoreAtOwner(&q, k.entry, k.body.Bytes(), node.Outgoing{Follower: body})
}

// close lets go of what was kept.
func (k *postRecorder) close() {
	if k.body != nil {
		k.body.Release()
		k.body = nil
	}
}

var _ io.Writer = (*postRecorder)(nil)
