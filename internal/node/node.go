// Package node is one process's part of the cluster: what it stores, what it is
// fetching, and its way to the other nodes. It knows neither Caddy nor memberlist.
package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Node is this process's part of the cluster: what it stores, what it is
// fetching, and its way to the other nodes. It survives config reloads and
// knows neither Caddy's configuration nor memberlist.
//
// A request takes one of three paths:
//
//   - local hit: Find has a fresh entry and its body;
//   - remote hit: Find has not, and Ask brings both from the owner, in one
//     round trip, or reads along while another request fetches;
//   - miss: Ask returns a lease, the handler fetches, and Flight.PublishStream
//     hands the response to the owner while it comes in.
//
// The owner itself has no other node to ask: a request that finds nothing
// leads a flight at once. Owner.Lookup and Owner.Publish are its side of Ask and
// PublishStream.
type Node struct {
	Name     string
	Life     uint64 // a random number of this process
	Loops    loops
	Store    *store.Store
	Budget   *fill.Budget   // bodies in flight
	Identity *peer.Identity // how it shows other nodes that it is one
	Client   *peer.Client
	Ring     atomic.Pointer[peer.Ring]
	Previous previousOwners // of keys that have moved
	Members  members        // of the cluster, on the ring or not

	// What is being fetched from the upstream, here or by the holder of a
	// lease. Other nodes may read along.
	Fills flights
	// What is being copied from another node. Only this node's own requests
	// read along, so that two nodes which disagree about the ring never wait
	// for each other.
	Asks flights
	// Conditional requests under way for what needs one each time.
	Validations validations
	// Chunks that are being transferred, and those that clients are served from.
	Chunks Chunks
	Pins   Pins
	// What is fetched for clients that are gone.
	Orphans orphans

	Served  atomic.Int64 // look-ups of other nodes
	readers atomic.Int64 // responses still coming in that other nodes read here, or where this one publishes them

	Over context.Context // ends with the node
	end  context.CancelFunc

	// Told of a member that is not put into the ring because it does not answer, with
	// the reason, and when it answers; then the reason is nil. It must not wait, and
	// may be nil.
	OnReach func(of peer.Node, why error)

	Purger     Purger     // what was purged, and what others have to be told of it
	clock      clock      // what it dates leases with
	Rejections Rejections // why responses were not stored, for explain
	Failures   failures   // for which keys the upstream has just failed
	HotKeys    HotKeys    // what is asked for most, for the dashboard

	// Told of each call to another node. It must not wait, and may be nil.
	OnCall func(operation string, err error, took time.Duration)
}

const (
	// How the memory of cache_size is divided.
	bodyShare, indexShare, FlightShare = 8, 3, 5 // sixteenths

	// What a look-up of another node goes by that doesn't say it, and what handlers
	// have by default.
	DefaultFillTimeout = time.Minute
	DefaultPeerTimeout = 250 * time.Millisecond

	// UncacheableFor is how long no request waits for another at a URL whose
	// responses are not stored (hit-for-miss).
	UncacheableFor = 30 * time.Second

	// InlineTransfer is the largest body that is copied from the owner
	// before the client gets any of it.
	InlineTransfer = 64 << 10
)

// New returns a node with a name, and memory of so many bytes for all that it caches.
func New(name string, cacheSize int64) *Node {
	n := &Node{
		Name:     name,
		Life:     max(rand.Uint64(), 1),
		Store:    store.New(cacheSize/16*bodyShare, cacheSize/16*indexShare),
		Budget:   fill.NewBudget(cacheSize / 16 * FlightShare),
		Identity: new(peer.Identity),
		clock:    newClock(),
	}
	n.Pins.Limit = cacheSize / 16 * FlightShare / 2
	n.Over, n.end = context.WithCancel(context.Background())
	n.Purger.node, n.Chunks.node, n.Pins.node, n.Previous.node, n.Members.node = n, n, n, n, n
	n.Purger.Foreign.Store(new([]string))
	n.Client = peer.NewClient(n.Identity)
	n.Client.Reserve = n.Budget.Take
	n.Loops.Self = LoopID(n.Life)
	n.Loops.Set(nil)
	n.SetRing(nil)
	return n
}

// SetRing puts a new ring in place. No request ever waits for it. A node that was not on
// the last one may know of purges that this node has missed, and the other way
// round.
func (n *Node) SetRing(nodes []peer.Node) {
	added := n.replaceRing(nodes, nodes)
	n.Purger.catchUp(added, false)
	for _, o := range added {
		n.Purger.remind(o)
	}
}

// replaceRing puts a ring in place of another, and returns the nodes that were not on
// that one, this node excepted. Known are all nodes that are called, on the ring or not.
func (n *Node) replaceRing(nodes, known []peer.Node) (added []peer.Node) {
	ring := peer.NewRing(n.Name, nodes)
	if before := n.Ring.Load(); before != nil {
		n.Previous.note(before, ring, time.Now()) // so that a request that sees the new one knows it
	}
	last := n.Ring.Swap(ring)
	n.Client.Keep(known)
	if last == nil {
		return nil
	}
	for _, o := range n.Others() {
		if !slices.Contains(last.Nodes(), o) {
			added = append(added, o)
		}
	}
	for _, to := range added {
		move{n, to, last, ring}.begin()
	}
	return added
}

// Owner returns the node that owns a key now, and whether that is this one. When the one that
// the ring assigns it to does not answer, the next stands in, so that all nodes still have one
// to ask, long before they agree that the other is gone.
func (n *Node) Owner(k store.Key) (owner peer.Node, self bool) {
	ring := n.Ring.Load()
	if owner, self = ring.Owner(k); self || !n.Client.LeavesAlone(owner) {
		return owner, self
	}
	return ring.OwnerBut(k, func(o peer.Node) bool { return o.Name != n.Name && n.Client.LeavesAlone(o) })
}

// LargestBody returns the size from which on a whole body is not stored, because
// it would throw out all others: half of what all nodes keep, if they are alike.
func (n *Node) LargestBody() int64 {
	nodes := max(len(n.Ring.Load().Nodes()), 1)
	return n.Store.BodyLimit() / 2 * int64(nodes)
}

// Remember keeps in mind that nothing of a URL is stored, if the reason is the nature of
// its responses, or that the upstream has failed.
func (n *Node) Remember(space *store.Namespace, k store.Key, why rfc9111.Reason) {
	switch {
	case why == rfc9111.UpstreamFailed:
		n.Failures.Note(k, time.Now())
	case why.RemembersUncacheable():
		n.Store.MarkUncacheable(space, k, why, time.Now().Add(UncacheableFor))
	}
}

// UnderWay is how much a node has in hand at one moment. In the end each is 0.
type UnderWay struct {
	Fills, Asks int   // flights, by their table
	Leases      int   // that this node has given, as the owner
	Reminders   int   // nodes that are still to be told of purges
	Chunks      int   // being transferred
	Bytes       int64 // of the budget
}

// UnderWay returns what the node has in hand.
func (n *Node) UnderWay() UnderWay {
	fills, leases := n.Fills.count()
	asks, _ := n.Asks.count()
	n.Chunks.mu.Lock()
	defer n.Chunks.mu.Unlock()
	n.Purger.reminders.mu.Lock()
	defer n.Purger.reminders.mu.Unlock()
	return UnderWay{Reminders: len(n.Purger.reminders.nodes), Fills: fills, Asks: asks, Leases: leases, Chunks: len(n.Chunks.transfers), Bytes: n.Budget.Used()}
}

// Close lets go of the memory and the connections.
func (n *Node) Close() {
	n.end()
	n.Client.Close()
	n.Store.Close()
}
