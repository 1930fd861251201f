//go:build unix

package caddygroupcache_test

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

// persisting returns a node that is alone and keeps what it has stored, with some
// pages stored and stopped.
func persisting(t *testing.T, o *origin, all []string) *process {
	p := newCluster(t, 1, o, "")[0]
	p.app = "persist " + filepath.Join(p.dir, "kept")
	p.config = ofACluster.ReplaceAllString(p.caddyfile(""), "")
	p.start()
	sweep(t, cluster{p}, all)
	p.stop()
	return p
}

// A start that fails, because the port of the site is taken, leaves what the last
// process has kept.
func TestStartThatFailsLeavesWhatIsKept(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	all := paths("page", 50)
	p := persisting(t, o, all)
	other, err := net.Listen("tcp", p.http)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		p.run()
		if code := p.awaitEnd(); code == 0 {
			t.Fatal("it has started")
		}
	}
	other.Close()
	p.start()
	eventually(t, "all is restored", func() bool { return p.restored("restored") == len(all) })
}

// However soon after a start it is stopped: nothing is lost. Killed at any moment: what
// is there is right.
func TestStopRightAfterAStart(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	all := paths("page", 400)
	p := persisting(t, o, all)
	random := seed.Of(t).Rand()
	soon := func() { time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond) } // a moment, not a wait for something
	for range 8 {
		p.run()
		p.awaitReady()
		soon()
		p.stop()
	}
	p.start()
	eventually(t, "all is restored", func() bool { return p.restored("restored") == len(all) })
	for range 4 {
		p.signal(syscall.SIGTERM)
		time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		p.kill()
		p.start()
		sweep(t, cluster{p}, all) // looks at each page
		if n := p.restored("unreadable"); n > 0 {
			t.Errorf("%d unreadable", n)
		}
	}
}

// Two processes don't read each other's file.
func TestTwoProcessesWithOneDirectory(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	c := newCluster(t, 2, o, "")
	for _, p := range c {
		p.app = "persist " + filepath.Join(c[0].dir, "kept")
		p.config = ofACluster.ReplaceAllString(p.caddyfile(""), "")
	}
	c[0].start()
	c[1].run()
	if code := c[1].awaitEnd(); code == 0 {
		t.Error("both run")
	}
}
