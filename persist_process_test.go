//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// ofACluster are the lines of a node's configuration that make it one of a cluster.
var ofACluster = regexp.MustCompile(`(?m)^\t\t(gossip|peers|join|name) .*\n`)

func (p *process) restored(result string) int {
	p.t.Helper()
	return int(p.metric(fmt.Sprintf("caddy_groupcache_restored_total{result=%q}", result)))
}

// stop ends the process as an operator would.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.awaitEnd(); code != 0 {
		p.t.Errorf("%s: exit code %d", p.name, code)
	}
}

func TestRestartWithPersist(t *testing.T) {
	const pages = 50
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			w.Header().Set("Content-Length", fmt.Sprint(3<<20))
			w.Header().Set("Cache-Control", "max-age=600")
			_, _ = w.Write([]byte(strings.Repeat("large body ", 3<<20))[:3<<20])
			return
		}
		cacheable(0)(w, r)
	})
	p := newCluster(t, 1, o, "")[0]
	kept := filepath.Join(p.dir, "kept")
	p.app = "persist " + kept
	p.config = ofACluster.ReplaceAllString(p.caddyfile(""), "")
	p.start()
	if status, answer := p.load(strings.Replace(p.config, p.app, "persist /elsewhere", 1)); status == http.StatusOK || !strings.Contains(answer, "persist") {
		t.Errorf("another directory is accepted: %s", answer)
	}
	all := paths("page", pages)
	sweep(t, cluster{p}, all)
	large := p.get("/large").body
	fetched := o.fetches("")
	p.stop()
	if left, err := os.ReadDir(kept); err != nil || len(left) != 2 { // the lock too
		t.Errorf("after a stop: %v, %v", left, err)
	}

	p.start()
	eventually(t, "all is restored", func() bool { return p.restored("restored") == pages+1+2 })
	if left, err := os.ReadDir(kept); err != nil || len(left) != 1 {
		t.Errorf("after a start: %v, %v", left, err)
	}
	sweep(t, cluster{p}, all)
	p.get("/large").is(t, "a large body", large)
	if again := o.fetches("") - fetched; again != 0 {
		t.Errorf("%d fetches after a restart", again)
	}
	if status, _ := p.load(p.config + "\n# changed\n"); status != http.StatusOK {
		t.Errorf("reload: %d", status)
	}
	if left, err := os.ReadDir(kept); err != nil || len(left) != 1 {
		t.Errorf("after a reload: %v, %v", left, err)
	}

	p.kill()
	p.start()
	sweep(t, cluster{p}, all)
	if again := o.fetches("") - fetched; again != pages || p.restored("restored") != 0 {
		t.Errorf("%d fetches after a crash, %d restored", again, p.restored("restored"))
	}

	p.stop()
	file := filepath.Join(kept, "cache.saved")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	eventually(t, "the damage is counted", func() bool { return p.restored("unreadable") > 0 })
	sweep(t, cluster{p}, all)
}

// TestPurgeWhileANodeIsDown: what it kept is served again, but what was purged
// meanwhile.
func TestPurgeWhileANodeIsDown(t *testing.T) {
	const pages = 50
	o := startOrigin(t, cacheable(0))
	c := newCluster(t, 3, o, patient)
	for _, p := range c {
		p.app = "persist " + filepath.Join(p.dir, "kept")
		p.start()
	}
	c.awaitMembers()
	all := paths("page", pages)
	sweep(t, c, all)
	c[0].stop()
	eventually(t, "the others are without it", func() bool {
		return c[1].states()[c[0].name] == "left" && c[2].states()[c[0].name] == "left"
	})
	if status, answer := c[1].purge(fmt.Sprintf(`{"urls":["http://%s%s"]}`, clientHost, all[0])); status != http.StatusOK {
		t.Fatalf("purge: %d %v", status, answer)
	}
	before := o.fetches(all[0])
	c[0].start()
	c.awaitMembers()
	eventually(t, "its file is read", func() bool { return c[0].restored("restored")+c[0].restored("unverified") > 0 })
	if c[0].restored("unverified") > 0 {
		t.Error("nobody has vouched")
	}
	if hit := c[0].get(all[0]).hit(); hit || o.fetches(all[0]) != before+1 {
		t.Errorf("what was purged meanwhile: hit %v, %d fetches", hit, o.fetches(all[0])-before)
	}
	// What others have given it before it was read counts too.
	eventually(t, "what was purged is counted", func() bool { return c[0].restored("outdated") >= 1 })
}
