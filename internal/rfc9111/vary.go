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
//     around semicolons, letters become lower case, weights are written the
//     shortest way, and the members are sorted: what the client prefers its
//     weights say, and the order of equals means nothing (RFC 9110 §12.5.4). A
//     weight that cannot be read keeps the order.
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
	case "Accept", "Accept-Encoding", "Accept-Language":
		return sortMembers(tidy(dst, value, true))
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

// sortMembers sorts the members of a tidy list in place and writes their
// weights the shortest way.
func sortMembers(list []byte) []byte {
	if bytes.IndexByte(list, '"') >= 0 {
		return list // commas and semicolons that may not be separators
	}
	for rest, more := list, true; more; {
		var member []byte
		if member, rest, more = bytes.Cut(rest, []byte(",")); weight(member) < 0 {
			return list // the order may be all that upstream goes by
		}
	}
	var space [192]byte
	var spans [12][2]int // of the members in space
	if len(list) > len(space) || bytes.Count(list, []byte(",")) >= len(spans) {
		return sortLong(list)
	}
	// The common case, without garbage: by insertion.
	buf, n := space[:0], 0
	for rest, more := list, true; more; n++ {
		var member []byte
		member, rest, more = bytes.Cut(rest, []byte(","))
		start := len(buf)
		buf = appendWeighted(buf, member)
		spans[n] = [2]int{start, len(buf)}
		for i := n; i > 0; i-- {
			a, b := spans[i-1], spans[i]
			if bytes.Compare(buf[a[0]:a[1]], buf[b[0]:b[1]]) <= 0 {
				break
			}
			spans[i-1], spans[i] = b, a
		}
	}
	list = list[:0]
	for i, span := range spans[:n] {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, buf[span[0]:span[1]]...)
	}
	return list
}

func sortLong(list []byte) []byte {
	members := bytes.Split(bytes.Clone(list), []byte(","))
	for i, member := range members {
		members[i] = appendWeighted(nil, member)
	}
	slices.SortFunc(members, bytes.Compare)
	return bytes.Join(members, []byte(","))
}

// appendWeighted appends a list member with its weight, which can be read,
// written the shortest way: not at all if it is 1. It is never longer than the
// member.
func appendWeighted(dst, member []byte) []byte {
	name, rest, found := bytes.Cut(member, []byte(";q="))
	dst = append(dst, name...)
	if !found {
		return dst
	}
	if q := weight(member); q < 1000 {
		dst = append(dst, ";q="...)
		dst = strconv.AppendFloat(dst, float64(q)/1000, 'f', -1, 64)
	}
	if i := bytes.IndexByte(rest, ';'); i >= 0 {
		dst = append(dst, rest[i:]...)
	}
	return dst
}

// weight returns the q of a list member in thousandths (RFC 9110 §12.4.2), 1000
// where it has none and -1 where it cannot be read.
func weight(member []byte) int {
	name, q, found := bytes.Cut(member, []byte(";q="))
	if !found {
		return 1000
	}
	if len(name) == 0 || bytes.Contains(q, []byte(";q=")) {
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

// CodingServes reports whether a response in one content coding ("": none),
// which upstream chose for a request with one Accept-Encoding, is what it would
// choose for another request too. It is if the other request takes that coding
// and nothing that the first did not take, each with the same weight: what was
// the best of many is the best of a few of them (RFC 9110 §12.5.3). Both values
// are in the normal form of AcceptEncoding.
func CodingServes(coding, chosenFor, request string) bool {
	if chosenFor == request {
		return true
	}
	if strings.ContainsAny(coding, ", \t;") || strings.ContainsAny(chosenFor+request, "*\"") {
		return false
	}
	coding = strings.ToLower(coding)
	plain := coding == "" || coding == "identity"
	taken := plain
	for member := range strings.SplitSeq(request, ",") {
		if member == "" {
			continue
		}
		if !hasMember(chosenFor, member) {
			return false
		}
		switch name, q, _ := strings.Cut(member, ";q="); {
		case name == "identity" && plain:
			taken = q != "0"
		case name == coding:
			taken = q != "0"
		}
	}
	// What the first request said of identity the other would have to say too.
	for member := range strings.SplitSeq(chosenFor, ",") {
		if strings.HasPrefix(member, "identity") && !hasMember(request, member) {
			return false
		}
	}
	return taken
}

// LanguageServes reports whether a response in one language, which upstream
// chose for a request with one Accept-Language, is what it would choose for
// another request too: one that gives this very language more weight than all
// others (RFC 9110 §12.5.4), since upstream is known to have it. Both values are
// in the normal form of AcceptLanguage.
func LanguageServes(language, chosenFor, request string) bool {
	if chosenFor == request {
		return true
	}
	if !isToken(language) || strings.Contains(request, `"`) {
		return false
	}
	language = strings.ToLower(language)
	ours, others := 0, 0
	for member := range strings.SplitSeq(request, ",") {
		q := weight([]byte(member))
		if q < 0 {
			return false
		}
		if name, _, _ := strings.Cut(member, ";"); name == language {
			ours = q
		} else {
			others = max(others, q)
		}
	}
	return ours > others
}

func hasMember(list, member string) bool {
	for m := range strings.SplitSeq(list, ",") {
		if m == member {
			return true
		}
	}
	return false
}

// AcceptEncoding returns the Accept-Encoding of a request in the normal form of
// Selecting, "" if there is none.
func AcceptEncoding(request http.Header) string { return normalOf("Accept-Encoding", request) }

// AcceptLanguage returns the Accept-Language of a request in the normal form of
// Selecting, "" if there is none.
func AcceptLanguage(request http.Header) string { return normalOf("Accept-Language", request) }

func normalOf(name string, request http.Header) string {
	var scratch [192]byte
	return string(normalize(scratch[:0], name, strings.Join(request[name], ",")))
}
