package peer

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func FuzzReply(f *testing.F) {
	e := testEntry([]byte("hello"))
	a := func(answer func(*Answer)) []byte {
		return wire(func(w *frameWriter) {
			a := &Answer{out: *w, flusher: http.NewResponseController(httptest.NewRecorder())}
			answer(a)
			*w = a.out
		})
	}
	f.Add(a(func(a *Answer) { a.Hit(e, []byte("hello"), 0) }))
	f.Add(a(func(a *Answer) { a.None(Ticket{}, nil) }))
	f.Add(a(func(a *Answer) { a.Bypass(3, time.Minute) }))
	f.Add(a(func(a *Answer) { a.Vary([]string{"X-A"}) }))
	f.Add(wire(func(w *frameWriter) {
		a := &Answer{out: *w}
		a.say(frameWait, nil)
		a.Header(e)
		_ = a.Data([]byte("hello"))
		a.End(e.Digest, 7)
		*w = a.out
	}))
	f.Add(a(func(a *Answer) { a.Lease(Ticket{Lease: 72623859790382856}, e) }))
	f.Add(append([]byte{frameLease, 0, 0, 0, 40}, make([]byte, 40)...))
	f.Add([]byte{frameEntry, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{frameEntry, 0, 0, 0, 2, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &Reply{frames: newFrameReader(bytes.NewReader(b)), sent: time.Now()}
		if r.first() != nil {
			return
		}
		if r.Kind == Follow {
			e, err := r.Header()
			if err != nil {
				return
			}
			r.Entry = e
		}
		if e := r.Entry; e != nil {
			if e.Status < 200 || e.Status > 599 || e.NumFields() > store.MaxFields || len(e.Vary()) > store.MaxVaryNames || e.Size < 0 {
				t.Fatalf("%+v", e)
			}
			for _, field := range fieldsOf(e) {
				if bytes.ContainsAny([]byte(field.Name+field.Value), "\r\n\x00") {
					t.Fatalf("field %q", field)
				}
			}
			if age := e.Fresh.Age(time.Now()); age < 0 {
				t.Fatalf("age %v", age)
			}
		}
		_, _ = r.Body(into(io.Discard)) // it may fail, and must not panic
	})
}

func FuzzQuery(f *testing.F) {
	q := NewQuery("group", store.Key{1}, http.Header{"Accept": {"a", "b"}, "X-A": {"1"}}, []string{"X-A"})
	q.Lead, q.Have = true, 9
	f.Add(wire(func(w *frameWriter) { w.frame(frameQuery, q.append) }))
	f.Add([]byte{frameQuery, 0, 0, 0, 1, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, d, _, err := newFrameReader(bytes.NewReader(b)).next()
		if err != nil || kind != frameQuery {
			return
		}
		got := d.query()
		if d.done() != nil {
			return
		}
		again := wire(func(w *frameWriter) { w.frame(frameQuery, got.append) })
		_, d, _, err = newFrameReader(bytes.NewReader(again)).next()
		if err != nil {
			t.Fatal(err)
		}
		second := d.query()
		if d.done() != nil || second.Key != got.Key || second.Group != got.Group || len(second.Fields) != len(got.Fields) {
			t.Fatalf("%+v became %+v", got, second)
		}
	})
}

func FuzzPublication(f *testing.F) {
	q := NewQuery("group", store.Key{1}, nil, nil)
	e := testEntry([]byte("hello"))
	f.Add(append(publishHead(frameEntry, q, Ticket{Lease: 5}, e), wire(func(w *frameWriter) {
		w.data([]byte("hello"))
		w.end(e.Digest, 0)
	})...))
	f.Add(publishHead(frameRefresh, q, Ticket{Lease: 5}, e))
	f.Add(append(publishHead(0, q, Ticket{Lease: 5}, nil), frameBroken, 0, 0, 0, 1, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPublication(newFrameReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		if (p.Entry == nil) == (p.Released == 0) {
			t.Fatalf("%+v", p)
		}
		_ = p.Body(into(io.Discard)) // it may fail, and must not panic
	})
}

func FuzzPurges(f *testing.F) {
	f.Add(EncodePurges([]store.Purge{{ID: 5, Group: "g", Soft: true, Selectors: []store.Selector{{Kind: store.Tag, Value: "t"}, {Kind: store.All}}}}, time.Now()))
	f.Add(EncodePurges(nil, time.Time{}))
	f.Add(EncodePurges([]store.Purge{{Selectors: []store.Selector{{Kind: store.OfKey, Value: "short"}}}}, time.Time{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		purges, dropped, err := DecodePurges(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, droppedAgain, err := DecodePurges(bytes.NewReader(EncodePurges(purges, dropped)))
		if err != nil || len(again) != len(purges) || dropped.IsZero() != droppedAgain.IsZero() {
			t.Fatalf("%+v became %+v, %v", purges, again, err)
		}
		for i := range again {
			again[i].At = purges[i].At
			if slices.ContainsFunc(purges[i].Selectors, func(s store.Selector) bool { return !s.Valid() }) {
				t.Errorf("%+v names what can't be", purges[i])
			}
			if !reflect.DeepEqual(again[i], purges[i]) {
				t.Errorf("%+v became %+v", purges[i], again[i])
			}
		}
	})
}

// FuzzPreface: what is read of a connection that shall be HTTP/2 is what came, and is let
// through only if it is HTTP/2's beginning, however it arrives.
func FuzzPreface(f *testing.F) {
	f.Add([]byte(preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), uint8(1))
	f.Add([]byte(preface+"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"), uint8(30))
	f.Add([]byte(preface+"\xff\xff\xff\x04\x00\x00\x00\x00\x00"), uint8(9))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		rest := bytes.NewReader(b)
		got, err := readPreface(byPiece{rest, int(piece)%64 + 1})
		read := len(b) - rest.Len()
		if read > len(preface)+headH2 {
			t.Errorf("read %d bytes", read)
		}
		good := len(b) >= len(preface)+headH2 && string(b[:len(preface)]) == preface && b[len(preface)+3] == frameSettings &&
			int(b[len(preface)])<<16|int(b[len(preface)+1])<<8|int(b[len(preface)+2]) <= maxFrameH2
		if (err == nil) != good || err == nil && !bytes.Equal(got, b[:read]) {
			t.Errorf("%q: %q, %v", b, got, err)
		}
	})
}

// byPiece reads so many bytes at a time.
type byPiece struct {
	io.Reader
	size int
}

func (p byPiece) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), p.size)]) }
