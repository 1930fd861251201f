//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// guarded are sites that make something else of requests with X-Role: guest, by what
// stands around the cache, and what such a request gets: a status, or -1 for none.
var guarded = map[string]struct {
	lines  string
	status int
	body   string
}{
	"abort":          {"abort @guest", -1, ""},
	"respond":        {"respond @guest denied 403", 403, "denied"},
	"error":          {"error @guest 403", 403, ""},
	"handle":         {"handle @guest {\n\trespond internal 203\n}", 203, "internal"},
	"nested":         {"handle /* {\n\troute {\n\t\trespond @guest internal 203\n\t}\n}", 203, "internal"},
	"not":            {"@other not header X-Role admin\n\trespond @other denied 403", 403, "denied"},
	"expression":     {"@other expression `{http.request.header.X-Role} == \"guest\"`\n\trespond @other denied 403", 403, "denied"},
	"placeholder":    {"respond @any \"for {http.request.header.X-Role}\"\n\t@any path /*", 200, "for guest"},
	"rewrite":        {"rewrite @guest /p/rewritten", 200, "/p/rewritten for "},
	"request_header": {"request_header @guest X-Tenant special", 200, "/a for special"},
	"field":          {"request_header X-Tenant \"{http.request.header.X-Role}\"", 200, "/a for guest"},
	"vars":           {"@set vars {http.request.header.X-Role} guest\n\trespond @set denied 403", 403, "denied"},
}

// plain is a node's configuration with the proxy outside of any handle.
func plain(p *process, lines string) string {
	config := p.caddyfile(lines)
	i := strings.Index(config, "\thandle /of/another/route")
	return config[:i] + "\treverse_proxy " + p.upstream + "\n}\n"
}

// TestRoutesAroundTheCache: what they make of a request follows from its key. Requests of
// both kinds come one after the other, and at the same time.
func TestRoutesAroundTheCache(t *testing.T) {
	for name, site := range guarded {
		for _, nodes := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", name, nodes), func(t *testing.T) {
				o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintf(w, "%s for %s", r.URL.Path, r.Header.Get("X-Tenant"))
				})
				c := newCluster(t, nodes, o, "ttl 1h")
				for _, p := range c {
					p.config = plain(p, "\t@guest header X-Role guest\n\t"+site.lines)
					p.start()
				}
				c.awaitMembers()
				check := func(p *process, path, role string, a answer) {
					want, body := 200, ""
					if role == "guest" {
						want, body = site.status, strings.ReplaceAll(site.body, "/a", path)
					}
					switch {
					case want == -1 && a.err == nil:
						t.Errorf("%s as %s at %s: %d %q", path, role, p.name, a.status, a.body)
					case want > 0 && (a.status != want || role == "guest" && !strings.HasPrefix(a.body, body) || role != "guest" && strings.Contains(a.body, "guest")):
						t.Errorf("%s as %s at %s: %d %q (%s)", path, role, p.name, a.status, a.body, a.cacheStatus())
					}
				}
				for i, first := range []string{"admin", "guest"} {
					path := fmt.Sprint("/a/", i)
					for _, role := range []string{first, "guest", "admin", "guest"} {
						for _, p := range c {
							check(p, path, role, p.get(path, "X-Role", role))
						}
					}
				}
				var all sync.WaitGroup
				for i := range 40 {
					role, p := []string{"guest", "admin"}[i%2], c[i%len(c)]
					all.Go(func() { check(p, "/a/together", role, p.get("/a/together", "X-Role", role)) })
				}
				all.Wait()
				if a := c[0].get("/a/0", "X-Role", "admin"); !a.hit() && site.status != 200 {
					t.Errorf("what the route allows is not cached: %s", a.cacheStatus())
				}
			})
		}
	}
}

// TestListenersDoNotShare: what one listener's site has stored, no client of another one
// gets by its Host.
func TestListenersDoNotShare(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "inner for "+r.Host) })
			public := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "public for "+r.Host) })
			c := newCluster(t, nodes, o, "ttl 1h")
			outer := freePorts(t, nodes)
			for i, p := range c {
				host, port, _ := net.SplitHostPort(outer[i])
				p.config = p.caddyfile("") + fmt.Sprintf("http://:%s {\n\tbind %s\n\tgroupcache {\n\t\tttl 1h\n\t}\n\treverse_proxy %s\n}\n", port, host, public.addr())
				p.start()
			}
			c.awaitMembers()
			for i, p := range c {
				eventually(t, "the public listener is there", func() bool {
					conn, err := net.Dial("tcp", outer[i])
					return err == nil && conn.Close() == nil
				})
				for range 2 {
					r := p.request(http.MethodGet, "/a", nil)
					r.Host = clientHost + p.http[strings.LastIndex(p.http, ":"):]
					inner := do(r)
					r.URL.Host = outer[i]
					if a := do(r); a.body != "public for "+r.Host || inner.body != "inner for "+r.Host {
						t.Errorf("node %d: %q by the inner listener, %q by the public one (%s)", i, inner.body, a.body, a.cacheStatus())
					}
				}
			}
		})
	}
}

// TestUnsafeRequestsReachAllKeysOfTheirURL: also those of clients that the route tells from
// the one that has sent it.
func TestUnsafeRequestsReachAllKeysOfTheirURL(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "x") })
	c := newCluster(t, 3, o, "ttl 1h")
	for _, p := range c {
		p.config = plain(p, "\t@guest header X-Role guest\n\thandle @guest {\n\t\treverse_proxy "+o.addr()+"\n\t}")
		p.start()
	}
	c.awaitMembers()
	fill := func() {
		for _, p := range c {
			for _, role := range []string{"guest", "admin"} {
				p.get("/a", "X-Role", role)
			}
		}
	}
	fill()
	before := o.fetches("/a")
	fill()
	if n := o.fetches("/a"); n != before {
		t.Errorf("%d fetches for what is stored", n-before)
	}
	if a := do(c[1].request(http.MethodPut, "/a", nil, "X-Role", "admin")); a.status != 200 {
		t.Fatalf("PUT: %d", a.status)
	}
	for _, role := range []string{"guest", "admin"} {
		if a := c[2].get("/a", "X-Role", role); a.hit() {
			t.Errorf("as %s: %s after a PUT", role, a.cacheStatus())
		}
	}
}
