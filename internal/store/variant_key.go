package store

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// A VariantKey is how a request selects one of the variants that are stored under
// its key. Many entries share one; it must not be changed.
type VariantKey struct {
	Vary     []string // canonical names of the selecting fields, sorted
	Selected Selection
	// If Accept-Encoding or Accept-Language is among the selecting fields:
	// their values in the request that fetched the response, and the selection
	// by the others.
	Codings, Languages string
	Others             Selection
}

// choose returns how a request for a response with these names in its Vary
// selects it.
func choose(names []string, request http.Header) VariantKey {
	c := VariantKey{Vary: names, Selected: Select(names, request)}
	if !c.negotiated() {
		return c
	}
	if c.variesBy("Accept-Encoding") {
		c.Codings = rfc9111.AcceptEncoding(request)
	}
	if c.variesBy("Accept-Language") {
		c.Languages = rfc9111.AcceptLanguage(request)
	}
	if !negotiable(c.Codings) || !negotiable(c.Languages) {
		c.Codings, c.Languages = NotNegotiable, NotNegotiable
	}
	c.Others = Select(c.otherNames(), request)
	return c
}

// NotNegotiable stands for values that were too long: the response is found by the
// very same values only.
const NotNegotiable = "\n"

// negotiable reports whether a normal Accept-Encoding or Accept-Language is short
// enough to be compared, member by member, with that of other requests.
func negotiable(value string) bool {
	return len(value) <= MaxNegotiated && strings.Count(value, ",") < maxMembers
}

func (c *VariantKey) variesBy(name string) bool {
	_, found := slices.BinarySearch(c.Vary, name)
	return found
}

func (c *VariantKey) negotiated() bool {
	return c.variesBy("Accept-Encoding") || c.variesBy("Accept-Language")
}

// otherNames returns the selecting fields but those that are negotiated.
func (c *VariantKey) otherNames() []string {
	return slices.DeleteFunc(slices.Clone(c.Vary), func(name string) bool {
		return name == "Accept-Encoding" || name == "Accept-Language"
	})
}

// sameRequest reports whether the very same selecting fields led to both.
func (c *VariantKey) sameRequest(o *VariantKey) bool {
	return c == o || c.Selected == o.Selected && slices.Equal(c.Vary, o.Vary)
}

func (c *VariantKey) equal(o *VariantKey) bool {
	return c.Selected == o.Selected && c.Others == o.Others && c.Codings == o.Codings && c.Languages == o.Languages &&
		slices.Equal(c.Vary, o.Vary)
}

// onlyChoice is that of a response which does not vary.
var onlyChoice VariantKey

// Choice returns how the response is selected.
func (e *Entry) VariantKey() *VariantKey {
	if e.choice == nil {
		return &onlyChoice
	}
	return e.choice
}

// Vary returns the canonical names of the selecting fields, sorted.
func (e *Entry) Vary() []string { return e.VariantKey().Vary }

// SetChoice sets how the response is selected.
func (e *Entry) SetChoice(c VariantKey) {
	if len(c.Vary) == 0 {
		e.choice, e.ownChoice = nil, false
		return
	}
	e.choice, e.ownChoice = sharedChoices.get(hashOf(string(c.Selected[:]), c.Codings, c.Languages), sizeOfAll(c.Vary), c.equal, func() *VariantKey {
		own := cloned(append([]string{c.Codings, c.Languages}, c.Vary...))
		c.Codings, c.Languages, c.Vary = own[0], own[1], own[2:]
		return &c
	})
}
