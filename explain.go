package caddygroupcache

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// An Explanation is what GET /groupcache/explain answers: what the cache knows
// of a URL, and what it would do with a request for it now.
type Explanation struct {
	// The node that answers, and whose requests it speaks of.
	Node string `json:"node"`

	// The request that it speaks of.
	Method string `json:"method"`
	URL    string `json:"url"`

	// One for each group of handlers, those that have it stored first. Which of
	// them a request passes is for the routes of the config to say.
	Groups []GroupExplanation `json:"groups"`
}

// A GroupExplanation is the decision of the handlers of one group.
type GroupExplanation struct {
	// The group's name.
	Group string `json:"group"`

	// What would become of the request: hit, stale, revalidate (fetched if the
	// upstream has another one by now), fetch, bypass, unavailable (an
	// only-if-cached that is not), or purge.
	Verdict string `json:"verdict"`

	// Of a hit, where the body comes from: local, hot or peer.
	Detail string `json:"detail,omitempty"`

	// Why it is no hit, and why the last response was not stored, by the name
	// that it has in Cache-Status and metrics.
	Reason string `json:"reason,omitempty"`

	// The field that is behind the reason, and what would change it.
	Cause  string `json:"cause,omitempty"`
	Change string `json:"change,omitempty"`

	// All of it in words.
	Words []string `json:"words"`

	// The cache key with its template filled in, its hash, and the node that
	// owns it. They are missing if no key can be made.
	Key   string `json:"key,omitempty"`
	Hash  string `json:"hash,omitempty"`
	Owner string `json:"owner,omitempty"`

	// What each node of the ring knows, this one first, then the owner.
	Nodes []NodeKnowledge `json:"nodes,omitempty"`

	// The latest purges that name this URL, the youngest first.
	Purges []PurgeKnowledge `json:"purges,omitempty"`
}

// NodeKnowledge is what one node knows of a key.
type NodeKnowledge struct {
	// The node's name, and whether it owns the key.
	Name  string `json:"name"`
	Owner bool   `json:"owner,omitempty"`

	// Why it could not be asked.
	Error string `json:"error,omitempty"`

	// The request fields that the newest response varies by.
	Vary []string `json:"vary,omitempty"`

	// The stored responses, the newest first.
	Variants []VariantKnowledge `json:"variants,omitempty"`

	// Nobody waits for a shared response, because such are not stored.
	Uncacheable *Uncacheable `json:"uncacheable,omitempty"`

	// The last response that was fetched here and not stored.
	NotStored *NotStored `json:"not_stored,omitempty"`

	// It is on its way right now.
	Fetching bool `json:"fetching,omitempty"`

	failure error
}

// VariantKnowledge is one stored response.
type VariantKnowledge struct {
	// Whether it would be chosen for the request.
	Matches bool `json:"matches,omitempty"`

	// What the rules say of using it for the request: fresh,
	// stale-while-revalidate or validate; and what in the request says so.
	Use    string `json:"use"`
	Reason string `json:"reason,omitempty"`

	// Status and size of the body in bytes.
	Status int   `json:"status"`
	Size   int64 `json:"size"`

	// Where the body is: main (this node owns the key), hot (its copy of what
	// another node owns), or nothing if it is not on this node.
	Body string `json:"body,omitempty"`

	// Seconds: how old it is, for how long it is still fresh (less than zero:
	// it is stale since then), and of how long in all. Guessed says that no
	// field and no option states the last.
	AgeSeconds      int64 `json:"age_seconds"`
	TTLSeconds      int64 `json:"ttl_seconds"`
	LifetimeSeconds int64 `json:"lifetime_seconds"`
	Guessed         bool  `json:"guessed,omitempty"`

	// Seconds after that in which it may be served stale.
	StaleWhileRevalidateSeconds int64 `json:"stale_while_revalidate_seconds,omitempty"`
	StaleIfErrorSeconds         int64 `json:"stale_if_error_seconds,omitempty"`

	// The upstream is asked each time whether it still holds, or it must not be
	// served stale, or it may answer requests with Authorization.
	NoCache        bool `json:"no_cache,omitempty"`
	MustRevalidate bool `json:"must_revalidate,omitempty"`
	SharedAuth     bool `json:"shared_auth,omitempty"`

	// What it is validated with.
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`

	// What it varies by, and what it can be purged by.
	Vary   []string `json:"vary,omitempty"`
	Tags   []string `json:"tags,omitempty"`
	Groups []string `json:"groups,omitempty"`
}

// Uncacheable is a note that responses of a URL are not stored.
type Uncacheable struct {
	Reason  string `json:"reason"`
	Seconds int64  `json:"seconds"` // how long it still counts
}

// NotStored is a response that was not stored.
type NotStored struct {
	Reason     string `json:"reason"`
	Status     int    `json:"status,omitempty"`
	Field      string `json:"field,omitempty"`
	Value      string `json:"value,omitempty"`
	SecondsAgo int64  `json:"seconds_ago"`
}

// PurgeKnowledge is a purge that names a URL.
type PurgeKnowledge struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"` // what it named: url, prefix, host, tag, all
	Value      string `json:"value,omitempty"`
	Soft       bool   `json:"soft,omitempty"`
	SecondsAgo int64  `json:"seconds_ago"`
}

