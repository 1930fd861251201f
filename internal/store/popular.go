package store

// golang/groupcache evicts by LRU, and one pass of one-off URLs that brings as
// much as it holds would throw out all that was not asked for meanwhile. So what
// was asked for again since it was stored is popular, and is looked up whenever
// some part of what the Group holds has come in: then it is among the latest. That
// is done for half of what the Group holds at most; what is beyond that is no
// longer popular until it is asked for once more.

// touchesATurn is how often that is done while as much comes in as the Group
// holds.
const touchesATurn = 8

// arrived counts what has been put into the Group.
func (s *Store) arrived(bytes int64) {
	if s.arrivedBytes.Add(bytes) < s.size/touchesATurn || !s.touching.CompareAndSwap(false, true) {
		return
	}
	s.arrivedBytes.Store(0)
	go func() {
		defer s.touching.Store(false)
		s.touchPopular()
	}()
}

// touchPopular looks up the bodies of all that is popular.
func (s *Store) touchPopular() {
	room := s.size / 2
	for i := range s.shards {
		sh := &s.shards[(i+int(s.touchFrom))%shardCount]
		sh.mu.RLock()
		var kept []*resource
		for r := range sh.all() {
			if r.is(popular) {
				kept = append(kept, r)
			}
		}
		sh.mu.RUnlock()
		for _, r := range kept {
			if room <= 0 {
				r.isNot(popular)
				continue
			}
			room -= s.touch(sh, r)
		}
	}
	s.touchFrom++ // who comes last may find no room
}

// touch looks up the bodies of a resource, and returns how large they are.
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
