package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(ceiling))
	httpcaddyfile.RegisterHandlerDirective("bench_ceiling", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		c := new(ceiling)
		return c, c.UnmarshalCaddyfile(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("bench_ceiling", httpcaddyfile.Before, "respond")
}

// fields are what the ceiling handler sets; with Server, that Caddy adds, and Date,
// that net/http does, its clients get 14. As each field is a cost to net/http, so
// do those of all that is compared with it.
var fields = [...][2]string{
	{"Cache-Control", "public, max-age=86400"},
	{"Content-Length", ""},
	{"Content-Language", "en"},
	{"Content-Type", "text/html; charset=utf-8"},
	{"Etag", `"33a64df551425fcc55e4d42a148795d9f25f89d4"`},
	{"Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT"},
	{"Referrer-Policy", "same-origin"},
	{"Strict-Transport-Security", "max-age=31536000"},
	{"Vary", "Accept-Encoding"},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"},
	{"X-Request-Time", "0.013"},
}

// hitFields are what a response from the cache has beside fields.
var hitFields = [...][2]string{
	{"Age", "17"},
	{"Cache-Status", "groupcache; hit; ttl=86383; detail=local"},
	{"Date", "Sun, 22 Nov 2026 12:00:00 GMT"},
	{"Server", "origin/1.0"},
	{"Via", "1.1 Caddy"},
}

// added is how many of hitFields the upstream does not send: Age, Cache-Status and
// Via.
const added = 3

// bodies are what is served, by the first part of the path: its size.
var bodies = func() map[string][]byte {
	all := make(map[string][]byte)
	for _, size := range []int{smallBody, 1 << 10, 10 << 10, 1 << 20} {
		body := []byte(strings.Repeat(rand.Text()+"\n", size/27+1))
		all[strconv.Itoa(size)] = body[:size]
	}
	return all
}()

// smallBody is the size of the bodies that memory per entry is measured with.
const smallBody = 100

// bodyOf returns the body that a path of the form /size or /size/anything asks
// for.
func bodyOf(path string) (size string, body []byte) {
	size, _, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return size, bodies[size]
}

// ceiling is the least that a handler of Caddy does to serve from memory: it
// sets twelve fields and writes a prepared []byte. No cache can be faster.
type ceiling struct {
	// Whether to set as many fields as a response has that came to the cache with
	// all of these.
	Full bool `json:"full,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*ceiling) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.bench_ceiling", New: func() caddy.Module { return new(ceiling) }}
}

// UnmarshalCaddyfile sets up the handler. Syntax:
//
//	bench_ceiling [full]
func (c *ceiling) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() && d.Val() == "full" {
		c.Full = true
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// ServeHTTP serves a prepared body.
func (c *ceiling) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	size, body := bodyOf(r.URL.Path)
	if body == nil {
		return caddyhttp.Error(http.StatusNotFound, fmt.Errorf("no body of size %q", size))
	}
	header := w.Header()
	for _, f := range &fields {
		header[f[0]] = []string{f[1]}
	}
	header["Content-Length"] = []string{size}
	if c.Full {
		for _, f := range &hitFields {
			header[f[0]] = []string{f[1]}
		}
	}
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(body)
	return err
}

// serveOrigin is the upstream: a process of its own. What it says of paths that
// begin with /private is not to be stored. All fields it sets for those that begin
// with /full; otherwise so many fewer as the cache and reverse_proxy add.
func serveOrigin(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == socketPath {
			echo(w)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body) // an upload that breaks off gets no answer
		path, private := strings.CutPrefix(r.URL.Path, privatePrefix)
		path, full := strings.CutPrefix(path, fullPrefix)
		size, body := bodyOf(path)
		if body == nil {
			http.NotFound(w, r)
			return
		}
		own := fields[:]
		if !full {
			own = own[:len(own)-added]
		}
		header := w.Header()
		for _, f := range own {
			header[f[0]] = []string{f[1]}
		}
		header["Content-Length"] = []string{size}
		header["Server"] = []string{"origin/1.0"}
		if private {
			header["Cache-Control"] = []string{"private"}
		}
		_, _ = w.Write(body) // a client that is gone needs no error
	})}
	return server.Serve(listener)
}

// echo upgrades a connection, and sends back what comes.
func echo(w http.ResponseWriter) {
	conn, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if err == nil {
		_, _ = io.Copy(conn, in) // until the client is gone
	}
}

const (
	privatePrefix = "/private"
	fullPrefix    = "/full"
)

// Interface guards
var (
	_ caddyhttp.MiddlewareHandler = (*ceiling)(nil)
	_ caddyfile.Unmarshaler       = (*ceiling)(nil)
)
