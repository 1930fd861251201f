package inbound

import (
	"cmp"
	"errors"
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

// Check returns an error if an option has no effect. A cookie's name is a token (RFC 6265
// §4.1.1).
func (c *Cookies) Check() error {
	switch {
	case c == nil:
		return nil
	case len(c.Ignore) > 0 && len(c.Only) > 0:
		return errors.New("cookies: ignore and only exclude each other")
	}
	return checkNames("cookies", "=;, \t", slices.Concat(c.Ignore, c.Only))
}

// maxSortedCookies is beyond how many cookies, after the cut, their order stays as it came.
// No browser sends as many in two orders, and sorting is most of what a cut costs.
const maxSortedCookies = 128

// Cut removes cookies from a request's header, and puts what is left in the order of
// names, so that all requests with the same cookies are equal to Vary: Cookie. A request
// without any left has no Cookie. The upstream gets no more than that: a response can't
// depend on what was removed, however the upstream would have read it.
func (c *Cookies) Cut(header http.Header) {
	if lines := header["Cookie"]; c != nil && len(lines) > 0 {
		c.cut(header, lines)
	}
}

// cut is apart because it takes 5 KiB of the stack. The stack of each stream of HTTP/2 would grow
// by that for a request without cookies.
func (c *Cookies) cut(header http.Header, lines []string) {
	all := strings.Join(lines, ";")
	var inOrder strings.Builder
	inOrder.Grow(len(all) + len(lines))
	var few [maxSortedCookies]cookie
	kept := 0
	for pair := range strings.SplitSeq(all, ";") {
		if pair = trimmed(pair); pair == "" {
			continue
		}
		name := cookieName(pair)
		if !c.keeps(name) {
			continue
		}
		if kept < len(few) {
			few[kept] = cookie{name, pair, kept}
		}
		kept++
		appendCookie(&inOrder, pair)
	}
	switch {
	case kept == 0:
		delete(header, "Cookie")
		return
	case kept > 1 && kept <= len(few):
		slices.SortFunc(few[:kept], cookie.compare)
		inOrder.Reset()
		inOrder.Grow(len(all))
		for _, one := range few[:kept] {
			appendCookie(&inOrder, one.pair)
		}
	}
	header["Cookie"] = []string{inOrder.String()}
}

func appendCookie(to *strings.Builder, pair string) {
	if to.Len() > 0 {
		to.WriteString("; ")
	}
	to.WriteString(pair)
}

// trimmed returns what is between spaces and tabs.
func trimmed(s string) string {
	blank := func(c byte) bool { return c == ' ' || c == '\t' }
	for len(s) > 0 && blank(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && blank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// A cookie is one pair of a Cookie field, and its place there.
type cookie struct {
	name, pair string
	place      int
}

// compare has cookies of one name keep their order.
func (a cookie) compare(b cookie) int {
	return cmp.Or(strings.Compare(a.name, b.name), a.place-b.place)
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
	return trimmed(name)
}

// namedBy reports whether a name, or a prefix with a * at the end, names a cookie.
func namedBy(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
