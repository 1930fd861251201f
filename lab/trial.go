//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// A trial is one fault, on a cluster of its own.
type trial struct {
	fault
	lab    *lab
	dir    string
	net    *network // nil: all nodes are on this machine's loopback
	origin *origin
	nodes  []*node // those that the fault brings come last
	load   *load

	purgeVia atomic.Pointer[node] // who is asked to purge; nil: anybody
	promised atomic.Int64         // version of news that some node has a promise for

	healed time.Time // zero as long as the fault lasts
	notes  []string
	failed []string // what the fault itself has found
}

// Where hosts with a namespace of their own listen.
const (
	hostWeb    = "127.0.0.1:8080"
	hostAdmin  = "127.0.0.1:2019"
	hostOrigin = "127.0.0.1:9000"
)

const (
	// baseline is how long the load runs before the fault.
	baseline = 3 * time.Second
	// backWithin is how soon all has to be as before.
	backWithin = 30 * time.Second
	// settleWithin is how soon nodes have to let go of what they needed.
	settleWithin = 30 * time.Second
)

// A result is what came of a fault.
type result struct {
	requests                 int
	worst                    time.Duration
	errors, wrong, old, slow failures
	late                     time.Duration // how long after the fault somebody still showed what was purged
	refetched                float64       // fetches of stable pages, for each of them
	recovered                time.Duration
	leaked                   string   // "" if nothing has
	found                    []string // by the fault itself
	faults                   []string
	notes                    []string
}

func (r *result) fail(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// try runs a fault and returns what came of it. The error is not nil if the lab
// itself has failed.
func (l *lab) try(f fault) (r result, err error) {
	t := &trial{fault: f, lab: l, origin: newOrigin()}
	if t.dir, err = os.MkdirTemp(l.dir, "trial"); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.build(); err != nil {
		return r, err
	}
	if err := t.warm(); err != nil {
		return r, err
	}

	before := t.startLoad()
	stop := t.keepPurging()
	t.lasts(baseline, time.Second)
	before.end()
	stop()
	ratio := before.ratio(time.Time{})
	if before.errors.n+before.wrong.n+before.old.n > 0 {
		return r, fmt.Errorf("before the fault: %v %v %v", before.errors.first, before.wrong.first, before.old.first)
	}
	used, err := t.usage()
	if err != nil {
		return r, err
	}

	t.origin.forget()
	t.load = t.startLoad()
	stop = t.keepPurging()
	time.Sleep(time.Second)
	if err := t.run(t); err != nil {
		t.load.end()
		stop()
		return r, err
	}
	if t.healed.IsZero() {
		t.heals()
	}
	r.recovered, err = t.awaitRecovery(ratio)
	if err != nil {
		r.fail("%v", err)
	}
	if t.someHaveMissedPurges() && !l.quick {
		time.Sleep(time.Until(t.healed.Add(backWithin)))
	}
	stop()
	for _, n := range t.nodes { // no excuse any more
		n.promised.Store(t.promised.Load())
	}
	t.sweep(news, newsPages)
	t.sweep(stable, stablePages)
	t.load.end()

	r.take(t.load, t)
	r.leaked = t.leaks(used)
	if r.leaked != "" {
		r.fail("%s", r.leaked)
	}
	for _, n := range t.nodes {
		if n.Process == nil {
			continue
		}
		if err := n.Crashed(); err != nil {
			r.fail("%v", err)
		}
	}
	r.notes, r.found, r.faults = t.notes, t.failed, append(r.faults, t.failed...)
	return r, nil
}

// take judges what the load has counted.
func (r *result) take(l *load, t *trial) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.requests, r.slow, r.worst = l.counted, l.slow, l.worst
	r.errors, r.wrong, r.old = l.errors, l.wrong, l.old
	if len(l.missed) > 0 {
		t.note("no hits of stable pages: %s", l.misses())
	}
	if l.spared > 0 {
		t.note("%d clients got the origin's error for what some node has", l.spared)
	}
	if l.late.After(t.healed) {
		r.late = l.late.Sub(t.healed)
	}
	fetches, _ := t.origin.fetched(stable)
	r.refetched = float64(fetches) / stablePages
	for what, f := range map[string]failures{"errors": r.errors, "wrong bodies": r.wrong, "outdated": r.old, "slow": r.slow} {
		if f.n > 0 {
			r.fail("%s: %s", what, strings.Join(f.first, "; "))
		}
	}
	if r.recovered > backWithin || r.late > backWithin {
		r.fail("not within %v", backWithin)
	}
	if r.refetched > t.refetches {
		r.fail("%.2f fetches of each stored page, more than %.2f", r.refetched, t.refetches)
	}
}

