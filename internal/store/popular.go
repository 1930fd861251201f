package store

import "slices"

// golang/groupcache evicts by LRU, and one pass of one-off URLs that brings as
// much as it holds would throw out all that was not asked for meanwhile. So what
// was found again since it was stored is popular, and is looked up whenever
// some part of what the Group holds has come in: then it is among the latest. That
// is done for half of what the Group holds at most; what is beyond that is no
// longer popular until it is asked for once more.

// touchesATurn is how often that is done while as much comes in as the Group
// holds. It is done shard by shard, by those who put something in: somebody else
// might come to it too late.
const touchesATurn = 8

// arrived counts what has been put into the Group, and touches what is due.
func (s *Store) arrived(bytes int64) {
	step := max(s.size/touchesATurn/shardCount, 1)
	after := s.arrivedBytes.Add(bytes)
	first, last := (after-bytes)/step+1, after/step
	for turn := max(first, last-shardCount+1); turn <= last; turn++ {
		s.touchPopular(turn)
	}
}

// isPopular puts a resource that has become popular among the others.
func (sh *shard) isPopular(r *resource) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if n := len(sh.popular); n == cap(sh.popular) {
		sh.popular = slices.DeleteFunc(sh.popular, func(r *resource) bool { return sh.resources.get(r.key) != r })
		sh.popular = slices.Grow(sh.popular, n/2+1)
	}
	sh.popular = append(sh.popular, r)
}

// touchPopular looks up the bodies of what is popular in the shard whose turn it
// is, of what became so last first.
func (s *Store) touchPopular(turn int64) {
	round, i := turn/shardCount, turn%shardCount
	if i == 0 {
		s.popularRoom.Store(s.size / 2)
	}
	sh := &s.shards[(i+round)%shardCount] // who comes last may find no room
	sh.mu.Lock()
	all := sh.popular
	sh.popular = nil
	sh.mu.Unlock()
	var kept []*resource
	for _, r := range slices.Backward(all) {
		var bytes int64
		if s.popularRoom.Load() > 0 {
			bytes = s.touch(sh, r)
		}
		if bytes == 0 {
			r.isNot(popular)
			continue
		}
		s.popularRoom.Add(-bytes)
		kept = append(kept, r)
	}
	slices.Reverse(kept)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.popular = append(kept, sh.popular...)
}

// touch looks up the bodies of a resource, and returns how large those are that are
// here.
func (s *Store) touch(sh *shard, r *resource) (bytes int64) {
	sh.mu.RLock()
	variants := r.variants
	sh.mu.RUnlock()
	for _, e := range variants {
		if e.Size <= SmallBody || e.Size > s.size/2 {
			continue
		}
		for i := range Chunks(e.Size) {
			if _, err := s.bodies.lookup(chunkKey(r.key, e.Generation, i)); err == nil {
				bytes += ChunkLength(e.Size, i)
			}
		}
	}
	return bytes
}
