//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestTwoSitesWithDifferentSettings, and no group named: each goes by its own.
func TestTwoSitesWithDifferentSettings(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
			c := newCluster(t, nodes, o, "ttl 1h")
			for _, p := range c {
				host, port, _ := net.SplitHostPort(p.http)
				p.config = p.caddyfile("") + fmt.Sprintf(
					"http://second.test:%s {\n\tbind %s\n\tgroupcache {\n\t\tttl 2h\n\t\tset_cookie store\n\t\tmax_body_size 1MiB\n\t}\n\treverse_proxy %s\n}\n", port, host, o.addr())
				p.start()
			}
			c.awaitMembers()
			for host, ttl := range map[string]string{clientHost: "ttl=3", "second.test": "ttl=7"} {
				for i, p := range append(c[:1:1], c...) {
					r := p.request(http.MethodGet, "/a", nil)
					r.Host = host
					a := do(r)
					status := a.header.Get("Cache-Status")
					if a.body != host || i > 0 && !strings.Contains(status, "hit; "+ttl) {
						t.Errorf("%s at node %d: %d %q %s", host, i, a.status, a.body, status)
					}
				}
			}
			if n := o.fetches("/a"); n != 2 {
				t.Errorf("%d fetches", n)
			}
		})
	}
}
