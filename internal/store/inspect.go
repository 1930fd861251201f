package store

import (
	"net/http"
	"strings"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// What is in this file looks and changes nothing: no entry is dropped, none is
// marked as visited, and what a purge would do to one is told, not done. Only to
// the Group it is a use of a body if one asks whether it is there, because there
// is no other way to ask.

// An Inspection is all that the index knows of a cache key.
type Inspection struct {
	Variants []Inspected // newest first
	Vary     []string    // of the newest response

	// Responses are not stored, for a reason, until a time; None: not so.
	Uncacheable rfc9111.Reason
	Until       time.Time
}

// Inspected is one stored variant.
type Inspected struct {
	Entry   *Entry // as it would be served: stale, if it was purged softly
	Matches bool   // it would be chosen for the request
	Here    bool   // its body is in this node's memory
}

// Inspect returns what is known of a key, and which variant a request would get.
func (s *Store) Inspect(k Key, request http.Header, now time.Time) Inspection {
	sh := s.shard(k)
	sh.mu.RLock()
	r := sh.resources.get(k)
	if r == nil {
		sh.mu.RUnlock()
		return Inspection{}
	}
	in := Inspection{Vary: r.names()}
	if r.lore != nil && now.Before(r.lore.uncacheableUntil) {
		in.Uncacheable, in.Until = r.lore.uncacheable, r.lore.uncacheableUntil
	}
	sh.mu.RUnlock()

	stored := s.Stored(k)
	chosen := match(stored, request)
	for _, e := range stored {
		_, err := s.Body(k, e)
		in.Variants = append(in.Variants, Inspected{Entry: e, Matches: e == chosen, Here: err == nil})
	}
	return in
}

// Stored returns the entries under a key as they would be served, newest first. It does not
// look for their bodies: a walk through all keys would leave the Group with those as used
// last that came last.
func (x *index) Stored(k Key) []*Entry {
	sh := x.shard(k)
	sh.mu.RLock()
	r := sh.resources.get(k)
	if r == nil {
		sh.mu.RUnlock()
		return nil
	}
	variants, group, since := r.variants, r.space.Name, r.compared.Load()
	sh.mu.RUnlock()
	return x.purges.left(variants, group, k, since)
}

// left returns what purges leave of entries that have been compared up to since.
func (p *purges) left(variants []*Entry, group string, k Key, since uint64) (left []*Entry) {
	for _, e := range variants {
		if settled := p.compare(group, k, e, since).settle(e); settled != nil {
			left = append(left, settled)
		}
	}
	return left
}

// Ranked returns all keys that the index knows, with their namespaces: first
// those that were asked for since an eviction last came by, and of these the
// newest.
func (x *index) Ranked() (keys []Key, spaces []*Namespace) {
	var rest []Key
	var restSpaces []*Namespace
	for i := range x.shards {
		sh := &x.shards[i]
		sh.mu.RLock()
		for r := range sh.all() {
			switch {
			case len(r.variants) == 0:
			case r.is(visited):
				keys, spaces = append(keys, r.key), append(spaces, r.space)
			default:
				rest, restSpaces = append(rest, r.key), append(restSpaces, r.space)
			}
		}
		sh.mu.RUnlock()
	}
	return append(keys, rest...), append(spaces, restSpaces...)
}

// About returns the selectors of a purge that name an entry under a key of a group.
func (p *Purge) About(group string, k Key, e *Entry) []Selector {
	if p.Group != "" && p.Group != group {
		return nil
	}
	var about []Selector
	for _, s := range p.Selectors {
		if newRecord(s).mayBeAbout(group, k, e) && (s.Kind != Prefix || strings.HasPrefix(e.URL(), s.Value)) {
			about = append(about, s)
		}
	}
	return about
}

// A Listed is what is stored under one cache key, as it would be served.
type Listed struct {
	Key      Key
	Group    string   // of handlers
	Variants []*Entry // newest first
}

// Each calls visit for all keys with something stored, until it returns false. Of no shard
// it holds the lock meanwhile.
func (x *index) Each(visit func(Listed) bool) {
	type found struct {
		Listed
		since uint64
	}
	for i := range x.shards {
		sh := &x.shards[i]
		var all []found
		sh.mu.RLock()
		for r := range sh.all() {
			if len(r.variants) > 0 {
				all = append(all, found{Listed{r.key, r.space.Name, r.variants}, r.compared.Load()})
			}
		}
		sh.mu.RUnlock()
		for _, one := range all {
			one.Variants = x.purges.left(one.Variants, one.Group, one.Key, one.since)
			if len(one.Variants) > 0 && !visit(one.Listed) {
				return
			}
		}
	}
}