// build starts the cluster.
func (t *trial) build() error {
	all, err := harness.Lab.Nodes(t.size()+t.later, t.dir)
	if err != nil {
		return err
	}
	upstream := hostOrigin
	if t.onNetwork {
		t.net = new(network)
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		t.origin.serve(l)
		upstream = l.Addr().String()
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	app := "cache_size 64MiB\n\t\tsecret " + base64.StdEncoding.EncodeToString(random)
	var seeds []string
	for i, n := range all {
		n.Binary, n.Upstream, n.Global, n.App, n.Options = t.lab.caddy, upstream, "grace_period 2s", app, t.option
		h, err := t.house(n)
		if err != nil {
			return err
		}
		t.nodes = append(t.nodes, newNode(n, h))
		if i < t.size() {
			seeds = append(seeds, n.Gossip)
		} else {
			t.nodes[i].goes()
		}
	}
	for i, n := range t.nodes {
		n.Join = strings.Join(seeds, " ")
		if t.prepare != nil {
			if err := t.prepare(t, i, n); err != nil {
				return err
			}
		}
	}
	return harness.StartAll(context.Background(), all[:t.size()]...)
}

// house finds a host for a node. In a network of its own it has addresses and an
// origin there.
func (t *trial) house(n *harness.Node) (*host, error) {
	if t.net == nil {
		return newHost("127.0.0.1", nil)
	}
	h, err := t.net.addHost()
	if err != nil {
		return nil, err
	}
	n.HTTP, n.Admin, n.Gossip, n.Peers = hostWeb, hostAdmin, h.ip+":7946", h.ip+":8000"
	l, err := h.listen(hostOrigin)
	if err != nil {
		return nil, err
	}
	t.origin.serve(l)
	return h, nil
}

// size is how many nodes there are before the fault.
func (t *trial) size() int {
	if t.startWith == 0 {
		return 4
	}
	return t.startWith
}

// first are the nodes that there are before the fault.
func (t *trial) first() []*node { return t.nodes[:t.size()] }

// members are the nodes that are to be members: all that run, but strangers.
func (t *trial) members() []*node {
	return slices.DeleteFunc(slices.Clone(t.nodes), func(n *node) bool { return !n.Running() || n.stranger })
}

// whole reports whether all nodes that run see each other.
func (t *trial) whole() bool {
	members := t.members()
	for _, n := range members {
		if n.Sees(len(members)) != nil {
			return false
		}
	}
	return len(members) > 0
}

func (t *trial) close() error {
	for _, n := range t.nodes {
		if n.Process != nil {
			n.kill()
		}
		n.clients.CloseIdleConnections()
		n.host.close()
	}
	if t.net != nil {
		t.net.close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = t.origin.server.Shutdown(ctx) // whoever is still asking is gone
	return t.origin.server.Close()
}

// warm has every node serve every page once.
func (t *trial) warm() error {
	l := newLoad(t)
	l.sweepAll(t.first(), stable, stablePages)
	l.sweepAll(t.first(), news, newsPages)
	l.sweepAll(t.first(), short, shortPages)
	if l.errors.n+l.wrong.n > 0 {
		return fmt.Errorf("warming up: %v %v", l.errors.first, l.wrong.first)
	}
	return nil
}

// sweep asks every node for all pages of a kind.
func (t *trial) sweep(kind string, pages int) { t.load.sweepAll(t.members(), kind, pages) }

func (l *load) sweepAll(nodes []*node, kind string, pages int) {
	for _, n := range nodes {
		var all sync.WaitGroup
		for worker := range 4 {
			all.Go(func() {
				for i := worker; i < pages; i += 4 {
					l.request(n, fmt.Sprintf("/%s/%d", kind, i))
				}
			})
		}
		all.Wait()
	}
}

// anyNode is some node that clients would ask.
func (t *trial) anyNode() *node {
	for range 100 {
		if n := t.nodes[mathrand.IntN(len(t.nodes))]; !n.absent.Load() {
			return n
		}
	}
	return t.nodes[0]
}

// keepPurging publishes a new version of the news each second, and has what was
// there before purged.
func (t *trial) keepPurging() (stop func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		ticks := time.NewTicker(time.Second)
		defer ticks.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticks.C:
			}
			via := t.purgeVia.Load()
			if via == nil {
				via = t.anyNode()
			}
			if !via.absent.Load() {
				t.purgeNews(via)
			}
		}
	})
	return func() {
		close(done)
		all.Wait()
	}
}

