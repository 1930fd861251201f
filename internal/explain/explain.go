// Package explain tells what the cache would do with a request, why, and what would
// change that: what each node of the cluster knows of the key, the decision that
// follows from it, and both in words. Nothing is served or fetched, and nothing stored
// changes.
package explain

import (
	"cmp"
	"slices"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
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
	Groups []Group `json:"groups"`
}

// A Group is the decision of the handlers of one group.
type Group struct {
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
	Nodes []Knowledge `json:"nodes,omitempty"`

	// The latest purges that name this URL, the youngest first.
	Purges []Purge `json:"purges,omitempty"`
}

// Knowledge is what one node knows of a key.
type Knowledge struct {
	// The node's name, and whether it owns the key.
	Name  string `json:"name"`
	Owner bool   `json:"owner,omitempty"`

	// Why it could not be asked.
	Error string `json:"error,omitempty"`

	// The request fields that the newest response varies by.
	Vary []string `json:"vary,omitempty"`

	// The stored responses, the newest first.
	Variants []Variant `json:"variants,omitempty"`

	// Nobody waits for a shared response, because such are not stored.
	Uncacheable *Uncacheable `json:"uncacheable,omitempty"`

	// The last response that was fetched here and not stored.
	NotStored *NotStored `json:"not_stored,omitempty"`

	// It is on its way right now.
	Fetching bool `json:"fetching,omitempty"`

	failure error
}

// Variant is one stored response.
type Variant struct {
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
	// The directive that keeps it from being served stale.
	StaleForbiddenBy string `json:"stale_forbidden_by,omitempty"`
	SharedAuth       bool   `json:"shared_auth,omitempty"`

	// What it is validated with.
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`

	// What it varies by, the values that chose it as far as they are known, as in
	// "Accept-Language: de", and what it can be purged by.
	Vary   []string `json:"vary,omitempty"`
	For    []string `json:"for,omitempty"`
	Tags   []string `json:"tags,omitempty"`
	Groups []string `json:"groups,omitempty"`

	// The response block of the config that has said how it is stored.
	Rule string `json:"rule,omitempty"`
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

// Purge is a purge that names a URL.
type Purge struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"` // what it named: url, prefix, host, tag, all
	Value      string `json:"value,omitempty"`
	Soft       bool   `json:"soft,omitempty"`
	SecondsAgo int64  `json:"seconds_ago"`
}

// Sort puts the groups in order: those first that most nodes have a response of.
func (e *Explanation) Sort() {
	slices.SortFunc(e.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.stored(), a.stored()), strings.Compare(a.Group, b.Group))
	})
}

// stored counts the nodes that have a response.
func (g Group) stored() (n int) {
	for _, know := range g.Nodes {
		if len(know.Variants) > 0 {
			n++
		}
	}
	return n
}

// Shorten leaves out groups that the request does not reach and that have nothing of it, if
// there is another one.
func (e *Explanation) Shorten() {
	idle := func(g Group) bool { return g.Reason == rfc9111.NotRouted.String() && g.stored() == 0 }
	if slices.ContainsFunc(e.Groups, func(g Group) bool { return !idle(g) }) {
		e.Groups = slices.DeleteFunc(e.Groups, idle)
	}
}

func (g Group) tags() (tags []string) {
	for _, know := range g.Nodes {
		for _, v := range know.Variants {
			tags = append(tags, v.Tags...)
		}
	}
	return tags
}
