package report

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Bounds of a list of what is stored.
const (
	DefaultEntries = 100
	MaxEntries     = 1000

	// maxEntryBytes bounds what one node tells, below what a report may be long, if all of it has to be escaped.
	maxEntryBytes = 960 << 10
	// maxEntryTags bounds the tags of one entry that are told.
	maxEntryTags = 20
	// maxEntrySelectors bounds what each entry is compared with.
	maxEntrySelectors = 1024
	// listPatience is how long another node may take to look through its index.
	listPatience = 5 * time.Second
)

// An EntriesQuery says what a list is to have: what a purge of the same would drop, but for
// what only a key template brings together.
type EntriesQuery struct {
	Group     string           // "": of all groups
	Selectors []store.Selector // none: everything
	Limit     int
}

// Entries is what GET /groupcache/entries answers: what is stored, over all nodes.
type Entries struct {
	// The node that answers.
	Node string `json:"node"`

	// One for each cache key, by URL.
	Entries []Entry `json:"entries"`

	// There are more than the limit, or than what fits an answer.
	More bool `json:"more"`

	// What each node has found.
	Nodes []EntriesNode `json:"nodes"`
}

// Entry is what is stored under one cache key: of the newest response that the list is
// about, on the node that owns the key if that has it.
type Entry struct {
	// The URL that it was fetched for, and the group of handlers.
	URL   string `json:"url"`
	Group string `json:"group"`

	// The hash of the cache key.
	Key string `json:"key"`

	// Status and size of the body in bytes.
	Status int   `json:"status"`
	Size   int64 `json:"size"`

	// Seconds: how old it is, and for how long it is still fresh (less than zero: it is
	// stale since then).
	AgeSeconds int64 `json:"age_seconds"`
	TTLSeconds int64 `json:"ttl_seconds"`

	// How many responses are stored under the key, and what the newest varies by.
	Variants int      `json:"variants"`
	Vary     []string `json:"vary,omitempty"`

	// What it can be purged by.
	Tags     []string `json:"tags,omitempty"`
	MoreTags int      `json:"more_tags,omitempty"` // that are left out

	// The node that owns the key, and those that know the entry.
	Owner string   `json:"owner,omitempty"`
	Nodes []string `json:"nodes,omitempty"`
}

// EntriesNode is what one node has found.
type EntriesNode struct {
	// The node's name.
	Name string `json:"name"`

	// How many keys it knows of that the list is about, copies of other nodes' included.
	Matched int64 `json:"matched"`

	// Why it could not be asked.
	Error string `json:"error,omitempty"`
}

// A part is what one node knows. If it is cut short, what comes after its last entry is
// left out.
type part struct {
	Matched int64   `json:"matched"`
	Cut     bool    `json:"cut,omitempty"`
	Entries []Entry `json:"entries"`
}

func byURL(a, b Entry) int {
	return cmp.Or(strings.Compare(a.URL, b.URL), strings.Compare(a.Group, b.Group), strings.Compare(a.Key, b.Key))
}

// listing bounds the work of lists: a node looks through its index for one at a time.
var listing sync.Mutex

// list returns what a node knows.
func list(n *node.Node, q EntriesQuery) (p part) {
	listing.Lock()
	defer listing.Unlock()
	now := time.Now()
	about := store.Purge{Group: q.Group, Selectors: q.Selectors}
	cut := func(limit int) {
		if slices.SortFunc(p.Entries, byURL); len(p.Entries) > limit {
			p.Entries, p.Cut = p.Entries[:limit], true
		}
	}
	n.Store.Each(func(one store.Listed) bool {
		i := slices.IndexFunc(one.Variants, func(e *store.Entry) bool {
			return len(q.Selectors) == 0 || len(about.About(one.Group, one.Key, e)) > 0
		})
		if i < 0 || q.Group != "" && q.Group != one.Group {
			return true
		}
		e := one.Variants[i]
		p.Matched++
		p.Entries = append(p.Entries, Entry{
			URL: e.URL(), Group: one.Group, Key: hex.EncodeToString(one.Key[:]), Status: e.Status, Size: e.Size,
			AgeSeconds: seconds(e.Fresh.Age(now)), TTLSeconds: seconds(e.Fresh.TTL(now)),
			Variants: len(one.Variants), Vary: e.Vary(), Tags: e.Tags()[:min(len(e.Tags()), maxEntryTags)], MoreTags: max(len(e.Tags())-maxEntryTags, 0),
		})
		if len(p.Entries) >= 2*q.Limit {
			cut(q.Limit)
		}
		return true
	})
	cut(q.Limit)
	bytes := 0
	for i, e := range p.Entries {
		if bytes += 350 + 6*(len(e.URL)+len(strings.Join(e.Tags, "  "))+len(strings.Join(e.Vary, "  "))); bytes > maxEntryBytes {
			cut(i)
			break
		}
	}
	return p
}

