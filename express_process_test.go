//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// startLane runs a node whose site has the express lane, over HTTP and over TLS.
func startLane(t *testing.T, handler http.HandlerFunc, options string) *process {
	t.Helper()
	o := startOrigin(t, handler)
	p := newCluster(t, 1, o, options+"\n\t\texpress")[0]
	p.overTLS()
	p.config = "{\n\tservers {\n\t\tlistener_wrappers {\n\t\t\tgroupcache\n\t\t}\n\t}" + p.caddyfile("")[1:]
	p.start()
	p.awaitHTTP3(t)
	return p
}

// awaitHTTP3 waits until Caddy sets Alt-Svc, which it does once its listener for HTTP/3 is there.
func (p *process) awaitHTTP3(t *testing.T) {
	t.Helper()
	eventually(t, "Alt-Svc over TLS", func() bool {
		header, _, _ := dialLane(t, p, true).get(t, "/.well-known/none", beside)
		return slices.ContainsFunc(header, func(line string) bool { return strings.HasPrefix(line, "Alt-Svc:") })
	})
}

// A laneClient is a connection of HTTP/1.1 of which the order of fields shows.
type laneClient struct {
	net.Conn
	in *bufio.Reader
}

func dialLane(t *testing.T, p *process, secure bool) *laneClient {
	t.Helper()
	var conn net.Conn
	var err error
	if secure {
		conn, err = tls.Dial("tcp", p.https, &tls.Config{InsecureSkipVerify: true, ServerName: clientHost, NextProtos: []string{"http/1.1"}})
	} else {
		conn, err = net.Dial("tcp", p.http)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs fails
	return &laneClient{conn, bufio.NewReader(conn)}
}

// get sends a request, and returns the lines of the header of the response, sorted, without
// Age and Date, its body, and whether the lane has answered: it writes Age last but one.
func (c *laneClient) get(t *testing.T, path string, fields ...string) (header []string, body string, lane bool) {
	t.Helper()
	request := append([]string{"GET " + path + " HTTP/1.1", "Host: " + clientHost}, fields...)
	if _, err := io.WriteString(c, strings.Join(request, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	length := 0
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line = strings.TrimSpace(line); line == "" {
			break
		}
		if name, value, _ := strings.Cut(line, ": "); name == "Content-Length" {
			_, err = fmt.Sscan(value, &length)
			if err != nil {
				t.Fatal(err)
			}
		}
		header = append(header, line)
	}
	content := make([]byte, length)
	if _, err := io.ReadFull(c.in, content); err != nil {
		t.Fatal(err)
	}
	lane = !slices.IsSorted(header[1:])
	slices.Sort(header)
	return slices.DeleteFunc(header, func(line string) bool { return strings.HasPrefix(line, "Age:") || strings.HasPrefix(line, "Date:") }), string(content), lane
}

// beside is a field for which the lane hands a request on, and nobody else cares.
const beside = "TE: trailers"

// TestExpressLane: the lane's hits are Caddy's, field by field, and follow purges at once.
func TestExpressLane(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP", true: "HTTPS"}[secure], func(t *testing.T) {
			var version int
			p := startLane(t, func(w http.ResponseWriter, r *http.Request) {
				version++ // requests come one after the other
				w.Header().Set("Vary", "Accept-Language, X-Role")
				w.Header().Set("Content-Type", "text/plain")
				w.Header().Set("X-Version", fmt.Sprint(version))
				fmt.Fprintf(w, "version %d of %s for %s %s", version, r.URL, r.Header.Get("Accept-Language"), r.Header.Get("X-Role"))
			}, "ttl 1h")
			c := dialLane(t, p, secure)
			for _, role := range []string{"admin", "guest"} {
				for _, path := range []string{"/a", "/a?b=%2F", "/large"} {
					_, first, lane := c.get(t, path, "X-Role: "+role, beside)
					if lane || !strings.HasSuffix(first, role) {
						t.Errorf("the first for %s of %s, by the lane: %v: %s", role, path, lane, first)
					}
					header, body, lane := c.get(t, path, "X-Role: "+role)
					if !lane || body != first {
						t.Errorf("%s as %s, by the lane: %v: %s, want %s", path, role, lane, body, first)
					}
					normal, _, lane := c.get(t, path, "X-Role: "+role, beside)
					if lane || strings.Split(fmt.Sprint(header), "ttl=")[0] != strings.Split(fmt.Sprint(normal), "ttl=")[0] {
						t.Errorf("%s by the lane\n%q\nwithout\n%q", path, header, normal)
					}
				}
			}
			_, before, _ := c.get(t, "/a", "X-Role: admin")
			if status, body := p.purge(`{"urls":["` + map[bool]string{false: "http://", true: "https://"}[secure] + clientHost + `/a"]}`); status != http.StatusOK {
				t.Fatalf("%d %v", status, body)
			}
			if _, after, lane := c.get(t, "/a", "X-Role: admin"); lane || after == before {
				t.Errorf("after a purge, by the lane: %v: %s", lane, after)
			}
		})
	}
}

