package rfc9111

import (
	"net/http"
	"net/url"
	"strings"
)

// MethodQuery is the method of RFC 10008: safe, with content that describes what is
// asked for.
const MethodQuery = "QUERY"

// Incremental reports whether a request asks that its content be passed on as it comes,
// so that it can't be read first (the Incremental field of HTTP, a Structured Field
// Boolean). One that can't be read does so too.
func Incremental(header http.Header) bool {
	lines := header["Incremental"]
	return len(lines) > 0 && strings.TrimSpace(strings.Join(lines, ",")) != "?0"
}

// Safe reports whether a method changes nothing (RFC 9110 §9.2.1): those that the
// IANA HTTP Method Registry calls safe. Methods that are not known may, and names
// of methods are case-sensitive (§9.1).
func Safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace,
		MethodQuery,
		"PROPFIND", // RFC 4918 §9.1
		"REPORT",   // RFC 3253 §3.6
		"SEARCH",   // RFC 5323 §2
		"PRI":      // RFC 9113 §3.4, not a request
		return true
	}
	return false
}

// EndsStored reports whether the answer to a GET or HEAD without credentials, which is
// not stored for the given reason, says that what is stored of its URL is no longer
// what the upstream has: gone, moved, or no longer for everybody. A failure says nothing of
// that (RFC 5861 §4), nor does what is wrong with one request.
func EndsStored(method string, status int, why Reason) bool {
	switch {
	case status < 200, status >= 500, status == http.StatusPartialContent, status == http.StatusNotModified:
		return false
	case method == http.MethodHead && status == http.StatusOK:
		return false // CompareHead tells
	case blamesRequest(status):
		return false
	}
	switch why {
	case RequestNoStore, Authorization, InFront, HandledError, SecondUpstream, Memory, Truncated, Aborted, FillTimeout:
		return false
	}
	return true
}

// blamesRequest are statuses that lie with one request or client. 401 and 403 are not
// among them: what was for everybody is not any more.
func blamesRequest(status int) bool {
	switch status {
	case 407, 412, 414, 416, 417, 421, 425, 426, 428, 431, 499:
		return true
	}
	return blamesClient(status)
}

// Related returns the targets, beside the request's own, that a successful
// unsafe request invalidates (RFC 9111 §4.4): what Location and
// Content-Location name, and the Destination of WebDAV's COPY and MOVE (RFC 4918 §10.3),
// if it is on the request's own host. Others are left alone, or one site could throw out
// what is another's. The scheme may be another one: where TLS ends in a proxy in front, the
// upstream names the client's. The request's own target is given as the client has sent it,
// which is what a client takes a relative reference to be relative to.
func Related(r *http.Request, own string, response http.Header) []string {
	base := &url.URL{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		base.Scheme = "https"
	}
	if u, err := url.ParseRequestURI(own); err == nil {
		base.Path, base.RawPath, base.RawQuery = u.Path, u.RawPath, u.RawQuery
	}
	var targets []string
	named := []string{response.Get("Location"), response.Get("Content-Location")}
	if r.Method == "COPY" || r.Method == "MOVE" {
		named = append(named, r.Header.Get("Destination"))
	}
	for _, text := range named {
		reference, err := url.Parse(text)
		if err != nil || text == "" {
			continue
		}
		target := base.ResolveReference(reference)
		if (target.Scheme == "http" || target.Scheme == "https") && strings.EqualFold(target.Host, base.Host) && target.User == nil {
			uri := target.RequestURI()
			targets = append(targets, uri)
			if sent := Encoded(uri); sent != uri { // by the browser that follows
				targets = append(targets, sent)
			}
		}
	}
	return targets
}
