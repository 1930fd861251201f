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
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/freeport"
)

// The tests of this package run real Caddy processes: the test binary executes
// itself once more for every node.

// caddyEnv names the variable that makes this binary a Caddy; its value is the
// Caddyfile.
const caddyEnv = "GROUPCACHE_TEST_CADDY"

// caddyArgsEnv names the variable that makes it run a command of Caddy; its
// value is the arguments, one a line.
const caddyArgsEnv = "GROUPCACHE_TEST_CADDY_ARGS"

func TestMain(m *testing.M) {
	if args := os.Getenv(caddyArgsEnv); args != "" {
		os.Args = append([]string{"caddy"}, strings.Split(args, "\n")...)
		caddycmd.Main()
		os.Exit(0)
	}
	config := os.Getenv(caddyEnv)
	if config == "" {
		os.Exit(m.Run())
	}
	go func() { // whoever started this process holds the other end of stdin
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	os.Args = []string{"caddy", "run", "--config", config, "--adapter", "caddyfile"}
	caddycmd.Main()
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

	cmd      *exec.Cmd
	stdin    io.Closer
	died     chan struct{} // closed when the process has ended
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
	free, release, err := freeport.Tests.Take(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return free
}

// caddyfile is the node's configuration. extra stands in the site, before the
// cache. The routes behind that are of a group, as those of most sites are: once one
// has had its turn Caddy passes over them all, for as long as the request lasts.
func (p *process) caddyfile(extra string) string {
	return fmt.Sprintf(`{
	admin %s
	auto_https off
	persist_config off
	storage file_system %s
	groupcache {
		gossip %s
		peers %s
		join %s
		name %s
		%s
	}
}

http://:%s {
	bind 127.0.0.1
	%s
	groupcache {
		%s
	}
	handle /of/another/route {
		respond 404
	}
	handle {
		reverse_proxy %s
	}
}
%s`, p.admin, filepath.Join(p.dir, "storage"), p.gossip, p.peers, p.join, p.name, p.app,
		p.http[strings.LastIndexByte(p.http, ':')+1:], extra, p.site, p.upstream, p.tlsSite())
}

// start runs the process and waits until it serves.
func (p *process) start() {
	p.t.Helper()
	p.run()
	p.awaitReady()
}

func (p *process) run() {
	p.t.Helper()
	config := filepath.Join(p.dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(cmp.Or(p.config, p.caddyfile(""))), 0o600); err != nil {
		p.t.Fatal(err)
	}
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.dir, log, log
	p.cmd.Env = append(os.Environ(), caddyEnv+"="+config,
		"HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir, "XDG_DATA_HOME="+p.dir)
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	died := make(chan struct{})
	p.died = died
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // ProcessState has the result
		close(died)
	}(p.cmd)
	p.t.Cleanup(p.end)
}

func (p *process) awaitReady() {
	p.t.Helper()
	eventually(p.t, p.name+" serves", func() bool {
		select {
		case <-p.died:
			p.t.Fatalf("%s ended: %v", p.name, p.cmd.ProcessState)
		default:
		}
		if _, err := p.status(); err != nil {
			return false
		}
		// The admin endpoint is there before the site is.
		site, err := net.Dial("tcp", p.http)
		if err != nil {
			return false
		}
		site.Close()
		return true
	})
}

func (p *process) logFile() string { return filepath.Join(p.dir, "log") }

// end kills the process if it still runs, and looks at what it left behind.
func (p *process) end() {
	p.kill()
	log, err := os.ReadFile(p.logFile())
	if err != nil {
		p.t.Errorf("%s: %v", p.name, err)
	}
	for _, bad := range []string{"DATA RACE", "panic", "goroutine ", "fatal error"} {
		if bytes.Contains(log, []byte(bad)) {
			p.t.Errorf("%s: its log has %q", p.name, bad)
		}
	}
	if p.t.Failed() {
		p.t.Logf("log of %s:\n%s", p.name, log[max(0, len(log)-8<<10):])
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("%s: %v: %v", p.name, s, err)
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
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.died
	p.stdin.Close()
}

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

// adminClient makes a connection for every request, because processes come and
// go under one address.
var adminClient = &http.Client{
	Transport: askAgain{&http.Transport{DisableKeepAlives: true}},
	Timeout:   hang,
}

// tries is how often something is asked for whose connection is closed without an
// answer. A reload replaces servers, the admin endpoint too, and net/http closes
// what the old one has taken, but not yet read a request from.
const tries = 5

func closedUnanswered(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// askAgain asks again when a connection was closed.
type askAgain struct{ http.RoundTripper }

func (a askAgain) RoundTrip(r *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := a.RoundTripper.RoundTrip(r)
		if !closedUnanswered(err) || try == tries || r.Body != nil && r.GetBody == nil {
			return resp, err
		}
		r = r.Clone(r.Context())
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

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
	busy := []string{"caddygroupcache.(*Handler)", "caddygroupcache.(*node)", "caddygroupcache.(*tee)", "caddygroupcache.relay"}
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

// An origin is the upstream. It counts the requests for every path.
type origin struct {
	*httptest.Server
	mu    sync.Mutex // guards count
	count map[string]int
}

func startOrigin(t *testing.T, handler http.HandlerFunc) *origin {
	t.Helper()
	o := &origin{count: make(map[string]int)}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.count[r.URL.Path]++
		o.mu.Unlock()
		handler(w, r)
	}))
	o.Start()
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

func (o *origin) addr() string { return o.Listener.Addr().String() }

// fetches returns how many requests there were for a path, or for all.
func (o *origin) fetches(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if path != "" {
		return o.count[path]
	}
	all := 0
	for _, n := range o.count {
		all += n
	}
	return all
}

// client is every client: it follows nothing, unpacks nothing and keeps
// connections for all of them.
var client = &http.Client{
	Transport: &http.Transport{
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1000,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       hang,
}

// An answer is what a client got.
type answer struct {
	status    int
	header    http.Header
	trailer   http.Header
	body      string
	firstByte time.Duration // until the first byte of the body, or its end
	took      time.Duration
	err       error
}

func (p *process) request(method, path string, body io.Reader, header ...string) *http.Request {
	r, err := http.NewRequest(method, "http://"+p.http+path, body)
	if err != nil {
		panic(err) // a mistake in the test
	}
	r.Host = clientHost
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// get asks the node for a path, with pairs of header name and value. It may be
// called on any goroutine.
func (p *process) get(path string, header ...string) answer {
	for try := 1; ; try++ {
		a := do(p.request(http.MethodGet, path, nil, header...))
		if a.status != 0 || !p.reloaded.Load() || !closedUnanswered(a.err) || try == tries {
			return a
		}
	}
}

// do sends a request and reads the answer. It calls started as soon as some
// of the body is here.
func do(r *http.Request, started ...func()) (a answer) {
	start := time.Now()
	defer func() { a.took = time.Since(start) }()
	resp, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a = answer{status: resp.StatusCode, header: resp.Header}
	var body bytes.Buffer
	buf := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buf)
		if a.firstByte == 0 && (n > 0 || err != nil) {
			a.firstByte = time.Since(start)
			for _, f := range started {
				f()
			}
		}
		body.Write(buf[:n])
		if err != nil {
			if err != io.EOF {
				a.err = err
			}
			a.body, a.trailer = body.String(), resp.Trailer
			return a
		}
	}
}

// cacheStatus is the answer's Cache-Status.
func (a answer) cacheStatus() string { return strings.Join(a.header["Cache-Status"], ", ") }

func (a answer) hit() bool { return strings.HasPrefix(a.cacheStatus(), "groupcache; hit") }

// shared reports whether the answer came from the cache, or from a fill that
// was still on its way to the owner.
func (a answer) shared() bool { return a.hit() || strings.HasSuffix(a.cacheStatus(), "; collapsed") }

// is fails the test unless the answer is a whole 200 with this body.
func (a answer) is(t *testing.T, what, body string) {
	t.Helper()
	switch {
	case a.err != nil:
		t.Errorf("%s: %v", what, a.err)
	case a.status != http.StatusOK:
		t.Errorf("%s: status %d (%s)", what, a.status, a.cacheStatus())
	case a.body != body:
		t.Errorf("%s: got %s, want %s (%s)", what, brief(a.body), brief(body), a.cacheStatus())
	}
}

func brief(body string) string {
	if len(body) <= 64 {
		return strconv.Quote(body)
	}
	return fmt.Sprintf("%q... of %d bytes", body[:32], len(body))
}

// together calls f(0) to f(n-1) at the same time, at most limit of them at
// once, and returns what they return.
func together(n, limit int, f func(i int) answer) []answer {
	answers := make([]answer, n)
	begin := make(chan struct{})
	slots := make(chan struct{}, limit)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			slots <- struct{}{}
			answers[i] = f(i)
			<-slots
		})
	}
	close(begin)
	wg.Wait()
	return answers
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
