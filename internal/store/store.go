// Package store is a node's memory: the index of entries, which change, beside
// the golang/groupcache Group of bodies, which never do.
//
// A response that expires, is revalidated, replaced or purged only ever moves
// an entry: to a newer one, or away. Bodies are named by generation, so a
// reader that holds an entry gets that entry's body or none, never another.
// What the Group evicts is noticed when it is asked for, and its entry goes
// too.
//
// A Store is safe for concurrent use.
package store

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/golang/groupcache"
)

// ErrGone says that an entry's body is not on this node.
var ErrGone = errors.New("store: body was evicted or is on another node")

// A Store holds the entries and bodies of one node.
type Store struct {
	size   int64 // of the Group
	memory int64 // for all: what the Group does not hold, the index may take
	bodies *bodies
	index

	// How much has been put into the Group, and how much of that may be popular in
	// the shards whose turn is yet to come in this round.
	arrivedBytes atomic.Int64
	popularRoom  atomic.Int64

	mu     sync.RWMutex // guards spaces
	spaces map[string]*Namespace
}

// New returns a Store that keeps bodyBytes of bodies, and with them and what its
// entries take no more than bodyBytes and indexBytes together. Small bodies lie
// in their entries.
func New(bodyBytes, indexBytes int64) *Store {
	s := &Store{
		size:   bodyBytes,
		memory: bodyBytes + indexBytes,
		bodies: openBodies(bodyBytes),
		spaces: make(map[string]*Namespace),
	}
	for i := range s.shards {
		s.shards[i].limit = &s.most
	}
	s.most.Store(s.memory / shardCount)
	s.enforced.Store(s.memory / shardCount)
	s.popularRoom.Store(s.size / 2)
	return s
}

// Close lets go of the bodies. The Store must not be used afterwards.
func (s *Store) Close() {
	s.purges.close()
	s.bodies.close(s.size)
}

// Digest returns the checksum that entries carry of their bodies.
func Digest(body []byte) uint64 { return xxhash.Sum64(body) }

// maxNamespaces bounds what group names from other nodes can make us keep.
const maxNamespaces = 1024

// Namespace returns the namespace of a group name, or nil when there are too
// many.
func (s *Store) Namespace(name string) *Namespace {
	s.mu.RLock()
	space := s.spaces[name]
	s.mu.RUnlock()
	if space != nil {
		return space
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spaces[name] == nil && len(s.spaces) < maxNamespaces {
		s.spaces[name] = &Namespace{Name: name}
	}
	return s.spaces[name]
}

// NamespaceOfPeer is Namespace for a name that another node has sent. It leaves
// room for those of this node's own configuration.
func (s *Store) NamespaceOfPeer(name string) *Namespace {
	s.mu.RLock()
	space, full := s.spaces[name], len(s.spaces) >= maxNamespaces/2
	s.mu.RUnlock()
	if space != nil || full {
		return space
	}
	return s.Namespace(strings.Clone(name)) // which may be part of something larger
}

// Namespaces returns all namespaces.
func (s *Store) Namespaces() []*Namespace {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*Namespace, 0, len(s.spaces))
	for _, space := range s.spaces {
		all = append(all, space)
	}
	return all
}

// Body returns an entry's body, or the first chunk of a large one, or ErrGone.
// It must not be changed.
func (s *Store) Body(k Key, e *Entry) ([]byte, error) {
	switch {
	case e.Size == 0:
		return nil, nil
	case e.Size <= SmallBody:
		if body := e.smallBody(); body != nil {
			return body, nil
		}
		return nil, ErrGone
	}
	key := e.tail()
	if key == "" {
		key = groupKey(k, e.Generation)
	}
	body, err := s.bodies.lookup(key)
	if err != nil || int64(len(body)) != min(e.Size, ChunkSize) { // the entry may be another node's word
		return nil, ErrGone
	}
	return body, nil
}

// BodyLimit returns how many bytes of bodies the store keeps.
func (s *Store) BodyLimit() int64 { return s.size }

// Commit stores a complete response on the node that is its authority. A body
// that is the same as the one it replaces keeps its generation. It returns the
// entry as stored, or nil when a later response came first.
//
// Of a large response it gets the first chunk. The entry then has the size of
// the whole, and the generation under which the other chunks are stored.
func (s *Store) Commit(space *Namespace, k Key, e *Entry, body []byte) *Entry {
	summed := *e
	summed.Digest = Digest(body)
	return s.CommitSummed(space, k, &summed, body)
}

