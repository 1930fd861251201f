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

// AppendSelecting appends the named request fields in a form that is to be compared with
// that of another request (RFC 9111 §4.1). Names and values are length-prefixed,
// so that none can imitate another, and an absent field differs from an empty
// one. Before that, outside of quoted strings:
//
//   - the lines of a field are joined with commas, and white space around commas
//     and at both ends goes;
//   - in Accept, Accept-Encoding and Accept-Language, also the white space
//     around semicolons goes, what RFC 9110 calls case-insensitive becomes lower
//     case (not the values of a media type's parameters, §8.3.1), and weights are
//     written the shortest way (§12.4.2);
//   - in Accept-Encoding, the members are sorted.
//
// Of Range counts whether it is there: which part is asked for, the cache makes itself.
//
// A value of more than MaxNormalized bytes stays as it came. It is of no browser, and
// the work of bringing it to a normal form would be the client's to choose.
//
// The order of Accept and Accept-Language stays: among equal weights, and some
// among all, applications take the first that they have (§12.5.4 knows of it), and
// what they answer is another thing then. The order of Accept-Encoding may decide
// too, but only which of the codings that both clients take equally well carries
// the same content.
//
// Host is not among the header fields of a Go request; the cache key has it.
func AppendSelecting(all []byte, names []string, request http.Header) []byte {
	var scratch [192]byte
	for _, name := range names {
		name = textproto.CanonicalMIMEHeaderKey(name)
		all = appendPrefixed(all, []byte(name))
		lines := request[name]
		if len(lines) == 0 {
			all = append(all, '-')
			continue
		}
		if name == "Range" {
			all = append(all, '+')
			continue
		}
		value := strings.Join(lines, ",")
		if len(value) > MaxNormalized {
			all = strconv.AppendInt(slices.Grow(all, len(value)+8), int64(len(value)), 10)
			all = append(append(all, ':'), value...)
			continue
		}
		all = appendPrefixed(all, normalize(scratch[:0], name, value))
	}
	return all
}

func appendPrefixed(dst, value []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(value)), 10)
	dst = append(dst, ':')
	return append(dst, value...)
}

// MaxNormalized is how long a field value may be to be brought to a normal form, in
// bytes.
const MaxNormalized = 512

// normalize appends the normal form of a field value, which is no longer than
// MaxNormalized, to dst, which is empty.
func normalize(dst []byte, name, value string) []byte {
	switch name {
	case "Accept":
		return shortenWeights(tidy(dst, value, mediaRanges))
	case "Accept-Language":
		return shortenWeights(tidy(dst, value, tokens))
	case "Accept-Encoding":
		return sortMembers(tidy(dst, value, tokens))
	default:
		return tidy(dst, value, anything)
	}
}

// A syntax says what is known of a field's values.
type syntax uint8

const (
	anything    syntax = iota // a list, perhaps
	tokens                    // a list of case-insensitive tokens with weights
	mediaRanges               // a list of media ranges, whose parameters' values may be case-sensitive
)

// tidy appends value without the white space around commas and at its ends and,
// if it is a negotiation list, around semicolons, in lower case where case means
// nothing. Quoted strings stay as they are.
func tidy(dst []byte, value string, s syntax) []byte {
	value = trimOWS(value)
	parameter, exact := false, false // in a parameter, in the value of one
	for i := 0; i < len(value); {
		c := value[i]
		switch {
		case c == '"':
			n, _ := quotedLen(value[i:])
			dst = append(dst, value[i:i+n]...)
			i += n
			continue
		case c == ',', c == ';' && s != anything:
			parameter, exact = c == ';', false
			dst = append(bytes.TrimRight(dst, " \t"), c)
			rest := strings.TrimLeft(value[i+1:], " \t")
			i = len(value) - len(rest)
			continue
		case c == '=':
			exact = parameter && s == mediaRanges
		case 'A' <= c && c <= 'Z' && s != anything && !exact:
			c += 'a' - 'A'
		}
		dst = append(dst, c)
		i++
	}
	return dst
}

// shortenWeights writes the weights of a tidy list the shortest way, in place.
// One that cannot be read stays.
func shortenWeights(list []byte) []byte {
	if bytes.IndexByte(list, '"') >= 0 || !bytes.Contains(list, []byte(";q=")) {
		return list // commas and semicolons that may not be separators, or no weight
	}
	var space [192]byte
	buf := space[:0]
	for rest, more := list, true; more; {
		var member []byte
		member, rest, more = bytes.Cut(rest, []byte(","))
		if weight(member) >= 0 {
			buf = appendWeighted(buf, member)
		} else {
			buf = append(buf, member...)
		}
		if more {
			buf = append(buf, ',')
		}
	}
	return append(list[:0], buf...)
}

// sortMembers sorts the members of a tidy list in place and writes their
// weights the shortest way. A weight that cannot be read keeps the order.
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
// written the shortest way: not at all if it is 1 and nothing follows, which
// would become another parameter. It is never longer than the member.
func appendWeighted(dst, member []byte) []byte {
	name, rest, found := bytes.Cut(member, []byte(";q="))
	dst = append(dst, name...)
	if !found {
		return dst
	}
	_, after, more := bytes.Cut(rest, []byte(";"))
	if q := weight(member); q < 1000 || more {
		dst = append(dst, ";q="...)
		dst = strconv.AppendFloat(dst, float64(q)/1000, 'f', -1, 64)
	}
	if more {
		dst = append(append(dst, ';'), after...)
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
// others (RFC 9110 §12.5.4), since upstream is known to have it. A response that
// states no language ("") is meant for readers of all (§8.5): then the order of
// the languages made no difference. Both values are in the normal form of
// AcceptLanguage.
func LanguageServes(language, chosenFor, request string) bool {
	if chosenFor == request {
		return true
	}
	if strings.Contains(request, `"`) {
		return false
	}
	if language == "" {
		return sameMembers(chosenFor, request)
	}
	if !isToken(language) {
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

// sameMembers reports whether two lists have the same members, in any order, and
// weights that can be read: otherwise the order may be all that upstream goes by.
func sameMembers(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	ours, theirs := strings.Split(a, ","), strings.Split(b, ",")
	slices.Sort(ours)
	slices.Sort(theirs)
	return slices.Equal(ours, theirs) && !slices.ContainsFunc(ours, func(member string) bool { return weight([]byte(member)) < 0 })
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
// AppendSelecting, "" if there is none.
func AcceptEncoding(request http.Header) string { return normalOf("Accept-Encoding", request) }

// AcceptLanguage returns the Accept-Language of a request in the normal form of
// AppendSelecting, "" if there is none.
func AcceptLanguage(request http.Header) string { return normalOf("Accept-Language", request) }

func normalOf(name string, request http.Header) string {
	value := strings.Join(request[name], ",")
	if len(value) > MaxNormalized {
		return value
	}
	var scratch [192]byte
	return string(normalize(scratch[:0], name, value))
}
