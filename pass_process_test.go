//go:build unix

package caddygroupcache_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

func TestClientsOfUncacheableURLDoNotQueue(t *testing.T) {
	const clients, delay = 60, 300 * time.Millisecond
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		w.Header().Set("Cache-Control", "private")
		fmt.Fprint(w, r.Header.Get("Cookie"))
	})
	c := startCluster(t, 3, o, patient)
	start := time.Now()
	answers := together(clients, clients, func(i int) answer {
		return c[i%3].get("/mine", "Cookie", fmt.Sprint("user=", i))
	})
	figure(t, "60 clients of a private URL", time.Since(start), 1500*time.Millisecond, 4*time.Second)
	for i, a := range answers {
		a.is(t, fmt.Sprint("client ", i), fmt.Sprint("user=", i))
	}
	if n := o.fetches(""); n != clients {
		t.Errorf("%d fetches for %d clients", n, clients)
	}
	c.awaitIdle()
}

// An uncacheable origin has what a cache must not keep, and what it must not change.
type uncacheable struct {
	t    *testing.T
	next chan struct{} // lets a stream of events go on
	gone chan struct{} // closed when a stream has ended
}

func (o *uncacheable) handler() http.HandlerFunc {
	mux := http.NewServeMux()
	mux.HandleFunc("/events", o.events)
	mux.HandleFunc("/upgrade", o.upgrade)
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "page")
	})
	mux.HandleFunc("/trailer", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "with a trailer")
		w.Header().Set("X-Sum", "42")
	})
	mux.HandleFunc("/late-trailer/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "with a trailer")
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
	})
	mux.HandleFunc("/echo/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "%s ", r.Method)
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		http.ServeContent(w, r, "file.txt", time.Time{}, strings.NewReader("0123456789"))
	})
	return mux.ServeHTTP
}

func (o *uncacheable) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "max-age=60")
	fmt.Fprint(w, "data: first\n\n")
	w.(http.Flusher).Flush()
	select {
	case <-o.next:
		fmt.Fprint(w, "data: second\n\n")
		w.(http.Flusher).Flush()
	case <-r.Context().Done():
		return
	}
	<-r.Context().Done()
	close(o.gone)
}

func (o *uncacheable) upgrade(w http.ResponseWriter, _ *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		o.t.Error(err)
		return
	}
	defer conn.Close()
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	rw.Flush()
	io.Copy(conn, rw)
}

func TestWhatIsNotCacheablePassesUntouched(t *testing.T) {
	up := &uncacheable{t: t, next: make(chan struct{}), gone: make(chan struct{})}
	o := startOrigin(t, up.handler())
	c := startCluster(t, 2, o, "")
	t.Run("events", func(t *testing.T) { passesEvents(t, c, up) })
	t.Run("upgrade", func(t *testing.T) { passesUpgrade(t, c) })
	t.Run("early hints", func(t *testing.T) { passesHints(t, c) })
	t.Run("trailers", func(t *testing.T) { passesTrailers(t, c) })
	t.Run("methods and bodies", func(t *testing.T) { passesMethods(t, c, o) })
	t.Run("head and range", func(t *testing.T) { passesParts(t, c) })
	c.awaitIdle()
}

func passesEvents(t *testing.T, c cluster, o *uncacheable) {
	for _, p := range c { // each has a stream of its own
		ctx, leave := context.WithCancel(t.Context())
		resp, err := client.Do(p.request(http.MethodGet, "/events", nil).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		buf := make([]byte, len("data: first\n\n"))
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "data: first\n\n" {
			t.Errorf("%s: first event: %q, %v", p.name, buf, err)
		}
		o.next <- struct{}{}
		buf = make([]byte, len("data: second\n\n"))
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "data: second\n\n" {
			t.Errorf("%s: second event: %q, %v", p.name, buf, err)
		}
		leave()
		select { // it ends with its client
		case <-o.gone:
			o.gone = make(chan struct{})
		case <-time.After(hang):
			t.Errorf("%s: the client is gone, the upstream's stream goes on", p.name)
		}
		t.Logf("%s: %s", p.name, resp.Header.Get("Cache-Status"))
	}
}

func passesUpgrade(t *testing.T, c cluster) {
	for _, p := range c {
		// Not client.Do, whose timeout hides that the body can be written to.
		resp, err := client.Transport.RoundTrip(p.request(http.MethodGet, "/upgrade", nil, "Connection", "Upgrade", "Upgrade", "echo"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		conn, ok := resp.Body.(io.ReadWriteCloser)
		if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
			t.Fatalf("%s: %s", p.name, resp.Status)
		}
		for _, word := range []string{"hello", "again"} {
			if _, err := io.WriteString(conn, word); err != nil {
				t.Error(err)
			}
			buf := make([]byte, len(word))
			if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != word {
				t.Errorf("%s: echo of %s: %q, %v", p.name, word, buf, err)
			}
		}
	}
}

func passesHints(t *testing.T, c cluster) {
	for i, p := range c {
		var hints []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", header.Get("Link")))
			return nil
		}}
		r := p.request(http.MethodGet, "/hints", nil)
		a := do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
		a.is(t, p.name, "page")
		if i == 0 && (len(hints) != 1 || hints[0] != "103 </style.css>; rel=preload") {
			t.Errorf("%s: interim responses: %q", p.name, hints)
		}
		if a.shared() != (i > 0) {
			t.Errorf("%s: %s", p.name, a.cacheStatus())
		}
	}
}

