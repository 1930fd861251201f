package rfc9111

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Encoded returns a URL, or a request target, as browsers send it: with percent-encoding
// in place of what no URI has as it is (RFC 3986 §2), such as letters beyond ASCII. It goes
// by the path and query percent-encode sets of the URL Standard (§1.3). What is
// percent-encoded already stays as it is. The host has to be in ASCII.
func Encoded(u string) string {
	path, query, found := strings.Cut(u, "?")
	path = percentEncoded(path, ofPaths)
	if !found {
		return path
	}
	return path + "?" + percentEncoded(query, ofQueries)
}

// What browsers encode in a path, and in a query, beside controls, spaces and what is beyond
// ASCII.
const (
	ofPaths   = "\"<>^`{}"
	ofQueries = "\"<>'"
)

// percentEncoded encodes what browsers encode, of ASCII the characters of a set.
func percentEncoded(s, set string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(set, c) >= 0 {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Spellings returns a URL, or a request target, in the ways in which clients send it, each
// once: as it is written; as browsers encode it; with the digits of its percent-encoding in
// either case, which make no difference (RFC 3986 §6.2.2.1); and with all that browsers
// encode as it is, as some clients send it.
func Spellings(u string) []string {
	all := []string{u}
	encoded := Encoded(u)
	for _, one := range []string{encoded, inCase(encoded, strings.ToUpper), inCase(encoded, strings.ToLower), raw(u)} {
		if !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	return all
}

// inCase changes the case of the digits of percent-encoding.
func inCase(s string, change func(string) string) string {
	return escapes(s, func(digits string) string { return "%" + change(digits) })
}

// raw undoes what Encoded does, but for controls and spaces, which no request line has.
func raw(u string) string {
	path, query, found := strings.Cut(u, "?")
	path = decoded(path, ofPaths)
	if !found {
		return path
	}
	return path + "?" + decoded(query, ofQueries)
}

func decoded(s, set string) string {
	return escapes(s, func(digits string) string {
		c, err := strconv.ParseUint(digits, 16, 8)
		if err != nil || c < utf8.RuneSelf && strings.IndexByte(set, byte(c)) < 0 {
			return "%" + digits
		}
		return string([]byte{byte(c)})
	})
}

// escapes puts something else in place of each percent sign and the two characters after it.
func escapes(s string, become func(digits string) string) string {
	begin, rest, found := strings.Cut(s, "%")
	if !found {
		return s
	}
	var b strings.Builder
	b.WriteString(begin)
	for found {
		var one string
		one, rest, found = strings.Cut(rest, "%")
		n := min(len(one), len("C3"))
		b.WriteString(become(one[:n]) + one[n:])
	}
	return b.String()
}
