package main

import (
	"context"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// nodes are one node, or a cluster, in front of the suite's origin.
type nodes []*harness.Node

// switches are options for what a careful operator leaves off, and some tests
// are about.
const switches = `
		set_cookie store
		stale if_error 1h
		ttl 0s 400`

// startNodes starts n nodes with the given lines of options, and returns when each
// of them sees all. The directive has its defaults, or the switches, but more
// patience with a busy machine, on which all rounds run at the same time. All nodes
// make the same key of a URL because the client's Host field reaches them as it is.
func startNodes(ctx context.Context, dir, caddy string, n int, options string, o *origin) (nodes, error) {
	all, err := harness.Conformance.Nodes(n, dir)
	if err != nil {
		return nil, err
	}
	for _, node := range all {
		node.Binary, node.Upstream, node.Global, node.Options = caddy, o.address, "grace_period 1s", "peer_timeout 5s"+options
	}
	return all, harness.StartAll(ctx, all...)
}

func (ns nodes) addresses() []string {
	var a []string
	for _, n := range ns {
		a = append(a, n.HTTP)
	}
	return a
}

// end ends the nodes. It returns an error if one was over before, or
// has a panic in its log.
func (ns nodes) end() error { return harness.EndAll(ns...) }
