package express

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pages is a site whose pages begin with /page, and the server behind it, which answers the
// same and everything else.
type pages struct {
	by      string // who has answered, as the server says it
	plain   bool   // it answers with pages only
	release chan struct{}
}

func (s pages) Answer(w *Writer, r *http.Request) bool {
	switch {
	case r.URL.Path == "/panic" && !s.plain:
		panic("of the site")
	case !strings.HasPrefix(r.URL.Path, "/page") && !strings.HasPrefix(r.URL.Path, wellKnown):
		return false
	}
	body := pageOf(r)
	w.Status(http.StatusOK)
	w.Field("By", "lane")
	w.Field("Content-Length", fmt.Sprint(len(body)))
	w.Field("Content-Type", "text/plain")
	w.Field("Date", time.Now().UTC().Format(http.TimeFormat))
	w.Send([]byte(body))
	return true
}

func pageOf(r *http.Request) string {
	body := "page " + r.Host + r.URL.Path + "?" + r.URL.RawQuery + " " + r.Header.Get("Accept")
	if strings.HasSuffix(r.URL.Path, "/large") {
		body += strings.Repeat("x", 1<<20)
	}
	return body
}

func (s pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("By", s.by)
	w.Header().Set("Content-Type", "text/plain")
	switch {
	case s.plain:
		s.page(w, r)
	case r.URL.Path == "/hijack":
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close() //nolint:errcheck // the client sees
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = io.Copy(conn, io.LimitReader(buffered, int64(len(hijacked))))
	case r.URL.Path == "/slow":
		<-s.release
		fallthrough
	default:
		s.page(w, r)
	}
}

