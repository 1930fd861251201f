package caddygroupcache

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

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
	p := &process{node: node.New("n", 64<<20), cacheSize: 64 << 20}
	t.Cleanup(p.node.Close)
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
	if err := s.Print(&out); err != nil || !strings.Contains(out.String(), "n (this node)") {
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
		for _, k := range currentProcess().running.Keys {
			ids = append(ids, k.Peers.ID)
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

// TestRefusedConfigIsInChargeOfNothing: a reload that fails at its start, in the app itself or
// in another one, leaves purges, explanations and the dashboard to the config that serves.
func TestRefusedConfigIsInChargeOfNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	s := newSite(t)
	config := func(global, group string) string {
		return strings.Replace(s.config(global, "x"), "groupcache\n", "groupcache {\n\t\t\tgroup "+group+"\n\t\t}\n", 1)
	}
	for name, refused := range map[string]string{
		"its own port is taken": config("show_keys\ngossip 127.0.0.1:"+freePort(t)+"\npeers 127.0.0.1:"+port, "store"),
		"a site's port is":      config("show_keys", "store") + "\n:" + port + " {\n\tbind 127.0.0.1\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if err := load(t, config("", "shop")); err != nil {
				t.Fatal(err)
			}
			p := currentProcess()
			app := p.config.app.Load()
			for range 10 { // apps start in no particular order
				if err := load(t, refused); err == nil {
					t.Fatal("it has started")
				}
				if p.config.app.Load() != app || p.node.HotKeys.Show.Load() {
					t.Fatal("the refused config is in charge")
				}
				if _, err := p.config.purgesOf(PurgeRequest{Group: "shop", All: true}); err != nil {
					t.Fatal(err)
				}
				if e, err := p.explain(t.Context(), "GET", s.url("/"), "", nil); err != nil || len(e.Groups) != 1 || e.Groups[0].Group != "shop" {
					t.Fatalf("%+v, %v", e, err)
				}
			}
		})
	}
}

// TestRefusedConfigLeavesTheCluster: a reload begins a cluster, and is refused because of another
// app. The config that goes on has none, and neither it nor the next one is held to those
// addresses.
func TestRefusedConfigLeavesTheCluster(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	s := newSite(t)
	cluster := func() string { return fmt.Sprintf("gossip 127.0.0.1:%s\npeers 127.0.0.1:%s", freePort(t), freePort(t)) }
	if err := load(t, s.config("", "one")); err != nil {
		t.Fatal(err)
	}
	for range 10 { // apps start in no particular order
		if err := load(t, s.config(cluster(), "two")+"\n:"+port+" {\n\tbind 127.0.0.1\n}\n"); err == nil {
			t.Fatal("a config whose port is taken has started")
		}
		p := currentProcess()
		if all := p.memberStatus(); len(all) != 1 || all[0].Gossip != "" || len(p.node.Ring.Load().Nodes()) != 0 {
			t.Fatalf("the node is part of a cluster: %+v", all)
		}
		if err := load(t, s.config("", "one")); err != nil {
			t.Fatal(err)
		}
	}
	if err := load(t, s.config(cluster(), "three")); err != nil {
		t.Fatal(err)
	}
	poll(t, "it is a member", func() bool { return len(currentProcess().node.Ring.Load().Nodes()) == 1 })
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
