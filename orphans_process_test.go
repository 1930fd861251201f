//go:build linux

package caddygroupcache_test

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// leavingClients is how many clients TestClientsThatLeaveHoldNothing has.
var leavingClients = flag.Int("leaving-clients", 400, "clients that ask for slow URLs and leave at once")

// descriptors returns how many files and connections a process has open.
func (p *process) descriptors() int {
	p.t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(open)
}

// TestClientsThatLeaveHoldNothing: small requests for slow URLs, whose clients close their
// connections at once, cost the node no descriptors a little later.
func TestClientsThatLeaveHoldNothing(t *testing.T) {
	o := startOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/first" {
			<-r.Context().Done()
		}
	})
	for name, field := range map[string]string{"whole": "X-A: b", "far part": "Range: bytes=2500000-2500009"} {
		t.Run(name, func(t *testing.T) {
			p := startCluster(t, 1, o, "")[0]
			p.get("/first")
			before, asked := p.descriptors(), o.fetches("")
			conns := make([]net.Conn, *leavingClients)
			for i := range conns {
				conn, err := net.Dial("tcp", p.http)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, lines(fmt.Sprintf("GET /slow/%s/%d HTTP/1.1", field[:1], i), "Host: "+clientHost, field)); err != nil {
					t.Fatal(err)
				}
				conns[i] = conn
			}
			eventually(t, "the upstream is asked for all of them", func() bool { return o.fetches("") == asked+len(conns) })
			during := p.descriptors()
			for _, conn := range conns {
				conn.Close()
			}
			start := time.Now()
			eventually(t, "the descriptors are closed", func() bool { return p.descriptors() <= before+8 })
			t.Logf("%d descriptors before, %d with %d clients, %d after", before, during, len(conns), p.descriptors())
			figure(t, "until the descriptors are closed", time.Since(start), 15*time.Second, hang)
		})
	}
}
