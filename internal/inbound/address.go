package inbound

import (
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// An Address is where the responses to a request are stored.
type Address struct {
	Key store.Key
	// Which queries of the URL's path are equivalent, as its responses say;
	// nil: none.
	Search *rfc9111.SearchVariance
	// Something of the request's URL is not in the key: an error may be due to it.
	Unkeyed bool
}

// Addressing makes the cache keys that one handler has for a request.
type Addressing struct {
	Group  string
	Terms  string       // the handler's settings that are part of the key
	Around []byte       // what of the routes around is part of the key; nil: nothing
	Query  *Query       // nil: all of the query belongs to the key
	Store  *store.Store // knows of which paths queries are equivalent

	Template string // of the key, as it is written; "": the key is the default one
	Filled   string // the template, filled in for the request
}

// Of returns the address that a request has, or would have for another target. It is
// false if there is none.
func (s *Addressing) Of(r *http.Request, fields Fields, uri string) (a Address, ok bool) {
	if len(r.Host) > MaxHost || len(uri) > MaxTarget {
		return Address{}, false
	}
	if s.Template != "" {
		return s.ofTemplate(r, uri)
	}
	if s.Query != nil {
		normal := s.Query.Normalize(uri)
		a.Unkeyed = len(normal) < len(uri) // sorting drops nothing
		uri = normal
	}
	var overriding []string
	if fields.Has(OverridingFields) {
		overriding = Overriding(r.Header)
	}
	if r.Host == "" && r.ProtoAtLeast(1, 1) || len(overriding) > maxOverriding {
		return Address{}, false
	}
	// Most are no longer. What a hit takes of the stack fits in what net/http and
	// Caddy leave of it; after each garbage collection it would have to grow.
	var buf [192]byte
	b := s.appendOrigin(buf[:0], r, overriding)
	if r.Method != rfc9111.MethodQuery && s.Store.KnowsSearchVariances() {
		if found, ok := s.searched(b, uri); ok {
			found.Unkeyed = found.Unkeyed || a.Unkeyed
			return found, true
		}
	}
	a.Key = sha256.Sum256(store.AppendPart(b, uri))
	return a, true
}

// ofTemplate returns the address under the key template.
func (s *Addressing) ofTemplate(r *http.Request, uri string) (a Address, ok bool) {
	b := store.AppendPart(store.AppendPart(nil, s.Group), s.Template)
	b = store.AppendPart(b, s.Filled)
	if s.Terms != "" {
		b = store.AppendPart(b, s.Terms)
	}
	b = append(b, s.Around...)
	return Address{Key: sha256.Sum256(b), Unkeyed: lacksQuery(s.Filled, r, uri)}, len(b) <= MaxTarget
}

// lacksQuery reports whether a template that is filled in for a request may be without its
// query. What the template has of host and path is no query, though it may look like one.
func lacksQuery(filled string, r *http.Request, uri string) bool {
	path, query, _ := strings.Cut(uri, "?")
	for _, part := range []string{path, r.URL.Path, r.Host} {
		if len(part) > 1 && query != "" {
			filled = strings.ReplaceAll(filled, part, "\n")
		}
	}
	return !strings.Contains(filled, query)
}

// searched returns the address of a URL of which it is known which queries are
// equivalent.
func (s *Addressing) searched(origin []byte, uri string) (a Address, ok bool) {
	path, query, _ := strings.Cut(uri, "?")
	if a.Search = s.Store.SearchVariance(sha256.Sum256(store.AppendPart(origin, path))); a.Search == nil {
		return a, false
	}
	a.Unkeyed = !a.Search.Keeps(query)
	b := store.AppendPart(store.AppendPart(origin, path), a.Search.String())
	if rfc9111.ManyParameters(query) {
		b = store.AppendPart(store.AppendPart(b, ""), query) // as it came, and like no normal one
	} else {
		b = store.AppendPart(b, a.Search.Normal(query))
	}
	a.Key = sha256.Sum256(b)
	return a, true
}

// appendOrigin appends the part of a default key that stands before the path. It is given
// the names of the overriding fields of the request.
func (s *Addressing) appendOrigin(b []byte, r *http.Request, overriding []string) []byte {
	scheme := schemeOf(r) + overridingKey(r.Header, overriding)
	b = store.AppendPart(store.AppendPart(b, s.Group), s.Terms)
	b = append(b, s.Around...)
	return store.AppendPart(store.AppendPart(b, scheme), r.Host) // as it came: an upstream may answer with it
}

func schemeOf(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// plain returns the default key of a request for a target, whatever is known of
// equivalent queries.
func (s *Addressing) plain(r *http.Request, uri string) store.Key {
	return sha256.Sum256(store.AppendPart(s.appendOrigin(nil, r, Overriding(r.Header)), uri))
}

// Path returns the key that stands for all queries of a request's path: that of the URL
// without a query.
func (s *Addressing) Path(r *http.Request, uri string) store.Key {
	path, _, _ := strings.Cut(uri, "?")
	return s.plain(r, path)
}

// All returns the keys of an address: responses to a request for a target can be stored
// under each.
func (s *Addressing) All(a Address, r *http.Request, uri string) []store.Key {
	if a.Search == nil {
		return []store.Key{a.Key}
	}
	// The response that told of the variance was asked for without it.
	if s.Query != nil {
		uri = s.Query.Normalize(uri)
	}
	return []store.Key{a.Key, s.plain(r, uri)}
}

// Describe returns the key of a request for people to read.
func (s *Addressing) Describe(a Address, r *http.Request, uri string) string {
	if s.Template != "" {
		return s.Filled
	}
	if s.Query != nil {
		uri = s.Query.Normalize(uri)
	}
	if path, query, found := strings.Cut(uri, "?"); found && a.Search != nil && !rfc9111.ManyParameters(query) {
		uri = path + "?" + a.Search.Normal(query)
	}
	text := schemeOf(r) + "://" + r.Host + uri
	for _, name := range Overriding(r.Header) {
		for _, value := range r.Header[name] {
			text += " " + name + ": " + value
		}
	}
	return text
}

// URLOf returns the URL by which the response to a request for a target is purged.
func URLOf(r *http.Request, uri string) string { return store.URLOf(schemeOf(r), r.Host, uri) }
