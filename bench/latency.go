package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// latency measures how long answers take at a rate that no server finds hard.
func (b *bench) latency(ctx context.Context) error {
	b.report.printf("\n## Latency\n\n")
	b.report.printf("At %s requests a second over %d connections. A request that has to wait for the one before it counts from when it was due.\n", thousands(float64(b.rate)), b.connections)
	var small []size
	for _, s := range b.selectedSizes() {
		if s.bytes < 1<<20 { // a large body fills the machine at any rate worth the name
			small = append(small, s)
		}
	}
	return b.eachArena(ctx, small, func(a *arena) error {
		all := slices.DeleteFunc(b.selected(a.contestants()), func(c *contestant) bool {
			return slices.Contains(untimed, c.name)
		})
		for _, c := range all {
			c.load.rate = b.rate
		}
		progress("latency, %s, HTTP/%s: %d cases", a.size.name, a.version(), len(all))
		if err := b.contest(ctx, all); err != nil {
			return err
		}
		b.report.printf("\n### %s, HTTP/%s\n", a.size.name, a.version())
		rows := [][]string{{"", "p50 µs", "p99 µs"}}
		var plotted []bar
		for _, c := range all {
			var p50, p99 []time.Duration
			for _, s := range c.samples {
				p50, p99 = append(p50, median(s.latencies)), append(p99, quantile(s.latencies, 0.99))
			}
			rows = append(rows, []string{c.name, micros(median(p50)), micros(median(p99))})
			plotted = append(plotted, bar{
				name: c.name, value: float64(median(p50)), rival: c.rival,
				label: micros(median(p50)) + " · " + micros(median(p99)) + " µs",
			})
		}
		b.report.table(rows)
		b.report.plot("latency-"+strings.ToLower(a.size.name)+"-http"+a.version()[:1], "latency, "+a.size.name,
			bars(fmt.Sprintf("p50 · p99 at %s requests/s, %s, HTTP/%s", thousands(float64(b.rate)), a.size.name, a.version()), plotted))
		return nil
	})
}

// untimed are the cases whose latency tells nothing that others don't tell.
var untimed = []string{fullName, fullHitName, "respond", "304", filesName + " 304", "range, a quarter", filesName + " range"}

// A runner is one case of firstByte.
type runner struct {
	name, against string
	rival         bool
	// run makes one request and returns the time to its first byte; false if it
	// was not of the kind that is measured.
	run   func() (time.Duration, bool, error)
	times []time.Duration
}

// firstByte measures how long it takes until an answer begins, with one request
// at a time; the cases take turns request by request.
func (b *bench) firstByte(ctx context.Context) error {
	b.report.printf("\n## Time to first byte\n\n")
	b.report.printf("One request at a time, over one connection; the cases take turns request by request. *Added* compares medians. The two nodes have just met, and\n")
	b.report.printf("for five minutes after that the owner of what is a miss asks who owned it before: one more round trip, which the last two rows have in them.\n")
	sizes := b.selectedSizes()
	alone, err := b.lab.startCluster(ctx, cluster{sizes: []string{"512MiB"}, compare: true})
	if err != nil {
		return err
	}
	defer endAll(alone)
	for _, s := range sizes {
		if err := b.firstByteOf(ctx, alone[0], s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// untilFirstByte returns what asks the target once, over a connection of its own, and
// tells how long the first byte took, and whether that counts: if the first of the
// target's claims is true and, unless unlike is empty, the cache says something else
// than that at the end when the same is asked for again.
func (t *target) untilFirstByte(ctx context.Context, unlike string) (func() (time.Duration, bool, error), error) {
	w, err := t.dial()
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, w.close)
	asked := int64(-1)
	return func() (time.Duration, bool, error) {
		asked++ // none for so long that others take its place
		path := t.path(asked)
		begin := time.Now()
		r, err := w.do(path, t.fields)
		took := r.first.Sub(begin)
		if err != nil {
			return 0, false, err
		}
		claim, err := t.check(&r)
		if err != nil || unlike == "" {
			return took, claim == 0, err
		}
		// Who owns what was a miss shows when it is asked for again.
		again, err := w.do(path, t.fields)
		return took, err == nil && !strings.HasSuffix(string(again.cache), unlike), err
	}, nil
}

func (b *bench) firstByteOf(ctx context.Context, alone *node, s size) error {
	progress("first byte, %s", s.name)
	plain, err := b.startPair(ctx, s, "")
	if err != nil {
		return err
	}
	defer plain.end()
	secret, err := b.startPair(ctx, s, newSecret())
	if err != nil {
		return err
	}
	defer secret.end()
	a := &arena{size: s}
	var all []*runner
	at := func(where site, path func(int64) string, claims ...string) *target {
		t := where.target(false, s.bytes, path)
		t.claims = claims
		return t
	}
	among := func(paths []string) func(int64) string {
		return func(n int64) string { return paths[n%int64(len(paths))] }
	}
	const miss = "fwd=uri-miss; fwd-status=200; stored"
	for _, c := range []struct {
		name, against string
		rival         bool
		target        *target
		unlike        string
	}{
		{ceilingName, "", true, at(alone.ceiling, always(s.path("/fixed"))), ""},
		{localName, "", false, at(plain.owner.cache, among(plain.paths), "detail=local"), ""},
		{remoteName, localName, false, at(plain.asker.cache, among(plain.paths), "detail=peer", "detail=hot"), ""},
		{remoteSecretName, localName, false, at(secret.asker.cache, among(secret.paths), "detail=peer", "detail=hot"), ""},
		{proxyName, "", true, at(alone.proxy, a.newPath), ""},
		{missName, proxyName, false, at(alone.cache, a.newPath, miss), ""},
		{"miss, another node owns it", proxyName, false, at(plain.asker.cache, a.newPath, miss), "detail=local"},
		{"miss, another owns it, secret", proxyName, false, at(secret.asker.cache, a.newPath, miss), "detail=local"},
	} {
		run, err := c.target.untilFirstByte(ctx, c.unlike)
		if err != nil {
			return err
		}
		all = append(all, &runner{name: c.name, against: c.against, rival: c.rival, run: run})
	}
	for end := time.Now().Add(time.Duration(b.rounds*closer) * b.round()); time.Now().Before(end); {
		for _, r := range all {
			took, counts, err := r.run()
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			if counts {
				r.times = append(r.times, took)
			}
		}
	}
	b.report.firstBytes(s, all)
	return nil
}

// firstBytes adds what firstByteOf has measured.
func (r *report) firstBytes(s size, all []*runner) {
	r.printf("\n### %s\n", s.name)
	rows := [][]string{{"", "p50 µs", "p99 µs", "against", "added µs", "requests"}}
	byName := make(map[string]*runner)
	var plotted []bar
	for _, c := range all {
		byName[c.name] = c
		if len(c.times) == 0 {
			continue
		}
		p50, p99 := median(c.times), quantile(c.times, 0.99)
		row := []string{c.name, micros(p50), micros(p99), "", "", strconv.Itoa(len(c.times))}
		if ref := byName[c.against]; ref != nil {
			row[3], row[4] = ref.name, micros(p50-median(ref.times))
		}
		rows = append(rows, row)
		plotted = append(plotted, bar{name: c.name, value: float64(p50), label: micros(p50) + " µs", rival: c.rival})
	}
	r.table(rows)
	r.plot("firstbyte-"+strings.ToLower(s.name), "time to first byte, "+s.name, bars("Time to first byte, µs (p50), "+s.name, plotted))
}
