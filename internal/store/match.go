package store

import (
	"net/http"
	"slices"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// match returns the variant for a request: the one that the very same
// selecting fields chose, or else the newest that they would have chosen.
func match(variants []*Entry, request http.Header) *Entry {
	if len(variants) == 0 {
		return nil
	}
	m := matcher{request: request}
	for _, e := range variants {
		if m.selects(e) {
			return e
		}
	}
	for _, e := range variants {
		if m.wouldSelect(e) {
			return e
		}
	}
	return nil
}

// Matches reports whether the entry's response was selected by the same field
// values that the request has (RFC 9111 §4.1), or would have been.
func (e *Entry) Matches(request http.Header) bool {
	m := matcher{request: request}
	return m.selects(e) || m.wouldSelect(e)
}

// A matcher compares entries of one key with a request. What it needs of the
// request's fields it works out once, however many entries there are: how long the
// fields are is for the client to choose.
type matcher struct {
	request http.Header

	// By the lists of names that were asked for: one, but of an upstream whose Vary
	// changes. Beyond these the oldest goes.
	selections [4]namedSelection
	count      int

	codings, languages readField
}

type namedSelection struct {
	names     []string
	selection Selection

	// By those of the names that are not negotiated, if it was asked for.
	others    Selection
	hasOthers bool
}

// A readField is the normal form of a field, if it was asked for.
type readField struct {
	value string
	read  bool
}

func (f *readField) of(request http.Header, read func(http.Header) string) string {
	if !f.read {
		f.value, f.read = read(request), true
	}
	return f.value
}

// selection returns the request's selection by a list of names.
func (m *matcher) selection(names []string) *namedSelection {
	for i := range min(m.count, len(m.selections)) {
		if slices.Equal(m.selections[i].names, names) {
			return &m.selections[i]
		}
	}
	s := &m.selections[m.count%len(m.selections)]
	m.count++
	*s = namedSelection{names: names, selection: Select(names, m.request)}
	return s
}

// selects reports whether the entry was selected by the very same values.
func (m *matcher) selects(e *Entry) bool {
	c := e.VariantKey()
	return c.Selected == m.selection(c.Vary).selection
}

// wouldSelect reports whether an entry that was selected by another
// Accept-Encoding or Accept-Language would have been selected by this request
// too.
func (m *matcher) wouldSelect(e *Entry) bool {
	c := e.VariantKey()
	if !c.negotiated() || c.Codings == NotNegotiable {
		return false
	}
	if c.variesBy("Accept-Encoding") {
		codings := m.codings.of(m.request, rfc9111.AcceptEncoding)
		if !negotiable(codings) || !rfc9111.CodingServes(e.Get("Content-Encoding"), c.Codings, codings) {
			return false
		}
	}
	if c.variesBy("Accept-Language") {
		languages := m.languages.of(m.request, rfc9111.AcceptLanguage)
		if !negotiable(languages) || !rfc9111.LanguageServes(e.Get("Content-Language"), c.Languages, languages) {
			return false
		}
	}
	by := m.selection(c.Vary)
	if !by.hasOthers {
		by.others, by.hasOthers = Select(c.otherNames(), m.request), true
	}
	return c.Others == by.others
}
