package caddygroupcache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// What is stored is of no longer target, and of no longer host: names in the DNS
// have half of that.
const (
	maxTarget = 16 << 10
	maxHost   = 512
)

// An address is where the responses to a request are stored.
type address struct {
	key store.Key
	// Which queries of the URL's path are equivalent, as its responses say;
	// nil: none.
	search *rfc9111.SearchVariance
}

// addressOf returns the address that a request has, or would have for another
// target. It is false if there is none.
func (h *Handler) addressOf(r *http.Request, fields fieldSet, uri string) (a address, ok bool) {
	if len(r.Host) > maxHost || len(uri) > maxTarget {
		return address{}, false
	}
	if h.Key != "" {
		return h.templateAddress(r)
	}
	if h.Query != nil {
		uri = h.Query.normalize(uri)
	}
	if r.Host == "" && r.ProtoAtLeast(1, 1) {
		return address{}, false
	}
	// Most are no longer. What a hit takes of the stack fits in what net/http and
	// Caddy leave of it; after each garbage collection it would have to grow.
	var buf [192]byte
	b := h.appendOrigin(buf[:0], r, fields)
	if h.node.store.KnowsSearchVariances() {
		if a, ok = h.searchAddress(b, uri); ok {
			return a, true
		}
	}
	a.key = sha256.Sum256(part(b, uri))
	return a, true
}

// templateAddress returns the address that the key template makes.
func (h *Handler) templateAddress(r *http.Request) (a address, ok bool) {
	b := part(part(nil, h.Group), h.Key)
	b = part(b, replacer(r).ReplaceAll(h.Key, ""))
	return address{key: sha256.Sum256(b)}, len(b) <= maxTarget
}

// searchAddress returns the address of a URL of which it is known which queries
// are equivalent.
func (h *Handler) searchAddress(origin []byte, uri string) (a address, ok bool) {
	path, query, _ := strings.Cut(uri, "?")
	if a.search = h.node.store.SearchVariance(sha256.Sum256(part(origin, path))); a.search == nil {
		return a, false
	}
	b := part(part(origin, path), a.search.String())
	a.key = sha256.Sum256(part(b, a.search.Normal(query)))
	return a, true
}

// appendOrigin appends the part of a default key that stands before the path.
func (h *Handler) appendOrigin(b []byte, r *http.Request, fields fieldSet) []byte {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if fields.has(overridingFields) {
		scheme += overrides(r.Header)
	}
	b = part(part(b, h.Group), "")
	return part(part(b, scheme), r.Host)
}

// overriding are the fields that make many upstreams take a request for one with
// another scheme, host, path or method, whatever its Vary says. They belong to
// the default key, or one client could choose what others get. Proxies in front
// of Caddy set some of them, always alike; that costs nothing.
var overriding = []string{
	"Forwarded", "Front-End-Https",
	"X-Forwarded-Host", "X-Forwarded-Path", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Proto",
	"X-Forwarded-Protocol", "X-Forwarded-Scheme", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Uri",
	"X-Host", "X-Http-Host-Override", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
	"X-Original-Host", "X-Original-Uri", "X-Original-Url", "X-Rewrite-Uri", "X-Rewrite-Url",
	"X-Scheme", "X-Script-Name", "X-Url-Scheme",
}

// overrides returns the overriding fields of a request as one string.
func overrides(header http.Header) string {
	var b []byte
	for _, name := range overriding {
		for _, value := range header[name] {
			if name == "Forwarded" {
				value = withoutAddresses(value)
			}
			b = part(part(b, name), value)
		}
	}
	return string(b)
}

// withoutAddresses leaves out of a Forwarded field who the client is and which
// proxies it came by (RFC 7239 §5): that is another one for each client, and says
// nothing of scheme or host.
func withoutAddresses(forwarded string) string {
	var left []string
	for pair := range strings.FieldsFuncSeq(forwarded, func(c rune) bool { return c == ',' || c == ';' }) {
		name, node, ok := strings.Cut(strings.ToLower(strings.Trim(pair, " \t")), "=")
		if ok && (name == "for" || name == "by") && strings.Trim(node, `abcdefghijklmnopqrstuvwxyz0123456789._:-[]"`) == "" {
			continue
		}
		left = append(left, pair)
	}
	return strings.Join(left, ";")
}

// urlOf returns the URL by which the response to a request is purged.
func urlOf(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return store.URLOf(scheme, r.Host, requestURI(r))
}

// pathOf returns the key that stands for all queries of a request's path: that
// of the URL without a query.
func (h *Handler) pathOf(r *http.Request) store.Key {
	path, _, _ := strings.Cut(requestURI(r), "?")
	return sha256.Sum256(part(h.appendOrigin(nil, r, fieldsOf(r.Header)), path))
}

// keysOf returns the keys under which responses to a target can be stored.
func (h *Handler) keysOf(r *http.Request, uri string) []store.Key {
	a, ok := h.addressOf(r, fieldsOf(r.Header), uri)
	if !ok {
		return nil
	}
	if a.search == nil {
		return []store.Key{a.key}
	}
	// The response that told of the variance was asked for without it.
	if h.Query != nil {
		uri = h.Query.normalize(uri)
	}
	return []store.Key{a.key, sha256.Sum256(part(h.appendOrigin(nil, r, fieldsOf(r.Header)), uri))}
}

