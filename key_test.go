package caddygroupcache

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestKeysKeepRequestsApart(t *testing.T) {
	h := newHandler(t, newLoneNode(t), nil)
	seen := map[store.Key]string{}
	for _, target := range []string{
		"http://a.test/", "https://a.test/", "http://a.test:8080/", "http://b.test/", "http://A.test/",
		"http://a.test/a", "http://a.test/a/", "http://a.test//a", "http://a.test/%61", "http://a.test/a%2Fb", "http://a.test/a/b",
		"http://a.test/?", "http://a.test/?a", "http://a.test/?a=", "http://a.test/?a=1&b=2", "http://a.test/?b=2&a=1",
		"http://a.test/a+b", "http://a.test/a%20b", "http://a.test/%0a", "http://a.test/;a",
	} {
		r := request(t.Context(), target)
		r.RequestURI = strings.TrimPrefix(strings.TrimPrefix(target, "http://"+r.Host), "https://"+r.Host)
		k, ok := keyOf(h, r)
		if !ok {
			t.Errorf("%s has no key", target)
		}
		if other, dup := seen[k]; dup {
			t.Errorf("%s and %s have one key", target, other)
		}
		seen[k] = target
	}
	for _, fields := range [][]string{
		{"X-Forwarded-Host", "b.test"}, {"X-Host", "b.test"}, {"X-Forwarded-Proto", "https"}, {"X-Original-Url", "/b"},
		{"X-Host", "a", "X-Host", "b"}, {"X-Host", "a, b"}, {"X-Host", ""}, {"X-Http-Method-Override", "DELETE"}, {"Forwarded", "host=b.test"},
	} {
		k, _ := keyOf(h, request(t.Context(), "http://a.test/", fields...))
		if other, dup := seen[k]; dup {
			t.Errorf("%q and %s have one key", fields, other)
		}
		seen[k] = fields[0]
	}
	plain, _ := keyOf(h, request(t.Context(), "/a"))
	for _, name := range []string{"Cookie", "User-Agent", "X-Forwarded-For", "X-Request-Id"} {
		if k, _ := keyOf(h, request(t.Context(), "/a", name, "x")); k != plain {
			t.Errorf("%s makes another key", name)
		}
	}
}

// TestLongTargetsHaveNoKey, whatever the key is made of: other nodes must be able to
// take the URL.
func TestLongTargetsHaveNoKey(t *testing.T) {
	n := node.New("alone", 1<<20)
	t.Cleanup(n.Close)
	for _, h := range []*Handler{
		newHandler(t, n, nil),
		newHandler(t, n, func(h *Handler) { h.Key = "one for all" }),
		newHandler(t, n, func(h *Handler) { h.Query = &Query{Only: []string{"id"}} }),
	} {
		for _, tt := range []struct {
			host, uri string
			ok        bool
		}{
			{strings.Repeat("h", inbound.MaxHost), "/?x=" + strings.Repeat("x", inbound.MaxTarget-4), true},
			{"h", "/?x=" + strings.Repeat("x", inbound.MaxTarget-3), false},
			{strings.Repeat("h", inbound.MaxHost+1), "/", false},
		} {
			r := request(t.Context(), "/")
			r.Host = tt.host
			if _, ok := h.addressOf(r, inbound.FieldsOf(r.Header), tt.uri); ok != tt.ok {
				t.Errorf("key %q, query %v: %d bytes of host and %d of target: %v", h.Key, h.Query, len(tt.host), len(tt.uri), ok)
			}
		}
	}
}

// seedKeys adds pairs of requests that are nearly the same.
func seedKeys(f *testing.F) {
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
}

// FuzzKeys reads two requests as they come from a connection. If their keys are
// equal, they must be requests that the upstream cannot tell apart: same scheme,
// host, target and overriding fields, byte for byte as reverse_proxy sends them,
// but for what query options and No-Vary-Search allow.
func FuzzKeys(f *testing.F) {
	seedKeys(f)
	n := newLoneNode(f)
	queries := []*Query{nil, {Ignore: []string{"utm_*", "x"}}, {Only: []string{"x", "y*"}}, {Sort: true}}
	searches := []string{"", "key-order", `params=("x" "utm_a")`, `except=("x")`}
	f.Fuzz(func(t *testing.T, options uint8, first, second []byte) {
		query, search := queries[options%4], searches[options/4%4]
		h := newHandler(t, n, func(h *Handler) { h.Query, h.Group = query, fmt.Sprint("g", options%16) })
		var requests [2]*http.Request
		var addresses [2]inbound.Address
		for i, raw := range [][]byte{first, second} {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
			if err != nil {
				return
			}
			said := rfc9111.ParseSearchVariance(http.Header{"No-Vary-Search": {search}})
			n.Store.LearnSearchVariance(h.space, pathOf(h, r, nil), said)
			var ok bool
			if addresses[i], ok = h.addressOf(r, inbound.FieldsOf(r.Header), requestURI(r)); !ok {
				return
			}
			requests[i] = r
		}
		a, b := requests[0], requests[1]
		if addresses[0].Key != addresses[1].Key {
			if a.Host == b.Host && a.RequestURI == b.RequestURI && inbound.OverridingKey(a.Header) == inbound.OverridingKey(b.Header) {
				t.Errorf("%q and %q have two keys", first, second)
			}
			return
		}
		if a.Host != b.Host {
			t.Errorf("hosts %q and %q", a.Host, b.Host)
		}
		for _, name := range slices.Concat(inbound.Overriding(a.Header), inbound.Overriding(b.Header)) {
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
	case `except=("x")`:
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

// TestManyParametersPushOutNone: upstreams that read no more than some would be asked
// without the parameter that counts, and the answer stored as if with it.
func TestManyParametersPushOutNone(t *testing.T) {
	for _, tt := range []struct {
		name, search string
		q            *Query
	}{
		{"ignore", "", &Query{Ignore: []string{"x"}}},
		{"only", "", &Query{Only: []string{"id"}}},
		{"params", `params=("x")`, nil},
		{"except", `except=("id")`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), func(h *Handler) { h.Query = tt.q })
			h.node.Store.LearnSearchVariance(h.space, pathOf(h, request(t.Context(), "/"), nil), rfc9111.ParseSearchVariance(http.Header{"No-Vary-Search": {tt.search}}))
			key := func(ignored int, separator string) inbound.Address {
				r := request(t.Context(), "/?"+strings.Repeat("x"+separator, ignored)+"id=7")
				a, _ := h.addressOf(r, inbound.FieldsOf(r.Header), requestURI(r))
				return a
			}
			plain := key(0, "")
			if few := key(63, "&"); few.Key != plain.Key || !few.Unkeyed {
				t.Errorf("63 that make no difference: same key %v, unkeyed %v", few.Key == plain.Key, few.Unkeyed)
			}
			if many := key(64, "&"); many.Key == plain.Key || many.Unkeyed {
				t.Errorf("64 that make no difference: same key %v, unkeyed %v", many.Key == plain.Key, many.Unkeyed)
			}
			if key(1000, "&").Key == key(1001, "&").Key {
				t.Error("1,000 and 1,001 that make no difference have one key")
			}
		})
	}
}
