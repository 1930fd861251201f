package caddygroupcache

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// A market is an upstream with pages that have tags, and a cache before it. Its
// pages are named by letters.
type market struct {
	h       *Handler
	field   string // the response field of tags
	fetches map[string]int
}

var marketPages = map[string]string{
	"a": "http://a.test/",
	"b": "https://a.test/shop/1",
	"c": "http://a.test/shop/2?q=1",
	"d": "https://a.test:8443/shop/1",
	"e": "http://b.test/shop/1",
}

var marketTags = map[string]string{"/": "home, all", "/shop/1": "/p/1,all", "/shop/2": "/p/2 all"}

func newMarket(t *testing.T, field string) *market {
	m := &market{field: field, fetches: make(map[string]int)}
	m.h = newHandler(t, newLoneNode(t), withPurge(t, func(p *InBandPurge) {
		p.Tokens, p.From = nil, []string{"192.0.2.1"}
		p.Methods = []string{"PURGE", "BAN", "URIBAN", "URLPURGE", "PURGEKEYS", "PURGETAGS"}
	}))
	if field != "" {
		m.h.Tags = []string{field}
		m.h.policy.Tags = m.h.Tags
	} else {
		m.field = "Surrogate-Key"
	}
	return m
}

func (m *market) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	m.fetches[scheme+"://"+r.Host+r.URL.RequestURI()]++
	w.Header().Set("Cache-Control", "max-age=3600, must-revalidate") // so that a soft purge shows at once
	w.Header().Set(m.field, marketTags[r.URL.Path])
	_, err := fmt.Fprint(w, r.URL)
	return err
}

// visit asks for all pages and returns the letters of those that were fetched.
func (m *market) visit(t *testing.T) string {
	var fetched []string
	for letter, url := range marketPages {
		before := m.fetches[url]
		do(m.h, m.ServeHTTP, request(t.Context(), url))
		if m.fetches[url] > before {
			fetched = append(fetched, letter)
		}
	}
	slices.Sort(fetched)
	return strings.Join(fetched, "")
}

// send has a purger send the lines of a request.
func (m *market) send(t *testing.T, lines ...string) *httptest.ResponseRecorder {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.Join(lines, "\r\n") + "\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	r.RemoteAddr = "192.0.2.1:1234"
	ctx := context.WithValue(t.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	ctx = context.WithValue(ctx, http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 8443})
	return do(m.h, m.ServeHTTP, r.WithContext(ctx))
}

