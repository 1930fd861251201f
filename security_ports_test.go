//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// throwing throws bytes at a port, and wants no more than a short answer.
func throwing(t *testing.T, network, addr string, bytes []byte) func() {
	return func() {
		conn, err := net.DialTimeout(network, addr, 5*time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = conn.Write(bytes) // may be reset before it has taken all
		if network == "udp" {
			return
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		if n, err := io.Copy(io.Discard, io.LimitReader(conn, 1<<20)); n == 1<<20 || os.IsTimeout(err) {
			t.Errorf("%s at %s: %d bytes of answer, then %v", network, addr, n, err)
		}
	}
}

// posting posts to a node's peers port, where nothing is for whoever does.
func posting(t *testing.T, p *process, path string, body []byte) func() {
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	return func() {
		transport := &http.Transport{Protocols: &h2}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).
			Post("http://"+p.peers+path, "", bytes.NewReader(body))
		if err != nil { // the node may close who has no part in the cluster before it answers
			if os.IsTimeout(err) {
				t.Errorf("%s: %v", path, err)
			}
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

func TestStrangersAtThePortsAreRefused(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	c := startCluster(t, 2, o, "")
	p := c[0]
	refused := func(port string) float64 { return p.metric(`caddy_groupcache_refused_total{port="` + port + `"}`) }
	noise := make([]byte, 4096)
	src := rand.NewChaCha8([32]byte{2})
	_, _ = src.Read(noise) // never fails
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, s := range []struct {
		name    string
		port    string
		send    func()
		counted bool
	}{
		{"HTTP/1.1", "peers", throwing(t, "tcp", p.peers, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), true},
		{"TLS", "peers", func() {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", p.peers, &tls.Config{InsecureSkipVerify: true})
			if err == nil {
				t.Error("a TLS handshake without TLS")
				conn.Close()
			}
		}, true},
		{"noise", "peers", throwing(t, "tcp", p.peers, noise), true},
		{"preface and noise", "peers", throwing(t, "tcp", p.peers, append([]byte(preface), noise...)), true},
		{"nothing", "peers", throwing(t, "tcp", p.peers, nil), false},
		{"another path", "peers", posting(t, p, "/", nil), true},
		{"another version", "peers", posting(t, p, "/2/lookup", noise), true},
		{"noise as a query", "peers", posting(t, p, "/1/lookup", noise), true},
		{"noise as a publication", "peers", posting(t, p, "/1/publish", noise), true},
		{"an endless frame", "peers", posting(t, p, "/1/lookup", []byte("q\xff\xff\xff\xff")), true},
		{"an endless publication", "peers", posting(t, p, "/1/publish", []byte("q\xff\xff\xff\xff")), true},
		{"noise", "gossip", throwing(t, "tcp", p.gossip, noise), true},
		{"HTTP/1.1", "gossip", throwing(t, "tcp", p.gossip, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), true},
		{"noise by UDP", "gossip", throwing(t, "udp", p.gossip, noise[:1000]), true},
	} {
		before, begin := refused(s.port), time.Now()
		const times = 20
		var wg sync.WaitGroup
		for range times {
			wg.Go(s.send)
		}
		wg.Wait()
		if s.counted {
			eventually(t, s.name+" at "+s.port+" is counted", func() bool { return refused(s.port) > before })
		}
		t.Logf("%s at %s: %v of %d counted, %v", s.name, s.port, refused(s.port)-before, times, time.Since(begin))
	}
	select {
	case <-p.died:
		t.Fatalf("the node has ended: %v", p.cmd.ProcessState)
	default:
	}
	c.awaitMembers()
	sweep(t, c, paths("after", 20))
	c.awaitIdle()
}
