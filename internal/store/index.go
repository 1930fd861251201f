package store

import (
	"iter"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// The index maps a Key to its resource. A resource holds the variants of one
// cache key, newest first, and what was learned about the URL: the names that
// its Vary gives, and whether it is uncacheable for a while.
//
// Invariants:
//   - a resource's variants slice is never changed in place, so a reader may
//     use it after the lock is gone;
//   - two variants of a resource never have the same Vary and Selection;
//   - each resource is in one of its shard's queues, whose bytes are the sum of
//     their resources' costs, and after each change at most the shard's share of
//     what the Group leaves, except for a single resource beyond it.
//
// Copies of what other nodes own have a queue of their own, and go first as long
// as they take more than copyShare of it all: otherwise many nodes would hold no
// more small responses than one.
const (
	shardCount = 64
	copyShare  = 8 // an eighth, which is what the Group gives to hot copies
)

type shard struct {
	mu        sync.RWMutex // guards below, except resource.asked
	resources table
	own       queue
	copies    queue
	popular   []*resource   // that have become so, some of which are not any more, or gone
	limit     *atomic.Int64 // the store's, for each shard
	evicted   int64
}

type resource struct {
	key   Key
	space *Namespace

	variants []*Entry
	vary     *[]string // names in the Vary of the newest response; nil: none
	lore     *lore     // nil: none

	compared atomic.Uint64 // with the purges up to this one

	newer, older *resource
	asked        atomic.Uint32 // visited, popular
	cost         int32
}

// What is noted of a resource that is asked for.
const (
	visited = 1 << iota // since the hand of eviction was here
	popular             // its bodies are to stay in the Group: popular.go tells how
)

// note notes that a resource is asked for, and reports whether it has not been
// that before.
func (r *resource) note(what uint32) (first bool) {
	return r.asked.Load()&what != what && r.asked.Or(what)&what != what
}

func (r *resource) is(what uint32) bool { return r.asked.Load()&what != 0 }

func (r *resource) isNot(what uint32) { r.asked.And(^what) }

// lore is what is known of few URLs only.
type lore struct {
	// If the key stands for all queries of a path: what their responses say
	// about them.
	search *rfc9111.SearchVariance

	uncacheable      rfc9111.Reason // hit-for-miss, until uncacheableUntil
	uncacheableUntil time.Time

	// Bit i: the variant at i was asked for since it came, or since all had been. Kept
	// where there are more than fewVariants. It is set without a lock, so a bit may
	// come to stand for the neighbour of the one that was meant: that one is then
	// spared once.
	used atomic.Uint32
}

// names returns the names in the Vary of the newest response.
func (r *resource) names() []string {
	if r.vary == nil {
		return nil
	}
	return *r.vary
}

// A Namespace is a group of the configuration: entries are counted by it.
type Namespace struct {
	Name    string
	Entries atomic.Int64
	Bytes   atomic.Int64 // of bodies that the index knows; some may be evicted already
}

// Known is what the index holds for a request.
type Known struct {
	Entry       *Entry // nil: no variant for these request fields
	Vary        []string
	Uncacheable rfc9111.Reason // not None: nobody should wait for a shared fill
	Any         bool           // some variant is stored

	resource *resource // nil: none
}

// An index is what a Store knows of its bodies, and of what is not stored.
type index struct {
	shards [shardCount]shard
	// What one shard may take now, and when all of them were last brought down to it.
	most     atomic.Int64
	enforced atomic.Int64

	purges   purges
	searches atomic.Bool // some search variance was learned
}

func (x *index) shard(k Key) *shard { return &x.shards[k[0]%shardCount] }

// Lookup returns what is known for a request.
func (x *index) Lookup(k Key, request http.Header, now time.Time) Known {
	sh := x.shard(k)
	sh.mu.RLock()
	r := sh.resources.get(k)
	if r != nil && r.compared.Load() != x.purges.seq.Load() && !x.unaffected(r) {
		sh.mu.RUnlock()
		x.recheck(sh, k)
		sh.mu.RLock()
		r = sh.resources.get(k)
	}
	if r == nil {
		sh.mu.RUnlock()
		return Known{}
	}
	variants, lore, known := r.variants, r.lore, Known{Vary: r.names(), Any: len(r.variants) > 0, resource: r}
	if r.lore != nil && now.Before(r.lore.uncacheableUntil) {
		known.Uncacheable = r.lore.uncacheable
	}
	sh.mu.RUnlock()
	r.note(visited)
	known.Entry = match(variants, request)
	if lore != nil && len(variants) > fewVariants && known.Entry != nil {
		lore.used.Or(1 << slices.Index(variants, known.Entry))
	}
	return known
}

// Found notes that the body of a known entry was asked for, and was here.
func (x *index) Found(k Key, known *Known) {
	if known.Entry.Size > SmallBody && known.resource.note(popular) {
		x.shard(k).isPopular(known.resource)
	}
}

// put makes e the newest variant, in place of the one that it supersedes. It
// returns it as stored, or nil when a variant for the same request fields was
// fetched later, or it has been purged since.
func (x *index) put(space *Namespace, k Key, e *Entry) *Entry {
	sh := x.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	seq := x.purges.seq.Load()
	if e = x.purges.admit(space.Name, k, e); e == nil {
		return nil
	}
	r := x.resourceLocked(sh, space, k)
	r.compared.Store(min(r.compared.Load(), seq)) // a purge since then has not seen e
	e.adoptBody(r.variants)
	variants := make([]*Entry, 0, len(r.variants)+1)
	variants = append(variants, e)
	for _, old := range r.variants {
		if !old.VariantKey().sameRequest(e.VariantKey()) {
			variants = append(variants, old)
		} else if old.Sent.After(e.Sent) {
			return nil
		}
	}
	if len(variants) > MaxVariants {
		i := 1 + slices.Index(variants[1:], r.unusedVariant())
		variants = slices.Delete(variants, i, i+1)
	}
	r.vary = &e.VariantKey().Vary
	if r.lore != nil {
		r.lore.uncacheableUntil = time.Time{}
	}
	sh.setVariantsLocked(r, variants)
	sh.evictLocked(r)
	return e
}

// unusedVariant returns the variant that gives way to a new one: the oldest that was
// not asked for since it came. If all were, that is the newest, and each has to be
// asked for again to stay. So no number of made-up values of a selecting field, asked
// for once or more, pushes out a variant that is asked for all the time.
func (r *resource) unusedVariant() *Entry {
	used := r.know().used.Load()
	for i, e := range slices.Backward(r.variants) {
		if used&(1<<i) == 0 {
			return e
		}
	}
	r.lore.used.Store(0)
	return r.variants[0]
}

// moveUsed has the bits of variants stand for the same ones in another list.
func (r *resource) moveUsed(variants []*Entry) {
	if len(variants) <= fewVariants {
		return
	}
	was, is := r.know().used.Load(), uint32(0)
	for i, e := range r.variants {
		if was&(1<<i) != 0 {
			if at := slices.Index(variants, e); at >= 0 {
				is |= 1 << at
			}
		}
	}
	r.lore.used.Store(is)
}

// adoptBody takes over a small body that did not come with its entry, as after a
// 304, from the entry that has it.
func (e *Entry) adoptBody(variants []*Entry) {
	for _, old := range variants {
		if e.Size <= SmallBody && e.tail() == "" && old.Generation == e.Generation && old.Size == e.Size {
			e.setTail(old.tail())
		}
	}
}

// Drop forgets an entry, unless a newer one has taken its place.
func (x *index) Drop(k Key, e *Entry) {
	sh := x.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := sh.resources.get(k); r != nil && slices.Contains(r.variants, e) {
		rest := slices.DeleteFunc(slices.Clone(r.variants), func(v *Entry) bool { return v == e })
		sh.setVariantsLocked(r, rest)
	}
}

// LearnVary records the names by which a response is selected before it is
// stored, so that requests which wait can be told apart.
func (x *index) LearnVary(space *Namespace, k Key, names []string) {
	sh := x.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := x.resourceLocked(sh, space, k)
	r.vary = &names
	sh.countLocked(r)
	sh.evictLocked(r)
}

// LearnSearchVariance remembers which queries of a path are equivalent; nil:
// none. The key stands for the path.
func (x *index) LearnSearchVariance(space *Namespace, k Key, v *rfc9111.SearchVariance) {
	sh := x.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if v == nil && sh.resources.get(k) == nil {
		return
	}
	r := x.resourceLocked(sh, space, k)
	r.know().search = v
	sh.countLocked(r)
	x.searches.Store(true)
	sh.evictLocked(r)
}

// SearchVariance returns what LearnSearchVariance was told.
func (x *index) SearchVariance(k Key) *rfc9111.SearchVariance {
	sh := x.shard(k)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	r := sh.resources.get(k)
	if r == nil || r.lore == nil {
		return nil
	}
	r.note(visited)
	return r.lore.search
}

// KnowsSearchVariances reports whether any was ever learned. As long as none
// was, nobody needs to look.
func (x *index) KnowsSearchVariances() bool { return x.searches.Load() }

// MarkUncacheable remembers for a while that a URL's responses are not stored
// (hit-for-miss), so that requests for it don't wait for each other. It does
// nothing for a URL that has a stored response.
func (x *index) MarkUncacheable(space *Namespace, k Key, why rfc9111.Reason, until time.Time) {
	sh := x.shard(k)
	if sh.isMarked(k, why, until.Add(-time.Second)) { // each response says so, and a second is no matter
		return
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := x.resourceLocked(sh, space, k)
	if len(r.variants) == 0 {
		known := r.know()
		known.uncacheable, known.uncacheableUntil = why, until
		sh.countLocked(r)
	}
	sh.evictLocked(r)
}

// UnmarkUncacheable ends what MarkUncacheable began.
func (x *index) UnmarkUncacheable(k Key) {
	sh := x.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r := sh.resources.get(k); r != nil && r.lore != nil {
		r.lore.uncacheableUntil = time.Time{}
	}
}

func (sh *shard) isMarked(k Key, why rfc9111.Reason, until time.Time) bool {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	r := sh.resources.get(k)
	return r != nil && r.lore != nil && r.lore.uncacheable == why && r.lore.uncacheableUntil.After(until)
}

// overhead is what a resource counts for beside its variants.
func (r *resource) overhead() int64 {
	n := resourceOverhead
	if r.lore != nil {
		n += 48
		if r.lore.search != nil {
			n += 64 + sizeOfAll(r.lore.search.Params) + sizeOfAll(r.lore.search.Except)
		}
	}
	if r.vary != nil && (len(r.variants) == 0 || r.vary != &r.variants[0].VariantKey().Vary) {
		n += 24 + sizeOfAll(*r.vary)
	}
	return int64(n)
}

func (x *index) resourceLocked(sh *shard, space *Namespace, k Key) *resource {
	if r := sh.resources.get(k); r != nil {
		return r
	}
	r := &resource{key: k, space: space}
	r.cost = int32(r.overhead())
	r.compared.Store(x.purges.seq.Load())
	sh.queueOf(r).add(r)
	sh.resources.add(r)
	return r
}

// know returns what is known of the URL, to add to it.
func (r *resource) know() *lore {
	if r.lore == nil {
		r.lore = new(lore)
	}
	return r.lore
}

func (sh *shard) setVariantsLocked(r *resource, variants []*Entry) {
	var bodies int64
	for _, e := range variants {
		bodies += e.Size
	}
	for _, e := range r.variants {
		bodies -= e.Size
	}
	r.space.Entries.Add(int64(len(variants) - len(r.variants)))
	r.space.Bytes.Add(bodies)
	was := sh.queueOf(r)
	r.moveUsed(variants)
	r.variants = variants
	if is := sh.queueOf(r); is != was {
		was.remove(r)
		is.add(r)
	}
	sh.countLocked(r)
}

// countLocked counts what a resource takes, after a change.
func (sh *shard) countLocked(r *resource) {
	cost := r.overhead()
	for _, e := range r.variants {
		cost += e.cost()
	}
	sh.queueOf(r).bytes += cost - int64(r.cost)
	r.cost = int32(cost)
}

// queueOf returns the queue that a resource belongs to. What is known of a key
// without a response counts as this node's own.
func (sh *shard) queueOf(r *resource) *queue {
	if len(r.variants) > 0 && r.variants[0].copied {
		return &sh.copies
	}
	return &sh.own
}

// all are the resources of a shard, of each queue the newest first. The shard is
// locked, if only for reading.
func (sh *shard) all() iter.Seq[*resource] {
	return func(yield func(*resource) bool) {
		for _, q := range [...]*queue{&sh.own, &sh.copies} {
			for r := q.newest; r != nil; r = r.older {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// evictLocked makes room, sparing keep, which was just written.
func (sh *shard) evictLocked(keep *resource) {
	for limit := sh.limit.Load(); sh.bytes() > limit && sh.resources.count > 1; {
		first, second := &sh.own, &sh.copies
		if sh.copies.bytes > limit/copyShare {
			first, second = second, first
		}
		r := first.victim(keep)
		if r == nil {
			r = second.victim(keep)
		}
		sh.evicted += int64(len(r.variants))
		sh.removeLocked(r)
	}
}

func (sh *shard) bytes() int64 { return sh.own.bytes + sh.copies.bytes }

func (sh *shard) removeLocked(r *resource) {
	sh.setVariantsLocked(r, nil)
	sh.queueOf(r).remove(r)
	sh.resources.remove(r)
}

// limit sets what one shard may take. A shard evicts when something is added to it, which
// none may be for long: so when the limit has shrunk by more than some slack, all do.
func (x *index) limit(limit, slack int64) {
	x.most.Store(limit)
	enforced := x.enforced.Load()
	if limit <= enforced && limit > enforced-slack || !x.enforced.CompareAndSwap(enforced, limit) || limit > enforced {
		return
	}
	for i := range x.shards {
		sh := &x.shards[i]
		sh.mu.Lock()
		sh.evictLocked(nil)
		sh.mu.Unlock()
	}
}
