//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// Requests of attackers, from the literature, against real Caddy processes.
// Each case says what it is from:
//
//   - Kettle: James Kettle, "Practical Web Cache Poisoning" (2018), "Web Cache
//     Entanglement" (2020), "HTTP Desync Attacks" (2019), PortSwigger
//   - CPDoS: Nguyen, Lo Iacono, Federrath, "Your Cache Has Fallen:
//     Cache-Poisoned Denial-of-Service Attack", CCS 2019
//   - WCD: Gil, "Web Cache Deception Attack" (2017); Mirheidari et al., "Cached and
//     Confused", USENIX Security 2020
//   - hop-by-hop: Davison, "Abusing HTTP hop-by-hop request headers" (2019)
//   - CVE numbers and sections of RFCs

// poison is in everything that an attacker sends and nobody else may get.
const poison = "evil.test"

// talk sends bytes over a connection of its own and returns all that comes back.
func talk(t *testing.T, p *process, raw string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.http, 5*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, raw) }() // it may be refused before its end
	var got bytes.Buffer
	_, err = io.Copy(&got, conn)
	if err != nil && os.IsTimeout(err) {
		t.Errorf("%s: no end after %s to %s", p.name, brief(got.String()), brief(raw))
	}
	return got.String()
}

// lines makes a request of its lines, and closes the connection after it.
func lines(l ...string) string { return strings.Join(append(l, "", ""), "\r\n") }

// echoing answers what an upstream might make of a request, all of it, and says
// that everybody may have it.
func echoing(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Cache-Control", "max-age=60")
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s host=%s body=%s", r.Method, r.RequestURI, r.Host, body)
	for _, name := range slices.Sorted(mapKeys(r.Header)) {
		switch name {
		case "User-Agent", "Accept-Encoding", "X-Forwarded-For", "Via":
		default:
			fmt.Fprintf(w, " %s=%q", name, r.Header[name])
		}
	}
}

func mapKeys(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range h {
			if !yield(name) {
				return
			}
		}
	}
}

// startAttacked runs nodes that are expected to outlive the test.
func startAttacked(t *testing.T, n int, handler http.HandlerFunc, options string) (cluster, *origin) {
	t.Helper()
	o := startOrigin(t, handler)
	c := newCluster(t, n, o, patient+"\n\t\t"+options)
	for _, p := range c {
		p.overTLS()
		p.start()
	}
	c.awaitMembers()
	t.Cleanup(func() {
		for _, p := range c {
			select {
			case <-p.died:
				t.Errorf("%s is dead: %v", p.name, p.cmd.ProcessState)
			default:
			}
		}
	})
	return c, o
}

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

