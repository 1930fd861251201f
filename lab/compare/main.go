package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

func main() {
	harness.Become(map[string]func(){harness.Caddy: caddycmd.Main})
	seed := flag.Uint64("seed", 1, "the first composition's seed")
	n := flag.Int("n", 1000, "how many compositions")
	requests := flag.Int("requests", 20, "requests of a composition")
	known := flag.Int("case", 0, "draw the elements of this case too, though notYet switches them off")
	all := flag.Bool("all", false, "draw everything that notYet switches off")
	most := flag.Int("failures", 10, "stop after so many failures")
	nodes := flag.Int("nodes", 1, "how many nodes the sites are on: 1, in this process, or more processes")
	flag.Parse()
	dir, err := os.MkdirTemp("", "compare")
	if err == nil {
		defer os.RemoveAll(dir)
		wanted := func(k int) bool { _, off := notYet[k]; return !off || *all || k == *known }
		err = run(os.Stdout, dir, options{*seed, *n, *requests, *most, *nodes, wanted})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
}

// options say what a run draws.
type options struct {
	seed        uint64
	n, requests int
	most        int // failures
	nodes       int
	wanted      func(known int) bool
}

// run tries compositions and reports each difference in its smallest form.
func run(out io.Writer, dir string, o options) error {
	g, err := newRig(dir)
	if err != nil {
		return err
	}
	defer g.close()
	if o.nodes > 1 {
		if err := g.startCluster(o.nodes, filepath.Join(dir, "nodes")); err != nil {
			return err
		}
	}
	var failures, tried int
	var total [2]int64
	refused, elements := make(map[string]int), catalogue()
	start := time.Now()
	var spent time.Duration // shrinking
	for i := 0; i < o.n && failures < o.most; i++ {
		c := compose(o.seed+uint64(i), elements, o.requests, o.wanted)
		for j := range c.requests {
			c.requests[j].node %= o.nodes
		}
		result, err := g.try(c)
		if err != nil {
			return err
		}
		tried++
		total[0], total[1] = total[0]+result.upstream[0], total[1]+result.upstream[1]
		if result.differs != nil {
			failures++
			shrinking := time.Now()
			smallest, d := g.shrink(c, result.differs)
			report(out, smallest, d)
			spent += time.Since(shrinking)
		} else if result.refused != "" {
			refused[result.refused]++
		}
	}
	took := time.Since(start) - spent
	fmt.Fprintf(out, "%d compositions in %v (%.0f a second), %d failures; %d upstream requests, twins %d\n",
		tried, took.Round(time.Millisecond), float64(tried)/took.Seconds(), failures, total[0], total[1])
	for _, sentence := range slices.Sorted(maps.Keys(refused)) {
		fmt.Fprintf(out, "refused %d times: %s\n", refused[sentence], sentence)
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d compositions differ from their twins", failures, tried)
	}
	return nil
}

func report(out io.Writer, c *composition, d *difference) {
	var cases []string
	for _, e := range c.elements {
		if e.known != 0 {
			cases = append(cases, fmt.Sprint(e.known))
		}
	}
	fmt.Fprintf(out, "seed %d, %s, case %s: %s\n%s", c.seed, d.kind, cmp.Or(strings.Join(cases, "+"), "unknown"), d.text, c.describe())
	for _, r := range c.requests {
		fmt.Fprintf(out, "    %v\n", r)
	}
	fmt.Fprintln(out)
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

func discard() *log.Logger { return log.New(io.Discard, "", 0) }
