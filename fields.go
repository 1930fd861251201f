package caddygroupcache

import (
	"net/http"
	"strings"
)

// A fieldSet is which fields a request has of those that change what it asks of
// the cache. Most have none. One pass over a header finds out for less than it takes
// to look for each field.
type fieldSet uint8

const (
	connectionFields   fieldSet = 1 << iota // Connection, Upgrade
	directiveFields                         // Cache-Control, Pragma
	conditionFields                         // If-None-Match, If-Modified-Since
	rangeField                              // Range
	authorizationField                      // Authorization
	overridingFields                        // some that overriding may name
)

func (s fieldSet) has(f fieldSet) bool { return s&f != 0 }

func fieldsOf(header http.Header) (s fieldSet) {
	for name := range header {
		switch name {
		case "Connection", "Upgrade":
			s |= connectionFields
		case "Cache-Control", "Pragma":
			s |= directiveFields
		case "If-None-Match", "If-Modified-Since":
			s |= conditionFields
		case "Range":
			s |= rangeField
		case "Authorization":
			s |= authorizationField
		default:
			if strings.HasPrefix(name, "X-") || strings.HasPrefix(name, "F") {
				s |= overridingFields
			}
		}
	}
	return s
}
