//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

// A steadyLoad asks random nodes for random pages, until end.
type steadyLoad struct {
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex // guards below
	nodes    cluster    // that are asked
	random   *rand.Rand
	requests int
	failed   []string
	slow     []string
	alone    map[string]int // answers of a node to which others were of no help, by detail
}

// startLoad begins with so many requests a second.
func startLoad(t *testing.T, nodes cluster, pages []string, perSecond int) *steadyLoad {
	t.Helper()
	seeds := seed.Of(t)
	random := seeds.Rand()
	l := &steadyLoad{stop: make(chan struct{}), nodes: nodes, random: seeds.Rand(), alone: make(map[string]int)}
	l.done.Go(func() {
		ticks := time.NewTicker(time.Second / time.Duration(perSecond))
		defer ticks.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-ticks.C:
				page := pages[random.IntN(len(pages))]
				l.done.Go(func() { l.ask(page) })
			}
		}
	})
	return l
}

func (l *steadyLoad) ask(page string) {
	l.mu.Lock()
	p := l.nodes[l.random.IntN(len(l.nodes))]
	l.mu.Unlock()
	a := p.get(page)
	l.note(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.nodes, p) {
		return // it went while it was asked, and would without a cache
	}
	l.requests++
	if a.err != nil || a.status != http.StatusOK || a.body != bodyOf(page) {
		l.failed = append(l.failed, fmt.Sprintf("%s of %s: %d %s, %v", page, p.name, a.status, brief(a.body), a.err))
	}
	if a.took > time.Second {
		l.slow = append(l.slow, fmt.Sprintf("%s of %s: %v (%s)", page, p.name, a.took, a.cacheStatus()))
	}
}

func (l *steadyLoad) note(a answer) {
	_, detail, _ := strings.Cut(a.cacheStatus(), "detail=")
	if strings.HasPrefix(detail, "peer-") || detail == "catching-up" {
		l.mu.Lock()
		l.alone[detail]++
		l.mu.Unlock()
	}
}

// sweep asks nodes for all pages.
func (l *steadyLoad) sweep(t *testing.T, nodes cluster, pages []string) {
	t.Helper()
	for _, a := range sweep(t, nodes, pages) {
		l.note(a)
	}
}

// excuse is how many fetches there may be because under the race detector nodes
// take each other, and themselves, for frozen: see fetchedOnce.
func (l *steadyLoad) excuse(t *testing.T) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("nodes to which others were of no help: %v", l.alone)
	if !raceEnabled() {
		return 0
	}
	var n int64
	for _, count := range l.alone {
		n += 3 * int64(count)
	}
	return n
}

// balance says which nodes clients are sent to from now on.
func (l *steadyLoad) balance(nodes cluster) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes = nodes
}

// end ends the load, and fails the test for what clients have noticed.
func (l *steadyLoad) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	t.Logf("%d requests", l.requests)
	for _, failed := range l.failed {
		t.Error(failed)
	}
	for _, slow := range l.slow {
		if raceEnabled() {
			t.Log(slow)
		} else {
			t.Error(slow)
		}
	}
}

// TestRollingRestartKeepsWhatNobodyAsksFor: nodes are restarted one after the other, or others
// take their places, and nothing is asked meanwhile. What a node owns it has then by itself.
func TestRollingRestartKeepsWhatNobodyAsksFor(t *testing.T) {
	const pages = 600
	fill := strings.Repeat("=", 2000)
	for name, nodes := range map[string]int{"three": 3, "four": 4, "blue-green": 6} {
		t.Run(name, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=600")
				fmt.Fprint(w, bodyOf(r.URL.Path), fill)
			})
			c := newCluster(t, nodes, o, patient)
			old, young := c, cluster(nil)
			if name == "blue-green" {
				old, young = c[:nodes/2], c[nodes/2:]
			}
			for _, p := range old {
				p.start()
			}
			old.awaitMembers()
			all := paths("page", pages)
			ask := func(nodes cluster) {
				for i, a := range together(pages, 16, func(i int) answer { return nodes[i%len(nodes)].get(all[i]) }) {
					a.is(t, all[i], bodyOf(all[i])+fill)
				}
			}
			ask(old)
			stop := func(p *process) {
				p.signal(syscall.SIGTERM)
				if code := p.awaitEnd(); code != 0 {
					t.Errorf("%s: exit code %d", p.name, code)
				}
			}
			before, live := o.fetches(""), c
			if young == nil {
				for _, p := range c {
					stop(p)
					p.start()
					c.awaitMembers()
					p.awaitShare(c, all)
				}
			} else {
				for _, p := range young {
					p.start()
				}
				c.awaitMembers()
				for _, p := range old {
					stop(p)
				}
				live = young
				live.awaitMembers()
			}
			ask(live)
			figure(t, "pages fetched anew", int64(o.fetches("")-before), 0, pages*5/100)
		})
	}
}

