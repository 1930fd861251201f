package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

const runField = "X-Lab-Run" // keeps the late requests of one run out of the next

// A rig runs compositions, one after the other, in this process.
type rig struct {
	root      string
	sets      [2][2][2]endpoint // for odd and even runs, since the config before may still accept at its own
	lanes     [2][2]endpoint    // of this run: site and twin, each with a first and a second listener
	upstreams [2]*upstream
	servers   []*http.Server
	release   func() // gives the ports back
	visitors  []*visitor
	nodes     []*harness.Node // of a cluster, if there is one: instead of this process
	runs      int
}

// newRig makes a rig whose files lie in dir.
func newRig(dir string) (*rig, error) {
	g := &rig{root: dir}
	for name, text := range map[string]string{
		"files/a.txt": "a file\n", "files/b.html": "<p>another</p>\n", "files/b.html.gz": zipped("<p>another</p>\n"),
		"tpl/plain.html": "<p>{{1 | add 1}}</p>\n",
		"tpl/a.html":     "<p>A</p>{{httpInclude \"/p/fragment-a\"}}\n", "tpl/b.html": "<p>B</p>{{httpInclude \"/p/fragment-b\"}}\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return nil, err
		}
		if err := os.Chtimes(name, lastModified, lastModified); err != nil { // or how long they are fresh would depend on the clock
			return nil, err
		}
	}
	free, release, err := harness.Lab.Take(4 * len(g.lanes)) // connections are made from other ports
	if err != nil {
		return nil, fmt.Errorf("looking for ports: %w", err)
	}
	g.release = release
	for i := range g.lanes {
		u := new(upstream)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		server := &http.Server{Handler: u, ErrorLog: discard()}
		go func() { _ = server.Serve(l) }()
		g.upstreams[i], g.servers = u, append(g.servers, server)
		for j := range 4 {
			g.sets[j/2][i][j%2] = endpoint{listen: free[4*i+j], upstream: l.Addr().String(), cached: i == 0, second: j%2 == 1}
		}
	}
	for _, u := range users {
		g.visitors = append(g.visitors, newVisitor(u))
	}
	return g, nil
}

func (g *rig) close() error {
	err := errors.Join(caddy.Stop(), harness.EndAll(g.nodes...))
	for _, s := range g.servers {
		err = errors.Join(err, s.Close())
	}
	g.release()
	return err
}

// startCluster has the compositions run on a cluster of processes.
func (g *rig) startCluster(n int, dir string) error {
	nodes, err := harness.Lab.Nodes(n, dir)
	if err != nil {
		return err
	}
	for _, node := range nodes {
		node.App, node.Upstream = "cache_size 64MiB", g.sets[0][0][0].upstream // until there is a composition
	}
	if err := harness.StartAll(context.Background(), nodes...); err != nil {
		return err
	}
	g.nodes = nodes
	return nil
}

