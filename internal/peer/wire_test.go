package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// What a peer says about another key than it was asked about, or of another
// body than its entry's, is not taken.
func TestAnswersAreCheckedAgainstWhatWasAsked(t *testing.T) {
	body := []byte("hello")
	for name, answer := range map[string]func(a *Answer){
		"another key":           func(a *Answer) { a.key[0]++; a.Hit(testEntry(body), body, 0) },
		"none of another key":   func(a *Answer) { a.key[0]++; a.None(Ticket{}, nil) },
		"lease for another key": func(a *Answer) { a.key[0]++; a.Lease(Ticket{Lease: 1}, nil) },
		"another generation": func(a *Answer) {
			a.say(frameEntry, entryNow(testEntry(body)))
			a.Data(body)
			a.End(store.Digest(body), 8)
		},
		"another digest": func(a *Answer) {
			a.say(frameEntry, entryNow(testEntry(body)))
			a.Data([]byte("hullo"))
			a.End(store.Digest([]byte("hullo")), 7)
		},
		"another size": func(a *Answer) {
			e := testEntry(body)
			e.Size = 4
			a.say(frameEntry, entryNow(e))
			a.Data(body)
			a.End(e.Digest, 7)
		},
		"fill of another key": func(a *Answer) {
			a.Follow(nil)
			a.key[0]++
			a.Header(testEntry(nil))
			a.Data(body)
			a.End(store.Digest(body), 7)
		},
		"more than can be stored": func(a *Answer) {
			e := testEntry(make([]byte, store.ChunkSize))
			e.Size = store.MaxBodySize + 1
			a.Hit(e, make([]byte, store.ChunkSize), 0)
		},
		"content length of another size": func(a *Answer) {
			e := testEntry(body)
			e.SetFields(append(fieldsOf(e), store.Field{Name: "Content-Length", Value: "4"}))
			a.Hit(e, body, 0)
		},
	} {
		to, _ := serve(t, backend{lookup: func(_ context.Context, _ *Query, a *Answer) { answer(a) }})
		reply, err := newClient(t).Lookup(t.Context(), to, NewQuery("g", store.Key{1}, nil, nil), patience)
		if err == nil && reply.Kind == Follow {
			_, err = reply.Header()
		}
		if err == nil && reply.Kind == Hit {
			_, err = reply.Body(into(io.Discard))
		}
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	to, _ := serve(t, backend{publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
		p.Query.Key[0]++
		return 1, rfc9111.None
	}})
	if _, err := newClient(t).Publish(t.Context(), to, &Publication{Query: NewQuery("g", store.Key{1}, nil, nil), Entry: testEntry(nil)}, &pieces{nil, io.EOF}); !errors.Is(err, ErrProtocol) {
		t.Errorf("thanks for another key: %v", err)
	}
}

func TestFieldsThatNoNodeWouldStoreAreDropped(t *testing.T) {
	e := testEntry(nil)
	e.SetFields([]store.Field{
		{Name: "X-Good", Value: "1"}, {Name: "A-Good", Value: "2"}, {Name: "X-Split", Value: "a\r\nSet-Cookie: x=y"},
		{Name: "X-Nul", Value: "a\x00b"}, {Name: "X-Line", Value: "a\nb"}, {Name: "X Space", Value: "a"}, {Name: "", Value: "a"},
		{Name: "x-lower", Value: "a"}, {Name: "Connection", Value: "close"}, {Name: "Transfer-Encoding", Value: "chunked"},
		{Name: "X-Evil\r\nX-Other", Value: "a"}, {Name: ":status", Value: "200"},
	})
	enc := encoder{}
	appendEntry(&enc, e, time.Now())
	d := &decoder{rest: enc}
	got := d.entry(time.Now(), time.Now())
	if err := d.done(); err != nil {
		t.Fatal(err)
	}
	if want := "[{A-Good 2} {X-Good 1}]"; fmt.Sprint(fieldsOf(got)) != want {
		t.Errorf("got %v, want %s", fieldsOf(got), want)
	}
}

func TestReasonsThatNobodyKnowsAreNamed(t *testing.T) {
	to, _ := serve(t, backend{lookup: func(_ context.Context, _ *Query, a *Answer) { a.Bypass(200, time.Hour) }})
	reply, err := newClient(t).Lookup(t.Context(), to, NewQuery("g", store.Key{1}, nil, nil), patience)
	if err != nil || reply.Reason != rfc9111.PeerError {
		t.Errorf("%v, %v", reply, err)
	}
}

func TestGroupNamesThatMetricsWouldNotTakeAreRefused(t *testing.T) {
	to, s := serve(t, rejecting(t))
	before := s.Refused()
	reply, err := newClient(t).Lookup(t.Context(), to, NewQuery("\xff", store.Key{1}, nil, nil), patience)
	if err == nil {
		t.Errorf("%+v", reply)
	}
	if s.Refused() != before+1 {
		t.Error("not counted")
	}
}
