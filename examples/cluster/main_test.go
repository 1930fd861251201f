package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

// programEnv makes the test binary the program under test.
const programEnv = "GROUPCACHE_EXAMPLE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// demonstration is a running program.
type demonstration struct {
	cmd   *exec.Cmd
	ports clusterPorts
	temp  string
	over  chan struct{} // closed when the process has ended and all its output is read

	mu    sync.Mutex // guards lines
	lines []string
}

// start starts the program on free ports.
func start(t *testing.T) *demonstration {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a process there cannot be sent an interrupt")
	}
	offset := freeOffset(t)
	d := &demonstration{
		cmd:   exec.Command(os.Args[0], "-offset", strconv.Itoa(offset)),
		ports: portsFrom(offset),
		temp:  t.TempDir(),
		over:  make(chan struct{}),
	}
	d.cmd.Env = append(os.Environ(), programEnv+"=1", "TMPDIR="+d.temp)
	out, in := io.Pipe()
	d.cmd.Stdout, d.cmd.Stderr = in, in
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.over)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.mu.Lock()
			d.lines = append(d.lines, s.Text())
			d.mu.Unlock()
		}
	}()
	go func() {
		_ = d.cmd.Wait() // its state says the same
		in.Close()
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it may be over by now
		<-d.over
		if t.Failed() {
			t.Logf("the program's output:\n%s", strings.Join(d.output(), "\n"))
		}
	})
	return d
}

// freeOffset finds ports that nobody uses, below those that systems hand out
// by themselves.
func freeOffset(t *testing.T) int {
	t.Helper()
	random := seed.Of(t).Rand()
	for range 50 {
		offset := 1000 + random.IntN(20000)
		if portsFrom(offset).check() == nil {
			return offset
		}
	}
	t.Fatal("found no free ports")
	return 0
}

func (d *demonstration) output() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// waitFor polls cond until it holds, and fails the test if it never does.
func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (d *demonstration) waitUntilReady(t *testing.T) {
	t.Helper()
	waitFor(t, "the instructions", func() bool {
		select {
		case <-d.over:
			t.Fatal("the program has ended")
		default:
		}
		return slices.ContainsFunc(d.output(), func(line string) bool { return strings.HasPrefix(line, "Ctrl-C ends it") })
	})
}

// waitUntilGone waits for all ports to be free again: no node survives.
func (d *demonstration) waitUntilGone(t *testing.T) {
	t.Helper()
	waitFor(t, "all processes to end", func() bool { return d.ports.check() == nil })
}

func (d *demonstration) get(t *testing.T, node int, path string) (cacheStatus, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get(fmt.Sprintf("http://%s%s", loopback(d.ports.nodes[node].http), path))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("node %d: %s: %s", node+1, resp.Status, b)
	}
	return resp.Header.Get("Cache-Status"), string(b)
}

func TestOneFetchForAllNodes(t *testing.T) {
	d := start(t)
	d.waitUntilReady(t)

	status, first := d.get(t, 0, "/hello")
	if !strings.Contains(status, "fwd=uri-miss") {
		t.Errorf("first request: Cache-Status %q", status)
	}
	if !strings.HasPrefix(first, "/hello, fetch 1, made at ") {
		t.Errorf("first request: body %q", first)
	}
	for round := range 2 {
		for node := range nodeCount {
			status, body := d.get(t, node, "/hello")
			if !strings.HasPrefix(status, "groupcache; hit;") {
				t.Errorf("round %d, node %d: Cache-Status %q", round, node+1, status)
			}
			if body != first {
				t.Errorf("round %d, node %d: body %q, want %q", round, node+1, body, first)
			}
		}
	}

	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.over:
	case <-time.After(30 * time.Second):
		t.Fatal("still running 30 s after an interrupt")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after an interrupt", code)
	}
	if err := d.ports.check(); err != nil {
		t.Errorf("something is still running: %v", err)
	}
	left, err := os.ReadDir(d.temp)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	fetches := 0
	for _, line := range d.output() {
		if strings.HasPrefix(line, "origin: fetch ") {
			fetches++
		}
	}
	if fetches != 1 {
		t.Errorf("%d fetches", fetches)
	}
}

func TestNodesEndWithTheirParent(t *testing.T) {
	d := start(t)
	d.waitUntilReady(t)
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-d.over
	d.waitUntilGone(t)
}

func TestPortInUse(t *testing.T) {
	ports := portsFrom(freeOffset(t))
	origin, err := startOrigin(ports.nodes[1].peers) // something that listens
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Close()
	err = ports.check()
	want := fmt.Sprintf("port %d (peers of node 2) cannot be used", ports.nodes[1].peers)
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
