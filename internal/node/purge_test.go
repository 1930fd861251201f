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
				Owner{n}.Purge([]store.Purge{one})
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
