package store

import (
	"crypto/sha256"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

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
	MaxHeaderBytes = 64 << 10
	MaxVaryNames   = 16
	MaxVariants    = 32  // per cache key; the oldest goes first
	MaxNegotiated  = 256 // bytes of Accept-Encoding or Accept-Language
)

// A Key is the SHA-256 of a namespace and a cache key, so that no byte of a
// URL can collide, escape or be confused anywhere.
type Key [sha256.Size]byte

// A Generation identifies one stored body of one cache key. Zero is none.
type Generation uint64

// A Field is one line of a response header. Several lines of one name follow
// each other.
type Field struct{ Name, Value string }

// An Entry is what the cache knows of one stored response beside its body. It
// is never changed: what changes is which entry the index holds.
type Entry struct {
	Status     int
	Fields     []Field
	Size       int64  // of the body
	Digest     uint64 // xxHash64 of the body, or of the first chunk of a large one
	Generation Generation
	Vary       []string // canonical names of the selecting fields, sorted
	Selected   Selection
	// If Accept-Encoding or Accept-Language is among the selecting fields:
	// their values in the request that fetched the response, and the selection
	// by the others.
	Codings, Languages string
	Others             Selection

	Fresh rfc9111.Freshness

	// What the response is purged by: its URL as URLOf makes it, its cache
	// tags, and its cache groups (RFC 9875), both sorted.
	URL          string
	Tags, Groups []string

	// When the request left that fetched the body, and the last one that
	// fetched or validated it. Neither is ever later than it was: what a purge
	// compares with.
	Fetched, Sent time.Time

	// Purges that this node knew of by then have been compared with the entry
	// by the node that it came from, for sure if Compared, and otherwise those
	// that are older by PurgeGrace.
	Checked  time.Time
	Compared bool

	// The invalidation that the response's own request has caused, if it was
	// an unsafe one; 0: none.
	MadeBy PurgeID

	body      []byte   // a small one; nil: it is elsewhere
	bodyKey   string   // in the Group, of another one; "" until the entry is in the index
	selectors []uint64 // hashes of what it is purged by; nil until then
}

// NewEntry makes an entry of a response that may be stored. Size, Digest and
// Generation are set when its body is complete. The reason is not None when
// the header is beyond the limits.
func NewEntry(status int, stored http.Header, request http.Header, fresh rfc9111.Freshness, sent time.Time) (*Entry, rfc9111.Reason) {
	names, star := rfc9111.VaryNames(stored)
	if star {
		return nil, rfc9111.VaryStar
	}
	if len(names) > MaxVaryNames {
		return nil, rfc9111.HeaderTooBig
	}
	fields, ok := packFields(stored)
	if !ok {
		return nil, rfc9111.HeaderTooBig
	}
	e := &Entry{
		Status:   status,
		Fields:   fields,
		Vary:     names,
		Selected: Select(names, request),
		Fresh:    fresh,
		Fetched:  sent,
		Sent:     sent,
		Checked:  sent,
	}
	if e.negotiated() {
		if e.variesBy("Accept-Encoding") {
			e.Codings = rfc9111.AcceptEncoding(request)
		}
		if e.variesBy("Accept-Language") {
			e.Languages = rfc9111.AcceptLanguage(request)
		}
		if len(e.Codings) > MaxNegotiated || len(e.Languages) > MaxNegotiated {
			e.Codings, e.Languages = "\n", "\n" // like no other: found by the very same values only
		}
		e.Others = Select(e.otherNames(), request)
	}
	return e, rfc9111.None
}

func (e *Entry) variesBy(name string) bool {
	_, found := slices.BinarySearch(e.Vary, name)
	return found
}

func (e *Entry) negotiated() bool {
	return e.variesBy("Accept-Encoding") || e.variesBy("Accept-Language")
}

// otherNames returns the selecting fields but those that are negotiated.
func (e *Entry) otherNames() []string {
	return slices.DeleteFunc(slices.Clone(e.Vary), func(name string) bool {
		return name == "Accept-Encoding" || name == "Accept-Language"
	})
}

// packFields sorts a header into Fields whose values lie in one string, so
// that an entry keeps alive neither the upstream's header nor a map.
func packFields(h http.Header) ([]Field, bool) {
	names := make([]string, 0, len(h))
	lines, size := 0, 0
	for name, values := range h {
		names = append(names, name)
		lines += len(values)
		for _, v := range values {
			size += len(v)
		}
	}
	if lines > MaxFields || size > MaxHeaderBytes {
		return nil, false
	}
	slices.Sort(names)
	var all strings.Builder
	all.Grow(size)
	for _, name := range names {
		for _, v := range h[name] {
			all.WriteString(v)
		}
	}
	rest := all.String()
	fields := make([]Field, 0, lines)
	for _, name := range names {
		for _, v := range h[name] {
			fields = append(fields, Field{name, rest[:len(v)]})
			rest = rest[len(v):]
		}
	}
	return fields, true
}

