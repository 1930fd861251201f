package rfc9111

import (
	"maps"
	"net/http"
	"strconv"

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
			rest := maps.Clone(response)
			delete(rest, "Cache-Control")
			delete(rest, "Expires")
			return d, rest
		}
	}
	return ParseResponse(response), response
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
