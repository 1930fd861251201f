// Package gossip keeps the list of a cluster's members, by memberlist.
//
// Start opens one port for TCP and UDP, joins the seeds again and again, and
// calls back with each new list of members. Leave ends it. With secrets,
// streams are mutual TLS and packets are sealed (see seal): a process without
// one of the secrets can read no message and forge none, and its attempts are
// counted. Secrets and seeds may change while a node runs. Every message is
// bounded before it is kept.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

// The data flows one way. memberlist calls back on its receive loop, in part
// with its own lock held; a callback only updates the roster, and pokes the watch
// goroutine. watch alone builds lists and calls OnChange.
// The joiner's goroutine alone calls memberlist's Join. Nothing calls memberlist
// while holding the roster's lock, since callbacks take it with memberlist's
// lock held.

const (
	// label stands before every packet and stream, so that clusters of other
	// software, or with another name, on the same network are not merged with this one
	// by mistake: where an address is used again, or one secret for two. It is no secret:
	// only secrets keep other processes out.
	label = "caddy-groupcache"

	maxLocalState   = 1 << 20
	mergeQueue      = 16
	announceTimeout = time.Second
	housekeeping    = time.Second
)

// A Membership is a running memberlist.
type Membership struct {
	cfg       Config
	log       *zap.Logger
	list      *memberlist.Memberlist
	transport *transport
	seal      *seal // nil if gossip is plaintext
	roster    *roster
	joiner    *joiner
	lines     *memberlistLog
	bound     netip.AddrPort
	advertise netip.AddrPort

	refused       atomic.Int64
	late          latecomers
	mergesDropped atomic.Int64
	leaving       atomic.Bool // from now on this node's meta says so
	merges        chan []byte

	cancel    context.CancelFunc // ends watch, joiner and merge
	watchDone chan struct{}
	wg        sync.WaitGroup
	stopOnce  sync.Once
	stopErr   error

	announceMu sync.Mutex // makes one call at a time of those to UpdateNode
}

// Start opens the sockets and begins to join; it never waits for seeds.
func Start(cfg Config) (*Membership, error) {
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m := &Membership{
		cfg:       cfg,
		log:       cfg.Logger,
		roster:    newRoster(cfg.Name),
		merges:    make(chan []byte, mergeQueue),
		watchDone: make(chan struct{}),
	}
	m.lines = newMemberlistLog(m.log, &m.refused, m.roster.suspect)
	m.lines.secured = len(cfg.Keys) > 0
	m.roster.local = cfg.isLocal()
	if err := m.open(); err != nil {
		return nil, err
	}
	m.joiner = newJoiner(m)

	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	guard.GoWait(&m.wg, func() { m.watch(ctx) })
	guard.GoWait(&m.wg, func() { m.joiner.run(ctx) })
	if cfg.MergeState != nil {
		guard.GoWait(&m.wg, func() { m.merge(ctx) })
	}
	return m, nil
}

// open starts the transport, and memberlist on it.
func (m *Membership) open() error {
	bind, err := netip.ParseAddrPort(m.cfg.Gossip)
	if err != nil {
		return fmt.Errorf("reading the gossip address %q: %w; write it as ip:port", m.cfg.Gossip, err)
	}
	logger := log.New(m.lines, "", 0)
	var secured security
	if len(m.cfg.Keys) > 0 {
		if m.seal, err = newSeal(m.cfg.Keys, m.roster.lives); err != nil {
			return err
		}
		if m.cfg.Life != 0 {
			m.seal.life = m.cfg.Life
		}
		secured = security{identity: m.cfg.Identity, seal: m.seal, receiverAt: m.roster.receiverAt, late: &m.late}
	}
	m.transport, err = newTransport(bind, secured, logger)
	if err != nil {
		return err
	}
	m.bound = netip.AddrPortFrom(bind.Addr(), m.transport.port())
	m.advertise, err = m.cfg.advertised(m.bound)
	if err != nil {
		_ = m.transport.Shutdown()
		return err
	}
	m.list, err = memberlist.Create(m.memberlistConfig(logger))
	if err != nil {
		m.lines.quiet.Store(true)
		_ = m.transport.Shutdown()
		return fmt.Errorf("starting gossip on %s: %w", m.bound, err)
	}
	return nil
}

func (m *Membership) memberlistConfig(logger *log.Logger) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = m.cfg.Name
	c.Label = label
	if m.cfg.Cluster != "" {
		c.Label += " " + m.cfg.Cluster
	}
	c.Transport = m.transport
	c.BindAddr, c.BindPort = m.bound.Addr().String(), int(m.bound.Port())
	c.AdvertiseAddr, c.AdvertisePort = m.advertise.Addr().String(), int(m.advertise.Port())
	c.Logger = logger
	// A dead node costs a timeout per request to its keys, and a member wrongly
	// thought dead only some misses: so find out sooner than LAN defaults do.
	c.ProbeInterval = 500 * time.Millisecond
	c.ProbeTimeout = 250 * time.Millisecond
	c.SuspicionMult = 3
	c.GossipInterval = 100 * time.Millisecond
	c.GossipToTheDeadTime = 15 * time.Second
	c.PushPullInterval = 15 * time.Second
	c.TCPTimeout = 2 * time.Second
	// Without this a container that restarts with its name and a new address
	// is refused until memberlist has forgotten the old one.
	c.DeadNodeReclaimTime = 10 * time.Second
	c.EnableCompression = false
	if m.seal != nil {
		c.UDPBufferSize -= sealBytes
	}
	d := delegate{m}
	c.Delegate, c.Events, c.Alive, c.Ping = d, d, d, d
	if m.cfg.tune != nil {
		m.cfg.tune(c)
	}
	return c
}

