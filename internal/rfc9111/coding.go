package rfc9111

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Upstreams, and what stands between, choose a content coding by Accept-Encoding
// without saying so in Vary, and Go's HTTP client asks for gzip by itself, which it
// takes off again, unless the request has an Accept-Encoding or a Range. So whether
// a response has a coding counts like a word in Vary (RFC 9110 §12.5.5, where Vary is a
// SHOULD).

// TakesCodings reports whether a request accepts the content codings of a response
// by name (RFC 9110 §12.5.3). One without Accept-Encoding would take any by the RFC, but
// its client is seldom asked. Codings that nobody knows don't count.
func TakesCodings(request, response http.Header) bool {
	if !isCoded(response) {
		return true
	}
	accepted := AcceptEncoding(request)
	for _, line := range response["Content-Encoding"] {
		for coding := range strings.SplitSeq(line, ",") {
			coding = strings.ToLower(trimOWS(coding))
			if isKnownCoding(coding) && !takes(accepted, coding) {
				return false
			}
		}
	}
	return true
}

// takes reports whether a normal Accept-Encoding accepts a coding.
func takes(accepted, coding string) bool {
	any := false
	for member := range strings.SplitSeq(accepted, ",") {
		switch name, _, _ := strings.Cut(member, ";"); strings.TrimPrefix(name, "x-") {
		case strings.TrimPrefix(coding, "x-"):
			return weight([]byte(member)) != 0
		case "*":
			any = weight([]byte(member)) != 0
		}
	}
	return any
}

// varyByCoding adds Accept-Encoding to the Vary of a response with a content coding,
// which is a map of the caller's own.
func varyByCoding(h http.Header) {
	if isCoded(h) {
		addVary(h, "Accept-Encoding")
	}
}

// addVary adds names to the Vary of a response, which is a map of the caller's own.
func addVary(h http.Header, names ...string) {
	has, star := VaryNames(h)
	for _, name := range names {
		if !star && !slices.Contains(has, name) {
			h["Vary"] = append(slices.Clip(h["Vary"]), name)
		}
	}
}

// Apart returns the header of a response of which a part was asked for, so that only
// requests for parts get it, if the whole would likely have been compressed: it is
// without a coding because compressors leave parts alone.
func Apart(whole http.Header) http.Header {
	if isCoded(whole) || !compressible(single(whole["Content-Type"])) {
		return whole
	}
	whole = maps.Clone(whole)
	addVary(whole, "Accept-Encoding", "Range")
	return whole
}

// compressible reports whether servers compress a media type.
func compressible(mediaType string) bool {
	mediaType, _, _ = strings.Cut(strings.ToLower(mediaType), ";")
	mediaType = trimOWS(mediaType)
	switch mediaType {
	case "application/json", "application/javascript", "application/x-javascript", "application/xml", "application/wasm",
		"application/x-ndjson", "application/sql", "application/rtf", "application/vnd.ms-fontobject", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon",
		"font/ttf", "font/otf":
		return true
	}
	return strings.HasPrefix(mediaType, "text/") || strings.HasSuffix(mediaType, "+json") || strings.HasSuffix(mediaType, "+xml")
}
