package node

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestChangeOfManyGroups: other nodes hear of all of them, however many they are.
func TestChangeOfManyGroups(t *testing.T) {
	other := newLone(t)
	n, q := newAsker(t, serve(t, other.Name, Owner{other}))
	space := other.Store.Namespace(q.Namespace.Name)
	var selectors []store.Selector
	for i := range rfc9111.MaxInvalidated {
		selectors = append(selectors, store.Selector{Kind: store.Group, Value: store.GroupOf("http://a.test/", fmt.Sprintf("%05d%s", i, strings.Repeat("x", rfc9111.MaxTagLength-5)))})
	}
	selectors = append(selectors, store.Selector{Kind: store.URL, Value: "http://a.test/changed"})
	e := newEntry(5, 1)
	e.SetLabels("http://a.test/changed", nil, nil)
	n.Purger.Invalidate(store.NewPurgeID(), q.Namespace, selectors, patience)
	if hard, _ := other.Store.Purged(space, q.Key, e); !hard {
		t.Error("the other node has not heard of the last one")
	}
}

// TestChangeByALongTarget: a request may have a target of any length, and change what its
// response names. Other nodes hear of that.
func TestChangeByALongTarget(t *testing.T) {
	other := newLone(t)
	n, q := newAsker(t, serve(t, other.Name, Owner{other}))
	id := store.NewPurgeID()
	n.Purger.Invalidate(id, q.Namespace, []store.Selector{
		{Kind: store.URL, Value: "http://a.test/?" + strings.Repeat("x", peer.MaxSelectorLength)},
		{Kind: store.URL, Value: "http://a.test/changed"},
	}, patience)
	if !other.Purger.Log.Knows(id) {
		t.Error("the other node has not heard of it")
	}
}

// TestPurgeThatArrivesTwiceAtOnce: several nodes tell of one purge at the same time, as at
// the end of a partition. It is counted and told of once.
func TestPurgeThatArrivesTwiceAtOnce(t *testing.T) {
	n := newLone(t)
	var told atomic.Int64
	n.Purger.OnPurge = func(store.Purge, bool) { told.Add(1) }
	const purges, tellers = 500, 8
	for i := range purges {
		one := store.Purge{ID: store.PurgeID(i + 1), Group: "default", Selectors: []store.Selector{{Kind: store.Tag, Value: "news"}}}
		begin := make(chan struct{})
		var all sync.WaitGroup
		for range tellers {
			all.Go(func() {
				<-begin
				Owner{n}.Purge([]store.Purge{one}, nil)
				if !n.Purger.Log.Knows(one.ID) {
					t.Error("acknowledged before it is applied")
				}
			})
		}
		close(begin)
		all.Wait()
	}
	if counted := n.Purger.Counts[store.Tag].Load(); counted != purges || told.Load() != purges {
		t.Errorf("%d counted and %d told of, of %d", counted, told.Load(), purges)
	}
}

// TestNamesOfAPurgeAreBounded: a node tells names that its configuration adds to a purge, each
// once, as far as there is memory, and none if it is not asked for them.
func TestNamesOfAPurgeAreBounded(t *testing.T) {
	n := New("n", 16<<20)
	defer n.end()
	n.Purger.Names = func(p store.Purge) (named []store.Selector) {
		if len(p.Selectors) > namedAtOnce {
			t.Errorf("names of %d selectors at once", len(p.Selectors))
		}
		for _, s := range p.Selectors {
			for i := range 3 {
				named = append(named, s, store.Selector{Kind: store.Tag, Value: fmt.Sprint("other ", i, s.Value)})
			}
		}
		return named
	}
	one := store.Purge{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.Tag, Value: "a"}, {Kind: store.Tag, Value: "b"}}}
	var taken int64
	room := func(limit int64) func(int64) bool {
		taken = 0
		return func(size int64) bool { taken += size; return taken <= limit }
	}
	named, ok := Owner{n}.Purge([]store.Purge{one, one}, room(1<<20))
	count := 0
	for _, purge := range named {
		count += len(purge.Selectors)
	}
	if !ok || count != 6 || taken == 0 {
		t.Errorf("%d names of 6, %v, %d bytes", count, ok, taken)
	}
	if named, ok := (Owner{n}).Purge([]store.Purge{one}, room(100)); ok || named != nil {
		t.Errorf("%v without memory", named)
	}
	if named, ok := (Owner{n}).Purge([]store.Purge{one}, nil); !ok || named != nil {
		t.Errorf("%v that were not asked for", named)
	}
}
