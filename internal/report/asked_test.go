package report

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// TestNodesThatAreNotAskedAreNamed: an answer that had nothing of them would pass for one
// about the whole cluster.
func TestNodesThatAreNotAskedAreNamed(t *testing.T) {
	const others = peer.MaxAsked + 6
	n := node.New("self", 1<<20)
	t.Cleanup(n.Close)
	n.Client.DialWith(func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") })
	own := &Report{Status: Status{Node: n.Name}}
	ring := []peer.Node{{Name: n.Name, Addr: "self.test:8000"}}
	for i := range others {
		one := peer.Node{Name: fmt.Sprintf("n%02d", i), Addr: fmt.Sprintf("n%02d.test:8000", i)}
		ring = append(ring, one)
		own.Members = append(own.Members, Member{Name: one.Name, Peers: one.Addr, Share: 0.01})
	}
	own.Members = append(own.Members, Member{Name: n.Name, Share: 0.01, Self: true})
	n.SetRing(ring)

	notAsked := 0
	cluster := Gather(t.Context(), n.Client, own)
	for _, one := range cluster.Nodes {
		switch {
		case one.Self && one.Report != own:
			t.Error("the report of the node itself is left out")
		case !one.Self && one.Error == "":
			t.Errorf("nothing is said of %s", one.Name)
		case one.Error == peer.ErrNotAsked.Error():
			notAsked++
		}
	}
	if len(cluster.Nodes) != 1+others || notAsked != others-peer.MaxAsked {
		t.Errorf("cluster: %d nodes, %d not asked", len(cluster.Nodes), notAsked)
	}

	notAsked = 0
	entries, err := GatherEntries(t.Context(), n, EntriesQuery{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range entries.Nodes {
		if one.Error == peer.ErrNotAsked.Error() {
			notAsked++
		}
	}
	if len(entries.Nodes) != 1+others || notAsked != others-peer.MaxAsked {
		t.Errorf("entries: %d nodes, %d not asked", len(entries.Nodes), notAsked)
	}
}
