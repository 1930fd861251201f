package store

import (
	"encoding/binary"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// What all processors together can look up: golang/groupcache has one lock for
// all bodies, the index one for each shard, which readers share.
func BenchmarkParallel(b *testing.B) {
	s := New(64<<20, 64<<20)
	defer s.Close()
	space, now := s.Namespace("a"), time.Now()
	keys := make([]Key, 1<<10)
	entries := make([]*Entry, len(keys))
	for i := range keys {
		binary.BigEndian.PutUint64(keys[i][:], uint64(i)<<56|uint64(i))
		e, why := NewEntry(http.StatusOK, http.Header{"X": {"a"}}, nil, rfc9111.Freshness{}, now)
		if why != rfc9111.None {
			b.Fatal(why)
		}
		entries[i] = s.Commit(space, keys[i], e, make([]byte, 1024))
	}
	b.Run("Lookup", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				s.Lookup(keys[i%len(keys)], nil, now)
			}
		})
	})
	b.Run("Body", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, err := s.Body(keys[i%len(keys)], entries[i%len(keys)]); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
