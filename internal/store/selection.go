package store

import (
	"crypto/sha256"
	"hash/maphash"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// A Selection is the digest of the request fields that Vary names, as they
// were in the request which selected a response.
type Selection [16]byte

// Select returns the Selection of a request for the given names.
//
// Most clients send one of a few values of the fields that most responses vary
// by. So what was computed last is remembered, by the values as they came: to
// compare these is cheaper than to bring them to their normal form and hash that.
func Select(names []string, request http.Header) Selection {
	if len(names) == 0 {
		return Selection{}
	}
	var v values
	if !v.take(names, request) {
		return computeSelection(names, request)
	}
	slot := &lastSelected[v.hash()%rememberedSelections]
	if s := slot.Load(); s != nil && s.values == v && slices.Equal(s.names, names) {
		return s.selection
	}
	return remember(slot, names, &v, request)
}

func remember(slot *atomic.Pointer[selected], names []string, v *values, request http.Header) Selection {
	s := &selected{names: slices.Clone(names), values: *v, selection: computeSelection(names, request)}
	for i := range s.values {
		s.values[i].line = strings.Clone(s.values[i].line) // which may be part of something larger
	}
	slot.Store(s)
	return s.selection
}

func computeSelection(names []string, request http.Header) Selection {
	var space [256]byte
	sum := sha256.Sum256(rfc9111.AppendSelecting(space[:0], names, request))
	return Selection(sum[:16])
}

// Limits of what is remembered, beyond which it is computed each time.
const (
	rememberedSelections = 256
	rememberedNames      = 3
	rememberedValue      = 256
)

// A selected is a Selection with what it was computed from.
type selected struct {
	names     []string
	values    values
	selection Selection
}

var lastSelected [rememberedSelections]atomic.Pointer[selected]

// values are selecting fields of one line each, as they came. An absent field is
// not an empty one.
type values [rememberedNames]struct {
	present bool
	line    string
}

// take takes the values of the named fields, or returns false if these are too
// many or too long to be remembered.
func (v *values) take(names []string, request http.Header) bool {
	if len(names) > rememberedNames {
		return false
	}
	for i, name := range names {
		switch lines := request[textproto.CanonicalMIMEHeaderKey(name)]; {
		case len(lines) > 1 || len(lines) == 1 && len(lines[0]) > rememberedValue:
			return false
		case len(lines) == 1:
			v[i].present, v[i].line = true, lines[0]
		}
	}
	return true
}

// selectionSeed keeps who sends requests from choosing the slots.
var selectionSeed = maphash.MakeSeed()

func (v *values) hash() (sum uint64) {
	for i := range v {
		sum *= 31
		if v[i].present {
			sum += maphash.String(selectionSeed, v[i].line)
		}
	}
	return sum
}
