package rfc9111

import (
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/dunglas/httpsfv"
)

// targetList are the fields that speak to this cache instead of Cache-Control,
// most wanted first (RFC 9213 §2.2).
var targetList = []string{"Cdn-Cache-Control"}

// directivesOf returns the directives that apply to this cache, and the response
// header with what they replace left out: where a targeted field can be read
// and is not empty, Cache-Control and Expires say nothing (RFC 9213 §2.2).
func directivesOf(response http.Header) (ResponseDirectives, http.Header) {
	for _, name := range targetList {
		if d, ok := parseTargeted(response[name]); ok {
			return d, withoutPlain(response)
		}
	}
	if d, ok := parseSurrogate(response["Surrogate-Control"]); ok {
		return d, withoutPlain(response)
	}
	return ParseResponse(response), response
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
// Specification, 2001), which origins send to other caches of this kind. It
// comes after the targeted fields of RFC 9213, which replace it. Directives that
// are aimed at others are passed over; those on capabilities we do not have
// count for nothing.
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
