package express

import (
	"bufio"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TestHTTPToATLSPort: a client that speaks without TLS is told so as it is by net/http.
func TestHTTPToATLSPort(t *testing.T) {
	site := &pages{by: "server"}
	plain := httptest.NewUnstartedServer(site)
	plain.Config.ErrorLog = log.New(io.Discard, "", 0)
	plain.StartTLS()
	t.Cleanup(plain.Close)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secure := tls.NewListener(inner, &tls.Config{Certificates: plain.TLS.Certificates})
	lane := NewListener(secure, Options{Find: func(*http.Request) Site { return site }, Context: t.Context()}, new(Open))
	server := &http.Server{Handler: site, ErrorLog: plain.Config.ErrorLog}
	go func() { _ = server.Serve(lane) }()
	t.Cleanup(func() { _ = server.Close() })

	answer := func(address, text string) string {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // the test is over
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, text)
		got, err := io.ReadAll(conn)
		if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("%q: the connection stays open", text)
		}
		return string(got)
	}
	for text, told := range map[string]bool{
		get("/page/1"): true,
		"HEAD /page/1 HTTP/1.1\r\nHost: a.test\r\n\r\n":    true,
		"POST / HTTP/1.1\r\nHost: a.test\r\n\r\n":          true,
		"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n":       true,
		"BREW /pot HTTP/1.1\r\nHost: a.test\r\n\r\n":       false,
		"\x16\x03\x01\x00\x05GET / HTTP/1.1\r\n\r\n":       false,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04": false,
	} {
		want, got := answer(plain.Listener.Addr().String(), text), answer(inner.Addr().String(), text)
		if got != want || (want != "" && want[0] == 'H') != told {
			t.Errorf("%q: got %q, and %q without the lane", text, got, want)
		}
	}
}

// A deadlineConn is a connection that tells of a read while a write has a deadline.
type deadlineConn struct {
	net.Conn
	write atomic.Bool // a write has a deadline
	reads func(writeHasDeadline bool)
}

func (c *deadlineConn) SetWriteDeadline(t time.Time) error {
	c.write.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

func (c *deadlineConn) Read(p []byte) (int, error) {
	c.reads(c.write.Load())
	return c.Conn.Read(p)
}

// A oneListener has one connection.
type oneListener struct {
	net.Listener
	conn chan net.Conn
}

func (l oneListener) Accept() (net.Conn, error) {
	if conn, ok := <-l.conn; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

// TestIdleTLSConnectionHasNoWriteDeadline: while the lane waits for the next request, TLS may
// have to write, such as the answer to a KeyUpdate. A deadline of the response before, which
// has passed by then, would break the connection.
func TestIdleTLSConnectionHasNoWriteDeadline(t *testing.T) {
	plain := httptest.NewUnstartedServer(nil)
	plain.StartTLS()
	t.Cleanup(plain.Close)
	client, server := net.Pipe()
	var answered atomic.Int64
	under := &deadlineConn{Conn: server, reads: func(deadline bool) {
		if deadline {
			t.Errorf("a read after %d responses has a write deadline beside it", answered.Load())
		}
	}}
	one := make(chan net.Conn, 1)
	one <- tls.Server(under, &tls.Config{Certificates: plain.TLS.Certificates})
	site := &pages{by: "server"}
	lane := NewListener(oneListener{plain.Listener, one}, Options{Find: func(*http.Request) Site { return site }, Context: t.Context(), WriteTimeout: time.Minute}, new(Open))
	conn, err := lane.Accept()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = conn.Read(make([]byte, bufferSize)) // it answers until the client is gone
	}()
	to := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	for range 3 {
		if _, err := io.WriteString(to, get("/page/1")); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(to), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Header.Get("By") != "lane" {
			t.Errorf("by %q, %v", resp.Header.Get("By"), err)
		}
		answered.Add(1)
	}
	_ = client.Close()
	<-read
}
