package rfc9111

import (
	"maps"
	"net/http"
	"strings"
)

// Validators returns the validators of a stored response as they are sent back
// to its origin (RFC 9110 §8.8), each "" if there is none that is well-formed
// and unambiguous.
func Validators(stored http.Header) (etag, lastModified string) {
	if _, _, ok := dateField(stored, "Last-Modified"); ok {
		lastModified = trimOWS(stored["Last-Modified"][0])
	}
	return entityTag(stored), lastModified
}

// entityTag returns the ETag of a response (RFC 9110 §8.8.3), or "".
func entityTag(h http.Header) string {
	value := single(h["Etag"])
	if tag, rest := cutEntityTag(value); tag != "" && rest == "" {
		return value
	}
	return ""
}

// cutEntityTag takes an entity-tag off the start of s and returns it without
// W/, or "" if none is there. Without W/ it is what the weak comparison of
// RFC 9110 §8.8.3.2 compares. A backslash in a tag escapes nothing.
func cutEntityTag(s string) (opaque, rest string) {
	s = strings.TrimPrefix(s, "W/")
	if s == "" || s[0] != '"' {
		return "", s
	}
	for i := 1; i < len(s); i++ {
		if s[i] == '"' {
			return s[:i+1], s[i+1:]
		}
		if s[i] <= ' ' || s[i] == 0x7f {
			break
		}
	}
	return "", s
}

// Conditional returns the request header for validating a stored response
// (RFC 9111 §4.3.1): the client's own preconditions and Range are replaced by
// preconditions from the stored response. Without a validator there, the request
// is a plain one. Where a Range was taken off and the client names no coding, it asks for
// none: Go's HTTP client would ask for gzip by itself, and give back a whole without a
// length, of which no range can be made. The request's header is not changed.
func Conditional(request, stored http.Header) http.Header {
	h := request.Clone()
	if h == nil {
		h = make(http.Header, 2)
	}
	if len(h["Range"]) > 0 && len(h["Accept-Encoding"]) == 0 {
		h["Accept-Encoding"] = []string{"identity"}
	}
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since",
		"If-Unmodified-Since", "If-Range", "Range"} {
		delete(h, name)
	}
	etag, lastModified := Validators(stored)
	if etag != "" {
		h["If-None-Match"] = []string{etag}
	}
	if lastModified != "" {
		h["If-Modified-Since"] = []string{lastModified}
	}
	return h
}

// Revalidated judges the exchange x that ended in a 304 for a stored response of
// the given status (RFC 9111 §4.3.4). It returns the header that Refresh makes
// and the new freshness, with the reasons of Storable:
//
//   - None: header and freshness replace those of the entry. Vary may have
//     changed with them.
//   - StrayNotModified, with a nil header: the 304 is about other bytes than
//     those stored. Fetch without preconditions.
//   - RequestNoStore, Authorization: serve this client, leave the entry as it was.
//   - any other: serve this client, drop the entry.
func Revalidated(x Exchange, status int, stored http.Header, o Options) (http.Header, Freshness, Reason) {
	answer := canonicalNames(x.Response)
	if !sameRepresentation(stored, answer) {
		return nil, Freshness{}, StrayNotModified
	}
	refreshed := Refresh(stored, answer, o)
	// Age and Date must be those of this exchange, or be missing with it: the
	// stored ones are about the time when the body was fetched.
	judged := maps.Clone(refreshed)
	judged["Age"], judged["Date"] = answer["Age"], answer["Date"]
	// A 304 answers GET or HEAD, and what it renews is the stored GET. A cookie
	// on it goes to this client only; Refresh has left it out.
	x.Method, x.Status, x.Response = http.MethodGet, status, judged
	f, reason := Storable(x, o)
	return refreshed, f, reason
}

// A Comparison is what the response to a HEAD says of the stored response to a
// GET.
type Comparison uint8

const (
	Unclear Comparison = iota // nothing of weight
	Same                      // it would be the same: Revalidated with that response renews it
	Other                     // it would be another one
)

