package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// connOf returns the connection that a client uses.
func (c *Client) connOf(to Node) *clientConn {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.pool.byAddr[to.Addr].conn
}

// However many look-ups are under way, they are one HTTP/2 request, and each
// gets its own answer. Only what is too much goes otherwise.
func TestLookUpsShareAStream(t *testing.T) {
	for _, n := range []int{200, maxWaiting + 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			arrived, answer := make(chan struct{}), make(chan struct{})
			first := store.Key{1}
			to, _ := serve(t, backend{lookup: func(_ context.Context, q *Query, a *Answer) {
				if q.Key != first {
					arrived <- struct{}{}
					<-answer
				}
				body := []byte(q.Fields.Get("Accept"))
				a.Hit(testEntry(body), body, 0)
			}})
			c := newClient(t)
			// A connection takes 100 requests until it has heard how many the
			// other side takes, as it has before any answer.
			lookUp(t, c, to, first, Hit).Close()
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					want := fmt.Sprint(i)
					reply, err := c.Lookup(t.Context(), to, NewQuery("g", store.Key{}, http.Header{"Accept": {want}}, nil), patience)
					if err != nil {
						t.Error(err)
						return
					}
					defer reply.Close()
					var got bytes.Buffer
					if _, err := reply.Body(into(&got)); err != nil || got.String() != want {
						t.Errorf("%q, %v", got.String(), err)
					}
				})
			}
			for range n {
				<-arrived
			}
			if got, want := c.connOf(to).InFlight(), 1+max(n-maxWaiting, 0); got != want {
				t.Errorf("%d requests for %d look-ups, want %d", got, n, want)
			}
			close(answer)
			all.Wait()
		})
	}
}

// What is long comes in a request of its own.
func TestOnlyWhatIsShortSharesTheStream(t *testing.T) {
	var asked atomic.Int32
	body := make([]byte, MaxShared+1)
	to, _ := serve(t, backend{lookup: func(_ context.Context, q *Query, a *Answer) {
		asked.Add(1)
		size := MaxShared + int(q.Key[0])
		a.Hit(testEntry(body[:size]), body[:size], q.Have)
	}})
	c := newClient(t)
	for _, test := range []struct {
		key  store.Key
		have store.Generation
		long bool
		asks int32
		size int
	}{
		{store.Key{0}, 0, false, 1, MaxShared},
		{store.Key{1}, 0, false, 2, MaxShared + 1},
		{store.Key{1}, 0, true, 1, MaxShared + 1},
		{store.Key{1}, 7, false, 1, 0}, // the asker has it
	} {
		asked.Store(0)
		q := NewQuery("g", test.key, nil, nil)
		q.Have, q.Long = test.have, test.long
		reply, err := c.Lookup(t.Context(), to, q, patience)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if test.size > 0 {
			_, err = reply.Body(into(&got))
		}
		if err != nil || got.Len() != test.size || asked.Load() != test.asks || reply.Here() != (test.size <= MaxShared) {
			t.Errorf("%d bytes, asked %d times, %v", got.Len(), asked.Load(), err)
		}
		reply.Close()
	}
}

func TestLeaseLastsUntilItsHolderIsDone(t *testing.T) {
	for name, end := range map[string]func(*Client, Node, *Reply){
		"closed":                  func(_ *Client, _ Node, r *Reply) { r.Close(); r.Close() },
		"the client ends":         func(c *Client, _ Node, _ *Reply) { c.Close() },
		"the connection breaks":   func(c *Client, to Node, _ *Reply) { c.connOf(to).Close() },
		"nonsense on the stream":  func(c *Client, to Node, _ *Reply) { sendRaw(sharedOf(c, to), []byte("nonsense")) },
		"the same number, in use": func(c *Client, to Node, _ *Reply) { sendLookup(sharedOf(c, to), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			b, over := leases()
			to, _ := serve(t, b)
			c := newClient(t)
			first := lookUp(t, c, to, store.Key{1}, Lease)
			// What else is asked does not end it.
			lookUp(t, c, to, store.Key{2}, Lease).Close()
			soon(t, over)
			select {
			case <-over:
				t.Fatal("over before its time")
			default:
			}
			end(c, to, first)
			soon(t, over)
		})
	}
}

func sendRaw(c *muxClient, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, b...)
	c.wakeLocked()
}

func sendLookup(c *muxClient, id uint64) {
	var e encoder
	e.message(frameLookup, id, func(e *encoder) { e.frame(frameQuery, NewQuery("g", store.Key{}, nil, nil).append) })
	sendRaw(c, e)
}

