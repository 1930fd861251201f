package inbound

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// Fields is which fields a request has of those that change what it asks of the cache, as
// a sum of the constants below. Most have none. One pass over a header finds out for less
// than it takes to look for each field.
type Fields uint8

const (
	ConnectionFields   Fields = 1 << iota // Connection, Upgrade
	DirectiveFields                       // Cache-Control, Pragma
	ConditionFields                       // If-None-Match, If-Modified-Since
	RangeField                            // Range
	AuthorizationField                    // Authorization
	OverridingFields                      // some that OverridesURL reports
	PreconditionFields                    // If-Match, If-Unmodified-Since
	LoopField                             // CDN-Loop
)

// Has reports whether there are fields of a kind.
func (s Fields) Has(kind Fields) bool { return s&kind != 0 }

// FieldsOf returns which of the fields a header has. Its names are canonical.
func FieldsOf(header http.Header) (s Fields) {
	for name := range header {
		switch name {
		case "Connection", "Upgrade":
			s |= ConnectionFields
		case "Cache-Control", "Pragma":
			s |= DirectiveFields
		case "If-None-Match", "If-Modified-Since":
			s |= ConditionFields
		case "If-Match", "If-Unmodified-Since":
			s |= PreconditionFields
		case "Range":
			s |= RangeField
		case "Authorization":
			s |= AuthorizationField
		case "Accept", "Accept-Encoding", "Accept-Language", "Cookie", "Priority", "Referer", "User-Agent",
			"Sec-Ch-Ua", "Sec-Ch-Ua-Mobile", "Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User",
			"Upgrade-Insecure-Requests", "X-Forwarded-For": // the usual ones
		case rfc9111.LoopField:
			s |= LoopField
		default:
			if OverridesURL(name) {
				s |= OverridingFields
			}
		}
	}
	return s
}

// ParseFields reads header fields that are written as in HTTP/1.1, one a line.
func ParseFields(lines []string) (http.Header, error) {
	header := make(http.Header)
	for _, line := range lines {
		name, value, found := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !found || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("header %.100q: write it as Name: value", line)
		}
		header.Add(name, value)
	}
	return header, nil
}

// HasBody reports whether a request has a body. Over HTTP/3 that shows only when
// its stream ends, unless it has a Content-Length. For a GET the end comes with
// the header, and nobody but its own client waits if it doesn't.
func HasBody(r *http.Request) bool {
	if r.ProtoMajor != 3 || r.ContentLength >= 0 {
		return r.ContentLength != 0 || len(r.TransferEncoding) > 0
	}
	var first [1]byte
	n, err := io.ReadFull(r.Body, first[:])
	if err == io.EOF {
		r.Body, r.ContentLength = http.NoBody, 0
		return false
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first[:n]), r.Body), r.Body}
	return true
}
