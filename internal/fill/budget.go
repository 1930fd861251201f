package fill

import "sync/atomic"

// A Budget bounds the memory of all bodies in flight. A nil Budget has no
// bound. The zero value has room for nothing.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a Budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used returns how many bytes are taken now.
func (b *Budget) Used() int64 { return b.used.Load() }

// Take takes n bytes until release. It reports false, and takes nothing, when
// there is no room for them.
func (b *Budget) Take(n int64) (release func(), ok bool) {
	if !b.TakeFor(n) {
		return nil, false
	}
	return func() { b.Give(n) }, true
}

// TakeFor is Take for who gives the bytes back by Give.
func (b *Budget) TakeFor(n int64) bool {
	if b == nil {
		return true
	}
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// Give gives back n bytes.
func (b *Budget) Give(n int64) {
	if b != nil {
		b.used.Add(-n)
	}
}
