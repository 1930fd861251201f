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
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dustin/go-humanize"
	"go.uber.org/zap"

	_ "github.com/caddy-groupcache/caddy-groupcache/command" // registers caddy groupcache
	"github.com/caddy-groupcache/caddy-groupcache/internal/express"
	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/purging"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(new(Handler))
	caddy.RegisterModule(new(adminAPI))
}

const (
	defaultCacheSize = 256 << 20
	minCacheSize     = 1 << 20
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

	// The cluster's name, the same on all its nodes. Nodes of clusters with other
	// names stay apart, also with one secret or without any, and where an address is
	// used again. Default: none.
	Cluster string `json:"cluster,omitempty"`

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
	cluster gossip.Cluster

	lanes sync.Map // of servers: *Express

	mu     sync.Mutex // guards groups and distinct
	groups handlersByGroup

	distinct handlersByGroup // of a group that has been asked for, those that differ

	replaced *handlersByGroup // groups of the config before
	before   *App             // of the config before
	stopped  bool             // by giveBack, when no other Start is under way
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

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "groupcache", New: func() caddy.Module { return new(App) }}
}

// Provision takes hold of the node, which it makes for the first config. No
// socket is opened before Start.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.groups = make(handlersByGroup)
	if a.CacheSize = cmp.Or(a.CacheSize, defaultCacheSize); a.CacheSize < minCacheSize {
		return fmt.Errorf("cache_size %d is too small: at least %s", a.CacheSize, humanize.IBytes(minCacheSize))
	}
	var err error
	if a.cluster, err = a.resolve(caddy.NewReplacer()); err != nil {
		return err
	}
	value, _, err := nodes.LoadOrNew(nodeKey, func() (caddy.Destructor, error) {
		p := newProcess(cmp.Or(a.Name, gossip.UniqueName()), a.CacheSize)
		if a.Persist != nil {
			p.persist = node.NewPersistence(p.node, a.Persist.Path)
			p.persist.Keys = p.config.savedKeys
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
	if err := a.process.events.Subscribe(ctx, a.process.configRuns, a.process.configStops); err != nil {
		return err
	}
	return registerMetrics(ctx.GetMetricsRegistry(), a.process)
}

// Start joins the cluster, or tells the running membership what has changed. The
// first config makes sure that what the last process has kept is this one's to take.
func (a *App) Start() error {
	if p := a.process.persist; p != nil && !p.Began.Load() {
		if err := p.Prepare(); err != nil {
			return err
		}
	}
	return a.start()
}

func (a *App) start() error {
	if err := a.checkLanes(); err != nil {
		return err
	}
	a.replaced, a.before = a.process.config.handlers.Swap(&a.groups), a.process.config.app.Swap(a)
	a.process.node.HotKeys.Show.Store(a.ShowKeys)
	if !a.cluster.Enabled {
		return nil
	}
	switch {
	case a.cluster.Insecure && len(a.cluster.Keys) == 0:
		a.logger.Warn("insecure: whoever reaches gossip or peers reads and writes this cache")
	case a.cluster.Insecure:
		a.logger.Warn("insecure has no effect beside a secret: remove it")
	}
	err := a.process.start(a)
	if err != nil { // Caddy stops only apps that have started
		a.giveBack()
	}
	return err
}

// Stop gives back what Start took. The node itself leaves when no config holds it
// any more.
func (a *App) Stop() error { return a.process.stop(a, a.giveBack()) }

// giveBack undoes what start changed if the config before is to go on, because a part
// of this one failed. It reports whether that is so.
func (a *App) giveBack() (refused bool) {
	b := a.before
	if refused = b != nil && !b.stopped && a.process.config.app.CompareAndSwap(a, b); refused { // otherwise what is said while Caddy stops is for this config to log
		a.process.config.handlers.CompareAndSwap(&a.groups, a.replaced)
		a.process.node.HotKeys.Show.Store(b.ShowKeys)
	}
	a.stopped, a.replaced, a.before = true, nil, nil // or every config would keep alive all those before it
	return refused
}

// Cleanup lets go of the node.
func (a *App) Cleanup() error {
	if a.process == nil {
		return nil
	}
	_, err := nodes.Delete(nodeKey)
	return err
}

// join makes a handler one of its group.
func (a *App) join(h *Handler) {
	h.app = a
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups[h.Group] = append(a.groups[h.Group], h)
}

// sendersOf returns who may purge by options that may have placeholders. Applications
// have the tokens, and whoever has a secret of the cluster is a node of it: none is both.
func (a *App) sendersOf(repl *caddy.Replacer, tokens, from []string) (allowed purging.Senders, err error) {
	for i, s := range tokens {
		token, err := repl.ReplaceOrErr(s, true, true)
		if err != nil {
			return allowed, fmt.Errorf("purge token: %w", err)
		}
		if a.cluster.IsSecret(token) {
			return allowed, fmt.Errorf("purge token %d: it is a secret of the cluster, and whoever has that is a node; make another one with caddy groupcache keygen", i+1)
		}
		if err := allowed.AddToken(token); err != nil {
			return allowed, err
		}
	}
	for _, s := range from {
		text, err := repl.ReplaceOrErr(s, true, true)
		if err != nil {
			return allowed, fmt.Errorf("purge from: %w", err)
		}
		if err := allowed.AddRange(text); err != nil {
			return allowed, err
		}
	}
	return allowed, nil
}

// Provision fills in the defaults and finds the node.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.setDefaults()
	if err := h.check(); err != nil {
		return err
	}
	h.policy, h.terms = h.options(), h.keyTerms()
	h.around, h.front = &lazyRoute{ctx: ctx}, new(express.Front)
	app, err := ctx.App("groupcache")
	if err != nil {
		return fmt.Errorf("loading the groupcache app: %w", err)
	}
	a := app.(*App)
	if h.Purge != nil {
		if h.purgers, err = a.sendersOf(caddy.NewReplacer(), h.Purge.Tokens, h.Purge.From); err != nil {
			return err
		}
	}
	if err := errors.Join(a.checkExpress(ctx, h), routes.CheckPorts(ctx.Modules(), a.cluster.Takes)); err != nil {
		return err
	}
	a.join(h)
	h.node, h.denials, h.unnamed = a.process.node, &a.process.denials, &a.process.unnamed
	h.named()
	h.counters = a.process.counters.of(h.Group)
	if h.space = h.node.Store.Namespace(h.Group); h.space == nil {
		return fmt.Errorf("group %s: too many groups since Caddy started: restart it", h.Group)
	}
	return nil
}

// resolve fills in the placeholders and defaults of the cluster's options, and checks
// them.
func (a *App) resolve(repl *caddy.Replacer) (gossip.Cluster, error) {
	var err error
	fillIn := func(s string) string {
		filled, replaceErr := repl.ReplaceOrErr(s, true, true)
		if replaceErr != nil && err == nil {
			err = fmt.Errorf("%q: %w", s, replaceErr)
		}
		return filled
	}
	fillInAll := func(all []string) (filled []string) {
		for _, s := range all {
			filled = append(filled, fillIn(s))
		}
		return filled
	}
	a.Name = fillIn(a.Name)
	if a.Persist != nil {
		a.Persist.Path = cmp.Or(fillIn(a.Persist.Path), filepath.Join(caddy.AppDataDir(), "groupcache"))
	}
	c := gossip.Cluster{Name: fillIn(a.Cluster), Gossip: fillIn(a.Gossip), Peers: fillIn(a.Peers), Insecure: a.Insecure}
	c.Enabled = a.Advertise != nil
	if a.Advertise != nil {
		c.AdvertiseGossip, c.AdvertisePeers = fillIn(a.Advertise.Gossip), fillIn(a.Advertise.Peers)
	}
	c.Join = fillInAll(a.Join)
	secrets := fillInAll(a.Secret)
	if err != nil {
		return c, err
	}
	return c, c.Resolve(a.Name, secrets)
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
