package harness

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ExpressVariable is the variable of the environment with which each node has the express
// lane.
const ExpressVariable = "GROUPCACHE_EXPRESS"

// A Node is a Caddy with the cache, and how it is configured. Start runs it, and
// again after it has ended.
type Node struct {
	Name string
	Dir  string // of its own, with its Caddyfile, its log and what Caddy keeps

	HTTP, Admin, Gossip, Peers string // host:port. Without Gossip there is no cluster
	Join                       string // seeds
	Upstream                   string // host:port. Without it there is no site at HTTP but those in Sites

	// More lines of the Caddyfile: of the global options and of groupcache among
	// them, of the site before the cache and of the directive, and more sites.
	Global, App, Before, Options, Sites string
	Config                              string // instead of all of these

	// The site has the express lane in front, if nothing stands before the cache. All
	// nodes have with ExpressVariable in the environment: to run the tests of the normal
	// path with the lane.
	Express bool

	Binary string   // the Caddy; default: this program in the role Caddy
	Env    []string // beside this program's

	Launch func(*exec.Cmd) error                                                // what starts the process; default: its Start method
	Dial   func(ctx context.Context, network, address string) (net.Conn, error) // how the node is reached; default: as net does
	Within time.Duration                                                        // bounds a request to the admin endpoint; default 30 s

	*Process // the last that was started
}

// Caddyfile returns the node's configuration. The routes behind the cache are of a
// group, as those of most sites are: once one has had its turn Caddy passes over
// the others, for as long as the request lasts.
func (n *Node) Caddyfile() string {
	if n.Config != "" {
		return n.Config
	}
	var b strings.Builder
	global, options := n.Global, n.Options
	if n.Before == "" && (n.Express || os.Getenv(ExpressVariable) != "") && !strings.Contains(global, "servers") && !strings.Contains(options, "key ") {
		global += "\n\tservers {\n\t\tlistener_wrappers {\n\t\t\tgroupcache\n\t\t}\n\t}"
		options += "\n\t\texpress"
	}
	fmt.Fprintf(&b, "{\n\tadmin %s\n\tauto_https off\n\tpersist_config off\n\tstorage file_system %s\n\t%s\n\tgroupcache {\n",
		n.Admin, filepath.Join(n.Dir, "storage"), global)
	if n.Gossip != "" {
		fmt.Fprintf(&b, "\t\tname %s\n\t\tgossip %s\n\t\tpeers %s\n\t\tjoin %s\n", n.Name, n.Gossip, n.Peers, n.Join)
	}
	fmt.Fprintf(&b, "\t\t%s\n\t}\n}\n", n.App)
	if host, port, _ := net.SplitHostPort(n.HTTP); n.Upstream != "" {
		fmt.Fprintf(&b, `
http://:%s {
	bind %s
	%s
	groupcache {
		%s
	}
	handle /of/another/route {
		respond 404
	}
	handle {
		reverse_proxy %s
	}
}
`, port, host, n.Before, options, n.Upstream)
	}
	return b.String() + n.Sites
}

// Nodes returns n nodes of a cluster, with folders in dir and addresses that are
// theirs until the program ends. One node alone is no cluster: it has no listener
// for others.
func (r Range) Nodes(n int, dir string) ([]*Node, error) {
	addrs, _, err := r.Take(4 * n)
	if err != nil {
		return nil, err
	}
	var nodes []*Node
	var seeds []string
	for i := range n {
		name, a := fmt.Sprintf("n%d", i+1), addrs[4*i:]
		nodes = append(nodes, &Node{Name: name, Dir: filepath.Join(dir, name), HTTP: a[0], Admin: a[1], Gossip: a[2], Peers: a[3]})
		seeds = append(seeds, a[2])
	}
	for _, node := range nodes {
		node.Join = strings.Join(seeds, " ")
	}
	if n == 1 {
		nodes[0].Gossip, nodes[0].Peers, nodes[0].Join = "", "", ""
	}
	return nodes, nil
}

// Start writes the Caddyfile and starts the process. It does not wait for it.
func (n *Node) Start() error {
	config := filepath.Join(n.Dir, "Caddyfile")
	if err := errors.Join(os.MkdirAll(n.Dir, 0o700), os.WriteFile(config, []byte(n.Caddyfile()), 0o600)); err != nil {
		return err
	}
	cmd := n.Command("run", "--adapter", "caddyfile", "--config", config)
	start := launch
	if n.Launch != nil {
		start = n.Launch
	}
	p, err := startBy(start, cmd, n.Name, filepath.Join(n.Dir, "log"))
	if err == nil {
		n.Process = p
	}
	return err
}

