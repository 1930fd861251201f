package caddygroupcache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// This file turns what memberlist tells into lists of members.
//
// The data flows one way. memberlist calls back on its receive loop, in part
// with its own lock held; a callback only notes what it was told in
// membership.nodes and pokes the watch goroutine. watch alone builds lists
// and calls onChange. The rejoin goroutine alone calls memberlist's Join.
// Nothing calls memberlist while holding membership.mu, since callbacks take
// mu with memberlist's lock held.

// protocolVersion is the version of the peer protocol this build speaks. A
// member of another version stays a member but is not in the ring.
const protocolVersion = 1

const (
	// gossipLabel stands before every packet and stream, so that clusters of
	// other software on the same network are not merged with ours by mistake.
	// It is no secret: only keys keep strangers out.
	gossipLabel       = "caddy-groupcache"
	defaultGossipPort = 7946

	defaultRejoinEvery = 5 * time.Second
	// A dead member's address is retried ever more rarely, up to once in
	// retryDeadMax, until the member is forgotten.
	retryDeadMax = time.Minute
	// A member that is gone is shown, and retried if it died, for forgetAfter.
	// Not longer: where addresses are reused, another cluster may own it by then.
	forgetAfter = time.Hour
	maxGone     = 64
	// maxMembers bounds what forged alive messages can make us remember.
	maxMembers = 4096
	// youngFor is how long a new node repeats its own state to others, see rejoin.
	youngFor = time.Minute
	// suspectFor is the longest that memberlist takes to make up its mind
	// about a suspect, for up to ten members (see suspicionTimeout there).
	suspectFor = 10 * time.Second

	resolveTimeout  = 3 * time.Second
	maxSeedAddrs    = 64 // per seed
	maxJoins        = 8  // at the same time
	maxNodeName     = 255
	maxPeerAddr     = 253 + len(":65535")
	maxLocalState   = 1 << 20
	mergeQueue      = 16
	maxStreams      = 64      // inbound, at the same time
	maxStreamBytes  = 4 << 20 // memberlist itself would read 20 MiB before it checks the key
	greetTimeout    = 5 * time.Second
	announceTimeout = time.Second
	housekeeping    = time.Second
	quietFor        = time.Minute // between two log lines of one kind
	maxLogKinds     = 64
	maxLogKindBytes = 48
)

// The states of a member, as memberlist names them.
const (
	stateAlive   = "alive"
	stateSuspect = "suspect"
	stateDead    = "dead"
	stateLeft    = "left"
)

// member is a node as memberlist sees it.
type member struct {
	Name    string
	State   string // "alive", "suspect", "dead", "left"
	Gossip  string // host:port
	Peers   string // host:port of its cache traffic, from node meta; "" if unreadable
	Version uint8
	Self    bool
}

// usable says whether the member may own keys.
func (m member) usable() bool {
	return m.present() && m.Version == protocolVersion && validPeerAddr(m.Peers)
}

// present says whether the member is thought to be running. A suspect is: most
// suspects refute, and a ring that changes for each lost packet moves keys for nothing.
func (m member) present() bool { return m.State == stateAlive || m.State == stateSuspect }

// membershipConfig is what a membership needs to know. Nothing in it may be
// changed after startMembership; SetJoin and SetKeys are for that.
type membershipConfig struct {
	Name            string         // unique per process
	Gossip          string         // ip:port to bind (TCP and UDP); with port 0 a free one is chosen
	AdvertiseGossip string         // ip:port that others dial; "" = Gossip
	Peers           string         // host:port that others dial for cache traffic
	Join            []string       // seeds: "host", "host:port", IPs, IPv6 with and without brackets; default port 7946
	Keys            []clusterKeys  // the first that all members hold seals, all open; empty = plaintext
	Identity        *peer.Identity // holds the same secrets as Keys, always
	Logger          *zap.Logger    // nil = none
	RejoinEvery     time.Duration  // base interval for resolving and joining seeds again; 0 = 5 s

	// Resolve looks up a seed; nil = net.DefaultResolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// LocalState is what this node adds to memberlist's push/pull with
	// another, at most 1 MiB; more is not sent. It is called on memberlist's
	// goroutines, several at a time, and must not wait for anything.
	// MergeState gets what others added, one call at a time, on a goroutine
	// of its own; if it is too slow, states are dropped: the next push/pull
	// brings them again. Either may be nil.
	LocalState func() []byte
	MergeState func([]byte)

	// Changed is told of each change of a member; the zero member stands for
	// none. It must not wait, and may be nil.
	Changed func(was, is member)

	// tune shortens memberlist's timeouts in tests; nil otherwise.
	tune func(*memberlist.Config)
}

