package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestWhatMayBeStoredCanBeSent: the largest entry that may be stored is not too
// large for whoever reads it.
func TestWhatMayBeStoredCanBeSent(t *testing.T) {
	name := func(i int) string { return fmt.Sprintf("X-%0*d", store.MaxFieldName-2, i) }
	var vary, tags []string
	for i := range store.MaxVaryNames {
		vary = append(vary, name(i))
	}
	for i := range rfc9111.MaxTags {
		tags = append(tags, fmt.Sprintf("%0*d", rfc9111.MaxTagLength, i))
	}
	all := strings.Join(vary, ",")
	s := store.New(1<<20, 1<<20)
	t.Cleanup(s.Close)
	for _, fields := range []http.Header{
		{"X-A": {strings.Repeat("x", store.MaxHeaderBytes-7-len(all))}},
		{"X-A": slices.Repeat([]string{""}, store.MaxFields-2)},
		{name(0): slices.Repeat([]string{""}, (store.MaxHeaderBytes-4-len(all))/store.MaxFieldName)},
	} {
		fields["Vary"] = []string{all}
		e, why := store.NewEntry(200, fields, nil, rfc9111.Freshness{}, time.Now())
		if why != rfc9111.None {
			t.Fatal(why)
		}
		e.SetLabels("https://a.test/"+strings.Repeat("u", maxURL-15), tags, tags)
		e = s.Commit(s.Namespace("default"), store.Key{1}, e, nil) // to which it adds something
		var w frameWriter
		a := Answer{out: w}
		a.None(Ticket{}, e)
		kind, d, _, err := newFrameReader(bytes.NewReader(a.out.buf)).next()
		if err != nil || kind != frameNone {
			t.Fatalf("%c, %v", kind, err)
		}
		d.about(store.Key{})
		d.flag()
		d.ticket()
		got := d.entry(time.Now(), time.Now())
		if err := d.done(); err != nil || got.NumFields() != e.NumFields() || !slices.Equal(got.Tags(), tags) || got.URL() != e.URL() {
			t.Errorf("%v, %d fields of %d", err, got.NumFields(), e.NumFields())
		}
	}
}

// TestQueriesThatNobodyWouldTake fail before anybody is asked: the peer would be
// blamed.
func TestQueriesThatNobodyWouldTake(t *testing.T) {
	long := strings.Repeat("a", maxQueryBytes)
	for name, fields := range map[string]http.Header{
		"long":  {"Accept": {long}},
		"many":  {"Accept": make([]string, store.MaxFields+1)},
		"wrong": {"Accept": {"a\x00b"}},
	} {
		c := NewClient(new(Identity)) // knows of nobody: to dial would be another error
		t.Cleanup(c.Close)
		q, to := NewQuery("g", store.Key{}, fields, nil), Node{Name: "n", Addr: "127.0.0.1:1"}
		_, lookedUp := c.Lookup(t.Context(), to, q, time.Second)
		_, published := c.Publish(t.Context(), to, &Publication{Query: q, Entry: testEntry(nil)}, nil)
		_, whole := c.PublishWhole(t.Context(), to, &Publication{Query: q, Entry: testEntry(nil)}, nil)
		for i, err := range []error{
			lookedUp, published, whole,
			c.Refresh(t.Context(), to, q, Ticket{}, testEntry(nil)),
			c.Release(t.Context(), to, q, Ticket{}, rfc9111.Private),
			c.Learn(t.Context(), to, q),
			c.Inspect(t.Context(), to, q, nil),
		} {
			if !errors.Is(err, ErrFields) {
				t.Errorf("%s, call %d: %v", name, i, err)
			}
		}
		if !c.breaker.allow(to.Addr, time.Now()) {
			t.Errorf("%s: the peer is blamed", name)
		}
	}
	if err := NewQuery("g", store.Key{}, http.Header{"Accept": {long[6:]}}, nil).check(); err != nil {
		t.Error(err)
	}
	if err := NewQuery("g", store.Key{}, http.Header{"Accept": make([]string, store.MaxFields)}, nil).check(); err != nil {
		t.Error(err)
	}
}