// addressOf returns the address of a node, of this process if there is no cluster.
func (g *rig) addressOf(node int) string {
	if len(g.nodes) == 0 {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.0.0.%d", 11+node%len(g.nodes))
}

// load starts the composition's lanes, on all nodes.
func (g *rig) load(c *composition, host string, lanes ...[2]endpoint) error {
	for _, v := range g.visitors {
		v.transport.CloseIdleConnections()
	}
	var ends []endpoint
	for _, lane := range lanes {
		ends = append(ends, lane[:]...)
	}
	for i, node := range g.nodes {
		var here []endpoint
		for _, end := range ends {
			here = append(here, end.at(g.addressOf(i)))
		}
		node.Upstream, node.Global, node.Sites = "", c.global(), c.sites(host, g.root, here)
		if err := node.Load(); err != nil {
			return err
		}
	}
	if len(g.nodes) > 0 {
		return nil
	}
	text := c.caddyfile(host, g.root, ends)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil {
		return fmt.Errorf("adapting\n%s: %w", text, err)
	}
	return caddy.Load(config, false)
}

// An outcome is what came of one composition.
type outcome struct {
	differs  *difference
	refused  string   // what validate said, if the site was refused for a reason that is right
	upstream [2]int64 // requests
}

// try runs a composition. A 502, which no script has, is reverse_proxy's word for a
// connection that the upstream has just cut, so such a difference has to come again.
func (g *rig) try(c *composition) (o outcome, err error) {
	for range 3 {
		if o, err = g.tryOnce(c); o.differs == nil || !o.differs.badGateway {
			break
		}
	}
	return o, err
}

// tryOnce runs a composition in a cache of its own.
func (g *rig) tryOnce(c *composition) (o outcome, err error) {
	g.runs++
	g.lanes = g.sets[g.runs%2]
	host := fmt.Sprintf("c%d.test", g.runs)
	if err := g.load(c, host, g.lanes[0], g.lanes[1]); err != nil {
		if other := g.load(c, host, g.lanes[1]); other != nil {
			return o, fmt.Errorf("seed %d: the twin is refused too, so the laboratory is wrong: %w", c.seed, other)
		}
		if strings.Contains(err.Error(), "configured twice") {
			o.differs = differs("refused", "%v", err)
		}
		o.refused = err.Error()
		return o, nil
	}
	run := fmt.Sprint(g.runs)
	for _, u := range g.upstreams {
		u.play(run, c)
	}
	tags := make(map[string]string)
	more := c.any(func(e *element) bool { return e.more })
	broken := false // net/http asks again over a connection that was cut, so requests don't count
	for i := 0; i < len(c.requests) && o.differs == nil; {
		n := 1
		for c.requests[i].together && i+n < len(c.requests) && n < 4 {
			n++
		}
		var failed bool
		o.differs, failed = g.askBoth(c, host, c.requests[i:i+n], tags)
		broken = broken || failed
		i += n
	}
	for i, u := range g.upstreams {
		o.upstream[i] = u.calls.Load()
	}
	if o.differs == nil && !broken && !more && o.upstream[0] > o.upstream[1] {
		o.differs = differs("requests", "%d upstream requests, twin %d", o.upstream[0], o.upstream[1])
	}
	return o, nil
}

// askBoth sends requests to the site at the same time, then to its twin. It reports
// whether the twin has failed one.
func (g *rig) askBoth(c *composition, host string, requests []request, tags map[string]string) (d *difference, failed bool) {
	if requests[0].method == "CHANGE" {
		return g.change(host, requests[0]), false
	}
	for i := range requests {
		requests[i].tag = tags[requests[i].uri]
	}
	var answers [2][]*answer
	for lane := range answers {
		answers[lane] = make([]*answer, len(requests))
		var wg sync.WaitGroup
		for i, r := range requests {
			end := g.lanes[lane][0]
			if r.second {
				end = g.lanes[lane][1]
			}
			end = end.at(g.addressOf(r.node))
			wg.Go(func() { answers[lane][i] = g.visitors[r.user].ask(end.listen, host, fmt.Sprint(g.runs), r, r.tag) })
		}
		wg.Wait()
	}
	for i, r := range requests {
		if d := c.compare(r, answers[0][i], answers[1][i]); d != nil {
			d.text = r.String() + ": " + d.text
			d.badGateway = answers[0][i].status == http.StatusBadGateway || answers[1][i].status == http.StatusBadGateway
			return d, failed
		}
		twin := answers[1][i]
		failed = failed || twin.err != nil
		if twin.header != nil {
			tags[r.uri] = twin.header.Get("Etag")
		}
	}
	return nil, failed
}

// change has a page change at both upstreams, and purges it where there is a cache. If
// the site's guards let no user purge, the page stays as it was.
func (g *rig) change(host string, r request) *difference {
	for _, u := range g.upstreams {
		u.change(r.uri, 1)
	}
	r.method = "PURGE"
	end := g.lanes[0][0].at(g.addressOf(r.node))
	for _, v := range g.visitors {
		switch a := v.ask(end.listen, host, fmt.Sprint(g.runs), r, ""); {
		case a.status == http.StatusOK && bytes.Contains(a.body, []byte("purged")):
			return nil
		case a.status >= 500:
			return differs("purge", "%v: %d %s %v", r, a.status, a.body, a.err)
		}
	}
	for _, u := range g.upstreams {
		u.change(r.uri, -1)
	}
	return nil
}

// shrink returns the smallest composition that still shows the kind of difference,
// with the difference. It drops elements and requests as long as that goes.
func (g *rig) shrink(c *composition, d *difference) (*composition, *difference) {
	until := time.Now().Add(20 * time.Second)
	shows := func(smaller *composition) bool {
		for range 2 { // it may take some luck
			o, err := g.try(smaller)
			if err == nil && o.differs != nil && o.differs.kind == d.kind {
				c, d = smaller, o.differs
				return true
			}
		}
		return false
	}
	for again := true; again && time.Now().Before(until); {
		again = false
		for i := len(c.elements) - 1; i >= 0; i-- {
			if i < len(c.elements) {
				smaller := *c
				smaller.elements = without(c.elements, i, 1)
				again = shows(&smaller) || again
			}
		}
		for size := max(len(c.requests)/2, 1); size > 0; size /= 2 {
			for i := len(c.requests) - size; i >= 0; i -= size {
				if i+size <= len(c.requests) {
					smaller := *c
					smaller.requests = without(c.requests, i, size)
					again = shows(&smaller) || again
				}
			}
		}
	}
	if c.shape != sorted && !c.any(func(e *element) bool { return e.ordered }) {
		smaller := *c
		smaller.shape = sorted
		shows(&smaller)
	}
	return c, d
}

func without[T any](all []T, i, n int) []T {
	return append(append([]T(nil), all[:i]...), all[i+n:]...)
}