// membership is a running memberlist.
type membership struct {
	cfg       membershipConfig
	log       *zap.Logger
	onChange  func([]member)
	ml        *memberlist.Memberlist
	transport *gossipTransport
	gossipLog *gossipLog
	bound     netip.AddrPort
	advertise netip.AddrPort
	started   time.Time

	refused       atomic.Int64
	mergesDropped atomic.Int64
	leaving       atomic.Bool // from now on our node meta says so

	seal *packetSeal             // nil if gossip is plaintext
	held atomic.Pointer[[]keyID] // which keys this node holds, for its meta

	changed chan struct{} // 1-buffered: nodes changed
	joinNow chan struct{} // 1-buffered: join changed
	merges  chan []byte

	cancel    context.CancelFunc // ends watch, rejoin and merge
	watchDone chan struct{}
	wg        sync.WaitGroup
	stopOnce  sync.Once
	stopErr   error

	// mu guards what follows. It is a leaf: see the top of the file.
	mu        sync.Mutex
	nodes     map[string]*nodeRecord
	join      []string
	skipRound context.CancelFunc // ends the join round under way

	// keysMu makes one rotation at a time out of several calls to keyring,
	// which is nil if gossip is plaintext, and guards what follows. It comes
	// before mu.
	keysMu  sync.Mutex
	keyring *memberlist.Keyring
	keys    []clusterKeys
	turn    int // which key seals as long as this node is alone

	announceMu sync.Mutex // makes one call at a time of those to UpdateNode
}

// nodeRecord is what is known of one member.
type nodeRecord struct {
	member                      // State is never "suspect" here: that is suspectUntil
	addr         netip.AddrPort // Gossip
	suspectUntil time.Time
	gone         time.Time // since when it is dead or left
	retryAt      time.Time // when a dead one is tried again
	retryWait    time.Duration
	life         uint64  // see packetSeal; 0: it has told none
	keys         []keyID // which it holds
}

// startMembership opens the sockets and begins to join; it never waits for
// seeds. onChange is called with the members that are alive or suspect, self
// included, in order of name, each time that list changed: from one goroutine,
// never from a memberlist callback, never concurrently, and not once Leave has
// begun. It must not call Leave.
func startMembership(cfg membershipConfig, onChange func([]member)) (*membership, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.RejoinEvery <= 0 {
		cfg.RejoinEvery = defaultRejoinEvery
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &membership{
		cfg:       cfg,
		log:       cfg.Logger,
		onChange:  onChange,
		started:   time.Now(),
		changed:   make(chan struct{}, 1),
		joinNow:   make(chan struct{}, 1),
		merges:    make(chan []byte, mergeQueue),
		watchDone: make(chan struct{}),
		nodes:     make(map[string]*nodeRecord),
		join:      slices.Clone(cfg.Join),
		keys:      slices.Clone(cfg.Keys),
	}
	m.hold(cfg.Keys)
	m.gossipLog = &gossipLog{log: m.log, refused: &m.refused, suspect: m.noteSuspect, kinds: make(map[string]*logKind)}
	if err := m.open(); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.wg.Go(func() { m.watch(ctx) })
	m.wg.Go(func() { m.rejoin(ctx) })
	if cfg.MergeState != nil {
		m.wg.Go(func() { m.merge(ctx) })
	}
	return m, nil
}

func (cfg *membershipConfig) validate() error {
	if err := checkNodeName(cfg.Name); err != nil {
		return fmt.Errorf("checking the node name %q: %w; give this node a short printable name of its own", cfg.Name, err)
	}
	if !validPeerAddr(cfg.Peers) {
		return fmt.Errorf("checking the peer address %q: it is not host:port with a port from 1 to 65535; give the address at which the other nodes reach this one", cfg.Peers)
	}
	for _, seed := range cfg.Join {
		if _, _, err := parseSeed(seed); err != nil {
			return err
		}
	}
	if len(cfg.Keys) > 0 && cfg.Identity == nil {
		return errors.New("keys without an identity for streams")
	}
	return checkKeys(cfg.Keys)
}

// open starts the transport and memberlist on it.
func (m *membership) open() error {
	bind, err := netip.ParseAddrPort(m.cfg.Gossip)
	if err != nil {
		return fmt.Errorf("reading the gossip address %q: %w; write it as ip:port", m.cfg.Gossip, err)
	}
	logger := log.New(m.gossipLog, "", 0)
	var security gossipSecurity
	if len(m.cfg.Keys) > 0 {
		m.seal = newPacketSeal()
		m.seal.setKeys(m.cfg.Keys)
		security = gossipSecurity{identity: m.cfg.Identity, seal: m.seal, lifeOf: m.lifeOf}
	}
	m.transport, err = newGossipTransport(bind, security, logger)
	if err != nil {
		return err
	}
	m.bound = netip.AddrPortFrom(bind.Addr(), uint16(m.transport.GetAutoBindPort()))
	m.advertise, err = m.cfg.advertised(m.bound)
	if err != nil {
		_ = m.transport.Shutdown()
		return err
	}

	c := memberlist.DefaultLANConfig()
	c.Name = m.cfg.Name
	c.Label = gossipLabel
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
	c.GossipVerifyIncoming = true
	c.GossipVerifyOutgoing = true
	if len(m.cfg.Keys) > 0 {
		keys := gossipKeys(m.cfg.Keys)
		m.keyring, err = memberlist.NewKeyring(keys, keys[0])
		c.UDPBufferSize -= sealBytes
		if err != nil {
			_ = m.transport.Shutdown()
			return fmt.Errorf("loading the gossip keys: %w", err)
		}
		c.Keyring = m.keyring
	}
	cb := callbacks{m}
	c.Delegate, c.Events, c.Alive, c.Ping = cb, cb, cb, cb
	if m.cfg.tune != nil {
		m.cfg.tune(c)
	}
	m.ml, err = memberlist.Create(c)
	if err != nil {
		m.gossipLog.quiet.Store(true)
		_ = m.transport.Shutdown()
		return fmt.Errorf("starting gossip on %s: %w", m.bound, err)
	}
	return nil
}

// advertised is the address that the others get to know for bound.
func (cfg *membershipConfig) advertised(bound netip.AddrPort) (netip.AddrPort, error) {
	if cfg.AdvertiseGossip == "" {
		return bound, nil
	}
	addr, err := netip.ParseAddrPort(cfg.AdvertiseGossip)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the advertised gossip address %q: %w; write it as ip:port", cfg.AdvertiseGossip, err)
	}
	return addr, nil
}

