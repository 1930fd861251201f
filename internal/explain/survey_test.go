package explain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// TestNodesThatAreNotAskedAreNamed, and the owner is asked in a cluster of any size.
func TestNodesThatAreNotAskedAreNamed(t *testing.T) {
	const others = peer.MaxAsked + 6
	n := node.New("self", 1<<20)
	t.Cleanup(n.Close)
	n.Client.DialWith(func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") })
	ring := []peer.Node{{Name: n.Name, Addr: "self.test:8000"}}
	for i := range others {
		ring = append(ring, peer.Node{Name: fmt.Sprintf("n%02d", i), Addr: fmt.Sprintf("n%02d.test:8000", i)})
	}
	n.SetRing(ring)
	q := &node.Lookup{Namespace: n.Store.Namespace("default")}
	owner := ring[others] // the last one
	all := survey(t.Context(), n, q, owner)
	notAsked := 0
	for _, one := range all {
		if one.Error == peer.ErrNotAsked.Error() {
			notAsked++
		}
	}
	if len(all) != 1+others || notAsked != others-peer.MaxAsked || !all[1].Owner || all[1].failure == nil {
		t.Errorf("%d nodes, %d not asked; after the node itself %+v", len(all), notAsked, all[1])
	}
}
