package peer

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestStrangersAreRefusedAndCounted(t *testing.T) {
	to, s := serve(t, rejecting(t))
	c := newClient(t)
	send := func(path string, body io.Reader) int {
		req, _ := http.NewRequest(http.MethodPost, "http://"+to.Addr+path, body)
		resp, err := c.pool.roundTrip(req, to.Addr)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for name, answer := range map[string]int{
		"another version":  send("/2/lookup", nil),
		"no query":         send(pathLookup, nil),
		"garbage":          send(pathLookup, strings.NewReader("garbage garbage garbage")),
		"too long a frame": send(pathLookup, bytes.NewReader([]byte{frameQuery, 0xff, 0xff, 0xff, 0xff})),
		"garbage to purge": send(pathPurge, strings.NewReader("garbage")),
		"garbage purges":   send(pathPurges, strings.NewReader("garbage")),
		"garbage status":   send(pathStatus, strings.NewReader("garbage")),
		"garbage inspect":  send(pathInspect, strings.NewReader("garbage garbage garbage")),
		"garbage to learn": send(pathLearn, strings.NewReader("garbage")),
		"garbage to store": send(pathPublish, strings.NewReader("garbage garbage garbage")),
	} {
		if answer != http.StatusNotFound {
			t.Errorf("%s: %d", name, answer)
		}
	}
	if got := s.Refused(); got != 10 {
		t.Errorf("counted %d", got)
	}
}

func TestOtherProtocolsAreRefused(t *testing.T) {
	to, s := serve(t, rejecting(t))
	for name, bytes := range map[string]string{
		"HTTP/1.1":          "POST /1/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"HTTP/0.9":          "GET /\r\n\r\n",
		"a TLS hello":       "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n",
		"preface, then not": preface + strings.Repeat("\xff", 64),
		"no settings":       preface + "\x00\x00\x08\x06\x00\x00\x00\x00\x00ping...." + "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"endless settings":  preface + "\xff\xff\xff\x04\x00\x00\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			before := s.Refused()
			conn, err := net.Dial("tcp", to.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(handshakeTimeout)) // when it is closed in any case
			io.WriteString(conn, bytes)
			answer, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays open")
			}
			if strings.Contains(string(answer), " 200 ") {
				t.Errorf("answered %q", answer)
			}
			for deadline := time.Now().Add(patience); s.Refused() == before; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("not counted; the answer was %q", answer)
				}
			}
		})
	}
}

// Each kind of stranger is refused and counted, and gets to see nothing but
// what a handshake shows.
func TestStrangersAreRefusedWhereThereIsASecret(t *testing.T) {
	to, s := serveAs(t, rejecting(t), identity(t, "a"))
	ours := func(change func(*tls.Config)) *tls.Config {
		c := identity(t, "a").Client(protocolHTTP2)
		change(c)
		return c
	}
	http1 := "POST /1/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
	for name, test := range map[string]struct {
		tls  *tls.Config // nil: none
		send string
	}{
		"plain HTTP/1.1":               {nil, http1},
		"h2c":                          {nil, preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
		"noise":                        {nil, strings.Repeat("\xa5", 4096)},
		"half a hello":                 {nil, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		"no certificate":               {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, preface},
		"TLS 1.2":                      {ours(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), preface},
		"another secret":               {stranger(t, "groupcache cluster zzzzzzzzzzzz"), preface},
		"another secret, ours by name": {stranger(t, "groupcache cluster aaaaaaaaaaaa"), preface},
		"no ALPN":                      {ours(func(c *tls.Config) { c.NextProtos, c.VerifyConnection = nil, nil }), preface},
		"ALPN for HTTP/1.1":            {ours(func(c *tls.Config) { c.NextProtos, c.VerifyConnection = []string{"http/1.1"}, nil }), http1},
		"ALPN for gossip":              {ours(func(c *tls.Config) { c.NextProtos, c.VerifyConnection = []string{"gossip"}, nil }), preface},
		"a leaf as authority":          {leafAsAuthority(t), preface},
	} {
		t.Run(name, func(t *testing.T) {
			before := s.Refused()
			conn, err := net.Dial("tcp", to.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(handshakeTimeout)) // when it is closed in any case
			if test.tls != nil {
				conn = tls.Client(conn, test.tls)
			}
			_, _ = io.WriteString(conn, test.send) // the handshake may fail here, or in the read
			if test.tls == nil {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			if answer, err := io.ReadAll(conn); err == nil && len(answer) > 7 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("answered %q, %v", answer, err) // an alert has 7 bytes
			}
			eventually(t, "it is counted", func() bool { return s.Refused() > before })
			if n := s.Refused() - before; n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
	if err := ask(newClientAs(t, identity(t, "b")), to); err == nil {
		t.Error("a client takes a server of another secret")
	}
}

// accepted is a listener that has accepted some connections.
type accepted struct {
	net.Listener
	conns     []*closes
	exhausted chan struct{}
	closed    chan struct{}
}

// closes is a connection that notes that it was closed.
type closes struct {
	net.Conn
	closed atomic.Bool
}

func (c *closes) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

func (a *accepted) Accept() (net.Conn, error) {
	if len(a.conns) == 0 {
		close(a.exhausted)
		<-a.closed
		return nil, net.ErrClosed
	}
	c := a.conns[0]
	a.conns = a.conns[1:]
	return c, nil
}

func (a *accepted) Close() error {
	close(a.closed)
	return nil
}

// TestStrangersGoInTheirOrder: the connections that have to go are those that came first,
// however busy the machine is. A node that comes after strangers is none of them.
func TestStrangersGoInTheirOrder(t *testing.T) {
	l := &accepted{exhausted: make(chan struct{}), closed: make(chan struct{})}
	for range 3 * maxStrangers {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		l.conns = append(l.conns, &closes{Conn: ours})
	}
	all := l.conns
	d := newAuthListener(l, new(Identity), func(err error) { t.Error(err) })
	defer d.Close()
	<-l.exhausted
	closed := slices.IndexFunc(all, func(c *closes) bool { return !c.closed.Load() })
	if left := len(all) - closed; left != maxStrangers || slices.ContainsFunc(all[closed:], func(c *closes) bool { return c.closed.Load() }) {
		t.Errorf("of %d connections, the first %d are closed, and not all others are open", len(all), closed)
	}
}

// However many strangers say nothing, a node gets in, and the strangers hold
// no more connections than there is room for.
func TestStrangersDoNotKeepNodesOut(t *testing.T) {
	for _, letters := range []string{"", "a"} {
		to, s := serveAs(t, nothing, identity(t, letters))
		var idle []net.Conn
		for range maxStrangers + 50 {
			conn, err := net.Dial("tcp", to.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			idle = append(idle, conn)
		}
		if err := ask(newClientAs(t, identity(t, letters)), to); err != nil {
			t.Errorf("secret %q: %v", letters, err)
		}
		s.mu.Lock()
		d := s.listener
		s.mu.Unlock()
		d.lobby.mu.Lock()
		if n := d.lobby.waiting.Len(); n > maxStrangers {
			t.Errorf("%d strangers wait", n)
		}
		d.lobby.mu.Unlock()
		idle[0].SetReadDeadline(time.Now().Add(patience))
		if _, err := idle[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who has waited longest stays: %v", err)
		}
	}
}