// Purges as plugins send them, with the lines that count, and the pages that are
// new afterwards. Where the answer is not 200, none is.
var pluginPurges = []struct {
	name, tags string
	request    []string
	status     int
	purged     string
}{
	{"Proxy Cache Purge, a page", "", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test", "X-Purge-Method: default"}, 200, "bd"},
	{"Proxy Cache Purge, all", "", []string{"PURGE /.* HTTP/1.1", "Host: a.test", "X-Purge-Method: regex"}, 200, "abcd"},
	{"Proxy Cache Purge, another port", "", []string{"PURGE /.* HTTP/1.1", "Host: b.test:8080", "X-Purge-Method: regex"}, 200, "e"},
	{"WP Rocket, a directory", "", []string{"PURGE /shop/.* HTTP/1.1", "Host: a.test", "X-Purge-Method: regex"}, 200, "bcd"},
	{"WP Rocket, a page", "", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test", "X-Purge-Method: exact"}, 200, "bd"},
	{"W3 Total Cache, all", "", []string{"PURGE /.* HTTP/1.1", "Host: a.test", "Connection: close"}, 200, "abcd"},
	{"W3 Total Cache, a page", "", []string{"PURGE /shop/2?q=1 HTTP/1.1", "Host: a.test", "X-Purge-Key: secret", "Connection: close"}, 200, "c"},
	{"W3 Total Cache, sitemaps", "", []string{`PURGE /([a-z0-9_\-]*?)sitemap([a-z0-9_\-]*)?\.xml HTTP/1.1`, "Host: a.test"}, 501, ""},
	{"Super Page Cache, a page", "", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test"}, 200, "bd"},
	{"Super Page Cache, all", "", []string{"PURGE /* HTTP/1.1", "Host: a.test"}, 200, "abcd"},
	{"Super Page Cache at Cloudways, a page", "", []string{"URLPURGE /shop/1 HTTP/1.1", "Host: a.test"}, 200, "bd"},
	{"Super Page Cache at Cloudways, all", "", []string{"PURGE /.* HTTP/1.1", "Host: a.test"}, 200, "abcd"},
	{"Nginx Helper, all", "", []string{"PURGE /purgeall HTTP/1.1", "Host: a.test"}, 200, "abcd"},
	{"MediaWiki", "", []string{"PURGE http://a.test/shop/2?q=1 HTTP/1.1", "Host: a.test", "Proxy-Connection: Keep-Alive"}, 200, "c"},
	{"MediaWiki, of a server", "", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test"}, 200, "bd"},
	{"Drupal, tags", "Cache-Tags", []string{"BAN / HTTP/1.1", "Host: cache.test", "Cache-Tags: /p/1|/p/9"}, 200, "bde"},
	{"Drupal, tags by spaces", "Purge-Cache-Tags", []string{"BAN / HTTP/1.1", "Host: cache.test", "Purge-Cache-Tags: /p/2 home"}, 200, "ac"},
	{"Drupal, all", "Cache-Tags", []string{"BAN /.* HTTP/1.1", "Host: a.test"}, 200, "abcd"},
	{"Drupal, a URL with wildcards", "Cache-Tags", []string{"BAN /.*shop.* HTTP/1.1", "Host: a.test"}, 501, ""},
	{"Drupal on Lagoon", "", []string{"URIBAN /shop HTTP/1.1", "Host: a.test"}, 200, "bcd"},
	{"Acquia Purge", "", []string{"BAN /tags HTTP/1.1", "Host: a.test", "X-Acquia-Purge: site", "X-Acquia-Purge-Tags: p1"}, 501, ""},
	{"API Platform for Souin", "", []string{"PURGE / HTTP/1.1", "Host: cache.test", "Surrogate-Key: /p/2, home"}, 200, "ac"},
	{"API Platform for Varnish", "Cache-Tags", []string{"BAN / HTTP/1.1", "Host: cache.test", `ApiPlatform-Ban-Regex: (/p/1|home)($|\,)`}, 200, "abde"},
	{"API Platform for xkey", "xkey", []string{"PURGE / HTTP/1.1", "Host: cache.test", "xkey: /p/2 home"}, 200, "ac"},
	{"FOSHttpCache, a page", "", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test"}, 200, "bd"},
	{"FOSHttpCache for Varnish, tags", "X-Cache-Tags", []string{"BAN / HTTP/1.1", "Host: cache.test", "X-Host: .*", "X-Url: .*", "X-Content-Type: .*", `X-Cache-Tags: (^|,)(/p/1|home)(,|$)`}, 200, "abde"},
	{"FOSHttpCache for Varnish, all", "", []string{"BAN / HTTP/1.1", "Host: cache.test", "X-Host: .*", "X-Url: .*", "X-Content-Type: .*"}, 200, "abcde"},
	{"FOSHttpCache for Varnish, a path", "", []string{"BAN / HTTP/1.1", "Host: cache.test", `X-Host: ^(a\.test|b.test)$`, "X-Url: ^/shop/.*", "X-Content-Type: .*"}, 200, "bcde"},
	{"FOSHttpCache for Varnish, a path of all hosts", "", []string{"BAN / HTTP/1.1", "Host: a.test", "X-Host: .*", "X-Url: ^/shop/.*", "X-Content-Type: .*"}, 501, ""},
	{"FOSHttpCache for Varnish, a host", "", []string{"BAN / HTTP/1.1", "Host: cache.test", `X-Host: ^b\.test$`, "X-Url: .*", "X-Content-Type: .*"}, 200, "e"},
	{"FOSHttpCache for Varnish, a type", "", []string{"BAN / HTTP/1.1", "Host: a.test", `X-Host: ^a\.test$`, "X-Url: .*", "X-Content-Type: image/png"}, 501, ""},
	{"FOSHttpCache for Varnish, an ending", "", []string{"BAN / HTTP/1.1", "Host: a.test", `X-Host: ^a\.test$`, `X-Url: \.png$`}, 501, ""},
	{"FOSHttpCache for xkey", "xkey", []string{"PURGEKEYS / HTTP/1.1", "Host: cache.test", "xkey-softpurge: /p/2 home"}, 200, "ac"},
	{"FOSHttpCache for Symfony, tags", "X-Cache-Tags", []string{"PURGETAGS / HTTP/1.1", "Host: cache.test", "X-Cache-Tags: /p/2,home"}, 200, "ac"},
	{"FOSHttpCache for Symfony, all", "", []string{"PURGE / HTTP/1.1", "Host: cache.test", "Clear-Cache: true"}, 200, "abcde"},
	{"Magento, tags", "X-Magento-Tags", []string{"PURGE / HTTP/1.1", "Host: cache.test", "X-Magento-Tags-Pattern: ((^|,)/p/1(,|$))|((^|,)home(,|$))"}, 200, "abde"},
	{"Magento, all", "X-Magento-Tags", []string{"PURGE / HTTP/1.1", "Host: cache.test", "X-Magento-Tags-Pattern: .*"}, 200, "abcde"},
	{"Magento, no such tags", "", []string{"PURGE / HTTP/1.1", "Host: cache.test", "X-Magento-Tags-Pattern: (^|,)home(,|$)"}, 501, ""},
}

func TestPurgesOfPlugins(t *testing.T) {
	for _, tt := range pluginPurges {
		t.Run(tt.name, func(t *testing.T) { checkPurge(t, tt.tags, tt.request, tt.status, tt.purged) })
	}
}

func checkPurge(t *testing.T, tags string, lines []string, status int, purged string) {
	t.Helper()
	m := newMarket(t, http.CanonicalHeaderKey(tags))
	m.visit(t)
	if again := m.visit(t); again != "" {
		t.Fatalf("%s are not stored", again)
	}
	w := m.send(t, lines...)
	if w.Code != status {
		t.Errorf("%d %s, want %d", w.Code, w.Body, status)
	}
	var answer struct{ Error string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || (status != 200) != (len(answer.Error) > 20) {
		t.Errorf("answer %q: %v", w.Body, err)
	}
	if got := m.visit(t); got != purged {
		t.Errorf("purged %q, want %q", got, purged)
	}
}

// What no plugin sends, but people and their scripts do.
func TestPurgesByHand(t *testing.T) {
	for _, tt := range []struct {
		name    string
		request []string
		status  int
		purged  string
	}{
		{"port of the listener", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test"}, 200, "bd"},
		{"port of https", []string{"PURGE /shop/1 HTTP/1.1", "Host: A.test:443"}, 200, "b"},
		{"port of http", []string{"PURGE / HTTP/1.1", "Host: a.test:80"}, 200, "a"},
		{"a star within", []string{"PURGE /sh*/1 HTTP/1.1", "Host: a.test"}, 200, "bcd"},
		{"a star in the query", []string{"PURGE /shop/2?q=* HTTP/1.1", "Host: a.test"}, 200, "c"},
		{"any", []string{"PURGE * HTTP/1.1", "Host: a.test"}, 200, "abcd"},
		{"an expression of alternatives", []string{"PURGE /shop/(1|3)$ HTTP/1.1", "Host: a.test", "X-Purge-Method: regex"}, 200, "bd"},
		{"an expression that is none", []string{"PURGE /shop/( HTTP/1.1", "Host: a.test", "X-Purge-Method: regex"}, 400, ""},
		{"an expression of digits", []string{"PURGE /shop/[0-9]+ HTTP/1.1", "Host: a.test", "X-Purge-Method: regex"}, 501, ""},
		{"a query in an expression", []string{"PURGE /shop/2?q=1 HTTP/1.1", "Host: a.test", "X-Purge-Method: regex"}, 501, ""},
		{"another way", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test", "X-Purge-Method: wildcard"}, 400, ""},
		{"two expressions for URLs", []string{"PURGE / HTTP/1.1", "Host: a.test", "X-Url: ^/shop/1$", "X-Url: ^/shop/2.*"}, 400, ""},
		{"two expressions for hosts", []string{"BAN / HTTP/1.1", "Host: a.test", "X-Host: ^a.test$", "X-Host: ^b.test$"}, 400, ""},
		{"two ways", []string{"PURGE /shop/.* HTTP/1.1", "Host: a.test", "X-Purge-Method: exact", "X-Purge-Method: regex"}, 400, ""},
		{"X-Host of two proxies", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test", "X-Host: b.test", "X-Host: c.test"}, 200, "bd"},
		{"X-Host of a proxy", []string{"PURGE /shop/1 HTTP/1.1", "Host: a.test", "X-Host: b.test"}, 200, "bd"},
		{"parentheses", []string{"PURGE /shop/1_(x) HTTP/1.1", "Host: a.test"}, 200, ""},
		{"an unknown field", []string{"PURGE / HTTP/1.1", "Host: a.test", "X-Purge-Path: /shop/"}, 501, ""},
		{"a tag with a star", []string{"PURGE / HTTP/1.1", "Host: a.test", "Surrogate-Key: al*"}, 501, ""},
		{"tags by commas", []string{"PURGE / HTTP/1.1", "Host: a.test", "Surrogate-Key: home,/p/2"}, 200, "ac"},
		{"no tags", []string{"PURGEKEYS / HTTP/1.1", "Host: a.test"}, 400, ""},
		{"a body", []string{"PURGE / HTTP/1.1", "Host: a.test", "Content-Length: 2", "", "{}"}, 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) { checkPurge(t, "", tt.request, tt.status, tt.purged) })
	}
}

func TestTagsWithSeparatorsAreSeveral(t *testing.T) {
	m := newMarket(t, "")
	m.visit(t)
	p := &process{node: m.h.node}
	p.config.handlers.Store(&handlersByGroup{m.h.Group: {m.h}})
	purges, err := p.config.purgesOf(PurgeRequest{Tags: []string{"/p/2, home"}})
	if err != nil {
		t.Fatal(err)
	}
	m.h.node.Purger.Everywhere(purges)
	if got := m.visit(t); got != "ac" {
		t.Errorf("purged %q", got)
	}
}
