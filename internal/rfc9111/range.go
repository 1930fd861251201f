package rfc9111

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A Range is a run of bytes of a representation.
type Range struct{ Start, Length int64 }

// SingleRange reads a Range field that asks for one range of bytes (RFC 9110
// §14.1.2) of a representation of size bytes. It reports false for several
// ranges, other units, what cannot be satisfied and what cannot be read: a
// server may answer any of those with the whole (§14.2).
func SingleRange(lines []string, size int64) (start, length int64, ok bool) {
	set, ok := rangeSet(lines)
	if !ok {
		return 0, 0, false
	}
	r, ok := readRange(trimOWS(set), size)
	return r.Start, r.Length, ok && r.Length > 0
}

// maxRanges is how many ranges one request may ask for.
const maxRanges = 16

// Ranges reads a Range field that asks for ranges of bytes of a representation of size
// bytes, and returns those that can be satisfied (RFC 9110 §14.1.2). It reports false where
// the whole is the answer: to other units (§14.2), to what cannot be read, of nothing, to ranges
// of more than the whole, and to more of them than maxRanges, because each part of an answer
// costs more than it takes to ask for it (§17.15).
func Ranges(lines []string, size int64) (all []Range, ok bool) {
	set, ok := rangeSet(lines)
	if !ok || size == 0 || strings.Count(set, ",") >= maxRanges {
		return nil, false
	}
	asked, left := false, size
	for spec := range strings.SplitSeq(set, ",") {
		if spec = trimOWS(spec); spec == "" {
			continue // RFC 9110 §5.6.1.2
		}
		asked = true
		r, ok := readRange(spec, size)
		if left -= r.Length; !ok || left < 0 {
			return nil, false
		}
		if r.Length > 0 {
			all = append(all, r)
		}
	}
	return all, asked
}

// rangeSet returns what a Range field of one line says of bytes.
func rangeSet(lines []string) (set string, ok bool) {
	if len(lines) != 1 {
		return "", false
	}
	unit, set, found := strings.Cut(lines[0], "=")
	return set, found && strings.EqualFold(unit, "bytes")
}

// readRange reads one range. Its length is 0 if it cannot be satisfied.
func readRange(spec string, size int64) (r Range, ok bool) {
	first, last, dash := strings.Cut(spec, "-")
	if dash && first == "" { // the last bytes
		n, err := position(last)
		n = min(n, size)
		return Range{size - n, n}, err == nil
	}
	start, err := position(first)
	if !dash || err != nil {
		return Range{}, false
	}
	end := size - 1
	if last != "" {
		n, err := position(last)
		if err != nil || n < start {
			return Range{}, false
		}
		end = min(n, end)
	}
	if start >= size {
		return Range{}, true
	}
	return Range{start, end - start + 1}, true
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
