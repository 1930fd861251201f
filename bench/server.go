package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"

	_ "github.com/caddy-groupcache/caddy-groupcache" // the nodes are this program
)

// A site is what one port of a Caddy process serves, with HTTP/1.1 and HTTP/2.
type site struct{ addr string }

// target returns a target at the site for answers of 200 with a body of a size.
func (s site) target(http2 bool, size int, path func(int64) string) *target {
	return &target{addr: s.addr, http2: http2, path: path, status: http.StatusOK, length: int64(size)}
}

// always is a path that does not change.
func always(path string) func(int64) string { return func(int64) string { return path } }

// A node is a Caddy process with one site for each of the directives that are
// compared.
type node struct {
	*harness.Node
	addrs []string // of all sites

	cache   site // groupcache and reverse_proxy
	lane    site // the same with the express lane
	inside  site // groupcache and a handler in the same process
	ceiling site
	full    site // the ceiling with three more header fields
	respond site
	files   site
	proxy   site // reverse_proxy alone
	encoded site // groupcache, and behind it encode and reverse_proxy
	encode  site // these two alone
}

// A cluster is what nodes have in common.
type cluster struct {
	sizes   []string // cache_size of each node
	secret  string
	compare bool // the nodes have the sites to compare with, too
}

// lab is where servers run during one session.
type lab struct {
	dir    string // for configs, logs and files
	origin string
	count  int // of clusters started
}

// startOrigin starts the upstream.
func (l *lab) startOrigin(ctx context.Context) (*harness.Process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	l.origin = addr
	return l.start(ctx, "origin", addr, harness.Self(roleOrigin, addr))
}

// startCluster starts the nodes of a cluster and returns when all see each other.
func (l *lab) startCluster(ctx context.Context, c cluster) (nodes []*node, err error) {
	l.count++
	all, err := harness.Bench.Nodes(len(c.sizes), filepath.Join(l.dir, strconv.Itoa(l.count)))
	if err != nil {
		return nil, err
	}
	for i, n := range all {
		n.Global = "grace_period 1s\n\tlog {\n\t\tlevel WARN\n\t}\n"
		n.App = "cache_size " + c.sizes[i]
		if c.secret != "" {
			n.App += "\n\t\tsecret " + c.secret
		}
		node, err := l.node(n, c.compare)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
	if err := harness.StartAll(ctx, all...); err != nil {
		return nil, err
	}
	for _, n := range nodes {
		for _, addr := range n.addrs {
			if err := n.AwaitListener(ctx, addr); err != nil {
				endAll(nodes)
				return nil, err
			}
		}
	}
	return nodes, nil
}

// newSecret returns a secret as caddy groupcache keygen makes them.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// endAll ends nodes. How they end is no matter here.
func endAll(nodes []*node) {
	var all []*harness.Node
	for _, n := range nodes {
		all = append(all, n.Node)
	}
	_ = harness.EndAll(all...)
}

// node adds the sites to a node.
func (l *lab) node(at *harness.Node, compare bool) (*node, error) {
	n := &node{Node: at}
	add := func(s *site, body string) error {
		var err error
		if s.addr, err = freeAddr(); err != nil {
			return err
		}
		n.addrs = append(n.addrs, s.addr)
		lane := ""
		if s == &n.lane {
			lane = "\t\tlistener_wrappers {\n\t\t\tgroupcache\n\t\t}\n"
		}
		at.Global += fmt.Sprintf("\tservers %s {\n\t\tprotocols h1 h2c\n%s\t}\n", s.addr, lane)
		at.Sites += fmt.Sprintf("\nhttp://:%s {\n\tbind 127.0.0.1\n\t%s\n}\n", port(s.addr), body)
		return nil
	}
	proxy := "reverse_proxy " + l.origin
	// Each site has a group of its own: the ports of nodes differ here, and nodes share a
	// group that stands at several listeners only by equal ports.
	err := errors.Join(
		add(&n.cache, "groupcache\n\t"+proxy),
		add(&n.lane, "groupcache {\n\t\tgroup lane\n\t\texpress\n\t}\n\t"+proxy),
		add(&n.inside, "groupcache {\n\t\tgroup inside\n\t}\n\tbench_ceiling"),
	)
	at.HTTP = n.cache.addr
	if !compare {
		return n, err
	}
	var responses []string
	for size, body := range bodies {
		responses = append(responses, "respond /"+size+" `"+string(body)+"`")
		if err := os.WriteFile(filepath.Join(l.dir, size+".html"), body, 0o600); err != nil {
			return nil, err
		}
	}
	return n, errors.Join(err,
		add(&n.ceiling, "bench_ceiling"),
		add(&n.full, "bench_ceiling full"),
		add(&n.respond, setting("Content-Length")+strings.Join(responses, "\n\t")),
		// It sends Accept-Ranges beside what it has of its own.
		add(&n.files, setting("Content-Length", "Content-Type", "Etag", "Last-Modified", "X-Request-Time")+"root * "+l.dir+"\n\tfile_server"),
		add(&n.proxy, proxy),
		add(&n.encoded, "groupcache {\n\t\tgroup encoded\n\t}\n\tencode gzip\n\t"+proxy),
		add(&n.encode, "encode gzip\n\t"+proxy),
	)
}

// setting returns the directive that sets all fields but some.
func setting(but ...string) string {
	var s strings.Builder
	s.WriteString("header {\n")
	for _, f := range fields {
		if !slices.Contains(but, f[0]) {
			fmt.Fprintf(&s, "\t\t%s %q\n", f[0], f[1])
		}
	}
	s.WriteString("\t}\n\t")
	return s.String()
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
