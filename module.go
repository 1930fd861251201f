// Package caddygroupcache lets a cluster of Caddy servers share one cache of
// the responses of their upstreams, with nothing to install beside Caddy.
//
// The handler http.handlers.groupcache stands before the handlers whose
// responses it caches, usually reverse_proxy. It serves what is stored,
// fetches what is not by calling them, and makes sure that one response is
// fetched once however many clients of however many nodes ask for it. The app
// groupcache keeps what the nodes share: memory, membership, connections.
//
// Bodies live in a golang/groupcache Group, which never changes a value;
// everything that HTTP changes (freshness, headers, which body is current)
// lives in entries beside it.
package caddygroupcache

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(new(Handler))
	caddy.RegisterModule(new(adminAPI))
}

const (
	defaultCacheSize = 256 << 20
	minCacheSize     = 1 << 20
	defaultGossip    = "127.0.0.1:7946"
	gossipPort       = "7946"
	peersPort        = "8000"
	leaveTimeout     = 2 * time.Second
)

// App is this process's node of the cluster: the memory that all groupcache
// handlers share, and its membership. Without any of the fields from Gossip on
// there is one node and no listener.
//
// The node outlives config reloads. CacheSize, Name and the addresses cannot
// change without a restart; a reload that would change them is refused.
type App struct {
	// All memory that this node spends on the cache, in bytes: bodies,
	// entries, and responses that are coming in. Default: 256 MiB.
	CacheSize int64 `json:"cache_size,omitempty"`

	// The address for membership (TCP and UDP), host:port; the host is an IP
	// address or "localhost". Default: 127.0.0.1:7946.
	Gossip string `json:"gossip,omitempty"`

	// The address for cache traffic between nodes (TCP), host:port.
	// Default: the host of Gossip, port 8000.
	Peers string `json:"peers,omitempty"`

	// What other nodes dial, where that differs from Gossip and Peers.
	Advertise *Advertise `json:"advertise,omitempty"`

	// Where to find other nodes: addresses or DNS names, with or without a
	// port (7946). Names are resolved again and again, and all their
	// addresses are tried, for ever.
	Join []string `json:"join,omitempty"`

	// The node's name, unique in the cluster. Default: the host's name with a
	// random part, new at every start.
	Name string `json:"name,omitempty"`

	// Secrets that nodes of the cluster share: 32 or more random bytes in
	// base64. The first seals, all open. Without one, a cluster beyond
	// loopback needs Insecure.
	Secret []string `json:"secret,omitempty"`

	// Run a cluster beyond loopback without a secret: whoever reaches Gossip
	// or Peers can read and write the cache. Default: false.
	Insecure bool `json:"insecure,omitempty"`

	// Show the URLs of the busiest keys on the dashboard, of all nodes that have
	// this. Default: hashes of keys.
	ShowKeys bool `json:"show_keys,omitempty"`

	// Keeps what is stored over a restart: a node that stops writes it to a file,
	// and the process that starts next reads it back. Default: off.
	Persist *Persist `json:"persist,omitempty"`

	logger  *zap.Logger
	process *process
	cluster clusterConfig

	mu     sync.Mutex // guards groups
	groups map[string]*Handler

	replaced *map[string]*Handler // groups of the config before
	before   *App                 // of the config before
	stopped  bool                 // by Stop, which Caddy calls when no Start is under way
}

// Advertise is what other nodes dial.
type Advertise struct {
	// Instead of the app's Gossip, IP:port.
	Gossip string `json:"gossip,omitempty"`

	// Instead of the app's Peers, IP:port.
	Peers string `json:"peers,omitempty"`
}

// Persist says where a node keeps what it has stored over a restart.
type Persist struct {
	// A directory for this process only, which is made if it is not there. At most
	// as much as CacheSize is written to it. Default: groupcache in the directory
	// of Caddy's data.
	Path string `json:"path,omitempty"`
}

// clusterConfig is the App's cluster part, with defaults and placeholders
// filled in.
type clusterConfig struct {
	enabled                         bool
	gossip, peers                   string // to bind
	advertiseGossip, advertisePeers string // to dial
	join                            []string
	keys                            []clusterKeys
	insecure                        bool
}

// process is the node and what belongs to it beside the cache itself.
type process struct {
	node      *node
	cacheSize int64
	counters  groupCounters
	samples   samples
	started   time.Time
	persist   *persistence // nil: nothing is kept

	mu      sync.Mutex // guards below
	running *clusterConfig
	members *membership
	server  *peer.Server
	peers   net.Listener // the server's
	// While one config takes over from another: the App that started last, and
	// what to go back to if its config fails.
	newest *App
	before *clusterConfig

	handlers atomic.Pointer[map[string]*Handler] // of the running config, by group
	app      atomic.Pointer[App]                 // of the running config
	endBeat  context.CancelFunc
	events   *events
	quiet    *gossipLog // for its limit on lines about others
}

