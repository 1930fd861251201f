//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestReloadsUnderLoadLoseNothing(t *testing.T) {
	const reloads = 30
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, bodyOf(r.URL.Path))
		if r.URL.Path == "/long" { // under way all the time
			for range 20 {
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
				fmt.Fprint(w, ".")
			}
		}
	})
	c := startCluster(t, 3, o, "")
	warm := paths("warm", 30)
	sweep(t, c, warm)
	hits := `caddy_groupcache_requests_total{group="default",status="hit"}`
	before := c[0].metric(hits)
	fetched := o.fetches("")

	var requests atomic.Int64
	done := make(gate)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := i; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				path := warm[n%len(warm)]
				a := c[i/4].get(path) // four of six ask the node that reloads
				a.is(t, path, bodyOf(path))
				if a.err == nil && !a.hit() && !strings.Contains(a.cacheStatus(), "peer-timeout") {
					t.Errorf("%s: %s", path, a.cacheStatus())
				}
				requests.Add(1)
			}
		})
	}
	wg.Go(func() {
		c[0].get("/long").is(t, "/long", bodyOf("/long")+strings.Repeat(".", 20))
	})
	for i := range reloads {
		c[0].site = fmt.Sprintf("ttl %dm", i+1)
		if status, answer := c[0].load(c[0].caddyfile(fmt.Sprintf("header Reload %d", i))); status != http.StatusOK {
			t.Errorf("reload %d: status %d: %s", i, status, answer)
		}
		if a := c[0].get(warm[0]); a.header.Get("Reload") != strconv.Itoa(i) || !a.hit() {
			t.Errorf("reload %d: %v, Reload: %q, %s", i, a.err, a.header.Get("Reload"), a.cacheStatus())
		}
	}
	done.open()
	wg.Wait()
	t.Logf("%d requests during %d reloads, %d fetches", requests.Load(), reloads, o.fetches("")-fetched)
	for _, path := range warm {
		if n := o.fetches(path); n != 1 {
			t.Errorf("%s: %d fetches", path, n)
		}
	}
	if after := c[0].metric(hits); after <= before {
		t.Errorf("hits counted: %v before, %v after", before, after)
	}
	c.awaitMembers()
	c.awaitIdle()
}

func TestReloadThatCannotBeAppliedIsRefused(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	c := startCluster(t, 2, o, "")
	p := c[0]
	p.get("/page").is(t, "/page", bodyOf("/page"))
	good := p.caddyfile("")
	other := freePorts(t, 2)
	for _, change := range []struct{ name, caddyfile, says string }{
		{"cache size", strings.Replace(good, "gossip", "cache_size 64MiB\n\t\tgossip", 1), "cache_size"},
		{"gossip", strings.Replace(good, "gossip "+p.gossip, "gossip "+other[0], 1), "gossip"},
		{"peers", strings.Replace(good, "peers "+p.peers, "peers "+other[1], 1), "peers"},
		{"name", strings.Replace(good, "name "+p.name, "name other", 1), "name"},
		{"no cluster", good[:strings.Index(good, "groupcache {")] + "}\n" + good[strings.Index(good, "\nhttp://"):], "cluster"},
		{"unknown option", strings.Replace(good, "gossip", "colour blue\n\t\tgossip", 1), "colour"},
		{"unknown option of the directive", good[:strings.LastIndex(good, "groupcache {")] + "groupcache {\n\t\tcolour blue\n\t}\n}\n", "colour"},
		{"not loopback", strings.Replace(good, "gossip "+p.gossip, "gossip 192.0.2.1:7946", 1), "loopback"},
		{"bad secret", strings.Replace(good, "gossip", "secret short\n\t\tgossip", 1), "keygen"},
		{"another module's fault", strings.Replace(good, "reverse_proxy", "basic_auth {\n\tx y\n}\n\treverse_proxy", 1), ""},
	} {
		if change.caddyfile == good {
			t.Errorf("%s: nothing changed", change.name)
		}
		status, answer := p.load(change.caddyfile)
		t.Logf("%s: %d %s", change.name, status, strings.TrimSpace(answer))
		if status != http.StatusBadRequest || !strings.Contains(answer, change.says) {
			t.Errorf("%s: status %d, %s: want 400 and a word about %s", change.name, status, answer, change.says)
		}
		a := p.get("/page")
		a.is(t, change.name, bodyOf("/page"))
		if !a.hit() {
			t.Errorf("%s: %s", change.name, a.cacheStatus())
		}
		c.awaitMembers()
	}
	if status, answer := p.load(p.caddyfile("header X-After yes")); status != http.StatusOK {
		t.Errorf("a good config afterwards: status %d: %s", status, answer)
	}
	if a := p.get("/page"); !a.hit() || a.header.Get("X-After") == "" {
		t.Errorf("after a good config: %s", a.cacheStatus())
	}
	if n := o.fetches(""); n != 1 {
		t.Errorf("%d fetches", n)
	}
}
