// Package cachestatus writes the members of the Cache-Status field (RFC 9211) of
// responses that were fetched, and of those from the cache.
package cachestatus

import (
	"strconv"
	"strings"
	"sync/atomic"
)

// IsName reports whether a string may be the name of a cache in the field as it is
// (sf-token, RFC 8941 §3.3.4, a little stricter).
func IsName(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || strings.IndexByte("-_.*", c) >= 0)) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// Fetched is the member of a response that the upstream was asked for.
type Fetched struct {
	Cache     string // its name
	Fwd       string // why the request went to the upstream
	FwdStatus int    // of the upstream; 0: not told
	Stored    bool
	Collapsed bool
	Detail    string
}

// String returns the member as it stands in the field.
func (f *Fetched) String() string {
	b := make([]byte, 0, 96)
	b = append(b, f.Cache...)
	b = append(b, "; fwd="...)
	b = append(b, f.Fwd...)
	if f.FwdStatus != 0 {
		b = append(b, "; fwd-status="...)
		b = strconv.AppendInt(b, int64(f.FwdStatus), 10)
	}
	if f.Stored {
		b = append(b, "; stored"...)
	}
	if f.Collapsed {
		b = append(b, "; collapsed"...)
	}
	if f.Detail != "" {
		b = append(b, "; detail="...)
		b = append(b, f.Detail...)
	}
	return string(b)
}

// A Hit is what Age and Cache-Status say of a response from the cache.
type Hit struct {
	Age, TTL    int64 // seconds
	Revalidated bool  // the upstream has confirmed it for this request
	Detail      string
}

// Hits are the lines of the latest hits, because they are the same for a second at least,
// and for all that was stored together. The zero value has none. Its methods may be called
// at the same time.
type Hits [64]atomic.Pointer[line]

type line struct {
	Hit
	cache  string
	text   string // Age and the member of Cache-Status, in one piece
	digits int    // of Age
}

// Fields returns the Age of a response from a cache, which has a name, and its member of
// Cache-Status.
func (h *Hits) Fields(cache string, hit Hit) (age, member string) {
	slot := &h[uint64(hit.Age+hit.TTL*31)%uint64(len(h))]
	l := slot.Load()
	if l == nil || l.Hit != hit || l.cache != cache {
		l = &line{Hit: hit, cache: cache}
		l.write()
		slot.Store(l)
	}
	return l.text[:l.digits], l.text[l.digits:]
}

func (l *line) write() {
	b := strconv.AppendInt(make([]byte, 0, 128), l.Age, 10)
	l.digits = len(b)
	b = append(b, l.cache...)
	if l.Revalidated {
		b = append(b, "; fwd=stale; fwd-status=304"...)
	} else {
		b = append(b, "; hit; ttl="...)
		b = strconv.AppendInt(b, l.TTL, 10)
		b = append(b, "; detail="...)
		b = append(b, l.Detail...)
	}
	l.text = string(b)
}