// Matches reports whether the entry's response was selected by the same field
// values that the request has (RFC 9111 §4.1).
func (e *Entry) Matches(request http.Header) bool {
	return e.Selected == Select(e.Vary, request) || e.wouldBeChosen(request)
}

// wouldBeChosen reports whether an entry that was selected by another
// Accept-Encoding or Accept-Language would have been selected by this request
// too.
func (e *Entry) wouldBeChosen(request http.Header) bool {
	if !e.negotiated() {
		return false
	}
	if e.variesBy("Accept-Encoding") && !rfc9111.CodingServes(e.Get("Content-Encoding"), e.Codings, rfc9111.AcceptEncoding(request)) {
		return false
	}
	if e.variesBy("Accept-Language") && !rfc9111.LanguageServes(e.Get("Content-Language"), e.Languages, rfc9111.AcceptLanguage(request)) {
		return false
	}
	return e.Others == Select(e.otherNames(), request)
}

// Get returns the first line of a field.
func (e *Entry) Get(name string) string {
	for i := range e.Fields {
		if e.Fields[i].Name == name {
			return e.Fields[i].Value
		}
	}
	return ""
}

// Lines returns all lines of a field.
func (e *Entry) Lines(name string) []string {
	var lines []string
	for _, f := range e.Fields {
		if f.Name == name {
			lines = append(lines, f.Value)
		}
	}
	return lines
}

// Header returns the stored fields as a new http.Header.
func (e *Entry) Header() http.Header {
	h := make(http.Header, len(e.Fields))
	e.WriteHeader(h, 0)
	return h
}

// WriteHeader sets the stored fields in dst. The slices are dst's own: other
// handlers edit them in place. It returns room for so many more values, which is
// cheaper together.
func (e *Entry) WriteHeader(dst http.Header, more int) []string {
	values := make([]string, len(e.Fields)+more)
	for i := 0; i < len(e.Fields); {
		name, first := e.Fields[i].Name, i
		for ; i < len(e.Fields) && e.Fields[i].Name == name; i++ {
			values[i] = e.Fields[i].Value
		}
		dst[name] = values[first:i:i]
	}
	return values[len(e.Fields):]
}

// ensureLength adds the Content-Length that a response streamed without one
// lacks (RFC 9110 §8.6).
func (e *Entry) ensureLength() {
	if e.Status == http.StatusNoContent || e.Get("Content-Length") != "" {
		return
	}
	length := Field{"Content-Length", strconv.FormatInt(e.Size, 10)}
	at, _ := slices.BinarySearchFunc(e.Fields, length.Name, func(f Field, name string) int { return strings.Compare(f.Name, name) })
	e.Fields = slices.Insert(slices.Clone(e.Fields), at, length)
}

// WithFreshness returns a copy that a 304 brought up to date: same body, same
// generation, other fields and freshness.
func (e *Entry) WithFreshness(fields http.Header, fresh rfc9111.Freshness, sent time.Time) (*Entry, rfc9111.Reason) {
	packed, ok := packFields(fields)
	if !ok {
		return nil, rfc9111.HeaderTooBig
	}
	renewed := *e
	renewed.Fields, renewed.Fresh = packed, fresh
	renewed.Sent, renewed.Checked, renewed.Compared = sent, sent, false
	return &renewed, rfc9111.None
}

// entryOverhead is what an entry takes beside its header and a small body: the
// structs, its place in the index, and what golang/groupcache spends on another
// body, as BenchmarkMemory measures them.
const entryOverhead = 900

// cost is what the entry counts for in the index's budget.
func (e *Entry) cost() int64 {
	n := int64(entryOverhead + len(e.body) + len(e.Codings) + len(e.Languages) + len(e.URL) + 8*len(e.selectors))
	for _, names := range [...][]string{e.Tags, e.Groups} {
		for _, name := range names {
			n += int64(len(name)) + 16
		}
	}
	for _, f := range e.Fields {
		n += int64(len(f.Value)) + 32
	}
	for _, v := range e.Vary {
		n += int64(len(v)) + 16
	}
	return n
}
