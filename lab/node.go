//go:build linux

package main

import (
	"bufio"
	"bytes"
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
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A node is a Caddy process, dead or alive.
type node struct {
	*host
	name                      string
	dir                       string
	binary                    string
	env                       []string
	web, admin, gossip, peers string // addresses
	upstream, join, secret    string
	app, option               string
	stranger                  bool // it is not to become one of the cluster's owners

	cmd  *exec.Cmd
	over chan struct{} // closed when the process has ended

	// While absent, what clients get from the node doesn't count: it is dead,
	// frozen or has no descriptors left, and was so without a cache too. epoch
	// rises with each change, so whoever asked before and got an answer after it
	// knows.
	absent atomic.Bool
	epoch  atomic.Int64

	reloaded atomic.Int64 // when it last was, in Unix nanoseconds

	promised atomic.Int64 // version of news that it has acknowledged a purge for

	clients *http.Client
	control *http.Client
}

// config has routes of a group, as most sites do: once one of them has had its turn
// Caddy passes over them all, for as long as the request lasts.
const config = `{
	admin %s
	auto_https off
	persist_config off
	grace_period 2s
	storage file_system %s
	groupcache {
		name %s
		gossip %s
		peers %s
		join %s
		secret %s
		cache_size 64MiB
		%s
	}
}

http://:%s {
	bind 127.0.0.1
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
`

func (n *node) caddyfile() string {
	_, port, _ := net.SplitHostPort(n.web)
	return fmt.Sprintf(config, n.admin, filepath.Join(n.dir, "storage"), n.name, n.gossip, n.peers, n.join, n.secret, n.app, port, n.option, n.upstream)
}

// prepare makes the node's clients. Those of its site keep connections, the
// operator doesn't: processes come and go.
func (n *node) prepare() {
	dial := func(ctx context.Context, _, address string) (net.Conn, error) { return n.dial(ctx, address) }
	n.clients = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 1000}}
	n.control = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

// run starts the process.
func (n *node) run() error {
	file := filepath.Join(n.dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(n.caddyfile()), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	n.cmd = exec.Command(n.binary, "run", "--config", file, "--adapter", "caddyfile")
	n.cmd.Dir, n.cmd.Stdout, n.cmd.Stderr = n.dir, log, log
	n.cmd.Env = append(os.Environ(), append([]string{"HOME=" + n.dir, "XDG_CONFIG_HOME=" + n.dir, "XDG_DATA_HOME=" + n.dir}, n.env...)...)
	if err := n.start(n.cmd); err != nil {
		return fmt.Errorf("starting %s: %w", n.name, err)
	}
	over := make(chan struct{})
	n.over = over
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // ProcessState has the result
		close(over)
	}(n.cmd)
	return nil
}

func (n *node) log() string { return filepath.Join(n.dir, "log") }

func (n *node) running() bool {
	select {
	case <-n.over:
		return false
	default:
		return n.cmd != nil
	}
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

func (n *node) signal(s syscall.Signal) error {
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %v: %w", n.name, s, err)
	}
	return nil
}

// kill ends the process at once, frozen or not.
func (n *node) kill() error {
	n.goes()
	err := n.signal(syscall.SIGKILL)
	<-n.over
	n.promised.Store(0) // it has forgotten everything
	n.clients.CloseIdleConnections()
	return err
}

// stop ends the process as an operator would.
func (n *node) stop() error {
	n.goes()
	err := n.signal(syscall.SIGTERM)
	select {
	case <-n.over:
	case <-time.After(20 * time.Second):
		err = fmt.Errorf("%s doesn't end", n.name)
	}
	n.promised.Store(0)
	n.clients.CloseIdleConnections()
	return err
}

// again starts a process that has ended, and returns when it serves.
func (n *node) again() error {
	if err := n.run(); err != nil {
		return err
	}
	if err := n.awaitServing(); err != nil {
		return err
	}
	n.comes()
	return nil
}

func (n *node) awaitServing() error {
	return await(30*time.Second, n.name+" serves", func() bool {
		if !n.running() {
			return true // and whoever asks it finds out
		}
		_, err := n.status() // which the admin API can tell before the site is there
		return err == nil && get(n, "/"+cold+"/first").status == http.StatusOK
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

func (n *node) ask(path string) ([]byte, error) {
	resp, err := n.control.Get("http://" + n.admin + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return body, err
}

type status struct {
	Members []struct {
		Name  string  `json:"name"`
		State string  `json:"state"`
		Share float64 `json:"share"`
	} `json:"members"`
}

func (n *node) status() (s status, err error) {
	body, err := n.ask("/groupcache/status")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(body, &s)
}

// sees reports whether the node sees so many members alive, with equal shares.
func (n *node) sees(members int) bool {
	s, err := n.status()
	alive := 0
	for _, m := range s.Members {
		if m.State == "alive" && math.Abs(m.Share*float64(members)-1) < 1e-6 {
			alive++
		}
	}
	return err == nil && alive == members
}

// purge asks the node for a purge. It returns who has acknowledged it, and
// whether it has succeeded.
func (n *node) purge(what string) (acknowledged []string, ok bool) {
	resp, err := n.control.Post("http://"+n.admin+"/groupcache/purge", "application/json", strings.NewReader(what))
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
	r, err := http.NewRequest(http.MethodPost, "http://"+n.admin+"/load", strings.NewReader(n.caddyfile()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "text/caddyfile")
	r.Header.Set("Cache-Control", "must-revalidate") // even if nothing has changed
	n.reloaded.Store(time.Now().UnixNano())
	resp, err := n.control.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s refuses its config: %s", n.name, answer)
	}
	return err
}

// A usage is what a process holds, but for what it has stored.
type usage struct{ goroutines, descriptors, heap int }

func (n *node) usage() (u usage, err error) {
	if _, err = n.ask("/debug/pprof/heap?gc=1"); err != nil {
		return u, err
	}
	body, err := n.ask("/metrics")
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
		return u, fmt.Errorf("%s doesn't tell what it uses", n.name)
	}
	return u, nil
}

// crashed returns what of the log tells of a fault in the program.
func (n *node) crashed() error {
	log, err := os.ReadFile(n.log())
	if err != nil {
		return err
	}
	for _, bad := range []string{"panic", "DATA RACE", "fatal error"} {
		if i := bytes.Index(log, []byte(bad)); i >= 0 {
			return fmt.Errorf("the log of %s has %q: %s", n.name, bad, log[i:min(len(log), i+2000)])
		}
	}
	return nil
}

// others returns the nodes but some.
func others(all []*node, but ...*node) []*node {
	return slices.DeleteFunc(slices.Clone(all), func(n *node) bool { return slices.Contains(but, n) })
}
