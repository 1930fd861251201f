package store

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
)

// A Field is one line of a response header. Several lines of one name follow
// each other.
type Field struct{ Name, Value string }

// packed is what differs from entry to entry: one string with all values, the
// URL and the small body. The names of the fields, sorted, are the same in most
// responses of an application, so entries share them.
type packed struct {
	names *[]string // one for each line; nil: none
	// The values, each after its length; the URL; and the tail: a small body, or
	// the name of a larger one in the Group.
	data          string
	urlAt, tailAt uint32
}

// set packs anew.
func (p *packed) set(fields []Field, url, tail string) {
	b := make([]byte, 0, 1024)
	for _, f := range fields {
		b = binary.AppendUvarint(b, uint64(len(f.Value)))
		b = append(b, f.Value...)
	}
	p.urlAt = uint32(len(b))
	b = append(b, url...)
	p.tailAt = uint32(len(b))
	p.data = string(append(b, tail...))
}

func (p *packed) setURL(url string) {
	p.data = p.data[:p.urlAt] + url + p.tail()
	p.tailAt = p.urlAt + uint32(len(url))
}

func (p *packed) setTail(tail string) { p.data = p.data[:p.tailAt] + tail }

func (p *packed) tail() string { return p.data[p.tailAt:] }

// URL returns the URL that the response is purged by, as URLOf makes it.
func (p *packed) URL() string { return p.data[p.urlAt:p.tailAt] }

// cut takes a value off the front of packed data.
func cut(data string) (value, rest string) {
	n, at := int(data[0]), 1
	for shift := 7; data[at-1] >= 0x80; shift += 7 { // few are so long
		n += (int(data[at]) - 1) << shift
		at++
	}
	return data[at : at+n], data[at+n:]
}

// NumFields returns the number of lines of the response header.
func (p *packed) NumFields() int {
	if p.names == nil {
		return 0
	}
	return len(*p.names)
}

// Fields are the names and values of the lines of the response header, sorted
// by name.
func (p *packed) Fields() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		rest := p.data
		for i := range p.NumFields() {
			var value string
			if value, rest = cut(rest); !yield((*p.names)[i], value) {
				return
			}
		}
	}
}

// Get returns the first line of a field.
func (p *packed) Get(name string) string {
	for n, value := range p.Fields() {
		if n == name {
			return value
		}
	}
	return ""
}

// Lines returns all lines of a field.
func (p *packed) Lines(name string) []string {
	var lines []string
	for n, value := range p.Fields() {
		if n == name {
			lines = append(lines, value)
		}
	}
	return lines
}

// Header returns the stored fields as a new http.Header.
func (p *packed) Header() http.Header {
	h := make(http.Header, p.NumFields())
	p.WriteHeader(h, 0)
	return h
}

// WriteHeader sets the stored fields in dst. The slices are dst's own: other
// handlers edit them in place. It returns room for so many more values, which is
// cheaper together.
func (p *packed) WriteHeader(dst http.Header, more int) []string {
	n := p.NumFields()
	values := make([]string, n+more)
	if n == 0 {
		return values
	}
	names, rest, first := *p.names, p.data, 0
	for i := range names {
		values[i], rest = cut(rest)
		if i+1 == n || names[i+1] != names[i] {
			dst[names[i]] = values[first : i+1 : i+1]
			first = i + 1
		}
	}
	return values[n:]
}

// Complete reports whether net/http writes the header of a hit as it is stored: the lines are
// valid, none is of a field that net/http or the cache makes something else of, and none is
// missing that net/http would add.
func (e *Entry) Complete() bool { return e.complete }

func complete(fields []Field) bool {
	dated, typed, sized := false, false, false
	for _, f := range fields {
		switch f.Name {
		case "Age", "Cache-Status", "Connection", "Transfer-Encoding", "Trailer", "Keep-Alive", "Upgrade":
			return false
		case "Date":
			dated = true
		case "Content-Type", "Content-Encoding":
			typed = true
		case "Content-Length":
			sized = true
		}
		if n := len(f.Value); n > 0 && (f.Value[0] <= ' ' || f.Value[n-1] <= ' ') {
			return false
		}
		if !httpguts.ValidHeaderFieldName(f.Name) || strings.ContainsAny(f.Value, "\r\n") {
			return false
		}
	}
	return dated && typed && sized
}

// SetFields replaces the fields. They may come in any order.
func (e *Entry) SetFields(fields []Field) {
	byName := func(a, b Field) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(fields, byName) { // those of another node's entry are
		fields = slices.Clone(fields)
		slices.SortStableFunc(fields, byName)
	}
	e.packed.set(fields, e.URL(), e.tail())
	e.complete = complete(fields)
	var hash uint64
	size := 0
	for i := range fields {
		hash = hashWith(hash, fields[i].Name)
		size += sizeOf(fields[i].Name) + 17
	}
	named := func(names *[]string) bool {
		return slices.EqualFunc(*names, fields, func(name string, f Field) bool { return name == f.Name })
	}
	e.names, e.ownNames = sharedNames.get(hash, size, named, func() *[]string {
		names := make([]string, 0, len(fields))
		for _, f := range fields {
			names = append(names, f.Name)
		}
		names = cloned(names)
		return &names
	})
}

// list returns the fields as a list of its own.
func (e *Entry) list() []Field {
	fields := make([]Field, 0, e.NumFields()+1)
	for name, value := range e.Fields() {
		fields = append(fields, Field{name, value})
	}
	return fields
}

// sharing holds what entries were made with last, so that the next ones that are
// made with the same can share it. What is new takes the place of what is old,
// and what is larger than most is not shared, so that whatever is stored, this
// takes no more than a MiB.
type sharing[T any] [256]atomic.Pointer[T]

const maxShared = 2 << 10

var (
	sharedNames   sharing[[]string]
	sharedChoices sharing[VariantKey]
)

// get returns what is held already, or else what it is given, and which it was.
func (s *sharing[T]) get(hash uint64, size int, same func(*T) bool, make func() *T) (v *T, made bool) {
	if size > maxShared {
		return make(), true
	}
	slot := &s[hash%uint64(len(s))]
	if v = slot.Load(); v != nil && same(v) {
		return v, false
	}
	v = make()
	slot.Store(v)
	return v, true
}

var sharingSeed = maphash.MakeSeed()

func hashOf(all ...string) (sum uint64) {
	for _, s := range all {
		sum = hashWith(sum, s)
	}
	return sum
}

// hashWith adds a string to those that a sum is the hash of.
func hashWith(sum uint64, s string) uint64 { return sum*31 + maphash.String(sharingSeed, s) }

// cloned returns strings that keep nothing else in memory, in one piece.
func cloned(all []string) []string {
	if len(all) == 0 {
		return nil
	}
	joined := strings.Clone(strings.Join(all, ""))
	own := make([]string, len(all))
	for i, s := range all {
		own[i], joined = joined[:len(s)], joined[len(s):]
	}
	return own
}
