package peer

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// saved returns the encoding of an entry, and of a chunk.
func saved(t testing.TB) (e *store.Entry, entry, chunk []byte) {
	t.Helper()
	body := []byte(strings.Repeat("hello", 1000))
	e = testEntry(body)
	var b bytes.Buffer
	if err := NewGift(&b).Entry("group", store.Key{7}, e, body, true); err != nil {
		t.Fatal(err)
	}
	entry = bytes.Clone(b.Bytes())
	b.Reset()
	if err := NewGift(&b).Chunk(ChunkID{Key: store.Key{7}, Generation: 5, Index: 3}, body); err != nil {
		t.Fatal(err)
	}
	return e, entry, b.Bytes()
}

func TestSaved(t *testing.T) {
	asOf := time.Now().Add(-time.Hour)
	e, entry, chunk := saved(t)
	s, err := DecodeSaved(entry, asOf)
	if err != nil || s.Query.Group != "group" || s.ID.Key != (store.Key{7}) || s.ID.Generation != e.Generation || int64(len(s.Body)) != e.Size {
		t.Fatalf("%+v, %v", s, err)
	}
	if s.Entry.Compared || !reflect.DeepEqual(s.Entry.Header(), e.Header()) {
		t.Errorf("the entry is %+v", s.Entry)
	}
	if younger := s.Entry.Fetched.Sub(e.Fetched.Add(-time.Hour)); younger > 0 {
		t.Errorf("it has become younger by %v", younger)
	}
	if s, err = DecodeSaved(chunk, asOf); err != nil || s.Entry != nil || s.ID.Index != 3 || len(s.Body) != int(e.Size) {
		t.Errorf("%+v, %v", s, err)
	}
	for _, encoded := range [][]byte{entry, chunk} {
		for i := range encoded {
			if _, err := DecodeSaved(encoded[:i], asOf); err == nil {
				t.Fatalf("%d of %d bytes pass for all", i, len(encoded))
			}
		}
		if _, err := DecodeSaved(append(bytes.Clone(encoded), 0), asOf); err == nil {
			t.Error("bytes after the end")
		}
	}
}

func FuzzSaved(f *testing.F) {
	_, entry, chunk := saved(f)
	f.Add(entry)
	f.Add(chunk)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSaved(b, time.Now())
		if err == nil && (len(s.Body) > store.ChunkSize || s.ID.Generation == 0) {
			t.Errorf("%+v", s.ID)
		}
	})
}