func newProcess(name string, cacheSize int64) *process {
	p := &process{node: newNode(name, cacheSize), cacheSize: cacheSize, started: time.Now(), events: newEvents()}
	p.quiet = &gossipLog{log: p.logger(), kinds: make(map[string]*logKind)}
	p.node.onPurge = func(one store.Purge, asked bool) {
		if len(one.Selectors) == 0 {
			return // a marker
		}
		if !asked {
			p.logPurge(one)
		}
		p.purgeEvent(one)
	}
	p.node.client.OnHealth(p.onHealth)
	go p.events.run(p.node.over)
	go p.keepSampling(p.node.over)
	return p
}

// onHealth tells of a peer that begins not to answer, or answers again.
func (p *process) onHealth(addr string, degraded bool) {
	name := addr
	for _, o := range p.node.others() {
		if o.Addr == addr {
			name = o.Name
		}
	}
	data := map[string]any{"member": name, "peers": addr}
	fields := []zap.Field{zap.String("member", name), zap.String("peers", addr)}
	if degraded {
		p.events.emit(eventDegraded, data)
		p.quiet.limited(zapcore.WarnLevel, "degraded "+name, "peer does not answer, and is left alone for a while", fields...)
		return
	}
	p.events.emit(eventRecovered, data)
	p.quiet.limited(zapcore.InfoLevel, "recovered "+name, "peer answers again", fields...)
}

// nodes holds the one process from its first config to its last, so that a
// reload loses no entry, no member, no socket and no counter.
var nodes = caddy.NewUsagePool()

const nodeKey = "node"

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "groupcache", New: func() caddy.Module { return new(App) }}
}

// Provision takes hold of the node, which it makes for the first config. No
// socket is opened before Start.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.groups = make(map[string]*Handler)
	if a.CacheSize == 0 {
		a.CacheSize = defaultCacheSize
	}
	if a.CacheSize < minCacheSize {
		return fmt.Errorf("cache_size %d is too small: at least %s", a.CacheSize, humanize.IBytes(minCacheSize))
	}
	var err error
	if a.cluster, err = a.resolve(caddy.NewReplacer()); err != nil {
		return err
	}
	name := a.Name
	if name == "" {
		name = uniqueName()
	}
	value, _, err := nodes.LoadOrNew(nodeKey, func() (caddy.Destructor, error) {
		p := newProcess(name, a.CacheSize)
		if a.Persist != nil {
			p.persist = &persistence{dir: a.Persist.Path}
		}
		return p, nil
	})
	if err != nil {
		return err
	}
	a.process = value.(*process)
	if err := a.process.accepts(a); err != nil {
		return err
	}
	if err := a.process.events.subscribe(ctx); err != nil {
		return err
	}
	return registerMetrics(ctx.GetMetricsRegistry(), a.process)
}

// accepts reports what a reload would have to change and cannot.
func (p *process) accepts(a *App) error {
	if p.cacheSize != a.CacheSize {
		return fmt.Errorf("cache_size cannot change from %s to %s while Caddy runs: restart it",
			humanize.IBytes(uint64(p.cacheSize)), humanize.IBytes(uint64(a.CacheSize)))
	}
	if a.Name != "" && a.Name != p.node.name {
		return fmt.Errorf("the node's name cannot change from %q to %q while Caddy runs: restart it", p.node.name, a.Name)
	}
	if (p.persist == nil) != (a.Persist == nil) || p.persist != nil && p.persist.dir != a.Persist.Path {
		return fmt.Errorf("persist cannot change while Caddy runs: restart it")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return nil
	}
	was, is := *p.running, a.cluster
	if !is.enabled {
		return fmt.Errorf("the node cannot leave its cluster while Caddy runs: restart it without the cluster's options")
	}
	was.join, was.keys, was.insecure = is.join, is.keys, is.insecure
	switch {
	case len(p.running.keys) == 0 && len(is.keys) > 0:
		return fmt.Errorf("a node that was started without a secret cannot get one while Caddy runs, because until all nodes have one the cluster would fall apart: restart it")
	case len(p.running.keys) > 0 && len(is.keys) == 0:
		return fmt.Errorf("the last secret cannot go while Caddy runs: put the new one before it, or restart")
	}
	if !reflect.DeepEqual(was, is) {
		return fmt.Errorf("gossip %s, peers %s and what they advertise cannot change while Caddy runs: restart it", p.running.gossip, p.running.peers)
	}
	return nil
}

// Start joins the cluster, or tells the running membership what has changed. The
// first config takes over what the last process has kept.
func (a *App) Start() error {
	p := a.process.persist
	if p == nil || p.began.Load() {
		return a.start()
	}
	if err := p.prepare(); err != nil {
		return err
	}
	if err := a.start(); err != nil {
		return err
	}
	p.began.Store(true)
	if kept := p.take(); kept != nil {
		go a.process.restore(kept, a.cluster.enabled)
	}
	return nil
}

func (a *App) start() error {
	a.replaced, a.before = a.process.handlers.Swap(&a.groups), a.process.app.Swap(a)
	a.process.node.busy.show.Store(a.ShowKeys)
	if !a.cluster.enabled {
		return nil
	}
	switch {
	case a.cluster.insecure && len(a.cluster.keys) == 0:
		a.logger.Warn("insecure: whoever reaches gossip or peers reads and writes this cache")
	case a.cluster.insecure:
		a.logger.Warn("insecure has no effect beside a secret: remove it")
	}
	return a.process.start(a)
}

