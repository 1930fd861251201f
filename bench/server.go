package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
)

// A site is what one pair of ports of a Caddy process serves: the first with
// HTTP/1.1 only, as Caddy does by default without TLS, the second with HTTP/2
// too.
type site struct {
	h1, h2 string
}

// target returns a target at the site for answers of 200 with a body of a size.
func (s site) target(http2 bool, size int, path func(int64) string) *target {
	t := &target{addr: s.h1, http2: http2, path: path, status: http.StatusOK, length: int64(size)}
	if http2 {
		t.addr = s.h2
	}
	return t
}

// always is a path that does not change.
func always(path string) func(int64) string { return func(int64) string { return path } }

// A node is a Caddy process with one site for each of the directives that are
// compared.
type node struct {
	*process
	admin string

	cache   site // groupcache and reverse_proxy
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
	count  int // of nodes started
}

// startOrigin starts the upstream.
func (l *lab) startOrigin(ctx context.Context) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	l.origin = addr
	p, err := startRole(l.dir, "origin", roleOrigin, addr)
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, addr)
}

// start starts the nodes of a cluster and returns when all see each other. One
// node alone is none: it has no listener for others.
func (l *lab) start(ctx context.Context, c cluster) (nodes []*node, err error) {
	defer func() {
		if err != nil {
			endAll(nodes)
			nodes = nil
		}
	}()
	var gossip, peers []string
	for range c.sizes {
		for _, list := range []*[]string{&gossip, &peers} {
			addr, err := freeAddr()
			if err != nil {
				return nodes, err
			}
			*list = append(*list, addr)
		}
	}
	for i, size := range c.sizes {
		options := "cache_size " + size
		if len(c.sizes) > 1 {
			options += fmt.Sprintf("\n\t\tname node-%d\n\t\tgossip %s\n\t\tpeers %s\n\t\tjoin %s", i+1, gossip[i], peers[i], strings.Join(gossip, " "))
			if c.secret != "" {
				options += "\n\t\tsecret " + c.secret
			}
		}
		n, err := l.startNode(options, c.compare)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if err := n.await(ctx, n.admin, n.cache.h1, n.cache.h2); err != nil {
			return nodes, err
		}
		if err := poll(ctx, func() error { return n.sees(len(nodes)) }); err != nil {
			return nodes, fmt.Errorf("waiting until %s sees %d nodes: %w", n.name, len(nodes), err)
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

func endAll(nodes []*node) {
	for _, n := range nodes {
		n.end()
	}
}

// sees reports whether so many nodes are alive in a node's eyes.
func (n *node) sees(count int) error {
	resp, err := http.Get("http://" + n.admin + "/groupcache/status")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var status caddygroupcache.Status
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return err
	}
	alive := 0
	for _, m := range status.Members {
		if m.State == "alive" {
			alive++
		}
	}
	if alive != count {
		return fmt.Errorf("it sees %d", alive)
	}
	return nil
}

func (l *lab) startNode(options string, compare bool) (*node, error) {
	l.count++
	n := &node{}
	config := new(strings.Builder)
	var h2, blocks strings.Builder
	add := func(s *site, body string) error {
		for _, addr := range []*string{&s.h1, &s.h2} {
			var err error
			if *addr, err = freeAddr(); err != nil {
				return err
			}
		}
		fmt.Fprintf(&h2, "\tservers %s {\n\t\tprotocols h1 h2c\n\t}\n", s.h2)
		fmt.Fprintf(&blocks, "\nhttp://:%s, http://:%s {\n\tbind 127.0.0.1\n\t%s\n}\n", port(s.h1), port(s.h2), body)
		return nil
	}
	proxy := "reverse_proxy " + l.origin
	err := errors.Join(
		add(&n.cache, "groupcache\n\t"+proxy),
		add(&n.inside, "groupcache\n\tbench_ceiling"),
	)
	if compare {
		var responses []string
		for size, body := range bodies {
			responses = append(responses, "respond /"+size+" `"+string(body)+"`")
			if err := os.WriteFile(filepath.Join(l.dir, size+".html"), body, 0o600); err != nil {
				return nil, err
			}
		}
		err = errors.Join(err,
			add(&n.ceiling, "bench_ceiling"),
			add(&n.full, "bench_ceiling full"),
			add(&n.respond, setting("Content-Length")+strings.Join(responses, "\n\t")),
			// It sends Accept-Ranges beside what it has of its own.
			add(&n.files, setting("Content-Length", "Content-Type", "Etag", "Last-Modified", "X-Request-Time")+"root * "+l.dir+"\n\tfile_server"),
			add(&n.proxy, proxy),
			add(&n.encoded, "groupcache\n\tencode gzip\n\t"+proxy),
			add(&n.encode, "encode gzip\n\t"+proxy),
		)
	}
	if err != nil {
		return nil, err
	}
	if n.admin, err = freeAddr(); err != nil {
		return nil, err
	}
	fmt.Fprintf(config, "{\n\tadmin %s\n\tpersist_config off\n\tgrace_period 1s\n\tlog {\n\t\tlevel WARN\n\t}\n%s\tgroupcache {\n\t\t%s\n\t}\n}\n%s",
		n.admin, h2.String(), options, blocks.String())
	name := fmt.Sprintf("node-%d", l.count)
	file := filepath.Join(l.dir, name+".Caddyfile")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		return nil, err
	}
	n.process, err = startRole(l.dir, name, roleCaddy, "run", "--adapter", "caddyfile", "--config", file)
	return n, err
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
