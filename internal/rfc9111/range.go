package rfc9111

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// SingleRange reads a Range field that asks for one range of bytes (RFC 9110
// §14.1.2) of a representation of size bytes. It reports false for several
// ranges, other units, what cannot be satisfied and what cannot be read: a
// server may answer any of those with the whole (§14.2).
func SingleRange(lines []string, size int64) (start, length int64, ok bool) {
	if len(lines) != 1 {
		return 0, 0, false
	}
	unit, set, found := strings.Cut(lines[0], "=")
	first, last, dash := strings.Cut(trimOWS(set), "-")
	if !found || !strings.EqualFold(unit, "bytes") || !dash {
		return 0, 0, false
	}
	if first == "" { // the last bytes
		n, err := position(last)
		if err != nil || n == 0 || size == 0 {
			return 0, 0, false
		}
		n = min(n, size)
		return size - n, n, true
	}
	start, err := position(first)
	if err != nil || start >= size {
		return 0, 0, false
	}
	end := size - 1
	if last != "" {
		n, err := position(last)
		if err != nil || n < start {
			return 0, 0, false
		}
		end = min(n, end)
	}
	return start, end - start + 1, true
}

// maxRanges is how many ranges one request may ask for.
const maxRanges = 16

// FewRanges reports whether a Range field is one line of not too many ranges.
// Another is answered with the whole, because each part of an answer costs more
// than it takes to ask for it (RFC 9110 §14.2, §17.15).
func FewRanges(lines []string) bool {
	return len(lines) == 1 && strings.Count(lines[0], ",") < maxRanges
}

// position reads digits. Those of a number beyond all sizes mean the end.
func position(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil && s != "" && strings.Trim(s, "0123456789") == "" {
		return 1<<63 - 1, nil
	}
	return int64(n), err
}

// strongAfter is how long before Date a modification must lie for its time to
// tell versions apart (RFC 9110 §8.8.2.2).
const strongAfter = time.Second

// RangeApplies reports whether a request for a range may be answered with a part of
// the given response: If-Range, if there is one, must name its validator, and that
// be a strong one (RFC 9110 §13.1.5). No part is made of a response with a content
// coding unless that says by itself that there are parts of it: its bytes may be
// others the next time (StrongTag), and a client puts parts together too.
func RangeApplies(request, response http.Header) bool {
	lines := request["If-Range"]
	coded := isCoded(response)
	if len(lines) == 0 {
		return !coded || AcceptsRanges(response)
	}
	if len(lines) > 1 || coded {
		return false
	}
	condition := trimOWS(lines[0])
	if strings.HasSuffix(condition, `"`) {
		return condition == StrongTag(response)
	}
	// A date is a strong validator only if it is a while before Date (§8.8.2.2).
	modified, present, ok := dateField(response, "Last-Modified")
	date, _, dateOK := dateField(response, "Date")
	return present && ok && dateOK && condition == trimOWS(response["Last-Modified"][0]) && date.Sub(modified) >= strongAfter
}

// AcceptsRanges reports whether a response says that parts of it can be asked for
// (RFC 9110 §14.3).
func AcceptsRanges(response http.Header) bool {
	return strings.EqualFold(single(response["Accept-Ranges"]), "bytes")
}
