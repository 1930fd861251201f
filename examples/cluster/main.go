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
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
)

const (
	nodeCount   = 3
	originDelay = 400 * time.Millisecond

	// readyWithin is how long the nodes have to find each other.
	readyWithin = time.Minute
	// endWithin is how long they have to end before they are killed.
	endWithin = 10 * time.Second

	// nodeEnv makes this program a node: Caddy with the arguments it has.
	nodeEnv = "GROUPCACHE_EXAMPLE_NODE"
)

func main() {
	if os.Getenv(nodeEnv) != "" {
		go endWithParent()
		caddycmd.Main()
		return
	}
	offset := flag.Int("offset", 0, "a number to add to all ports")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *offset); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// endWithParent ends a node when the program that started it is gone, however
// that came about: the node's standard input is a pipe that it holds open.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin) // either way nobody holds it any more
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(syscall.SIGTERM)
	}
	if err != nil { // no signals on this system
		_ = caddy.Stop()
		os.Exit(caddy.ExitCodeSuccess)
	}
}

// run runs the demonstration until ctx ends or a node does.
func run(ctx context.Context, offset int) (err error) {
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

	died := make(chan error, nodeCount)
	var nodes []*node
	defer func() { endAll(nodes) }()
	for i, p := range ports.nodes {
		n, err := startNode(dir, i+1, p, ports)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
		go func() {
			<-n.over
			died <- n.obituary()
		}()
	}
	ready := make(chan error, 1)
	go func() { ready <- waitForAll(ctx, ports) }()
	for {
		select {
		case <-ctx.Done():
			fmt.Println("\nending")
			return nil
		case err := <-died:
			if ctx.Err() != nil {
				return nil // Ctrl-C goes to the nodes too
			}
			return err
		case err := <-ready:
			if err != nil {
				return err
			}
			instruct(ports)
			ready = nil
		}
	}
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

// A node is one Caddy process.
type node struct {
	number  int
	cmd     *exec.Cmd
	stdin   io.Closer // as long as it is open, the node runs
	logfile string
	over    chan struct{} // closed when the process has ended
	err     error         // why; to be read once over is closed
}

// The nodes of a real cluster have one host name. Here each has a port of its
// own, which the default key would tell apart; so the key leaves the host out.
const nodeConfig = `{
	admin %[1]s
	persist_config off
	grace_period 2s
	groupcache {
		name node-%[2]d
		gossip %[3]s
		peers %[4]s
		join %[5]s %[6]s %[7]s
	}
}

http://:%[8]d {
	bind 127.0.0.1
	groupcache {
		key {uri}
	}
	reverse_proxy %[9]s
}
`

func startNode(dir string, number int, p nodePorts, all clusterPorts) (*node, error) {
	base := filepath.Join(dir, fmt.Sprintf("node-%d", number))
	config := fmt.Sprintf(nodeConfig, loopback(p.admin), number, loopback(p.gossip), loopback(p.peers),
		loopback(all.nodes[0].gossip), loopback(all.nodes[1].gossip), loopback(all.nodes[2].gossip),
		p.http, loopback(all.origin))
	if err := os.WriteFile(base+".Caddyfile", []byte(config), 0o600); err != nil {
		return nil, err
	}
	logfile, err := os.Create(base + ".log")
	if err != nil {
		return nil, err
	}
	defer logfile.Close() // the process has its own
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "run", "--adapter", "caddyfile", "--config", base+".Caddyfile")
	cmd.Env = append(os.Environ(), nodeEnv+"=1", "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.Stdout, cmd.Stderr = logfile, logfile
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting node %d: %w", number, err)
	}
	n := &node{number: number, cmd: cmd, stdin: stdin, logfile: logfile.Name(), over: make(chan struct{})}
	go func() {
		n.err = cmd.Wait()
		close(n.over)
	}()
	return n, nil
}

// endAll ends the nodes, and returns when they are gone.
func endAll(nodes []*node) {
	for _, n := range nodes {
		n.stdin.Close()
	}
	patience, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	for _, n := range nodes {
		select {
		case <-n.over:
			continue
		case <-patience.Done():
		}
		_ = n.cmd.Process.Kill() // it may be over by now
		<-n.over
	}
}

// obituary tells why a node ended that should not have.
func (n *node) obituary() error {
	log, err := os.ReadFile(n.logfile)
	if err != nil {
		log = []byte(err.Error())
	}
	const enough = 4 << 10
	if len(log) > enough {
		log = log[len(log)-enough:]
	}
	return fmt.Errorf("node %d has ended: %v; the end of its log:\n%s", n.number, n.err, log)
}

// waitForAll returns when every node answers, and sees all of them.
func waitForAll(ctx context.Context, ports clusterPorts) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, errors.New("the nodes did not find each other in time"))
	defer cancel()
	for _, p := range ports.nodes {
		for !ready(ctx, p) {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

func ready(ctx context.Context, p nodePorts) bool {
	conn, err := net.Dial("tcp", loopback(p.http))
	if err != nil {
		return false
	}
	conn.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(p.admin)+"/groupcache/status", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var status caddygroupcache.Status
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return false
	}
	alive := 0
	for _, m := range status.Members {
		if m.State == "alive" {
			alive++
		}
	}
	return alive == nodeCount
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
