//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// The tests of this package run real Caddy processes: the test binary executes
// itself once more for every node.

// caddyArgsEnv names the variable that makes this binary run a command of Caddy;
// its value is the arguments, one a line.
const caddyArgsEnv = "GROUPCACHE_TEST_CADDY_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(caddyArgsEnv); args != "" {
		os.Args = append([]string{"caddy"}, strings.Split(args, "\n")...)
		caddycmd.Main()
		os.Exit(0)
	}
	harness.Become(map[string]func(){harness.Caddy: caddycmd.Main})
	guard.Report(func(value any, stack []byte) { fmt.Fprintf(os.Stderr, "recovered: %v\n%s", value, stack) })
	code := m.Run()
	if n := guard.Panics() - caddygroupcache.ExpectedPanics.Load(); n != 0 {
		fmt.Fprintf(os.Stderr, "%d panics of goroutines that no test expects\n", n)
		code = max(code, 1)
	}
	os.Exit(code)
}

// clientHost is the Host of all requests, so that all nodes make the same key
// of a path.
const clientHost = "demo.test"

// hang bounds everything that a test waits for.
const (
	hang = 30 * time.Second
	poll = 10 * time.Millisecond
)

// A process is one node: a Caddy process on loopback.
type process struct {
	t        *testing.T
	name     string
	dir      string
	http     string // host:port
	https    string // the same, or "": see overTLS
	admin    string
	gossip   string
	peers    string
	join     string
	upstream string
	app      string // options of the app, beside the addresses
	site     string // options of the directive
	config   string // instead of caddyfile

	node     *harness.Node // since it runs
	cmd      *exec.Cmd
	died     <-chan struct{} // closed when the process has ended
	reloaded atomic.Bool
}

// A cluster is some nodes in front of one origin.
type cluster []*process

// startCluster runs n nodes and waits until all of them agree. siteOptions are
// lines of the groupcache directive.
func startCluster(t *testing.T, n int, o *origin, siteOptions string) cluster {
	t.Helper()
	c := newCluster(t, n, o, siteOptions)
	for _, p := range c {
		p.start()
	}
	c.awaitMembers()
	return c
}

// newCluster prepares n nodes without starting them.
func newCluster(t *testing.T, n int, o *origin, siteOptions string) cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	ports := freePorts(t, 4*n)
	var c cluster
	var gossip []string
	for i := range n {
		p := &process{
			t: t, name: fmt.Sprintf("n%d", i+1), dir: t.TempDir(),
			http: ports[4*i], admin: ports[4*i+1], gossip: ports[4*i+2], peers: ports[4*i+3],
			upstream: o.addr(), site: siteOptions,
		}
		c, gossip = append(c, p), append(gossip, p.gossip)
	}
	for _, p := range c {
		p.join = strings.Join(gossip, " ")
	}
	return c
}

// freePorts returns loopback addresses that no other test has until this one ends.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	free, release, err := harness.Tests.Take(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return free
}

// caddyfile is the node's configuration. extra stands in the site, before the
// cache.
func (p *process) caddyfile(extra string) string {
	n := harness.Node{
		Name: p.name, Dir: p.dir, HTTP: p.http, Admin: p.admin, Gossip: p.gossip, Peers: p.peers, Join: p.join,
		Upstream: p.upstream, App: p.app, Before: extra, Options: p.site, Sites: p.tlsSite(),
	}
	return n.Caddyfile()
}

// start runs the process and waits until it serves.
func (p *process) start() {
	p.t.Helper()
	p.run()
	p.awaitReady()
}

func (p *process) run() {
	p.t.Helper()
	p.node = &harness.Node{Name: p.name, Dir: p.dir, HTTP: p.http, Admin: p.admin, Config: cmp.Or(p.config, p.caddyfile(""))}
	if err := p.node.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd, p.died = p.node.Cmd, p.node.Over()
	p.t.Cleanup(p.end)
}

func (p *process) awaitReady() {
	p.t.Helper()
	if err := harness.Await(p.t.Context(), func() error { return p.node.Serves() }); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) logFile() string { return filepath.Join(p.dir, "log") }

// end kills the process if it still runs, and looks at what it left behind.
func (p *process) end() {
	p.kill()
	if err := p.node.Crashed(); err != nil {
		p.t.Error(err)
	}
	if log, err := os.ReadFile(p.logFile()); p.t.Failed() {
		p.t.Logf("log of %s: %v\n%s", p.name, err, log[max(0, len(log)-8<<10):])
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.node.Signal(s); err != nil {
		p.t.Error(err)
	}
	if s == syscall.SIGSTOP {
		eventually(p.t, p.name+" is frozen", p.frozen)
	}
}

// frozen reports whether SIGSTOP has taken effect on the process. Where that
// can't be seen, it is taken to have.
func (p *process) frozen() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return true
	}
	rest := b[bytes.LastIndexByte(b, ')')+1:] // after the name, which may have anything in it
	return bytes.HasPrefix(rest, []byte(" T"))
}

// kill ends the process, frozen or not, and waits for its end.
func (p *process) kill() { p.node.Kill() }

// awaitEnd waits until the process has ended by itself, and returns its exit
// code.
func (p *process) awaitEnd() int {
	p.t.Helper()
	select {
	case <-p.died:
	case <-time.After(hang):
		p.t.Fatalf("%s does not end", p.name)
	}
	return p.cmd.ProcessState.ExitCode()
}