// A connection that is replaced stays until what was leased on it is over.
func TestLeaseOutlastsTheUseOfItsConnection(t *testing.T) {
	b, over := leases()
	to, _ := serve(t, b)
	c := newClient(t)
	held := lookUp(t, c, to, store.Key{1}, Lease)
	old, shared := c.connOf(to), sharedOf(c, to)
	c.pool.replace(to.Addr, old)
	eventually(t, "the connection is replaced", func() bool { return c.connOf(to) != old })
	if shared.ended() {
		t.Error("the lease went with the use of its connection")
	}
	held.Close()
	soon(t, over)
	eventually(t, "the old connection is closed", func() bool {
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		return len(c.pool.conns) == 1
	})
}

func TestOwnerLearnsThatNobodyWaitsAnyMore(t *testing.T) {
	over := make(chan struct{})
	to, _ := serve(t, backend{lookup: func(ctx context.Context, _ *Query, _ *Answer) {
		<-ctx.Done()
		close(over)
	}})
	c := newClient(t)
	if _, err := c.Lookup(t.Context(), to, NewQuery("g", store.Key{}, nil, nil), 10*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
	soon(t, over)
	if sharedOf(c, to).ended() {
		t.Error("one silent call took the others with it")
	}
}

func TestRefusedCallLeavesTheOthersAlone(t *testing.T) {
	b, over := leases()
	to, s := serve(t, b)
	c := newClient(t)
	held := lookUp(t, c, to, store.Key{1}, Lease)
	shared := sharedOf(c, to)
	for i, kind := range []byte{frameLookup, framePublish} {
		_, err := c.exchange(t.Context(), to, kind, func(e *encoder) { e.bytes([]byte("garbage garbage")) }, nil)
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
		if n := s.Refused(); n != int64(i+1) {
			t.Errorf("counted %d", n)
		}
	}
	if sharedOf(c, to) != shared || shared.ended() {
		t.Error("the stream has ended")
	}
	held.Close()
	soon(t, over)
}

func TestPublicationsShareTheStream(t *testing.T) {
	for _, size := range []int{0, 1, MaxShared, 2 * maxMessage} {
		body := bytes.Repeat([]byte("x"), size)
		to, _ := serve(t, backend{publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
			var got bytes.Buffer
			if err := p.Body(into(&got)); err != nil || !bytes.Equal(got.Bytes(), body) || p.Ticket.Lease != 5 {
				t.Errorf("%d of %d bytes, %v", got.Len(), size, err)
				return 0, rfc9111.Truncated
			}
			return 9, rfc9111.None
		}})
		c := newClient(t)
		g, err := c.PublishWhole(t.Context(), to, &Publication{Query: NewQuery("g", store.Key{1}, nil, nil), Ticket: Ticket{Lease: 5}, Entry: testEntry(body)}, body)
		if err != nil || g != 9 {
			t.Errorf("%d bytes: %d, %v", size, g, err)
		}
	}
}

func TestIdleStreamEnds(t *testing.T) {
	b, over := leases()
	to, _ := serve(t, b)
	c := newClient(t)
	held := lookUp(t, c, to, store.Key{1}, Lease)
	shared := sharedOf(c, to)
	for range 3 {
		shared.endIfIdle()
	}
	if shared.ended() {
		t.Fatal("it ended with a lease on it")
	}
	held.Close()
	soon(t, over)
	shared.endIfIdle()
	shared.endIfIdle()
	if !shared.ended() {
		t.Error("it stays for ever")
	}
	lookUp(t, c, to, store.Key{1}, Lease).Close() // on the next one
}

// Who does not read its answers takes no more memory than there is for them.
func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	as := &muxServer{}
	answer := make([]byte, MaxShared)
	for id := range uint64(2 * maxQueued / MaxShared) {
		as.send(id, answer)
	}
	if n := len(as.queue); n > maxQueued+MaxShared {
		t.Errorf("%d bytes", n)
	}
	answered, elsewhere := 0, 0
	frames := frameReader{rest: as.queue}
	for len(frames.rest) > 0 {
		_, d, _, err := frames.nextOf(maxMessage)
		if err != nil {
			t.Fatal(err)
		}
		if d.uint(math.MaxUint64, "call"); bytes.Equal(d.rest, alone) {
			elsewhere++
		} else {
			answered++
		}
	}
	if answered == 0 || elsewhere == 0 || answered+elsewhere != 2*maxQueued/MaxShared {
		t.Errorf("%d answers, %d have to ask again", answered, elsewhere)
	}
}

