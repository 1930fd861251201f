package caddygroupcache

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// load makes a Caddyfile the running config of this process, as a reload does.
func load(t *testing.T, caddyfile string) error {
	t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return caddy.Load(adapted, true)
}

// A testSite is a cache in front of an upstream, which answers everything with
// something new. That is no part of the config, because a server that is reloaded
// may refuse a connection that it has not accepted.
type testSite struct{ front, upstream, storage string }

func newSite(t *testing.T) testSite {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, rand.Text()) // a client that is gone needs no error
	}))
	t.Cleanup(upstream.Close)
	return testSite{freePort(t), upstream.Listener.Addr().String(), t.TempDir()}
}

func (s testSite) url(path string) string { return "http://127.0.0.1:" + s.front + path }

// config returns a Caddyfile with the given global options of groupcache. Its
// responses carry header.
func (s testSite) config(global, header string) string {
	return fmt.Sprintf(`{
		admin off
		auto_https off
		persist_config off
		storage file_system %q
		metrics
		groupcache {
			%s
		}
	}
	:%s {
		bind 127.0.0.1
		handle /metrics {
			metrics
		}
		header X-Config %s
		groupcache
		reverse_proxy %s
	}`, s.storage, global, s.front, header, s.upstream)
}

func freePort(t *testing.T) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(freeAddr(t))
	return port
}

// fetchURL asks again when there was no answer at all: a reload returns
// before Caddy has closed the old configuration's listeners, and a connection
// in the queue of one of them is then reset, or closed if it was just taken,
// whatever the handlers are.
func fetchURL(t *testing.T, url string) (body string, header http.Header) {
	t.Helper()
	unanswered := func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) }
	resp, err := http.Get(url)
	for deadline := time.Now().Add(10 * time.Second); unanswered(err) && time.Now().Before(deadline); {
		resp, err = http.Get(url)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), resp.Header
}

func TestReloadKeepsTheNode(t *testing.T) {
	s := newSite(t)
	if err := load(t, s.config("cache_size 64MiB", "one")); err != nil {
		t.Fatal(err)
	}
	node := currentProcess().node
	first, _ := fetchURL(t, s.url("/a"))
	if err := load(t, s.config("cache_size 64MiB", "two")); err != nil {
		t.Fatal(err)
	}
	second, header := fetchURL(t, s.url("/a"))
	if first != second || header.Get("X-Config") != "two" || !strings.Contains(header.Get("Cache-Status"), "hit") {
		t.Errorf("after the reload: %q, was %q; %v", second, first, header)
	}
	if currentProcess().node != node {
		t.Error("the reload made another node")
	}
	metrics, _ := fetchURL(t, s.url("/metrics"))
	for _, line := range []string{
		`caddy_groupcache_requests_total{group="default",status="hit"} 1`,
		`caddy_groupcache_requests_total{group="default",status="miss"} 1`,
		`caddy_groupcache_fills_total{group="default",result="stored"} 1`,
		`caddy_groupcache_entries{group="default"} 1`,
		`caddy_groupcache_members 1`,
		`caddy_groupcache_ring_share 1`,
	} {
		if !strings.Contains(metrics, line+"\n") {
			t.Errorf("metrics lack %s", line)
		}
	}
}

func TestReloadThatWouldResizeIsRefusedAndTheOldConfigGoesOn(t *testing.T) {
	s := newSite(t)
	if err := load(t, s.config("cache_size 64MiB", "one")); err != nil {
		t.Fatal(err)
	}
	fetchURL(t, s.url("/a"))
	if err := load(t, s.config("cache_size 32MiB", "two")); err == nil || !strings.Contains(err.Error(), "64 MiB to 32 MiB") {
		t.Errorf("got %v", err)
	}
	_, header := fetchURL(t, s.url("/a"))
	if header.Get("X-Config") != "one" || !strings.Contains(header.Get("Cache-Status"), "hit") {
		t.Errorf("%v", header)
	}
}

func TestClusterCanBeginAtAReload(t *testing.T) {
	s := newSite(t)
	if err := load(t, s.config("cache_size 64MiB", "one")); err != nil {
		t.Fatal(err)
	}
	first, _ := fetchURL(t, s.url("/a"))
	gossip, peers := freePort(t), freePort(t)
	if err := load(t, s.config(fmt.Sprintf("cache_size 64MiB\ngossip 127.0.0.1:%s\npeers 127.0.0.1:%s", gossip, peers), "two")); err != nil {
		t.Fatal(err)
	}
	if second, _ := fetchURL(t, s.url("/a")); first != second {
		t.Error("what was stored is gone")
	}
	poll(t, "the node is its own only member", func() bool {
		all := currentProcess().memberStatus()
		return len(all) == 1 && all[0].Self && all[0].State == "alive" && all[0].Share == 1 && all[0].Peers == "127.0.0.1:"+peers
	})
}