func TestHitBringsEntryAndBody(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 4097, store.ChunkSize, 3 * store.ChunkSize} {
		body := bytes.Repeat([]byte("x"), min(size, store.ChunkSize)) // of a large one, the first chunk
		sent := testEntry(body)
		sent.Size = int64(size)
		to, _ := serve(t, backend{lookup: func(_ context.Context, q *Query, a *Answer) {
			if q.Group != "g" || q.Key != (store.Key{9}) || q.Fields.Get("Accept") != "a/b" || !q.Covers([]string{"Accept", "X-B"}) || q.Covers([]string{"X-C"}) || q.Fields.Get("X-B") != "b" {
				t.Errorf("query %+v", q)
			}
			a.Hit(sent, body, q.Have)
		}})
		q := NewQuery("g", store.Key{9}, http.Header{"Accept": {"a/b"}, "X-B": {"b"}, "Cookie": {"secret"}}, []string{"X-B"})
		if len(q.Fields["Cookie"]) > 0 {
			t.Error("a field that nobody asked for crosses the wire")
		}
		reply, err := newClient(t).Lookup(t.Context(), to, q, patience)
		if err != nil {
			t.Fatal(err)
		}
		if reply.Kind != Hit {
			t.Fatalf("kind %v", reply.Kind)
		}
		got := *reply.Entry
		if age, want := got.Fresh.Age(time.Now()), 13*time.Second; age < want || age > want+skew {
			t.Errorf("age %v", age)
		}
		if got.Fetched.After(sent.Fetched) || got.Sent.After(sent.Sent) || sent.Sent.Sub(got.Sent) > skew || !got.Checked.After(sent.Sent) {
			t.Errorf("fetched %v, sent %v, checked %v", got.Fetched, got.Sent, got.Checked)
		}
		got.Fresh.Received, got.Sent, got.Fetched, got.Checked = sent.Fresh.Received, sent.Sent, sent.Fetched, sent.Checked
		if !reflect.DeepEqual(&got, sent) {
			t.Errorf("got %+v, want %+v", got, sent)
		}
		var b bytes.Buffer
		if gen, err := reply.Body(into(&b)); err != nil || gen != 7 || !bytes.Equal(b.Bytes(), body) {
			t.Errorf("%d of %d bytes, generation %d, %v", b.Len(), size, gen, err)
		}
		reply.Close()
	}
}

func TestOtherAnswers(t *testing.T) {
	var answer func(*Answer)
	to, _ := serve(t, backend{lookup: func(_ context.Context, _ *Query, a *Answer) { answer(a) }})
	c := newClient(t)
	ask := func(f func(*Answer)) *Reply {
		answer = f
		reply, err := c.Lookup(t.Context(), to, NewQuery("g", store.Key{}, nil, nil), patience)
		if err != nil {
			t.Fatal(err)
		}
		reply.Close()
		return reply
	}
	if r := ask(func(a *Answer) { a.None(Ticket{}, nil) }); r.Kind != None {
		t.Errorf("%+v", r)
	}
	if r := ask(func(a *Answer) { a.Bypass(rfc9111.Private, 9*time.Second) }); r.Kind != Bypass || r.Reason != rfc9111.Private || r.For != 9*time.Second {
		t.Errorf("%+v", r)
	}
	if r := ask(func(a *Answer) { a.Vary([]string{"A", "B"}) }); r.Kind != Vary || len(r.Names) != 2 || r.Names[1] != "B" {
		t.Errorf("%+v", r)
	}
	if r := ask(func(a *Answer) { a.Lease(Ticket{5, [16]byte{6}}, nil) }); r.Kind != Lease || r.Ticket != (Ticket{5, [16]byte{6}}) || r.Entry != nil {
		t.Errorf("%+v", r)
	}
	if r := ask(func(a *Answer) { a.Lease(Ticket{Lease: 5}, testEntry(nil)) }); r.Kind != Lease || r.Entry == nil || r.Entry.Generation != 7 {
		t.Errorf("%+v", r)
	}
	if r := ask(func(a *Answer) { a.Hit(testEntry([]byte("x")), []byte("x"), 7) }); r.Kind != Hit || r.Entry.Size != 1 {
		t.Errorf("%+v", r)
	}
}

