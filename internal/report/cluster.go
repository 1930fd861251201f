package report

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Cluster is what GET /groupcache/cluster answers: how all nodes are, as
// each of them says itself.
type Cluster struct {
	// The node that answers.
	Node string `json:"node"`

	// All members that it knows of.
	Nodes []ClusterNode `json:"nodes"`
}

// ClusterNode is one member, and what it says of itself.
type ClusterNode struct {
	Member

	// It did not answer lately, and is left alone for a while.
	Degraded bool `json:"degraded,omitempty"`

	// Milliseconds until it answered just now.
	LatencyMillis float64 `json:"latency_ms,omitempty"`

	// Why there is no report.
	Error string `json:"error,omitempty"`

	// How it is.
	Report *Report `json:"report,omitempty"`
}

// A Report is how a node is.
type Report struct {
	Status

	// The keys that it is asked for most, by a sample of the requests.
	Busiest []node.BusyKey `json:"busiest"`

	// The keys that it asks the upstream for most, by the same sample.
	Missed []node.BusyKey `json:"missed"`

	// The latest purges that it has applied, the youngest first.
	Purges []Purge `json:"purges"`

	// What it did in the last minutes.
	History History `json:"history"`
}

// Purge is a purge that a node has applied.
type Purge struct {
	ID         string   `json:"id"`
	Group      string   `json:"group,omitempty"`
	Soft       bool     `json:"soft,omitempty"`
	SecondsAgo int64    `json:"seconds_ago"`
	Named      []string `json:"named"`          // some of what it names, as in "tag news"
	More       int      `json:"more,omitempty"` // how many more there are
}

const (
	// patience is how long another node may take for its report.
	patience = time.Second

	maxPurges      = 20
	maxNamed       = 5 // of one purge
	maxNamedLength = 200
)

// Gather asks all other members of the cluster, as this node's own report has them, for
// their reports.
func Gather(ctx context.Context, c *peer.Client, own *Report) Cluster {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, peer.ErrTimeout)
	defer cancel()
	degraded := c.Degraded()
	all := Cluster{Node: own.Node}
	for _, m := range own.Members {
		all.Nodes = append(all.Nodes, ClusterNode{Member: m, Degraded: degraded[m.Peers]})
	}
	var asked sync.WaitGroup
	others := 0
	for i := range all.Nodes {
		one := &all.Nodes[i]
		switch {
		case one.Self:
			one.Report = own
		case one.Share == 0 && one.Unreachable != "":
			one.Error = one.Unreachable
		case one.Share == 0:
			one.Error = "it is not on the ring"
		case others == peer.MaxAsked:
			one.Error = peer.ErrNotAsked.Error()
		default:
			others++
			guard.GoWait(&asked, func() { one.ask(ctx, c) })
		}
	}
	asked.Wait()
	return all
}

func (one *ClusterNode) ask(ctx context.Context, c *peer.Client) {
	var report Report
	start := time.Now()
	err := c.Status(ctx, peer.Node{Name: one.Name, Addr: one.Peers, Life: one.Life}, &report)
	if err != nil {
		one.Error = err.Error()
		return
	}
	report.complete()
	one.LatencyMillis = float64(time.Since(start).Microseconds()) / 1000
	one.Report = &report
}

// complete makes what another node has left out, as one of an older build may,
// empty.
func (r *Report) complete() {
	if r.Groups == nil {
		r.Groups = []Group{}
	}
	if r.Busiest == nil {
		r.Busiest = []node.BusyKey{}
	}
	if r.Missed == nil {
		r.Missed = []node.BusyKey{}
	}
	if r.Purges == nil {
		r.Purges = []Purge{}
	}
	for i := range r.Purges {
		if r.Purges[i].Named == nil {
			r.Purges[i].Named = []string{}
		}
	}
	if r.History.Requests == nil {
		r.History.Requests = make(map[string][]int64)
	}
	if r.History.NotStored == nil {
		r.History.NotStored = make(map[string][]int64)
	}
	if r.History.Fills == nil {
		r.History.Fills = []int64{}
	}
	r.History.EverySeconds = max(r.History.EverySeconds, 1)
}

// Purges returns what is told of the latest of the purges that a node has applied, which
// are in the order of their arrival.
func Purges(applied []store.Purge, now time.Time) []Purge {
	told := []Purge{}
	for _, one := range slices.Backward(applied) {
		if len(told) == maxPurges {
			break
		}
		if len(one.Selectors) > 0 { // not a marker of a node that has stopped
			told = append(told, purgeOf(one, now))
		}
	}
	return told
}

func purgeOf(one store.Purge, now time.Time) Purge {
	s := Purge{ID: one.ID.String(), Group: one.Group, Soft: one.Soft, SecondsAgo: seconds(now.Sub(one.At)), Named: []string{}}
	for _, selector := range one.Selectors {
		switch value := selector.Value; {
		case selector.Kind == store.OfKey || selector.Kind == store.Group: // these only accompany others
		case len(s.Named) == maxNamed:
			s.More++
		case value == "":
			s.Named = append(s.Named, selector.Kind.String())
		default:
			if len(value) > maxNamedLength {
				value = value[:maxNamedLength] + "…"
			}
			s.Named = append(s.Named, selector.Kind.String()+" "+value)
		}
	}
	return s
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