// Members lists all members in order of name, those included that died or left not long ago.
func (m *membership) Members() []member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.membersLocked(time.Now())
}

// Addr is the gossip address in use, ip:port, as others dial it.
func (m *membership) Addr() string { return m.advertise.String() }

// Refused counts packets and streams on the gossip port that memberlist
// refused: not ours, sealed with another key, or broken.
func (m *membership) Refused() int64 { return m.refused.Load() }

// SetJoin replaces the seeds; the new ones are joined at once.
func (m *membership) SetJoin(seeds []string) {
	m.mu.Lock()
	m.join = slices.Clone(seeds)
	if m.skipRound != nil {
		m.skipRound()
	}
	m.mu.Unlock()
	poke(m.joinNow)
}

// SetKeys makes keys the gossip keys: all open, and the first that all members
// hold seals, so that nodes can be given a new first key one after the other.
// Encryption itself cannot be turned on or off while running: for as long as
// it is half on, anybody could speak.
func (m *membership) SetKeys(keys []clusterKeys) error {
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	switch {
	case m.keyring == nil && len(keys) == 0:
		return nil
	case m.keyring == nil:
		return errors.New("setting gossip keys: this node was started without any; restart it to turn encryption on")
	case len(keys) == 0:
		return errors.New("removing all gossip keys: this node was started with some; restart it to turn encryption off")
	}
	if err := checkKeys(keys); err != nil {
		return err
	}
	if slices.EqualFunc(m.keys, keys, func(a, b clusterKeys) bool { return a.id == b.id }) {
		return nil
	}
	m.keys = slices.Clone(keys)
	if err := m.sealLocked(); err != nil {
		return fmt.Errorf("rotating gossip keys: %w", err)
	}
	m.hold(keys)
	m.wg.Go(func() {
		if err := m.announce(announceTimeout); err != nil {
			m.log.Debug("telling the members which keys this node holds; push/pull will", zap.Error(err))
		}
	})
	return nil
}

// announce tells the others this node's meta. memberlist reads without a lock
// there what another call writes.
func (m *membership) announce(timeout time.Duration) error {
	m.announceMu.Lock()
	defer m.announceMu.Unlock()
	return m.ml.UpdateNode(timeout)
}

func (m *membership) hold(keys []clusterKeys) {
	var ids []keyID
	for _, k := range keys {
		ids = append(ids, k.id)
	}
	m.held.Store(&ids)
}

// reseal sees to it that gossip is sealed with a key that the members hold.
func (m *membership) reseal() {
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	if m.keyring == nil {
		return
	}
	if err := m.sealLocked(); err != nil {
		m.log.Error("choosing the key that seals gossip", zap.Error(err))
	}
}