// CommitSummed is Commit for an entry that has the body's Digest already.
func (s *Store) CommitSummed(space *Namespace, k Key, e *Entry, body []byte) *Entry {
	stored := *e
	stored.copied = false
	fresh := true
	if !e.Large() {
		stored.Size = int64(len(body))
		stored.Generation = s.generationOf(k, &stored, body)
		if fresh = stored.Generation == 0; fresh {
			stored.Generation = NewGeneration()
		}
	}
	if fresh && stored.Size > SmallBody {
		s.putBody(groupKey(k, stored.Generation), body, false)
	}
	return s.put(space, k, stored.kept(k, body))
}

// NewGeneration returns a generation that no other body has.
func NewGeneration() Generation { return Generation(max(rand.Uint64(), 1)) }

// generationOf finds the stored variant with the very same body.
func (s *Store) generationOf(k Key, e *Entry, body []byte) Generation {
	sh := s.shard(k)
	sh.mu.RLock()
	var variants []*Entry
	if r := sh.resources.get(k); r != nil {
		variants = r.variants
	}
	sh.mu.RUnlock()
	for _, old := range variants {
		if old.Large() || old.Size != e.Size || old.Digest != e.Digest || old.Generation == 0 {
			continue
		}
		if have, err := s.Body(k, old); err == nil && bytes.Equal(have, body) {
			return old.Generation
		}
	}
	return 0
}

// PutEntry stores an entry whose body is already here, on the node that is its
// authority.
func (s *Store) PutEntry(space *Namespace, k Key, e *Entry) {
	stored := e.kept(k, nil)
	stored.copied = false
	s.put(space, k, stored)
}

// PutCopy keeps a copy of what the owner sent, or has been sent: the entry until
// its freshness ends, the body (of a large one, the first chunk) if the Group
// takes it into its hot cache. No body: it is here already, if anywhere.
func (s *Store) PutCopy(space *Namespace, k Key, e *Entry, body []byte) {
	if e.Size > SmallBody && int64(len(body)) == min(e.Size, ChunkSize) {
		s.putBody(groupKey(k, e.Generation), body, true)
	}
	copied := e.kept(k, body)
	copied.copied = true
	s.put(space, k, copied)
}

// putBody gives a body to the Group, which evicts others for it. What the index
// may take shrinks by what the Group grows.
func (s *Store) putBody(key string, body []byte, hot bool) {
	s.bodies.put(key, body, hot)
	arrived := int64(len(body))
	if hot {
		arrived /= hotOneIn
	}
	s.arrived(arrived)
	main := s.bodies.group.CacheStats(groupcache.MainCache).Bytes
	copies := s.bodies.group.CacheStats(groupcache.HotCache).Bytes
	s.limit((s.memory-main-copies)/shardCount, s.memory/shardCount/64)
}

// PutMoved stores what the previous owner of a key had, on the one that owns it
// now. It returns the entry as stored, or nil when it has been purged or a later
// one is there. Of a large body it gets the first chunk.
func (s *Store) PutMoved(space *Namespace, k Key, e *Entry, body []byte) *Entry {
	if e.Size > SmallBody && len(body) > 0 {
		s.putBody(groupKey(k, e.Generation), body, false)
	}
	moved := e.kept(k, body)
	moved.copied = false
	return s.put(space, k, moved)
}

// Usage is what a Store holds.
type Usage struct {
	Main, Hot    groupcache.CacheStats
	IndexBytes   int64
	IndexEvicted int64
	Resources    int64
	BodyLimit    int64
	IndexLimit   int64
}

// Usage counts what the store holds now.
func (s *Store) Usage() Usage {
	u := Usage{
		Main:      s.bodies.group.CacheStats(groupcache.MainCache),
		Hot:       s.bodies.group.CacheStats(groupcache.HotCache),
		BodyLimit: s.size,
	}
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		u.IndexBytes += sh.bytes()
		u.IndexEvicted += sh.evicted
		u.Resources += int64(sh.resources.count)
		u.IndexLimit += s.most.Load()
		sh.mu.RUnlock()
	}
	return u
}