func TestStoppingLetsGoOfEverything(t *testing.T) {
	gossip, peers := freePort(t), freePort(t)
	s := newSite(t)
	if err := load(t, s.config(fmt.Sprintf("gossip 127.0.0.1:%s\npeers 127.0.0.1:%s", gossip, peers), "one")); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if currentProcess() != nil {
		t.Error("the node is left")
	}
	for _, port := range []string{gossip, peers} {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatalf("port %s is still in use: %v", port, err)
		}
		l.Close()
	}
}

func TestPortInUseFailsTheStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := newSite(t)
	if err := load(t, s.config(fmt.Sprintf("gossip 127.0.0.1:%s\npeers %s", freePort(t), taken.Addr()), "one")); err == nil || !strings.Contains(err.Error(), "peers "+taken.Addr().String()) {
		t.Errorf("got %v", err)
	}
	if currentProcess() != nil {
		t.Error("a node is left behind")
	}
}

func TestStatusIsReadable(t *testing.T) {
	p := &process{node: newNode("n", 64<<20), cacheSize: 64 << 20}
	t.Cleanup(p.node.close)
	h := newHandler(t, p.node, nil)
	h.counters = p.counters.of(h.Group)
	up := typical(1000)
	do(h, up.ServeHTTP, request(t.Context(), "/a"))
	do(h, up.ServeHTTP, request(t.Context(), "/a"))
	s := p.status()
	if len(s.Members) != 1 || !s.Members[0].Self || len(s.Groups) != 1 || s.Groups[0].Hits != 1 || s.Groups[0].Misses != 1 ||
		s.Groups[0].Entries != 1 || s.Groups[0].Bytes != 1000 || s.Groups[0].Fills != 1 || s.Memory.Main < 1000 {
		t.Errorf("%+v", s)
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
	var out strings.Builder
	if err := printStatus(&out, s); err != nil || !strings.Contains(out.String(), "n (this node)") {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestReloadThatFailsLaterLeavesTheSecretsAsTheyWere(t *testing.T) {
	const one, two = "XLjGyAZ2G2ah2Umx7gcJjRvl3WABTO6YhVGC1bxyyqU=", "q0mRIEVv2iCNEb6Aq1e3Tn3Ay8LRGLkeaVdXbdOmWHg="
	s := newSite(t)
	cluster := fmt.Sprintf("gossip 127.0.0.1:%s\npeers 127.0.0.1:%s\nsecret ", freePort(t), freePort(t))
	if err := load(t, s.config(cluster+one, "one")); err != nil {
		t.Fatal(err)
	}
	held := func() (ids []string) {
		for _, k := range currentProcess().running.keys {
			ids = append(ids, k.peers.ID)
		}
		return ids
	}
	first := held()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	// Apps start in no particular order.
	for range 10 {
		if err := load(t, s.config(cluster+two, "two")+"\n:"+port+" {\n\tbind 127.0.0.1\n}\n"); err == nil {
			t.Fatal("a config whose port is taken has started")
		}
		if now := held(); !slices.Equal(now, first) {
			t.Fatalf("the node holds %v, not %v", now, first)
		}
	}
	if err := load(t, s.config(cluster+two+" "+one, "two")); err != nil {
		t.Fatal(err)
	}
	if now := held(); len(now) != 2 || now[1] != first[0] {
		t.Errorf("after a rotation the node holds %v", now)
	}
	if err := load(t, s.config(strings.TrimSuffix(cluster, "secret "), "three")); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("the last secret goes while the node runs: %v", err)
	}
}

func TestSecretCannotComeWhileTheNodeRuns(t *testing.T) {
	s := newSite(t)
	cluster := fmt.Sprintf("gossip 127.0.0.1:%s\npeers 127.0.0.1:%s\n", freePort(t), freePort(t))
	if err := load(t, s.config(cluster, "one")); err != nil {
		t.Fatal(err)
	}
	if err := load(t, s.config(cluster+"secret XLjGyAZ2G2ah2Umx7gcJjRvl3WABTO6YhVGC1bxyyqU=", "two")); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("got %v", err)
	}
}
