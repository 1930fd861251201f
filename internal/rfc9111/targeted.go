package rfc9111

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/dunglas/httpsfv"
)

// surrogateControl is the one field on a target list that has a syntax of its own.
const surrogateControl = "Surrogate-Control"

// defaultTargets are the fields that speak to this cache instead of Cache-Control,
// most wanted first: those meant for it alone, for CDNs, and for surrogates, which
// RFC 9213 replaces.
var defaultTargets = []string{"Groupcache-Cache-Control", "Cdn-Cache-Control", surrogateControl}

// DefaultTargets returns the target list of a cache whose operator has given none
// (RFC 9213 §2.2), canonical.
func DefaultTargets() []string { return slices.Clone(defaultTargets) }

// directivesOf returns the directives that apply to a cache with a target list
// (nil: the default), and the response header with what they replace left out: of
// the first field on the list that can be read and is not empty, with which
// Cache-Control and Expires say nothing (RFC 9213 §2.2).
func directivesOf(response http.Header, targets []string) (ResponseDirectives, http.Header) {
	name, d := targeted(response, targets)
	if name != "" {
		return d, withoutPlain(response)
	}
	plain := ParseResponse(response)
	if d.StaleWhileRevalidate.Set {
		plain.StaleWhileRevalidate = d.StaleWhileRevalidate
	}
	if d.StaleIfError.Set {
		plain.StaleIfError = d.StaleIfError
	}
	return plain, response
}

// targeted returns the first field of a target list that speaks to its cache, and
// what it says. The name is "" if none does; then the directives are what
// a Surrogate-Control says of staleness that leaves freshness to Cache-Control.
func targeted(response http.Header, targets []string) (name string, d ResponseDirectives) {
	if targets == nil {
		targets = defaultTargets
	}
	for _, name := range targets {
		if name != surrogateControl {
			if said, ok := parseTargeted(response[name]); ok {
				return name, said
			}
			continue
		}
		said, ok := parseSurrogate(response[name])
		if ok {
			return name, said
		}
		d = said
	}
	return "", d
}

func withoutPlain(response http.Header) http.Header {
	rest := maps.Clone(response)
	delete(rest, "Cache-Control")
	delete(rest, "Expires")
	return rest
}

// surrogateName is what a directive of Surrogate-Control may be aimed at.
const surrogateName = "groupcache"

// parseSurrogate reads Surrogate-Control (W3C Note, Edge Architecture
// Specification, 2001), which origins send to other caches of this kind.
// Directives that are aimed at others are passed over; those on capabilities we do
// not have count for nothing. Those of RFC 5861, which the Note doesn't know but
// other surrogates read, count too. It is false if the field says nothing of
// freshness.
func parseSurrogate(lines []string) (ResponseDirectives, bool) {
	var r ResponseDirectives
	some := false
	for _, line := range lines {
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			member, target, aimed := strings.Cut(member, ";")
			if aimed && !strings.EqualFold(trimOWS(target), surrogateName) {
				continue
			}
			d, _ := cutDirective(member)
			switch d.name {
			case "max-age": // "30+60": fresh for 30 seconds, and to be validated after that
				d.value, _, _ = strings.Cut(d.value, "+")
				d.broken = false
			case "no-store", "no-store-remote":
				d.name = "no-store"
			case "stale-while-revalidate", "stale-if-error":
				r.add(d)
				continue
			default:
				continue
			}
			some = true
			r.add(d)
		}
	}
	return r, some
}

// parseTargeted reads a targeted field: a dictionary of structured fields
// (RFC 9213 §2.1, RFC 9651 §3.2). A directive with a value of the wrong type is
// passed over; a field that cannot be read as a whole counts as absent.
func parseTargeted(lines []string) (ResponseDirectives, bool) {
	var r ResponseDirectives
	if len(lines) == 0 {
		return r, false
	}
	dictionary, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil || len(dictionary.Names()) == 0 {
		return r, false
	}
	for _, name := range dictionary.Names() {
		member, _ := dictionary.Get(name)
		item, ok := member.(httpsfv.Item)
		if !ok {
			continue
		}
		d := directive{name: name}
		switch value := item.Value.(type) {
		case bool:
			if !value || takesSeconds(name) {
				continue
			}
		case int64:
			if value < 0 || !takesSeconds(name) {
				continue
			}
			d.value, d.hasValue = strconv.FormatInt(value, 10), true
		case string:
			if name != "no-cache" && name != "private" {
				continue
			}
			d.value, d.hasValue = value, true
		default:
			continue
		}
		r.add(d)
	}
	return r, true
}

// takesSeconds are the directives whose value is a number of seconds.
func takesSeconds(name string) bool {
	switch name {
	case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
		return true
	}
	return false
}
