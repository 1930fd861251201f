//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestAttackUnkeyed: a field that is not in the key must not choose what others
// get. The attacker asks first, through one node; clients ask for the same URL
// through both.
func TestAttackUnkeyed(t *testing.T) {
	c, _ := startAttacked(t, 2, echoing, "")
	cases := []struct{ field, source string }{
		{"X-Forwarded-Host: " + poison, "Kettle 2018, unkeyed host: Caddy's reverse_proxy overwrites it"},
		{"X-Forwarded-Proto: " + poison, "Kettle 2018: redirect loops"},
		{"X-Forwarded-Scheme: nothttps " + poison, "Kettle 2018: Rack takes it for the scheme and redirects"},
		{"X-Forwarded-Port: " + poison, "Kettle 2018, discourse and others put it into links"},
		{"X-Forwarded-Prefix: /" + poison, "Spring and Traefik put it before paths"},
		{"X-Forwarded-Server: " + poison, "Kettle 2018"},
		{"X-Forwarded-Ssl: " + poison, "Rack"},
		{"X-Host: " + poison, "Kettle 2018: DNS-based routing"},
		{"X-Http-Host-Override: " + poison, "Kettle 2018"},
		{"X-Original-Host: " + poison, "Azure Application Gateway"},
		{"X-Original-URL: /" + poison, "Kettle 2018; CVE-2018-14773 (Symfony, Drupal, Zend)"},
		{"X-Rewrite-URL: /" + poison, "Kettle 2018; CVE-2018-14773 (Symfony, Drupal, Zend)"},
		{"X-HTTP-Method-Override: POST " + poison, "CPDoS, HTTP Method Override"},
		{"X-HTTP-Method: DELETE " + poison, "CPDoS, HTTP Method Override"},
		{"X-Method-Override: PUT " + poison, "CPDoS, HTTP Method Override"},
		{"Forwarded: for=1.2.3.4;host=" + poison, "RFC 7239 §8.1"},
		{"Front-End-Https: " + poison, "Microsoft, read by many frameworks"},
		{"X-Url-Scheme: " + poison, "the same"},
		{"Connection: X-Forwarded-Host\r\nX-Forwarded-Host: " + poison, "hop-by-hop"},
	}
	for _, w := range ways {
		for i, a := range cases {
			path := fmt.Sprintf("/unkeyed/%s/%d", w.name, i)
			w.send(c[i%2], raw{target: path, fields: []string{a.field}})
			for _, p := range c {
				for _, got := range w.others(p, path) {
					if got.err != nil || got.status != 200 || strings.Contains(got.body, poison) || !strings.Contains(got.body, path) {
						t.Errorf("%s: %s (%s): %s gives %d %s (%s)", w.name, a.field, a.source, p.name, got.status, got.body, got.cacheStatus())
					}
				}
			}
		}
	}
	// What these reach the upstream with: it sees what Caddy puts there.
	a := c[0].get("/seen", "X-Forwarded-Host", poison, "X-Forwarded-Proto", poison, "X-Forwarded-For", poison)
	if strings.Contains(a.body, poison) || !strings.Contains(a.body, `X-Forwarded-Host=["`+clientHost+`"]`) || !strings.Contains(a.body, `X-Forwarded-Proto=["http"]`) {
		t.Errorf("reverse_proxy has passed on what a client said: %s", a.body)
	}
	// Fields with an underscore are others' to CGI (Caddy drops them).
	if a := c[0].get("/underscore", "X_Forwarded_Host", poison, "X_Original_Url", poison); strings.Contains(a.body, poison) {
		t.Errorf("a field with an underscore has reached the upstream: %s", a.body)
	}
}

