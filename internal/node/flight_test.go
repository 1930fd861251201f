package node

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// guardedly calls f as net/http would, which takes any panic for the end of a
// connection.
func guardedly(f func()) {
	defer func() { _ = recover() }()
	f()
}

// TestFlightsOfOtherNodesEnd: those that another node feeds or has a lease for end too if
// this node has a bug with what that one has sent.
func TestFlightsOfOtherNodesEnd(t *testing.T) {
	for name, bug := range map[string]func(n *Node, q *Lookup){
		"a lease that is given": func(n *Node, q *Lookup) {
			Owner{n}.grantLease(context.Background(), q, new(Result), new(peer.Answer)) // to nobody
		},
		"a response under a lease": func(n *Node, q *Lookup) {
			f, r, _ := n.Fills.join(q.id(), start{n, n.start(q).fill, time.Minute, true})
			r.Close()
			Owner{n}.Publish(context.Background(), &peer.Publication{Query: q.from, Ticket: peer.Ticket{Lease: f.lease}}) // of nothing
		},
		"a response without a lease": func(n *Node, q *Lookup) {
			Owner{n}.Publish(context.Background(), &peer.Publication{Query: q.from, Entry: new(store.Entry)}) // whose body is nowhere
		},
		"a body": func(n *Node, q *Lookup) {
			f, r, _ := n.Asks.join(q.id(), n.start(q))
			r.Close()
			_ = f.Fill.Expect(1000)
			Lead(f, func() (struct{}, Ending) { // from nobody
				return struct{}{}, remoteLookup{n, q, f, nil}.copyFromOwner(&peer.Reply{Kind: peer.Follow})
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLone(t)
			q := &Lookup{Namespace: n.Store.Namespace("default"), Header: http.Header{}, MaxBody: 1 << 20, FillTimeout: time.Minute}
			q.from = peer.NewQuery("default", q.Key, nil, nil)
			q.from.Lead = true
			panicked := true
			guardedly(func() {
				bug(n, q)
				panicked = false
			})
			if !panicked {
				t.Error("no panic")
			}
			if left := n.UnderWay(); left != (UnderWay{}) {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// TestUnusedLeasesEndWithTheirFlight: also if the leader panics before it has asked the
// upstream.
func TestUnusedLeasesEndWithTheirFlight(t *testing.T) {
	for name, use := range map[string]bool{"used": true, "not used": false} {
		closed := false
		lease := &Lease{lifeline: closer(func() { closed = true })}
		f := newLone(t).Solo(&Lookup{MaxBody: 1})
		f.granted.Store(lease)
		guardedly(func() {
			Lead(f, func() (struct{}, Ending) {
				if use {
					lease.Use()
				}
				panic("a bug")
			})
		})
		if closed == use {
			t.Errorf("%s: closed %v", name, closed)
		}
		select {
		case <-f.Over:
		default:
			t.Errorf("%s: the flight has not ended", name)
		}
	}
}

type closer func()

func (c closer) Close() { c() }
