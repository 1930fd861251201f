package caddygroupcache

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/express"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

// TestWrongLaneIsRefused: the option express where the lane would leave something out.
func TestWrongLaneIsRefused(t *testing.T) {
	const cached = "groupcache {\n\t\texpress\n\t}\n"
	for name, test := range map[string]struct {
		server, site string
		want         []string // what the error must say
	}{
		"a handler in front":      {"", "header X-Any x\n\t" + cached, []string{"express", "handler headers", "in the way"}},
		"a handler of a route":    {"", "route {\n\trequest_header X-Any x\n\t" + cached + "}\n", []string{"handler headers"}},
		"another cache":           {"", "route {\n\tgroupcache\n\t" + cached + "}\n", []string{"handler groupcache"}},
		"a matcher":               {"", "@a header X-Any x\n\thandle @a {\n" + cached + "}\n", []string{"matcher header"}},
		"a placeholder":           {"", "@a path /{env.HOME}\n\thandle @a {\n" + cached + "}\n", []string{"matcher path"}},
		"a route in front":        {"", "route {\n@a not path /b\n\terror @a 404\n" + cached + "}\n", []string{"handler error"}},
		"a time-out":              {"timeouts {\n\tread_body 1s\n}\n", cached, []string{"read_timeout"}},
		"SNI":                     {"strict_sni_host on\n", cached, []string{"strict_sni_host"}},
		"HTTP/2 alone":            {"protocols h2\n", cached, []string{"protocols without h1"}},
		"a template":              {"", "groupcache {\n\texpress\n\tkey {path}\n}\n", []string{"key template"}},
		"an argument":             {"", "groupcache {\n\texpress on\n}\n", []string{"Caddyfile"}},
		"an argument of the lane": {"listener_wrappers {\ngroupcache fast\n}\n", cached, []string{"Caddyfile"}},
		"before TLS":              {"listener_wrappers {\ngroupcache\ntls\n}\n", cached, []string{"wrapper groupcache", "tls"}},
		"before PROXY protocol":   {"listener_wrappers {\ngroupcache\nproxy_protocol\n}\n", cached, []string{"wrapper groupcache", "proxy_protocol"}},
		"no lane":                 {"listener_wrappers {\nhttp_redirect\n}\n", cached, []string{"listener_wrappers", "groupcache"}},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefusal(t, laneConfig(t, test.server, test.site), test.want)
		})
	}
}