// TestAttackConnection: fields that Connection names do not reach the upstream
// (RFC 9110 §7.6.1), so it answers another request than the one that was asked.
func TestAttackConnection(t *testing.T) {
	c, _ := startAttacked(t, 2, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		switch r.URL.Path {
		case "/vary":
			w.Header().Set("Vary", "Accept-Language, X-Plan")
			fmt.Fprint(w, r.Header.Get("Accept-Language"), r.Header.Get("X-Plan"))
		case "/needed":
			if r.Header.Get("X-Needed") == "" { // a front end's field
				w.WriteHeader(http.StatusNotFound)
				return
			}
			fmt.Fprint(w, "page")
		case "/account":
			if who := r.Header.Get("Cookie") + r.Header.Get("Authorization"); who != "" {
				w.Header().Set("Cache-Control", "private")
				fmt.Fprint(w, "account of ", who)
				return
			}
			fmt.Fprint(w, "please log in")
		}
	}, "")
	for _, w := range ways { // HTTP/2 and HTTP/3 have no such field, RFC 9113 §8.2.2: they are to refuse it
		path := func(of string) string { return of + "?" + w.name }
		for _, option := range []string{"Accept-Language", "X-Plan", "accept-language", "close, X-Plan", "keep-alive,Accept-Language"} {
			w.get(c[0], path("/vary"), "Accept-Language", "de", "X-Plan", "gold", "Connection", option)
		}
		w.get(c[0], path("/needed"), "X-Needed", "1", "Connection", "close, X-Needed")
		for _, p := range c {
			for _, got := range w.others(p, path("/vary"), "Accept-Language", "de", "X-Plan", "gold") {
				got.is(t, w.name+": a selecting field taken away (hop-by-hop; Kettle 2020)", "degold")
			}
			for _, got := range w.others(p, path("/needed"), "X-Needed", "1") {
				got.is(t, w.name+": a needed field taken away (hop-by-hop; CVE-2022-31813, httpd; CVE-2022-45059, Varnish)", "page")
			}
		}
		for _, field := range []string{"Cookie", "Authorization"} {
			w.get(c[1], path("/account"), field, "me", "Connection", "close, "+field)
			for _, p := range c {
				for _, got := range w.others(p, path("/account"), field, "me") {
					got.is(t, w.name+": credentials taken away (hop-by-hop)", "account of me")
				}
			}
		}
	}
	c[0].get("/needed", "X-Needed", "1").is(t, "the page", "page")
	for _, fine := range []string{"close", "keep-alive, close", "TE, close"} {
		if got := talk(t, c[0], lines("GET /needed HTTP/1.1", "Host: "+clientHost, "X-Needed: 1", "TE: trailers", "Connection: "+fine)); !strings.Contains(got, "groupcache; hit") {
			t.Errorf("Connection: %s: no hit: %s", fine, got)
		}
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

// TestAttackFraming: shapes of request smuggling. Whatever the node makes of
// them, the upstream gets no request that was not asked for, and who comes next
// gets what is theirs.
func TestAttackFraming(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[string]int)
	c, _ := startAttacked(t, 1, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.RequestURI]++
		mu.Unlock()
		echoing(w, r)
	}, "")
	p := c[0]
	const inner = "GET /smuggled HTTP/1.1\r\nHost: " + poison + "\r\nX: "
	host := "Host: " + clientHost + "\r\n"
	for i, a := range []struct{ request, source string }{
		{"POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\nX", "CL.TE (Kettle 2019; RFC 9112 §6.1)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: %d\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + inner, "TE.CL with a space before the colon (Kettle 2019; CVE-2019-16276, Go)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: %d\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner, "a coding that nobody knows (Kettle 2019)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: %d\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner, "TE.TE (Kettle 2019)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: %d\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + inner, "a vertical tab (Kettle 2019)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: %d\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, "obs-fold (RFC 9112 §5.2)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: %d\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, "bare CR (RFC 9112 §2.2)"},
		{"GET / HTTP/1.1\n" + host + "Content-Length: %d\nTransfer-Encoding: chunked\n\n0\n\n" + inner, "bare LF (RFC 9112 §2.2)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: %d\r\n\r\n" + inner, "two lengths (RFC 9112 §6.3)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: 0, %d\r\n\r\n" + inner, "a list of lengths"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: +%d\r\n\r\n" + inner, "a length with a sign (CVE-2020-15049, Squid)"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: 0x%x\r\n\r\n" + inner, "a hexadecimal length"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: 1 %d\r\n\r\n" + inner, "a length with a space"},
		{"GET / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999%d\r\n\r\n" + inner, "a length beyond all"},
		{"GET / HTTP/1.1\r\n" + host + "Content_Length: %d\r\n\r\n" + inner, "an underscore"},
		{"GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0;ext=\"\n\r\n\r\n" + inner, "a newline in a chunk extension (CVE-2025-22871, Go)"},
		{"GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\nAB\n0\n\n" + inner, "chunks with bare LF (CVE-2025-22871, Go)"},
		{"GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + inner, "a chunk beyond all (CVE-2013-2028, nginx)"},
		{"GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n-1\r\n" + inner, "a chunk of less than nothing"},
		{"GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", "NUL (RFC 9110 §5.5)"},
		{"GET / HTTP/1.1\r\n" + host + "X\x00: b\r\n\r\n", "NUL in a name"},
		{"GET / HTTP/1.1\r\n" + host + "X: a\r\n b: c\r\n\r\n", "obs-fold"},
		{"GET / HTTP/1.1\r\n" + host + "noColon\r\n\r\n", "no colon"},
		{"GET / HTTP/1.1\r\n" + host + ": empty\r\n\r\n", "no name"},
		{"GET  / HTTP/1.1\r\n" + host + "\r\n", "two spaces"},
		{"GET / x HTTP/1.1\r\n" + host + "\r\n", "a space in the target"},
		{"GET\t/\tHTTP/1.1\r\n" + host + "\r\n", "tabs"},
		{"\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", "empty lines first (RFC 9112 §2.2)"},
		{"GET /\r\n", "HTTP/0.9"},
		{"GET / HTTP/0.9\r\n\r\n", "HTTP/0.9"},
		{"GET / HTTP/1.1.1\r\n" + host + "\r\n", "a version that is none"},
		{"GET / HTTP/2.0\r\n" + host + "\r\n", "a version that isn't spoken"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2's preface, and nothing after it"},
		{"GET smuggled HTTP/1.1\r\n" + host + "\r\n", "a target without a slash (RFC 9112 §3.2)"},
		{"GET / HTTP/1.1\r\n" + host + "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n", "h2c smuggling (Bishop Fox 2020)"},
		{"GET /ws HTTP/1.1\r\n" + host + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: x\r\n\r\n", "a WebSocket that is none (Emelianov 2019)"},
		{"TRACE / HTTP/1.1\r\n" + host + "Cookie: secret\r\n\r\n", "TRACE (RFC 9110 §9.3.8)"},
		{"CONNECT " + poison + ":443 HTTP/1.1\r\nHost: " + poison + ":443\r\n\r\n", "CONNECT"},
		{"GET / HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" + inner, "Expect on a GET (Kettle 2025, \"HTTP/1.1 must die\")"},
		{"GET / HTTP/1.1\r\n" + host + "Expect: y 100-continue\r\nContent-Length: %d\r\n\r\n" + inner, "an Expect that nobody knows (the same)"},
		{"GET /" + strings.Repeat("a", 2<<20) + " HTTP/1.1\r\n" + host + "\r\n", "a target of 2 MiB"},
		{"GET /" + strings.Repeat("c", 20<<10) + " HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "a target of 20 KiB, for which there is no key"},
		{"GET /" + strings.Repeat("b", 64<<10) + " HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", "a target of 64 KiB"},
	} {
		raw := a.request
		if strings.Contains(raw, "%d") || strings.Contains(raw, "0x%x") {
			_, content, _ := strings.Cut(raw, "\r\n\r\n")
			raw = fmt.Sprintf(raw, len(content))
		}
		path := fmt.Sprintf("/next/%d", i)
		knock(t, p, raw)
		want := fmt.Sprintf("GET %s host=%s body=", path, clientHost)
		for range 3 {
			if got := p.get(path); got.status != 200 || !strings.HasPrefix(got.body, want+" ") || strings.Contains(got.body, poison) {
				t.Errorf("%s: then %d %s, %v", a.source, got.status, brief(got.body), got.err)
			}
		}
		if got := p.get("/"); strings.Contains(got.body, poison) || !strings.HasPrefix(got.body, "GET / host="+clientHost+" body= ") {
			t.Errorf("%s: / has become %d %s", a.source, got.status, got.body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	// A pipelined request of the client's own is no smuggling; but none of these
	// has ended its first one in a way that HTTP knows, except by bare LFs.
	if n := seen["/smuggled"]; n > 0 {
		t.Errorf("the upstream has got /smuggled %d times", n)
	}
}

// knock sends bytes and doesn't mind whether they are answered.
func knock(t *testing.T, p *process, raw string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.http, 5*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		_, _ = io.WriteString(conn, raw)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(io.Discard, conn)
}

// TestAttackPseudoFields: what HTTP/2 and HTTP/3 can say that HTTP/1.1 can't (Kettle,
// "HTTP/2: The Sequel is Always Worse", 2021; RFC 9113 §8, §10.3; RFC 9114 §4.3,
// §10.3). Whatever the node makes of it, the upstream gets no request that was not
// asked for, and who comes next gets what is theirs.
func TestAttackPseudoFields(t *testing.T) {
	var smuggled atomic.Int64
	c, _ := startAttacked(t, 1, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/smuggled" {
			smuggled.Add(1)
		}
		echoing(w, r)
	}, "")
	p := c[0]
	get := []string{":method", "GET", ":scheme", "https", ":authority", clientHost, ":path", "PATH"}
	with := func(fields ...string) []string { return append(slices.Clone(get), fields...) }
	instead := func(name, value string) []string {
		head := slices.Clone(get)
		head[slices.Index(head, name)+1] = value
		return head
	}
	without := func(name string, fields ...string) []string {
		i := slices.Index(get, name)
		return append(slices.Delete(slices.Clone(get), i, i+2), fields...)
	}
	const inner = " HTTP/1.1\r\nHost: " + poison + "\r\n\r\nGET /smuggled HTTP/1.1\r\nX: "
	const smuggle = "GET /smuggled HTTP/1.1\r\nHost: " + poison + "\r\n\r\n"
	cases := []struct {
		raw
		source string
	}{
		{raw{head: with("host", poison)}, ":authority and Host differ (RFC 9113 §8.3.1)"},
		{raw{head: append(instead(":authority", poison), "host", clientHost)}, ":authority and Host differ, the other way round"},
		{raw{head: without(":authority", "host", poison)}, "Host alone"},
		{raw{head: without(":authority", "host", clientHost, "host", poison)}, "Host alone, twice"},
		{raw{head: without(":authority")}, "neither"},
		{raw{head: instead(":authority", "")}, "empty :authority"},
		{raw{head: append(instead(":authority", ""), "host", poison)}, "empty :authority, and Host"},
		{raw{head: append([]string{":authority", poison}, get...)}, "two :authority"},
		{raw{head: instead(":authority", poison+"@"+clientHost)}, "user info in :authority (RFC 9113 §8.3.1)"},
		{raw{head: instead(":authority", clientHost+":443@"+poison)}, "user info that looks like a port"},
		{raw{head: instead(":authority", clientHost+"/"+poison)}, "a path in :authority"},
		{raw{head: instead(":authority", clientHost+"#"+poison)}, "a fragment in :authority"},
		{raw{head: instead(":authority", clientHost+", "+poison)}, "a list in :authority"},
		{raw{head: instead(":authority", clientHost+"\r\nX-Forwarded-Host: "+poison)}, "line ends in :authority (CVE-2022-45060, Varnish)"},
		{raw{head: instead(":authority", clientHost+" "+poison)}, "a space in :authority"},
		{raw{head: instead(":authority", strings.ToUpper(clientHost)+":443")}, "case and the scheme's port"},
		{raw{head: instead(":scheme", "http")}, ":scheme of another connection"},
		{raw{head: instead(":scheme", "http://"+poison+"/?x=")}, "a URL in :scheme (Kettle 2021)"},
		{raw{head: instead(":scheme", "https\r\nX-Forwarded-Host: "+poison)}, "line ends in :scheme"},
		{raw{head: instead(":scheme", "file")}, "a :scheme that isn't HTTP's"},
		{raw{head: instead(":scheme", "")}, "empty :scheme"},
		{raw{head: without(":scheme")}, "no :scheme"},
		{raw{head: append([]string{":scheme", "http"}, get...)}, "two :scheme"},
		{raw{head: instead(":path", "PATH"+inner)}, "a request in :path (CVE-2022-45060, Varnish)"},
		{raw{head: instead(":path", "PATH smuggled")}, "a space in :path"},
		{raw{head: instead(":path", "PATH#smuggled")}, "a fragment in :path (RFC 9113 §8.3.1)"},
		{raw{head: instead(":path", "PATH\x00smuggled")}, "NUL in :path"},
		{raw{head: instead(":path", "PATH\tsmuggled")}, "a tab in :path"},
		{raw{head: instead(":path", "PATH\x80")}, "a byte beyond ASCII in :path"},
		{raw{head: instead(":path", "smuggled")}, ":path without a slash"},
		{raw{head: instead(":path", "https://"+poison+"/smuggled")}, "a URL in :path"},
		{raw{head: instead(":path", "@"+poison+"/smuggled")}, ":path that ends the authority of a URL that is put together (Kettle 2021)"},
		{raw{head: instead(":path", "*")}, "an asterisk"},
		{raw{head: instead(":path", "")}, "empty :path"},
		{raw{head: without(":path")}, "no :path"},
		{raw{head: append([]string{":path", "/smuggled"}, get...)}, "two :path"},
		{raw{head: instead(":method", "GET /smuggled HTTP/1.1\r\nHost: "+poison+"\r\nX:")}, "a request in :method (CVE-2021-33193, httpd)"},
		{raw{head: instead(":method", "GET /smuggled")}, "a space in :method"},
		{raw{head: instead(":method", "get")}, ":method in lower case"},
		{raw{head: instead(":method", "")}, "empty :method"},
		{raw{head: without(":method")}, "no :method"},
		{raw{head: append([]string{":method", "POST"}, get...)}, "two :method"},
		{raw{head: []string{":method", "CONNECT", ":authority", poison + ":443"}}, "CONNECT"},
		{raw{head: append(instead(":method", "CONNECT"), ":protocol", "websocket")}, "extended CONNECT that was not offered (RFC 8441 §4)"},
		{raw{head: with(":evil", poison)}, "a pseudo-field after those that are, and unknown (RFC 9113 §8.3)"},
		{raw{head: with(":status", "200")}, "a pseudo-field of responses"},
		{raw{head: append(without(":path", "x", "y"), ":path", "PATH")}, "a pseudo-field after a field"},
		{raw{head: with("X-Forwarded-Host", poison)}, "a name in upper case (RFC 9113 §8.2)"},
		{raw{head: with("x-a\r\nx-forwarded-host", poison)}, "line ends in a name (Kettle 2021)"},
		{raw{head: with("x-forwarded-host: "+poison+"\r\nx-a", "b")}, "a colon and line ends in a name (Kettle 2021)"},
		{raw{head: with("host: "+poison, "b")}, "a colon in a name"},
		{raw{head: with("x a", poison)}, "a space in a name"},
		{raw{head: with("x\x00a", poison)}, "NUL in a name"},
		{raw{head: with("x\xffa", poison)}, "a byte beyond ASCII in a name"},
		{raw{head: with("", poison)}, "no name"},
		{raw{head: with("x_forwarded_host", poison, "x_original_url", "/"+poison)}, "underscores"},
		{raw{head: with("x-a", "b\r\nX-Forwarded-Host: "+poison)}, "line ends in a value (Kettle 2021; CVE-2021-22883, Node)"},
		{raw{head: with("x-a", "b\nX-Forwarded-Host: "+poison)}, "LF in a value"},
		{raw{head: with("x-a", "b\rX-Forwarded-Host: "+poison)}, "CR in a value"},
		{raw{head: with("x-a", "b\x00"+poison)}, "NUL in a value"},
		{raw{head: with("x-original-url", " /"+poison+" ")}, "space around a value (RFC 9113 §8.2.1)"},
		{raw{head: with("x-a", "b\r\n\r\n"+smuggle)}, "a request in a value (Kettle 2021, H2.TE by CRLF)"},
		{raw{head: with("transfer-encoding", "chunked"), body: "0\r\n\r\n" + smuggle}, "H2.TE (Kettle 2021; RFC 9113 §8.2.2)"},
		{raw{head: with("content-length", "0"), body: smuggle}, "H2.CL (Kettle 2021; RFC 9113 §8.1.1)"},
		{raw{head: with("content-length", "9999"), body: smuggle}, "a length that is too long"},
		{raw{head: with("content-length", "0", "content-length", strconv.Itoa(len(smuggle))), body: smuggle}, "two lengths"},
		{raw{head: with("content-length", "+"+strconv.Itoa(len(smuggle))), body: smuggle}, "a length with a sign"},
		{raw{head: with("content-length", "x"), body: smuggle}, "a length that is no number"},
		{raw{head: get, body: smuggle}, "a fat GET (Kettle 2020)"},
		{raw{head: get, body: "a", trailers: []string{"x-forwarded-host", poison}}, "trailers"},
		{raw{head: get, body: "a", trailers: []string{":path", "/smuggled", "host", poison}}, "pseudo-fields in trailers (RFC 9113 §8.1)"},
		{raw{head: instead(":method", "HEAD")}, "HEAD (RFC 9110 §9.3.2: its empty body must not become a GET's)"},
		{raw{head: append(instead(":method", "HEAD"), "content-length", "9"), body: poison}, "HEAD with a body"},
		{raw{head: with("connection", "x-forwarded-host", "x-forwarded-host", poison)}, "Connection (RFC 9113 §8.2.2)"},
		{raw{head: with("connection", "close")}, "Connection: close"},
		{raw{head: with("keep-alive", "timeout=5", "x-original-url", "/"+poison)}, "Keep-Alive"},
		{raw{head: with("proxy-connection", "keep-alive", "x-original-url", "/"+poison)}, "Proxy-Connection"},
		{raw{head: with("upgrade", "h2c", "http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")}, "Upgrade"},
		{raw{head: with("te", "chunked")}, "TE that is not trailers"},
		{raw{head: with("te", "trailers")}, "TE: trailers"},
		{raw{head: with("expect", "100-continue")}, "Expect"},
		{raw{head: with("x-oversized", strings.Repeat("a", 2<<20))}, "a field of 2 MiB"},
		{raw{head: instead(":path", "PATH?"+strings.Repeat("a", 20<<10))}, "a target of 20 KiB, for which there is no key"},
	}
	for _, w := range ways[1:] {
		for i, a := range cases {
			path := fmt.Sprintf("/pseudo/%s/%d", w.name, i)
			attack := a.raw
			attack.head = slices.Clone(attack.head)
			for j := range attack.head {
				attack.head[j] = strings.ReplaceAll(attack.head[j], "PATH", path)
			}
			w.send(p, attack)
			want := fmt.Sprintf("GET %s host=%s body=", path, clientHost)
			for _, got := range w.others(p, path) {
				if got.err != nil || got.status != 200 || !strings.HasPrefix(got.body, want+" ") || strings.Contains(got.body, poison) {
					t.Errorf("%s: %s: then %d %s, %v", w.name, a.source, got.status, brief(got.body), got.err)
				}
			}
		}
		if got := w.get(p, "/"); strings.Contains(got.body, poison) || !strings.HasPrefix(got.body, "GET / host="+clientHost+" body= ") {
			t.Errorf("%s: / has become %d %s", w.name, got.status, got.body)
		}
	}
	if n := smuggled.Load(); n > 0 {
		t.Errorf("the upstream has got /smuggled %d times", n)
	}
}

// TestAttackStreams: what a client can do with the frames of HTTP/2 holds up nobody
// and nothing stays behind.
func TestAttackStreams(t *testing.T) {
	c, o := startAttacked(t, 2, cacheable(0), "")
	head := func(path string) []string {
		return []string{":method", "GET", ":scheme", "https", ":authority", clientHost, ":path", path}
	}
	for name, attack := range map[string]func(c *http2Conn) error{
		"streams opened and reset (CVE-2023-44487, Rapid Reset; Varnish VSV00013)": func(c *http2Conn) error {
			for i := range uint32(5000) {
				if err := errors.Join(c.header(1+2*i, head(fmt.Sprint("/reset/", i)), true), c.WriteRSTStream(1+2*i, http2.ErrCodeCancel)); err != nil {
					return err
				}
			}
			return nil
		},
		"streams that the server has to reset (CVE-2025-8671, MadeYouReset)": func(c *http2Conn) error {
			for i := range uint32(5000) {
				if err := errors.Join(c.header(1+2*i, head(fmt.Sprint("/made/", i)), true), c.WriteWindowUpdate(1+2*i, 1<<31-1)); err != nil {
					return err
				}
			}
			return nil
		},
		"a header that never ends (CVE-2023-45288, Go; CONTINUATION flood)": func(c *http2Conn) error {
			err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true})
			for range 5000 {
				if err != nil {
					return err
				}
				err = c.WriteContinuation(1, false, bytes.Repeat([]byte{0, 1, 'a', 1, 'b'}, 3000))
			}
			return err
		},
		"a window that never opens (CVE-2019-9517; Varnish VSV00014)": func(c *http2Conn) error {
			err := c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for i := range uint32(100) {
				err = errors.Join(err, c.header(1+2*i, head("/window"), true))
			}
			return err
		},
		"a header without an end of its stream": func(c *http2Conn) error {
			var err error
			for i := range uint32(100) {
				err = errors.Join(err, c.header(1+2*i, head("/open"), false))
			}
			return err
		},
	} {
		conn, err := dialHTTP2(c[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() { _, _ = io.Copy(io.Discard, conn.Conn) }()
		_ = attack(conn) // the node may well end it
		for _, p := range c {
			for _, path := range []string{"/window", "/open", "/reset/1", "/made/1"} {
				for _, got := range overHTTP2.others(p, path) {
					got.is(t, name+", then "+path, bodyOf(path))
				}
			}
		}
		conn.Close()
	}
	c.awaitIdle()
	t.Logf("%d fetches", o.fetches(""))
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

// TestAttackErrors: errors that one client's fields provoke (CPDoS) are not for
// others, even if the upstream says that its error pages may be stored.
func TestAttackErrors(t *testing.T) {
	c, _ := startAttacked(t, 2, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("Etag", `"1"`)
		size := 0
		for name, values := range r.Header {
			size += len(name) + len(strings.Join(values, ""))
		}
		switch {
		case size > 8<<10:
			w.WriteHeader(http.StatusBadRequest)
		case r.Header.Get("X-Bad") != "":
			code, _ := strconv.Atoi(r.Header.Get("X-Bad"))
			w.WriteHeader(code)
		case r.Header.Get("X-Http-Method-Override") != "":
			w.WriteHeader(http.StatusMethodNotAllowed)
		case strings.Contains(r.Header.Get("User-Agent"), "\x80"):
			w.WriteHeader(http.StatusBadRequest)
		case r.Header.Get("Expect") != "":
			w.WriteHeader(http.StatusExpectationFailed)
		case r.Header.Get("If-Match") != "", r.Header.Get("If-Unmodified-Since") != "":
			w.WriteHeader(http.StatusPreconditionFailed)
		case r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Modified-Since") != "":
			w.WriteHeader(http.StatusNotModified)
		case r.Header.Get("Range") != "":
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		case r.Header.Get("Content-Type") != "":
			w.WriteHeader(http.StatusUnsupportedMediaType)
		case r.Header.Get("Authorization") != "":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			fmt.Fprint(w, "page")
		}
	}, "")
	cases := []struct{ field, source string }{
		{"X-Oversized: " + strings.Repeat("a", 16<<10), "CPDoS, HTTP Header Oversize"},
		{"X-Oversized: " + strings.Repeat("a", 2<<20), "CPDoS, HTTP Header Oversize, beyond Caddy's own limit"},
		{strings.Repeat("X-Many: a\r\n", 2000) + "X: y", "CPDoS, HTTP Header Oversize, by number"},
		{"User-Agent: \x80", "CPDoS, HTTP Meta Character"},
		{"X-Meta: \x07", "CPDoS, HTTP Meta Character"},
		{"X-HTTP-Method-Override: DELETE", "CPDoS, HTTP Method Override"},
		{"Expect: 100-continue", "provoked 417 (RFC 9110 §10.1.1)"},
		{"If-Match: \"other\"", "provoked 412 (RFC 9110 §13.1.1)"},
		{"If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT", "provoked 412"},
		{"If-None-Match: \"1\"", "provoked 304; Varnish and nginx had to learn that (RFC 9110 §13.1.2)"},
		{"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT", "provoked 304"},
		{"Range: bytes=cow", "provoked 416 (RFC 9110 §14.2)"},
		{"Range: bytes=9999999999999999999999-", "provoked 416"},
		{"Content-Type: x/y", "provoked 415"},
		{"Authorization: Basic Og==", "provoked 401"},
		{"X-Bad: 400", "a bad request"},
		{"X-Bad: 408", "a slow one"},
		{"X-Bad: 413", "a large one"},
		{"X-Bad: 429", "one too many (RFC 6585 §4)"},
		{"X-Bad: 431", "fields too large (RFC 6585 §5)"},
		{"X-Bad: 421", "misdirected (RFC 9110 §15.5.20)"},
		{"X-Bad: 425", "too early (RFC 8470 §5.2)"},
	}
	for _, w := range ways {
		for i, a := range cases {
			path := fmt.Sprintf("/cpdos/%s/%d", w.name, i)
			w.send(c[i%2], raw{target: path, fields: []string{a.field}})
			for _, p := range c {
				for _, got := range w.others(p, path) {
					got.is(t, w.name+": "+a.source, "page")
				}
			}
		}
	}
}

// TestAttackCredentials: what was meant for one client reaches no other.
func TestAttackCredentials(t *testing.T) {
	c, _ := startAttacked(t, 2, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", r.URL.Query().Get("cc"))
		switch r.URL.Path {
		case "/cookie":
			w.Header().Set("Set-Cookie", "session="+r.Header.Get("Cookie"))
		case "/vary":
			w.Header().Set("Vary", "Cookie")
		case "/star":
			w.Header()["Vary"] = []string{"Accept", "X, *"}
		}
		fmt.Fprint(w, "page of ", r.Header.Get("Authorization"), r.Header.Get("Cookie"))
	}, "")
	for _, target := range []string{
		"/auth?cc=max-age=60", "/auth?cc=max-age=60,private", "/auth?cc=max-age=60,no-store", "/auth?cc=PRIVATE,max-age=60", "/auth?cc=max-age=60%2cprivate%3d%22",
		"/cookie?cc=max-age=60", "/cookie?cc=public,max-age=60", "/vary?cc=max-age=60", "/star?cc=max-age=60",
		"/private?cc=private,max-age=60", "/private?cc=max-age=60,+No-Store", "/private?cc=max-age=60,private=", "/private?cc=s-maxage=60,private",
	} {
		field := "Cookie"
		if strings.HasPrefix(target, "/auth") {
			field = "Authorization"
		}
		for i := range 6 * len(ways) { // RFC 9111 §3.5, §5.2.2, §7.3
			who, w := fmt.Sprint("client", i), ways[i/2%len(ways)]
			a := w.get(c[i%2], target, field, who)
			if a.body != "page of "+who || a.header.Get("Set-Cookie") != "" && a.header.Get("Set-Cookie") != "session="+who {
				t.Errorf("%s: %s for %s: %s, Set-Cookie %s (%s)", w.name, target, who, a.body, a.header.Get("Set-Cookie"), a.cacheStatus())
			}
		}
		if strings.HasPrefix(target, "/auth") {
			for _, w := range ways {
				w.get(c[0], target).is(t, w.name+": "+target+" for nobody", "page of ")
				w.get(c[1], target, field, "late").is(t, w.name+": "+target+" after nobody's was stored", "page of late")
			}
		}
	}
}

// TestAttackMemory: what can be made without end takes bounded memory.
func TestAttackMemory(t *testing.T) {
	bomb := new(bytes.Buffer)
	z := gzip.NewWriter(bomb)
	io.CopyN(z, zeros{}, 64<<20)
	z.Close()
	page := strings.Repeat("p", 100_000)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		switch r.URL.Path {
		case "/bomb":
			if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				w.Header().Set("Content-Encoding", "gzip")
				w.Header().Set("Vary", "Accept-Encoding")
				w.Write(bomb.Bytes())
				return
			}
		case "/vary":
			w.Header().Set("Vary", "X-Any")
		case "/fields":
			for i := range 1000 {
				w.Header().Set(fmt.Sprint("X-", i), "y")
			}
		case "/names":
			for i := range 100 {
				w.Header().Add("Vary", fmt.Sprint("X-", i))
			}
		}
		fmt.Fprint(w, page)
	})
	c := newCluster(t, 1, o, "max_body_size 1MiB")
	p := c[0]
	p.app = "cache_size 64MiB"
	p.start()
	entries := func() int64 {
		s, err := p.status()
		if err != nil {
			t.Fatal(err)
		}
		if m := s.Memory; m.Main+m.Hot+m.Index+m.InFlight > 64<<20 || m.Limit != 64<<20 {
			t.Errorf("more than cache_size: %+v", m)
		}
		return s.Groups[0].Entries
	}

	// Compression bombs: Go's transport inflates what the client has not asked to
	// be compressed, and max_body_size is about what it has become.
	for range 3 {
		a := p.get("/bomb")
		if a.status != 200 || len(a.body) != 64<<20 || a.hit() {
			t.Errorf("bomb: %d, %d bytes (%s)", a.status, len(a.body), a.cacheStatus())
		}
	}
	if a := p.get("/bomb", "Accept-Encoding", "gzip"); a.status != 200 || len(a.body) != bomb.Len() {
		t.Errorf("the bomb as it is: %d, %d bytes", a.status, len(a.body))
	}

	// Vary abuse: 32 variants of a URL, and no response that varies by more than 16 fields.
	for i := range 200 {
		p.get("/vary", "X-Any", fmt.Sprint(i)).is(t, "variant", page)
	}
	if a := p.get("/vary", "X-Any", "199"); !a.hit() {
		t.Errorf("the last variant: %s", a.cacheStatus())
	}
	if n := entries(); n > 40 {
		t.Errorf("%d entries after 200 variants", n)
	}
	for _, path := range []string{"/fields", "/names"} {
		p.get(path).is(t, path, page)
		if a := p.get(path); a.hit() {
			t.Errorf("%s was stored", path)
		}
	}

	// Unbounded cardinality: one-off URLs, as a query of random numbers.
	before := o.fetches("")
	for i := range 1500 {
		p.get(fmt.Sprintf("/one-off?%d", i)).is(t, "one-off", page)
	}
	if o.fetches("") != before+1500 {
		t.Error("some were not fetched")
	}
	t.Logf("%d entries", entries())
	c.awaitIdle()
	entries()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestAttackRange: no request for parts costs much more than the whole
// (CVE-2011-3192, httpd; CVE-2017-7529, nginx; RFC 9110 §17.15).
func TestAttackRange(t *testing.T) {
	page := strings.Repeat("0123456789", 10_000)
	c, o := startAttacked(t, 1, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, page)
	}, "")
	p := c[0]
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("%d-%d", i*10, i*10)
	}
	cases := []struct{ header, source string }{
		{"bytes=" + strings.Join(many, ","), "many small ones (CVE-2011-3192)"},
		{"bytes=" + strings.Repeat("0-,", 5000) + "0-", "many of the whole (CVE-2011-3192)"},
		{"bytes=0-,0-,0-,0-,0-", "a few of the whole"},
		{"bytes=5-0", "backwards"},
		{"bytes=-9223372036854775807,-9223372036854775000", "suffixes that overflow when added (CVE-2017-7529)"},
		{"bytes=-99999999999999999999999", "a suffix beyond 64 bits"},
		{"bytes=0-99999999999999999999999", "an end beyond 64 bits (CVE-2021-31808, Squid)"},
		{"bytes=18446744073709551615-18446744073709551616", "a beginning beyond 63 bits"},
		{"bytes=-0", "nothing"},
		{"bytes=", "no range"},
		{"lines=0-5", "another unit"},
		{"bytes=0-0\x01", "a control character"},
		{"bytes=a-b", "no numbers"},
		{"bytes=+1-+2", "signs"},
		{"bytes=0-0,,,,,,,,,,,,,,,,,,,,,,,,,,", "empty ones"},
	}
	for _, w := range ways {
		for i, a := range cases {
			path := fmt.Sprintf("/range/%d", i%2) // hits and misses
			if got := w.get(p, path, "Range", a.header); len(got.body) > len(page)+8<<10 {
				t.Errorf("%s: %s: %d bytes for a page of %d", w.name, a.source, len(got.body), len(page))
			}
			w.get(p, path).is(t, w.name+": "+a.source, page)
		}
	}
	if n := o.fetches(""); n != 4 {
		t.Errorf("%d fetches of two pages, over http and over https", n)
	}
}