func (pages) page(w http.ResponseWriter, r *http.Request) {
	body := pageOf(r)
	if sent, _ := io.ReadAll(r.Body); len(sent) > 0 {
		body += fmt.Sprintf(" with %q", sent)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	fmt.Fprint(w, body)
}

const hijacked = "GET /page HTTP/1.1\r\nHost: a.example\r\n\r\n"

// memory is a listener of connections in memory.
type memory struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newMemory() *memory { return &memory{conns: make(chan net.Conn), done: make(chan struct{})} }

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}
func (m *memory) Close() error   { m.once.Do(func() { close(m.done) }); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

func (m *memory) dial() net.Conn {
	client, server := net.Pipe()
	m.conns <- server
	return client
}

// serve starts a server with the lane in front.
func serve(t *testing.T, site *pages, timeout time.Duration) (*http.Server, *memory, *Open) {
	site.by = "server"
	m, open := newMemory(), new(Open)
	ln := NewListener(m, Options{
		Find:    func(*http.Request) Site { return site },
		Context: context.Background(), IdleTimeout: timeout, HeaderTimeout: timeout, WriteTimeout: timeout,
	}, open)
	s := &http.Server{Handler: site, IdleTimeout: timeout, ReadHeaderTimeout: timeout}
	go s.Serve(ln) //nolint:errcheck // until it is closed
	t.Cleanup(func() { _ = s.Close() })
	return s, m, open
}

// exchange sends requests and returns who has answered each.
func exchange(t *testing.T, c net.Conn, responses *bufio.Reader, n int, text string) (by []string) {
	t.Helper()
	go io.WriteString(c, text) //nolint:errcheck // what is not sent is not answered
	for range n {
		r, err := http.ReadResponse(responses, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		by = append(by, r.Header.Get("By")+" "+strings.Fields(string(body))[1])
	}
	return by
}

func get(path string, fields ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: a.example\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

// TestWhoAnswers: what the lane answers, and what it hands on without a trace.
func TestWhoAnswers(t *testing.T) {
	const page = "lane a.example/page?"
	for name, c := range map[string]struct{ send, want string }{
		"hits one after the other":   {get("/page") + get("/page"), page + ", " + page},
		"other pages":                {get("/page1") + get("/page2"), "lane a.example/page1?, lane a.example/page2?"},
		"a query, fields":            {get("/page?a=b", "Accept: x", "X-Any: y"), "lane a.example/page?a=b"},
		"a long header":              {get("/page", "Cookie: "+strings.Repeat("a", 3500)), "lane a.example/page?"},
		"a longer one":               {get("/page", "Cookie: "+strings.Repeat("a", 4500)), "server a.example/page?"},
		"not a hit":                  {get("/other"), "server a.example/other?"},
		"a part":                     {get("/page", "Range: bytes=0-1"), "server a.example/page?"},
		"a condition":                {get("/page", `If-None-Match: "a"`), "server a.example/page?"},
		"a field twice":              {get("/page", "Accept: a", "Accept: b"), "server a.example/page?"},
		"a pipeline with a miss":     {get("/page") + get("/other") + get("/page"), page + ", server a.example/other?, server a.example/page?"},
		"a body that looks like one": {"POST /other HTTP/1.1\r\nHost: a.example\r\nContent-Length: " + fmt.Sprint(len(hijacked)) + "\r\n\r\n" + hijacked, "server a.example/other?"},
		"a body of a GET":            {get("/page", "Content-Length: 5") + "12345" + get("/page"), "server a.example/page?, server a.example/page?"},
		"a chunked body":             {get("/page", "Transfer-Encoding: chunked") + "0\r\n\r\n" + get("/page"), "server a.example/page?, server a.example/page?"},
		"bare line feeds":            {"GET /page HTTP/1.1\nHost: a.example\n\n", "server a.example/page?"},
		"an absolute target":         {get("http://b.example/page"), "server b.example/page?"},
		"an ACME challenge":          {get("/.well-known/acme-challenge/x"), "server a.example/.well-known/acme-challenge/x?"},
		"one of ZeroSSL":             {get("/.well-known/pki-validation/x"), "server a.example/.well-known/pki-validation/x?"},
		"the last one":               {get("/page", "Connection: close"), "server a.example/page?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, m, _ := serve(t, new(pages), 0)
			conn := m.dial()
			defer conn.Close() //nolint:errcheck // what the server makes of it is its own
			got := exchange(t, conn, bufio.NewReader(conn), strings.Count(c.want, ",")+1, c.send)
			if strings.Join(got, ", ") != c.want {
				t.Errorf("answered by %q, want %q", got, c.want)
			}
		})
	}
}

// TestLaneComesBack: after a request that was handed on the next one may be answered, also
// if it has come before the response, or the header of the one between in pieces.
func TestLaneComesBack(t *testing.T) {
	s := &pages{release: make(chan struct{})}
	_, m, _ := serve(t, s, 0)
	conn := m.dial()
	responses := bufio.NewReader(conn)
	if got := exchange(t, conn, responses, 1, get("/other")); got[0] != "server a.example/other?" {
		t.Errorf("a miss: %q", got)
	}
	if got := exchange(t, conn, responses, 1, get("/page")); got[0] != "lane a.example/page?" {
		t.Errorf("after a miss: %q", got)
	}
	if _, err := io.WriteString(conn, get("/slow")); err != nil {
		t.Fatal(err)
	}
	go io.WriteString(conn, get("/page")) //nolint:errcheck // see below
	close(s.release)
	if got := exchange(t, conn, responses, 2, ""); got[1] != "lane a.example/page?" {
		t.Errorf("while another is answered: %q", got)
	}
	for _, piece := range []string{"GET /pa", "ge HTTP/1.1\r\nHos", "t: a.example\r\n\r\n"} {
		if _, err := io.WriteString(conn, piece); err != nil {
			t.Fatal(err)
		}
	}
	if got := exchange(t, conn, responses, 1, ""); got[0] != "server a.example/page?" {
		t.Errorf("in pieces: %q", got)
	}
	if got := exchange(t, conn, responses, 1, get("/page")); got[0] != "lane a.example/page?" {
		t.Errorf("after one in pieces: %q", got)
	}
}

// TestHijackedConnection: what follows is no HTTP.
func TestHijackedConnection(t *testing.T) {
	_, m, _ := serve(t, new(pages), 0)
	conn := m.dial()
	go io.WriteString(conn, get("/hijack")) //nolint:errcheck // see below
	responses := bufio.NewReader(conn)
	if _, err := http.ReadResponse(responses, nil); err != nil {
		t.Fatal(err)
	}
	go io.WriteString(conn, hijacked) //nolint:errcheck // see below
	echoed, err := io.ReadAll(responses)
	if err != nil || string(echoed) != hijacked {
		t.Errorf("%q came back, %v", echoed, err)
	}
}

// TestShutdownLetsAResponseEnd: the server counts the connection as idle.
func TestShutdownLetsAResponseEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m, open := serve(t, new(pages), time.Minute)
		conn := m.dial()
		responses := bufio.NewReader(conn)
		exchange(t, conn, responses, 1, get("/other")) // or it is new, which takes five seconds
		go io.WriteString(conn, get("/page/large"))    //nolint:errcheck // see below
		first, err := responses.Peek(1000)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatalf("with %d bytes of the response: %v", len(first), err)
		}
		ended := make(chan struct{})
		go func() { open.Wait(time.Hour); close(ended) }()
		synctest.Wait()
		select {
		case <-ended:
			t.Error("nobody waits for the response")
		default:
		}
		if got := exchange(t, conn, responses, 1, ""); got[0] != "lane a.example/page/large?" {
			t.Errorf("%q", got)
		}
		<-ended
		if _, err := responses.ReadByte(); err != io.EOF {
			t.Errorf("after the response: %v", err)
		}
	})
}

