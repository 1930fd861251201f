//go:build unix

package caddygroupcache_test

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

var lives = flag.Int("lives", 15, "how many lives TestPersistThroughManyLives tries")

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

// TestPersistThroughManyLives: starts that fail, and ends at random moments, of starts and of
// stops too. What a process has kept is there until a config of the next runs. A stop keeps
// all of it, however soon it comes; a crash keeps all or nothing, and never less than all of
// what is there to be read.
//
//	go test -run TestPersistThroughManyLives -v -lives 100 .
func TestPersistThroughManyLives(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	all := paths("page", 300)
	p := persisting(t, o, all)
	random := seed.Of(t).Rand()
	moment := func(most int) { time.Sleep(time.Duration(random.IntN(most)) * time.Millisecond) } // not a wait for something
	file := filepath.Join(p.dir, "kept", "cache.saved")
	isKept := func() bool { _, err := os.Stat(file); return err == nil }
	endings := []struct {
		name  string
		keeps bool // what was kept or is in memory
		live  func()
	}{
		{"a start that fails", true, func() {
			other, err := net.Listen("tcp", p.http)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			p.run()
			if code := p.awaitEnd(); code == 0 {
				t.Error("it has started")
			}
		}},
		{"killed amid a start", false, func() { p.run(); moment(500); p.kill() }},
		{"stopped amid a start", true, func() {
			p.run()
			moment(500)
			p.signal(syscall.SIGTERM)
			p.awaitEnd() // before Caddy listens for signals, one ends it with another code
		}},
		{"stopped soon after a start", true, func() { p.start(); moment(50); p.stop() }},
		{"killed amid a stop", false, func() { p.start(); moment(50); p.signal(syscall.SIGTERM); moment(40); p.kill() }},
	}
	came := make(map[string]int)
	n := *lives
	if raceEnabled() {
		n = (n + 2) / 3 // each start takes the race detector seconds
	}
	for i := range n {
		one := endings[random.IntN(len(endings))]
		one.live()
		what := one.name + ", lost"
		if isKept() {
			what = one.name + ", kept"
		} else if one.keeps {
			t.Errorf("life %d: %s: nothing is kept", i, one.name)
		}
		came[what]++
		p.livesOn(all, isKept())
	}
	t.Log(came)
}

// livesOn starts the process after one that has ended somehow, which has kept all or nothing,
// and looks at each page.
func (p *process) livesOn(all []string, kept bool) {
	p.t.Helper()
	p.start()
	if kept {
		eventually(p.t, "all is restored", func() bool { return p.restored("restored") == len(all) })
	}
	sweep(p.t, cluster{p}, all)
	if n := p.restored("unreadable") + p.restored("outdated") + p.restored("unverified"); n > 0 || !kept && p.restored("restored") > 0 {
		p.t.Errorf("kept %v: %d restored, %d unreadable or the like", kept, p.restored("restored"), n)
	}
	p.stop()
}