func TestFollowedFillArrivesAsItIsSent(t *testing.T) {
	more := make(chan bool)
	to, _ := serve(t, backend{lookup: func(_ context.Context, _ *Query, a *Answer) {
		if a.Follow(nil) != nil {
			return
		}
		a.Header(testEntry(nil))
		a.Data([]byte("first"))
		a.Flush()
		<-more
		a.Data([]byte("second"))
		a.End(store.Digest([]byte("firstsecond")), 3)
	}})
	reply, err := newClient(t).Lookup(t.Context(), to, NewQuery("g", store.Key{}, nil, nil), patience)
	if err != nil || reply.Kind != Follow {
		t.Fatal(reply, err)
	}
	defer reply.Close()
	if e, err := reply.Header(); err != nil || e.Status != 200 {
		t.Fatal(e, err)
	}
	var got bytes.Buffer
	gen, err := reply.Body(into(writerFunc(func(p []byte) (int, error) {
		if got.Len() == 0 {
			close(more) // the second part is sent only once the first has arrived
		}
		return got.Write(p)
	})))
	if got.String() != "firstsecond" || gen != 3 || err != nil {
		t.Errorf("%q, %d, %v", got.String(), gen, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestBrokenFollows(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(*Answer)
		want   func(error) bool
	}{
		"before the header": {
			func(a *Answer) { a.Follow(nil); a.Broken(rfc9111.Private) },
			func(err error) bool { return err == Broken{rfc9111.Private} },
		},
		"amid the body": {
			func(a *Answer) {
				a.Follow(nil)
				a.Header(testEntry(nil))
				a.Data([]byte("x"))
				a.Broken(rfc9111.TooLarge)
			},
			func(err error) bool { return err == Broken{rfc9111.TooLarge} },
		},
		"without an end": {
			func(a *Answer) { a.Follow(nil); a.Header(testEntry(nil)); a.Data([]byte("x")) },
			func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) },
		},
		"another body": {
			func(a *Answer) { a.Follow(nil); a.Header(testEntry(nil)); a.Data([]byte("x")); a.End(1, 1) },
			func(err error) bool { return errors.Is(err, ErrDigest) },
		},
		"nonsense": {
			func(a *Answer) { a.Follow(nil); a.None(Ticket{}, nil) },
			func(err error) bool { return errors.Is(err, ErrProtocol) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			to, _ := serve(t, backend{lookup: func(_ context.Context, _ *Query, a *Answer) { test.answer(a) }})
			reply, err := newClient(t).Lookup(t.Context(), to, NewQuery("g", store.Key{}, nil, nil), patience)
			if err != nil {
				t.Fatal(err)
			}
			defer reply.Close()
			if _, err = reply.Header(); err == nil {
				_, err = reply.Body(into(io.Discard))
			}
			if !test.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSilentPeerIsGivenUpAndLeftAlone(t *testing.T) {
	to, _ := serve(t, backend{lookup: func(ctx context.Context, _ *Query, _ *Answer) { <-ctx.Done() }})
	c := newClient(t)
	q := NewQuery("g", store.Key{}, nil, nil)
	if _, err := c.Lookup(t.Context(), to, q, 20*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Lookup(t.Context(), to, q, time.Hour); !errors.Is(err, ErrDown) {
		t.Errorf("got %v", err)
	}
}

func TestClientThatGivesUpSaysNothingAboutThePeer(t *testing.T) {
	called := make(chan struct{}, 2)
	to, _ := serve(t, backend{lookup: func(ctx context.Context, _ *Query, _ *Answer) { called <- struct{}{}; <-ctx.Done() }})
	c := newClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-called; cancel() }()
	if _, err := c.Lookup(ctx, to, NewQuery("g", store.Key{}, nil, nil), patience); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if !c.breaker.allow(to.Addr, time.Now()) {
		t.Error("the peer is taken for dead")
	}
}

type namedError struct{ why rfc9111.Reason }

func (e namedError) Error() string          { return "named" }
func (e namedError) Reason() rfc9111.Reason { return e.why }

func TestPublish(t *testing.T) {
	large := strings.Repeat("y", store.ChunkSize-2)
	for name, test := range map[string]struct {
		body pieces
		want error
	}{
		"whole":        {pieces{[]string{"a", large, "b"}, io.EOF}, nil},
		"empty":        {pieces{nil, io.EOF}, nil},
		"broken off":   {pieces{[]string{"a"}, errors.New("upstream")}, Broken{rfc9111.Truncated}},
		"and says why": {pieces{[]string{"a"}, fmt.Errorf("because: %w", namedError{rfc9111.TooLarge})}, Broken{rfc9111.TooLarge}},
	} {
		t.Run(name, func(t *testing.T) {
			want := strings.Join(test.body.rest, "")
			to, _ := serve(t, backend{publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
				var got bytes.Buffer
				err := p.Body(into(&got))
				if got.String() != want || p.Ticket.Lease != 5 || p.Query.Key != (store.Key{1}) || p.Entry.Status != 200 || p.Refresh {
					t.Errorf("%d bytes, %+v", got.Len(), p)
				}
				var b Broken
				if errors.As(err, &b) {
					return 0, b.Reason
				}
				return 11, rfc9111.None
			}})
			gen, err := newClient(t).Publish(t.Context(), to, &Publication{Query: NewQuery("g", store.Key{1}, nil, nil), Ticket: Ticket{Lease: 5}, Entry: testEntry(nil)}, &test.body)
			if err != test.want || err == nil && gen != 11 {
				t.Errorf("generation %d, %v", gen, err)
			}
		})
	}
}

func TestRefreshAndRelease(t *testing.T) {
	var got []*Publication
	to, _ := serve(t, backend{publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
		got = append(got, p)
		return 0, rfc9111.None
	}})
	c, q := newClient(t), NewQuery("g", store.Key{1}, nil, nil)
	if err := c.Refresh(t.Context(), to, q, Ticket{Lease: 5}, testEntry(nil)); err != nil {
		t.Fatal(err)
	}
	if err := c.Release(t.Context(), to, q, Ticket{Lease: 6}, rfc9111.Private); err != nil {
		t.Fatal(err)
	}
	if !got[0].Refresh || got[0].Ticket.Lease != 5 || got[0].Entry.Generation != 7 || got[1].Released != rfc9111.Private || got[1].Ticket.Lease != 6 {
		t.Errorf("%+v, %+v", got[0], got[1])
	}
}

func TestLearn(t *testing.T) {
	var got []*Query
	to, s := serve(t, backend{learn: func(q *Query) { got = append(got, q) }})
	c := newClient(t)
	if err := c.Learn(t.Context(), to, NewQuery("g", store.Key{3}, nil, nil)); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Key != (store.Key{3}) || got[0].Group != "g" {
		t.Errorf("%+v", got)
	}
	s.Close()
	if err := c.Learn(t.Context(), to, NewQuery("g", store.Key{3}, nil, nil)); err == nil {
		t.Error("a node that is gone has learned")
	}
}

func TestPurgesCrossTheWire(t *testing.T) {
	sent := []store.Purge{
		{ID: 5, Group: "g", At: time.Now().Add(-time.Minute), Selectors: []store.Selector{{Kind: store.Tag, Value: "t"}, {Kind: store.All}}},
		{ID: 1<<64 - 1, Soft: true, At: time.Now(), Selectors: []store.Selector{{Kind: store.URL, Value: strings.Repeat("x", MaxSelectorLength)}}},
	}
	gone := time.Now().Add(-time.Hour)
	var got []store.Purge
	to, s := serve(t, backend{
		purge:  func(p []store.Purge) { got = p },
		purges: func() ([]store.Purge, time.Time) { return sent, gone },
	})
	c := newClient(t)
	if _, err := c.Purge(t.Context(), to, sent, false); err != nil {
		t.Fatal(err)
	}
	same := func(got []store.Purge) {
		t.Helper()
		if len(got) != len(sent) {
			t.Fatalf("%d purges", len(got))
		}
		for i, p := range got {
			if d := p.At.Sub(sent[i].At); d > skew || d < -skew {
				t.Errorf("%d: at %v, sent as of %v", i, p.At, sent[i].At)
			}
			p.At = sent[i].At
			if !reflect.DeepEqual(p, sent[i]) {
				t.Errorf("%d: got %+v", i, p)
			}
		}
	}
	same(got)
	list, dropped, err := c.Purges(t.Context(), to, patience)
	if err != nil || dropped.Sub(gone) > skew || gone.Sub(dropped) > skew {
		t.Errorf("%v, dropped %v", err, dropped)
	}
	same(list)
	gone = time.Time{}
	if _, dropped, err := c.Purges(t.Context(), to, patience); err != nil || !dropped.IsZero() {
		t.Errorf("%v, dropped %v", err, dropped)
	}
	s.Close()
	if _, err := c.Purge(t.Context(), to, sent, false); err == nil {
		t.Error("a node that is gone has purged")
	}
}

func TestBreaker(t *testing.T) {
	now := time.Now()
	var b breaker
	step := func(d time.Duration, want bool) {
		t.Helper()
		now = now.Add(d)
		if got := b.allow("a", now); got != want {
			t.Errorf("allow is %v", got)
		}
	}
	step(0, true)
	b.failed("a", now)
	b.failed("a", now) // another one that was under way
	step(firstPause-1, false)
	step(1, true)  // one tries
	step(1, false) // the others don't
	b.failed("a", now.Add(firstPause))
	now = now.Add(firstPause)
	step(2*firstPause-1, false)
	step(2, true)
	b.succeeded("a")
	step(0, true)
	step(0, true)
	b.failed("a", now)
	b.keep(map[string]bool{"b": true})
	step(0, true)
	if len(b.peers) != 0 {
		t.Error("peers that are gone are remembered")
	}
}

// TestHealthIsToldInOrder: a peer answers again while it is still being told of that it does
// not. The last that is told is how it is.
func TestHealthIsToldInOrder(t *testing.T) {
	telling, goOn := make(chan struct{}), make(chan struct{})
	var told []bool
	var b breaker
	b.onChange = func(_ string, degraded bool) {
		if degraded {
			close(telling)
			<-goOn
		}
		told = append(told, degraded)
	}
	failed := make(chan struct{})
	go func() {
		defer close(failed)
		b.failed("a", time.Now())
	}()
	<-telling
	b.succeeded("a")
	close(goOn)
	<-failed
	if !slices.Equal(told, []bool{true, false}) {
		t.Errorf("told of failures: %v", told)
	}
}

func TestManyAtOnce(t *testing.T) {
	to, _ := serve(t, backend{lookup: func(_ context.Context, q *Query, a *Answer) {
		body := []byte(q.Fields.Get("Accept"))
		a.Hit(testEntry(body), body, 0)
	}})
	c := newClient(t)
	var all sync.WaitGroup
	for g := range 200 {
		all.Go(func() {
			want := fmt.Sprint(g)
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
	all.Wait()
}