// What becomes of a request, as an explanation names it.
const (
	verdictHit         = "hit"
	verdictStale       = "stale"
	verdictRevalidate  = "revalidate"
	verdictFetch       = "fetch"
	verdictBypass      = "bypass"
	verdictUnavailable = "unavailable"
	verdictPurge       = "purge"
)

var useNames = map[rfc9111.Use]string{
	rfc9111.Fresh: "fresh", rfc9111.StaleWhileRevalidate: "stale-while-revalidate", rfc9111.Validate: "validate",
}

const (
	// explainPatience is how long another node may take to say what it knows.
	explainPatience = time.Second
	// maxExplained bounds the nodes that are asked.
	maxExplained = 64
	// maxExplainedURL is more than what has a key.
	maxExplainedURL = 4 * maxTarget
	// maxPurgesTold bounds the purges that are told of.
	maxPurgesTold = 10
)

func (api *adminAPI) explain(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("explanations are read with GET, not %s", r.Method)}
	}
	p := currentProcess()
	if p == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errNoApp}
	}
	q := r.URL.Query()
	e, err := p.explain(r.Context(), cmp.Or(q.Get("method"), http.MethodGet), q.Get("url"), q.Get("group"), q["header"])
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(e)
}

var errNoApp = errors.New("the running config has no groupcache")

// explain explains what would become of a request, in one group or in all.
func (p *process) explain(ctx context.Context, method, address, group string, fields []string) (Explanation, error) {
	u, err := purgeURL(address, true, maxExplainedURL)
	if err != nil {
		return Explanation{}, fmt.Errorf("url %.200q: %w", address, err)
	}
	if !httpguts.ValidHeaderFieldName(method) { // both are tokens
		return Explanation{}, fmt.Errorf("method %.50q is none", method)
	}
	header, err := parseFields(fields)
	if err != nil {
		return Explanation{}, err
	}
	handlers := p.handlersOf(group)
	switch {
	case len(handlers) == 0 && group != "":
		return Explanation{}, fmt.Errorf("group %q: no handler of the running config has it", group)
	case len(handlers) == 0:
		return Explanation{}, errors.New("the running config has no groupcache handler: add the groupcache directive to a site")
	}
	e := Explanation{Node: p.node.name, Method: method, URL: u, Groups: []GroupExplanation{}}
	for _, h := range handlers {
		g, err := h.explain(ctx, method, u, header)
		if err != nil {
			return Explanation{}, err
		}
		e.Groups = append(e.Groups, g)
	}
	slices.SortFunc(e.Groups, func(a, b GroupExplanation) int {
		return cmp.Or(cmp.Compare(b.stored(), a.stored()), strings.Compare(a.Group, b.Group))
	})
	return e, nil
}

// parseFields reads header fields as a client would write them.
func parseFields(lines []string) (http.Header, error) {
	header := make(http.Header)
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !found || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("header %.100q: write it as Name: value", line)
		}
		header.Add(name, value)
	}
	return header, nil
}

// stored counts the nodes that have a response.
func (g GroupExplanation) stored() (n int) {
	for _, know := range g.Nodes {
		if len(know.Variants) > 0 {
			n++
		}
	}
	return n
}