// TestAttackBehindAProxy: where reverse_proxy believes the proxy in front, what
// that says of scheme and host reaches the upstream, and is in the key. An
// upstream that redirects to https would otherwise send everybody in circles
// (Kettle 2018), and a client whom the front doesn't stop could choose a host.
func TestAttackBehindAProxy(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.Header.Get("X-Forwarded-Proto") != "https" {
			w.Header().Set("Location", "https://"+r.Header.Get("X-Forwarded-Host")+r.RequestURI)
			w.WriteHeader(http.StatusMovedPermanently)
			return
		}
		fmt.Fprint(w, "page of ", r.Header.Get("X-Forwarded-Host"))
	})
	c := newCluster(t, 1, o, "")
	p := c[0]
	p.upstream += " {\n\t\ttrusted_proxies 127.0.0.1/32\n\t}"
	p.start()
	for range 2 {
		if a := p.get("/p", "X-Forwarded-Proto", "http", "X-Forwarded-Host", clientHost); a.status != 301 || a.header.Get("Location") != "https://"+clientHost+"/p" {
			t.Errorf("over http: %d %s", a.status, a.header.Get("Location"))
		}
		p.get("/p", "X-Forwarded-Proto", "https", "X-Forwarded-Host", poison).is(t, "a host that is made up", "page of "+poison)
		p.get("/p", "X-Forwarded-Proto", "https", "X-Forwarded-Host", clientHost).is(t, "over https", "page of "+clientHost)
	}
	if n := o.fetches(""); n != 3 {
		t.Errorf("%d fetches for three requests that differ", n)
	}
}

// TestAttackPaths: what the upstream can tell apart is stored apart, whatever
// it looks like, and nothing is guessed from a name.
func TestAttackPaths(t *testing.T) {
	c, _ := startAttacked(t, 2, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "account") { // whatever is behind it
			w.Header().Set("Cache-Control", "private, max-age=60")
			fmt.Fprintf(w, "account of %s", r.Header.Get("Cookie"))
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "%s host=%s", r.RequestURI, r.Host)
	}, "")
	// Kettle 2020 (cache key normalisation), WCD, RFC 3986 §2.2, §6.2.2; CVE-2021-23336 (semicolons)
	targets := []string{
		"/a", "/a/", "//a", "/./a", "/x/../a", "/x/..%2fa", "/%2e/a", "/x/%2e%2e/a", "/a%2f", "/a%2F", "/%61", "/a;", "/a;x", "/a;x.css",
		"/a.css", "/a%00", "/a%00.css", "/a%0a", "/a%0d%0aX:%20y", "/a%20", "/a+", "/a.", "/a..", "/a%3f", "/a%3fx", "/a?", "/a?x", "/a?x=", "/a??",
		"/a?x=1&y=2", "/a?y=2&x=1", "/a?x=1;y=2", "/a?x=1%26y=2", "/a?%78=1&y=2", "/a%23", "/a#", "/a#/b", "/A", "/a%5c", "/a\\", "/a\\..\\b",
		"/a%c0%af", "/a%ff", "/a/*", "/a~", "/a|", "/a%25", "/a%2525", "/a,b", "/a$", "/a:80", "/a@b", "/a?http://x", "/http://x",
	}
	for _, w := range ways {
		direct := make(map[string]string)
		for i, target := range targets {
			first := w.get(c[i%2], target).body
			direct[target] = first
			for _, again := range w.others(c[(i+1)%2], target) {
				if again.body != first && again.status == http.StatusOK {
					t.Errorf("%s: %s: first %s, then %s", w.name, target, brief(first), brief(again.body))
				}
			}
		}
		for _, target := range targets { // nobody has taken the place of another
			if got := w.get(c[0], target, "Cache-Control", "no-cache").body; got != direct[target] {
				t.Errorf("%s: %s: stored %s, but the upstream says %s", w.name, target, brief(direct[target]), brief(got))
			}
		}
	}
	// WCD: the victim is lured to a name that looks static, the attacker asks after it.
	for _, target := range []string{
		"/account/x.css", "/account;x.css", "/account.css", "/account%00.css", "/account%0a.css", "/account%23.css", "/account%3f.css", "/account%3b.css",
		"/account%2fx.css", "/account/..%2fstatic/x.css", "/static/..%2faccount", "/static/../account", "/static/%2e%2e/account", "/account/?x.css", "/account?.css",
		"//account/x.js", "/account/.js", "/account%252f.css", "/account\\x.css", "/account~x.css", "/robots.txt/../account",
	} {
		for _, w := range ways {
			for i, who := range []string{"victim", "attacker"} {
				if got := w.get(c[i], target, "Cookie", who); got.status == http.StatusOK && got.body != "account of "+who {
					t.Errorf("%s: %s for %s: %s", w.name, target, who, brief(got.body))
				}
			}
		}
	}
}

