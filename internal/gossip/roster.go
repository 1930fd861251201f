package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// A dead member's address is retried ever more rarely, up to once in
	// retryDeadMax, until the member is forgotten.
	retryDeadMax = time.Minute
	// A member that is gone is shown, and retried if it died, for forgetAfter.
	// Not longer: where addresses are reused, another cluster may own it by then.
	forgetAfter = time.Hour
	maxGone     = 64
	// maxMembers bounds what forged alive messages can add to the roster.
	maxMembers = 1024
	// suspectFor is the longest that memberlist takes to make up its mind
	// about a suspect, for up to ten members (see suspicionTimeout there).
	suspectFor = 10 * time.Second
)

// The states of a member, as memberlist names them.
const (
	StateAlive   = "alive"
	StateSuspect = "suspect"
	StateDead    = "dead"
	StateLeft    = "left"
)

// A Member is a node as memberlist sees it.
type Member struct {
	Name    string
	State   string // "alive", "suspect", "dead", "left"
	Gossip  string // host:port
	Peers   string // host:port of its cache traffic, from node meta; "" if it cannot be dialed
	Version uint8  // of the protocol that it speaks at Peers
	Life    uint64 // a random number of its process; 0: it tells none
	Self    bool
}

// Present reports whether the member is thought to be running. A suspect is: most
// suspects refute, and a ring that changes for each lost packet moves keys for
// nothing.
func (m Member) Present() bool { return m.State == StateAlive || m.State == StateSuspect }

// A roster is the record of all members, as memberlist's events tell of them.
type roster struct {
	self    string        // this node's name
	local   bool          // this node is reached from its own machine only
	changed chan struct{} // 1-buffered: records may have changed

	// mu guards records. It is a leaf: see the top of gossip.go.
	mu      sync.Mutex
	records map[string]*record
}

// A record holds all that this node knows of one member.
type record struct {
	Member                      // State is never "suspect" here: that is suspectUntil
	addr         netip.AddrPort // Gossip
	suspectUntil time.Time
	gone         time.Time // since when it is dead or left
	retryAt      time.Time // when a dead one is tried again
	retryWait    time.Duration
	receiver     receiver // as the member's meta says
}

func newRoster(self string) *roster {
	return &roster{self: self, changed: make(chan struct{}, 1), records: make(map[string]*record)}
}

// note records a node as memberlist describes it.
func (ro *roster) note(n *memberlist.Node, left bool) {
	meta := decodeMeta(n.Meta)
	ip, _ := netip.AddrFromSlice(n.Addr) // checked in accept
	addr := netip.AddrPortFrom(ip.Unmap(), n.Port)

	defer poke(ro.changed) // after the lock
	ro.mu.Lock()
	defer ro.mu.Unlock()
	r := ro.records[n.Name]
	if r == nil {
		r = new(record)
		ro.records[n.Name] = r
	}
	if meta.leaving {
		meta.peers = r.Peers // for the status: where it was
	} else {
		r.receiver = meta.receiver
	}
	// memberlist's Node has a State, but memberlist never sets it (nodeState
	// shadows it), nor does an event say whether a node left or died. Hence
	// the announcement in the meta.
	state := StateAlive
	switch {
	case meta.leaving || left && r.State == StateLeft:
		state = StateLeft
	case left:
		state = StateDead
	}
	if state != r.State {
		r.gone, r.retryAt, r.retryWait = time.Time{}, time.Time{}, 0
		if state != StateAlive {
			r.gone = time.Now()
		}
	}
	r.suspectUntil = time.Time{}
	r.addr = addr
	r.Member = Member{
		Name: n.Name, State: state, Gossip: addr.String(),
		Peers: meta.peers, Version: meta.version, Life: r.receiver.life, Self: n.Name == ro.self,
	}
}

// accept returns why a node that memberlist has not heard of before, or whose
// description has changed, must not become a member.
func (ro *roster) accept(n *memberlist.Node) error {
	if err := checkName(n.Name); err != nil {
		return err
	}
	if ip, ok := netip.AddrFromSlice(n.Addr); !ok || ip.IsUnspecified() || ip.IsMulticast() || n.Port == 0 {
		return errors.New("its address cannot be dialed")
	}
	if err := ro.reachable(n); err != nil {
		return err
	}
	if len(n.Meta) > memberlist.MetaMaxSize {
		return errors.New("its meta is too long")
	}
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.records[n.Name] == nil && len(ro.records) >= maxMembers {
		return errors.New("there are too many members")
	}
	return nil
}

