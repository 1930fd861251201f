package store

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

// A table is compared with a map. Few keys make it both grow and be nearly
// empty, and those that differ little share homes.
func TestTable(t *testing.T) {
	random := seed.Of(t).Rand()
	for _, many := range []uint64{3, 50, 5000} {
		var table table
		model := make(map[Key]*resource)
		keyOf := func(n uint64) (k Key) {
			binary.BigEndian.PutUint64(k[:], n%7*n)
			binary.BigEndian.PutUint64(k[24:], n)
			return k
		}
		for step := range 40_000 {
			k := keyOf(random.Uint64N(many))
			switch r := model[k]; {
			case table.get(k) != r:
				t.Fatalf("of %d keys, at step %d: got %p, want %p", many, step, table.get(k), r)
			case r == nil && step/(2*int(many))%2 == 0:
				model[k] = &resource{key: k}
				table.add(model[k])
			case r != nil && step/(2*int(many))%2 == 1:
				table.remove(r)
				delete(model, k)
			}
			if len(model) != table.count || 2*table.count > len(table.slots) {
				t.Fatalf("of %d keys, at step %d: %d in %d slots, want %d", many, step, table.count, len(table.slots), len(model))
			}
		}
		for n := range many {
			if k := keyOf(n); table.get(k) != model[k] {
				t.Fatalf("of %d keys: %d is lost, or is there again", many, n)
			}
		}
		compare := func(a, b Key) int { return slices.Compare(a[:], b[:]) }
		if got, want := table.keys(), slices.SortedFunc(maps.Keys(model), compare); !slices.Equal(slices.SortedFunc(slices.Values(got), compare), want) {
			t.Errorf("got %d keys, want %d", len(got), len(want))
		}
	}
}
