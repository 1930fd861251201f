package express

import (
	"bytes"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	targetBits = 1 << 21         // of a set: 256 KiB
	mostNoted  = targetBits >> 2 // or too many that were not noted would seem to be
)

// Targets are the paths of requests that the cache has stored a response to, or has answered: a
// hit is likely. Others are handed on without being parsed, because for most of them, such as
// pages that are not stored, that would be done twice. Queries don't count: the cache may ignore
// some of it. They are kept as bits of their hashes, so some are in it that were not noted, and
// those that were not noted for long are gone. The zero value has none. The methods may be called
// at the same time.
type Targets struct {
	beginning      sync.Mutex // held while another set is begun
	recent, before atomic.Pointer[targetSet]
}

type targetSet struct {
	words [targetBits / 64]atomic.Uint64
	noted atomic.Int32 // bits that are set
}

var targetSeed = maphash.MakeSeed()

// Note takes in the target of a request, as it stood in its first line.
func (t *Targets) Note(target string) {
	set := t.recent.Load()
	if set == nil || set.noted.Load() >= mostNoted {
		set = t.begin(set)
	}
	path, _, _ := strings.Cut(target, "?")
	word, bit := set.at(maphash.String(targetSeed, path))
	if word.Load()&bit == 0 && word.Or(bit)&bit == 0 {
		set.noted.Add(1)
	}
}

// begin returns a new set, unless another call has begun one meanwhile.
func (t *Targets) begin(full *targetSet) *targetSet {
	t.beginning.Lock()
	defer t.beginning.Unlock()
	if set := t.recent.Load(); set != full {
		return set
	}
	t.before.Store(full)
	set := new(targetSet)
	t.recent.Store(set)
	return set
}

// has reports whether the path of a target was noted, or seems to be.
func (t *Targets) has(target []byte) bool {
	path, _, _ := bytes.Cut(target, []byte("?"))
	hash := maphash.Bytes(targetSeed, path)
	for _, set := range [...]*targetSet{t.recent.Load(), t.before.Load()} {
		if set == nil {
			continue
		}
		if word, bit := set.at(hash); word.Load()&bit != 0 {
			return true
		}
	}
	return false
}

// at returns where the bit of a hash is.
func (s *targetSet) at(hash uint64) (word *atomic.Uint64, bit uint64) {
	hash %= targetBits
	return &s.words[hash/64], 1 << (hash % 64)
}
