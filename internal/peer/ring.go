package peer

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Node is a place on the ring.
type Node struct {
	Name string
	Addr string // host:port of its cache traffic
	Life uint64 // the number of its process, which its answers carry; 0: any will do
	seed uint64
}

// A Ring assigns every key to one node by rendezvous hashing (Thaler and
// Ravishankar, 1998): the owner is the node with the highest score for the
// key. Every node has the same share, and a node that comes or goes moves only
// its own keys. A Ring is immutable; the zero value has no nodes.
type Ring struct {
	nodes []Node
	self  string
}

// NewRing returns the ring of the given nodes, seen from the one called self.
func NewRing(self string, nodes []Node) *Ring {
	r := &Ring{self: self, nodes: slices.Clone(nodes)}
	slices.SortFunc(r.nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	for i := range r.nodes {
		r.nodes[i].seed = xxhash.Sum64String(r.nodes[i].Name)
	}
	return r
}

// Owner returns the node that owns a key, and whether that is the node itself.
// A node that is alone, or not on the ring, owns everything.
func (r *Ring) Owner(k store.Key) (owner Node, self bool) {
	return r.OwnerBut(k, nil)
}

// OwnerBut is Owner when some nodes are not there. A node owns what it would own if all
// others are skipped.
func (r *Ring) OwnerBut(k store.Key, skip func(Node) bool) (owner Node, self bool) {
	best := r.best(k, skip)
	if best < 0 {
		return Node{Name: r.self}, true
	}
	return r.nodes[best], r.nodes[best].Name == r.self
}

// Next returns who owns a key when the node called without is not there.
func (r *Ring) Next(k store.Key, without string) (Node, bool) {
	best := r.best(k, func(n Node) bool { return n.Name == without })
	if best < 0 {
		return Node{}, false
	}
	return r.nodes[best], true
}

// best returns the index of the node with the highest score among those that are not
// skipped; -1: there is none.
func (r *Ring) best(k store.Key, skip func(Node) bool) int {
	key := binary.BigEndian.Uint64(k[:])
	best := -1
	var top uint64
	for i := range r.nodes {
		if s := mix(key ^ r.nodes[i].seed); (best < 0 || s > top) && (skip == nil || !skip(r.nodes[i])) {
			best, top = i, s
		}
	}
	return best
}

// Nodes returns the nodes, sorted by name. The slice must not be changed.
func (r *Ring) Nodes() []Node { return r.nodes }

// Share returns the part of all keys that a node owns. One that is alone owns all.
func (r *Ring) Share(name string) float64 {
	if len(r.nodes) == 0 && name == r.self {
		return 1
	}
	for _, n := range r.nodes {
		if n.Name == name {
			return 1 / float64(len(r.nodes))
		}
	}
	return 0
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit
// of the input changes about half of the output.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
