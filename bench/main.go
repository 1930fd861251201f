// Command bench measures what the cache costs, beside what else could serve the
// same responses on the same machine.
//
//	go run ./bench                                # everything; about twenty minutes
//	go run ./bench -o docs/performance.md         # the same, as a page with plots
//	go run ./bench -only throughput -cases 'local hit' -sizes 1KiB -http 1
//	go run ./bench -only memory -entries 1000000
//	go run ./bench -only cost                     # fails if a client can make a hit cost more than it may
//
// The servers are processes of their own, so their processor time is known apart
// from that of the load generator, which is in this program. What is compared
// takes turns, round by round, so whatever else the machine does meets all alike. Every answer is checked: its status, its
// length, and that Cache-Status says what the case is about.
//
// It needs Linux, whose /proc tells processor times. nginx, varnishd and traffic_server
// join in if they are installed. Everything listens on loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

func main() {
	harness.Become(roles)
	b := newBench(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is one session.
type bench struct {
	seconds     float64
	rounds      int
	connections int
	only        string
	cases       string
	sizes       string
	http        string
	rate        int
	entries     int
	page        string
	profiles    string

	// What is brought from another node is one of so many, or it would soon lie
	// on both; and how many of the answers must have been brought.
	remoteURLs  int
	remoteShare float64

	lab    lab
	report report
	match  *regexp.Regexp
}

// parts are what -only selects from.
var parts = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"throughput", (*bench).throughput},
	{"connections", (*bench).byConnections},
	{"entries", (*bench).byEntries},
	{"latency", (*bench).latency},
	{"firstbyte", (*bench).firstByte},
	{"scale", (*bench).scale},
	{"memory", (*bench).memory},
	{"ring", (*bench).ring},
	{"cost", (*bench).cost},
}

func newBench(f *flag.FlagSet) *bench {
	b := &bench{remoteURLs: 2000, remoteShare: 0.85}
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	f.Float64Var(&b.seconds, "seconds", 0.2, "length of a round in seconds")
	f.IntVar(&b.rounds, "rounds", 10, "rounds of each case; those of which a few hundredths matter have more")
	f.IntVar(&b.connections, "connections", 64, "keep-alive connections")
	f.StringVar(&b.only, "only", strings.Join(names, ","), "what to measure")
	f.StringVar(&b.cases, "cases", "", "a regular expression for the cases of throughput and latency; what they are compared with is measured too")
	f.StringVar(&b.sizes, "sizes", "1KiB,10KiB,1MiB", "sizes of bodies")
	f.StringVar(&b.http, "http", "1,1s,2,2s", "versions of HTTP; with an s over TLS")
	f.IntVar(&b.rate, "rate", 2000, "requests a second where latency is measured")
	f.IntVar(&b.entries, "entries", 100_000, "up to how many entries memory and caches are measured with; a million needs 8 GiB of memory, and 5 GiB of disk")
	f.StringVar(&b.page, "o", "", "write the report to this Markdown file, and its plots to a directory of the same name")
	f.StringVar(&b.profiles, "profiles", "", "write a CPU profile of each case of throughput to this directory, taken in one more round")
	return b
}

func (b *bench) run(ctx context.Context) error {
	var err error
	if b.match, err = regexp.Compile(b.cases); err != nil {
		return err
	}
	if b.rounds < 1 || b.connections < 1 || b.seconds <= 0 || b.seconds > longestRound.Seconds() || b.rate < 1 {
		return errors.New("rounds, connections, seconds and rate must be positive, and a round at most a minute long")
	}
	if _, err := cpuTime(); err != nil {
		return err
	}
	if b.lab.dir, err = os.MkdirTemp("", "groupcache-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.lab.dir)
	if err := os.Chmod(b.lab.dir, 0o755); err != nil { // other caches drop root's rights
		return err
	}
	origin, err := b.lab.startOrigin(ctx)
	if err != nil {
		return err
	}
	defer origin.End()
	begin := time.Now()
	all, own := machineTime()
	b.report.begin(b)
	names := strings.Split(b.only, ",")
	for _, p := range parts {
		if !slices.Contains(names, p.name) {
			continue
		}
		if err := p.run(b, ctx); err != nil {
			_ = b.report.write("") // what has been measured until now is not lost
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	fmt.Fprintf(os.Stderr, "done in %s\n", time.Since(begin).Round(time.Second))
	_ = origin.End() // its time counts when it has ended
	allEnd, ownEnd := machineTime()
	others := (allEnd - all) - (ownEnd - own)
	b.report.others = float64(others) / float64(time.Since(begin)) / float64(runtime.NumCPU())
	return b.report.write(b.page)
}

func (b *bench) round() time.Duration { return time.Duration(b.seconds * float64(time.Second)) }

// progress tells who waits what goes on.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// A size is that of a body.
type size struct {
	name  string
	bytes int
}

var sizes = []size{{"1KiB", 1 << 10}, {"10KiB", 10 << 10}, {"1MiB", 1 << 20}}

func (s size) path(rest string) string { return fmt.Sprintf("/%d%s", s.bytes, rest) }

func (b *bench) selectedSizes() []size {
	var selected []size
	for _, s := range sizes {
		if slices.Contains(strings.Split(b.sizes, ","), s.name) {
			selected = append(selected, s)
		}
	}
	return selected
}