// sealLocked makes the keyring and the seal of packets hold keys and seal with
// the one that chooseKey chooses.
func (m *membership) sealLocked() error {
	var others [][]keyID
	m.mu.Lock()
	for _, r := range m.nodes {
		if r.present() && !r.Self {
			others = append(others, r.keys)
		}
	}
	m.mu.Unlock()
	i := chooseKey(m.keys, others, m.turn)
	order := slices.Concat(m.keys[i:i+1], m.keys[:i], m.keys[i+1:])
	if slices.EqualFunc(m.keyring.GetKeys(), order, func(a []byte, b clusterKeys) bool { return string(a) == string(b.gossip) }) {
		return nil
	}
	m.seal.setKeys(order)
	return rotate(m.keyring, gossipKeys(order))
}

// alone reports whether there is no other member.
func (m *membership) alone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.nodes {
		if r.present() && !r.Self {
			return false
		}
	}
	return true
}

// lifeOf returns the life of the member that a packet goes to, by name or, for
// answers to a member that gave none, by address.
func (m *membership) lifeOf(to memberlist.Address) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.nodes[to.Name]; r != nil {
		return r.life
	}
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return 0
	}
	for _, r := range m.nodes {
		if r.addr == addr && r.present() {
			return r.life
		}
	}
	return 0
}

// rotate makes the ring hold want and seal with want[0].
//
// Keyring.RemoveKey closes the gap in place, in the array that GetKeys has
// handed to whoever is opening a packet right now: a data race. Removing the
// last key closes no gap. So the keys that stay are moved to the front first;
// only UseKey, which builds a new array, can move one. Keys that were not there
// before come last, since sealing with one of those, however shortly, is
// sealing with what others may not have yet.
func rotate(ring *memberlist.Keyring, want [][]byte) error {
	has := func(keys [][]byte, key []byte) bool {
		return slices.ContainsFunc(keys, func(k []byte) bool { return string(k) == string(key) })
	}
	old := ring.GetKeys()
	stay := slices.DeleteFunc(slices.Clone(want), func(k []byte) bool { return !has(old, k) })
	if len(stay) == 0 {
		stay = want[:1]
		if err := ring.AddKey(want[0]); err != nil {
			return err
		}
	}
	for _, key := range slices.Backward(stay) {
		if err := ring.UseKey(key); err != nil {
			return err
		}
	}
	now := slices.Clone(ring.GetKeys())
	for _, key := range slices.Backward(now) {
		if has(want, key) {
			continue
		}
		if err := ring.RemoveKey(key); err != nil {
			return err
		}
	}
	for _, key := range want {
		if err := ring.AddKey(key); err != nil {
			return err
		}
	}
	return ring.UseKey(want[0])
}

// Leave tells the others that this node goes, waiting for that up to timeout,
// and shuts gossip down in any case. A second call waits for the first one and
// returns what it returned. memberlist does not say when its own goroutines
// have ended: the last is a probe under way, a probe interval later at most.
func (m *membership) Leave(timeout time.Duration) error {
	m.stop(func() error {
		deadline := time.Now().Add(max(timeout, time.Millisecond))
		// First the node meta says it, then memberlist does, since only from
		// the meta can the others tell leaving from dying: see note.
		// If that is late, they take us for dead; no reason to wait longer.
		m.leaving.Store(true)
		_ = m.announce(max(timeout/2, time.Millisecond))
		// memberlist takes no time as for ever.
		if err := m.ml.Leave(max(time.Until(deadline), time.Millisecond)); err != nil {
			return fmt.Errorf("telling the other members that this node leaves: %w; they will find out by themselves", err)
		}
		return nil
	})
	return m.stopErr
}

// kill is Leave without a word to anybody.
func (m *membership) kill() { m.stop(func() error { return nil }) }

func (m *membership) stop(goodbye func() error) {
	m.stopOnce.Do(func() {
		m.cancel()
		<-m.watchDone // the ring stays as it is from here on
		m.stopErr = goodbye()
		m.gossipLog.quiet.Store(true)
		// Breaks off every dial and stream, so that a Join to an address
		// that swallows packets holds up nothing.
		if err := m.ml.Shutdown(); err != nil {
			m.stopErr = errors.Join(m.stopErr, fmt.Errorf("closing the gossip sockets: %w", err))
		}
		m.wg.Wait()
	})
}

// watch is the only caller of onChange.
func (m *membership) watch(ctx context.Context) {
	defer close(m.watchDone)
	tick := time.NewTicker(housekeeping) // time alone ends suspicions and memories
	defer tick.Stop()
	var last []member
	logged := make(map[string]member)
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.changed:
		case <-tick.C:
		}
		m.reseal()
		all := m.Members()
		m.logChanges(all, logged)
		current := slices.DeleteFunc(all, func(mb member) bool { return !mb.present() })
		if slices.Equal(current, last) || ctx.Err() != nil {
			continue
		}
		last = slices.Clone(current)
		if m.onChange != nil {
			m.onChange(current)
		}
	}
}