// awaitShare waits until a node has, without having been asked, nearly all that it owns.
func (p *process) awaitShare(c cluster, all []string) {
	share := 0
	for _, path := range all {
		if p.explain(path).Groups[0].Owner == p.name {
			share++
		}
	}
	eventually(p.t, p.name+" has its keys", func() bool {
		s, err := p.status()
		if err != nil {
			return false
		}
		var entries int64
		for _, g := range s.Groups {
			entries += g.Entries
		}
		return entries >= int64(share*95/100)
	})
}

// TestRestartsKeepTheCache: a node that is restarted takes its keys along and
// gets them back; of one that is killed its share is fetched once more.
func TestRestartsKeepTheCache(t *testing.T) {
	const pages, nodes = 400, 4
	o := startOrigin(t, cacheable(0))
	options := ""
	if raceEnabled() {
		options = patient
	}
	c := startCluster(t, nodes, o, options)
	all := paths("page", pages)
	sweep(t, c[:1], all)
	warm := o.fetches("")
	if warm != pages {
		t.Fatalf("%d fetches of %d pages", warm, pages)
	}
	victim, others := c[nodes-1], c[:nodes-1]
	load := startLoad(t, c, all, 200)
	gone := func(end func()) int {
		t.Helper()
		before := o.fetches("")
		load.balance(others)
		end()
		eventually(t, "the others have taken over", func() bool {
			for _, p := range others {
				if state := p.states()[victim.name]; state != "left" && state != "dead" {
					return false
				}
			}
			return true
		})
		load.sweep(t, others, all)
		victim.start()
		c.awaitMembers() // until it has found the others it is alone, and fetches
		load.balance(c)
		load.sweep(t, c, all)
		return o.fetches("") - before
	}
	graceful := gone(func() {
		victim.signal(syscall.SIGTERM)
		if code := victim.awaitEnd(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	figure(t, "fetches because of a graceful restart", int64(graceful), pages*5/100+1, pages*5/100+load.excuse(t))
	killed := gone(victim.kill)
	// Its share varies by chance: so many keys are four standard deviations more.
	figure(t, "fetches because of a crash", int64(killed), pages/nodes+1, pages/nodes+35+load.excuse(t))
	load.end(t)
}

// TestMetricsAnswerWhileANodeLeaves: what only looks does not wait for the nodes that a
// leaving one tells, of which one is silent.
func TestMetricsAnswerWhileANodeLeaves(t *testing.T) {
	c := startCluster(t, 2, startOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, "page")
	}), patient)
	for i := range 20 {
		c[0].get(fmt.Sprint("/", i))
	}
	c[1].signal(syscall.SIGSTOP)
	defer c[1].signal(syscall.SIGCONT)
	begun, slowest, asked := time.Now(), time.Duration(0), 0
	c[0].signal(syscall.SIGTERM)
	for {
		before := time.Now()
		resp, err := adminClient.Get("http://" + c[0].admin + "/metrics")
		if err != nil {
			break // the endpoint is gone
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		slowest, asked = max(slowest, time.Since(before)), asked+1
	}
	c[0].awaitEnd()
	took := time.Since(begun)
	t.Logf("left after %v; %d answers, the slowest after %v", took, asked, slowest)
	if asked == 0 || slowest > took/2 {
		t.Errorf("%d answers, the slowest after %v of %v", asked, slowest, took)
	}
}
