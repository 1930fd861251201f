//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// proxying is a node's configuration with a second site, at an address of its own: the
// first one hands its requests to the second sites of some nodes, and those to the origin.
func (p *process) proxying(address string, to ...string) string {
	site := func(port, to string) string {
		return fmt.Sprintf("http://:%s {\n\tbind 127.0.0.1\n\tgroupcache {\n\t\t%s\n\t}\n\treverse_proxy %s\n}\n", port, p.site, to)
	}
	config := p.caddyfile("")
	global, _, _ := strings.Cut(config, "\nhttp://")
	_, port, _ := strings.Cut(p.http, ":")
	_, second, _ := strings.Cut(address, ":")
	return global + "\n" + site(port, strings.Join(to, " ")) + site(second, p.upstream)
}

// TestCachesBehindCaches: nothing that is cold takes longer than the upstream, and all
// bytes of it come, wherever the second cache stands: in a handle of the same site, as
// when both import one snippet, in another site, or on another node.
func TestCachesBehindCaches(t *testing.T) {
	const after = 300 * time.Millisecond
	for name, prepare := range map[string]func(c cluster){
		"in a handle": func(c cluster) { c[0].config = c[0].nested("", "") },
		"in another site": func(c cluster) {
			second := freePorts(t, 1)[0]
			c[0].config = c[0].proxying(second, second)
		},
		"on other nodes": func(c cluster) {
			second := freePorts(t, len(c))
			for i, p := range c {
				p.config = p.proxying(second[i], append(second[i+1:len(c):len(c)], second[:i]...)...)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(after)
				w.Header().Set("Cache-Tag", "all")
				w.Header().Set("Etag", `"1"`)
				w.Header().Set("Cache-Control", "max-age=60")
				http.ServeContent(w, r, "", time.Time{}, strings.NewReader(long(r.URL.Path)))
			})
			n := 1
			if name == "on other nodes" {
				n = 3
			}
			c := newCluster(t, n, o, "key {host}{uri}")
			prepare(c)
			for _, p := range c {
				p.start()
			}
			c.awaitMembers()
			path := func(i int) string { return fmt.Sprintf("/cold/%d", i/6) }
			var slowest time.Duration
			for i, a := range together(60, 60, func(i int) answer { return c[i%n].get(path(i)) }) {
				a.is(t, path(i), long(path(i)))
				slowest = max(slowest, a.took)
			}
			figure(t, "the slowest of 60", slowest, after+300*time.Millisecond, 10*time.Second)
			listeners := 1
			if name == "on other nodes" { // there are two at each node, each with ports of its own
				listeners = n
			}
			figure(t, "fetches for 10 URLs", int64(o.fetches("")), 10*int64(listeners), 10*int64(listeners)+10)
			a := c[0].get("/far", "Range", "bytes=2500000-2500009")
			if a.err != nil || a.status != http.StatusPartialContent || a.body != long("/far")[2500000:2500010] {
				t.Errorf("a part: %d, %s, %v", a.status, brief(a.body), a.err)
			}
			for _, p := range c {
				if a := p.get(path(0)); !strings.Contains(a.cacheStatus(), "groupcache; hit") {
					t.Errorf("afterwards %s answers %s", p.name, a.cacheStatus())
				}
			}
			c.awaitIdle()
		})
	}
}

// long is a body of some 100 KiB for each path, and of some megabytes for those that are
// far.
func long(path string) string {
	size := 100 << 10
	if strings.HasPrefix(path, "/far") {
		size = 3 << 20
	}
	return strings.Repeat(bodyOf(path)+"\n", size/(len(bodyOf(path))+1))
}