// TestAttackResponses: what an upstream can do in its header to the clients that
// come after (response splitting; RFC 9110 §5.5).
func TestAttackResponses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answers := map[string]string{
		"/nul":       "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-A: a\x00b\r\nContent-Length: 4\r\n\r\npage",
		"/cr":        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-A: a\rSet-Cookie: evil=1\r\nContent-Length: 4\r\n\r\npage",
		"/fold":      "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-A: a\r\n Set-Cookie: evil=1\r\nContent-Length: 4\r\n\r\npage",
		"/space":     "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nSet-Cookie : evil=1\r\nContent-Length: 4\r\n\r\npage",
		"/two":       "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\npage",
		"/both":      "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n",
		"/more":      "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npageHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nevil",
		"/less":      "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 40\r\n\r\npage",
		"/chunk":     "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n",
		"/early":     "HTTP/1.1 103 Early Hints\r\nSet-Cookie: evil=1\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npage",
		"/http09":    "page",
		"/named":     "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: X-A\r\nX-A: evil\r\nContent-Length: 4\r\n\r\npage",
		"/status":    "HTTP/1.1 99999 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nevil",
		"/negative":  "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: -4\r\n\r\nevil",
		"/huge":      "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-A: " + strings.Repeat("a", 12<<20) + "\r\nContent-Length: 4\r\n\r\nevil",
		"/trailer":   "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n4\r\npage\r\n0\r\nSet-Cookie: evil=1\r\n\r\n",
		"/nolength":  "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\n\r\npage",
		"/encoding":  "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\npage",
		"/switching": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\nCache-Control: max-age=60\r\n\r\nevil",
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err == nil {
					_, _ = io.WriteString(conn, answers[r.URL.Path])
				}
			}()
		}
	}()
	c := newCluster(t, 2, &origin{Server: startOrigin(t, echoing).Server}, patient)
	for _, p := range c {
		p.upstream = l.Addr().String()
		p.start()
	}
	c.awaitMembers()
	for path := range answers {
		for i := range 4 {
			a := c[i%2].get(path)
			if a.header.Get("Set-Cookie") != "" && i > 0 || strings.Contains(fmt.Sprint(a.header), "\x00") || strings.Contains(a.body, "evil") ||
				a.header.Get("X-A") == "evil" && a.shared() {
				t.Errorf("%s: %d %v %s", path, a.status, a.header, a.body)
			}
			if a.shared() && a.err == nil && a.body != "page" {
				t.Errorf("%s: %s from the cache (%s)", path, brief(a.body), a.cacheStatus())
			}
		}
	}
	for _, path := range []string{"/less", "/chunk", "/trailer", "/http09", "/two", "/huge", "/negative", "/switching"} {
		if a := c[0].get(path); a.shared() && a.status == 200 {
			t.Errorf("%s was stored: %s", path, a.cacheStatus())
		}
	}
}

