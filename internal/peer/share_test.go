package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestConnectionsOfAHostAreBounded, and those that end make room.
func TestConnectionsOfAHostAreBounded(t *testing.T) {
	id := identity(t, "1")
	to, s := serveAs(t, backend{}, id)
	var conns []net.Conn
	open := func() {
		conn, err := tls.Dial("tcp", to.Addr, id.Client(protocolHTTP2))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
	}
	for range maxConnsOfHost {
		open()
	}
	listed := func() int {
		s.listener.mu.Lock()
		defer s.listener.mu.Unlock()
		return len(s.listener.conns)
	}
	eventually(t, "all are admitted", func() bool { return listed() == maxConnsOfHost })
	for range 3 {
		open()
	}
	eventually(t, "the others are refused", func() bool { return s.Refused() >= 3 })
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "all are gone", func() bool { return listed() == 0 && len(s.listener.shares) == 0 })
	open()
	eventually(t, "there is room again", func() bool { return listed() == 1 })
}

// TestWaitingOfAHostIsBounded: requests, and calls on streams that are shared.
func TestWaitingOfAHostIsBounded(t *testing.T) {
	b, _ := leases()
	to, s := serve(t, b)
	c := newClient(t)
	lookUp(t, c, to, store.Key{1}, Lease)
	s.listener.mu.Lock()
	for _, one := range s.listener.shares {
		one.requests.Store(maxRequestsOfHost)
		one.calls.Store(maxCallsOfHost)
	}
	s.listener.mu.Unlock()
	q := NewQuery("g", store.Key{2}, nil, nil)
	q.Lead = true
	if _, err := c.Lookup(t.Context(), to, q, time.Second); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v", err)
	}
	if s.Refused() == 0 {
		t.Error("not counted")
	}
}

// TestLongAnswersHaveRequestsOfTheirOwn: so what an asker keeps for answers is bounded,
// and the lease of the call that is not answered ends.
func TestLongAnswersHaveRequestsOfTheirOwn(t *testing.T) {
	var mu sync.Mutex
	ended := 0
	long := strings.Repeat("x", store.MaxHeaderBytes-1000)
	stale := testEntry(nil)
	stale.SetLabels("https://demo.test/"+strings.Repeat("u", 2000), nil, nil)
	stale.SetFields([]store.Field{{Name: "X-Long", Value: long}})
	to, _ := serve(t, backend{lookup: func(ctx context.Context, _ *Query, a *Answer) {
		if a.Lease(Ticket{Lease: 1}, stale) == nil {
			<-ctx.Done()
		}
		mu.Lock()
		defer mu.Unlock()
		ended++
	}})
	c := newClient(t)
	q := NewQuery("g", store.Key{1}, nil, nil)
	q.Lead = true
	reply, err := c.Lookup(t.Context(), to, q, patience)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Kind != Lease || reply.Here() || len(reply.Entry.Get("X-Long")) != len(long) {
		t.Errorf("%d, on the shared stream: %v", reply.Kind, reply.Here())
	}
	eventually(t, "the first lease ends", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return ended == 1
	})
	reply.Close()
}

// TestAnswersTakeCountedMemory: what an owner sends comes out of the same budget as
// what it is sent.
func TestAnswersTakeCountedMemory(t *testing.T) {
	const long = 50 << 10
	e := testEntry(nil)
	e.SetFields([]store.Field{{Name: "X-Long", Value: strings.Repeat("x", long)}})
	to, _ := serve(t, backend{lookup: func(_ context.Context, _ *Query, a *Answer) { a.Hit(e, nil, 0) }})
	c := newClient(t)
	var memory limited
	c.Reserve = memory.Reserve
	q := NewQuery("g", store.Key{1}, nil, nil)
	q.Long = true
	for _, room := range []int64{1 << 10, 1 << 20} {
		memory.left.Store(room)
		reply, err := c.Lookup(t.Context(), to, q, patience)
		if room < long {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("without memory: %v", err)
			}
		} else if err != nil {
			t.Errorf("with memory: %v", err)
		} else {
			reply.Close()
		}
		if left := memory.left.Load(); left != room {
			t.Errorf("%d of %d bytes are left", left, room)
		}
	}
}
