//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// poison is in everything that an attacker sends and nobody else may get.
const poison = "evil.test"

// talk sends bytes over a connection of its own and returns all that comes back.
func talk(t *testing.T, p *process, raw string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.http, 5*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(conn, raw) }() // it may be refused before its end
	var got bytes.Buffer
	_, err = io.Copy(&got, conn)
	if err != nil && os.IsTimeout(err) {
		t.Errorf("%s: no end after %s to %s", p.name, brief(got.String()), brief(raw))
	}
	return got.String()
}

// lines makes a request of its lines, and closes the connection after it.
func lines(l ...string) string { return strings.Join(append(l, "", ""), "\r\n") }

// echoing answers what an upstream might make of a request, all of it, and says
// that everybody may have it.
func echoing(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Cache-Control", "max-age=60")
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s host=%s body=%s", r.Method, r.RequestURI, r.Host, body)
	for _, name := range slices.Sorted(mapKeys(r.Header)) {
		switch name {
		case "User-Agent", "Accept-Encoding", "X-Forwarded-For", "Via":
		default:
			fmt.Fprintf(w, " %s=%q", name, r.Header[name])
		}
	}
}

func mapKeys(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range h {
			if !yield(name) {
				return
			}
		}
	}
}

// startAttacked runs nodes that are expected to outlive the test.
func startAttacked(t *testing.T, n int, handler http.HandlerFunc, options string) (cluster, *origin) {
	t.Helper()
	o := startOrigin(t, handler)
	c := newCluster(t, n, o, patient+"\n\t\t"+options)
	for _, p := range c {
		p.overTLS()
		p.start()
	}
	c.awaitMembers()
	t.Cleanup(func() {
		for _, p := range c {
			select {
			case <-p.died:
				t.Errorf("%s is dead: %v", p.name, p.cmd.ProcessState)
			default:
			}
		}
	})
	return c, o
}

// knock sends bytes and doesn't mind whether they are answered.
func knock(t *testing.T, p *process, raw string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.http, 5*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	go func() {
		_, _ = io.WriteString(conn, raw)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(io.Discard, conn)
}

func (p *process) refused(port string) float64 {
	p.t.Helper()
	return p.metric(`caddy_groupcache_refused_total{port="` + port + `"}`)
}

// attack sends bytes over a connection, after a TLS handshake if there is a
// config for one, and fails the test if they are answered.
func attack(t *testing.T, addr string, config *tls.Config, send []byte) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	var stream net.Conn = conn
	if config != nil {
		stream = tls.Client(conn, config)
	}
	_, _ = stream.Write(send) // the handshake may fail here, or in the read
	if config == nil {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	const alert = 7 // bytes of TLS that say no
	answer, err := io.ReadAll(stream)
	if len(answer) > alert || os.IsTimeout(err) {
		t.Errorf("answered %s, then %v", brief(string(answer)), err)
	}
}
