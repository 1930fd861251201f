package express

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// script is a connection whose client sends what it has to say in pieces and then no more.
type script struct {
	mu     sync.Mutex
	send   []byte
	pieces []byte // their sizes, again and again
	at     int
	got    bytes.Buffer
	closed chan struct{}
	once   sync.Once
}

func (s *script) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.send) == 0 {
		return 0, io.EOF
	}
	n := len(s.send)
	if len(s.pieces) > 0 {
		n = min(n, int(s.pieces[s.at%len(s.pieces)])+1)
		s.at++
	}
	n = copy(p, s.send[:n])
	s.send = s.send[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(p)
}

func (s *script) Close() error                   { s.once.Do(func() { close(s.closed) }); return nil }
func (*script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

// answers returns what a server answers to what a client sends: the responses without their
// Date, which both have.
func answers(send, pieces []byte, lane bool) []string {
	c := &script{send: send, pieces: pieces, closed: make(chan struct{})}
	m := newMemory()
	site := pages{by: "lane"}
	var ln net.Listener = m
	if lane {
		ln = NewListener(m, Options{Find: func(*http.Request) Site { return site }, Context: context.Background()}, new(Open))
	}
	s := &http.Server{Handler: site, ErrorLog: nil, MaxHeaderBytes: 16 << 10}
	go s.Serve(ln)  //nolint:errcheck // until it is closed
	defer s.Close() //nolint:errcheck // nothing is left
	m.conns <- c
	<-c.closed
	var all []string
	responses := bufio.NewReader(&c.got)
	for {
		r, err := http.ReadResponse(responses, nil)
		if err != nil {
			if err != io.ErrUnexpectedEOF && err != io.EOF {
				all = append(all, err.Error())
			}
			return all
		}
		body, err := io.ReadAll(r.Body)
		if r.Header.Get("Date") != "" { // or it is missing in one of them
			r.Header.Set("Date", "some")
		}
		var lines []string
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			lines = append(lines, name+": "+strings.Join(r.Header[name], ", "))
		}
		all = append(all, fmt.Sprintf("%s %d %v %q %q %v", r.Proto, r.StatusCode, r.Close, lines, body, err))
	}
}

// FuzzSameAsWithoutTheLane sends the same bytes, in the same pieces, to a server with the
// lane and to one without.
func FuzzSameAsWithoutTheLane(f *testing.F) {
	for _, send := range []string{
		get("/page"), get("/page") + get("/page") + get("/other") + get("/page"), get("/page", "Range: bytes=0-1"),
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + get("/page"), get("/page", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n" + get("/page"),
		get("/page", "Content-Length: 3", "Transfer-Encoding: chunked") + "0\r\n\r\n", get("/page", "Connection: close") + get("/page"),
		"GET /page HTTP/1.1\nHost: a\n\n", "GET  /page HTTP/1.1\r\nHost: a\r\n\r\n", "GET /page HTTP/1.0\r\n\r\n" + get("/page"),
		"GET /page HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET /page HTTP/1.1\r\n\r\n", get("/page", " folded: x"), get("/page", "A : b"),
		get("/page", "Accept: a\rb"), get("/page", "Accept: \x80"), get("/page%zz"), get("//page"), get("/page?a;b"), get("/page#a"),
		"\r\n" + get("/page"), get("/page", "Expect: 100-continue", "Content-Length: 1") + "a", "HEAD /page HTTP/1.1\r\nHost: a\r\n\r\n" + get("/page"),
		get("/page", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		get("/page", strings.Repeat("A: b\r\n", 600)+"C: d"), get("/page", "Accept: "+strings.Repeat("a", 5000)), get("/page") + "GET /pa",
		"GET /page HTTP/1.1\r\nHost: \r\n\r\n", "GET /page HTTP/1.1\r\nHost: a b\r\n\r\n", "GET /page HTTP/1.1\r\nHost:a:1\r\n\r\n", "GET /page HTTP/1.12\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(send), []byte{})
		f.Add([]byte(send), []byte{0, 10, 200})
		f.Add([]byte(send), []byte{0})
	}
	f.Fuzz(func(t *testing.T, send, pieces []byte) {
		if bytes.Contains(send, []byte("/hijack")) || bytes.Contains(send, []byte("/slow")) {
			t.Skip("what these do is no answer")
		}
		want, got := answers(send, pieces, false), answers(send, pieces, true)
		if !slices.Equal(got, want) {
			t.Errorf("with the lane\n%s\nwithout\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