// Stop undoes what Start changed if the config before is to go on, because
// another part of this one failed. The node itself leaves when no config holds
// it any more.
func (a *App) Stop() error {
	if a.before != nil && !a.before.stopped { // otherwise what is said while Caddy stops is for this config to log
		a.process.handlers.CompareAndSwap(&a.groups, a.replaced)
		a.process.app.CompareAndSwap(a, a.before)
	}
	a.stopped = true
	a.replaced, a.before = nil, nil // or every config would keep alive all those before it
	return a.process.stop(a)
}

// Cleanup lets go of the node.
func (a *App) Cleanup() error {
	if a.process == nil {
		return nil
	}
	_, err := nodes.Delete(nodeKey)
	return err
}

func (p *process) start(a *App) error {
	c, logger := a.cluster, p.logger()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		before := p.running
		if err := p.changeLocked(c); err != nil {
			return err
		}
		p.newest, p.before = a, before
		return nil
	}
	if err := p.node.identity.SetSecrets(peerSecrets(c.keys)); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.peers)
	if err != nil {
		return fmt.Errorf("listening for other nodes at peers %s: %w", c.peers, err)
	}
	server := peer.NewServer(p.node, p.node.identity)
	server.Reporter = p
	server.OnRefusal = func(why error) { p.quiet.refusal("peers", why.Error()) }
	members, err := startMembership(membershipConfig{
		Name: p.node.name, Gossip: c.gossip, AdvertiseGossip: c.advertiseGossip,
		Peers: c.advertisePeers, Join: c.join, Keys: c.keys, Identity: p.node.identity, Logger: logger,
		LocalState: func() []byte { return peer.EncodePurges(p.node.Purges()) },
		MergeState: p.node.mergePurges, Changed: p.memberEvent,
	}, p.onChange)
	if err != nil {
		listener.Close()
		return fmt.Errorf("joining the cluster at gossip %s: %w", c.gossip, err)
	}
	go func() {
		if err := server.Serve(listener); err != nil {
			logger.Error("no longer listening for other nodes; restart Caddy", zap.Error(err))
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	go p.node.keepBeat(ctx)
	p.running, p.members, p.server, p.newest, p.endBeat = &c, members, server, a, cancel
	p.peers = listener
	return nil
}

func (p *process) stop(a *App) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.before
	p.before = nil
	if before == nil || a != p.newest {
		return nil // Caddy stops, or the new config has taken over
	}
	return p.changeLocked(*before)
}

// changeLocked has a running node go by a new configuration. Connections follow
// the secrets: see Rekey.
func (p *process) changeLocked(c clusterConfig) error {
	if err := p.node.identity.SetSecrets(peerSecrets(c.keys)); err != nil {
		return err
	}
	if err := p.members.SetKeys(c.keys); err != nil {
		return err
	}
	p.server.Rekey()
	p.node.client.Rekey()
	p.members.SetJoin(c.join)
	p.running = &c
	return nil
}

func peerSecrets(keys []clusterKeys) []peer.Secret {
	var secrets []peer.Secret
	for _, k := range keys {
		secrets = append(secrets, k.peers)
	}
	return secrets
}

// onChange turns members into a ring.
func (p *process) onChange(members []member) {
	var ring []peer.Node
	foreign := []string{}
	for _, m := range members {
		if m.usable() {
			ring = append(ring, peer.Node{Name: m.Name, Addr: m.Peers})
		} else if !m.Self {
			foreign = append(foreign, m.Name)
		}
	}
	p.node.foreign.Store(&foreign)
	p.node.setRing(ring)
}

// Destruct leaves the cluster. The site's last request is over by then, while
// other nodes are answered until all is handed over to them.
func (p *process) Destruct() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	var saved sync.WaitGroup
	if p.persist != nil && p.persist.began.Load() {
		saved.Go(func() {
			if err := p.save(); err != nil {
				p.logger().Error("what is stored is lost", zap.Error(err))
			}
		})
	}
	if p.running != nil {
		p.endBeat()
		p.node.handOver()
		saved.Wait() // it tells others something too
		err = p.members.Leave(leaveTimeout)
		p.server.Close()
		p.peers.Close() // which the server does by itself, but perhaps not yet
	}
	saved.Wait()
	p.node.close()
	return err
}

// handlersOf returns the running config's handlers of a group, or of all: one
// of each group.
func (p *process) handlersOf(group string) []*Handler {
	var all []*Handler
	if running := p.handlers.Load(); running != nil {
		for name, h := range *running {
			if group == "" || name == group {
				all = append(all, h)
			}
		}
	}
	return all
}

// Inspect tells another node what this one knows of a key.
func (p *process) Inspect(q *peer.Query) any { return p.node.inspectFor(q) }

func (p *process) share() float64 {
	ring := p.node.ring.Load()
	if len(ring.Nodes()) == 0 {
		return 1
	}
	return ring.Share(p.node.name)
}

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

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
	_ caddy.Destructor   = (*process)(nil)
)
