package rfc9111

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// maxDelta is the largest age or lifetime there is, 2^31 seconds. RFC 9111
// §1.2.2 gives this value to everything that overflows.
const maxDelta = (1 << 31) * time.Second

// clamp brings a duration into 0..maxDelta, so that sums of a few of them
// cannot overflow.
func clamp(d time.Duration) time.Duration {
	return min(max(d, 0), maxDelta)
}

// parseDelta reads delta-seconds (RFC 9111 §1.2.2): digits and nothing else.
func parseDelta(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	var seconds int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		seconds = min(seconds*10+int64(s[i]-'0'), 1<<31)
	}
	return time.Duration(seconds) * time.Second, true
}

// dateForms are the three forms of an HTTP-date (RFC 9110 §5.6.7).
var dateForms = [...]string{http.TimeFormat, "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC}

// parseDate reads an HTTP-date in one of its three forms. The case of letters
// makes no difference (RFC 9111 §4.2). time.Parse takes more white space and
// fewer digits than the forms have, so what it has read must be as long as its
// form, from the comma on where there is one.
func parseDate(s string) (time.Time, bool) {
	if rest, zone := strings.CutSuffix(strings.ToUpper(s), " GMT"); zone {
		s = rest + " GMT" // the one part that time.Parse takes in capitals only
	}
	_, rest, comma := strings.Cut(s, ",")
	for _, form := range dateForms {
		_, formRest, formComma := strings.Cut(form, ",")
		if comma != formComma || comma && len(rest) != len(formRest) || !comma && len(s) != len(form) {
			continue
		}
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// dateField reads a field that holds one date. Repeating the same value is
// harmless; two different ones are as bad as none that can be read.
func dateField(h http.Header, name string) (t time.Time, present, ok bool) {
	t, ok = parseDate(single(h[name]))
	return t, len(h[name]) > 0, ok
}

// single returns the value of a field that may occur once, "" if it is absent or
// given several times with different values.
func single(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	value := trimOWS(lines[0])
	for _, line := range lines[1:] {
		if trimOWS(line) != value {
			return ""
		}
	}
	return value
}

// areCanonical reports whether all names of a header are canonical, which they are
// unless a handler wrote into the map.
func areCanonical(h http.Header) bool {
	for name := range h {
		if textproto.CanonicalMIMEHeaderKey(name) != name {
			return false
		}
	}
	return true
}

// canonicalNames returns h itself if all its names are canonical, and otherwise a
// copy in which they are. A "set-cookie" must not slip by because of its spelling.
func canonicalNames(h http.Header) http.Header {
	if areCanonical(h) {
		return h
	}
	c := make(http.Header, len(h))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		key := textproto.CanonicalMIMEHeaderKey(name)
		c[key] = append(c[key], h[name]...)
	}
	return c
}

func trimOWS(s string) string { return strings.Trim(s, " \t") }

// tokenLen returns how many bytes at the start of s may be in a token
// (RFC 9110 §5.6.2).
func tokenLen(s string) int {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return i
		}
	}
	return len(s)
}

func isToken(s string) bool { return s != "" && tokenLen(s) == len(s) }

func isTokenByte(c byte) bool {
	switch {
	case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// quotedLen returns the length of the quoted-string that s begins with
// (RFC 9110 §5.6.4), quotes included; closed is false, and the length that of
// s, if it does not end.
func quotedLen(s string) (n int, closed bool) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1, true
		}
	}
	return len(s), false
}

// unquote returns what a closed quoted-string says.
func unquote(quoted string) string {
	inner := quoted[1 : len(quoted)-1]
	if !strings.Contains(inner, `\`) {
		return inner
	}
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' {
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}