// logChanges writes one line for each member that is not as it was logged last.
func (m *membership) logChanges(all []member, logged map[string]member) {
	for _, mb := range all {
		was := logged[mb.Name]
		if mb == was {
			continue
		}
		if m.cfg.Changed != nil {
			m.cfg.Changed(was, mb)
		}
		fields := []zap.Field{
			zap.String("member", mb.Name), zap.String("state", mb.State),
			zap.String("gossip", mb.Gossip), zap.String("peers", mb.Peers), zap.Uint8("version", mb.Version),
		}
		if mb.present() && !mb.usable() {
			m.log.Warn("member is not put into the ring: it speaks another version of the peer protocol, or its peer address is unreadable", fields...)
		} else {
			m.log.Info("member changed", fields...)
		}
	}
	clear(logged)
	for _, mb := range all {
		logged[mb.Name] = mb
	}
}

// merge hands states from others to MergeState, off memberlist's receive loop.
func (m *membership) merge(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case state := <-m.merges:
			m.cfg.MergeState(state)
		}
	}
}

// membersLocked lists nodes after forgetting those that are gone for too long, or are too many.
func (m *membership) membersLocked(now time.Time) []member {
	var gone []*nodeRecord
	for name, r := range m.nodes {
		if r.present() {
			continue
		}
		if now.Sub(r.gone) > forgetAfter {
			delete(m.nodes, name)
			continue
		}
		gone = append(gone, r)
	}
	if len(gone) > maxGone {
		slices.SortFunc(gone, func(a, b *nodeRecord) int { return b.gone.Compare(a.gone) })
		for _, r := range gone[maxGone:] {
			delete(m.nodes, r.Name)
		}
	}
	list := make([]member, 0, len(m.nodes))
	for _, r := range m.nodes {
		mb := r.member
		if mb.State == stateAlive && now.Before(r.suspectUntil) {
			mb.State = stateSuspect
		}
		list = append(list, mb)
	}
	slices.SortFunc(list, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// note takes over what memberlist says of a node.
func (m *membership) note(n *memberlist.Node, left bool) {
	meta := decodeNodeMeta(n.Meta)
	ip, _ := netip.AddrFromSlice(n.Addr) // checked in NotifyAlive
	addr := netip.AddrPortFrom(ip.Unmap(), n.Port)

	m.mu.Lock()
	r := m.nodes[n.Name]
	if r == nil {
		r = new(nodeRecord)
		m.nodes[n.Name] = r
	}
	if meta.leaving {
		meta.peers = r.Peers // for the status: where it was
	} else {
		r.life, r.keys = meta.life, meta.keys
	}
	// memberlist's Node has a State, but memberlist never sets it (nodeState
	// shadows it), nor does an event say whether a node left or died. Hence
	// the announcement in the meta.
	state := stateAlive
	switch {
	case meta.leaving || left && r.State == stateLeft:
		state = stateLeft
	case left:
		state = stateDead
	}
	if state != r.State {
		r.gone, r.retryAt, r.retryWait = time.Time{}, time.Time{}, 0
		if state != stateAlive {
			r.gone = time.Now()
		}
	}
	r.suspectUntil = time.Time{}
	r.addr = addr
	r.member = member{
		Name: n.Name, State: state, Gossip: addr.String(),
		Peers: meta.peers, Version: meta.version, Self: n.Name == m.cfg.Name,
	}
	m.mu.Unlock()
	poke(m.changed)
}

// noteSuspect is told by gossipLog that a probe of name failed.
func (m *membership) noteSuspect(name string) {
	m.mu.Lock()
	if r := m.nodes[name]; r != nil && r.State == stateAlive {
		r.suspectUntil = time.Now().Add(suspectFor)
	}
	m.mu.Unlock()
	poke(m.changed)
}

// callbacks is what memberlist calls: delegate, events, alive and ping
// delegate in one. None may wait or call memberlist: see the top of the file.
type callbacks struct{ m *membership }

func (c callbacks) NotifyJoin(n *memberlist.Node)   { c.m.note(n, false) }
func (c callbacks) NotifyUpdate(n *memberlist.Node) { c.m.note(n, false) }
func (c callbacks) NotifyLeave(n *memberlist.Node)  { c.m.note(n, true) }

// NotifyAlive refuses nodes whose description makes no sense, before
// memberlist remembers them and tells the others.
func (c callbacks) NotifyAlive(n *memberlist.Node) error {
	if err := checkNodeName(n.Name); err != nil {
		return err
	}
	if ip, ok := netip.AddrFromSlice(n.Addr); !ok || ip.IsUnspecified() || ip.IsMulticast() || n.Port == 0 {
		return errors.New("its address cannot be dialed")
	}
	if len(n.Meta) > memberlist.MetaMaxSize {
		return errors.New("its meta is too long")
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.nodes[n.Name] == nil && len(c.m.nodes) >= maxMembers {
		return errors.New("there are too many members")
	}
	return nil
}

// NotifyPingComplete ends a suspicion. Only a direct answer gets here; after an
// indirect one the mark stays until suspectFor is over, which only shows.
func (c callbacks) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	c.m.mu.Lock()
	r := c.m.nodes[n.Name]
	was := r != nil && !r.suspectUntil.IsZero()
	if was {
		r.suspectUntil = time.Time{}
	}
	c.m.mu.Unlock()
	if was {
		poke(c.m.changed)
	}
}

func (c callbacks) AckPayload() []byte              { return nil }
func (c callbacks) NotifyMsg([]byte)                {}
func (c callbacks) GetBroadcasts(_, _ int) [][]byte { return nil }

func (c callbacks) NodeMeta(int) []byte {
	if c.m.leaving.Load() {
		return nodeMeta{version: protocolVersion, leaving: true}.encode()
	}
	meta := nodeMeta{version: protocolVersion, peers: c.m.cfg.Peers, keys: *c.m.held.Load()}
	if c.m.seal != nil {
		meta.life = c.m.seal.life
	}
	return meta.encode()
}

func (c callbacks) LocalState(bool) []byte {
	if c.m.cfg.LocalState == nil {
		return nil
	}
	state := c.m.cfg.LocalState()
	if len(state) > maxLocalState {
		return nil
	}
	return state
}

func (c callbacks) MergeRemoteState(state []byte, _ bool) {
	if c.m.cfg.MergeState == nil || len(state) == 0 || len(state) > maxLocalState {
		return
	}
	select {
	case c.m.merges <- slices.Clone(state):
	default:
		c.m.mergesDropped.Add(1)
	}
}

// nodeMeta is what a node tells all others of itself: one byte of protocol
// version, then the peer address. Without an address it says: I am leaving. A
// build of another version keeps to that much. In a cluster with secrets there
// follow a zero byte, the node's life (see packetSeal), and the ids of the keys
// that it holds.
type nodeMeta struct {
	version uint8
	leaving bool
	peers   string // "" if it is no address
	life    uint64
	keys    []keyID
}

func (n nodeMeta) encode() []byte {
	if n.leaving {
		return []byte{n.version}
	}
	b := append([]byte{n.version}, n.peers...)
	if n.life == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint64(append(b, 0), n.life)
	for _, id := range n.keys {
		b = append(b, id[:]...)
	}
	return b
}

// decodeNodeMeta reads what any stranger may have written.
func decodeNodeMeta(meta []byte) nodeMeta {
	if len(meta) == 0 {
		return nodeMeta{}
	}
	n := nodeMeta{version: meta[0], leaving: len(meta) == 1}
	peers, secured, found := bytes.Cut(meta[1:], []byte{0})
	if !validPeerAddr(string(peers)) {
		return n
	}
	if found {
		ids := len(secured) - 8
		if ids < 0 || ids%len(keyID{}) != 0 || ids/len(keyID{}) > maxSecrets {
			return n
		}
		if n.life = binary.BigEndian.Uint64(secured); n.life == 0 {
			return n
		}
		for id := range slices.Chunk(secured[8:], len(keyID{})) {
			n.keys = append(n.keys, keyID(id))
		}
	}
	n.peers = string(peers)
	return n
}

// validPeerAddr says whether s is host:port that can be dialed: an IP or a
// DNS name, a port in digits. A zone means something on one host only.
func validPeerAddr(s string) bool {
	if len(s) > maxPeerAddr {
		return false
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.IsUnspecified() && ip.Zone() == ""
	}
	return validHostName(host)
}

func validHostName(s string) bool {
	return s != "" && len(s) <= 253 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
	}) < 0
}

