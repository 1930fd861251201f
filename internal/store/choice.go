package store

import (
	"net/http"
	"slices"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// A Choice is how a request selects one of the variants that are stored under
// its key. Many entries share one; it must not be changed.
type Choice struct {
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
func choose(names []string, request http.Header) Choice {
	c := Choice{Vary: names, Selected: Select(names, request)}
	if !c.negotiated() {
		return c
	}
	if c.variesBy("Accept-Encoding") {
		c.Codings = rfc9111.AcceptEncoding(request)
	}
	if c.variesBy("Accept-Language") {
		c.Languages = rfc9111.AcceptLanguage(request)
	}
	if len(c.Codings) > MaxNegotiated || len(c.Languages) > MaxNegotiated {
		c.Codings, c.Languages = "\n", "\n" // like no other: found by the very same values only
	}
	c.Others = Select(c.otherNames(), request)
	return c
}

func (c *Choice) variesBy(name string) bool {
	_, found := slices.BinarySearch(c.Vary, name)
	return found
}

func (c *Choice) negotiated() bool {
	return c.variesBy("Accept-Encoding") || c.variesBy("Accept-Language")
}

// otherNames returns the selecting fields but those that are negotiated.
func (c *Choice) otherNames() []string {
	return slices.DeleteFunc(slices.Clone(c.Vary), func(name string) bool {
		return name == "Accept-Encoding" || name == "Accept-Language"
	})
}

// sameRequest reports whether the very same selecting fields led to both.
func (c *Choice) sameRequest(o *Choice) bool {
	return c == o || c.Selected == o.Selected && slices.Equal(c.Vary, o.Vary)
}

func (c *Choice) equal(o *Choice) bool {
	return c.Selected == o.Selected && c.Others == o.Others && c.Codings == o.Codings && c.Languages == o.Languages &&
		slices.Equal(c.Vary, o.Vary)
}

// onlyChoice is that of a response which does not vary.
var onlyChoice Choice

// Choice returns how the response is selected.
func (e *Entry) Choice() *Choice {
	if e.choice == nil {
		return &onlyChoice
	}
	return e.choice
}

// Vary returns the canonical names of the selecting fields, sorted.
func (e *Entry) Vary() []string { return e.Choice().Vary }

// SetChoice sets how the response is selected.
func (e *Entry) SetChoice(c Choice) {
	if len(c.Vary) == 0 {
		e.choice, e.ownChoice = nil, false
		return
	}
	e.choice, e.ownChoice = sharedChoices.get(hashOf(string(c.Selected[:]), c.Codings, c.Languages), sizeOfAll(c.Vary), c.equal, func() *Choice {
		own := cloned(append([]string{c.Codings, c.Languages}, c.Vary...))
		c.Codings, c.Languages, c.Vary = own[0], own[1], own[2:]
		return &c
	})
}
