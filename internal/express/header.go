package express

import (
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Front is what the server sets in the header of each response, before the cache. The zero
// value knows nothing. Its methods may be called at the same time.
type Front struct {
	fields atomic.Pointer[[]store.Field]
	first  atomic.Pointer[time.Time] // when it was told a header first
}

// settled is how long a server with HTTP/3 may take to begin with it. Until then it sets no
// Alt-Svc.
const settled = 5 * time.Second

// Knows reports whether the header of a response that has come to the cache is what it has been
// told.
func (f *Front) Knows(header http.Header) bool {
	had := f.fields.Load()
	return had != nil && len(*had) == len(header) && !slices.ContainsFunc(*had, func(f store.Field) bool {
		lines := header[f.Name]
		return len(lines) != 1 || lines[0] != f.Value
	})
}

// Learn takes in a header with nothing from handlers, of a server that is to speak HTTP/3 for this
// client, or not.
func (f *Front) Learn(header http.Header, http3 bool) {
	now := time.Now()
	f.first.CompareAndSwap(nil, &now)
	if http3 && len(header["Alt-Svc"]) == 0 && now.Sub(*f.first.Load()) < settled {
		return // its next responses will have one
	}
	var fields []store.Field
	for name, lines := range header {
		if name != "Server" && name != "Alt-Svc" {
			return // Caddy sets no others
		}
		for _, line := range lines {
			fields = append(fields, store.Field{Name: name, Value: line})
		}
	}
	f.fields.Store(&fields)
}

// Header begins the response with the status and the fields of a stored one, and those of
// the front that it has none of. It reports false if the front is not known, or if net/http
// would make something else of them.
func (w *Writer) Header(e *store.Entry, front *Front) bool {
	set := front.fields.Load()
	if set == nil || !e.Complete() || !w.Status(e.Status) {
		return false
	}
	for name, value := range e.Fields() {
		w.Field(name, value)
	}
	for _, f := range *set {
		if e.Get(f.Name) == "" {
			w.Field(f.Name, f.Value)
		}
	}
	return true
}