func checkNodeName(s string) error {
	switch {
	case s == "":
		return errors.New("it is empty")
	case len(s) > maxNodeName:
		return errors.New("it is too long")
	case !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		return errors.New("it has bytes that cannot be printed")
	}
	return nil
}

func checkKeys(keys []clusterKeys) error {
	for i, key := range keys {
		if err := memberlist.ValidateKey(key.gossip); err != nil {
			return fmt.Errorf("checking gossip key %d of %d, which has %d bytes: %w", i+1, len(keys), len(key.gossip), err)
		}
	}
	return nil
}

// parseSeed reads "host", "host:port", an IP, an IPv6 with or without brackets.
func parseSeed(seed string) (host string, port uint16, err error) {
	host, port, err = splitHostPort(seed, defaultGossipPort)
	if err == nil && port == 0 {
		err = errors.New("port 0 cannot be dialed")
	}
	if err != nil {
		return "", 0, fmt.Errorf("reading the seed %q: %w; write an address or DNS name, with or without a port", seed, err)
	}
	return host, port, nil
}

func splitHostPort(s string, defaultPort uint16) (host string, port uint16, err error) {
	host, port = s, defaultPort
	if ip, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(ip, "]") {
		host = strings.TrimSuffix(ip, "]")
	} else if _, err := netip.ParseAddr(s); err != nil && strings.Contains(s, ":") {
		var digits string
		if host, digits, err = net.SplitHostPort(s); err != nil {
			return "", 0, err
		}
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("%q is no port", digits)
		}
		port = uint16(n)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return "", 0, errors.New("memberlist cannot dial an address with a zone")
		}
	} else if !validHostName(host) {
		return "", 0, fmt.Errorf("%q is neither an IP nor a host name", host)
	}
	return host, port, nil
}

