package store

import (
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// labels are what few responses are purged by, beside their URL.
type labels struct {
	tags, groups []string
	hashes       []uint64 // of the selectors that they are
	madeBy       PurgeID
}

// none are the labels of most responses.
var none labels

func (e *Entry) more() *labels {
	if e.labels == nil {
		return &none
	}
	return e.labels
}

// Tags returns the cache tags that the response is purged by, sorted.
func (e *Entry) Tags() []string { return e.more().tags }

// Groups returns its cache groups (RFC 9875), sorted.
func (e *Entry) Groups() []string { return e.more().groups }

// MadeBy returns the invalidation that the response's own request has caused, if
// it was an unsafe one; 0: none.
func (e *Entry) MadeBy() PurgeID { return e.more().madeBy }

// SetLabels sets what the response is purged by: its URL as URLOf makes it, its
// cache tags, and its cache groups (RFC 9875), both sorted.
func (e *Entry) SetLabels(url string, tags, groups []string) {
	e.setURL(url)
	hashes := make([]uint64, 0, len(tags)+len(groups))
	for _, tag := range tags {
		hashes = append(hashes, hashSelector(Tag, tag))
	}
	for _, group := range groups {
		hashes = append(hashes, hashSelector(Group, GroupOf(url, group)))
	}
	e.setMore(labels{tags: cloned(tags), groups: cloned(groups), hashes: hashes, madeBy: e.MadeBy()})
}

// SetMadeBy sets the invalidation that the response's own request has caused.
func (e *Entry) SetMadeBy(id PurgeID) {
	l := *e.more()
	l.madeBy = id
	e.setMore(l)
}

func (e *Entry) setMore(l labels) {
	if e.labels = nil; len(l.hashes) > 0 || l.madeBy != 0 {
		own := l // nothing is allocated for what most have
		e.labels = &own
	}
}

// anySelector reports whether something is so of the hash of any selector, but a
// prefix, that names an entry. To compute the hashes takes less time than to keep
// them would take room.
func (e *Entry) anySelector(k Key, so func(hash uint64) bool) bool {
	url := e.URL()
	_, host := cutOrigin(url)
	bare, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		bare = host[:i]
	} else if strings.HasPrefix(url, "https:") {
		port = ":443"
	} else {
		port = ":80"
	}
	return so(hashSelector(OfKey, string(k[:]))) || so(hashSelector(URL, url)) ||
		so(hashSelector(Host, host)) || so(hashSelector(Host, bare, port)) || slices.ContainsFunc(e.more().hashes, so)
}

// hashSelector returns the hash of a selector, whose value comes in parts.
func hashSelector(kind Kind, value ...string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write([]byte{byte(kind)}) // never fails
	for _, s := range value {
		_, _ = d.WriteString(s)
	}
	return d.Sum64()
}
