package rfc9111

import "strings"

// LoopField is CDN-Loop (RFC 8586) as net/http spells it.
const LoopField = "Cdn-Loop"

// Bounds of what is read of a CDN-Loop field.
const (
	maxLoopBytes   = 8 << 10
	maxLoopMembers = 64
)

// LoopMember returns what a cache adds to CDN-Loop for one of its groups: a cdn-info with
// one parameter (RFC 8586 §2).
func LoopMember(id, group string) string { return id + "; group=" + tokenOf(group) }

// tokenOf escapes a name as URLs do, so that it is a token whatever is in it: a quoted
// string could not have control characters.
func tokenOf(name string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(name))
	for i := range len(name) {
		if c := name[i]; isTokenByte(c) && c != '%' {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// InLoop reports whether a request has passed a cache that is one of ours, in a group:
// whether a member of its CDN-Loop field has an id of ours, and names that group. The
// field is every client's to send. One that is longer than any chain of caches makes
// it, or whose quotes don't close, could hide a member; it counts as a loop, which
// costs its own client the cache.
func InLoop(lines []string, group string, ours func(id string) bool) bool {
	size, members, token := 0, 0, tokenOf(group)
	for _, line := range lines {
		if size += len(line); size > maxLoopBytes {
			return true
		}
		for len(line) > 0 {
			member, rest, closed := cutQuoted(line, ',')
			if members++; members > maxLoopMembers || !closed {
				return true
			}
			line = rest
			id, parameters, _ := cutQuoted(member, ';')
			if ours(trimOWS(id)) && hasParameter(parameters, "group", token) {
				return true
			}
		}
	}
	return false
}

// hasParameter reports whether one of the parameters of a cdn-info has a value, as a
// token or a quoted string.
func hasParameter(parameters, name, value string) bool {
	for len(parameters) > 0 {
		var one string
		one, parameters, _ = cutQuoted(parameters, ';')
		n, v, _ := strings.Cut(trimOWS(one), "=")
		if strings.HasPrefix(v, `"`) {
			if length, closed := quotedLen(v); closed {
				v = unquote(v[:length])
			}
		}
		if strings.EqualFold(n, name) && v == value {
			return true
		}
	}
	return false
}

// cutQuoted cuts a list before its first separator that is not in a quoted string. It
// reports false if such a string does not end.
func cutQuoted(s string, separator byte) (before, after string, closed bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", !quoted
}
