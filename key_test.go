package caddygroupcache

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

func TestQueryOptionsKeepWhatUpstreamMayReadOtherwise(t *testing.T) {
	ignore, only := &Query{Ignore: []string{"utm_*", "x"}}, &Query{Only: []string{"id", "p_*"}}
	for _, tt := range []struct {
		q        *Query
		uri, was string
	}{
		{ignore, "/?a=1&utm_a=2&x", "/?a=1"},
		{ignore, "/?%78=1&%75tm_a", "/"},
		{ignore, "/?a=1&utm_a=2;a=3", "/?a=1&utm_a=2;a=3"},
		{ignore, "/?utm_%zz=1", "/?utm_%zz=1"},
		{ignore, "/?X=1", "/?X=1"},
		{only, "/?id=1&z=2&p_a=3", "/?id=1&p_a=3"},
		{only, "/?ID=1", "/?ID=1"},
		{only, "/?z=1;id=2", "/?z=1;id=2"},
		{only, "/?+id=1", "/?+id=1"},
		{only, "/?id[]=1&i%64%00=2", "/?id[]=1&i%64%00=2"},
		{only, "/?p.a=1", "/?p.a=1"},
	} {
		if got := tt.q.normalize(tt.uri); got != tt.was {
			t.Errorf("%+v: %s became %s, not %s", *tt.q, tt.uri, got, tt.was)
		}
	}
}

// TestLongTargetsHaveNoKey, whatever the key is made of: other nodes must be able to
// take the URL.
func TestLongTargetsHaveNoKey(t *testing.T) {
	n := newNode("alone", 1<<20)
	t.Cleanup(n.close)
	for _, h := range []*Handler{
		newHandler(t, n, nil),
		newHandler(t, n, func(h *Handler) { h.Key = "one for all" }),
		newHandler(t, n, func(h *Handler) { h.Query = &Query{Only: []string{"id"}} }),
	} {
		for _, tt := range []struct {
			host, uri string
			ok        bool
		}{
			{strings.Repeat("h", maxHost), "/?x=" + strings.Repeat("x", maxTarget-4), true},
			{"h", "/?x=" + strings.Repeat("x", maxTarget-3), false},
			{strings.Repeat("h", maxHost+1), "/", false},
		} {
			r := request(t.Context(), "/")
			r.Host = tt.host
			if _, ok := h.addressOf(r, fieldsOf(r.Header), tt.uri); ok != tt.ok {
				t.Errorf("key %q, query %v: %d bytes of host and %d of target: %v", h.Key, h.Query, len(tt.host), len(tt.uri), ok)
			}
		}
	}
}

