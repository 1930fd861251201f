package store

import (
	"crypto/sha256"
	"encoding/binary"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// SmallBody is the size up to which a body lies in its entry. golang/groupcache
// does not count what it spends on each value; with values this small that would
// be more than the values, and they are what there can be most of.
const SmallBody = 512

// Limits of what one entry may be. A response beyond them is not stored, and
// an entry beyond them is not accepted from another node.
const (
	MaxFields      = 256
	MaxHeaderBytes = 64 << 10 // names and values
	MaxFieldName   = 256      // bytes
	MaxVaryNames   = 16
	MaxVariants    = 32  // per cache key: one for each bit of lore.used
	MaxNegotiated  = 256 // bytes of Accept-Encoding or Accept-Language
	maxMembers     = 16  // of either
	fewVariants    = 4   // up to which it is not noted which of them are asked for
)

// A Key is the SHA-256 of a namespace and a cache key, so that no byte of a
// URL can collide, escape or be confused anywhere.
type Key [sha256.Size]byte

// AppendPart appends s with its length to what a Key is the SHA-256 of, so that no two
// lists of parts look alike.
func AppendPart(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// A Generation identifies one stored body of one cache key. Zero is none.
type Generation uint64

// An Entry is what the cache knows of one stored response beside its body. It
// is never changed: what changes is which entry the index holds. What makes it
// up is packed, because there are as many entries as a node has memory for.
type Entry struct {
	Status     int
	Size       int64  // of the body
	Digest     uint64 // xxHash64 of the body, or of the first chunk of a large one
	Generation Generation
	Fresh      rfc9111.Freshness

	// When the request left that fetched the body, and the last one that
	// fetched or validated it. Neither is ever later than it was: what a purge
	// compares with.
	Fetched, Sent time.Time

	// Purges that this node knew of by then have been compared with the entry
	// by the node that it came from, for sure if Compared, and otherwise those
	// that are older by PurgeGrace.
	Checked  time.Time
	Compared bool

	// Whether the upstream had another body when it was last asked to confirm the one
	// before: then a validation is likely to bring the next one.
	Volatile bool

	// Its fields were appended to those of the same name that handlers in front of the
	// cache had set, and are on each hit.
	Appends bool

	// It is an error with this status that a handler has returned, and that Caddy makes a
	// response of: it has neither header nor body.
	Failed bool

	ownNames, ownChoice bool // whether it was the first with these names, this choice
	copied              bool // another node owns it
	complete            bool // see Complete

	packed
	choice *VariantKey // nil: there is but one
	labels *labels     // nil: nothing beside the URL
}

// NewEntry makes an entry of a response that may be stored. Size, Digest and
// Generation are set when its body is complete. The reason is not None when
// the header is beyond the limits.
func NewEntry(status int, stored http.Header, request http.Header, fresh rfc9111.Freshness, sent time.Time) (*Entry, rfc9111.Reason) {
	names, star := rfc9111.VaryNames(stored)
	if star {
		return nil, rfc9111.VaryStar
	}
	if len(names) > MaxVaryNames || slices.ContainsFunc(names, longName) {
		return nil, rfc9111.HeaderTooBig
	}
	fields, ok := fieldsOf(stored)
	if !ok {
		return nil, rfc9111.HeaderTooBig
	}
	e := &Entry{Status: status, Fresh: fresh, Fetched: sent, Sent: sent, Checked: sent}
	e.SetFields(fields)
	e.SetChoice(choose(names, request))
	return e, rfc9111.None
}

// WriteHeader sets the fields in dst, or appends them, and returns room for more values.
func (e *Entry) WriteHeader(dst http.Header, more int) []string {
	if !e.Appends {
		return e.packed.WriteHeader(dst, more)
	}
	own := make(http.Header, len(dst))
	rest := e.packed.WriteHeader(own, more)
	for name, values := range own {
		dst[name] = append(slices.Clip(dst[name]), values...)
	}
	return rest
}

func longName(name string) bool { return len(name) > MaxFieldName }

// fieldsOf returns the lines of a header, or false if these are too many, or too
// long.
func fieldsOf(h http.Header) ([]Field, bool) {
	var fields []Field
	size := 0
	for name, values := range h {
		if longName(name) {
			return nil, false
		}
		for _, v := range values {
			fields = append(fields, Field{name, v})
			size += len(name) + len(v)
		}
	}
	count := len(fields)
	if len(h["Content-Length"]) == 0 {
		count++ // what is kept has one, and may be sent to other nodes
	}
	return fields, count <= MaxFields && size <= MaxHeaderBytes
}

// WithFreshness returns a copy that a 304 brought up to date: same body, same
// generation, other fields and freshness.
func (e *Entry) WithFreshness(fields http.Header, fresh rfc9111.Freshness, sent time.Time) (*Entry, rfc9111.Reason) {
	lines, ok := fieldsOf(fields)
	if !ok {
		return nil, rfc9111.HeaderTooBig
	}
	renewed := *e
	renewed.Fresh, renewed.Volatile = fresh, false
	renewed.Sent, renewed.Checked, renewed.Compared = sent, sent, false
	renewed.SetFields(lines)
	return &renewed, rfc9111.None
}

// kept returns the entry as the index keeps it: with its body, if that is small
// and at hand, or the name of a larger one in the Group, and with the
// Content-Length that a response streamed without one lacks (RFC 9110 §8.6), in
// the one way to write it.
func (e *Entry) kept(k Key, body []byte) *Entry {
	kept := *e
	length := e.Get("Content-Length")
	if size := strconv.FormatInt(e.Size, 10); length != size && (length != "" || e.Status != http.StatusNoContent) {
		fields := slices.DeleteFunc(e.list(), func(f Field) bool { return f.Name == "Content-Length" })
		kept.SetFields(append(fields, Field{"Content-Length", size}))
	}
	switch {
	case e.Size > SmallBody:
		if key := groupKey(k, e.Generation); kept.tail() != key {
			kept.setTail(key)
		}
	case e.Size == int64(len(body)):
		kept.setTail(string(body))
	}
	return &kept
}

// smallBody returns the body that lies in the entry; nil: none does.
func (e *Entry) smallBody() []byte {
	tail := e.tail()
	if e.Size == 0 || e.Size != int64(len(tail)) {
		return nil
	}
	return unsafe.Slice(unsafe.StringData(tail), len(tail)) // nobody ever changes it
}

// What things take, as TestWhatIsCountedIsWhatItTakes measures it.
const (
	resourceOverhead = 152 // a resource, its place in the index and among what is popular
	entryOverhead    = 250 // an Entry, and its place among the variants
	bodyOverhead     = 240 // what golang/groupcache spends on a body beside its bytes
)

// cost is what the entry counts for in the index's budget. Of what it shares
// with others, the first one counts all.
func (e *Entry) cost() int64 {
	n := entryOverhead + sizeOf(e.data)
	if e.Size > SmallBody {
		n += bodyOverhead
	}
	if e.ownNames {
		n += sizeOfAll(*e.names)
	}
	if c := e.choice; e.ownChoice {
		n += 128 + sizeOf(c.Codings) + sizeOf(c.Languages) + sizeOfAll(c.Vary)
	}
	if l := e.labels; l != nil {
		n += 80 + sizeOfAll(l.tags) + sizeOfAll(l.groups) + 8*len(l.hashes)
	}
	return int64(n)
}

// sizeOf returns what a string takes. Pieces of memory have sizes of their own,
// some more than is asked for.
func sizeOf(s string) int { return len(s) + len(s)/16 }

func sizeOfAll(all []string) int {
	n := 0
	for _, s := range all {
		n += len(s) + 16
	}
	return n + n/16
}

// ContentLength returns what the response says of its size, in bytes. It reports false
// if that says nothing.
func (e *Entry) ContentLength() (int64, bool) {
	n, err := strconv.ParseInt(e.Get("Content-Length"), 10, 64)
	return n, err == nil && n >= 0
}
