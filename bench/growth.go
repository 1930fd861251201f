package main

import (
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// scale measures what more nodes cost, and how much more they hold.
func (b *bench) scale(ctx context.Context) error {
	const urls, asked = 500, 20
	s := sizes[1]
	b.report.printf("\n## More nodes\n\n")
	b.report.printf("%d URLs of %s, asked for at random on all nodes, after every node has been asked %d times for each, so that most of what it does not own\n", urls, s.name, asked)
	b.report.printf("lies there as a hot copy. All nodes share this machine, so what matters is the CPU of all nodes for one request. *Bodies held* is how many different bodies of %s the cluster has, of %d that all nodes in turn\n", s.name, capacityURLs)
	b.report.printf("were asked for, when each node has `cache_size 16MiB`; an estimate from 2000 of them.\n")
	path := func(int64) string { return s.path("/scale/" + strconv.Itoa(mrand.IntN(urls))) }
	var all []*contestant
	var held []int
	counts := []int{1, 2, 4}
	for _, n := range counts {
		progress("scale, %d nodes", n)
		nodes, err := b.lab.startCluster(ctx, cluster{sizes: repeat("256MiB", n)})
		if err != nil {
			return err
		}
		defer endAll(nodes)
		c := &contestant{name: strconv.Itoa(n), against: "1", load: &load{connections: b.connections}}
		for _, node := range nodes {
			t := node.cache.target(false, s.bytes, path)
			t.claims = []string{"detail=local", "detail=hot", "detail=peer", "fwd="}
			c.load.targets = append(c.load.targets, t)
			c.load.servers = append(c.load.servers, node.Process)
			all := *t
			all.claims = nil
			if err := b.askForAll(ctx, &all, urls*asked, func(n int64) string { return s.path("/scale/" + strconv.FormatInt(n%urls, 10)) }); err != nil {
				return err
			}
		}
		all = append(all, c)
		n, err := b.lab.capacity(ctx, s, n)
		if err != nil {
			return fmt.Errorf("capacity: %w", err)
		}
		held = append(held, n)
	}
	if err := b.contest(ctx, all); err != nil {
		return err
	}
	rows := [][]string{{"nodes", "requests/s", "CPU µs", "requests/s ×", "CPU ×", "local, hot, peer, miss %", "bodies held", "×"}}
	var cost, capacity []bar
	for i, c := range all {
		var perSecond, faster, dearer []float64
		var cpu []time.Duration
		var claims [4]int64
		for round, s := range c.samples {
			ref := all[0].samples[round]
			perSecond, cpu = append(perSecond, s.perSecond), append(cpu, s.cpu)
			faster, dearer = append(faster, s.perSecond/ref.perSecond), append(dearer, float64(s.cpu)/float64(ref.cpu))
			for k := range claims {
				claims[k] += s.claims[k]
			}
		}
		percent := func(k int) int64 { return (200*claims[k]/max(1, claims[0]+claims[1]+claims[2]+claims[3]) + 1) / 2 }
		rows = append(rows, []string{
			c.name, thousands(median(perSecond)), micros(median(cpu)), withQuartiles(faster), withQuartiles(dearer),
			fmt.Sprintf("%d, %d, %d, %d", percent(0), percent(1), percent(2), percent(3)),
			strconv.Itoa(held[i]), fmt.Sprintf("%.2f", float64(held[i])/float64(max(1, held[0]))),
		})
		cost = append(cost, bar{name: c.name + " nodes", value: float64(median(cpu)), label: micros(median(cpu)) + " µs"})
		capacity = append(capacity, bar{name: c.name + " nodes", value: float64(held[i]), label: strconv.Itoa(held[i])})
	}
	b.report.table(rows)
	b.report.plot("nodes-cpu", "CPU per request by number of nodes", bars("CPU µs of all nodes per request", cost))
	b.report.plot("nodes-held", "bodies held by number of nodes", bars("Different bodies that the cluster holds", capacity))
	return nil
}

func repeat(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

// askForAll asks once for each of so many paths.
func (b *bench) askForAll(ctx context.Context, t *target, count int64, path func(n int64) string) error {
	var next atomic.Int64
	return parallel(b.connections, func() error {
		w, err := t.dial()
		if err != nil {
			return err
		}
		defer w.close()
		for n := next.Add(1); n <= count && ctx.Err() == nil; n = next.Add(1) {
			a, err := w.do(path(n), t.fields)
			if err == nil {
				_, err = t.check(&a)
			}
			if err != nil {
				return fmt.Errorf("GET %s at %s: %w", path(n), t.addr, err)
			}
		}
		return ctx.Err()
	})
}

const capacityURLs = 6000

// capacity returns how many different bodies a cluster of small nodes holds.
func (l *lab) capacity(ctx context.Context, s size, count int) (int, error) {
	nodes, err := l.startCluster(ctx, cluster{sizes: repeat("16MiB", count)})
	if err != nil {
		return 0, err
	}
	defer endAll(nodes)
	var wires []wire
	for _, n := range nodes {
		w, err := n.cache.target(false, s.bytes, nil).dial()
		if err != nil {
			return 0, err
		}
		defer w.close()
		wires = append(wires, w)
	}
	path := func(n int64) string { return s.path("/capacity/" + strconv.FormatInt(n, 10)) }
	ask := func(n int64, more [][2]string) (answer, error) {
		w := wires[n%int64(count)]
		return w.do(path(n), more)
	}
	for n := range int64(capacityURLs) {
		if a, err := ask(n, nil); err != nil || a.status != http.StatusOK {
			return 0, fmt.Errorf("status %d, %w", a.status, err)
		}
	}
	// Only some, because asking changes what is held.
	const probes = 2000
	held := 0
	for range probes {
		a, err := ask(mrand.Int64N(capacityURLs), [][2]string{{"Cache-Control", "only-if-cached"}})
		if err != nil {
			return 0, err
		}
		if a.status == http.StatusOK {
			held++
		}
	}
	return held * capacityURLs / probes, ctx.Err()
}

// memory measures what an entry takes, and what a hit costs, as entries grow.
func (b *bench) memory(ctx context.Context) error {
	payload := smallBody
	for _, f := range fields {
		payload += len(f[0]) + len(f[1])
	}
	b.report.printf("\n## Memory, and cost by number of entries\n\n")
	b.report.printf("Bodies of %d bytes with %d header fields, %d bytes altogether. *Over payload* is what a node's memory grew by for each entry, less that: the\n", smallBody, len(fields), payload)
	b.report.printf("heap after a garbage collection, and what the process has resident. A hit is for one of all entries, at random; each number of entries is\n")
	b.report.printf("in a process of its own, and these take turns.\n")
	var all []*contestant
	rows := [][]string{{"entries", "heap over payload, bytes", "resident over payload, bytes", "hits/s", "CPU µs", "CPU ×"}}
	for count := min(1000, b.entries); count <= b.entries; count *= 10 {
		progress("memory, %d entries", count)
		nodes, err := b.lab.startCluster(ctx, cluster{sizes: []string{strconv.Itoa(64+count*12/1024) + "MiB"}})
		if err != nil {
			return err
		}
		defer endAll(nodes)
		n := nodes[0]
		path := func(i int64) string { return fmt.Sprintf("/%d/%d", smallBody, i) }
		t := n.inside.target(false, smallBody, path)
		if err := b.askForAll(ctx, t, 100, func(i int64) string { return path(-i) }); err != nil { // what every process needs
			return err
		}
		heap, rss, err := n.memoryUse()
		if err != nil {
			return err
		}
		if err := b.askForAll(ctx, t, int64(count), path); err != nil {
			return err
		}
		fullHeap, fullRSS, err := n.memoryUse()
		if err != nil {
			return err
		}
		over := func(before, after int64) string {
			return thousands(float64(after-before)/float64(count) - float64(payload))
		}
		row := []string{thousands(float64(count)), over(heap, fullHeap), over(rss, fullRSS), "", "", ""}
		if count < 100_000 {
			row[2] = "" // what awaits the next garbage collection is more than that
		}
		rows = append(rows, row)
		hit := n.inside.target(false, smallBody, func(int64) string { return path(1 + mrand.Int64N(int64(count))) })
		hit.claims = []string{"detail=local"}
		all = append(all, &contestant{name: strconv.Itoa(count), load: &load{targets: []*target{hit}, connections: b.connections, servers: []*harness.Process{n.Process}}})
	}
	if err := b.contest(ctx, all); err != nil {
		return err
	}
	costs := series{name: "a hit"}
	for i, c := range all {
		var perSecond, dearer []float64
		var cpu []time.Duration
		for round, s := range c.samples {
			perSecond, cpu = append(perSecond, s.perSecond), append(cpu, s.cpu)
			dearer = append(dearer, float64(s.cpu)/float64(all[0].samples[round].cpu))
		}
		row := rows[i+1]
		row[3], row[4], row[5] = thousands(median(perSecond)), micros(median(cpu)), withQuartiles(dearer)
		count, _ := strconv.ParseFloat(c.name, 64)
		costs.points = append(costs.points, [2]float64{count, float64(median(cpu)) / 1e3})
	}
	b.report.table(rows)
	b.report.plot("entries", "cost of a hit by number of entries", lines("CPU µs of a hit", "entries", []series{costs}))
	return nil
}

var heapAlloc = regexp.MustCompile(`# HeapAlloc = (\d+)`)

// memoryUse returns what a node has on its heap after a garbage collection, and
// resident.
func (n *node) memoryUse() (heap, rss int64, err error) {
	for range 2 { // what a pool holds survives one collection
		b, err := n.Get("/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return 0, 0, err
		}
		m := heapAlloc.FindSubmatch(b)
		if m == nil {
			return 0, 0, fmt.Errorf("the heap profile of %s has no HeapAlloc", n.Name)
		}
		heap, _ = strconv.ParseInt(string(m[1]), 10, 64)
	}
	rss, err = resident(n.Pid())
	return heap, rss, err
}

// ring measures what it costs to find a key's owner as the ring grows. Nodes are
// simulated: all that a look-up knows of them is a list.
func (b *bench) ring(context.Context) error {
	progress("ring")
	b.report.printf("\n## Cost by number of nodes\n\n")
	b.report.printf("Finding the owner of a key on rings of simulated nodes, which a hit does up to three times.\n")
	keys := make([]store.Key, 1<<12)
	for i := range keys {
		_, _ = rand.Read(keys[i][:]) // never fails
	}
	rows := [][]string{{"nodes", "ns"}}
	line := series{name: "a look-up"}
	for _, count := range []int{1, 3, 10, 30, 100, 300, 1000} {
		var nodes []peer.Node
		for i := range count {
			nodes = append(nodes, peer.Node{Name: "node-" + strconv.Itoa(i)})
		}
		r := peer.NewRing("node-0", nodes)
		var times []float64
		for range b.rounds {
			begin, n := time.Now(), 0
			for time.Since(begin) < b.round()/20 {
				for i := range 64 {
					r.Owner(keys[(n+i)%len(keys)])
				}
				n += 64
			}
			times = append(times, float64(time.Since(begin).Nanoseconds())/float64(n))
		}
		rows = append(rows, []string{thousands(float64(count)), fmt.Sprintf("%.0f", median(times))})
		line.points = append(line.points, [2]float64{float64(count), median(times)})
	}
	b.report.table(rows)
	b.report.plot("ring", "cost of finding an owner", lines("ns to find the owner of a key", "nodes on the ring", []series{line}))
	return nil
}
