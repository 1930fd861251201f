package storing

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A response is purged by its URL whatever else its key has: fields of a proxy, a Host in
// another case, matchers of clients. So it is labelled with what the key has of the URL, and
// not with what the first client has sent of it: what is purged is the same for both.

// labelOf returns the target that a response to a request for another one is labelled with.
func (p *Policy) labelOf(uri string) string {
	if p.Query == nil {
		return uri
	}
	return p.Query.Normalize(uri)
}

// pathGroup is the cache group (RFC 9875) of the responses of a path that are for several
// queries, as No-Vary-Search says. Which of them a query gets, only a node knows that has
// seen the field under the same key. No response can name the group.
func pathGroup(target string) string {
	path, _, _ := strings.Cut(target, "?")
	sum := sha256.Sum256([]byte(path))
	return ownGroup + "path " + hex.EncodeToString(sum[:16])
}

// ownGroup begins the names of the groups that are made here, since names in a field have no
// control characters.
const ownGroup = "\x00"

// Names returns what names the responses to requests for a target under the URL, whatever
// else their keys have: of those under a key template, which may tell more apart than URLs,
// only if all of them are meant.
func (p *Policy) Names(url, target string, all bool) []store.Selector {
	label := p.labelOf(target)
	names := []store.Selector{
		{Kind: store.Group, Value: store.GroupOf(url, inbound.QueryGroup(label))},
		{Kind: store.Group, Value: store.GroupOf(url, pathGroup(target))},
	}
	if all {
		names = append(names, store.Selector{Kind: store.URL, Value: strings.TrimSuffix(url, target) + label})
	}
	return names
}