func passesTrailers(t *testing.T, c cluster) {
	for _, p := range c {
		a := p.get("/trailer")
		a.is(t, p.name+" announced", "with a trailer")
		if a.trailer.Get("X-Sum") != "42" || a.shared() {
			t.Errorf("%s: announced trailer %v, %s", p.name, a.trailer, a.cacheStatus())
		}
		// The upstream is asked for a part of what is cold, and answers with the whole.
		for _, path := range []string{"/trailer?cold=" + p.name, "/late-trailer/cold-" + p.name} {
			if a := p.get(path, "Range", "bytes=0-3"); a.status == http.StatusOK && (a.body != "with a trailer" || a.trailer.Get("X-Sum") != "42") {
				t.Errorf("%s, %s: %q, trailer %v, %s", p.name, path, a.body, a.trailer, a.cacheStatus())
			}
		}
		// That there is one shows too late for who follows; who asked gets it.
		a = p.get("/late-trailer/" + p.name)
		a.is(t, p.name+" not announced", "with a trailer")
		if a.trailer.Get("X-Sum") != "42" {
			t.Errorf("%s: late trailer %v, %s", p.name, a.trailer, a.cacheStatus())
		}
		if a = p.get("/late-trailer/" + p.name); a.hit() {
			t.Errorf("%s: late trailer: %s", p.name, a.cacheStatus())
		}
	}
}

func passesMethods(t *testing.T, c cluster, o *origin) {
	for _, p := range c {
		for range 2 {
			do(p.request(http.MethodPost, "/echo/post", strings.NewReader("form"))).is(t, "POST", "POST form")
			a := do(p.request(http.MethodGet, "/echo/body", strings.NewReader(p.name)))
			a.is(t, "GET with a body", "GET "+p.name)
			if strings.Contains(a.cacheStatus(), "stored") || a.hit() {
				t.Errorf("GET with a body: %s", a.cacheStatus())
			}
		}
	}
	if n := o.fetches("/echo/body"); n != 4 {
		t.Errorf("%d fetches for 4 GET with a body", n)
	}
	for i, p := range c {
		a := p.get("/echo/body")
		a.is(t, "GET without a body", "GET ")
		if a.shared() != (i > 0) {
			t.Errorf("%s: GET without a body: %s", p.name, a.cacheStatus())
		}
	}
}

func passesParts(t *testing.T, c cluster) {
	head := func(p *process) answer { return do(p.request(http.MethodHead, "/file", nil)) }
	if a := head(c[0]); a.status != http.StatusOK || a.body != "" || a.hit() {
		t.Errorf("HEAD before GET: status %d, %q, %s", a.status, a.body, a.cacheStatus())
	}
	part := c[0].get("/file", "Range", "bytes=2-4")
	if part.status != http.StatusPartialContent || part.body != "234" {
		t.Errorf("range before GET: status %d, %q, %s", part.status, part.body, part.cacheStatus())
	}
	c[0].get("/file").is(t, "GET", "0123456789")
	for _, p := range c {
		a := head(p)
		if a.status != http.StatusOK || a.body != "" || !a.hit() || a.header.Get("Content-Length") != "10" {
			t.Errorf("%s: HEAD: status %d, %q, Content-Length %s, %s", p.name, a.status, a.body, a.header.Get("Content-Length"), a.cacheStatus())
		}
		part := p.get("/file", "Range", "bytes=2-4")
		if part.status != http.StatusPartialContent || part.body != "234" {
			t.Errorf("%s: range: status %d, %q, %s", p.name, part.status, part.body, part.cacheStatus())
		}
		a = p.get("/file")
		a.is(t, "GET", "0123456789")
		if !a.shared() {
			t.Errorf("%s: GET: %s", p.name, a.cacheStatus())
		}
	}
}