// TestAttackAdmin: web pages that the operator visits cannot purge (CSRF, DNS
// rebinding), and a purge in a form that is none purges nothing.
func TestAttackAdmin(t *testing.T) {
	c, _ := startAttacked(t, 1, echoing, "")
	p := c[0]
	purge := func(body string, fields ...string) (int, error) {
		r, err := http.NewRequest(http.MethodPost, "http://"+p.admin+"/groupcache/purge", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(fields); i += 2 {
			if r.Header.Set(fields[i], fields[i+1]); fields[i] == "Host" {
				r.Host = fields[i+1]
			}
		}
		resp, err := adminClient.Do(r)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	page := p.get("/page").body
	for name, a := range map[string][]string{
		"a page of another site":            {`{"all":true}`, "Origin", "http://" + poison, "Content-Type", "text/plain"},
		"a form of another site":            {`{"all":true,"x":"=`, "Origin", "http://" + poison, "Content-Type", "text/plain"},
		"a page without an origin":          {`{"all":true}`, "Origin", "null"},
		"DNS rebinding":                     {`{"all":true}`, "Host", poison},
		"DNS rebinding with the right port": {`{"all":true}`, "Host", poison + p.admin[strings.LastIndexByte(p.admin, ':'):]},
		"no-cors":                           {`{"all":true}`, "Sec-Fetch-Mode", "no-cors"},
		"a navigation":                      {`{"all":true}`, "Sec-Fetch-Mode", "navigate", "Origin", "https://" + poison},
		"two objects":                       {`{"all":false}{"all":true}`},
		"an unknown field":                  {`{"all":true,"force":true}`},
		"no JSON":                           {"all=true", "Content-Type", "application/x-www-form-urlencoded"},
		"deep JSON":                         {strings.Repeat("[", 1<<20)},
		"large JSON":                        {`{"urls":["` + strings.Repeat("a", 16<<20) + `"]}`},
		"nothing":                           {""},
	} {
		status, err := purge(a[0], a[1:]...)
		if err == nil && status/100 != 4 {
			t.Errorf("%s: %d", name, status)
		}
		if got := p.get("/page"); !got.hit() {
			t.Errorf("%s: purged (%s)", name, got.cacheStatus())
		}
	}
	if resp, err := adminClient.Get("http://" + p.admin + "/groupcache/purge?all=true"); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("by GET: %v, %v", resp, err)
	}
	p.get("/page").is(t, "the page", page)
	if status, err := purge(`{"all":true}`); status != http.StatusOK {
		t.Errorf("the operator's own: %d, %v", status, err)
	}
	if got := p.get("/page"); got.hit() {
		t.Error("not purged")
	}
	// The site port has no such route.
	r := p.request(http.MethodPost, "/groupcache/purge", strings.NewReader(`{"all":true}`))
	p.get("/page")
	if do(r); !p.get("/page").hit() {
		t.Error("purged through the site")
	}
}

// TestAttackDirectives: what a client can make the cache do by Cache-Control and
// Pragma (RFC 9111 §5.2.1, §7.1).
func TestAttackDirectives(t *testing.T) {
	c, o := startAttacked(t, 2, cacheable(0), "")
	for _, w := range ways {
		w.get(c[0], "/d").is(t, w.name+": the page", bodyOf("/d"))
		for _, field := range []string{
			"no-cache", "no-store", "max-age=0", "max-age=-1", "max-age=99999999999999999999", "min-fresh=99999999999999999999", "max-stale", "only-if-cached, no-cache",
			"no-cache=\"", "max-age=\"", ",,,,", "max-stale=x", "public, s-maxage=9999", "immutable", "stale-if-error=99999999999", strings.Repeat("no-store,", 500),
		} {
			for _, p := range c {
				if a := w.get(p, "/d", "Cache-Control", field); a.err != nil || a.status != 200 && a.status != http.StatusGatewayTimeout || a.status == 200 && a.body != bodyOf("/d") {
					t.Errorf("%s: %s: %d %s %v", w.name, brief(field), a.status, brief(a.body), a.err)
				}
				if a := w.get(p, "/d"); !a.shared() || a.body != bodyOf("/d") {
					t.Errorf("%s: after %s: %s", w.name, brief(field), a.cacheStatus())
				}
			}
		}
	}
	ignoring, quiet := startAttacked(t, 1, cacheable(0), "request_directives ignore")
	together(100, 20, func(i int) answer {
		return ignoring[0].get("/d", "Cache-Control", "no-cache", "Pragma", "no-cache")
	})
	if n := quiet.fetches(""); n != 1 {
		t.Errorf("with request_directives ignore, 100 reloads made %d fetches", n)
	}
	t.Logf("%d fetches by directives", o.fetches(""))
}