// Command returns a command of the node's Caddy, for Start.
func (n *Node) Command(args ...string) *exec.Cmd {
	cmd := Self(Caddy, args...)
	if n.Binary != "" {
		cmd = exec.Command(n.Binary, args...)
		cmd.Env = os.Environ()
	}
	cmd.Dir = n.Dir
	cmd.Env = append(append(cmd.Env, "HOME="+n.Dir, "XDG_CONFIG_HOME="+n.Dir, "XDG_DATA_HOME="+n.Dir), n.Env...)
	return cmd
}

// Serves returns nil if the node answers at its admin endpoint and accepts
// connections at HTTP. The admin endpoint is there before sites are.
func (n *Node) Serves() error {
	if err := n.Err(); err != nil {
		return err
	}
	if _, err := n.Status(); err != nil {
		return err
	}
	dial := n.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(context.Background(), "tcp", n.HTTP)
	if err != nil {
		return err
	}
	return conn.Close()
}

// A Status is what a node's admin endpoint tells of the cluster.
type Status struct {
	Members []struct {
		Name  string  `json:"name"`
		State string  `json:"state"`
		Share float64 `json:"share"`
	} `json:"members"`
}

// Status asks the node for its status.
func (n *Node) Status() (s Status, err error) {
	body, err := n.Get("/groupcache/status")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(body, &s)
}

// Sees returns nil if the node sees so many members alive, with equal shares of
// the keys.
func (n *Node) Sees(members int) error {
	s, err := n.Status()
	if err != nil {
		return err
	}
	alive := 0
	for _, m := range s.Members {
		if m.State == "alive" && math.Abs(m.Share*float64(members)-1) < 1e-6 {
			alive++
		}
	}
	if alive != members {
		return fmt.Errorf("%s sees %d of %d members with equal shares", n.Name, alive, members)
	}
	return nil
}

// Get returns the answer of the admin endpoint to a GET if that is a 200.
func (n *Node) Get(path string) ([]byte, error) {
	resp, err := n.Client().Get("http://" + n.Admin + path)
	if err != nil {
		return nil, err
	}
	return read(resp)
}

// Load has the node take its configuration anew.
func (n *Node) Load() error {
	r, err := http.NewRequest(http.MethodPost, "http://"+n.Admin+"/load", strings.NewReader(n.Caddyfile()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "text/caddyfile")
	r.Header.Set("Cache-Control", "must-revalidate") // even if nothing has changed
	resp, err := n.Client().Do(r)
	if err != nil {
		return err
	}
	if answer, err := read(resp); err != nil {
		return fmt.Errorf("%s refuses its config: %w: %s", n.Name, err, answer)
	}
	return nil
}

func read(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return body, err
}

// StartAll starts nodes, and returns when each of them serves and sees all. If it
// fails it ends them.
func StartAll(ctx context.Context, nodes ...*Node) (err error) {
	defer func() {
		if err != nil {
			_ = EndAll(nodes...) // err says more
		}
	}()
	for _, n := range nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return Await(ctx, func() error {
		for _, n := range nodes {
			if err := n.Err(); err != nil {
				return err
			}
		}
		for _, n := range nodes {
			if err := n.Serves(); err != nil {
				return err
			}
			if err := n.Sees(len(nodes)); err != nil {
				return err
			}
		}
		return nil
	})
}

// EndAll ends those of the nodes that were started, at the same time. It returns an
// error if one was over before, did not end in time, or has crashed.
func EndAll(nodes ...*Node) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		if n.Process != nil {
			all.Go(func() { errs[i] = errors.Join(n.End(), n.Crashed()) })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// Client returns a client for the node's admin endpoint.
func (n *Node) Client() *http.Client { return NewClient(n.Dial, cmp.Or(n.Within, 30*time.Second)) }

// NewClient returns a client that makes a connection for every request, because
// processes come and go under one address, and asks again if that is closed without
// an answer. dial may be nil, timeout is of one request.
func NewClient(dial func(ctx context.Context, network, address string) (net.Conn, error), timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: askAgain{&http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Tries is how often something is asked for whose connection is closed without an
// answer. A reload replaces servers, the admin endpoint too, and net/http closes
// what the old one has taken, but not yet read a request from.
const Tries = 5

// ClosedUnanswered reports whether a request failed for that reason.
func ClosedUnanswered(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// askAgain asks again when a connection was closed.
type askAgain struct{ http.RoundTripper }

func (a askAgain) RoundTrip(r *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := a.RoundTripper.RoundTrip(r)
		if !ClosedUnanswered(err) || try == Tries || r.Body != nil && r.GetBody == nil {
			return resp, err
		}
		r = r.Clone(r.Context())
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}
