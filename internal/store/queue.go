package store

// A queue is the resources that may be evicted, in the order in which they came.
//
// Eviction is SIEVE (Zhang et al., NSDI 2024): a hit only sets a bit, so hits
// share the lock, and one pass of unpopular URLs doesn't push the popular out.
type queue struct {
	newest, oldest *resource
	hand           *resource // where the next eviction goes on
	bytes          int64     // what the resources cost
}

func (q *queue) add(r *resource) {
	r.older, r.newer = q.newest, nil
	if q.newest != nil {
		q.newest.newer = r
	} else {
		q.oldest = r
	}
	q.newest = r
	q.bytes += int64(r.cost)
}

func (q *queue) remove(r *resource) {
	if r.newer != nil {
		r.newer.older = r.older
	} else {
		q.newest = r.older
	}
	if r.older != nil {
		r.older.newer = r.newer
	} else {
		q.oldest = r.newer
	}
	if q.hand == r {
		q.hand = r.newer
	}
	q.bytes -= int64(r.cost)
}

// victim returns the resource to be evicted next, but not the one to be kept;
// nil: there is no other.
func (q *queue) victim(keep *resource) *resource {
	if q.oldest == nil || q.oldest == keep && q.newest == keep {
		return nil
	}
	r := q.hand
	if r == nil {
		r = q.oldest
	}
	for r == keep || r.is(visited) {
		r.isNot(visited)
		if r = r.newer; r == nil {
			r = q.oldest
		}
	}
	q.hand = r.newer
	return r
}
