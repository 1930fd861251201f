//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

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

// A framing is a request whose end two parsers may see at different places.
type framing struct{ request, source string }

// framings are bytes whose %d is the length of what follows the header.
func framings() []framing {
	const inner = "GET /smuggled HTTP/1.1\r\nHost: " + poison + "\r\nX: "
	host := "Host: " + clientHost + "\r\n"
	return []framing{
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
	for i, a := range framings() {
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

// A pseudoHead is the pseudo-fields and fields of a request, names and values, in which
// PATH stands for its path.
type pseudoHead []string

var pseudoGet = pseudoHead{":method", "GET", ":scheme", "https", ":authority", clientHost, ":path", "PATH"}

func (h pseudoHead) with(fields ...string) []string { return append(slices.Clone(h), fields...) }

func (h pseudoHead) instead(name, value string) []string {
	head := slices.Clone(h)
	head[slices.Index(head, name)+1] = value
	return head
}

func (h pseudoHead) without(name string, fields ...string) []string {
	i := slices.Index(h, name)
	return append(slices.Delete(slices.Clone(h), i, i+2), fields...)
}

type pseudoAttack struct {
	raw
	source string
}

// attacksOnTargets are about the authority, the scheme and the path.
func attacksOnTargets() []pseudoAttack {
	get := pseudoGet
	const inner = " HTTP/1.1\r\nHost: " + poison + "\r\n\r\nGET /smuggled HTTP/1.1\r\nX: "
	return []pseudoAttack{
		{raw{head: get.with("host", poison)}, ":authority and Host differ (RFC 9113 §8.3.1)"},
		{raw{head: append(get.instead(":authority", poison), "host", clientHost)}, ":authority and Host differ, the other way round"},
		{raw{head: get.without(":authority", "host", poison)}, "Host alone"},
		{raw{head: get.without(":authority", "host", clientHost, "host", poison)}, "Host alone, twice"},
		{raw{head: get.without(":authority")}, "neither"},
		{raw{head: get.instead(":authority", "")}, "empty :authority"},
		{raw{head: append(get.instead(":authority", ""), "host", poison)}, "empty :authority, and Host"},
		{raw{head: append([]string{":authority", poison}, get...)}, "two :authority"},
		{raw{head: get.instead(":authority", poison+"@"+clientHost)}, "user info in :authority (RFC 9113 §8.3.1)"},
		{raw{head: get.instead(":authority", clientHost+":443@"+poison)}, "user info that looks like a port"},
		{raw{head: get.instead(":authority", clientHost+"/"+poison)}, "a path in :authority"},
		{raw{head: get.instead(":authority", clientHost+"#"+poison)}, "a fragment in :authority"},
		{raw{head: get.instead(":authority", clientHost+", "+poison)}, "a list in :authority"},
		{raw{head: get.instead(":authority", clientHost+"\r\nX-Forwarded-Host: "+poison)}, "line ends in :authority (CVE-2022-45060, Varnish)"},
		{raw{head: get.instead(":authority", clientHost+" "+poison)}, "a space in :authority"},
		{raw{head: get.instead(":authority", strings.ToUpper(clientHost)+":443")}, "case and the scheme's port"},
		{raw{head: get.instead(":scheme", "http")}, ":scheme of another connection"},
		{raw{head: get.instead(":scheme", "http://"+poison+"/?x=")}, "a URL in :scheme (Kettle 2021)"},
		{raw{head: get.instead(":scheme", "https\r\nX-Forwarded-Host: "+poison)}, "line ends in :scheme"},
		{raw{head: get.instead(":scheme", "file")}, "a :scheme that isn't HTTP's"},
		{raw{head: get.instead(":scheme", "")}, "empty :scheme"},
		{raw{head: get.without(":scheme")}, "no :scheme"},
		{raw{head: append([]string{":scheme", "http"}, get...)}, "two :scheme"},
		{raw{head: get.instead(":path", "PATH"+inner)}, "a request in :path (CVE-2022-45060, Varnish)"},
		{raw{head: get.instead(":path", "PATH smuggled")}, "a space in :path"},
		{raw{head: get.instead(":path", "PATH#smuggled")}, "a fragment in :path (RFC 9113 §8.3.1)"},
		{raw{head: get.instead(":path", "PATH\x00smuggled")}, "NUL in :path"},
		{raw{head: get.instead(":path", "PATH\tsmuggled")}, "a tab in :path"},
		{raw{head: get.instead(":path", "PATH\x80")}, "a byte beyond ASCII in :path"},
		{raw{head: get.instead(":path", "smuggled")}, ":path without a slash"},
		{raw{head: get.instead(":path", "https://"+poison+"/smuggled")}, "a URL in :path"},
		{raw{head: get.instead(":path", "@"+poison+"/smuggled")}, ":path that ends the authority of a URL that is put together (Kettle 2021)"},
		{raw{head: get.instead(":path", "*")}, "an asterisk"},
		{raw{head: get.instead(":path", "")}, "empty :path"},
		{raw{head: get.without(":path")}, "no :path"},
		{raw{head: append([]string{":path", "/smuggled"}, get...)}, "two :path"},
	}
}

// attacksOnFields are about the method, and names and values of fields.
func attacksOnFields() []pseudoAttack {
	get := pseudoGet
	const smuggle = "GET /smuggled HTTP/1.1\r\nHost: " + poison + "\r\n\r\n"
	return []pseudoAttack{
		{raw{head: get.instead(":method", "GET /smuggled HTTP/1.1\r\nHost: "+poison+"\r\nX:")}, "a request in :method (CVE-2021-33193, httpd)"},
		{raw{head: get.instead(":method", "GET /smuggled")}, "a space in :method"},
		{raw{head: get.instead(":method", "get")}, ":method in lower case"},
		{raw{head: get.instead(":method", "")}, "empty :method"},
		{raw{head: get.without(":method")}, "no :method"},
		{raw{head: append([]string{":method", "POST"}, get...)}, "two :method"},
		{raw{head: []string{":method", "CONNECT", ":authority", poison + ":443"}}, "CONNECT"},
		{raw{head: append(get.instead(":method", "CONNECT"), ":protocol", "websocket")}, "extended CONNECT that was not offered (RFC 8441 §4)"},
		{raw{head: get.with(":evil", poison)}, "a pseudo-field after those that are, and unknown (RFC 9113 §8.3)"},
		{raw{head: get.with(":status", "200")}, "a pseudo-field of responses"},
		{raw{head: append(get.without(":path", "x", "y"), ":path", "PATH")}, "a pseudo-field after a field"},
		{raw{head: get.with("X-Forwarded-Host", poison)}, "a name in upper case (RFC 9113 §8.2)"},
		{raw{head: get.with("x-a\r\nx-forwarded-host", poison)}, "line ends in a name (Kettle 2021)"},
		{raw{head: get.with("x-forwarded-host: "+poison+"\r\nx-a", "b")}, "a colon and line ends in a name (Kettle 2021)"},
		{raw{head: get.with("host: "+poison, "b")}, "a colon in a name"},
		{raw{head: get.with("x a", poison)}, "a space in a name"},
		{raw{head: get.with("x\x00a", poison)}, "NUL in a name"},
		{raw{head: get.with("x\xffa", poison)}, "a byte beyond ASCII in a name"},
		{raw{head: get.with("", poison)}, "no name"},
		{raw{head: get.with("x_forwarded_host", poison, "x_original_url", "/"+poison)}, "underscores"},
		{raw{head: get.with("x-a", "b\r\nX-Forwarded-Host: "+poison)}, "line ends in a value (Kettle 2021; CVE-2021-22883, Node)"},
		{raw{head: get.with("x-a", "b\nX-Forwarded-Host: "+poison)}, "LF in a value"},
		{raw{head: get.with("x-a", "b\rX-Forwarded-Host: "+poison)}, "CR in a value"},
		{raw{head: get.with("x-a", "b\x00"+poison)}, "NUL in a value"},
		{raw{head: get.with("x-original-url", " /"+poison+" ")}, "space around a value (RFC 9113 §8.2.1)"},
		{raw{head: get.with("x-a", "b\r\n\r\n"+smuggle)}, "a request in a value (Kettle 2021, H2.TE by CRLF)"},
	}
}

// attacksOnBodies are about a body, its length, and what HTTP/1.1 says of a connection.
func attacksOnBodies() []pseudoAttack {
	get := pseudoGet
	const smuggle = "GET /smuggled HTTP/1.1\r\nHost: " + poison + "\r\n\r\n"
	return []pseudoAttack{
		{raw{head: get.with("transfer-encoding", "chunked"), body: "0\r\n\r\n" + smuggle}, "H2.TE (Kettle 2021; RFC 9113 §8.2.2)"},
		{raw{head: get.with("content-length", "0"), body: smuggle}, "H2.CL (Kettle 2021; RFC 9113 §8.1.1)"},
		{raw{head: get.with("content-length", "9999"), body: smuggle}, "a length that is too long"},
		{raw{head: get.with("content-length", "0", "content-length", strconv.Itoa(len(smuggle))), body: smuggle}, "two lengths"},
		{raw{head: get.with("content-length", "+"+strconv.Itoa(len(smuggle))), body: smuggle}, "a length with a sign"},
		{raw{head: get.with("content-length", "x"), body: smuggle}, "a length that is no number"},
		{raw{head: get, body: smuggle}, "a fat GET (Kettle 2020)"},
		{raw{head: get, body: "a", trailers: []string{"x-forwarded-host", poison}}, "trailers"},
		{raw{head: get, body: "a", trailers: []string{":path", "/smuggled", "host", poison}}, "pseudo-fields in trailers (RFC 9113 §8.1)"},
		{raw{head: get.instead(":method", "HEAD")}, "HEAD (RFC 9110 §9.3.2: its empty body must not become a GET's)"},
		{raw{head: append(get.instead(":method", "HEAD"), "content-length", "9"), body: poison}, "HEAD with a body"},
		{raw{head: get.with("connection", "x-forwarded-host", "x-forwarded-host", poison)}, "Connection (RFC 9113 §8.2.2)"},
		{raw{head: get.with("connection", "close")}, "Connection: close"},
		{raw{head: get.with("keep-alive", "timeout=5", "x-original-url", "/"+poison)}, "Keep-Alive"},
		{raw{head: get.with("proxy-connection", "keep-alive", "x-original-url", "/"+poison)}, "Proxy-Connection"},
		{raw{head: get.with("upgrade", "h2c", "http2-settings", "AAMAAABkAARAAAAAAAIAAAAA")}, "Upgrade"},
		{raw{head: get.with("te", "chunked")}, "TE that is not trailers"},
		{raw{head: get.with("te", "trailers")}, "TE: trailers"},
		{raw{head: get.with("expect", "100-continue")}, "Expect"},
		{raw{head: get.with("x-oversized", strings.Repeat("a", 2<<20))}, "a field of 2 MiB"},
		{raw{head: get.instead(":path", "PATH?"+strings.Repeat("a", 20<<10))}, "a target of 20 KiB, for which there is no key"},
	}
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
	cases := slices.Concat(attacksOnTargets(), attacksOnFields(), attacksOnBodies())
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