// TestAttackHost: who says another host than it has the key of.
func TestAttackHost(t *testing.T) {
	c, _ := startAttacked(t, 1, echoing, "")
	p := c[0]
	for i, a := range []struct{ request, source string }{
		{"GET http://" + poison + "%s HTTP/1.1\r\nHost: " + clientHost, "absolute form: it is the host (RFC 9112 §3.2.2)"},
		{"GET http://" + clientHost + "%s HTTP/1.1\r\nHost: " + poison, "absolute form, the other way round"},
		{"GET http://" + poison + "@" + clientHost + "%s HTTP/1.1\r\nHost: " + clientHost, "user info (RFC 9110 §4.2.4)"},
		{"GET http://" + clientHost + ":80@" + poison + "%s HTTP/1.1\r\nHost: " + clientHost, "user info that looks like a port"},
		{"GET a:" + poison + "://" + clientHost + "%s HTTP/1.1\r\nHost: " + clientHost, "an opaque target that looks absolute (RFC 3986 §3)"},
		{"GET a:://x%s HTTP/1.1\r\nHost: " + clientHost, "another one, found by FuzzKeys"},
		{"GET https://" + poison + "%s HTTP/1.1\r\nHost: " + clientHost, "another scheme"},
		{"GET %s HTTP/1.1\r\nHost: " + clientHost + "\r\nHost: " + poison, "two Host lines (RFC 9112 §3.2)"},
		{"GET %s HTTP/1.1\r\nHost: " + poison + "\r\nHost: " + clientHost, "two Host lines"},
		{"GET %s HTTP/1.1\r\nHost: " + clientHost + ", " + poison, "two hosts in a line"},
		{"GET %s HTTP/1.1\r\n Host: " + poison + "\r\nHost: " + clientHost, "white space before the first line (RFC 9112 §2.2)"},
		{"GET %s HTTP/1.1\r\nHost : " + poison + "\r\nHost: " + clientHost, "white space before the colon (RFC 9112 §5.1)"},
		{"GET %s HTTP/1.1\r\nHost: " + clientHost + ":1@" + poison, "port that is none"},
		{"GET %s HTTP/1.1\r\nHost: " + clientHost + "/" + poison, "path in Host"},
		{"GET %s HTTP/1.1\r\nHost: " + clientHost + "#" + poison, "fragment in Host; Go's CVE-2023-29406 was about such"},
		{"GET %s HTTP/1.1\r\nHost: " + strings.ToUpper(clientHost) + ":" + "80", "case and port, Kettle 2020: port poisoning"},
		{"GET %s HTTP/1.1\r\nHost: " + clientHost + ":1337", "Kettle 2020: a port in redirects"},
		{"GET %s HTTP/1.1\r\nHost: " + clientHost + ".", "trailing dot"},
		{"GET %s HTTP/1.1\r\nHost: ", "empty"},
		{"GET %s HTTP/1.1\r\nX: y", "none"},
		{"GET %s HTTP/1.0\r\nX: y", "none in HTTP/1.0"},
		{"GET %s HTTP/1.0\r\nHost: " + poison, "HTTP/1.0"},
	} {
		path := fmt.Sprintf("/host/%d", i)
		talk(t, p, fmt.Sprintf(a.request, path)+"\r\nConnection: close\r\n\r\n")
		want := fmt.Sprintf("GET %s host=%s body=", path, clientHost)
		for range 2 {
			if got := p.get(path); !strings.HasPrefix(got.body, want+" ") || strings.Contains(got.body, poison) || got.status != 200 {
				t.Errorf("%q (%s): then %d %s", a.request, a.source, got.status, got.body)
			}
		}
	}
}

