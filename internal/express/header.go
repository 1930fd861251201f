package express

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Front is what the server sets in the header of each response, before the cache. The zero
// value knows nothing. Its methods may be called at the same time.
type Front struct{ fields atomic.Pointer[[]store.Field] }

// Learn takes in the header of a response that has come to the cache.
func (f *Front) Learn(header http.Header) {
	had := f.fields.Load()
	if had != nil && len(*had) == len(header) && !slices.ContainsFunc(*had, func(f store.Field) bool {
		lines := header[f.Name]
		return len(lines) != 1 || lines[0] != f.Value
	}) {
		return
	}
	var fields []store.Field
	for name, lines := range header {
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
	if set == nil || !w.Status(e.Status) {
		return false
	}
	dated, typed, sized := false, false, false
	for name, value := range e.Fields() {
		switch name {
		case "Age", "Cache-Status", // which the cache replaces, or adds to
			"Connection", "Transfer-Encoding", "Trailer", "Keep-Alive", "Upgrade":
			return false
		case "Date":
			dated = true
		case "Content-Type", "Content-Encoding":
			typed = true
		case "Content-Length":
			sized = true
		}
		if !plainField(name, value) {
			return false
		}
		w.Field(name, value)
	}
	if !dated || !typed || !sized { // net/http adds them
		return false
	}
	for _, f := range *set {
		if e.Get(f.Name) == "" {
			w.Field(f.Name, f.Value)
		}
	}
	return true
}

// plainField reports whether net/http would write a line as it is.
func plainField(name, value string) bool {
	if n := len(value); n > 0 && (value[0] <= ' ' || value[n-1] <= ' ') {
		return false
	}
	return strings.IndexByte(value, '\n') < 0 && strings.IndexByte(value, '\r') < 0 && httpguts.ValidHeaderFieldName(name)
}
