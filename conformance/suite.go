package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// A suite is the installed npm package.
type suite struct{ dir string }

//go:embed package.json package-lock.json .npmrc origin.mjs client.mjs
var files embed.FS

// installSuite installs the package as package-lock.json has it.
func installSuite(ctx context.Context, dir string) (*suite, error) {
	s := &suite{dir: filepath.Join(dir, "suite")}
	return s, harness.Npm(ctx, files, s.dir)
}

// An origin is the suite's server.
type origin struct {
	*harness.Process
	address string
}

func (s *suite) startOrigin(ctx context.Context) (*origin, error) {
	p, err := s.start("origin", nil, "node", "origin.mjs")
	if err != nil {
		return nil, err
	}
	port, err := p.AwaitLine(ctx, "") // after it, it warns of requests it has no config for
	if _, e := strconv.Atoi(port); err != nil || e != nil {
		return nil, errors.Join(errors.New("the suite's origin did not start"), err, p.End())
	}
	return &origin{Process: p, address: "127.0.0.1:" + port}, nil
}

// start starts a program of the suite. Its output goes to out, or to a log if that
// is nil.
func (s *suite) start(name string, out io.Writer, args ...string) (*harness.Process, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout = s.dir, out
	return harness.Start(cmd, name, filepath.Join(s.dir, name+".log"))
}

// A result is what the suite's client says about one test.
type result struct {
	ID        string
	Section   string
	Kind      string   // required, optimal, or check: a behaviour without a right or wrong
	DependsOn []string `json:"depends_on"`
	Passed    bool
	Error     string // kind of failure: Assertion, Setup, or the name of an exception
	Message   string
}

// A clientRun is what the client is told.
type clientRun struct {
	Base    string   `json:"base"`
	Results string   `json:"results"`
	IDs     []string `json:"ids,omitempty"`
	Dump    bool     `json:"dump,omitempty"`
}

// runClient runs the client against an address.
func (s *suite) runClient(ctx context.Context, name, address string, ids []string, dump bool) ([]result, error) {
	told, err := json.Marshal(clientRun{
		Base: "http://" + address, Results: filepath.Join(s.dir, name+".json"), IDs: ids, Dump: dump,
	})
	if err != nil {
		return nil, err
	}
	var out io.Writer
	if dump {
		out = os.Stdout
	}
	p, err := s.start(name, out, "node", "--no-warnings", "client.mjs", string(told))
	if err != nil {
		return nil, err
	}
	if err := p.Wait(ctx); err != nil {
		return nil, err
	}
	written, err := os.ReadFile(filepath.Join(s.dir, name+".json"))
	if err != nil {
		return nil, err
	}
	var results []result
	if err := json.Unmarshal(written, &results); err != nil {
		return nil, fmt.Errorf("results of %s: %w", name, err)
	}
	return results, nil
}

// A bench is what the suite runs on.
type bench struct {
	suite           *suite
	plain, switched *place
	runs            int
}

// run runs the tests with these ids, or all, on one node and then in the
// cluster, and the same with the switches.
func (b *bench) run(ctx context.Context, ids []string) (*ran, error) {
	b.runs++
	single, cluster, err := b.runAt(ctx, "plain", b.plain, clusterRounds, ids)
	if err != nil {
		return nil, err
	}
	one, three, err := b.runAt(ctx, "switched", b.switched, 1, ids)
	if err != nil {
		return nil, err
	}
	switched, err := worst([][]result{one, three})
	if err != nil {
		return nil, err
	}
	return &ran{single: single, cluster: cluster, switched: switched}, nil
}

func (b *bench) runAt(ctx context.Context, name string, p *place, clusterRounds int, ids []string) (single, cluster []result, err error) {
	single, err = b.suite.runClient(ctx, fmt.Sprintf("%s-single-%d", name, b.runs), p.single(), ids, false)
	if err != nil {
		return nil, nil, err
	}
	rounds := make([][]result, clusterRounds)
	errs := make([]error, clusterRounds)
	var all sync.WaitGroup
	for i := range rounds {
		all.Go(func() {
			name := fmt.Sprintf("%s-cluster-%d-%d", name, b.runs, i+1)
			rounds[i], errs[i] = b.suite.runClient(ctx, name, p.cluster(), ids, false)
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	cluster, err = worst(rounds)
	return single, cluster, err
}

// dump runs one test in all places, and shows all that was said.
func (b *bench) dump(ctx context.Context, id string) error {
	for _, where := range []struct{ name, address string }{
		{"one node", b.plain.single()}, {"three nodes", b.plain.cluster()},
		{"one node with switches", b.switched.single()}, {"three nodes with switches", b.switched.cluster()},
	} {
		fmt.Printf("\n=== %s\n\n", where.name)
		results, err := b.suite.runClient(ctx, strings.ReplaceAll(where.name, " ", "-"), where.address, []string{id}, true)
		if err != nil {
			return err
		}
		if len(results) != 1 {
			return fmt.Errorf("there is no test %q", id)
		}
		r := results[0]
		if r.Passed {
			fmt.Printf("=== %s: passed\n", where.name)
		} else {
			fmt.Printf("=== %s: %s: %s\n", where.name, r.Error, r.Message)
		}
	}
	return nil
}

// worst joins several runs: a test has passed if it has in all of them.
func worst(rounds [][]result) ([]result, error) {
	joined := slices.Clone(rounds[0])
	for _, round := range rounds[1:] {
		if len(round) != len(joined) {
			return nil, errors.New("the client did not run the same tests in each round")
		}
		for i, r := range round {
			if joined[i].Passed && !r.Passed {
				joined[i] = r
			}
		}
	}
	return joined, nil
}
