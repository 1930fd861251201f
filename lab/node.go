//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// A node is a Caddy process, dead or alive, on a host.
type node struct {
	*harness.Node
	*host
	stranger bool // it is not to become one of the cluster's owners

	// While absent, what clients get from the node doesn't count: it is dead,
	// frozen or has no descriptors left, and was so without a cache too. epoch
	// rises with each change, so whoever asked before and got an answer after it
	// knows.
	absent atomic.Bool
	epoch  atomic.Int64

	reloaded atomic.Int64 // when it last was, in Unix nanoseconds

	promised atomic.Int64 // version of news that it has acknowledged a purge for

	clients *http.Client
}

// newNode makes a node on a host. The clients of its site keep connections, the
// operator doesn't: processes come and go.
func newNode(n *harness.Node, h *host) *node {
	n.Launch, n.Dial, n.Within = h.start, h.dial, 5*time.Second
	clients := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: n.Dial, DisableCompression: true, MaxIdleConnsPerHost: 1000}}
	return &node{Node: n, host: h, clients: clients}
}

// comes and goes say from when on what the node does counts, or doesn't.
func (n *node) goes() {
	n.absent.Store(true)
	n.epoch.Add(1)
}

func (n *node) comes() {
	n.epoch.Add(1)
	n.absent.Store(false)
}

// kill ends the process at once, frozen or not.
func (n *node) kill() {
	n.goes()
	n.Kill()
	n.forget()
}

// stop ends the process as an operator would.
func (n *node) stop() error {
	n.goes()
	err := n.End()
	n.forget()
	return err
}

func (n *node) forget() {
	n.promised.Store(0) // it has forgotten everything
	n.clients.CloseIdleConnections()
}

// again starts a process that has ended, and returns when it serves.
func (n *node) again() error {
	if err := n.Start(); err != nil {
		return err
	}
	if err := n.awaitServing(); err != nil {
		return err
	}
	n.comes()
	return nil
}

func (n *node) awaitServing() error {
	return harness.Await(context.Background(), func() error {
		if err := n.Serves(); err != nil {
			return err
		}
		if a := get(n, "/"+cold+"/first"); a.status != http.StatusOK {
			return fmt.Errorf("%s does not serve: %d, %w", n.Name, a.status, a.err)
		}
		return nil
	})
}

// await polls until something is so.
func await(d time.Duration, what string, so func() bool) error {
	for deadline := time.Now().Add(d); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v in vain until %s", d, what)
		}
	}
	return nil
}

// purge asks the node for a purge. It returns who has acknowledged it, and
// whether it has succeeded.
func (n *node) purge(what string) (acknowledged []string, ok bool) {
	resp, err := n.Client().Post("http://"+n.Admin+"/groupcache/purge", "application/json", strings.NewReader(what))
	if err != nil {
		return nil, false
	}
	defer resp.Body.Close()
	var result struct {
		Nodes []struct {
			Name         string `json:"name"`
			Acknowledged bool   `json:"acknowledged"`
		} `json:"nodes"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&result); err != nil {
		return nil, false
	}
	for _, a := range result.Nodes {
		if a.Acknowledged {
			acknowledged = append(acknowledged, a.Name)
		}
	}
	return acknowledged, resp.StatusCode == http.StatusOK
}

// load has the node take its configuration anew.
func (n *node) load() error {
	n.reloaded.Store(time.Now().UnixNano())
	return n.Load()
}

// A usage is what a process holds, but for what it has stored.
type usage struct{ goroutines, descriptors, heap int }

func (n *node) usage() (u usage, err error) {
	if _, err = n.Get("/debug/pprof/heap?gc=1"); err != nil {
		return u, err
	}
	body, err := n.Get("/metrics")
	if err != nil {
		return u, err
	}
	for s := bufio.NewScanner(bytes.NewReader(body)); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), " ")
		v, _ := strconv.ParseFloat(value, 64)
		switch {
		case name == "go_goroutines":
			u.goroutines = int(v)
		case name == "process_open_fds":
			u.descriptors = int(v)
		case name == "go_memstats_heap_alloc_bytes":
			u.heap += int(v)
		case strings.HasPrefix(name, "caddy_groupcache_bytes{") && !strings.Contains(name, `"inflight"`):
			u.heap -= int(v)
		}
	}
	if u.goroutines == 0 || u.descriptors == 0 || u.heap == 0 {
		return u, fmt.Errorf("%s doesn't tell what it uses", n.Name)
	}
	return u, nil
}

// others returns the nodes but some.
func others(all []*node, but ...*node) []*node {
	return slices.DeleteFunc(slices.Clone(all), func(n *node) bool { return slices.Contains(but, n) })
}
