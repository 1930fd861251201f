package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// buggy is a backend with a bug for some keys: it panics at once, when it may wait,
// or when it has begun to answer.
type buggy struct{ backend }

var (
	atOnce    = store.Key{'o'}
	whileWait = store.Key{'w'}
	midway    = store.Key{'m'}
)

func (b buggy) Lookup(q *Query, a *Answer) {
	if q.Key == atOnce {
		panic("a bug")
	}
	b.backend.Lookup(q, a)
}

// TestPanicEndsOneCall: what a peer has sent, and this node has a bug with, is
// refused. The leases that others have on the stream last, and so does the process.
func TestPanicEndsOneCall(t *testing.T) {
	b, over := leases()
	lease := b.lookup
	b.lookup = func(ctx context.Context, q *Query, a *Answer) {
		switch q.Key {
		case whileWait:
			panic("a bug")
		case midway:
			a.say(frameLease, nil)
			panic("a bug")
		}
		lease(ctx, q, a)
	}
	b.publish = func(context.Context, *Publication) (store.Generation, rfc9111.Reason) { panic("a bug") }
	to, s := serve(t, buggy{b})
	c := newClient(t)
	held := lookUp(t, c, to, store.Key{1}, Lease)
	shared, before := sharedOf(c, to), guard.Panics()
	for i, k := range []store.Key{atOnce, whileWait, midway} {
		c.breaker.succeeded(to.Addr) // so that it is asked again at once
		if reply, err := c.Lookup(t.Context(), to, NewQuery("g", k, nil, nil), patience); !errors.Is(err, ErrProtocol) {
			t.Errorf("%c: %+v, %v", k[0], reply, err)
		}
		if n := guard.Panics() - before; n != int64(i+1) || s.Refused() != n {
			t.Errorf("%c: %d panics, %d refused", k[0], n, s.Refused())
		}
	}
	c.breaker.succeeded(to.Addr)
	body := []byte("hello")
	if _, err := c.PublishWhole(t.Context(), to, &Publication{Query: NewQuery("g", store.Key{1}, nil, nil), Entry: testEntry(body)}, body); !errors.Is(err, ErrProtocol) {
		t.Errorf("published: %v", err)
	}
	if sharedOf(c, to) != shared || shared.ended() || len(over) != 0 {
		t.Error("others have lost their leases")
	}
	held.Close()
	soon(t, over)
}

// TestPanicEndsOneRequest: what takes a request of its own and fails on the other side ends
// that request. A fill that another one reads along goes on, on the connection of both.
func TestPanicEndsOneRequest(t *testing.T) {
	followed, goOn := store.Key{'f'}, make(chan struct{})
	to, _ := serve(t, backend{lookup: func(ctx context.Context, q *Query, a *Answer) {
		if q.Key != followed {
			panic("a bug")
		}
		if a.Follow(nil) != nil {
			return
		}
		select {
		case <-goOn:
		case <-ctx.Done():
			return
		}
		body := []byte("hello")
		e := testEntry(body)
		a.Header(e)
		_ = a.Data(body)
		a.End(e.Digest, e.Generation)
	}})
	c := newClient(t)
	var dials atomic.Int64
	dial := c.pool.transport.DialContext
	c.DialWith(func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, addr)
	})
	long := func(k store.Key) *Query {
		q := NewQuery("g", k, nil, nil)
		q.Long = true
		return q
	}
	reply, err := c.Lookup(t.Context(), to, long(followed), patience)
	if err != nil || reply.Kind != Follow {
		t.Fatalf("%+v, %v", reply, err)
	}
	defer reply.Close()
	for range 2 {
		c.breaker.succeeded(to.Addr) // so that it is asked at once
		if reply, err := c.Lookup(t.Context(), to, long(store.Key{'p'}), patience); err == nil {
			t.Errorf("a panic has answered: %+v", reply)
		}
	}
	close(goOn)
	var got bytes.Buffer
	if _, err := reply.Header(); err != nil {
		t.Fatal(err)
	}
	if _, err := reply.Body(into(&got)); err != nil || got.String() != "hello" || dials.Load() != 1 {
		t.Errorf("%q, %v, over %d connections", got.String(), err, dials.Load())
	}
}

