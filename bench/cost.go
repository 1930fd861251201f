package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

const (
	// costLimit is how large a dimension of a request gets, in bytes: what servers in
	// front of upstreams take of a header or a target, or nearly.
	costLimit = 15_000
	// costBound is how much more than a plain hit one may cost at the limit, or, where
	// net/http alone takes that, what the cache adds to it.
	costBound = 8
	// costGrowth is how much more the whole of what is added may cost than half of it:
	// 2 is linear, and 4 the square.
	costGrowth = 3
	// costRounds is how many rounds it takes to say that a bound does not hold.
	costRounds = 5
	// costVariants are the variants that are stored of one URL.
	costVariants = 32
)

// A dimension is something that clients make as large as they like.
type dimension struct {
	name string
	ask  func(bytes int) (path string, fields [][2]string)
}

// filled repeats an item, numbered, up to so many bytes.
func filled(bytes int, separator, item string) string {
	var s strings.Builder
	for i := 0; s.Len() < bytes; i++ {
		if i > 0 {
			s.WriteString(separator)
		}
		fmt.Fprintf(&s, item, i)
	}
	return s.String()[:min(bytes, s.Len())]
}

// inField returns a dimension that is one request field, to a path.
func inField(name, path, field, separator, item string) dimension {
	return dimension{name: name, ask: func(bytes int) (string, [][2]string) {
		return path, [][2]string{{field, filled(bytes, separator, item)}}
	}}
}

// manyFields returns a dimension that is the number of fields.
func manyFields(name, field string) dimension {
	return dimension{name, func(bytes int) (string, [][2]string) {
		var fields [][2]string
		for i := range bytes / 16 {
			fields = append(fields, [2]string{fmt.Sprintf(field, i), "v"})
		}
		return "/plain", fields
	}}
}

// fieldsOfTheKey are as many as a request may have that has a key, and ever longer.
func fieldsOfTheKey(bytes int) (string, [][2]string) {
	const most = 32
	var fields [][2]string
	for i := range most {
		fields = append(fields, [2]string{fmt.Sprintf("X-Now-%04d", i), strings.Repeat("v", bytes/most)})
	}
	return "/plain", fields
}

// dimensions are all those of a request.
var dimensions = []dimension{
	inField("a field that nothing selects by", "/plain", "X-Any", "", "x"),
	manyFields("many fields", "X-Any-%04d"),
	manyFields("many fields with dots", "X.Any.%04d"),
	{"fields of the key, as many as it may have", fieldsOfTheKey},
	inField("members of Accept-Encoding", "/vary", "Accept-Encoding", ", ", "x%d;q=0.5"),
	inField("members of Accept-Language", "/vary", "Accept-Language", ", ", "x-%d;q=0.5"),
	inField("members of a Vary field", "/vary", "X-Variant", ", ", "x%d"),
	inField("cookies, some of them ignored", "/cookies", "Cookie", "; ", "_ga%[1]d=v; c%[1]d=v"),
	inField("directives of Cache-Control", "/plain", "Cache-Control", ", ", "x%d=1"),
	inField("ranges", "/plain", "Range", ",", "%[1]d-%[1]d"),
	inField("tags of If-None-Match", "/plain", "If-None-Match", ", ", `"t%d"`),
	inField("elements of Forwarded", "/plain", "Forwarded", ", ", `for=192.0.2.1;by="x%d"`),
	inField("members of X-Forwarded-Proto", "/plain", "X-Forwarded-Proto", ", ", "x%d"),
	{"the path", func(bytes int) (string, [][2]string) { return "/plain/" + filled(bytes, "/", "p%d"), nil }},
	{"parameters", func(bytes int) (string, [][2]string) { return "/plain?" + filled(bytes, "&", "p%d=v"), nil }},
	{"parameters that are ignored", func(bytes int) (string, [][2]string) { return "/plain?" + filled(bytes, "&", "utm_%d=v"), nil }},
	{"escapes in parameters", func(bytes int) (string, [][2]string) { return "/plain?" + filled(bytes, "&", "%%70%d=%%20"), nil }},
	{"variants", func(bytes int) (string, [][2]string) { // a hit for one of as many as have come by then
		return "/variants", [][2]string{{"X-Variant", fmt.Sprint(bytes * costVariants / costLimit)}}
	}},
}

// cost measures what requests cost as clients make them larger, and fails if one costs
// more than it may.
func (b *bench) cost(ctx context.Context) error {
	b.report.printf("\n## What a client can make a hit cost\n\n")
	b.report.printf("Hits of 1 KiB, as one thing in the request grows to %s bytes (the variants of a URL, to %d). CPU and memory are beside those of a plain hit, taken in turns; *without\n", thousands(costLimit), costVariants)
	b.report.printf("the cache* is the same request to the same handler alone, beside a plain one to it: net/http's part. Memory is what is allocated for a request.\n")
	nodes, err := b.lab.startCluster(ctx, cluster{sizes: []string{"256MiB"}, costly: true})
	if err != nil {
		return err
	}
	defer endAll(nodes)
	c := costs{b: b, node: nodes[0]}
	if err := c.take(ctx); err != nil {
		return err
	}
	return c.judge()
}

// costs are the costs of all dimensions.
type costs struct {
	b         *bench
	node      *node
	all       []*contestant // each four in a row: half and whole, with the cache, whole without; before these the plain ones
	allocated []float64     // bytes for one request of each contestant
}