// Members lists all members in order of name, those included that died or left
// not long ago.
func (m *Membership) Members() []Member { return m.roster.members(time.Now()) }

// Addr is the gossip address in use, ip:port, as others dial it.
func (m *Membership) Addr() string { return m.advertise.String() }

// Refused counts the packets and streams that were refused: of other software,
// not sealed with a secret of this cluster, replayed, or broken.
func (m *Membership) Refused() int64 { return m.refused.Load() }

// SetJoin replaces the seeds; the new ones are joined at once.
func (m *Membership) SetJoin(seeds []string) { m.joiner.setSeeds(seeds) }

// SetKeys replaces the keys: all open, and a packet is sealed with the first that
// its receiver holds, so that nodes can be given a new first key one after the
// other. Encryption itself cannot be turned on or off while a node runs: for as
// long as it is half on, every process could speak.
func (m *Membership) SetKeys(keys []Keys) error {
	switch {
	case m.seal == nil && len(keys) == 0:
		return nil
	case m.seal == nil:
		return errors.New("setting gossip keys: this node was started without any; restart it to turn encryption on")
	case len(keys) == 0:
		return errors.New("removing all gossip keys: this node was started with some; restart it to turn encryption off")
	}
	if changed, err := m.seal.setKeys(keys); err != nil || !changed {
		return err
	}
	guard.GoWait(&m.wg, func() {
		if err := m.announce(announceTimeout); err != nil {
			m.log.Debug("telling the members which keys this node holds; push/pull will", zap.Error(err))
		}
	})
	return nil
}

// announce tells the others this node's meta. Calls of UpdateNode must not overlap:
// it reads, without a lock, fields that it writes.
func (m *Membership) announce(timeout time.Duration) error {
	m.announceMu.Lock()
	defer m.announceMu.Unlock()
	return m.list.UpdateNode(timeout)
}

// Leave tells the others that this node goes, waiting for that up to timeout,
// and shuts gossip down in any case. A second call waits for the first one and
// returns its error. memberlist does not say when its own goroutines
// have ended: the last is a probe under way, a probe interval later at most.
func (m *Membership) Leave(timeout time.Duration) error {
	m.stop(func() error {
		deadline := time.Now().Add(max(timeout, time.Millisecond))
		// First the node meta says it, then memberlist does, since only from
		// the meta can the others tell leaving from dying: see roster.note.
		// If that is late, they take this node for dead; no reason to wait longer.
		m.leaving.Store(true)
		_ = m.announce(max(timeout/2, time.Millisecond))
		// memberlist takes no time as for ever.
		if err := m.list.Leave(max(time.Until(deadline), time.Millisecond)); err != nil {
			return fmt.Errorf("telling the other members that this node leaves: %w; they will find out by themselves", err)
		}
		return nil
	})
	return m.stopErr
}

// kill is Leave without telling the others.
func (m *Membership) kill() { m.stop(func() error { return nil }) }

func (m *Membership) stop(goodbye func() error) {
	m.stopOnce.Do(func() {
		m.cancel()
		<-m.watchDone // the list stays as it is from here on
		m.stopErr = goodbye()
		m.lines.quiet.Store(true)
		// Breaks off every dial and stream, so that a Join to an address
		// that swallows packets holds up nothing.
		if err := m.list.Shutdown(); err != nil {
			m.stopErr = errors.Join(m.stopErr, fmt.Errorf("closing the gossip sockets: %w", err))
		}
		m.wg.Wait()
	})
}

// watch is the only caller of Changed, OnChange and Joined.
func (m *Membership) watch(ctx context.Context) {
	defer close(m.watchDone)
	tick := time.NewTicker(housekeeping) // time alone ends suspicions and memories
	defer tick.Stop()
	var last []Member
	told := make(map[string]Member)
	tried, joined := m.joiner.tried, m.cfg.Joined
	for {
		select {
		case <-ctx.Done():
			return
		case <-tried:
			tried = nil
		case <-m.roster.changed:
		case <-tick.C:
			guard.Run(func() { m.late.settle(m.roster.knows, m.lines) })
		}
		guard.Run(func() { last = m.look(ctx, last, told) })
		if tried == nil && joined != nil {
			guard.Run(joined)
			joined = nil
		}
	}
}

// look tells what has changed since the last look, and returns the present members.
func (m *Membership) look(ctx context.Context, last []Member, told map[string]Member) []Member {
	all := m.Members()
	m.tellChanges(all, told)
	present := slices.DeleteFunc(all, func(mb Member) bool { return !mb.Present() })
	if slices.Equal(present, last) || ctx.Err() != nil {
		return last
	}
	last = slices.Clone(present)
	if m.cfg.OnChange != nil {
		m.cfg.OnChange(present)
	}
	return last
}

// tellChanges calls Changed for each member that is not as it was told last.
func (m *Membership) tellChanges(all []Member, told map[string]Member) {
	if m.cfg.Changed == nil {
		return
	}
	for _, mb := range all {
		if was := told[mb.Name]; mb != was {
			m.cfg.Changed(was, mb)
		}
	}
	clear(told)
	for _, mb := range all {
		told[mb.Name] = mb
	}
}

// errUnmerged is why the state of another node is refused whose merging panics.
var errUnmerged = errors.New("its state cannot be merged")

// merge hands states from others to MergeState, off memberlist's receive loop.
func (m *Membership) merge(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case state := <-m.merges:
			err := errUnmerged // if it makes MergeState panic
			guard.Run(func() { err = m.cfg.MergeState(state) })
			if err != nil {
				m.refused.Add(1)
				m.lines.limited.Refused("gossip", err.Error())
			}
		}
	}
}

// poke wakes the goroutine that waits at c, a channel with room for one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // a poke is pending, and its taker has yet to look
	}
}
