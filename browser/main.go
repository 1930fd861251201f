// Command browser looks at the dashboard in a real browser: three nodes under
// load, one of them killed later, in light, dark and at the width of a phone.
// look.mjs tells what it does there.
//
//	go run ./browser [<folder for the pictures>]
//
// It needs Node 20 with npm, and a Chromium; without a Chromium it says so and does
// nothing.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

//go:embed package.json package-lock.json .npmrc look.mjs
var files embed.FS

// host is the host of all URLs.
const host = "demo.test"

func main() {
	harness.Become(map[string]func(){harness.Caddy: caddycmd.Main})
	chromium := ""
	for _, name := range []string{"google-chrome", "chromium-browser", "chromium"} {
		if found, err := exec.LookPath(name); err == nil {
			chromium = found
		}
	}
	if chromium == "" {
		fmt.Println("LEFT OUT: the dashboard was not looked at, because no chromium is installed")
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	pictures := ""
	if len(os.Args) > 1 {
		pictures = os.Args[1]
	}
	if err := run(ctx, chromium, pictures); err != nil {
		fmt.Fprintln(os.Stderr, "browser:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, chromium, pictures string) (err error) {
	dir, err := os.MkdirTemp("", "groupcache-browser-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if pictures == "" {
		pictures = filepath.Join(dir, "pictures")
	}
	if pictures, err = filepath.Abs(pictures); err != nil {
		return err
	}
	l := &looker{chromium: chromium, dir: filepath.Join(dir, "browser"), pictures: pictures}
	if err := errors.Join(os.MkdirAll(pictures, 0o755), harness.Npm(ctx, files, l.dir)); err != nil {
		return err
	}
	origin := httptest.NewServer(http.HandlerFunc(shop))
	defer origin.Close()
	nodes, err := harness.Browser.Nodes(3, dir)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		n.Upstream, n.App, n.Options = origin.Listener.Addr().String(), "show_keys", "peer_timeout 5s"
	}
	if err := harness.StartAll(ctx, nodes...); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, harness.EndAll(nodes...)) }()
	visiting, leave := context.WithCancel(ctx)
	defer leave()
	for range 4 {
		go visit(visiting, nodes)
	}
	return l.lookAll(ctx, nodes)
}

// lookAll looks at the page of three nodes, at that of a node whose admin endpoint
// lets browsers in, and at the page when a node is dead.
func (l *looker) lookAll(ctx context.Context, nodes []*harness.Node) error {
	gate, err := harness.Start(nodes[0].Command("groupcache", "dashboard", "--address", nodes[0].Admin), "dashboard", filepath.Join(nodes[0].Dir, "dashboard"))
	if err != nil {
		return err
	}
	defer gate.Kill()
	address, err := gate.AwaitLine(ctx, "http://")
	if err != nil {
		return err
	}
	first := l.look(ctx, "three", address, map[string]any{"health": "all 3 nodes are well", "tag": "page"})

	// The admin endpoint itself lets a browser in that comes from nowhere if its
	// config says so.
	open := nodes[1]
	open.Config = strings.Replace(open.Caddyfile(), "\tadmin "+open.Admin+"\n", "\tadmin "+open.Admin+" {\n\t\torigins "+open.Admin+" \"\"\n\t}\n", 1)
	if err := open.Load(); err != nil {
		return errors.Join(first, err)
	}
	direct := l.look(ctx, "direct", "http://"+open.Admin+"/groupcache/", map[string]any{"health": "all 3 nodes are well"})

	nodes[2].Kill()
	if err := harness.Await(ctx, func() error { return nodes[0].Sees(2) }); err != nil {
		return errors.Join(first, direct, err)
	}
	return errors.Join(first, direct, l.look(ctx, "stopped", address, map[string]any{"health": "2 of 3 nodes are well"}))
}

// A looker runs look.mjs.
type looker struct{ chromium, dir, pictures string }

// look returns what is wrong with a page.
func (l *looker) look(ctx context.Context, name, url string, told map[string]any) error {
	told["executable"], told["shots"], told["name"], told["url"] = l.chromium, l.pictures, name, url
	told["nodes"], told["explain"], told["verdict"] = 3, "http://"+host+"/account/orders", "fetch, private"
	arg, err := json.Marshal(told)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "look.mjs", string(arg))
	cmd.Dir = l.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	fmt.Printf("%s: as it should be\n", name)
	return nil
}

// shop is an origin with pages that can be stored and some that cannot.
func shop(w http.ResponseWriter, r *http.Request) {
	time.Sleep(20 * time.Millisecond)
	kind := strings.Split(r.URL.Path, "/")[1]
	w.Header().Set("Surrogate-Key", kind)
	switch kind {
	case "account":
		w.Header().Set("Cache-Control", "private")
	case "basket":
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Set-Cookie", "basket=1")
	default:
		w.Header().Set("Cache-Control", "max-age=5, stale-while-revalidate=30")
	}
	_, _ = io.WriteString(w, strings.Repeat("x", 4<<10))
}

// visit asks all nodes for pages, until ctx ends. One of them may be dead.
func visit(ctx context.Context, nodes []*harness.Node) {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		path := fmt.Sprintf("/page/%d", int(40*rand.Float64()*rand.Float64()))
		switch rand.IntN(12) {
		case 0:
			path = "/account/orders"
		case 1:
			path = "/basket/1"
		}
		if r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+nodes[rand.IntN(len(nodes))].HTTP+path, nil); err == nil {
			r.Host = host
			if resp, err := http.DefaultClient.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
		<-tick.C
	}
}
