package node

import (
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

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