// TestLanesThatAreRight: what may stand around.
func TestLanesThatAreRight(t *testing.T) {
	const cached = "groupcache {\n\t\texpress\n\t}\n\trespond x\n"
	for name, site := range map[string]string{
		"plain":                    cached,
		"paths":                    "handle /a/* {\n" + cached + "}\nhandle {\nrespond y\n}\n",
		"a handler for some paths": "header /b/* X-Any x\n" + cached,
		"a root":                   "root * /srv\n" + cached,
		"encode":                   "encode\n" + cached,
		"access logs":              "log\nlog_append x {http.request.uri}\nlog_skip /b\n" + cached,
	} {
		t.Run(name, func(t *testing.T) {
			if err := validate(t, laneConfig(t, "", site)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLaneAndClientCertificates: with client certificates Caddy compares Host with the name of
// the handshake, which the lane does not; where Caddy does not either, the lane may stand.
func TestLaneAndClientCertificates(t *testing.T) {
	config := func(server string) string {
		plain := laneConfig(t, server, "groupcache {\n\t\texpress\n\t}\n\trespond x\n\ttls {\n\t\tissuer internal\n\t\tclient_auth {\n\t\t\tmode require\n\t\t}\n\t}\n")
		return strings.Replace(strings.Replace(plain, "http://a.test", "https://a.test", 1), "{\n", "{\n\tskip_install_trust\n", 1)
	}
	wantRefusal(t, config(""), []string{"client authentication", "strict_sni_host"})
	if err := validate(t, config("strict_sni_host insecure_off\n")); err != nil {
		t.Error(err)
	}
}

func laneConfig(t *testing.T, server, site string) string {
	if !strings.Contains(server, "listener_wrappers") {
		server += "listener_wrappers {\ngroupcache\n}\n"
	}
	return fmt.Sprintf("{\n\tstorage file_system %s\n\tservers {\n%s}\n}\nhttp://a.test:8080 {\n\t%s}\n", t.TempDir(), server, site)
}

// A repeated is a connection on which a client sends the same request again and again.
type repeated struct {
	net.Conn
	request string
	left    int // how often it still does
	written int64
}

func (c *repeated) Read(p []byte) (int, error) {
	if c.left--; c.left < 0 {
		return 0, io.EOF
	}
	return copy(p, c.request), nil
}

func (c *repeated) Write(p []byte) (int, error) {
	c.written += int64(len(p))
	return len(p), nil
}

func (*repeated) SetReadDeadline(time.Time) error { return nil }

// accepting is a listener that has one connection.
type accepting struct {
	net.Listener
	conn net.Conn
}

func (a accepting) Accept() (net.Conn, error) { return a.conn, nil }

// lane returns a connection with the lane of a handler in front.
func lane(tb testing.TB, h *Handler, conn net.Conn, targets *express.Targets) net.Conn {
	tb.Helper()
	ln := express.NewListener(accepting{conn: conn}, express.Options{
		Find: func(*http.Request) express.Site { return &laneSite{h: h} }, Context: tb.Context(), Targets: targets,
	}, new(express.Open))
	c, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// TestLaneHitAllocations: a hit of the lane allocates nothing, but the pin of a large body.
func TestLaneHitAllocations(t *testing.T) {
	const hits = 1000
	for _, size := range sizes {
		h := newHandler(t, newLoneNode(t), nil)
		h.Express, h.front = true, new(express.Front)
		h.front.Learn(http.Header{"Server": {"Caddy"}}, false)
		do(h, typical(size), request(t.Context(), "/a"))
		r := request(t.Context(), "/a")
		conn := &repeated{request: "GET /a HTTP/1.1\r\nHost: " + r.Host + "\r\nAccept: */*\r\n\r\n"}
		p := make([]byte, 4<<10)
		n := testing.AllocsPerRun(10, func() {
			conn.left, conn.written = hits, 0
			if n, err := lane(t, h, conn, nil).Read(p); n > 0 || err != io.EOF {
				t.Errorf("%q was handed on, %v", p[:n], err)
			}
		})
		limit := 0.1
		if size > node.PartSize {
			limit++
		}
		if n /= hits; n > limit && !raceDetector || conn.written < hits*int64(size) {
			t.Errorf("%d bytes: %g allocations for each hit, %d bytes written", size, n, conn.written)
		}
	}
}

func BenchmarkLaneHit(b *testing.B) {
	h := newHandler(b, newLoneNode(b), nil)
	h.Express, h.front = true, new(express.Front)
	h.front.Learn(http.Header{"Server": {"Caddy"}}, false)
	do(h, typical(1<<10), request(b.Context(), "/a"))
	conn := &repeated{request: "GET /a HTTP/1.1\r\nHost: " + request(b.Context(), "/a").Host + "\r\nAccept: */*\r\n\r\n", left: b.N}
	c := lane(b, h, conn, nil)
	b.ReportAllocs()
	b.ResetTimer()
	if n, err := c.Read(make([]byte, 4<<10)); n > 0 || err != io.EOF {
		b.Errorf("%d bytes were handed on, %v", n, err)
	}
}

// An endless is a connection on which a client sends one request after the other.
type endless struct {
	net.Conn
	text    string
	request []byte
	n       int
}

func (c *endless) Read(p []byte) (int, error) {
	c.n++
	c.request = fmt.Appendf(c.request[:0], c.text, c.n)
	return copy(p, c.request), nil
}

func (*endless) SetReadDeadline(time.Time) error { return nil }

// BenchmarkHandedOn: what the lane costs a request that it hands on, beside the reading itself.
func BenchmarkHandedOn(b *testing.B) {
	h := newHandler(b, newLoneNode(b), nil)
	h.Express, h.front = true, new(express.Front)
	h.front.Learn(http.Header{"Server": {"Caddy"}}, false)
	const plain = "GET /new/%09d HTTP/1.1\r\nHost: a.example\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
	for name, text := range map[string]string{
		"miss":     plain + "\r\n",
		"no-store": plain + "Cache-Control: no-store\r\n\r\n",
		"upload":   "POST /new/%09d HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody",
	} {
		p := make([]byte, 4<<10)
		conn := &endless{text: text}
		for with, c := range map[string]net.Conn{"without": conn, "with": lane(b, h, conn, new(express.Targets))} {
			b.Run(name+"/"+with, func(b *testing.B) {
				for b.Loop() {
					if n, err := c.Read(p); n == 0 || err != nil {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}
