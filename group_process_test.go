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

// TestReloadToAStrictFormServesNothingLax: what was stored under an option that is gone is
// not served, though it is there.
func TestReloadToAStrictFormServesNothingLax(t *testing.T) {
	for option, field := range map[string][2]string{"set_cookie store": {"Cookie", "a=b"}, "authorization ignore": {"Authorization", "Basic YTpi"}} {
		t.Run(option, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "max-age=600")
				w.Header().Set("Set-Cookie", "user=1")
				fmt.Fprint(w, "page of one")
			})
			if option == "authorization ignore" {
				o.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Cache-Control", "max-age=600")
					fmt.Fprint(w, "page of one")
				})
			}
			c := startCluster(t, 1, o, option)
			p := c[0]
			p.get("/a", field[0], field[1])
			if a := p.get("/a", field[0], field[1]); !a.hit() {
				t.Fatalf("%s: %s", option, a.cacheStatus())
			}
			if status, answer := p.load(strings.Replace(p.caddyfile(""), "\t"+option, "\tgroup default", 1)); status != 200 {
				t.Fatalf("%d %s", status, answer)
			}
			for range 2 {
				if a := p.get("/a", field[0], field[1]); a.hit() {
					t.Errorf("after the reload: %s", a.cacheStatus())
				}
			}
		})
	}
}
