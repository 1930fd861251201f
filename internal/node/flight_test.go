package node

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
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

// TestLeaseOfAFlightThatHasEnded: an owner that took too long gets the lease back.
func TestLeaseOfAFlightThatHasEnded(t *testing.T) {
	n, q := newAsker(t, serve(t, "owner", Owner{newLone(t)}))
	f := n.Solo(q)
	f.Finish(Ending{Why: rfc9111.FillTimeout})
	d, _ := n.Ask(q, f, new(Result))
	if d.Lease == nil {
		t.Fatalf("%+v", d)
	}
	if d.Lease.Use() {
		t.Error("the lease has not ended")
	}
}

// late is the body of a publication whose end comes late.
type late struct {
	body []byte
	end  time.Duration
}

func (l *late) Next(ctx context.Context, _ func()) ([]byte, peer.Stored, error) {
	if p := l.body; p != nil {
		l.body = nil
		return p, peer.Stored{}, nil
	}
	pause(ctx, l.end)
	return nil, peer.Stored{}, io.EOF
}

// TestEndAfterTheDeadline: of a response that has all come, but for its end, nothing is left
// when the time of its fill is over, and nothing is not its body.
func TestEndAfterTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, o := newPipes(), newLone(t)
		serveOn(t, l, Owner{o})
		owner := peer.Node{Name: "owner", Addr: "owner:8000"}
		n, q := newAskerBy(t, owner, l.dial)
		synctest.Wait() // until they know each other's purges
		e := newEntry(0, 0)
		e.SetFields(nil)
		query := peer.NewQuery(q.Namespace.Name, q.Key, q.Header, nil)
		query.Within = time.Second
		g, err := n.Client.Publish(t.Context(), owner, &peer.Publication{Query: query, Entry: e}, &late{[]byte("hello"), 2 * time.Second})
		if why := brokenReason(err); g != 0 || why != rfc9111.FillTimeout {
			t.Errorf("stored as %v, %v", g, err)
		}
		for _, v := range o.Store.Inspect(q.Key, nil, time.Now()).Variants {
			t.Errorf("%d bytes are stored", v.Entry.Size)
		}
		if left := o.UnderWay(); left != (UnderWay{}) {
			t.Errorf("left: %+v", left)
		}
	})
}