// explain explains the decision of one handler. Nobody is served, nothing is
// fetched, and nothing stored changes.
func (h *Handler) explain(ctx context.Context, method, u string, header http.Header) (GroupExplanation, error) {
	r, err := requestFor(method, u, header.Clone())
	if err != nil {
		return GroupExplanation{}, err
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	r.TransferEncoding = r.Header["Transfer-Encoding"]
	r.ContentLength, _ = strconv.ParseInt(r.Header.Get("Content-Length"), 10, 64)

	g := GroupExplanation{Group: h.Group}
	q := new(question)
	why := h.question(q, r)
	if why != rfc9111.None { // it may be stored for others
		q = &question{space: h.space, header: r.Header, credentials: len(r.Header["Authorization"]) > 0}
	}
	var keyed bool
	if q.address, keyed = h.addressOf(r, fieldsOf(r.Header), requestURI(r)); keyed {
		owner, _ := h.node.ring.Load().Owner(q.key)
		g.Key, g.Hash, g.Owner = h.keyText(r, q.address), hex.EncodeToString(q.key[:]), owner.Name
		g.Nodes = h.node.survey(ctx, q, owner)
		g.Purges = h.node.purgesOf(q, urlOf(r), g.tags())
	}
	g.decide(h, r, q, why)
	g.Words = g.words(r.Method)
	return g, nil
}

// keyText is the cache key for people to read.
func (h *Handler) keyText(r *http.Request, a address) string {
	if h.Key != "" {
		return replacer(r).ReplaceAll(h.Key, "")
	}
	uri := requestURI(r)
	if h.Query != nil {
		uri = h.Query.normalize(uri)
	}
	if path, query, found := strings.Cut(uri, "?"); found && a.search != nil {
		uri = path + "?" + a.search.Normal(query)
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	text := scheme + "://" + r.Host + uri
	for _, name := range overriding {
		for _, value := range r.Header[name] {
			text += " " + name + ": " + value
		}
	}
	return text
}

func (g GroupExplanation) tags() (tags []string) {
	for _, know := range g.Nodes {
		for _, v := range know.Variants {
			tags = append(tags, v.Tags...)
		}
	}
	return tags
}

// survey asks all nodes of the ring what they know of a question's key.
func (n *node) survey(ctx context.Context, q *question, owner peer.Node) []NodeKnowledge {
	ctx, cancel := context.WithTimeoutCause(ctx, explainPatience, peer.ErrTimeout)
	defer cancel()
	query := inspection(q)
	others := n.others()
	slices.SortStableFunc(others, func(a, b peer.Node) int {
		switch {
		case a.Name == owner.Name:
			return -1
		case b.Name == owner.Name:
			return 1
		}
		return 0
	})
	others = others[:min(len(others), maxExplained)]
	all := make([]NodeKnowledge, 1+len(others))
	all[0] = n.inspect(q)
	var asked sync.WaitGroup
	for i, to := range others {
		asked.Go(func() {
			var know NodeKnowledge
			if err := n.client.Inspect(ctx, to, query, &know); err != nil {
				know = NodeKnowledge{failure: err, Error: err.Error()}
			}
			know.Name, know.Owner = to.Name, to.Name == owner.Name
			all[1+i] = know
		})
	}
	asked.Wait()
	return all
}

// inspection asks about a question's key with all fields of its request, as far
// as they fit.
func inspection(q *question) *peer.Query {
	var names []string
	for name := range q.header {
		switch {
		case len(names) == store.MaxVaryNames, name == "Authorization", name == "Cookie":
		case q.undirected && (name == "Cache-Control" || name == "Pragma"):
		default:
			names = append(names, name)
		}
	}
	query := q.query(names)
	query.Credentials = q.credentials
	return &query
}

// inspectFor is inspect for another node.
func (n *node) inspectFor(query *peer.Query) NodeKnowledge {
	q := &question{
		space: &store.Namespace{Name: query.Group}, address: address{key: query.Key}, header: query.Fields,
		directives: rfc9111.ParseRequest(query.Fields), credentials: query.Credentials,
	}
	return n.inspect(q)
}

func (n *node) inspect(q *question) NodeKnowledge {
	now := time.Now()
	_, self := n.ring.Load().Owner(q.key)
	know := NodeKnowledge{Name: n.name, Owner: self, Fetching: n.fills.has(q.key) || n.asks.has(q.key)}
	in := n.store.Inspect(q.key, q.header, now)
	know.Vary = in.Vary
	for _, v := range in.Variants {
		e, f := v.Entry, v.Entry.Fresh
		use, why := rfc9111.Decide(&q.directives, q.credentials, &f, now)
		etag, modified := rfc9111.Validators(e.Header())
		one := VariantKnowledge{
			Matches: v.Matches, Use: useNames[use], Reason: why.String(), Status: e.Status, Size: e.Size,
			AgeSeconds: seconds(f.Age(now)), TTLSeconds: seconds(f.TTL(now)), LifetimeSeconds: seconds(f.Lifetime), Guessed: f.Heuristic,
			StaleWhileRevalidateSeconds: seconds(f.StaleWhileRevalidate), StaleIfErrorSeconds: seconds(f.StaleIfError),
			NoCache: f.NoCache, MustRevalidate: f.MustRevalidate, SharedAuth: f.SharedAuth,
			ETag: etag, LastModified: modified, Vary: e.Vary(), Tags: e.Tags(), Groups: e.Groups(),
		}
		switch {
		case v.Here && self:
			one.Body = "main"
		case v.Here:
			one.Body = "hot"
		}
		know.Variants = append(know.Variants, one)
	}
	if in.Uncacheable != rfc9111.None {
		know.Uncacheable = &Uncacheable{Reason: in.Uncacheable.String(), Seconds: seconds(in.Until.Sub(now))}
	}
	if r, known := n.refusals.of(q.key); known {
		know.NotStored = &NotStored{Reason: r.why.String(), Status: r.status, Field: r.field, Value: r.value, SecondsAgo: seconds(now.Sub(r.at))}
	}
	return know
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// has reports whether a key is on its way.
func (t *flights) has(k store.Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.flights {
		if id.key == k {
			return true
		}
	}
	return false
}

// purgesOf returns the latest purges that this node remembers and that name a
// response.
func (n *node) purgesOf(q *question, u string, tags []string) []PurgeKnowledge {
	all, _ := n.purged.All()
	var told []PurgeKnowledge
	for _, p := range slices.Backward(all) {
		about := p.About(q.space.Name, q.key, u, tags)
		if len(about) == 0 {
			continue
		}
		s := about[0] // a URL comes before the keys that accompany it
		one := PurgeKnowledge{ID: purgeID(p.ID), Kind: s.Kind.String(), Value: s.Value, Soft: p.Soft, SecondsAgo: seconds(time.Since(p.At))}
		if s.Kind == store.OfKey {
			one.Value = hex.EncodeToString([]byte(s.Value))
		}
		if told = append(told, one); len(told) == maxPurgesTold {
			break
		}
	}
	return told
}

// purgeID names a purge in logs and answers.
func purgeID(id store.PurgeID) string { return fmt.Sprintf("%016x", uint64(id)) }

// decide follows Handler.ServeHTTP with what the nodes know.
func (g *GroupExplanation) decide(h *Handler, r *http.Request, q *question, why rfc9111.Reason) {
	switch {
	case h.Purge != nil && slices.Contains(h.Purge.Methods, r.Method):
		g.Verdict = verdictPurge
		return
	case why != rfc9111.None:
		g.Verdict = verdictBypass
		g.blame(why, r.Header)
		return
	case h.node.catcher.lag.Load():
		g.Verdict = verdictBypass
		g.blame(rfc9111.CatchingUp, nil)
		return
	}
	self := g.Nodes[0]
	if g.serves(self) {
		g.Detail = detailHot.(string)
		if self.Owner {
			g.Detail = detailLocal.(string)
		}
		return
	}
	known := []NodeKnowledge{self}
	if !self.Owner && len(g.Nodes) > 1 {
		owner := g.Nodes[1]
		if g.serves(owner) {
			g.Detail = detailPeer.(string)
			return
		}
		known = append(known, owner)
	}
	g.Verdict = verdictFetch
	if q.directives.OnlyIfCached {
		g.Verdict = verdictUnavailable
		g.blame(rfc9111.OnlyIfCached, r.Header)
		return
	}
	g.decideFetch(r, known)
}

// serves reports whether a node has what the request may get.
func (g *GroupExplanation) serves(know NodeKnowledge) bool {
	for _, v := range know.Variants {
		if !v.Matches || v.Body == "" || v.Reason == rfc9111.Authorization.String() {
			continue
		}
		switch v.Use {
		case useNames[rfc9111.Fresh]:
			g.Verdict = verdictHit
			return true
		case useNames[rfc9111.StaleWhileRevalidate]:
			g.Verdict = verdictStale
			return true
		}
	}
	return false
}

// decideFetch finds why there is no hit.
func (g *GroupExplanation) decideFetch(r *http.Request, known []NodeKnowledge) {
	others := int64(-1) // seconds since other variants were fetched; -1: there are none
	for _, know := range known {
		if know.failure != nil {
			g.blame(peerReason(know.failure), nil)
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
				g.Verdict = verdictRevalidate
			}
			g.blameNamed(v.Reason, r.Header)
			return
		}
	}
	if last := g.lastRefusal(); last != nil && (others < 0 || last.SecondsAgo <= others) {
		g.blameNamed(last.Reason, nil)
		if g.Cause = last.Field; last.Value != "" {
			g.Cause += ": " + last.Value
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

// lastRefusal is the latest that any node remembers.
func (g *GroupExplanation) lastRefusal() (last *NotStored) {
	for _, know := range g.Nodes {
		if s := know.NotStored; s != nil && (last == nil || s.SecondsAgo < last.SecondsAgo) {
			last = s
		}
	}
	return last
}

func (g *GroupExplanation) vary() []string {
	for _, know := range g.Nodes {
		if len(know.Vary) > 0 {
			return know.Vary
		}
	}
	return nil
}

// blame names a reason, and what of the request is behind it.
func (g *GroupExplanation) blame(why rfc9111.Reason, request http.Header) {
	field, value := rfc9111.Cause(why, 0, request, nil)
	if g.Cause = field; value != "" {
		g.Cause += ": " + value
	}
	g.Reason, g.Change = why.String(), reasonWords[why].change
}

func (g *GroupExplanation) blameNamed(name string, request http.Header) {
	for _, why := range rfc9111.Reasons() {
		if why.String() == name {
			g.blame(why, request)
		}
	}
}