var adminClient = harness.NewClient(nil, hang)

func (p *process) status() (s caddygroupcache.Status, err error) {
	resp, err := adminClient.Get("http://" + p.admin + "/groupcache/status")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, errors.New(resp.Status)
	}
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// states returns the states of all members as this node sees them.
func (p *process) states() map[string]string {
	p.t.Helper()
	s, err := p.status()
	if err != nil {
		p.t.Fatalf("%s: status: %v", p.name, err)
	}
	states := make(map[string]string)
	for _, m := range s.Members {
		states[m.Name] = m.State
	}
	return states
}

// load has the node take a new config, and returns status and answer.
func (p *process) load(caddyfile string) (int, string) {
	p.t.Helper()
	p.reloaded.Store(true)
	resp, err := adminClient.Post("http://"+p.admin+"/load", "text/caddyfile", strings.NewReader(caddyfile))
	if err != nil {
		p.t.Fatalf("%s: load: %v", p.name, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s: load: %v", p.name, err)
	}
	eventually(p.t, "the listeners of the config before are closed", harness.OneListenerEach)
	return resp.StatusCode, string(answer)
}

// metric returns the value of one line of the node's metrics.
func (p *process) metric(line string) float64 {
	p.t.Helper()
	resp, err := adminClient.Get("http://" + p.admin + "/metrics")
	if err != nil {
		p.t.Fatalf("%s: metrics: %v", p.name, err)
	}
	defer resp.Body.Close()
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), line+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				p.t.Fatalf("%s: %s: %v", p.name, s.Text(), err)
			}
			return v
		}
	}
	p.t.Fatalf("%s has no metric %s", p.name, line)
	return 0
}

// awaitMembers waits until every node sees all others alive, and itself with
// an equal share of the keys.
func (c cluster) awaitMembers() {
	c[0].t.Helper()
	for _, p := range c {
		eventually(p.t, fmt.Sprintf("%s has %d members", p.name, len(c)), func() bool {
			s, err := p.status()
			alive := 0
			for _, m := range s.Members {
				if m.State == "alive" && math.Abs(m.Share*float64(len(c))-1) < 1e-6 {
					alive++
				}
			}
			return err == nil && alive == len(c)
		})
	}
}

// awaitIdle waits until no node has anything in flight: neither memory nor a
// goroutine of a request or of a fill.
func (c cluster) awaitIdle() {
	c[0].t.Helper()
	busy := []string{"caddygroupcache.(*Handler)", "caddygroupcache.(*exchange)", "caddygroupcache.(*fetch)", "caddygroupcache.(*recorder)", "node.(*Node)", "node.(*Flight)", "node.Owner", "node.Lead["}
	for _, p := range c {
		eventually(p.t, p.name+" is idle", func() bool {
			s, err := p.status()
			if err != nil || s.Memory.InFlight != 0 {
				return false
			}
			resp, err := adminClient.Get("http://" + p.admin + "/debug/pprof/goroutine?debug=1")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			stacks, err := io.ReadAll(resp.Body)
			return err == nil && !slices.ContainsFunc(busy, func(f string) bool { return bytes.Contains(stacks, []byte(f)) })
		})
	}
}

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
		time.Sleep(poll)
	}
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// figure logs what was measured beside what is wanted on a quiet machine, and
// fails the test at a limit that even a busy one keeps.
func figure[T time.Duration | int64](t *testing.T, what string, got, wanted, limit T) {
	t.Helper()
	t.Logf("%s: %v (wanted < %v)", what, got, wanted)
	if got > limit {
		t.Errorf("%s: %v, more than %v", what, got, limit)
	}
}

// explain asks the node's admin API about a request for a path. Arguments are
// parameters of the query, in pairs.
func (p *process) explain(path string, params ...string) caddygroupcache.Explanation {
	p.t.Helper()
	query := url.Values{"url": {"http://" + clientHost + path}}
	for i := 0; i < len(params); i += 2 {
		query.Add(params[i], params[i+1])
	}
	resp, err := adminClient.Get("http://" + p.admin + "/groupcache/explain?" + query.Encode())
	if err != nil {
		p.t.Fatalf("%s: explain: %v", p.name, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: explain: %d %s %v", p.name, resp.StatusCode, b, err)
	}
	var e caddygroupcache.Explanation
	if err := json.Unmarshal(b, &e); err != nil {
		p.t.Fatalf("%s: explain: %v", p.name, err)
	}
	return e
}

var cached = saying(200, "body", "Cache-Control", "max-age=3600", "ETag", `"1"`)

func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// someOf returns numbers of nodes to try something with: all, or with the race detector,
// which takes ten times as long, the last one, where most happens at the same time.
func someOf(nodes ...int) []int {
	if raceEnabled() {
		return nodes[len(nodes)-1:]
	}
	return nodes
}

// memory returns the resident memory of the node's process at its peak.
func (p *process) memory() int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Skip("no /proc")
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	p.t.Fatal("no VmHWM")
	return 0
}

// caddyCommand runs a command of this Caddy, and returns what it printed and its
// exit code.
func caddyCommand(t *testing.T, args ...string) (string, int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), caddyArgsEnv+"="+strings.Join(args, "\n"), "HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir, "XDG_DATA_HOME="+cmd.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