// CompareHead compares a stored response to a GET with a 200 to a HEAD for the
// same resource (RFC 9111 §4.3.5). A length alone tells that they differ but not
// that they are the same, and a length of 0 is what servers say that do not
// know it.
func CompareHead(stored, head http.Header) Comparison {
	c := Unclear
	for _, name := range []string{"Etag", "Last-Modified"} {
		ours, theirs := single(stored[name]), single(head[name])
		if ours == "" || theirs == "" {
			continue
		}
		if ours != theirs && !(name == "Etag" && differBySuffix(ours, theirs, stored)) {
			return Other
		}
		c = Same
	}
	ours, theirs := single(stored["Content-Length"]), single(head["Content-Length"])
	// An encoder may leave alone what has no body, and then the length is another's.
	if theirs != "" && theirs != "0" && ours != theirs && isCoded(stored) == isCoded(head) {
		return Other
	}
	return c
}

// sameRepresentation reports whether a 304 can be about the stored bytes
// (RFC 9111 §4.3.4). Tags are compared weakly, without the suffix of the stored
// response's encoder (differBySuffix), and a tag that only the 304 has
// is passed over, because servers weaken, mark or drop the tag of what they compress
// but not that of a 304. Without a tag to compare, another Last-Modified means
// another representation, older ones included.
func sameRepresentation(stored, notModified http.Header) bool {
	ours, _ := cutEntityTag(entityTag(stored))
	theirs, _ := cutEntityTag(entityTag(notModified))
	if ours != "" && theirs != "" {
		return ours == theirs || differBySuffix(ours, theirs, stored)
	}
	modified, present, ok := dateField(notModified, "Last-Modified")
	if !present || ours != "" {
		return true
	}
	was, _, wasOK := dateField(stored, "Last-Modified")
	return ok && wasOK && modified.Equal(was)
}

// differBySuffix reports whether two tags, without W/, are the same but for the
// suffix that the encoder of the stored response has appended to one of them.
// Caddy's encode makes "t-gzip" of "t" in a 200, takes the suffix off If-None-Match
// on the way to the upstream, and leaves the tag of its 304 alone; so do
// mod_deflate and mod_brotli. Jetty appends "--gzip".
func differBySuffix(a, b string, stored http.Header) bool {
	coding := single(stored["Content-Encoding"])
	if !isToken(coding) {
		return false // none, or several
	}
	if len(a) < len(b) {
		a, b = b, a
	}
	rest, ok := strings.CutPrefix(a, strings.TrimSuffix(b, `"`))
	return ok && (rest == "-"+coding+`"` || rest == "--"+coding+`"`)
}

// NotModified reports whether a request is answered with 304 from a stored
// response (RFC 9111 §4.3.2, RFC 9110 §13.2.2). If-None-Match goes before
// If-Modified-Since, also if it cannot be read. If-Match and If-Unmodified-Since
// are the origin's business and are not looked at. The method must be GET or
// HEAD.
func NotModified(request http.Header, status int, stored http.Header) bool {
	if status < 200 || status > 299 {
		return false // RFC 9110 §13.2.1
	}
	if lines := request["If-None-Match"]; len(lines) > 0 {
		return matchesAny(lines, stored)
	}
	since, _, ok := dateField(request, "If-Modified-Since")
	if !ok {
		return false
	}
	modified, present, ok := dateField(stored, "Last-Modified")
	if !present {
		modified, _, ok = dateField(stored, "Date") // RFC 9111 §4.3.2
	}
	return ok && !modified.After(since)
}

// matchesAny evaluates If-None-Match with the weak comparison (RFC 9110 §13.1.2).
// It stops at the first thing in a line that is no entity-tag.
func matchesAny(lines []string, stored http.Header) bool {
	if len(lines) == 1 && trimOWS(lines[0]) == "*" {
		return true
	}
	ours, _ := cutEntityTag(entityTag(stored))
	for _, rest := range lines {
		for rest != "" {
			var tag string
			tag, rest = cutEntityTag(strings.TrimLeft(rest, " \t,"))
			if tag == "" {
				break
			}
			rest = strings.TrimLeft(rest, " \t")
			if rest != "" && rest[0] != ',' {
				break
			}
			if tag == ours {
				return true
			}
		}
	}
	return false
}

// HasConditions reports whether a request has a field that asks for less than the whole
// response (RFC 9110 §13.1, §14.2).
func HasConditions(h http.Header) bool {
	for _, name := range []string{"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range"} {
		if len(h[name]) > 0 {
			return true
		}
	}
	return false
}