// learn takes in what the header of a storable response says about queries. The
// response cannot be stored if the key was made of what other parameters say.
func (x *fetch) learn(own http.Header) rfc9111.Reason {
	if x.h.Key != "" {
		return rfc9111.None
	}
	said := rfc9111.ParseSearchVariance(own)
	if said.String() == x.q.search.String() {
		return rfc9111.None
	}
	x.h.node.store.LearnSearchVariance(x.q.space, x.h.pathOf(x.r), said)
	if x.q.search != nil {
		return rfc9111.NoVarySearch
	}
	x.lesson = own["No-Vary-Search"]
	return rfc9111.None
}

// sameSearch reports whether an updated header still says of queries what its
// key was made of.
func (x *fetch) sameSearch(fields http.Header) bool {
	return x.q.search == nil || rfc9111.ParseSearchVariance(fields).String() == x.q.search.String()
}

// teach tells all nodes what was learned from a stored response, and stores it
// under the key that equivalent requests will have from now on.
func (x *fetch) teach(e *store.Entry, body *follower) {
	n, h := x.h.node, x.h
	var all sync.WaitGroup
	all.Go(func() {
		query := peer.NewQuery(x.q.space.Name, h.pathOf(x.r), http.Header{"No-Vary-Search": x.lesson}, []string{"No-Vary-Search"})
		n.tellOthers(operationLearn, x.q.patience, func(ctx context.Context, to peer.Node) error {
			return n.client.Learn(ctx, to, query)
		})
	})
	all.Go(func() {
		a, ok := h.addressOf(x.r, fieldsOf(x.r.Header), requestURI(x.r))
		if !ok || a.search == nil { // it has been forgotten again
			return
		}
		if x.flight.generation != 0 {
			return // of a large body there is one copy
		}
		owner, self := n.ring.Load().Owner(a.key)
		if self {
			n.store.Commit(x.q.space, a.key, e, x.flight.fill.Bytes())
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), x.q.patience)
		defer cancel()
		start := time.Now()
		_, err := n.client.Publish(ctx, owner, peer.NewQuery(x.q.space.Name, a.key, x.q.header, e.Vary()), peer.Ticket{}, e, outgoing{body, x.flight})
		observePeer(operationPublish, err, time.Since(start))
	})
	all.Wait()
}

// Learn takes in what another node has learned of the queries of a path.
func (n *node) Learn(q *peer.Query) {
	if space := n.store.NamespaceOfPeer(q.Group); space != nil {
		n.store.LearnSearchVariance(space, q.Key, rfc9111.ParseSearchVariance(q.Fields))
	}
}

// part appends s with its length, so that no two lists of parts look alike.
func part(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// requestURI returns the request target as the client sent it, before any
// rewrite. Of one with scheme and host (RFC 9112 §3.2.2) these are left out: the
// host is the request's anyhow.
func requestURI(r *http.Request) string {
	uri := r.RequestURI
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		uri = original.RequestURI
	}
	if strings.HasPrefix(uri, "/") {
		return uri
	}
	scheme, rest, absolute := strings.Cut(uri, "://")
	if !absolute || strings.Contains(scheme, ":") { // a:b://c/d has no host, and goes upstream as b://c/d
		return uri
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 && rest[i] == '/' {
		return rest[i:]
	} else if i >= 0 {
		return "/" + rest[i:]
	}
	return "/"
}

// normalize drops and sorts parameters of the query, and leaves what remains
// byte for byte.
func (q *Query) normalize(uri string) string {
	path, query, ok := strings.Cut(uri, "?")
	if !ok {
		return uri
	}
	params := strings.Split(query, "&")
	params = slices.DeleteFunc(params, q.drops)
	if q.Sort {
		slices.Sort(params)
	}
	if len(params) == 0 {
		return path
	}
	return path + "?" + strings.Join(params, "&")
}

// drops reports whether a parameter makes no difference. It does wherever the
// upstream may read another name than we do: in what can't be decoded, where a
// semicolon begins another parameter for some (CVE-2021-23336), and, since only
// makes little of much, in names that some servers change: white space, dots,
// brackets, letters of the other case.
func (q *Query) drops(param string) bool {
	name, _, _ := strings.Cut(param, "=")
	name, err := url.QueryUnescape(name)
	if err != nil || strings.Contains(param, ";") {
		return false
	}
	if len(q.Only) == 0 {
		return slices.ContainsFunc(q.Ignore, func(pattern string) bool { return matchName(pattern, name) })
	}
	if strings.ContainsFunc(name, func(c rune) bool { return c != '_' && c != '-' && !isAlphanumeric(c) }) {
		return false
	}
	return !slices.ContainsFunc(q.Only, func(pattern string) bool {
		return matchName(strings.ToLower(pattern), strings.ToLower(name))
	})
}

func isAlphanumeric(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func matchName(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
