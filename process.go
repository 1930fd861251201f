package caddygroupcache

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-groupcache/caddy-groupcache/events"
	"github.com/caddy-groupcache/caddy-groupcache/internal/explain"
	"github.com/caddy-groupcache/caddy-groupcache/internal/express"
	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/report"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// nodes holds the one process from its first config to its last, so that a
// reload loses no entry, no member, no socket and no counter.
var nodes = caddy.NewUsagePool()

const nodeKey = "node"

// process is the node and what belongs to it beside the cache itself.
type process struct {
	node      *node.Node
	cacheSize int64
	counters  groupCounters
	samples   report.Samples
	denials   purgeRefusals // in-band purges that were refused
	unnamed   atomic.Bool   // some handler leaves no Cache-Status
	started   time.Time
	persist   *node.Persistence // nil: nothing is kept
	laneOpen  express.Open      // of the lanes of all configs
	laneFiles *express.Files    // and theirs
	targets   express.Targets   // of requests that lanes may answer

	// life is held by start, stop and Destruct, of which one runs at a time. They wait for
	// other nodes, so that whoever only looks must not need it; it comes before mu.
	life sync.Mutex
	// While one config takes over from another: the App that started last, and
	// what to go back to if its config fails. Guarded by life, as the next two are.
	newest  *App
	before  *gossip.Cluster
	peers   net.Listener // the server's
	endBeat context.CancelFunc

	mu      sync.Mutex // guards below; who changes them holds life too
	running *gossip.Cluster
	members *gossip.Membership
	server  *peer.Server

	stopBy atomic.Pointer[time.Time] // when requests are to have ended, since a config began to stop; nil: no limit

	config runningConfig
	events *events.Events
	quiet  *gossip.LimitedLog // for its limit on lines about others
}

// A runningConfig is what of the running config its process goes by.
type runningConfig struct {
	handlers atomic.Pointer[handlersByGroup]
	app      atomic.Pointer[App]
}

func newProcess(name string, cacheSize int64) *process {
	p := &process{node: node.New(name, cacheSize), cacheSize: cacheSize, started: time.Now(), events: events.New()}
	p.laneFiles = express.NewFiles(&p.node.Pins, cacheSize/16)
	p.quiet = gossip.NewLimitedLog(p.config.logger())
	p.node.Purger.OnPurge = func(one store.Purge, asked bool) {
		if len(one.Selectors) == 0 {
			return // a marker
		}
		if !asked {
			events.LogPurge(p.config.logger(), one)
		}
		p.events.Purged(one)
	}
	p.node.Purger.Names = p.config.namesOf
	p.node.OnCall, p.node.OnReach = observeCall, p.onReach
	p.node.Client.OnHealth(p.onHealth)
	guard.Report(p.onPanic)
	guard.Go(func() { p.events.Run(p.node.Over) })
	guard.Go(func() { p.samples.Keep(p.node.Over, p.counters.sample) })
	guard.Go(func() { node.KeepMemory(p.node.Over, cacheSize, p.laneFiles.Taken) })
	return p
}

// onHealth tells of a peer that begins not to answer, or answers again.
func (p *process) onHealth(addr string, degraded bool) {
	name := addr
	for _, o := range p.node.Others() {
		if o.Addr == addr {
			name = o.Name
		}
	}
	data := map[string]any{"member": name, "peers": addr}
	fields := []zap.Field{zap.String("member", name), zap.String("peers", addr)}
	if degraded {
		p.events.Emit(events.Degraded, data)
		p.quiet.Write(zapcore.WarnLevel, "degraded "+name, "peer unreachable, circuit open", fields...)
		return
	}
	p.events.Emit(events.Recovered, data)
	p.quiet.Write(zapcore.InfoLevel, "recovered "+name, "peer reachable again, circuit closed", fields...)
}

// onPanic tells of a panic that would have ended the process.
func (p *process) onPanic(value any, stack []byte) {
	text := fmt.Sprint(value)
	p.quiet.Write(zapcore.ErrorLevel, "panic "+text[:min(len(text), 48)], "a goroutine has panicked; the process goes on", zap.String("panic", text), zap.ByteString("stack", stack))
}

// accepts reports what a reload would have to change and cannot.
func (p *process) accepts(a *App) error {
	if p.cacheSize != a.CacheSize {
		return fmt.Errorf("cache_size cannot change from %s to %s while Caddy runs: restart it",
			humanize.IBytes(uint64(p.cacheSize)), humanize.IBytes(uint64(a.CacheSize)))
	}
	if a.Name != "" && a.Name != p.node.Name {
		return fmt.Errorf("the node's name cannot change from %q to %q while Caddy runs: restart it", p.node.Name, a.Name)
	}
	if (p.persist == nil) != (a.Persist == nil) || p.persist != nil && p.persist.Dir != a.Persist.Path {
		return fmt.Errorf("persist cannot change while Caddy runs: restart it")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return nil
	}
	return p.running.Accepts(a.cluster)
}

