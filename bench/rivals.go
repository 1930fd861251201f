package main

import (
	"context"
	"fmt"
	mrand "math/rand/v2"
	"strconv"
)

// Growth of the express lane and of other caches, over connections and over entries.

// caches are the contestants that answer from memory over HTTP/1.1.
func (a *arena) caches(path func(int64) string) (all []*contestant) {
	n := a.alone
	all = append(all,
		a.contestant(laneName, "", a.at(n.lane, path, "detail=local"), n.Process),
		a.contestant(localName, laneName, a.at(n.cache, path, "detail=local"), n.Process))
	for _, r := range a.rivals {
		c := a.contestant(r.Name+" hit", laneName, a.at(site{addr: r.addr}, path, "HIT"), r.Process)
		c.rival = true
		all = append(all, c)
	}
	return all
}

// inOneArena calls f with the smallest size, HTTP/1.1, and all other caches.
func (b *bench) inOneArena(ctx context.Context, memory string, f func(*arena) error) error {
	rivals, err := b.lab.startRivals(ctx)
	if err != nil {
		return err
	}
	for _, r := range rivals {
		defer r.End()
	}
	alone, err := b.lab.startCluster(ctx, cluster{sizes: []string{memory}, compare: true})
	if err != nil {
		return err
	}
	defer endAll(alone)
	return f(&arena{b: b, size: sizes[0], alone: alone[0], rivals: rivals})
}

// byConnections measures caches with few and with many connections.
func (b *bench) byConnections(ctx context.Context) error {
	b.report.printf("\n## By number of connections\n\nHits of %s over HTTP/1.1; requests/s and CPU µs of each cache, which take turns.\n", sizes[0].name)
	return b.inOneArena(ctx, "512MiB", func(a *arena) error {
		var groups [][]*contestant
		var names []string
		for _, n := range []int{1, 16, 64, 512} {
			all := a.caches(a.fixed())
			for _, c := range all {
				c.load.connections, c.prepare = n, until(c.load.targets[0])
			}
			progress("connections, %d", n)
			if err := b.contest(ctx, all); err != nil {
				return err
			}
			groups, names = append(groups, all), append(names, strconv.Itoa(n))
		}
		b.report.grown("connections", names, groups)
		return nil
	})
}

// byEntries measures caches with few and with many entries.
func (b *bench) byEntries(ctx context.Context) error {
	b.report.printf("\n## By number of entries\n\nHits of %s over HTTP/1.1, each for one of all entries, at random; requests/s and CPU µs of each cache, which take turns.\n", sizes[0].name)
	memory := strconv.Itoa(64+b.entries*6/1024) + "MiB" // of two groups
	return b.inOneArena(ctx, memory, func(a *arena) error {
		var groups [][]*contestant
		var names []string
		filled := 0
		path := func(i int64) string { return a.size.path("/entry/" + strconv.FormatInt(i, 10)) }
		for count := min(1000, b.entries); count <= b.entries; count *= 10 {
			progress("entries, %d", count)
			all := a.caches(func(int64) string { return path(mrand.Int64N(int64(count))) })
			for _, c := range all {
				fill := *c.load.targets[0]
				fill.claims = nil
				if err := b.askForAll(ctx, &fill, int64(count-filled), func(i int64) string { return path(int64(filled) + i - 1) }); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			filled = count
			if err := b.contest(ctx, all); err != nil {
				return err
			}
			groups, names = append(groups, all), append(names, thousands(float64(count)))
		}
		b.report.grown("entries", names, groups)
		return nil
	})
}

// grown adds a row for each cache, with a column for each group.
func (r *report) grown(what string, names []string, groups [][]*contestant) {
	rows := [][]string{append([]string{what + ":"}, names...)}
	for i, c := range groups[0] {
		row := []string{c.name}
		for _, all := range groups {
			var perSecond, cpu []float64
			for _, s := range all[i].samples {
				perSecond, cpu = append(perSecond, s.perSecond), append(cpu, float64(s.cpu)/1e3)
			}
			row = append(row, fmt.Sprintf("%s, %.1f µs", thousands(median(perSecond)), median(cpu)))
		}
		rows = append(rows, row)
	}
	r.table(rows)
}
