// Package report is what a node tells of itself: to operators, to the dashboard and to
// other nodes, and what all nodes of a cluster tell.
package report

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// Status is what GET /groupcache/status answers.
type Status struct {
	// The name of the node that answers.
	Node string `json:"node"`

	// Seconds since its cache began.
	UptimeSeconds int64 `json:"uptime_seconds"`

	// All members that this node knows of, itself included.
	Members []Member `json:"members"`

	// The groups of the configuration.
	Groups []Group `json:"groups"`

	// What the cache takes of its memory, in bytes.
	Memory Memory `json:"memory"`
}

// Member is one member of the cluster.
type Member struct {
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

	// Why it does not answer at its peers address; empty: it does. Without an answer
	// since it came it owns no keys.
	Unreachable string `json:"unreachable,omitempty"`

	// The number of its process, if the node knows it.
	Life uint64 `json:"-"`
}

// Group is one group of handlers.
type Group struct {
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

// Memory is how the node's memory is used, in bytes.
type Memory struct {
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

// Print writes the status as a command shows it.
func (s *Status) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	size := func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
	fmt.Fprintf(w, "node %s, up %s, %s of %s in use\n\n", s.Node, time.Duration(s.UptimeSeconds)*time.Second,
		size(s.Memory.Main+s.Memory.Hot+s.Memory.Index+s.Memory.InFlight), size(s.Memory.Limit))
	fmt.Fprintln(w, "MEMBER\tSTATE\tSHARE\tGOSSIP\tPEERS")
	for _, m := range s.Members {
		name := m.Name
		if m.Self {
			name += " (this node)"
		}
		state := m.State
		if m.Unreachable != "" {
			state += ", unreachable"
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f%%\t%s\t%s\n", name, state, m.Share*100, m.Gossip, m.Peers)
	}
	for _, m := range s.Members {
		if m.Unreachable != "" {
			fmt.Fprintf(w, "\n%s is unreachable: %s\n", m.Name, m.Unreachable)
		}
	}
	fmt.Fprintln(w, "\nGROUP\tENTRIES\tBODIES\tHITS\tSTALE\tMISSES\tCOLLAPSED\tBYPASSES\tFETCHES")
	for _, g := range s.Groups {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", g.Name, g.Entries, size(g.Bytes),
			g.Hits, g.Stale, g.Misses+g.Revalidated, g.Collapsed, g.Bypasses, g.Fills)
	}
	return w.Flush()
}
