package express

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
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
