package caddygroupcache

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A ClusterStatus is what GET /groupcache/cluster answers: how all nodes are, as
// each of them says itself.
type ClusterStatus struct {
	// The node that answers.
	Node string `json:"node"`

	// All members that it knows of.
	Nodes []ClusterNode `json:"nodes"`
}

// ClusterNode is one member, and what it says of itself.
type ClusterNode struct {
	MemberStatus

	// It did not answer lately, and is left alone for a while.
	Degraded bool `json:"degraded,omitempty"`

	// Milliseconds until it answered just now.
	LatencyMillis float64 `json:"latency_ms,omitempty"`

	// Why there is no report.
	Error string `json:"error,omitempty"`

	// How it is.
	Report *NodeReport `json:"report,omitempty"`
}

// A NodeReport is how a node is.
type NodeReport struct {
	Status

	// The keys that it is asked for most, by a sample of the requests.
	Busiest []BusyKey `json:"busiest"`

	// The latest purges that it has applied, the youngest first.
	Purges []PurgeStatus `json:"purges"`

	// What it did in the last minutes.
	History History `json:"history"`
}

// PurgeStatus is a purge that a node has applied.
type PurgeStatus struct {
	ID         string   `json:"id"`
	Group      string   `json:"group,omitempty"`
	Soft       bool     `json:"soft,omitempty"`
	SecondsAgo int64    `json:"seconds_ago"`
	Named      []string `json:"named"`          // some of what it names, as in "tag news"
	More       int      `json:"more,omitempty"` // how many more there are
}

const (
	maxPurgesShown = 20
	maxNamedShown  = 5
	maxNamedLength = 200
)

func (api *adminAPI) cluster(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: fmt.Errorf("the cluster's status is read with GET, not %s", r.Method)}
	}
	p := currentProcess()
	if p == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errNoApp}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(p.cluster(r.Context()))
}

// cluster asks all nodes of the ring how they are.
func (p *process) cluster(ctx context.Context) ClusterStatus {
	ctx, cancel := context.WithTimeoutCause(ctx, explainPatience, peer.ErrTimeout)
	defer cancel()
	degraded := p.node.client.Degraded()
	all := ClusterStatus{Node: p.node.name}
	for _, m := range p.memberStatus() {
		all.Nodes = append(all.Nodes, ClusterNode{MemberStatus: m, Degraded: degraded[m.Peers]})
	}
	var asked sync.WaitGroup
	for i := range all.Nodes[:min(len(all.Nodes), maxExplained)] {
		one := &all.Nodes[i]
		switch {
		case one.Self:
			own := p.report()
			one.Report = &own
		case one.Share == 0:
			one.Error = "it is not on the ring"
		default:
			asked.Go(func() { one.ask(ctx, p.node.client) })
		}
	}
	asked.Wait()
	return all
}

func (one *ClusterNode) ask(ctx context.Context, c *peer.Client) {
	var report NodeReport
	start := time.Now()
	err := c.Status(ctx, peer.Node{Name: one.Name, Addr: one.Peers}, &report)
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
func (r *NodeReport) complete() {
	if r.Groups == nil {
		r.Groups = []GroupStatus{}
	}
	if r.Busiest == nil {
		r.Busiest = []BusyKey{}
	}
	if r.Purges == nil {
		r.Purges = []PurgeStatus{}
	}
	for i := range r.Purges {
		if r.Purges[i].Named == nil {
			r.Purges[i].Named = []string{}
		}
	}
	if r.History.Requests == nil {
		r.History.Requests = make(map[string][]int64)
	}
	if r.History.Fills == nil {
		r.History.Fills = []int64{}
	}
	r.History.EverySeconds = max(r.History.EverySeconds, 1)
}

// Report tells another node how this one is.
func (p *process) Report() any { return p.report() }

func (p *process) report() NodeReport {
	now := time.Now()
	purges := []PurgeStatus{}
	all, _ := p.node.purged.All()
	for i := len(all) - 1; i >= 0 && len(purges) < maxPurgesShown; i-- {
		purges = append(purges, purgeStatus(all[i], now))
	}
	return NodeReport{Status: p.status(), Busiest: p.node.busy.top(now), Purges: purges, History: p.samples.history()}
}

func purgeStatus(one store.Purge, now time.Time) PurgeStatus {
	s := PurgeStatus{ID: purgeID(one.ID), Group: one.Group, Soft: one.Soft, SecondsAgo: seconds(now.Sub(one.At)), Named: []string{}}
	for _, selector := range one.Selectors {
		switch value := selector.Value; {
		case selector.Kind == store.OfKey: // these only accompany others
		case len(s.Named) == maxNamedShown:
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

// History is what a node did in the last minutes: how often in each interval,
// the latest last.
type History struct {
	EverySeconds int64              `json:"every_seconds"`
	Requests     map[string][]int64 `json:"requests"` // by status
	Fills        []int64            `json:"fills"`
}

const (
	sampleEvery = 5 * time.Second
	maxSamples  = 120
)

// samples are the node's counters, every now and then.
type samples struct {
	mu  sync.Mutex // guards all
	all []sample   // the latest last
}

type sample struct {
	requests [statusCount]int64
	fills    int64
}

// keepSampling adds samples until ctx ends.
func (p *process) keepSampling(ctx context.Context) {
	ticks := time.NewTicker(sampleEvery)
	defer ticks.Stop()
	for p.sample(); ; p.sample() {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

func (p *process) sample() {
	var s sample
	p.counters.each(func(_ string, c *counters) {
		for i := range c.requests {
			s.requests[i] += c.requests[i].Load()
		}
		for i := range c.fills {
			s.fills += c.fills[i].Load()
		}
	})
	p.samples.mu.Lock()
	defer p.samples.mu.Unlock()
	if p.samples.all = append(p.samples.all, s); len(p.samples.all) > maxSamples+1 {
		p.samples.all = append(p.samples.all[:0], p.samples.all[1:]...)
	}
}

// history returns the differences between samples.
func (s *samples) history() History {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := History{EverySeconds: seconds(sampleEvery), Requests: make(map[string][]int64), Fills: []int64{}}
	for status, name := range statusNames {
		h.Requests[name.(string)] = []int64{}
		for i := 1; i < len(s.all); i++ {
			h.Requests[name.(string)] = append(h.Requests[name.(string)], s.all[i].requests[status]-s.all[i-1].requests[status])
		}
	}
	for i := 1; i < len(s.all); i++ {
		h.Fills = append(h.Fills, s.all[i].fills-s.all[i-1].fills)
	}
	return h
}
