package rfc9111

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Parts of one representation may be combined if they have the same strong
// validator (RFC 9111 §3.4, RFC 9110 §15.3.7.3). Only an entity tag will do: two
// answers with one Last-Modified may differ.

// StrongTag returns the entity tag of a response by which its bytes are known, or
// "". That is none of a response with a content coding, nor one that an encoder has
// marked: an encoder that works on the way (Caddy's encode, mod_deflate) leaves a
// strong tag strong and appends its name, though its bytes depend on how the input
// arrived. RFC 9110 §8.8.1 would have such a tag weak.
func StrongTag(response http.Header) string {
	tag := entityTag(response)
	if strings.HasPrefix(tag, "W/") || isCoded(response) || hasEncoderSuffix(tag) {
		return ""
	}
	return tag
}

// isCoded reports whether a response has a content coding (RFC 9110 §8.4).
func isCoded(response http.Header) bool {
	for _, line := range response["Content-Encoding"] {
		for coding := range strings.SplitSeq(line, ",") {
			if coding = trimOWS(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return true
			}
		}
	}
	return false
}

// hasEncoderSuffix reports whether a tag ends with the name of a content coding,
// and something before that which is no letter or digit.
func hasEncoderSuffix(tag string) bool {
	opaque, quoted := strings.CutSuffix(tag, `"`)
	if !quoted {
		return false
	}
	i := strings.LastIndexFunc(opaque, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9')
	})
	if i < 1 { // the opening quote
		return false
	}
	return isKnownCoding(strings.ToLower(opaque[i+1:]))
}

// isKnownCoding reports whether a name, in lower case, is that of a content coding (RFC
// 9110 §8.4.1, RFC 7932, RFC 8878, RFC 9842).
func isKnownCoding(name string) bool {
	switch name {
	case "gzip", "x-gzip", "br", "zstd", "deflate", "compress", "x-compress", "dcb", "dcz":
		return true
	}
	return false
}

// Continues reports whether a response may be the one that a client has the header
// of, so far as a header can tell: the body is then compared with what the client
// has of it. One field about the content that both have, or a validator that only one of
// them has, tells them apart.
func Continues(had, now http.Header) bool {
	for name := range had {
		if !strings.HasPrefix(name, "Content-") {
			continue
		}
		a, b := single(had[name]), single(now[name])
		if a != "" && b != "" && a != b {
			return false
		}
	}
	if !slices.Equal(had["Content-Encoding"], now["Content-Encoding"]) {
		return false
	}
	a, b := entityTag(had), entityTag(now)
	if a == "" && b == "" {
		return single(had["Last-Modified"]) == single(now["Last-Modified"])
	}
	a, _ = cutEntityTag(a)
	b, _ = cutEntityTag(b)
	return a == b
}

// ContinuesUnseen is Continues for a client that has nothing of the body yet: nothing is
// there to compare but the header. A strong tag tells that the bytes are the same; else
// all that the client has been told must be, but for the times.
func ContinuesUnseen(had, now http.Header) bool {
	if tag := StrongTag(had); tag != "" && tag == StrongTag(now) {
		return true
	}
	for name, values := range had {
		switch name {
		case "Date", "Age", "Expires", "Content-Length":
		default:
			if !slices.Equal(values, now[name]) {
				return false
			}
		}
	}
	return true
}

// maxSize is beyond the size of each representation.
const maxSize = 1<<63 - 1

// AsksPart reports whether a Range field asks for one range of a representation of unknown
// size that lies within the first so many bytes (near), or begins beyond them or counts
// from the end (far).
func AsksPart(lines []string, first int64) (near, far bool) {
	start, length, ok := SingleRange(lines, maxSize)
	return ok && start < first && length <= first-start, ok && start >= first
}

// PartRequest returns the header of a request for a part of the representation that has a
// tag ("": of the current one, whichever that is). It is the client's but for conditions and
// ranges, and changes nothing in that.
func PartRequest(client http.Header, start, length int64, tag string) http.Header {
	h := Conditional(client, nil)
	if len(client["Accept-Encoding"]) == 0 {
		delete(h, "Accept-Encoding") // Go's HTTP client asks for no gzip beside a Range
	}
	h["Range"] = []string{"bytes=" + strconv.FormatInt(start, 10) + "-" + strconv.FormatInt(start+length-1, 10)}
	if tag != "" {
		h["If-Range"] = []string{tag}
	}
	return h
}

// ContentRange reads the Content-Range field of a response that has one part
// (RFC 9110 §14.4). It reports false when the field is missing or broken, or
// leaves the size of the whole open.
func ContentRange(response http.Header) (start, length, size int64, ok bool) {
	p, ok := ReadPart(response)
	return p.Start, p.Length, p.Size, ok && p.Size != UnknownSize
}

// A Part is what Content-Range says of the content of a response.
type Part struct{ Start, Length, Size int64 }

// UnknownSize is the size of a representation of which a server has told no size.
const UnknownSize = -1

// Of returns what a part has of the one range that a Range field asks for. It reports false
// when that is nothing, not even the beginning.
func (p Part) Of(lines []string) (start, length int64, ok bool) {
	size := p.Size
	if size == UnknownSize {
		size = maxSize
	}
	start, length, ok = SingleRange(lines, size)
	if !ok || start < p.Start || start >= p.Start+p.Length {
		return 0, 0, false
	}
	return start, min(length, p.Start+p.Length-start), true
}

// ReadPart reads the Content-Range field of a response that has one part
// (RFC 9110 §14.4). It reports false when the field is missing or broken.
func ReadPart(response http.Header) (Part, bool) {
	set, found := strings.CutPrefix(single(response["Content-Range"]), "bytes ")
	bounds, total, slash := strings.Cut(set, "/")
	first, last, dash := strings.Cut(bounds, "-")
	if !found || !slash || !dash {
		return Part{}, false
	}
	unknown := total == "*"
	if unknown {
		total = strconv.FormatInt(maxSize, 10)
	}
	var numbers [3]int64
	for i, s := range []string{first, last, total} {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			return Part{}, false
		}
		numbers[i] = int64(n)
	}
	start, end, size := numbers[0], numbers[1], numbers[2]
	if start > end || end >= size { // from here on nothing overflows
		return Part{}, false
	}
	if unknown {
		size = UnknownSize
	}
	return Part{start, end - start + 1, size}, true
}

// Whole makes of a partial response's header what a response with the whole
// would have had: its fields are those of a 200 (RFC 9110 §15.3.7).
func Whole(partial http.Header, size int64) http.Header {
	h := partial.Clone()
	MakeWhole(h, size)
	return h
}

// MakeWhole is Whole in place.
func MakeWhole(h http.Header, size int64) {
	OtherBytes(h)
	delete(h, "Content-Range")
	h["Content-Length"] = []string{strconv.FormatInt(size, 10)}
}
