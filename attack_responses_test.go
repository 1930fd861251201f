//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
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