// purgeNews is a promise on the part of all who acknowledge, if it succeeds.
func (t *trial) purgeNews(via *node) bool {
	version := t.origin.version.Add(1)
	acknowledged, ok := via.purge(`{"tags": ["` + news + `"]}`)
	if !ok {
		return false
	}
	for _, n := range t.nodes {
		if slices.Contains(acknowledged, n.Name) && !n.stranger {
			n.promised.Store(version)
		}
	}
	t.promised.Store(version)
	return true
}

func (t *trial) someHaveMissedPurges() bool {
	return slices.ContainsFunc(t.members(), func(n *node) bool { return n.promised.Load() < t.promised.Load() })
}

// heals notes that the fault is over.
func (t *trial) heals() {
	t.purgeVia.Store(nil)
	t.healed = time.Now()
}

func (t *trial) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// fail notes that the fault itself has found what must not be.
func (t *trial) fail(format string, args ...any) {
	t.failed = append(t.failed, fmt.Sprintf(format, args...))
}

// lasts is how long a fault lasts; less in the short selection.
func (t *trial) lasts(d, atLeast time.Duration) {
	if t.lab.quick {
		d = atLeast
	}
	time.Sleep(d)
}

// awaitRecovery returns how long it took until all nodes saw each other, and
// clients got as many hits as before.
func (t *trial) awaitRecovery(ratio float64) (time.Duration, error) {
	err := await(2*backWithin, "all is as before", func() bool {
		now := time.Now()
		return t.whole() && t.load.ratio(now.Add(-time.Second)) >= 0.95*ratio
	})
	return time.Since(t.healed), err
}

func (t *trial) usage() (map[*node]usage, error) {
	used := make(map[*node]usage)
	t.origin.closeIdle()
	live := slices.DeleteFunc(slices.Clone(t.first()), func(n *node) bool { return !n.Running() })
	for _, n := range live {
		n.clients.CloseIdleConnections()
	}
	for _, n := range live {
		u, err := n.usage()
		if err != nil {
			return nil, err
		}
		used[n] = u
	}
	return used, nil
}

// What a node may hold more than before: connections to peers come and go. Each
// peer more has some, too.
var (
	slack    = usage{goroutines: 15, descriptors: 8, heap: 16 << 20}
	eachPeer = usage{goroutines: 6, descriptors: 3, heap: 1 << 20}
)

// leaks says what some node doesn't let go of.
func (t *trial) leaks(before map[*node]usage) (leaked string) {
	err := await(settleWithin, "", func() bool {
		leaked = ""
		now, err := t.usage()
		if err != nil {
			leaked = err.Error()
			return false
		}
		more := len(t.members()) - t.size()
		for n, u := range now {
			b := before[n]
			b.goroutines, b.descriptors, b.heap = b.goroutines+more*eachPeer.goroutines, b.descriptors+more*eachPeer.descriptors, b.heap+more*eachPeer.heap
			if u.goroutines > b.goroutines+slack.goroutines || u.descriptors > b.descriptors+slack.descriptors || u.heap > b.heap+slack.heap {
				leaked = fmt.Sprintf("%s holds %d goroutines, %d descriptors, %d KiB; before %d, %d, %d", n.Name,
					u.goroutines, u.descriptors, u.heap>>10, b.goroutines, b.descriptors, b.heap>>10)
			}
		}
		return leaked == ""
	})
	if err == nil {
		return ""
	}
	return leaked
}