// panicking is a connection that panics when it is read from, as TLS with a bug
// would.
type panicking struct{ net.Conn }

func (panicking) Read([]byte) (int, error) { panic("a bug") }

// TestPanicAtTheDoor: the connection is closed, and its place is free again.
func TestPanicAtTheDoor(t *testing.T) {
	ours, theirs := net.Pipe()
	d := &authListener{identity: new(Identity), lobby: PendingHandshakes{Room: 1}, conns: make(map[*serverConn]struct{})}
	c := &serverConn{Conn: panicking{ours}, door: d}
	if guard.Run(func() { d.receive(c, d.lobby.Enter(c)) }) {
		t.Fatal("no panic")
	}
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF || d.lobby.waiting.Len() != 0 || len(d.conns) != 0 {
		t.Errorf("%v; %d in the lobby, %d connections", err, d.lobby.waiting.Len(), len(d.conns))
	}
}

// TestPanicOfADial: whoever waits for the connection is told, and the next one dials
// again.
func TestPanicOfADial(t *testing.T) {
	c := newClient(t)
	dials := 0
	c.DialWith(func(context.Context, string, string) (net.Conn, error) {
		dials++
		panic("a bug")
	})
	for i := range 2 {
		if _, err := c.pool.reserve(t.Context(), "owner.test:8000"); err == nil || dials != i+1 {
			t.Errorf("%v after %d dials", err, dials)
		}
	}
}

// TestPanicOfAnAnswer: an answer that this node has a bug with ends the stream, so that
// nobody waits on it.
func TestPanicOfAnAnswer(t *testing.T) {
	c := newMuxClient()
	conn := new(clientConn)
	conn.handshake.under = new(authorities)
	c.start(t.Context(), conn, "owner.test:8000", nil) // RoundTrip of nothing panics
	_, _, err := c.call(t.Context(), frameLookup, func(e *encoder) {}, nil)
	if !errors.As(err, new(brokenOff)) {
		t.Errorf("got %v", err)
	}
	if fmt.Sprint(err) == "" || !c.ended() {
		t.Error("the stream goes on")
	}
}

// panickingBody is a body of a publication, which panics after a piece.
type panickingBody struct{ pieces }

func (b *panickingBody) Next(ctx context.Context, idle func()) ([]byte, Stored, error) {
	if len(b.rest) == 0 {
		panic("a bug")
	}
	return b.pieces.Next(ctx, idle)
}

// TestPanicOfABody: net/http reads the bodies of requests in goroutines of its own. The
// publication fails on both sides, and nothing else does.
func TestPanicOfABody(t *testing.T) {
	ended := make(chan error, 1)
	to, _ := serve(t, backend{
		lookup: nothing.lookup,
		publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
			ended <- p.Body(into(io.Discard))
			return 0, rfc9111.Truncated
		},
	})
	c, before := newClient(t), guard.Panics()
	publication := &Publication{Query: NewQuery("g", store.Key{1}, nil, nil), Entry: testEntry([]byte("hello"))}
	if _, err := c.Publish(t.Context(), to, publication, &panickingBody{pieces{rest: []string{"hel"}}}); err == nil {
		t.Error("it is published")
	}
	if err := <-ended; err == nil || guard.Panics() == before {
		t.Errorf("the owner has got all of it: %v; %d panics", err, guard.Panics()-before)
	}
	if err := ask(c, to); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestPanicOfCalls: the stream that calls share ends, and the next call has another.
func TestPanicOfCalls(t *testing.T) {
	to, _ := serve(t, nothing)
	c := newClient(t)
	if err := ask(c, to); err != nil {
		t.Fatal(err)
	}
	shared, before := sharedOf(c, to), guard.Panics()
	shared.mu.Lock()
	shared.sent = 1 << 30 // of a queue that is much shorter
	shared.mu.Unlock()
	if err := ask(c, to); err != nil || guard.Panics() == before || !shared.ended() {
		t.Errorf("%v after %d panics", err, guard.Panics()-before)
	}
}