func (p *process) start(a *App) error {
	c, logger := a.cluster, p.config.logger()
	p.life.Lock()
	defer p.life.Unlock()
	if p.running != nil {
		before := p.running
		if err := p.change(c); err != nil {
			return err
		}
		p.newest, p.before = a, before
		return nil
	}
	if err := p.node.Identity.SetSecrets(gossip.PeerSecrets(c.Keys)); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Peers)
	if err != nil {
		return fmt.Errorf("listening for other nodes at peers %s: %w; if it is in use, another process has it, or this Caddy's admin endpoint", c.Peers, err)
	}
	server := peer.NewServer(node.Owner{Node: p.node}, p.node.Identity)
	server.Reporter, server.Life = p, p.node.Life
	server.OnRefusal = func(why error) { p.quiet.Refused("peers", why.Error()) }
	members, err := p.joinCluster(c)
	if err != nil {
		listener.Close()
		return fmt.Errorf("joining the cluster at gossip %s: %w", c.Gossip, err)
	}
	guard.Go(func() {
		if err := server.Serve(listener); err != nil {
			logger.Error("no longer listening for other nodes; restart Caddy", zap.Error(err))
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	guard.Go(func() { p.node.Purger.KeepBeat(ctx) })
	p.newest, p.endBeat, p.peers = a, cancel, listener
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.members, p.server = &c, members, server
	return nil
}

func (p *process) stop(a *App, refused bool) error {
	p.life.Lock()
	defer p.life.Unlock()
	before := p.before
	p.before = nil
	switch {
	case a != p.newest: // the new config has taken over
	case before != nil:
		return p.change(*before)
	case refused: // the config before has no cluster
		err := p.members.Leave(leaveTimeout)
		p.close()
		return err
	}
	return nil // or Caddy stops
}

// change has a running node go by a new configuration. Connections follow
// the secrets: see Rekey.
func (p *process) change(c gossip.Cluster) error {
	if err := p.node.Identity.SetSecrets(gossip.PeerSecrets(c.Keys)); err != nil {
		return err
	}
	if err := p.members.SetKeys(c.Keys); err != nil {
		return err
	}
	p.server.Rekey()
	p.node.Client.Rekey()
	p.members.SetJoin(c.Join)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = &c
	return nil
}

// logger returns a logger that follows the running config: what outlives a reload must not
// go on writing to the files of the config before.
func (c *runningConfig) logger() *zap.Logger {
	return events.NewLog(func() *zap.Logger {
		if a := c.app.Load(); a != nil {
			return a.logger
		}
		return nil
	})
}

// configStops notes until when a config's requests are to have ended.
func (p *process) configStops(grace time.Duration) {
	p.stopBy.Store(nil)
	if grace > 0 {
		p.stopBy.Store(new(time.Now().Add(grace)))
	}
}

// configRuns takes over what the last process has kept, when the first config has
// started as a whole: one that fails leaves it to the next process.
func (p *process) configRuns() {
	if p.persist == nil {
		return
	}
	if err := p.persist.Begin(p.config.app.Load().cluster.Enabled); err != nil {
		p.config.logger().Error("the cache begins empty", zap.Error(err))
	}
}

// savedKeys are what authenticates the file that the process leaves.
func (c *runningConfig) savedKeys() (keys [][]byte) {
	for _, k := range c.app.Load().cluster.Keys {
		keys = append(keys, k.Saved)
	}
	return keys
}

// Destruct leaves the cluster. The site's last request is over by then, while
// other nodes are answered until all is handed over to them.
func (p *process) Destruct() error {
	p.life.Lock()
	defer p.life.Unlock()
	var err error
	var saved sync.WaitGroup
	if p.persist != nil && p.persist.Began.Load() {
		guard.GoWait(&saved, func() {
			if err := p.persist.Save(p.running != nil); err != nil {
				p.config.logger().Error("what is stored is lost", zap.Error(err))
			}
		})
	}
	if p.running != nil {
		p.endBeat()
		p.node.HandOver()
		saved.Wait() // it tells others something too
		err = p.members.Leave(leaveTimeout)
		p.node.Drain(p.stopBy.Load()) // which clients of this node may take, too
		p.close()
	}
	saved.Wait()
	p.node.Close()
	if p.persist != nil {
		p.persist.Release()
	}
	return err
}

// close ends what start has begun, once the node has left.
func (p *process) close() {
	p.endBeat()
	p.server.Close()
	p.peers.Close() // which the server does by itself, but perhaps not yet
	p.membersChanged(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.members, p.server = nil, nil, nil
}

// Inspect tells another node what this one knows of a key.
func (p *process) Inspect(q *peer.Query) any { return explain.Inspect(p.node, q) }

// Entries tells another node what this one has stored.
func (p *process) Entries(question []byte) (any, error) { return report.ListFor(p.node, question) }

func (p *process) refused() (gossip, peers int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return 0, 0
	}
	return p.members.Refused(), p.server.Refused()
}

// currentProcess returns the running process, or nil.
func currentProcess() *process {
	var p *process
	nodes.Range(func(_, value any) bool {
		p, _ = value.(*process)
		return p == nil
	})
	return p
}

// handlersOf returns the running config's handlers of a group, or of all.
func (c *runningConfig) handlersOf(group string) (all handlers) {
	if running := c.handlers.Load(); running != nil {
		for name, handlers := range *running {
			if group == "" || name == group {
				all = append(all, handlers...)
			}
		}
	}
	return all
}

// sample returns what all groups have counted, for the history.
func (g *groupCounters) sample() report.Sample {
	s := report.Sample{Requests: make(map[string]int64, statusCount), NotStored: make(map[string]int64)}
	for _, name := range statusNames {
		s.Requests[name.(string)] = 0 // also without any group
	}
	g.each(func(_ string, c *counters) {
		for i, name := range statusNames {
			s.Requests[name.(string)] += c.requests[i].Load()
		}
		for _, why := range rfc9111.Reasons() {
			if n := c.notStored[why].Load(); n > 0 {
				s.NotStored[why.String()] += n
			}
		}
		for i := range c.fills {
			s.Fills += c.fills[i].Load()
		}
	})
	return s
}

// Interface guards
var _ caddy.Destructor = (*process)(nil)