// A connection gets no more shared streams than it can have use for.
func TestSharedStreamsOfAConnectionAreBounded(t *testing.T) {
	b, _ := leases()
	to, s := serve(t, b)
	c := newClient(t)
	lookUp(t, c, to, store.Key{1}, Lease)
	conn := c.connOf(to)
	var open []*muxClient
	for range maxSharedStreams {
		if err := conn.Reserve(); err != nil {
			t.Fatal(err)
		}
		more := newMuxClient()
		more.start(t.Context(), conn, to.Addr, nil)
		open = append(open, more)
	}
	eventually(t, "one too many is refused", func() bool { return s.Refused() == 1 })
	eventually(t, "it has ended, and no other", func() bool {
		ended := slices.DeleteFunc(slices.Clone(open), func(c *muxClient) bool { return !c.ended() })
		return len(ended) == 1
	})
}

// scripted returns a backend that answers by what the key begins with.
func scripted() backend {
	e := testEntry([]byte("hello"))
	return backend{
		lookup: func(ctx context.Context, q *Query, a *Answer) {
			switch q.Key[0] % 8 {
			case 0:
				a.Hit(e, []byte("hello"), q.Have)
			case 1:
				a.None(Ticket{}, e)
			case 2:
				a.Bypass(rfc9111.Private, time.Minute)
			case 3:
				a.Vary([]string{"X-A"})
			case 4:
				_ = a.Follow(nil)
			case 5:
				a.Later(func(context.Context) { _ = a.Lease(Ticket{Lease: 1}, nil) })
			case 6:
				a.Later(func(ctx context.Context) { <-ctx.Done() })
			case 7: // no answer at all
			}
		},
		publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
			if p.Entry != nil && p.Body(into(io.Discard)) != nil {
				return 0, rfc9111.Truncated
			}
			return 1, rfc9111.None
		},
	}
}

// direct is a backend whose look-ups do not all wait.
type direct struct{ backend }

func (d direct) Lookup(q *Query, a *Answer) { d.lookup(context.Background(), q, a) }

