package store

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// A table finds resources by their keys, by open addressing. It consists of
// pointers only: a map would hold every key once more, which is a tenth of what a
// small entry takes altogether.
type table struct {
	slots []*resource // as many as a power of two; at least half are nil, so that few others are passed
	count int
}

// tableSeed keeps who chooses URLs from choosing slots.
var tableSeed = rand.Uint64() | 1

// home returns the slot from which on a key is looked for.
func (t *table) home(k *Key) int {
	return int(binary.BigEndian.Uint64(k[:8]) * tableSeed >> bits.LeadingZeros64(uint64(len(t.slots)-1)))
}

func (t *table) after(i int) int { return (i + 1) & (len(t.slots) - 1) }

// find returns the slot of a key, or the one where it would be put.
func (t *table) find(k *Key) int {
	i := t.home(k)
	for t.slots[i] != nil && t.slots[i].key != *k {
		i = t.after(i)
	}
	return i
}

// get returns the resource of a key, or nil.
func (t *table) get(k Key) *resource {
	if t.count == 0 {
		return nil
	}
	return t.slots[t.find(&k)]
}

// add puts in a resource whose key is not there.
func (t *table) add(r *resource) {
	if t.count++; 2*t.count > len(t.slots) {
		old := t.slots
		t.slots = make([]*resource, max(2*len(old), 8))
		for _, o := range old {
			if o != nil {
				t.slots[t.find(&o.key)] = o
			}
		}
	}
	t.slots[t.find(&r.key)] = r
}

// remove takes out a resource that is there. Those that would not be found
// beyond the gap move up.
func (t *table) remove(r *resource) {
	t.count--
	gap := t.find(&r.key)
	distance := func(from, to int) int { return (to - from) & (len(t.slots) - 1) }
	for i := t.after(gap); t.slots[i] != nil; i = t.after(i) {
		if distance(t.home(&t.slots[i].key), i) >= distance(gap, i) {
			t.slots[gap] = t.slots[i]
			gap = i
		}
	}
	t.slots[gap] = nil
}

// keys returns all keys.
func (t *table) keys() []Key {
	keys := make([]Key, 0, t.count)
	for _, r := range t.slots {
		if r != nil {
			keys = append(keys, r.key)
		}
	}
	return keys
}
