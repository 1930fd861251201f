// Package front tells which fields of a response come from handlers in front of the
// cache, and which from the handlers behind it.
//
// Handlers in front of the cache set fields of the response before it is made, on hits
// too. They belong to this client's response:
//
//   - What they say to caches (Cache-Control, targeted fields) forbids, and never
//     allows: a request under no-store, private or no-cache has no part in the cache.
//     `header` in its deferred mode says so as late as the header is sent.
//   - They are not stored. A field of which the handlers behind the cache append lines
//     is stored without the lines of the front, and appended on hits too. What they
//     replace is stored. What they delete can't be told from the stored response, nor
//     can a mixture of both, so that is not stored.
package front

import (
	"maps"
	"net/http"
	"slices"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// Fields are the fields of a response header before the handlers behind the cache have
// had a hand in it. There are few of them, so a map would cost more.
type Fields []lines

// lines are those of one field.
type lines struct {
	name   string
	values []string
}

// FieldsOf returns what a header has now. The values are copied: a handler may replace
// some in place.
func FieldsOf(header http.Header) Fields {
	all := make(Fields, 0, len(header))
	for name, values := range header {
		all = append(all, lines{name, slices.Clone(values)})
	}
	return all
}

// Own returns the fields of a header that the handlers behind the cache have set.
// Fields that were there before belong to this client's response, and may hold
// values for this client only. The result is the header itself if none of them is left.
func (f Fields) Own(header http.Header) http.Header {
	if !slices.ContainsFunc(f, func(was lines) bool { return was.leads(header[was.name]) }) {
		return header
	}
	own := maps.Clone(header)
	for _, was := range f {
		switch values := header[was.name]; {
		case !was.leads(values):
		case len(values) == len(was.values):
			delete(own, was.name)
		default:
			own[was.name] = values[len(was.values):]
		}
	}
	return own
}

// Edits returns what the handlers behind the cache have done to the fields that were
// there before: whether they have appended to some. It is false if a stored response
// can't tell. Server is Caddy's own, which reverse_proxy deletes.
func (f Fields) Edits(header http.Header) (appends, ok bool) {
	replaces := false
	for _, was := range f {
		values := header[was.name]
		switch {
		case was.name == "Server":
		case len(values) == 0 && len(was.values) > 0:
			return false, false
		case !was.leads(values):
			replaces = true
		case len(values) > len(was.values):
			appends = true
		}
	}
	return appends, !appends || !replaces
}

// leads reports whether values begin with the lines.
func (was lines) leads(values []string) bool {
	return len(was.values) > 0 && len(was.values) <= len(values) && slices.Equal(was.values, values[:len(was.values)])
}

// Forbids reports whether a header that no handler behind the cache has had a hand in
// forbids a shared cache to take part.
func Forbids(header http.Header, o rfc9111.Options) bool {
	said := len(header["Cache-Control"]) > 0
	for _, name := range o.Targeted {
		said = said || len(header[name]) > 0
	}
	return said && rfc9111.ForbidsShared(header, o)
}

// ForbidsLate reports whether a header forbids it since it has been sent. The fields are
// those that it had before.
func (f Fields) ForbidsLate(header http.Header, o rfc9111.Options) bool {
	changed := false
	for _, name := range append([]string{"Cache-Control"}, o.Targeted...) {
		i := slices.IndexFunc(f, func(was lines) bool { return was.name == name })
		changed = changed || i < 0 && len(header[name]) > 0 || i >= 0 && !slices.Equal(f[i].values, header[name])
	}
	return changed && Forbids(header, o)
}