// TestStoppedServerEndsIdleConnections: of a connection that only the lane has answered,
// net/http knows no request, and would leave it open for some seconds.
func TestStoppedServerEndsIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m, _ := serve(t, new(pages), time.Minute)
		conn := m.dial()
		responses := bufio.NewReader(conn)
		exchange(t, conn, responses, 1, get("/page"))
		synctest.Wait()
		fresh := m.dial()
		began := time.Now()
		stopped := make(chan error)
		go func() { stopped <- s.Shutdown(t.Context()) }()
		if _, err := responses.ReadByte(); err != io.EOF || time.Since(began) > 0 {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		go io.WriteString(fresh, get("/page")) //nolint:errcheck // see below
		if got, err := io.ReadAll(fresh); len(got) > 0 || err != nil {
			t.Errorf("a new connection to a stopped server: %q, %v", got, err) // as without the lane
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// A stubborn connection is one that takes its time to close, as TLS does if its client takes nothing.
type stubborn struct {
	net.Conn
	closes chan struct{}
}

func (c *stubborn) Close() error {
	<-c.closes
	return c.Conn.Close()
}

// TestStoppedServerWaitsForNoClient: it accepts no connections any more, whatever those do that it has.
func TestStoppedServerWaitsForNoClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m, _ := serve(t, new(pages), time.Minute)
		client, server := net.Pipe()
		slow := &stubborn{server, make(chan struct{})}
		m.conns <- slow
		responses := bufio.NewReader(client)
		exchange(t, client, responses, 1, get("/page"))
		synctest.Wait()
		stopped := make(chan error, 1)
		go func() { stopped <- s.Shutdown(t.Context()) }()
		synctest.Wait()
		select {
		case <-m.done:
		default:
			t.Error("the listener is open")
		}
		close(slow.closes)
		if _, err := responses.ReadByte(); err != io.EOF {
			t.Errorf("after the response: %v", err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestPanicOfASite: it ends its connection, and no other waits for it.
func TestPanicOfASite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m, open := serve(t, new(pages), time.Minute)
		s.ErrorLog = log.New(io.Discard, "", 0)
		conn := m.dial()
		responses := bufio.NewReader(conn)
		exchange(t, conn, responses, 1, get("/page"))
		go io.WriteString(conn, get("/panic")) //nolint:errcheck // see below
		if _, err := responses.ReadByte(); err != io.EOF {
			t.Errorf("after a panic: %v", err)
		}
		began := time.Now()
		open.Wait(time.Hour)
		if took := time.Since(began); took > 0 {
			t.Errorf("a response that has ended is waited for: %s", took)
		}
	})
}

// TestCloseWrite: net/http closes one direction where the connection can, also that of a
// Unix socket.
func TestCloseWrite(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		address := map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "socket")}[network]
		inner, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		ln := NewListener(inner, Options{}, new(Open))
		defer ln.Close() //nolint:errcheck // of a test
		client, err := net.Dial(network, inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close() //nolint:errcheck // of a test
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // of a test
		half, ok := conn.(interface{ CloseWrite() error })
		if !ok {
			t.Errorf("%s: no CloseWrite", network)
		} else if err := half.CloseWrite(); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		if _, ok := conn.(io.ReaderFrom); ok != (network == "tcp") {
			t.Errorf("%s: io.ReaderFrom: %v", network, ok)
		}
	}
}