const perDimension = 3

func (c *costs) add(ctx context.Context, name string, s site, path string, fields [][2]string) error {
	t := s.target(false, 1<<10, always(path))
	t.fields = fields
	allocated, err := c.warm(ctx, t)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if s == c.node.costly {
		t.claims = []string{"hit"}
	}
	c.allocated = append(c.allocated, allocated)
	c.all = append(c.all, &contestant{name: name, load: &load{targets: []*target{t}, connections: min(c.b.connections, 16), servers: []*harness.Process{c.node.Process}}})
	return nil
}

// warm asks until a target is stored, and returns how many bytes a request allocates.
func (c *costs) warm(ctx context.Context, t *target) (float64, error) {
	w, err := t.dial()
	if err != nil {
		return 0, err
	}
	defer w.close()
	const few, many = 5, 300
	var before float64
	for i := range few + many {
		if i == few {
			if before, err = c.node.totalAlloc(); err != nil {
				return 0, err
			}
		}
		a, err := w.do(t.path(0), t.fields)
		if err == nil {
			_, err = t.check(&a)
		}
		if err != nil {
			return 0, err
		}
	}
	after, err := c.node.totalAlloc()
	return (after - before) / many, err
}

// totalAlloc returns how many bytes a node has ever allocated.
func (n *node) totalAlloc() (float64, error) {
	b, err := n.Get("/debug/vars")
	if err != nil {
		return 0, err
	}
	var vars struct {
		Memstats struct{ TotalAlloc float64 } `json:"memstats"`
	}
	err = json.Unmarshal(b, &vars)
	return vars.Memstats.TotalAlloc, err
}

func (c *costs) take(ctx context.Context) error {
	if err := c.add(ctx, "plain", c.node.costly, "/plain", nil); err != nil {
		return err
	}
	if err := c.add(ctx, "plain, without the cache", c.node.costless, "/plain", nil); err != nil {
		return err
	}
	for _, d := range dimensions {
		progress("cost of %s", d.name)
		half, halfFields := d.ask(costLimit / 2)
		whole, wholeFields := d.ask(costLimit)
		if d.name == "variants" {
			for i := range costVariants {
				path, fields := d.ask(i * costLimit / costVariants)
				if _, err := c.warm(ctx, &target{addr: c.node.costly.addr, path: always(path), fields: fields, status: 200, length: 1 << 10}); err != nil {
					return err
				}
			}
		}
		for _, at := range []struct {
			site   site
			path   string
			fields [][2]string
		}{{c.node.costly, half, halfFields}, {c.node.costly, whole, wholeFields}, {c.node.costless, whole, wholeFields}} {
			if err := c.add(ctx, d.name, at.site, at.path, at.fields); err != nil {
				return err
			}
		}
	}
	return c.b.contest(ctx, c.all)
}

// ratios returns the CPU of a contestant beside that of another one, round by round.
func (c *costs) ratios(i, plain int) []float64 {
	var all []float64
	for round, s := range c.all[i].samples {
		all = append(all, float64(max(s.cpu, 1))/float64(max(c.all[plain].samples[round].cpu, 1)))
	}
	return all
}

// added returns what the cache adds to the CPU of a request, beside that of a plain hit.
func (c *costs) added(with, without int) []float64 {
	var all []float64
	for round, s := range c.all[with].samples {
		all = append(all, float64(s.cpu-c.all[without].samples[round].cpu)/float64(max(c.all[0].samples[round].cpu, 1)))
	}
	return all
}

// judge reports all costs, and fails if one is beyond its bound.
func (c *costs) judge() error {
	rows := [][]string{{"what grows", "CPU × at half", "CPU × at the limit", "without the cache ×", "memory × at the limit"}}
	var beyond []string
	for k, d := range dimensions {
		i := 2 + k*perDimension
		half, whole, bare := median(c.ratios(i, 0)), median(c.ratios(i+1, 0)), median(c.ratios(i+2, 1))
		memory := c.allocated[i+1] / max(c.allocated[0], 1)
		rows = append(rows, []string{d.name, fmt.Sprintf("%.1f", half), fmt.Sprintf("%.1f", whole), fmt.Sprintf("%.1f", bare), fmt.Sprintf("%.1f", memory)})
		if added := median(c.added(i+1, i+2)); whole > costBound && added > costBound {
			beyond = append(beyond, fmt.Sprintf("%s: %.1f × a plain hit, %.1f of it by the cache: more than %d", d.name, whole, added, costBound))
		}
		if whole-1 > costGrowth*max(half-1, 0)+1 {
			beyond = append(beyond, fmt.Sprintf("%s: %.1f × at half the limit, and %.1f × at the limit: more than linear", d.name, half, whole))
		}
	}
	c.b.report.table(rows)
	cpu := make([]time.Duration, 0, len(c.all[0].samples))
	for _, s := range c.all[0].samples {
		cpu = append(cpu, s.cpu)
	}
	c.b.report.printf("\nA plain hit takes %s µs of CPU, and %s bytes.\n", micros(median(cpu)), thousands(c.allocated[0]))
	if len(beyond) > 0 && c.b.rounds >= costRounds { // of fewer, one may have been disturbed
		return fmt.Errorf("beyond the bounds:\n%s", strings.Join(slices.Sorted(slices.Values(beyond)), "\n"))
	}
	return nil
}
