package inbound

import (
	"net/http"
	"slices"
	"strings"
)

// Cookies says which cookies (RFC 6265) the upstream gets, and so which a response can
// depend on. At most one of Ignore and Only.
type Cookies struct {
	// Names of cookies, or prefixes of names with a * at the end, that are removed.
	Ignore []string `json:"ignore,omitempty"`

	// The only cookies that are not removed.
	Only []string `json:"only,omitempty"`
}

// Cut removes cookies from a request's header, and puts what is left in the order of
// names, so that all requests with the same cookies are equal to Vary: Cookie. A request
// without any left has no Cookie. The upstream gets no more than that: a response can't
// depend on what was removed, however the upstream would have read it.
func (c *Cookies) Cut(header http.Header) {
	lines := header["Cookie"]
	if c == nil || len(lines) == 0 {
		return
	}
	var pairs []string
	for pair := range strings.SplitSeq(strings.Join(lines, ";"), ";") {
		if pair = strings.Trim(pair, " \t"); pair != "" && c.keeps(cookieName(pair)) {
			pairs = append(pairs, pair)
		}
	}
	if len(pairs) == 0 {
		delete(header, "Cookie")
		return
	}
	slices.SortStableFunc(pairs, func(a, b string) int { return strings.Compare(cookieName(a), cookieName(b)) })
	header["Cookie"] = []string{strings.Join(pairs, "; ")}
}

func (c *Cookies) keeps(name string) bool {
	if len(c.Only) > 0 {
		return slices.ContainsFunc(c.Only, func(pattern string) bool { return namedBy(pattern, name) })
	}
	return !slices.ContainsFunc(c.Ignore, func(pattern string) bool { return namedBy(pattern, name) })
}

// cookieName returns the name of a pair. One without = is all name, as browsers send it.
func cookieName(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	return strings.TrimRight(name, " \t")
}

// namedBy reports whether a name, or a prefix with a * at the end, names a cookie.
func namedBy(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
