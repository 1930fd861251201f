package rfc9111

import (
	"net/http"
	"strings"
)

// Cause returns the field of a request or response that is behind a reason, and
// what it says; both are empty if it is none, or if what it lacks is the reason.
// Values that may be secrets, those of cookies and credentials, are left out.
func Cause(why Reason, status int, request, response http.Header) (field, value string) {
	named := func(name string, header http.Header) (string, string) {
		if lines := header[name]; len(lines) > 0 {
			return name, strings.Join(lines, ", ")
		}
		return "", ""
	}
	switch why {
	case Upgrade:
		if field, value = named("Upgrade", request); field == "" {
			return named("Connection", request)
		}
		return field, value
	case Connection:
		return named("Connection", request)
	case RequestBody:
		if field, value = named("Content-Length", request); field == "" {
			return named("Transfer-Encoding", request)
		}
		return field, value
	case RequestNoStore, RequestNoCache, OnlyIfCached:
		if field, value = named("Cache-Control", request); field == "" {
			return named("Pragma", request)
		}
		return field, value
	case Authorization:
		return "Authorization", ""
	case SetCookie:
		return "Set-Cookie", ""
	case NoStore, Private, Expired:
		return directing(response)
	case Status:
		if d, _ := directivesOf(response); d.MustUnderstand {
			return directing(response)
		}
	case VaryStar:
		return named("Vary", response)
	case EventStream:
		return named("Content-Type", response)
	case TooLarge, Truncated:
		return named("Content-Length", response)
	case Trailers:
		return named("Trailer", response)
	case Partial:
		return named("Content-Range", response)
	case NoVarySearch:
		return named("No-Vary-Search", response)
	}
	return "", ""
}

// directing returns the field that says how long a response may be kept: the
// one that directivesOf goes by.
func directing(response http.Header) (field, value string) {
	names := make([]string, 0, 4)
	for _, name := range targetList {
		if _, ok := parseTargeted(response[name]); ok {
			names = append(names, name)
		}
	}
	if _, ok := parseSurrogate(response["Surrogate-Control"]); ok {
		names = append(names, "Surrogate-Control")
	}
	for _, name := range append(names, "Cache-Control", "Expires") {
		if lines := response[name]; len(lines) > 0 {
			return name, strings.Join(lines, ", ")
		}
	}
	return "", ""
}
