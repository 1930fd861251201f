package fill

import (
	"io"

	"github.com/cespare/xxhash/v2"
)

// A body is the bytes of a Fill, and the memory that holds them. The Fill guards it.
type body struct {
	limit  int64
	chunk  int64 // size of all chunks but the last
	budget *Budget
	length int64         // as announced, or 0; set before anything is appended
	owing  int64         // memory that was reserved for the first chunk, until it is allocated
	first  [][]byte      // the first chunk, in blocks; only the last one can still grow
	rest   [][]byte      // the further chunks that are here; only the last one can still grow
	gone   int           // how many further chunks before those are elsewhere
	size   int64         // of the body so far
	digest xxhash.Digest // of the first chunk, of which it has had summed bytes
	summed int64
	away   int64 // the body up to here, but the first chunk, is elsewhere
	held   int64 // bytes taken from budget
}

// append appends a copy of p, of which it returns how much there was room for.
func (b *body) append(p []byte) (n int, err error) {
	for n < len(p) {
		block, err := b.room(len(p) - n)
		if err != nil {
			return n, err
		}
		k := copy((*block)[len(*block):cap(*block)], p[n:])
		*block = (*block)[:len(*block)+k]
		if b.size < b.chunk && b.summed == b.size { // now it is in the processor's cache
			_, _ = b.digest.Write(p[n : n+k]) // never fails
			b.summed += int64(k)
		}
		b.size += int64(k)
		n += k
	}
	return n, nil
}

// room returns the block that the next bytes go to, of which there are so many at least.
func (b *body) room(need int) (*[]byte, error) {
	if b.size < b.chunk {
		if last := len(b.first) - 1; last >= 0 && len(b.first[last]) < cap(b.first[last]) {
			return &b.first[last], nil
		}
		if b.owing > 0 {
			return b.expected(need), nil
		}
		want := min(max(firstBlock, b.size, int64(need)), b.chunk-b.size, b.limit-b.size)
		block, err := b.allocate(want)
		if err != nil {
			return nil, err
		}
		b.first = append(b.first, block)
		return &b.first[len(b.first)-1], nil
	}
	if b.size%b.chunk == 0 {
		want := min(b.chunk, b.limit-b.size)
		if b.length > b.size {
			want = min(want, b.length-b.size)
		}
		block, err := b.allocate(want)
		if err != nil {
			return nil, err
		}
		b.rest = append(b.rest, block)
	}
	if len(b.rest) == 0 { // it has been said to end elsewhere
		return nil, io.ErrUnexpectedEOF
	}
	last := &b.rest[len(b.rest)-1]
	if len(*last) == cap(*last) { // the body is longer than its limit, or its announced length, was when that began
		block, err := b.allocate(min(b.chunk, b.limit-b.size+int64(len(*last))))
		if err != nil {
			return nil, err
		}
		b.free(*last)
		*last = append(block, *last...)
	}
	return last, nil
}

// expected returns the block for a first chunk whose length was announced; or for the
// first piece of a long one a block of its own, which is moved to the other with the next
// piece. A reader that has read from it by then has the same bytes.
func (b *body) expected(need int) *[]byte {
	if b.size == 0 && b.owing >= early && int64(need) < b.owing {
		if block, err := b.allocate(int64(need)); err == nil {
			b.first = append(b.first, block)
			return &b.first[0]
		}
	}
	block := make([]byte, b.size, b.owing)
	if b.size > 0 {
		copy(block, b.first[0])
		b.free(b.first[0])
	}
	b.first, b.owing = [][]byte{block}, 0
	return &b.first[0]
}

func (b *body) allocate(n int64) ([]byte, error) {
	if !b.budget.TakeFor(n) {
		return nil, ErrMemory
	}
	b.held += n
	return make([]byte, 0, n), nil
}

// free gives back the memory of a block that is no longer part of the body.
func (b *body) free(block []byte) {
	b.budget.Give(int64(cap(block)))
	b.held -= int64(cap(block))
}

// firstChunk returns the first chunk as one slice.
func (b *body) firstChunk() []byte {
	if len(b.first) == 1 && len(b.first[0]) > cap(b.first[0])/4*3 {
		return b.first[0][:len(b.first[0]):len(b.first[0])]
	}
	all := make([]byte, 0, min(b.size, b.chunk))
	for _, block := range b.first {
		all = append(all, block...)
	}
	return all
}

// firstDigest returns the digest of the first chunk, which has had a part of it already.
func (b *body) firstDigest() uint64 {
	skip := b.summed
	for _, block := range b.first {
		rest := block[min(skip, int64(len(block))):]
		skip -= int64(len(block) - len(rest))
		_, _ = b.digest.Write(rest) // never fails
		b.summed += int64(len(rest))
	}
	return b.digest.Sum64()
}

// settled returns how much of the body is here for good, or elsewhere.
func (b *body) settled() int64 { return max(min(b.size, b.chunk), b.away) }

// dropAhead lets go of bytes that are beyond what is settled.
func (b *body) dropAhead() {
	if settled := b.settled(); b.size != settled {
		last := len(b.rest) - 1
		b.free(b.rest[last])
		b.rest, b.size = b.rest[:last], settled
	}
}

// release gives back all memory.
func (b *body) release() {
	b.budget.Give(b.held)
	b.held, b.size, b.away, b.first, b.rest = 0, 0, 0, nil, nil
}
