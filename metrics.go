package caddygroupcache

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/purging"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Caddy makes a new registry for every config, so the collectors belong to the
// process and are registered anew with each one. No URL, key, client or tag is
// ever a label.
var (
	fillSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "caddy_groupcache_fill_duration_seconds",
		Help:    "Time from asking the upstream to the end of its response.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
	})
	peerRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_groupcache_peer_requests_total",
		Help: "Requests to other nodes, by operation and result.",
	}, []string{"operation", "result"})
	peerSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "caddy_groupcache_peer_duration_seconds",
		Help:    "Time until another node answered; for publish, until it had stored the response.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	}, []string{"operation"})
)

// observeCall counts a call to another node.
func observeCall(operation string, err error, took time.Duration) {
	peerRequests.WithLabelValues(operation, node.CallResult(err)).Inc()
	peerSeconds.WithLabelValues(operation).Observe(took.Seconds())
}

// A fillResult is how a fetch ended.
type fillResult uint8

const (
	fillStored fillResult = iota
	fillRevalidated
	fillNotStored
	fillFailed
	fillResultCount
)

var fillResultNames = [fillResultCount]string{"stored", "revalidated", "not_stored", "failed"}

// counters are what one group of the configuration has done since the process
// started.
type counters struct {
	requests  [statusCount]atomic.Int64
	forwarded [4]atomic.Int64 // by forwardNames
	fills     [fillResultCount]atomic.Int64
	notStored []atomic.Int64 // by Reason
}

func (c *counters) fetched(result fillResult, took time.Duration) {
	c.fills[result].Add(1)
	fillSeconds.Observe(took.Seconds())
}

// groupCounters are the counters by group name. Only the configuration makes
// groups here, so there are few.
type groupCounters struct {
	mu     sync.Mutex // guards groups
	groups map[string]*counters
}

func (g *groupCounters) of(name string) *counters {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.groups == nil {
		g.groups = make(map[string]*counters)
	}
	c := g.groups[name]
	if c == nil {
		c = &counters{notStored: make([]atomic.Int64, len(rfc9111.Reasons())+1)}
		g.groups[name] = c
	}
	return c
}

func (g *groupCounters) each(visit func(name string, c *counters)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, c := range g.groups {
		visit(name, c)
	}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("caddy_groupcache_"+name, help, labels, nil)
}

var (
	requestsDesc  = desc("requests_total", "Requests that passed the handler, by what became of them.", "group", "status")
	forwardedDesc = desc("forwarded_total", "Requests that went to the upstream, or waited for one that did, by why the cache had no answer.", "group", "fwd")
	notStoredDesc = desc("not_stored_total", "Responses that were not stored, by reason.", "group", "reason")
	fillsDesc     = desc("fills_total", "Fetches from the upstream on behalf of the cache, by result.", "group", "result")
	membersDesc   = desc("members", "Nodes that are alive, this one included.")
	shareDesc     = desc("ring_share", "Part of all keys that this node owns.")
	bytesDesc     = desc("bytes", "Memory in use; main and hot bodies, the index and bodies in flight are shared by all groups.", "group", "cache")
	entriesDesc   = desc("entries", "Stored responses that this node knows of.", "group")
	evictionsDesc = desc("evictions_total", "Bodies and entries thrown out to make room.", "group", "cache")
	purgesDesc    = desc("purges_total", "What was named in purges that this node has applied, by kind.", "kind")
	purgeNoDesc   = desc("purges_refused_total", "In-band purges that were refused, by reason.", "reason")
	restoredDesc  = desc("restored_total", "What was kept over the last restart, by what became of it.", "result")
	panicsDesc    = desc("panics_total", "Panics of goroutines that were recovered, so that the process goes on. Each is a bug.")
	refusedDesc   = desc("refused_total", "Connections, requests and packets of unauthenticated peers that were refused.", "port")
)

// collector reads what the process has counted.
type collector struct{ p *process }

// Describe names the metrics.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		requestsDesc, forwardedDesc, notStoredDesc, fillsDesc, membersDesc, shareDesc,
		bytesDesc, entriesDesc, evictionsDesc, purgesDesc, purgeNoDesc, restoredDesc, refusedDesc, panicsDesc,
	} {
		ch <- d
	}
}

// Collect reads them.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	c.p.counters.each(func(group string, g *counters) {
		for s, name := range statusNames {
			count(requestsDesc, g.requests[s].Load(), group, name.(string))
		}
		for i, name := range forwardNames {
			count(forwardedDesc, g.forwarded[i].Load(), group, name)
		}
		for r, name := range fillResultNames {
			count(fillsDesc, g.fills[r].Load(), group, name)
		}
		for _, why := range rfc9111.Reasons() {
			if v := g.notStored[why].Load(); v > 0 {
				count(notStoredDesc, v, group, why.String())
			}
		}
	})
	for _, space := range c.p.node.Store.Namespaces() {
		gauge(entriesDesc, float64(space.Entries.Load()), space.Name)
	}
	usage := c.p.node.Store.Usage()
	gauge(bytesDesc, float64(usage.Main.Bytes), allGroups, "main")
	gauge(bytesDesc, float64(usage.Hot.Bytes), allGroups, "hot")
	gauge(bytesDesc, float64(usage.IndexBytes), allGroups, "index")
	gauge(bytesDesc, float64(c.p.node.Budget.Used()), allGroups, "inflight")
	count(evictionsDesc, usage.Main.Evictions, allGroups, "main")
	count(evictionsDesc, usage.Hot.Evictions, allGroups, "hot")
	count(evictionsDesc, usage.IndexEvicted, allGroups, "index")
	for _, kind := range store.Kinds() {
		if kind != store.OfKey { // these only accompany others
			count(purgesDesc, c.p.node.Purger.Counts[kind].Load(), kind.String())
		}
	}
	for _, why := range purging.AllRefusals() {
		count(purgeNoDesc, c.p.denials.Count(why), why.String())
	}
	gauge(membersDesc, float64(max(1, len(c.p.node.Ring.Load().Nodes()))))
	gauge(shareDesc, c.p.node.Ring.Load().Share(c.p.node.Name))
	if c.p.persist != nil {
		for result, name := range node.RestoreResultNames {
			count(restoredDesc, c.p.persist.Results[result].Load(), name)
		}
	}
	gossip, peers := c.p.refused()
	count(refusedDesc, gossip, "gossip")
	count(refusedDesc, peers, "peers")
	count(panicsDesc, guard.Panics())
}

// allGroups is the group label of memory that groups share.
const allGroups = ""

// registerMetrics makes the metrics part of a config's registry.
func registerMetrics(r *prometheus.Registry, p *process) error {
	for _, c := range []prometheus.Collector{fillSeconds, peerRequests, peerSeconds, collector{p}} {
		if err := r.Register(c); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return err
		}
	}
	return nil
}
