package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/freeport"
)

// nodes are one node, or a cluster, in front of the suite's origin.
type nodes []*node

type node struct {
	*process
	http, admin, gossip, peers string // addresses
}

// switches are options for what a careful operator leaves off, and some tests
// are about.
const switches = `
		set_cookie store
		stale if_error 1h
		ttl 0s 400`

// The directive has its defaults, or the switches, but more patience with a busy
// machine, on which all rounds run at the same time. All nodes make the same key
// of a URL because the client's Host field reaches them as it is.
const nodeConfig = `{
	admin %s
	persist_config off
	auto_https off
	grace_period 1s
	%s
}

http://:%s {
	bind 127.0.0.1
	groupcache {
		peer_timeout 5s%s
	}
	reverse_proxy %s
}
`

const clusterConfig = `groupcache {
		name %s
		gossip %s
		peers %s
		join %s
	}`

// startNodes starts n nodes with the given block of options, and returns when
// each of them sees all.
func startNodes(ctx context.Context, dir, caddy string, n int, options string, o *origin) (_ nodes, err error) {
	ports, _, err := freeport.Conformance.Take(4 * n)
	if err != nil {
		return nil, err
	}
	var started nodes
	defer func() {
		if err != nil {
			_ = started.end() // err says more
		}
	}()
	var join []string
	for i := range n {
		join = append(join, ports[4*i+2])
	}
	for i := range n {
		p := ports[4*i:]
		c := &node{http: p[0], admin: p[1], gossip: p[2], peers: p[3]}
		name := fmt.Sprintf("node-%d-of-%d", i+1, n)
		if options != "" {
			name = "switched-" + name
		}
		app := ""
		if n > 1 {
			app = fmt.Sprintf(clusterConfig, name, c.gossip, c.peers, strings.Join(join, " "))
		}
		_, port, _ := strings.Cut(c.http, ":")
		config := filepath.Join(dir, name+".Caddyfile")
		if err := os.WriteFile(config, fmt.Appendf(nil, nodeConfig, c.admin, app, port, options, o.address), 0o600); err != nil {
			return nil, err
		}
		env := []string{"HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_DATA_HOME=" + dir}
		c.process, err = startProcess(dir, name, env, nil, caddy, "run", "--adapter", "caddyfile", "--config", config)
		if err != nil {
			return nil, err
		}
		started = append(started, c)
	}
	for _, c := range started {
		if err := c.await(ctx, n); err != nil {
			return nil, err
		}
	}
	return started, nil
}

// await returns when the node serves, and sees a cluster of n.
func (c *node) await(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("the nodes did not find each other in time"))
	defer cancel()
	for !c.sees(ctx, n) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.over:
			return c.obituary()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// sees asks the node for the members it knows.
func (c *node) sees(ctx context.Context, n int) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.admin+"/groupcache/status", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var status struct {
		Members []struct {
			State string  `json:"state"`
			Share float64 `json:"share"`
		} `json:"members"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return false
	}
	owners := 0
	for _, m := range status.Members {
		if m.State == "alive" && m.Share > 0 {
			owners++
		}
	}
	return owners == n
}

func (ns nodes) addresses() []string {
	var a []string
	for _, n := range ns {
		a = append(a, n.http)
	}
	return a
}

// end ends the nodes. It returns an error if one was over before, or
// has a panic in its log.
func (ns nodes) end() error {
	var errs []error
	for _, n := range ns {
		if n.ended {
			continue
		}
		errs = append(errs, n.process.end())
		log, err := os.ReadFile(n.log)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, bad := range []string{"panic", "DATA RACE", "fatal error"} {
			if i := bytes.Index(log, []byte(bad)); i >= 0 {
				errs = append(errs, fmt.Errorf("the log of %s has %q: %s", n.name, bad, log[i:min(len(log), i+logEnd)]))
				break
			}
		}
	}
	return errors.Join(errs...)
}