// FuzzCalls sends the owner's side of a shared stream what it may not get.
func FuzzCalls(f *testing.F) {
	q := func(k byte) func(*encoder) {
		return func(e *encoder) { e.frame(frameQuery, NewQuery("g", store.Key{k}, nil, nil).append) }
	}
	var all encoder
	for k := range byte(8) {
		all.message(frameLookup, uint64(k), q(k))
	}
	all.message(framePublish, 20, func(e *encoder) {
		e.bytes(publishHead(frameEntry, NewQuery("g", store.Key{}, nil, nil), Ticket{Lease: 5}, testEntry(nil)))
	})
	all.message(frameOver, 6, func(*encoder) {})
	all.message(frameOver, 99, func(*encoder) {})
	f.Add([]byte(all))
	var twice encoder
	twice.message(frameLookup, 1, q(6))
	twice.message(frameLookup, 1, q(6))
	f.Add([]byte(twice))
	f.Add([]byte{frameLookup, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{frameData, 0, 0, 0, 1, 1})
	f.Add([]byte{frameLookup, 0, 0, 0, 0})
	f.Add([]byte{frameOver, 0, 0, 0, 1, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		as := &muxServer{
			s: NewServer(direct{scripted()}, new(Identity)), ctx: ctx, out: &out,
			flush: func() error { return nil }, open: make(map[uint64]context.CancelFunc),
		}
		if as.serve(bytes.NewReader(b)) == nil {
			t.Fatal("it does not end")
		}
		cancel()
		as.late.Wait()
		if as.write() != nil {
			t.Fatal("not written")
		}
		if len(as.open) > 0 {
			t.Fatalf("%d calls are left", len(as.open))
		}
		frames := frameReader{rest: out.Bytes()}
		for len(frames.rest) > 0 {
			kind, d, _, err := frames.nextOf(maxMessage)
			if err != nil || kind != frameAnswer {
				t.Fatalf("answered %q, %v", out.Bytes(), err)
			}
			if d.uint(math.MaxUint64, "call"); d.err != nil {
				t.Fatal(d.err)
			}
		}
	})
}

// FuzzAnswers sends the asker's side of a shared stream what it may not get.
func FuzzAnswers(f *testing.F) {
	e := testEntry([]byte("hello"))
	a := Answer{}
	a.say(frameEntry, entryNow(e))
	_ = a.out.data([]byte("hello"))
	a.out.end(e.Digest, e.Generation)
	var hit, lease encoder
	hit.message(frameAnswer, 2, func(enc *encoder) { enc.bytes(a.out.buf) })
	hit.message(frameAnswer, 1, func(enc *encoder) { enc.bytes(alone) })
	hit.message(frameAnswer, 1, func(*encoder) {})
	f.Add([]byte(hit))
	l := Answer{}
	l.say(frameLease, ticketAnd(Ticket{Lease: 3}, e))
	lease.message(frameAnswer, 1, func(enc *encoder) { enc.bytes(l.out.buf) })
	f.Add([]byte(lease))
	f.Add([]byte{frameAnswer, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{frameAnswer, 0, 0, 0, 0})
	f.Add([]byte{frameData, 0, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newMuxClient()
		var waiting []chan *message
		for range 2 {
			_, answered, err := c.begin(frameLookup, func(*encoder) {})
			if err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, answered)
		}
		err := c.receive(bytes.NewReader(b))
		if err == nil {
			t.Fatal("it does not end")
		}
		c.end(err)
		for _, answered := range waiting {
			answer, ok := <-answered
			if !ok || len(answer.frames) == 0 {
				continue
			}
			x := &exchange{frames: frameReader{rest: answer.frames}, answer: answer, shared: c}
			r := &Reply{frames: &x.frames, body: x, sent: time.Now()}
			if r.first() == nil {
				_, _ = r.Body(into(io.Discard)) // it may fail, and must not panic
			}
		}
		if _, _, err := c.begin(frameLookup, func(*encoder) {}); !errors.As(err, new(brokenOff)) {
			t.Fatalf("a call begins on a stream that has ended: %v", err)
		}
	})
}

// TestAnswersOutliveTheirMemory: nothing that was read of an answer changes when
// the next one takes its place in memory.
func TestAnswersOutliveTheirMemory(t *testing.T) {
	body := []byte("a body")
	sent := testEntry(body)
	a := &Answer{}
	a.Hit(sent, body, 0)
	var answer encoder
	answer.message(frameAnswer, 1, func(enc *encoder) { enc.bytes(a.out.buf) })
	c := newMuxClient()
	_, answered, err := c.begin(frameLookup, func(*encoder) {})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.receive(bytes.NewReader(answer))
	m := <-answered
	x := &exchange{frames: frameReader{rest: m.frames}, answer: m, shared: c}
	r := &Reply{frames: &x.frames, body: x, sent: time.Now()}
	if err := r.first(); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := r.Body(into(&got)); err != nil {
		t.Fatal(err)
	}
	memory := m.memory[:cap(m.memory)]
	for i := range memory {
		memory[i] = 0xff
	}
	e := r.Entry
	if !reflect.DeepEqual(e.VariantKey(), sent.VariantKey()) || !reflect.DeepEqual(e.Header(), sent.Header()) || e.URL() != sent.URL() ||
		!slices.Equal(e.Tags(), sent.Tags()) || !slices.Equal(e.Groups(), sent.Groups()) || got.String() != string(body) {
		t.Errorf("%+v, %v, %q, %q, %q, %q", e.VariantKey(), e.Header(), e.URL(), e.Tags(), e.Groups(), &got)
	}
}

// The price of a look-up, processor time of both sides.
func BenchmarkLookup(b *testing.B) {
	body := make([]byte, 1024)
	e := testEntry(body)
	for _, letters := range []string{"", "a"} {
		for _, clients := range []int{1, 32} {
			b.Run(fmt.Sprintf("secret=%s/clients=%d", letters, clients), func(b *testing.B) {
				id := identity(b, letters)
				to, _ := serveAs(b, direct{backend{lookup: func(_ context.Context, q *Query, a *Answer) { a.Hit(e, body, q.Have) }}}, id)
				c := newClientAs(b, id)
				b.ReportAllocs()
				var next atomic.Int64
				var all sync.WaitGroup
				b.ResetTimer()
				for range clients {
					all.Go(func() {
						for next.Add(1) <= int64(b.N) {
							reply, err := c.Lookup(b.Context(), to, NewQuery("g", store.Key{}, nil, nil), patience)
							if err != nil {
								b.Error(err)
								return
							}
							if _, err := reply.Body(into(io.Discard)); err != nil {
								b.Error(err)
							}
							reply.Close()
						}
					})
				}
				all.Wait()
			})
		}
	}
}
