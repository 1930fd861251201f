// Command conformance runs the public test suite for HTTP caches, the npm
// package http-cache-tests, against Caddy with this module.
//
//	go run ./conformance
//
// It needs Go, Node 20 and npm, and the root of the repository as its working
// directory. The package goes into a temporary directory, as package-lock.json
// has it, and is gone afterwards; so are all processes, however the run ends.
//
// The suite's origin server stands behind Caddy's reverse_proxy, and its client
// asks one node first. Then it asks a cluster of three nodes, and every request of
// a test goes to another node than the one before. Which node owns a test's URL
// is chance, so the cluster runs the suite three times, and a test has passed
// there if it passed each time. All of it is done a second time on nodes with
// options for what some tests are about and a careful operator leaves off.
//
// What became of every test is compared with expected.json, which also says of
// each required or optimal test that does not pass why that is right, or that
// it is not implemented yet. The run fails if a test got worse, twice. A test that
// got better, or a behaviour that is another now, is reported, and -update writes
// it down. To look into one test:
//
//	go run ./conformance -id conditional-lm-fresh
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

const (
	// home is where this program's files are, seen from the repository's root.
	home = "conformance"

	clusterSize = 3
	// clusterRounds is how often the cluster runs the suite, so that most
	// tests see their first request come to the owner and to others.
	clusterRounds = 3
)

var errWorse = errors.New("not as " + expectedFile + " says")

func main() {
	var o options
	flag.StringVar(&o.caddy, "caddy", "", "the Caddy to test; default: build ./cmd/caddy")
	flag.BoolVar(&o.update, "update", false, "write the results to "+expectedFile)
	flag.BoolVar(&o.verbose, "v", false, "list every required or optimal test that does not pass")
	flag.StringVar(&o.id, "id", "", "run this test alone, and print its requests and responses")
	timeout := flag.Duration("timeout", 5*time.Minute, "give up after this time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("not done after %s", *timeout))
	defer cancel()
	if err := run(ctx, o); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

// A place is where the suite runs: one node, and a cluster behind a balancer.
type place struct {
	one, three nodes
	balancer   *balancer
}

func startPlace(ctx context.Context, dir, caddy, options string, o *origin) (_ *place, err error) {
	p := new(place)
	defer func() {
		if err != nil {
			_ = p.end() // err says more
		}
	}()
	if p.one, err = startNodes(ctx, filepath.Join(dir, "one"), caddy, 1, options, o); err != nil {
		return nil, err
	}
	if p.three, err = startNodes(ctx, filepath.Join(dir, "three"), caddy, clusterSize, options, o); err != nil {
		return nil, err
	}
	p.balancer, err = startBalancer(p.three.addresses())
	return p, err
}

func (p *place) single() string  { return p.one.addresses()[0] }
func (p *place) cluster() string { return p.balancer.address() }

// end ends all of it. It returns an error if something was wrong before.
func (p *place) end() error {
	var errs []error
	if p.balancer != nil {
		errs = append(errs, p.balancer.err())
		p.balancer.close()
		p.balancer = nil
	}
	return errors.Join(append(errs, p.one.end(), p.three.end())...)
}

type options struct {
	caddy   string
	update  bool
	verbose bool
	id      string
}

func run(ctx context.Context, o options) (err error) {
	start := time.Now()
	expected, err := loadExpected(expectedFile)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "groupcache-conformance-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	if o.caddy, err = findCaddy(ctx, dir, o.caddy); err != nil {
		return err
	}
	suite, err := installSuite(ctx, dir)
	if err != nil {
		return err
	}
	origin, err := suite.startOrigin(ctx)
	if err != nil {
		return err
	}
	defer origin.End()

	plain, err := startPlace(ctx, filepath.Join(dir, "plain"), o.caddy, "", origin)
	if err != nil {
		return err
	}
	defer plain.end()
	switched, err := startPlace(ctx, filepath.Join(dir, "switched"), o.caddy, switches, origin)
	if err != nil {
		return err
	}
	defer switched.end()

	bench := &bench{suite: suite, plain: plain, switched: switched}
	if o.id != "" {
		return bench.dump(ctx, o.id)
	}
	ran, err := bench.run(ctx, nil)
	if err != nil {
		return err
	}
	// What is worse than expected gets a second chance, with little else going
	// on: the tests measure time in seconds.
	doubtful := expected.compare(ran.verdicts()).worse
	if len(doubtful) > 0 && !o.update {
		again, err := bench.run(ctx, ids(doubtful))
		if err != nil {
			return err
		}
		ran.replace(again)
	}
	for _, cause := range []error{plain.end(), switched.end(), origin.End()} {
		if cause != nil {
			return cause
		}
	}
	verdicts := ran.verdicts()
	err = report(expected, verdicts, doubtful, o)
	fmt.Printf("\n%d tests in %s\n", len(verdicts), time.Since(start).Round(time.Second))
	return err
}

// report prints the results beside what was expected. The error is errWorse if
// something got worse.
func report(expected expectations, verdicts []verdict, doubtful []change, o options) error {
	printTable(os.Stdout, verdicts)
	if o.update {
		expected = expected.updated(verdicts)
		if err := expected.save(expectedFile); err != nil {
			return err
		}
	}
	difference := expected.compare(verdicts)
	difference.print(os.Stdout, steadied(doubtful, difference.worse))
	if o.verbose {
		expected.printReasons(os.Stdout, verdicts)
	}
	if len(difference.worse)+len(difference.unexplained) > 0 {
		return errWorse
	}
	return nil
}

// findCaddy returns the Caddy that is tested, as an absolute path.
func findCaddy(ctx context.Context, dir, given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	binary := filepath.Join(dir, "caddy")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	return binary, harness.Build(ctx, binary)
}
