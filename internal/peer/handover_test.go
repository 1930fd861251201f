package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestHandOver(t *testing.T) {
	body := []byte(strings.Repeat("hello", 1000))
	e := testEntry(body)
	k := store.Key{7}
	chunk := ChunkID{Key: k, Generation: 5, Index: 3}
	var took []*store.Entry
	var chunks []ChunkID
	to, _ := serve(t, backend{
		heard: []store.PurgeID{4, 5},
		take: func(q *Query, got *store.Entry, b []byte) {
			if q.Group != "group" || q.Key != k || !bytes.Equal(b, body) {
				t.Errorf("%+v: %d bytes", q, len(b))
			}
			took = append(took, got)
		},
		put: func(id ChunkID, b []byte) {
			if !bytes.Equal(b, body) {
				t.Errorf("chunk %+v: %d bytes", id, len(b))
			}
			chunks = append(chunks, id)
		},
	})
	before := time.Now()
	err := newClient(t).HandOver(t.Context(), to, func(heir *Query, g *Gift) error {
		if !slices.Equal(heir.Purges, []store.PurgeID{4, 5}) || !heir.Told {
			t.Errorf("the heir knows of %v", heir.Purges)
		}
		return errors.Join(g.Entry("group", k, e, body, true), g.Chunk(chunk, body), g.Entry("group", k, e, body, false))
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(took) != 2 || len(chunks) != 1 || chunks[0] != chunk {
		t.Fatalf("%d entries and chunks %v", len(took), chunks)
	}
	if !took[0].Compared || took[1].Compared {
		t.Error("whether they have been compared with purges was lost")
	}
	for _, got := range took {
		if got.Fetched.After(e.Fetched) || got.Sent.After(e.Sent) {
			t.Error("it has become younger")
		}
		if got.Checked.Before(before) || got.Checked.After(time.Now()) {
			t.Error("purges count from another time than when the heir told which it knows")
		}
		if got.Generation != e.Generation || !slices.Equal(fieldsOf(got), fieldsOf(e)) {
			t.Errorf("%+v", got)
		}
	}
}

// What is not whole, or not what it says, is not taken, and nothing after it.
func TestBrokenGifts(t *testing.T) {
	body := []byte("hello")
	for name, give := range map[string]func(*testing.T, *Gift) error{
		"another body": func(_ *testing.T, g *Gift) error {
			return g.Entry("group", store.Key{1}, testEntry(body), []byte("jello"), true)
		},
		"a longer body": func(_ *testing.T, g *Gift) error {
			return g.Entry("group", store.Key{1}, testEntry(body), []byte("hello, hello"), true)
		},
		"no generation": func(_ *testing.T, g *Gift) error {
			e := testEntry(body)
			e.Generation = 0
			return g.Entry("group", store.Key{1}, e, body, true)
		},
		"garbage": func(_ *testing.T, g *Gift) error {
			_, err := io.WriteString(g.out, "garbage garbage garbage")
			return err
		},
		"a chunk of nothing": func(_ *testing.T, g *Gift) error {
			return g.Chunk(ChunkID{Key: store.Key{1}, Generation: 5}, body)
		},
	} {
		t.Run(name, func(t *testing.T) {
			to, s := serve(t, rejecting(t))
			err := newClient(t).HandOver(t.Context(), to, func(_ *Query, g *Gift) error { return give(t, g) })
			if err == nil {
				t.Error("it was taken")
			}
			if n := s.Refused(); n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

func TestHandOverEndsWithItsContext(t *testing.T) {
	stuck := make(chan struct{})
	ctx, cancel := context.WithCancelCause(t.Context())
	to, _ := serve(t, backend{take: func(*Query, *store.Entry, []byte) {
		cancel(ErrTimeout)
		<-stuck
	}})
	t.Cleanup(func() { close(stuck) })
	body := make([]byte, store.ChunkSize)
	err := newClient(t).HandOver(ctx, to, func(_ *Query, g *Gift) error {
		for { // much more than the heir will ever read
			if err := g.Entry("group", store.Key{1}, testEntry(body), body, true); err != nil {
				return err
			}
		}
	})
	if !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
}

func FuzzGift(f *testing.F) {
	f.Add(wire(func(w *frameWriter) {
		g := Gift{w.w}
		_ = g.Entry("group", store.Key{1}, testEntry([]byte("hello")), []byte("hello"), true)
		_ = g.Chunk(ChunkID{Key: store.Key{1}, Generation: 5, Index: 3}, []byte("hello"))
		w.frame(frameEnd, nil)
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := NewServer(backend{
			take: func(_ *Query, e *store.Entry, body []byte) {
				if int64(len(body)) != min(e.Size, store.ChunkSize) || e.Generation == 0 || store.Digest(body) != e.Digest {
					t.Errorf("%+v with %d bytes", e, len(body))
				}
			},
			put: func(id ChunkID, chunk []byte) {
				if id.Generation == 0 || id.Index == 0 || len(chunk) == 0 {
					t.Errorf("%+v with %d bytes", id, len(chunk))
				}
			},
		}, new(Identity))
		_ = takeover{s.backend, newFrameReader(bytes.NewReader(b)), time.Now()}.all(func() {}) // it may fail, and must not panic
	})
}
