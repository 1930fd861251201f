package node

import (
	"fmt"
	"strings"
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