// lookup resolves host, which may be an IP, to all its addresses.
func (cfg *membershipConfig) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := cfg.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	var ips []netip.Addr
	for _, ip := range found {
		ip = ip.Unmap()
		if ip.IsValid() && ip.Zone() == "" && !slices.Contains(ips, ip) && len(ips) < maxSeedAddrs {
			ips = append(ips, ip)
		}
	}
	if len(ips) == 0 {
		return nil, errors.New("no address found")
	}
	return ips, nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // a poke is pending, and its taker has yet to look
	}
}

// rejoin joins seeds for ever: two halves of a cluster that were apart for
// longer than memberlist gossips to the dead never find each other by
// themselves, and a seed that was down must not stay alone. So not being alone
// is no reason to stop.
func (m *membership) rejoin(ctx context.Context) {
	outcomes := make(map[string]string) // of each seed, as last logged
	for {
		round, cancel := context.WithCancel(ctx)
		m.mu.Lock()
		m.skipRound = cancel
		seeds := slices.Clone(m.join)
		m.mu.Unlock()
		m.joinRound(round, seeds, outcomes)
		cancel()

		// Jitter: nodes that start together must not resolve and join in step for ever.
		every := m.cfg.RejoinEvery
		wait := time.NewTimer(every*3/4 + rand.N(every/2+1))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-m.joinNow:
			wait.Stop()
		case <-wait.C:
		}
	}
}

// What became of a seed in a round. The texts are for the log.
const (
	seedJoined      = "joined"
	seedSelf        = "is this node itself"
	seedUnresolved  = "cannot be resolved"
	seedUnreachable = "cannot be joined"
)

// joinRound joins what the seeds resolve to now, as far as that is not among
// the members, and dead members.
func (m *membership) joinRound(ctx context.Context, seeds []string, outcomes map[string]string) {
	resolved := m.resolveSeeds(ctx, seeds)
	if ctx.Err() != nil {
		return
	}
	present, targets := m.targets(time.Now())
	self := m.selfAddrs()
	for _, r := range resolved {
		for _, addr := range r.addrs {
			if !present[addr] && !self(addr) {
				targets[addr] = true
			}
		}
	}
	// Others refuse a node that comes back with its old name and a new
	// address until they have noticed the death and DeadNodeReclaimTime is
	// over, while to the node itself all looks well. So for its first minute
	// it repeats its state to a random member.
	if time.Since(m.started) < youngFor {
		for addr := range present { // in random order
			targets[addr] = true
			break
		}
	}

	joined := m.joinAll(ctx, targets)
	for turn := 1; turn < m.keyCount() && len(targets) > 0 && m.alone() && ctx.Err() == nil; turn++ {
		// Who is there may hold another of the keys than the first.
		m.useTurn(turn)
		joined = m.joinAll(ctx, targets)
	}
	m.useTurn(0)
	if ctx.Err() != nil {
		return
	}
	seen := make(map[string]bool)
	for i, r := range resolved {
		seen[seeds[i]] = true
		outcome, err := r.outcome(present, self, joined)
		if outcomes[seeds[i]] == outcome {
			continue
		}
		outcomes[seeds[i]] = outcome
		switch outcome {
		case seedJoined:
			m.log.Info("seed joined", zap.String("seed", seeds[i]))
		case seedSelf:
			m.log.Debug("seed is this node itself", zap.String("seed", seeds[i]))
		default:
			m.log.Warn("seed "+outcome+"; trying again for ever", zap.String("seed", seeds[i]), zap.Error(err))
		}
	}
	for seed := range outcomes {
		if !seen[seed] {
			delete(outcomes, seed)
		}
	}
}

