package caddygroupcache

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// adminAPI serves what operators ask of the running node, whatever config is
// active.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (*adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.groupcache", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes returns the admin routes.
func (api *adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/groupcache/", Handler: caddy.AdminHandlerFunc(api.dashboard)},
		{Pattern: "/groupcache/cluster", Handler: caddy.AdminHandlerFunc(api.cluster)},
		{Pattern: "/groupcache/status", Handler: caddy.AdminHandlerFunc(api.status)},
		{Pattern: "/groupcache/explain", Handler: caddy.AdminHandlerFunc(api.explain)},
		{Pattern: "/groupcache/purge", Handler: caddy.AdminHandlerFunc(api.purge)},
	}
}

// Status is what GET /groupcache/status answers.
type Status struct {
	// The name of the node that answers.
	Node string `json:"node"`

	// Seconds since its cache began.
	UptimeSeconds int64 `json:"uptime_seconds"`

	// All members that this node knows of, itself included.
	Members []MemberStatus `json:"members"`

	// The groups of the configuration.
	Groups []GroupStatus `json:"groups"`

	// What the cache takes of its memory, in bytes.
	Memory MemoryStatus `json:"memory"`
}

// MemberStatus is one member of the cluster.
type MemberStatus struct {
	// The node's name.
	Name string `json:"name"`

	// alive, suspect, dead or left.
	State string `json:"state"`

	// Its address for membership.
	Gossip string `json:"gossip,omitempty"`

	// Its address for cache traffic.
	Peers string `json:"peers,omitempty"`

	// Its version of the peer protocol; only members of this node's version
	// share keys with it.
	Version uint8 `json:"version,omitempty"`

	// The part of all keys that it owns.
	Share float64 `json:"share"`

	// Whether it is the node that answers.
	Self bool `json:"self,omitempty"`
}

// GroupStatus is one group of handlers.
type GroupStatus struct {
	// The group's name.
	Name string `json:"name"`

	// Stored responses that the node knows of, and the bytes of their bodies,
	// some of which may be on other nodes.
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"`

	// Requests since the node started, by what became of them.
	Hits        int64 `json:"hits"`
	Stale       int64 `json:"stale"`
	Revalidated int64 `json:"revalidated"`
	Misses      int64 `json:"misses"`
	Collapsed   int64 `json:"collapsed"`
	Bypasses    int64 `json:"bypasses"`

	// Fetches from the upstream, in all and by how they ended: stored,
	// revalidated, not_stored, failed.
	Fills       int64            `json:"fills"`
	FillResults map[string]int64 `json:"fill_results"`

	// Responses that were not stored, by reason.
	NotStored map[string]int64 `json:"not_stored"`
}

// MemoryStatus is how the node's memory is used, in bytes.
type MemoryStatus struct {
	Limit    int64 `json:"limit"`
	Main     int64 `json:"main"`
	Hot      int64 `json:"hot"`
	Index    int64 `json:"index"`
	InFlight int64 `json:"inflight"`

	// What of the limit bodies may take (main and hot), entries with their
	// small bodies (what those leave), and responses that are coming in.
	BodyLimit     int64 `json:"body_limit"`
	IndexLimit    int64 `json:"index_limit"`
	InFlightLimit int64 `json:"inflight_limit"`
}

func (api *adminAPI) status(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("status is read with GET, not %s", r.Method)}
	}
	p := currentProcess()
	if p == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errNoApp}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(p.status())
}

func (p *process) status() Status {
	usage := p.node.store.Usage()
	s := Status{
		Node:          p.node.name,
		UptimeSeconds: int64(time.Since(p.started) / time.Second),
		Members:       p.memberStatus(),
		Groups:        []GroupStatus{},
		Memory: MemoryStatus{
			Limit: p.cacheSize, Main: usage.Main.Bytes, Hot: usage.Hot.Bytes,
			Index: usage.IndexBytes, InFlight: p.node.budget.Used(),
			BodyLimit: usage.BodyLimit, IndexLimit: usage.IndexLimit, InFlightLimit: p.cacheSize / 16 * flightShare,
		},
	}
	for _, space := range p.node.store.Namespaces() {
		c := p.counters.of(space.Name)
		g := GroupStatus{
			Name: space.Name, Entries: space.Entries.Load(), Bytes: space.Bytes.Load(),
			Hits: c.requests[statusHit].Load(), Stale: c.requests[statusStale].Load(),
			Revalidated: c.requests[statusRevalidated].Load(), Misses: c.requests[statusMiss].Load(),
			Collapsed: c.requests[statusCollapsed].Load(), Bypasses: c.requests[statusBypass].Load(),
			FillResults: make(map[string]int64), NotStored: make(map[string]int64),
		}
		for i, result := range fillResultNames {
			n := c.fills[i].Load()
			g.Fills += n
			g.FillResults[result] = n
		}
		for _, why := range rfc9111.Reasons() {
			if n := c.notStored[why].Load(); n > 0 {
				g.NotStored[why.String()] = n
			}
		}
		s.Groups = append(s.Groups, g)
	}
	slices.SortFunc(s.Groups, func(a, b GroupStatus) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

func (p *process) memberStatus() []MemberStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return []MemberStatus{{Name: p.node.name, State: "alive", Share: 1, Self: true}}
	}
	ring := p.node.ring.Load()
	all := []MemberStatus{}
	for _, m := range p.members.Members() {
		share := 0.0
		if m.usable() {
			share = ring.Share(m.Name)
		}
		all = append(all, MemberStatus{
			Name: m.Name, State: m.State, Gossip: m.Gossip, Peers: m.Peers,
			Version: m.Version, Share: share, Self: m.Self,
		})
	}
	slices.SortFunc(all, func(a, b MemberStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Interface guards
var _ caddy.AdminRouter = (*adminAPI)(nil)
