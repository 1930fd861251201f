package rfc9111

import (
	"bytes"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// VaryNames returns the names of the request fields that selected the response
// (RFC 9111 §4.1): canonical, sorted, each once, of all Vary lines. star says
// that no later request can be known to match: "*" is among them, or something
// that is no field name.
func VaryNames(response http.Header) (names []string, star bool) {
	for _, line := range response["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			name = trimOWS(name)
			if name == "" {
				continue
			}
			if name == "*" || !isToken(name) {
				return nil, true
			}
			names = append(names, textproto.CanonicalMIMEHeaderKey(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), false
}

// Selecting returns the named request fields as one string, to be compared with
// that of another request (RFC 9111 §4.1). Names and values are length-prefixed,
// so that none can imitate another, and an absent field differs from an empty
// one. Before that, outside of quoted strings:
//
//   - the lines of a field are joined with commas, and white space around commas
//     and at both ends goes;
//   - in Accept, Accept-Encoding and Accept-Language, also the white space
//     around semicolons, and letters become lower case;
//   - the members of Accept-Encoding are sorted, and those of Accept and
//     Accept-Language ordered by weight. Members of equal weight stay as they
//     are there, because upstreams take the first (RFC 9110 §12.5.4).
//
// Host is not among the header fields of a Go request; the cache key has it.
func Selecting(names []string, request http.Header) string {
	if len(names) == 0 {
		return ""
	}
	var space, scratch [192]byte
	all := space[:0]
	for _, name := range names {
		name = textproto.CanonicalMIMEHeaderKey(name)
		all = appendPrefixed(all, []byte(name))
		lines := request[name]
		if len(lines) == 0 {
			all = append(all, '-')
			continue
		}
		all = appendPrefixed(all, normalize(scratch[:0], name, strings.Join(lines, ",")))
	}
	return string(all)
}

func appendPrefixed(dst, value []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(value)), 10)
	dst = append(dst, ':')
	return append(dst, value...)
}

// normalize appends the normal form of a field value to dst, which is empty.
func normalize(dst []byte, name, value string) []byte {
	switch name {
	case "Accept-Encoding":
		dst = tidy(dst, value, true)
		return reorder(dst, bytes.Compare)
	case "Accept", "Accept-Language":
		dst = tidy(dst, value, true)
		if !weighable(dst) {
			return dst
		}
		return reorder(dst, func(a, b []byte) int { return weight(b) - weight(a) })
	default:
		return tidy(dst, value, false)
	}
}

// tidy appends value without the white space around commas and at its ends and,
// if it is a negotiation list, around semicolons, in lower case. Quoted strings
// stay as they are.
func tidy(dst []byte, value string, negotiation bool) []byte {
	value = trimOWS(value)
	for i := 0; i < len(value); {
		c := value[i]
		switch {
		case c == '"':
			n, _ := quotedLen(value[i:])
			dst = append(dst, value[i:i+n]...)
			i += n
			continue
		case c == ',', c == ';' && negotiation:
			dst = append(bytes.TrimRight(dst, " \t"), c)
			rest := strings.TrimLeft(value[i+1:], " \t")
			i = len(value) - len(rest)
			continue
		case 'A' <= c && c <= 'Z' && negotiation:
			c += 'a' - 'A'
		}
		dst = append(dst, c)
		i++
	}
	return dst
}

// reorder sorts the members of a tidy list in place, those that compare equal
// in the order they have.
func reorder(list []byte, compare func(a, b []byte) int) []byte {
	if bytes.IndexByte(list, ',') < 0 || bytes.IndexByte(list, '"') >= 0 {
		return list // nothing to sort, or commas that may not be separators
	}
	members := bytes.Split(bytes.Clone(list), []byte(","))
	slices.SortStableFunc(members, compare)
	sorted := list[:0]
	for i, member := range members {
		if i > 0 {
			sorted = append(sorted, ',')
		}
		sorted = append(sorted, member...)
	}
	return sorted
}

// weighable reports whether every member of a tidy list has a weight that can
// be read. If not, the order stays: it may be all that upstream goes by.
func weighable(list []byte) bool {
	for more := true; more; {
		var member []byte
		member, list, more = bytes.Cut(list, []byte(","))
		if weight(member) < 0 {
			return false
		}
	}
	return true
}

// weight returns the q of a list member in thousandths (RFC 9110 §12.4.2), 1000
// where it has none and -1 where it cannot be read.
func weight(member []byte) int {
	_, q, found := bytes.Cut(member, []byte(";q="))
	if !found {
		return 1000
	}
	if bytes.Contains(q, []byte(";q=")) {
		return -1
	}
	q, _, _ = bytes.Cut(q, []byte(";"))
	if len(q) == 0 || len(q) > len("0.000") || q[0] > '1' || q[0] < '0' || len(q) > 1 && q[1] != '.' {
		return -1
	}
	thousandths := int(q[0]-'0') * 1000
	for i, unit := 2, 100; i < len(q); i, unit = i+1, unit/10 {
		if q[i] < '0' || q[i] > '9' {
			return -1
		}
		thousandths += int(q[i]-'0') * unit
	}
	if thousandths > 1000 {
		return -1
	}
	return thousandths
}
