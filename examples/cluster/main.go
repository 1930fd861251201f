// Command cluster shows three Caddy nodes on one machine that share one cache.
//
//	go run ./examples/cluster
//
// It starts an origin that takes 400 ms for every response and three nodes in
// front of it, each a process of its own, and says what to try. Everything
// listens on loopback. Ctrl-C ends all of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

const (
	nodeCount   = 3
	originDelay = 400 * time.Millisecond
)

func main() {
	harness.Become(map[string]func(){harness.Caddy: caddycmd.Main}) // each node is this program once more
	offset := flag.Int("offset", 0, "a number to add to all ports")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *offset); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// run runs the demonstration until ctx ends or a node does.
func run(ctx context.Context, offset int) error {
	ports := portsFrom(offset)
	if err := ports.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "groupcache-cluster-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	origin, err := startOrigin(ports.origin)
	if err != nil {
		return err
	}
	defer origin.Close()

	nodes := ports.nodesIn(dir)
	if err := harness.StartAll(ctx, nodes...); err != nil {
		return err
	}
	defer harness.EndAll(nodes...)
	instruct(ports)
	died := make(chan error, nodeCount)
	for _, n := range nodes {
		go func() {
			<-n.Over()
			died <- n.Err()
		}()
	}
	select {
	case <-ctx.Done():
	case err := <-died:
		if ctx.Err() == nil { // Ctrl-C goes to the nodes too
			return err
		}
	}
	fmt.Println("\nending")
	return nil
}

// nodePorts are the ports of one node.
type nodePorts struct{ http, admin, gossip, peers int }

type clusterPorts struct {
	origin int
	nodes  [nodeCount]nodePorts
}

func portsFrom(offset int) clusterPorts {
	c := clusterPorts{origin: 9080 + offset}
	for i := range c.nodes {
		c.nodes[i] = nodePorts{
			http: 8081 + i + offset, admin: 2019 + i + offset,
			gossip: 7946 + i + offset, peers: 8000 + i + offset,
		}
	}
	return c
}

// check says which port is in use before half of the cluster is running.
func (c clusterPorts) check() error {
	if err := free("the origin", c.origin); err != nil {
		return err
	}
	for i, n := range c.nodes {
		for _, use := range []struct {
			what string
			port int
		}{{"HTTP", n.http}, {"admin API", n.admin}, {"gossip", n.gossip}, {"peers", n.peers}} {
			if err := free(fmt.Sprintf("%s of node %d", use.what, i+1), use.port); err != nil {
				return err
			}
		}
	}
	return nil
}

func free(whose string, port int) error {
	addr := loopback(port)
	l, err := net.Listen("tcp", addr)
	if err == nil {
		l.Close()
		var p net.PacketConn
		if p, err = net.ListenPacket("udp", addr); err == nil {
			p.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("port %d (%s) cannot be used: %w\nEnd what is using it, or move all ports, for example with -offset 10000", port, whose, err)
	}
	return nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// startOrigin serves what stands for somebody's slow application.
func startOrigin(port int) (*http.Server, error) {
	var fetches atomic.Int64
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := fetches.Add(1)
		fmt.Printf("origin: fetch %d: %s %s\n", n, r.Method, r.URL.Path)
		select {
		case <-time.After(originDelay):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "%s, fetch %d, made at %s\n", r.URL.Path, n, time.Now().Format("15:04:05.000"))
	})}
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return nil, fmt.Errorf("starting the origin: %w", err)
	}
	go func() { _ = s.Serve(l) }() // it ends with Close
	return s, nil
}

// nodesIn are the nodes, with folders in dir. The nodes of a real cluster have one
// host name. Here each has a port of its own, which the default key would tell
// apart; so the key leaves the host out.
func (c clusterPorts) nodesIn(dir string) (nodes []*harness.Node) {
	for i, p := range c.nodes {
		name := fmt.Sprintf("node-%d", i+1)
		nodes = append(nodes, &harness.Node{
			Name: name, Dir: filepath.Join(dir, name), HTTP: loopback(p.http), Admin: loopback(p.admin), Gossip: loopback(p.gossip), Peers: loopback(p.peers),
			Join:     fmt.Sprint(loopback(c.nodes[0].gossip), " ", loopback(c.nodes[1].gossip), " ", loopback(c.nodes[2].gossip)),
			Upstream: loopback(c.origin), Global: "grace_period 2s", Options: "key {uri}",
		})
	}
	return nodes
}

func instruct(ports clusterPorts) {
	fmt.Printf("\nThree nodes share one cache in front of an origin that takes %s.\n", originDelay)
	fmt.Print("Try these in another terminal:\n\n")
	for _, p := range ports.nodes {
		fmt.Printf("  curl -s -D - -w '%%{time_total}s\\n' localhost:%d/hello\n", p.http)
	}
	fmt.Printf(`
The first request takes %s, whichever node gets it. Later ones take about a
millisecond on every node. The Cache-Status line of the response says why:

  fwd=uri-miss; stored    the node asked the origin
  hit; detail=local       from this node's memory; this node owns the key
  hit; detail=peer        brought over from the node that owns the key
  hit; detail=hot         from this node's copy of what another node owns

After a minute the response is no longer fresh, and is fetched anew.
The members, and what node 1 knows of:

  go run ./cmd/caddy groupcache status --address localhost:%d

Ctrl-C ends it. What the origin is asked for appears below.

`, originDelay, ports.nodes[0].admin)
}
