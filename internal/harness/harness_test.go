package harness

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	Become(map[string]func(){
		Caddy:     fakeCaddy,
		"failing": func() { fmt.Println("no such thing"); os.Exit(4) },
		"listening": func() {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			fmt.Print("  at ")
			fmt.Println(l.Addr(), err)
			for {
				_, _ = l.Accept()
			}
		},
		"parent": func() {
			child, err := Start(Self("listening"), "child", os.Args[1])
			fmt.Println(err)
			<-child.Over()
		},
	})
	os.Exit(m.Run())
}

// fakeCaddy serves what its Caddyfile names: the site, and an admin endpoint at
// which a node knows only itself.
func fakeCaddy() {
	config, _ := os.ReadFile(os.Args[len(os.Args)-1])
	admin := regexp.MustCompile(`(?m)^\tadmin (.+)$`).FindSubmatch(config)
	site := regexp.MustCompile(`(?m)^http://(:.+) {$`).FindSubmatch(config)
	go http.ListenAndServe("127.0.0.1"+string(site[1]), http.NotFoundHandler())
	fmt.Println(http.ListenAndServe(string(admin[1]), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/load" {
			http.Error(w, "not that", http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, `{"members": [{"state": "alive", "share": 1}]}`)
	})))
}

func TestNode(t *testing.T) {
	nodes, err := Tests.Nodes(1, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := nodes[0]
	n.Upstream = "127.0.0.1:1"
	if n.Running() {
		t.Error("it runs before it was started")
	}
	for range 2 { // it can be started again
		if err := StartAll(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if err := n.Load(); err == nil || !strings.Contains(err.Error(), "not that") {
			t.Errorf("a config that is refused: %v", err)
		}
		if err := EndAll(n); err != nil || n.Running() {
			t.Errorf("running: %v, %v", n.Running(), err)
		}
	}
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	n.Kill()
	if err := n.End(); err != nil || n.Running() {
		t.Errorf("killed, running: %v, %v", n.Running(), err)
	}
}

func TestSees(t *testing.T) {
	var members string
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, members) }))
	defer admin.Close()
	n := &Node{Admin: admin.Listener.Addr().String()}
	for _, c := range []struct {
		members string
		two     bool
	}{
		{`{"members": [{"state": "alive", "share": 0.5}, {"state": "alive", "share": 0.5}]}`, true},
		{`{"members": [{"state": "alive", "share": 0.5}, {"state": "alive", "share": 0.5}, {"state": "dead", "share": 0}]}`, true},
		{`{"members": [{"state": "alive", "share": 0.5}, {"state": "suspect", "share": 0.5}]}`, false},
		{`{"members": [{"state": "alive", "share": 1}, {"state": "alive", "share": 0}]}`, false},
		{`{"members": [{"state": "alive", "share": 1}]}`, false},
		{`nonsense`, false},
	} {
		members = c.members
		if err := n.Sees(2); (err == nil) != c.two {
			t.Errorf("%s: %v", c.members, err)
		}
	}
}

// A process that ends by itself fails all that waits for it, and its log tells why.
func TestEarlyEnd(t *testing.T) {
	p, err := Start(Self("failing"), "p", filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	_, line := p.AwaitLine(t.Context(), "something else")
	for what, err := range map[string]error{
		"AwaitLine": line, "AwaitListener": p.AwaitListener(t.Context(), "127.0.0.1:1"), "Wait": p.Wait(t.Context()), "Err": p.Err(), "End": p.End(),
	} {
		if !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNothingOutlivesItsParent(t *testing.T) {
	dir := t.TempDir()
	parent, err := Start(Self("parent", filepath.Join(dir, "child")), "parent", filepath.Join(dir, "parent"))
	if err != nil {
		t.Fatal(err)
	}
	child := &Process{Log: filepath.Join(dir, "child"), over: parent.over}
	line, err := child.AwaitLine(t.Context(), "at ")
	if err != nil {
		t.Fatal(err)
	}
	_, addr, _ := strings.Cut(strings.TrimSuffix(line, " <nil>"), " ")
	if err := parent.AwaitListener(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	parent.Kill()
	err = Await(t.Context(), func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("the child still listens")
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCrashed(t *testing.T) {
	p := &Process{Name: "p", Log: filepath.Join(t.TempDir(), "log")}
	for _, c := range []struct {
		log     string
		crashed bool
	}{
		{"2026/11/28 serving\n", false},
		{"x\npanic: runtime error\n", true},
		{"WARNING: DATA RACE\n", true},
		{"fatal error: all goroutines are asleep\n", true},
		{"goroutine 1 [running]:\n", true},
	} {
		if err := os.WriteFile(p.Log, []byte(c.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Crashed(); (err != nil) != c.crashed {
			t.Errorf("%q: %v", c.log, err)
		}
	}
}