// TestDeadlines: the lane keeps those of the server.
func TestDeadlines(t *testing.T) {
	const timeout = time.Minute
	for name, c := range map[string]func(t *testing.T, conn net.Conn, responses *bufio.Reader){
		"idle":          func(*testing.T, net.Conn, *bufio.Reader) {},
		"half a header": func(_ *testing.T, conn net.Conn, _ *bufio.Reader) { go io.WriteString(conn, "GET /pa") }, //nolint:errcheck // the server waits for more
		"idle after a miss": func(t *testing.T, conn net.Conn, responses *bufio.Reader) {
			exchange(t, conn, responses, 1, get("/other"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, m, _ := serve(t, new(pages), timeout)
				conn := m.dial()
				responses := bufio.NewReader(conn)
				for range 10 { // longer than any of the deadlines
					exchange(t, conn, responses, 1, get("/page"))
					time.Sleep(timeout / 2) // the bubble's time
				}
				began := time.Now()
				c(t, conn, responses)
				_, _ = io.ReadAll(responses) // a half request gets an answer
				if took := time.Since(began); took > timeout+2*deadlineStep || took < timeout/2-deadlineStep {
					t.Errorf("closed after %s", took)
				}
			})
		})
	}
}

// TestSlowClients: one that takes something of a response from time to time gets all of it,
// one that takes nothing is cut off.
func TestSlowClients(t *testing.T) {
	const timeout = time.Minute
	synctest.Test(t, func(t *testing.T) {
		_, m, _ := serve(t, new(pages), timeout)
		conn := m.dial()
		go io.WriteString(conn, get("/page/large")) //nolint:errcheck // see below
		var got int
		b := make([]byte, 100<<10)
		for range 5 {
			n, err := conn.Read(b)
			if got += n; err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			time.Sleep(timeout * 3 / 4) // the bubble's time
		}
		time.Sleep(3 * timeout)
		rest, err := io.Copy(io.Discard, conn)
		if err != nil || int(rest)+got >= 1<<20 {
			t.Errorf("%d bytes after a long silence, %v", rest, err)
		}
	})
}

// TestFrontOfAServerThatBegins: a server that is to speak HTTP/3 sets Alt-Svc as soon as it does.
func TestFrontOfAServerThatBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain := http.Header{"Server": {"Caddy"}}
		var without, with Front
		without.Learn(plain, false)
		if !without.Knows(plain) {
			t.Error("a header without HTTP/3 is not taken in")
		}
		with.Learn(plain, true)
		if with.Knows(plain) {
			t.Error("the header of a server that begins is taken in")
		}
		both := http.Header{"Server": {"Caddy"}, "Alt-Svc": {`h3=":443"`}}
		if with.Learn(both, true); !with.Knows(both) {
			t.Error("a header with Alt-Svc is not taken in")
		}
		time.Sleep(settled)
		if with.Learn(plain, true); !with.Knows(plain) {
			t.Error("a server that has ended HTTP/3 is not believed")
		}
	})
}