// ListFor answers another node's question.
func ListFor(n *node.Node, question []byte) (any, error) {
	var q EntriesQuery
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, fmt.Errorf("reading what to list: %w", err)
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	return list(n, q), nil
}

func (q *EntriesQuery) check() error {
	switch {
	case q.Limit < 1 || q.Limit > MaxEntries:
		return fmt.Errorf("limit %d: from 1 to %d", q.Limit, MaxEntries)
	case len(q.Selectors) > maxEntrySelectors:
		return fmt.Errorf("%d things are named: at most %d", len(q.Selectors), maxEntrySelectors)
	case slices.ContainsFunc(q.Selectors, func(s store.Selector) bool { return !s.Valid() }):
		return errors.New("a selector of no known kind")
	}
	return nil
}

// GatherEntries lists what is stored on all nodes of the ring.
func GatherEntries(ctx context.Context, n *node.Node, q EntriesQuery) (Entries, error) {
	// A key is no text, as JSON would have it.
	q.Selectors = slices.DeleteFunc(q.Selectors, func(s store.Selector) bool { return s.Kind == store.OfKey })
	if err := q.check(); err != nil {
		return Entries{}, err
	}
	question, err := json.Marshal(q)
	if err != nil {
		return Entries{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, listPatience, peer.ErrTimeout)
	defer cancel()
	others := n.Others()
	parts := make([]part, 1+len(others))
	all := Entries{Node: n.Name, Nodes: []EntriesNode{{Name: n.Name}}}
	for _, to := range others {
		all.Nodes = append(all.Nodes, EntriesNode{Name: to.Name})
	}
	var asked sync.WaitGroup
	for i, to := range others {
		if i >= peer.MaxAsked {
			all.Nodes[1+i].Error = peer.ErrNotAsked.Error()
			continue
		}
		guard.GoWait(&asked, func() {
			if err := n.Client.Entries(ctx, to, question, &parts[1+i]); err != nil {
				parts[1+i], all.Nodes[1+i].Error = part{}, err.Error()
			}
		})
	}
	parts[0] = list(n, q)
	asked.Wait()
	for i := range parts {
		all.Nodes[i].Matched = parts[i].Matched
	}
	all.merge(n.Ring.Load(), parts, q.Limit)
	return all, nil
}

// merge puts together what the nodes know of each key.
func (all *Entries) merge(ring *peer.Ring, parts []part, limit int) {
	known := make(map[string]*Entry)
	for i, p := range parts {
		name := all.Nodes[i].Name
		for _, e := range p.Entries {
			var k store.Key
			if raw, err := hex.DecodeString(e.Key); err == nil && len(raw) == len(k) {
				k = store.Key(raw)
			}
			owner, _ := ring.Owner(k)
			e.Owner = cmp.Or(owner.Name, all.Node)
			have := known[e.Key]
			if have != nil {
				e.Nodes = have.Nodes
			}
			if nodes := append(e.Nodes, name); have == nil || name == e.Owner {
				e.Nodes = nodes
				known[e.Key] = &e
			} else {
				have.Nodes = nodes
			}
		}
	}
	all.Entries = make([]Entry, 0, len(known))
	for _, e := range known {
		all.Entries = append(all.Entries, *e)
	}
	slices.SortFunc(all.Entries, byURL)
	for _, p := range parts { // beyond where one was cut short, the list would have gaps
		if p.Cut {
			all.More = true
			end := 0
			if len(p.Entries) > 0 {
				at, found := slices.BinarySearchFunc(all.Entries, p.Entries[len(p.Entries)-1], byURL)
				if end = at; found {
					end++
				}
			}
			all.Entries = all.Entries[:end]
		}
	}
	if len(all.Entries) > limit {
		all.Entries, all.More = all.Entries[:limit], true
	}
}

// Print writes the list as a command shows it.
func (all *Entries) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "URL\tSTATUS\tAGE\tTTL\tSIZE\tVARIANTS\tGROUP\tTAGS\tOWNER\tALSO ON")
	duration := func(s int64) string { return (time.Duration(s) * time.Second).String() }
	for _, e := range all.Entries {
		others := slices.DeleteFunc(slices.Clone(e.Nodes), func(name string) bool { return name == e.Owner })
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", e.URL, e.Status, duration(e.AgeSeconds), duration(e.TTLSeconds),
			humanize.IBytes(uint64(max(e.Size, 0))), e.Variants, e.Group, strings.Join(e.Tags, " "), e.Owner, strings.Join(others, " "))
	}
	fmt.Fprintln(w)
	for _, n := range all.Nodes {
		if n.Error != "" {
			fmt.Fprintf(w, "%s could not be asked: %s\n", n.Name, n.Error)
		} else {
			fmt.Fprintf(w, "%s knows %d of them\n", n.Name, n.Matched)
		}
	}
	if all.More {
		fmt.Fprintln(w, "There are more: name a prefix, or a larger limit.")
	}
	return w.Flush()
}
