package rfc9111

import (
	"net/http"
	"strings"
)

// firstOf returns the first of some fields that a header has.
func firstOf(header http.Header, names ...string) (field, value string) {
	for _, name := range names {
		if lines := header[name]; len(lines) > 0 {
			return name, strings.Join(lines, ", ")
		}
	}
	return "", ""
}

// Cause returns the field of a request or response that is behind a reason, and
// what it says; both are empty if it is none, or if what it lacks is the reason.
// Values that may be secrets, those of cookies and credentials, are left out. The
// target list is that of Options.
func Cause(why Reason, request, response http.Header, targets []string) (field, value string) {
	named := func(name string, header http.Header) (string, string) { return firstOf(header, name) }
	switch why {
	case Upgrade:
		return firstOf(request, "Upgrade", "Connection")
	case Connection:
		return named("Connection", request)
	case Loop:
		return named(LoopField, request)
	case RequestBody:
		return firstOf(request, "Content-Length", "Transfer-Encoding")
	case RequestNoStore, RequestNoCache, OnlyIfCached:
		return firstOf(request, "Cache-Control", "Pragma")
	case Precondition:
		if field, value = named("If-Match", request); field == "" {
			return named("If-Unmodified-Since", request)
		}
		return field, value
	case Authorization:
		return "Authorization", ""
	case SetCookie:
		return "Set-Cookie", ""
	case ClearSiteData:
		return named("Clear-Site-Data", response)
	case NoStore, Private, Expired, InFront:
		return directing(response, targets)
	case Status:
		if d, _ := directivesOf(response, targets); d.MustUnderstand {
			return directing(response, targets)
		}
	case VaryStar, VaryOnTheWay:
		return named("Vary", response)
	case EventStream:
		return named("Content-Type", response)
	case TooLarge, PartsOnly, Truncated:
		if field, value = named("Content-Range", response); field == "" {
			return named("Content-Length", response)
		}
		return field, value
	case Trailers:
		return named("Trailer", response)
	case Partial:
		return named("Content-Range", response)
	case NoVarySearch:
		return named("No-Vary-Search", response)
	}
	return "", ""
}

// StaleForbiddenBy returns the directive that keeps a stored response with the given
// freshness from being served stale, "" if none does or it is not known which
// (RFC 9111 §4.2.4). The target list is that of Options.
func StaleForbiddenBy(f *Freshness, stored http.Header, targets []string) string {
	d, _ := directivesOf(stored, targets)
	switch {
	case f.NoCache:
		return "no-cache"
	case !f.MustRevalidate, f.StaleWhileRevalidate > 0, f.StaleIfError > 0:
		return ""
	case d.MustRevalidate:
		return "must-revalidate"
	case d.ProxyRevalidate:
		return "proxy-revalidate"
	case d.SMaxAge.Set:
		return "s-maxage"
	}
	return ""
}

// directing returns the field that says how long a response may be kept: the
// one that directivesOf goes by.
func directing(response http.Header, targets []string) (field, value string) {
	var names []string
	if name, _ := targeted(response, targets); name != "" {
		names = append(names, name)
	}
	for _, name := range append(names, "Cache-Control", "Expires") {
		if lines := response[name]; len(lines) > 0 {
			return name, strings.Join(lines, ", ")
		}
	}
	return "", ""
}