// TestHotPagesOfTheLaneArePurged: pages that are sent from files, to clients of two sorts at the
// same time, while they are purged. Each page is whole, of its own sort, and none is older than a
// purge that was acknowledged before it was asked for.
func TestHotPagesOfTheLaneArePurged(t *testing.T) {
	const line = "version %04d for %-5s\n"
	var version, purged atomic.Int64
	p := startLane(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "X-Role")
		page := strings.Repeat(fmt.Sprintf(line, version.Load(), r.Header.Get("X-Role")), 40_000)
		w.Header().Set("Content-Length", fmt.Sprint(len(page)))
		fmt.Fprint(w, page)
	}, "ttl 1h")
	var byLane atomic.Int64
	clients := make(map[*laneClient]string)
	for i := range 6 {
		c, role := dialLane(t, p, false), []string{"admin", "guest"}[i%2]
		c.get(t, "/hot", "X-Role: "+role, beside)
		clients[c] = role
	}
	read := func(c *laneClient, role string) {
		least := purged.Load()
		_, page, lane := c.get(t, "/hot", "X-Role: "+role)
		var v int64
		if _, err := fmt.Sscanf(page, "version %d", &v); err != nil || v < least || page != strings.Repeat(fmt.Sprintf(line, v, role), 40_000) {
			t.Errorf("after version %d was purged, %s got %d bytes of version %d: %v", least, role, len(page), v, err)
		}
		if lane {
			byLane.Add(1)
		}
	}
	for range 10 {
		var reading sync.WaitGroup
		for c, role := range clients {
			reading.Go(func() {
				for range 40 {
					read(c, role)
				}
			})
		}
		v := version.Add(1)
		if status, body := p.purge(`{"urls":["http://` + clientHost + `/hot"]}`); status != http.StatusOK {
			t.Errorf("%d %v", status, body)
		}
		purged.Store(v)
		reading.Wait()
	}
	if byLane.Load() < 1200 {
		t.Errorf("%d of 2400 pages by the lane", byLane.Load())
	}
}

// TestLaneThatWouldAnswerNobody: the config is refused when it starts.
func TestLaneThatWouldAnswerNobody(t *testing.T) {
	const cached = "groupcache {\nexpress\n}\n"
	for name, site := range map[string][2]string{
		"a named route":           {"&(lane) {\n" + cached + "}\n", "invoke lane\n"},
		"matchers of the client":  {"", "@guest header X-Role guest\nroute {\n" + cached + "respond @guest denied 403\n}\n"},
		"fields that are set":     {"", "route {\n" + cached + "header X-Any {http.request.header.X-Role}\n}\n"},
		"an error's route":        {"", "handle_errors {\n" + cached + "}\n"},
		"an answer's route, also": {"", "reverse_proxy 127.0.0.1:9 {\nhandle_response {\n" + cached + "}\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := startLane(t, func(http.ResponseWriter, *http.Request) {}, "")
			host, port, _ := net.SplitHostPort(p.http)
			global, _, _ := strings.Cut(p.config, "\nhttp://:")
			status, body := p.load(fmt.Sprintf("%s\n%shttp://:%s {\nbind %s\n%s}\n", global, site[0], port, host, site[1]))
			if status == http.StatusOK || !strings.Contains(body, "express") {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

// readSlowly has a client ask for more than its buffers hold, and read nothing of it.
func (c *laneClient) readSlowly(t *testing.T, path string) {
	t.Helper()
	c.get(t, path, beside)                                   // it is stored, and the lane knows what Caddy sets
	go io.WriteString(c, strings.Repeat(plainGet(path), 50)) //nolint:errcheck // see below
	if _, err := c.in.Peek(1); err != nil {
		t.Fatal(err)
	}
}

// readWhole reads responses until the connection is closed. All have to be whole.
func (c *laneClient) readWhole(t *testing.T) {
	t.Helper()
	for {
		resp, err := http.ReadResponse(c.in, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		} else if err == io.ErrUnexpectedEOF || err == io.EOF { // between two
			return
		}
		if err != nil {
			t.Errorf("a response is cut off: %v", err)
			return
		}
	}
}

// TestSlowClientsOfTheLaneHoldUpNothing: neither a reload, nor, for longer than others, the end of
// the process.
func TestSlowClientsOfTheLaneHoldUpNothing(t *testing.T) {
	p := startLane(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		fmt.Fprint(w, strings.Repeat("x", 1e6))
	}, "ttl 1h")
	slow := dialLane(t, p, false)
	slow.readSlowly(t, "/large")
	began := time.Now()
	if status, body := p.load(strings.Replace(p.config, "{\n", "{\n\tgrace_period 2s\n", 1)); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("the reload took %s", took)
	}
	slow.readWhole(t)

	slow = dialLane(t, p, false)
	slow.readSlowly(t, "/large")
	began = time.Now()
	p.signal(syscall.SIGTERM)
	p.awaitEnd()
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the process took %s to end, with a grace period of 2s", took)
	}
}