// useTurn has a node that is alone seal with one of its keys.
func (m *membership) useTurn(turn int) {
	m.keysMu.Lock()
	m.turn = turn
	m.keysMu.Unlock()
	m.reseal()
}

func (m *membership) keyCount() int {
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	return len(m.keys)
}

// resolvedSeed is what one seed stands for in this round.
type resolvedSeed struct {
	addrs []netip.AddrPort
	err   error
}

func (m *membership) resolveSeeds(ctx context.Context, seeds []string) []resolvedSeed {
	resolved := make([]resolvedSeed, len(seeds))
	var wg sync.WaitGroup
	for i, seed := range seeds {
		wg.Go(func() {
			host, port, err := parseSeed(seed)
			if err != nil {
				resolved[i].err = err
				return
			}
			ips, err := m.cfg.lookup(ctx, host)
			if err != nil {
				resolved[i].err = err
				return
			}
			for _, ip := range ips {
				resolved[i].addrs = append(resolved[i].addrs, netip.AddrPortFrom(ip, port))
			}
		})
	}
	wg.Wait()
	return resolved
}

func (r resolvedSeed) outcome(present map[netip.AddrPort]bool, self func(netip.AddrPort) bool, joined map[netip.AddrPort]error) (string, error) {
	if r.err != nil {
		return seedUnresolved, r.err
	}
	outcome, failure := seedSelf, error(nil)
	for _, addr := range r.addrs {
		err, tried := joined[addr]
		switch {
		case present[addr] || tried && err == nil:
			return seedJoined, nil
		case self(addr):
		default:
			outcome, failure = seedUnreachable, err
		}
	}
	return outcome, failure
}

// targets returns the addresses of the members that are there, self excepted,
// and of those dead members whose turn it is to be tried.
func (m *membership) targets(now time.Time) (present, dead map[netip.AddrPort]bool) {
	present, dead = make(map[netip.AddrPort]bool), make(map[netip.AddrPort]bool)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.nodes {
		if r.present() && !r.Self {
			present[r.addr] = true
		}
	}
	for _, r := range m.nodes {
		if r.State != stateDead || r.Self || present[r.addr] || now.Before(r.retryAt) {
			continue
		}
		r.retryWait = min(max(2*r.retryWait, m.cfg.RejoinEvery), retryDeadMax)
		r.retryAt = now.Add(r.retryWait)
		dead[r.addr] = true
	}
	return present, dead
}

// joinAll joins targets, a few at a time, and says how each went.
func (m *membership) joinAll(ctx context.Context, targets map[netip.AddrPort]bool) map[netip.AddrPort]error {
	joined := make(map[netip.AddrPort]error, len(targets))
	var mu sync.Mutex // guards joined
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxJoins)
	for addr := range targets {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			// An IP and port: memberlist then resolves nothing by itself.
			_, err := m.ml.Join([]string{addr.String()})
			if one := errors.Unwrap(err); one != nil {
				err = one // a list of one error is printed over several lines
			}
			mu.Lock()
			joined[addr] = err
			mu.Unlock()
			if err == nil {
				m.retrySoon(addr)
			}
		})
	}
	wg.Wait()
	return joined
}

// retrySoon is called when a dead member's address answered. One push/pull is
// not always enough to revive it: the other side has to refute its death first.
func (m *membership) retrySoon(addr netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.nodes {
		if r.addr == addr {
			r.retryAt, r.retryWait = time.Time{}, 0
		}
	}
}

// selfAddrs returns a test for addresses that lead back to this node.
func (m *membership) selfAddrs() func(netip.AddrPort) bool {
	var local []netip.Addr
	if m.bound.Addr().IsUnspecified() {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			m.log.Debug("listing this host's addresses", zap.Error(err))
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				local = append(local, prefix.Addr().Unmap().WithZone(""))
			}
		}
	}
	return func(addr netip.AddrPort) bool {
		return addr == m.advertise || addr == m.bound ||
			addr.Port() == m.bound.Port() && slices.Contains(local, addr.Addr())
	}
}

// Interface guards
var (
	_ memberlist.Delegate      = callbacks{}
	_ memberlist.EventDelegate = callbacks{}
	_ memberlist.AliveDelegate = callbacks{}
	_ memberlist.PingDelegate  = callbacks{}
)
