package rfc9111

import (
	"net/http"
	"strconv"
	"strings"
)

// Parts of one representation may be combined if they have the same strong
// validator (RFC 9111 §3.4, RFC 9110 §15.3.7.3). Only an entity tag will do: two
// answers with one Last-Modified may differ.

// StrongTag returns the strong entity tag of a response, or "".
func StrongTag(response http.Header) string {
	tag := entityTag(response)
	if strings.HasPrefix(tag, "W/") {
		return ""
	}
	return tag
}

// FarRange reports whether a Range field asks for one range that begins beyond
// so many bytes, or counts from an end that is not known yet.
func FarRange(lines []string, beyond int64) bool {
	start, _, ok := SingleRange(lines, 1<<63-1)
	return ok && start >= beyond
}

// AskPart makes the header of a request ask for a part of the representation
// that has a tag ("": of the current one, whichever that is).
func AskPart(request http.Header, start, length int64, tag string) {
	end := start + length - 1
	request["Range"] = []string{"bytes=" + strconv.FormatInt(start, 10) + "-" + strconv.FormatInt(end, 10)}
	if tag != "" {
		request["If-Range"] = []string{tag}
	}
}

// ContentRange reads the Content-Range field of a response that has one part
// (RFC 9110 §14.4). It reports false when the field is missing or broken, or
// leaves the size of the whole open.
func ContentRange(response http.Header) (start, length, size int64, ok bool) {
	set, found := strings.CutPrefix(single(response["Content-Range"]), "bytes ")
	bounds, total, slash := strings.Cut(set, "/")
	first, last, dash := strings.Cut(bounds, "-")
	if !found || !slash || !dash {
		return 0, 0, 0, false
	}
	var numbers [3]int64
	for i, s := range []string{first, last, total} {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			return 0, 0, 0, false
		}
		numbers[i] = int64(n)
	}
	start, end, size := numbers[0], numbers[1], numbers[2]
	if start > end || end >= size { // from here on nothing overflows
		return 0, 0, 0, false
	}
	return start, end - start + 1, size, true
}

// Whole makes of a partial response's header what a response with the whole
// would have had: its fields are those of a 200 (RFC 9110 §15.3.7).
func Whole(partial http.Header, size int64) http.Header {
	h := partial.Clone()
	delete(h, "Content-Range")
	h["Content-Length"] = []string{strconv.FormatInt(size, 10)}
	return h
}