// FuzzKeys reads two requests as they come from a connection. If their keys are
// equal, they must be requests that the upstream cannot tell apart: same scheme,
// host, target and overriding fields, byte for byte as reverse_proxy sends them,
// but for what query options and No-Vary-Search allow.
func FuzzKeys(f *testing.F) {
	seed := func(options uint8, a, b string) { f.Add(options, []byte(a), []byte(b)) }
	for options := range uint8(16) {
		seed(options, "GET /a?x=1&utm_a=2 HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /a?x=1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
		seed(options, "GET /a?x=1&y=2 HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /a?y=2&x=1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
		seed(options, "GET /a?%78=1 HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /a?x=1 HTTP/1.1\r\nHost: a.test\r\n\r\n")
	}
	for _, pair := range [][2]string{
		{"/a", "/a/"}, {"/a", "//a"}, {"/a/../b", "/b"}, {"/a%2fb", "/a/b"}, {"/a%2Fb", "/a%2fb"}, {"/%61", "/a"}, {"/a;x.css", "/a"},
		{"/a%3fx", "/a?x"}, {"/a%23x", "/a#x"}, {"/a?", "/a"}, {"/a.", "/a"}, {"/a%00", "/a"}, {"/a%0a", "/a%0d"}, {"/a%20b", "/a+b"},
		{"/a?x;y", "/a?x&y"}, {"/a?&", "/a?"}, {"/a??x", "/a?x"}, {"http://a.test/a", "/a"}, {"http://u@a.test/a", "http://a.test/a"},
		{"https://a.test/a", "http://a.test/a"}, {"*", "/"}, {"http://a.test?x", "/?x"}, {"http://a.test", "/"}, {"http://a.test//a", "//a"}, {"http:a", "/a"}, {"a::///a", "/a"}, {"a:b://c/a", "/a"}, {"x://a.test/://b/a", "/a"}, {"/a\\b", "/a/b"}, {"/\xff", "/%ff"},
	} {
		seed(0, "GET "+pair[0]+" HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET "+pair[1]+" HTTP/1.1\r\nHost: a.test\r\n\r\n")
	}
	for _, pair := range [][2]string{
		{"Host: a.test", "Host: A.test"}, {"Host: a.test", "Host: a.test:80"}, {"Host: a.test", "Host: a.test."}, {"Host: a.test", "Host: "},
		{"Host: a", "Host: a\r\nX-Host: b"}, {"Host: a\r\nX-Host: b", "Host: a\r\nX-Host: b\r\nX-Host: b"},
		{"Host: a\r\nX-Forwarded-Host: b", "Host: a\r\nX-Original-Url: b"}, {"Host: a\r\nForwarded: host=b", "Host: a\r\nForwarded: host=c"},
		{"Host: a\r\nForwarded: for=1.2.3.4", "Host: a\r\nForwarded: for=\"[::1]:5\";by=_x"},
		{"Host: a\r\nForwarded: for=1", "Host: a\r\nForwarded: for"},
		{"Host: a\r\nForwarded: for=1.2.3.4;host=b", "Host: a\r\nForwarded: for=1.2.3.4, host=c"},
	} {
		seed(0, "GET / HTTP/1.1\r\n"+pair[0]+"\r\n\r\n", "GET / HTTP/1.1\r\n"+pair[1]+"\r\n\r\n")
	}
	n := newLoneNode(f)
	queries := []*Query{nil, {Ignore: []string{"utm_*", "x"}}, {Only: []string{"x", "y*"}}, {Sort: true}}
	searches := []string{"", "key-order", `params=("x" "utm_a")`, `params, except=("x")`}
	f.Fuzz(func(t *testing.T, options uint8, first, second []byte) {
		query, search := queries[options%4], searches[options/4%4]
		h := newHandler(t, n, func(h *Handler) { h.Query, h.Group = query, fmt.Sprint("g", options%16) })
		var requests [2]*http.Request
		var addresses [2]address
		for i, raw := range [][]byte{first, second} {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
			if err != nil {
				return
			}
			said := rfc9111.ParseSearchVariance(http.Header{"No-Vary-Search": {search}})
			n.store.LearnSearchVariance(h.space, h.pathOf(r), said)
			var ok bool
			if addresses[i], ok = h.addressOf(r, fieldsOf(r.Header), requestURI(r)); !ok {
				return
			}
			requests[i] = r
		}
		a, b := requests[0], requests[1]
		if addresses[0].key != addresses[1].key {
			if a.Host == b.Host && a.RequestURI == b.RequestURI && overrides(a.Header) == overrides(b.Header) {
				t.Errorf("%q and %q have two keys", first, second)
			}
			return
		}
		if a.Host != b.Host {
			t.Errorf("hosts %q and %q", a.Host, b.Host)
		}
		for _, name := range overriding {
			valuesA, valuesB := a.Header[name], b.Header[name]
			if name == "Forwarded" {
				valuesA, valuesB = withoutNodes(valuesA), withoutNodes(valuesB)
			}
			if !slices.Equal(valuesA, valuesB) {
				t.Errorf("%s: %q and %q", name, a.Header[name], b.Header[name])
			}
		}
		targetA, targetB := a.URL.RequestURI(), b.URL.RequestURI()
		pathA, queryA, _ := strings.Cut(targetA, "?")
		pathB, queryB, _ := strings.Cut(targetB, "?")
		if pathA != pathB {
			t.Errorf("paths %q and %q", pathA, pathB)
		}
		if query == nil && search == "" {
			if targetA != targetB {
				t.Errorf("targets %q and %q", targetA, targetB)
			}
			return
		}
		counts := func(name string) bool { return countsInKey(query, search, name) }
		if mattersA, mattersB := matters(queryA, counts), matters(queryB, counts); !slices.Equal(mattersA, mattersB) {
			t.Errorf("with %+v and %q: queries %q and %q", query, search, queryA, queryB)
		}
	})
}

// countsInKey says what the options of FuzzKeys leave of a query, in its own words.
func countsInKey(q *Query, search, name string) bool {
	if q != nil && len(q.Ignore) > 0 && (strings.HasPrefix(name, "utm_") || name == "x") {
		return false
	}
	if q != nil && len(q.Only) > 0 && name != "x" && !strings.HasPrefix(name, "y") {
		return false
	}
	switch search {
	case `params=("x" "utm_a")`:
		return name != "x" && name != "utm_a"
	case `params, except=("x")`:
		return name == "x"
	}
	return true
}

// matters returns the parameters that count, decoded and in order of name, since
// options may take queries for equal that are spelled or sorted differently.
func matters(query string, counts func(string) bool) []string {
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		if name = decoded(name); part != "" && counts(name) {
			kept = append(kept, fmt.Sprintf("%q=%q", name, decoded(value)))
		}
	}
	slices.Sort(kept)
	return kept
}

var escaped = regexp.MustCompile(`\+|%[0-9a-fA-F]{2}`)

func decoded(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(code string) string {
		plain, _ := url.QueryUnescape(code) // never fails
		return plain
	})
}

var node7239 = regexp.MustCompile(`(?i)\b(for|by)=[\w.:\[\]"-]*|[,;]`)

// withoutNodes leaves of Forwarded lines what must be the same where only the
// addresses differ.
func withoutNodes(lines []string) []string {
	var left []string
	for _, line := range lines {
		left = append(left, strings.Trim(node7239.ReplaceAllString(line, ""), " \t"))
	}
	return left
}

func TestForwardedCountsWithoutItsAddresses(t *testing.T) {
	key := func(forwarded string) string { return overrides(http.Header{"Forwarded": {forwarded}}) }
	for _, same := range [][2]string{
		{"for=1.2.3.4", `for="[2001:db8::1]:80"`},
		{"for=1.2.3.4;proto=https", "proto=https; For=_hidden"},
		{"for=a, for=b;by=c;host=d", "host=d"},
	} {
		if key(same[0]) != key(same[1]) {
			t.Errorf("%q and %q differ", same[0], same[1])
		}
	}
	for _, other := range [][2]string{
		{"host=a", "host=b"},
		{"for=1;host=a", "for=1"},
		{`for="1;host=a"`, "for=1"},
		{"for=1 host=a", "for=1"},
		{"for=1=host", "for=1"},
		{"for", "for=1"},
	} {
		if key(other[0]) == key(other[1]) {
			t.Errorf("%q and %q are taken for one", other[0], other[1])
		}
	}
}
