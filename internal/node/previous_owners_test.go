package node

import (
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestPreviousOwnersAreForgotten(t *testing.T) {
	nodes := []peer.Node{{Name: "a", Addr: "a"}, {Name: "b", Addr: "b"}, {Name: "c", Addr: "c"}}
	n := New("c", 1<<20)
	t.Cleanup(n.Close)
	n.SetRing(nodes)
	var k store.Key
	for ; ; k[0]++ {
		if _, self := n.Ring.Load().Owner(k); self {
			break
		}
	}
	now := time.Now()
	if got, _ := peer.NewRing("", nodes[:2]).Owner(k); len(n.Previous.Of(k, now)) != 1 || n.Previous.Of(k, now)[0].Name != got.Name {
		t.Errorf("%v, want %v", n.Previous.Of(k, now), got)
	}
	if got := n.Previous.Of(k, now.Add(askPreviousFor+time.Second)); len(got) != 0 {
		t.Errorf("much later: %v", got)
	}
	n.SetRing(nodes[2:])
	if got := n.Previous.Of(k, now); len(got) != 0 {
		t.Errorf("who is not there any more: %v", got)
	}
}
