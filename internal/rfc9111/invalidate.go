package rfc9111

import (
	"net/http"
	"net/url"
	"strings"
)

// Safe reports whether a method changes nothing (RFC 9110 §9.2.1). Methods
// that are not known may.
func Safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// Related returns the targets, beside the request's own, that a successful
// unsafe request invalidates (RFC 9111 §4.4): what Location and
// Content-Location name, if it is on the request's own origin. Others are left
// alone, or one site could throw out what is another's.
func Related(r *http.Request, response http.Header) []string {
	base := &url.URL{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		base.Scheme = "https"
	}
	if own, err := url.ParseRequestURI(r.RequestURI); err == nil {
		base.Path, base.RawPath, base.RawQuery = own.Path, own.RawPath, own.RawQuery
	}
	var targets []string
	for _, name := range []string{"Location", "Content-Location"} {
		reference, err := url.Parse(response.Get(name))
		if err != nil || response.Get(name) == "" {
			continue
		}
		target := base.ResolveReference(reference)
		if target.Scheme == base.Scheme && strings.EqualFold(target.Host, base.Host) && target.User == nil {
			targets = append(targets, target.RequestURI())
		}
	}
	return targets
}