// TestAttackRoot: an absolute target without a path is the root of its host, and the
// upstream gets to see no other one (Varnish VSV00018).
func TestAttackRoot(t *testing.T) {
	c, _ := startAttacked(t, 1, echoing, "")
	for _, request := range []string{
		"GET http://" + poison + " HTTP/1.1\r\nHost: " + clientHost, "GET http://" + clientHost + " HTTP/1.1\r\nHost: " + poison,
		"GET https://" + poison + " HTTP/1.1\r\nHost: " + clientHost, "GET http://" + poison + "? HTTP/1.1\r\nHost: " + clientHost,
		"GET http://" + clientHost + "?" + poison + " HTTP/1.1\r\nHost: " + clientHost, "GET http: HTTP/1.1\r\nHost: " + clientHost,
		"GET http:// HTTP/1.1\r\nHost: " + clientHost, "GET http:///" + poison + " HTTP/1.1\r\nHost: " + clientHost,
	} {
		talk(t, c[0], request+"\r\nConnection: close\r\n\r\n")
		for range 2 {
			if got := c[0].get("/"); !strings.HasPrefix(got.body, "GET / host="+clientHost+" ") || strings.Contains(got.body, poison) || got.status != 200 {
				t.Errorf("%q: then %d %s", request, got.status, got.body)
			}
		}
	}
}

// TestAttackFatGet: a body on a GET may change the response, and no key has it
// (Kettle 2020, fat GET; RFC 9110 §9.3.1).
func TestAttackFatGet(t *testing.T) {
	c, _ := startAttacked(t, 2, echoing, "")
	host := "Host: " + clientHost + "\r\nConnection: close\r\n"
	for i, raw := range []string{
		"GET %s HTTP/1.1\r\n" + host + "Content-Length: 9\r\n\r\n" + poison,
		"GET %s HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n9\r\n" + poison + "\r\n0\r\n\r\n",
		"GET %s HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n9\r\n" + poison + "\r\n0\r\nX: " + poison + "\r\n\r\n",
		"GET %s HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Host: " + poison + "\r\n\r\n",
		"GET %s HTTP/1.1\r\n" + host + "Content-Type: application/x-www-form-urlencoded\r\nX-HTTP-Method-Override: POST\r\nContent-Length: 9\r\n\r\n" + poison,
		"HEAD %s HTTP/1.1\r\n" + host + "Content-Length: 9\r\n\r\n" + poison,
		"POST %s HTTP/1.1\r\n" + host + "Content-Length: 9\r\n\r\n" + poison,
		"get %s HTTP/1.1\r\n" + host + "Content-Length: 9\r\n\r\n" + poison,
		"OPTIONS %s HTTP/1.1\r\n" + host + "Content-Length: 9\r\n\r\n" + poison,
		"PURGE %s HTTP/1.1\r\n" + host + "\r\n",
		"FOO %s HTTP/1.1\r\n" + host + "X: " + poison + "\r\n\r\n",
		"HEAD %s HTTP/1.1\r\n" + host + "\r\n", // RFC 9110 §9.3.2: its empty body must not become a GET's
	} {
		path := fmt.Sprintf("/fat/%d", i)
		talk(t, c[0], fmt.Sprintf(raw, path))
		for _, p := range c {
			if got := p.get(path); got.status != 200 || strings.Contains(got.body, poison) || !strings.HasPrefix(got.body, "GET "+path+" ") {
				t.Errorf("%q: then %d %s", raw, got.status, got.body)
			}
		}
	}
	// No method of the site port purges others' pages: an unsafe one drops its own
	// target, as RFC 9111 §4.4 demands, and only if the upstream agrees.
	c[0].get("/fat/0").is(t, "before", c[0].get("/fat/0").body)
	talk(t, c[0], lines("PURGE /fat/1 HTTP/1.1", "Host: "+clientHost, "Connection: close", "X-Purge-Regex: .*", "Surrogate-Key: all"))
	if got := c[0].get("/fat/0"); !got.hit() {
		t.Errorf("a PURGE of another URL has dropped it: %s", got.cacheStatus())
	}
}