// reachable refuses a member that advertises a loopback address to nodes of other
// machines: each of them would reach itself there.
func (ro *roster) reachable(n *memberlist.Node) error {
	if ro.local || n.Name == ro.self {
		return nil
	}
	host, _, _ := net.SplitHostPort(decodeMeta(n.Meta).peers)
	peers, err := netip.ParseAddr(host)
	if own := host == "localhost" || err == nil && peers.IsLoopback(); own || n.Addr.IsLoopback() {
		return fmt.Errorf("it advertises a loopback address (gossip %s, peers %s), which only its own machine reaches: correct its options gossip and peers, or add advertise there", n.Addr, host)
	}
	return nil
}

// knows reports whether a process is a member, present or not, at an address.
func (ro *roster) knows(life uint64, at net.Addr) bool {
	from, ok := at.(*net.UDPAddr)
	if !ok || life == 0 {
		return false
	}
	addr := from.AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, r := range ro.records {
		if r.receiver.life == life && r.addr == addr {
			return true
		}
	}
	return false
}

// alone reports whether this node sees no other member.
func (ro *roster) alone() bool {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, r := range ro.records {
		if r.Present() && !r.Self {
			return false
		}
	}
	return true
}

// suspect notes that a probe of a member has failed.
func (ro *roster) suspect(name string) {
	ro.mu.Lock()
	if r := ro.records[name]; r != nil && r.State == StateAlive {
		r.suspectUntil = time.Now().Add(suspectFor)
	}
	ro.mu.Unlock()
	poke(ro.changed)
}

// trust ends a suspicion.
func (ro *roster) trust(name string) {
	ro.mu.Lock()
	r := ro.records[name]
	was := r != nil && !r.suspectUntil.IsZero()
	if was {
		r.suspectUntil = time.Time{}
	}
	ro.mu.Unlock()
	if was {
		poke(ro.changed)
	}
}

// members lists the records in order of name, after forgetting those that are
// gone for too long, or are too many.
func (ro *roster) members(now time.Time) []Member {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.forgetLocked(now)
	list := make([]Member, 0, len(ro.records))
	for _, r := range ro.records {
		mb := r.Member
		if mb.State == StateAlive && now.Before(r.suspectUntil) {
			mb.State = StateSuspect
		}
		list = append(list, mb)
	}
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (ro *roster) forgetLocked(now time.Time) {
	var gone []*record
	for name, r := range ro.records {
		if r.Present() {
			continue
		}
		if now.Sub(r.gone) > forgetAfter {
			delete(ro.records, name)
			continue
		}
		gone = append(gone, r)
	}
	if len(gone) > maxGone {
		slices.SortFunc(gone, func(a, b *record) int { return b.gone.Compare(a.gone) })
		for _, r := range gone[maxGone:] {
			delete(ro.records, r.Name)
		}
	}
}

// receiverAt returns the member that a packet goes to, by name or, for answers
// to a member that gave none, by address.
func (ro *roster) receiverAt(to memberlist.Address) receiver {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if r := ro.records[to.Name]; r != nil {
		return r.receiver
	}
	addr, err := netip.ParseAddrPort(to.Addr)
	if err != nil {
		return receiver{}
	}
	for _, r := range ro.records {
		if r.addr == addr && r.Present() {
			return r.receiver
		}
	}
	return receiver{}
}

// lives returns the lives of all members, those included that are gone.
func (ro *roster) lives() map[uint64]bool {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	lives := make(map[uint64]bool, len(ro.records))
	for _, r := range ro.records {
		lives[r.receiver.life] = true
	}
	delete(lives, 0) // of those that have told none
	return lives
}

// targets returns the addresses of the members that are present, this node
// excepted, and of those dead members whose turn it is to be tried. A dead one
// is tried after base, then ever more rarely.
func (ro *roster) targets(now time.Time, base time.Duration) (present, dead map[netip.AddrPort]bool) {
	present, dead = make(map[netip.AddrPort]bool), make(map[netip.AddrPort]bool)
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, r := range ro.records {
		if r.Present() && !r.Self {
			present[r.addr] = true
		}
	}
	for _, r := range ro.records {
		if r.State != StateDead || r.Self || present[r.addr] || now.Before(r.retryAt) {
			continue
		}
		r.retryWait = min(max(2*r.retryWait, base), retryDeadMax)
		r.retryAt = now.Add(r.retryWait)
		dead[r.addr] = true
	}
	return present, dead
}

// retrySoon is called when a dead member's address answered. One push/pull is
// not always enough to revive it: the other side has to refute its death first.
func (ro *roster) retrySoon(addr netip.AddrPort) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	for _, r := range ro.records {
		if r.addr == addr {
			r.retryAt, r.retryWait = time.Time{}, 0
		}
	}
}
