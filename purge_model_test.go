package caddygroupcache

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// The model of a purge is its promise: when it has succeeded, the nodes that were
// live then serve nothing any more that was fetched before it began. All else
// (what is a hit, who owns what, who is reachable) the model leaves to the
// cluster.
//
// A modelStep is drawn before anything runs, so that a failure can be made smaller.
type modelStep struct {
	Do         string
	Node       int
	URL        int
	Kind       string
	Soft       bool
	Wait       time.Duration // before it
	InParallel bool          // the next modelStep does not wait for this one
}

const modelURLs = 4

func drawStep(t *rapid.T) modelStep {
	return modelStep{
		Do: rapid.SampledFrom([]string{
			"get", "get", "get", "get", "get", "get", "purge", "purge", "purge",
			"freeze", "wake", "part", "heal", "crash", "start", "leave", "evict", "flood",
		}).Draw(t, "do"),
		Node:       rapid.IntRange(0, 2).Draw(t, "node"),
		URL:        rapid.IntRange(0, modelURLs-1).Draw(t, "url"),
		Kind:       rapid.SampledFrom([]string{"url", "prefix", "host", "tag", "all"}).Draw(t, "kind"),
		Soft:       rapid.IntRange(0, 3).Draw(t, "soft") == 0,
		Wait:       time.Duration(rapid.SampledFrom([]int{0, 0, 0, 1, 5, 100, 1500, 4000, 12000, 130000}).Draw(t, "wait")) * time.Millisecond,
		InParallel: rapid.Bool().Draw(t, "parallel"),
	}
}

func TestPurgeModel(t *testing.T) {
	seed.Rapid(t)
	// As many as take a few seconds, unless somebody wants more.
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		n := "200"
		if raceDetector {
			n = "40"
		}
		if err := checks.Value.Set(n); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 5, 60).Draw(rt, "steps")
		lags := rapid.SliceOfN(rapid.IntRange(0, 3000), 16, 16).Draw(rt, "lags") // microseconds
		var failures []string
		synctest.Test(t, func(t *testing.T) { failures = newModel(t, lags).run(steps) })
		if len(failures) > 0 {
			rt.Fatal(strings.Join(failures, "\n"))
		}
	})
}

// A model is a bubble and what its nodes have promised.
type model struct {
	*bubble
	ctx    context.Context
	apart  map[int]bool // frozen or cut off; by node
	frozen map[int]bool

	mu       sync.Mutex // guards below
	fetches  int
	fetched  map[string]time.Time // by body
	promises map[string]promise   // by node and URL
	failures []string
}

// A promise is when the last purge of a URL began that has succeeded.
type promise struct{ hard, soft time.Time }

func newModel(t *testing.T, lags []int) *model {
	m := &model{
		bubble: newBubble(t, 3, nil), ctx: t.Context(),
		apart: make(map[int]bool), frozen: make(map[int]bool),
		fetched: make(map[string]time.Time), promises: make(map[string]promise),
	}
	for _, n := range m.nodes {
		n.Purger.NoteBeat()
	}
	next := 0
	m.net.slow(func() time.Duration {
		next++
		return time.Duration(lags[next%len(lags)]) * time.Microsecond
	})
	return m
}

func (m *model) run(steps []modelStep) []string {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go m.keepBeats(stop, stopped)
	var all sync.WaitGroup
	for _, s := range steps {
		time.Sleep(s.Wait + time.Microsecond)
		if s.Do == "get" || s.Do == "purge" {
			if s.InParallel {
				all.Go(func() { m.do(s) })
				continue
			}
		}
		m.do(s)
	}
	all.Wait()
	// In the end, when everybody can be reached again, all promises hold.
	for i := range m.nodes {
		m.do(modelStep{Do: "wake", Node: i})
		m.do(modelStep{Do: "start", Node: i})
	}
	for range 2 {
		for i := range m.nodes {
			for url := range modelURLs {
				m.do(modelStep{Do: "get", Node: i, URL: url})
			}
		}
		time.Sleep(time.Second)
	}
	close(stop)
	<-stopped
	return m.failures
}

// keepBeats notes for every node that runs that it does, as keepBeat would.
func (m *model) keepBeats(stop, stopped chan struct{}) {
	defer close(stopped)
	ticks := time.NewTicker(node.Beat)
	defer ticks.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticks.C:
			m.mu.Lock()
			var running []*bubbleNode
			for i, n := range m.nodes {
				if !m.frozen[i] && !n.crashed.Load() {
					running = append(running, n)
				}
			}
			m.mu.Unlock()
			for _, n := range running {
				n.Purger.Tick()
			}
		}
	}
}

func (m *model) do(s modelStep) {
	m.mu.Lock()
	n, frozen := m.nodes[s.Node], m.frozen[s.Node]
	m.mu.Unlock()
	switch s.Do {
	case "get":
		if !frozen && !n.crashed.Load() {
			m.get(s, n)
		}
	case "purge":
		if !frozen && !n.crashed.Load() {
			m.purge(s, n)
		}
	case "freeze", "wake":
		if !n.crashed.Load() {
			m.setApart(s.Node, s.Do == "freeze", s.Do == "freeze")
		}
	case "part", "heal":
		if !n.crashed.Load() && !frozen {
			m.setApart(s.Node, s.Do == "part", false)
		}
	case "crash", "leave":
		if !n.crashed.Load() && !frozen {
			n.crash()
			m.rings()
		}
	case "start":
		if n.crashed.Load() {
			m.restart(s.Node)
		}
	case "evict": // what the index holds of the URL
		k, _ := keyOf(n.handler, m.request(s.URL))
		if e := n.Store.Lookup(k, nil, time.Now()).Entry; e != nil {
			n.Store.Drop(k, e)
		}
	case "flood": // more purges than anybody keeps apart
		if !frozen && !n.crashed.Load() {
			for range 20 {
				n.process.node.Purger.Everywhere(floodOf(200))
			}
		}
	}
}

// floodOf is a purge of many tags that nothing has.
func floodOf(n int) []store.Purge {
	p := store.Purge{ID: store.NewPurgeID()}
	for i := range n {
		p.Selectors = append(p.Selectors, store.Selector{Kind: store.Tag, Value: fmt.Sprint("flood", i)})
	}
	return []store.Purge{p}
}

func (m *model) url(i int) string { return fmt.Sprintf("http://host%d.test/dir%d/page", i%2, i) }

func (m *model) request(i int) *http.Request { return request(m.ctx, m.url(i)) }

// upstream answers with a body that says when it was fetched.
func (m *model) upstream(i int) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		m.mu.Lock()
		m.fetches++
		body := fmt.Sprint("fetch ", m.fetches)
		m.fetched[body] = time.Now()
		m.mu.Unlock()
		control := "max-age=300"
		if i%2 == 1 {
			control = "max-age=300, must-revalidate"
		}
		w.Header().Set("Cache-Control", control)
		w.Header().Set("Cache-Tag", fmt.Sprint("tag", i))
		time.Sleep(time.Duration(i) * 2 * time.Millisecond)
		_, _ = w.Write([]byte(body[:3]))
		_ = http.NewResponseController(w).Flush()
		time.Sleep(time.Duration(i) * time.Millisecond)
		_, err := w.Write([]byte(body[3:]))
		return err
	}
}

func (m *model) get(s modelStep, n *bubbleNode) {
	m.mu.Lock()
	p := m.promises[fmt.Sprint(n.addr.Addr, s.URL)]
	m.mu.Unlock()
	w := do(n.handler, m.upstream(s.URL), m.request(s.URL))
	if w.Code == -1 {
		return // cut off: whom it followed has crashed, and its own fetch gave another body
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	at, whole := m.fetched[w.Body.String()]
	status := w.Header().Get("Cache-Status")
	switch {
	case w.Code != 200 || !whole:
		m.failures = append(m.failures, fmt.Sprintf("%s: url %d: %d %q", n.Name, s.URL, w.Code, w.Body))
	case at.Before(p.hard):
		m.failures = append(m.failures, fmt.Sprintf("%s: url %d was fetched %v before a purge that had succeeded: %s", n.Name, s.URL, p.hard.Sub(at), status))
	case at.Before(p.soft) && strings.Contains(status, "; hit; ttl=") && !strings.Contains(status, "; hit; ttl=0") && !strings.Contains(status, "; hit; ttl=-"):
		m.failures = append(m.failures, fmt.Sprintf("%s: url %d passes for fresh, %v after a soft purge: %s", n.Name, s.URL, p.soft.Sub(at), status))
	case at.Before(p.soft) && s.URL%2 == 1:
		m.failures = append(m.failures, fmt.Sprintf("%s: url %d must not be served stale: %s", n.Name, s.URL, status))
	}
}

func (m *model) purge(s modelStep, n *bubbleNode) {
	body, names := "", func(i int) bool { return i == s.URL }
	switch s.Kind {
	case "url":
		body = fmt.Sprintf(`"urls": [%q]`, m.url(s.URL))
	case "prefix":
		body = fmt.Sprintf(`"prefixes": ["http://host%d.test/dir%d"]`, s.URL%2, s.URL)
	case "host":
		body = fmt.Sprintf(`"hosts": ["host%d.test"]`, s.URL%2)
		names = func(i int) bool { return i%2 == s.URL%2 }
	case "tag":
		body = fmt.Sprintf(`"tags": ["tag%d"]`, s.URL)
	case "all":
		body, names = `"all": true`, func(int) bool { return true }
	}
	m.mu.Lock()
	addrs := make(map[string]string)
	for _, o := range m.nodes {
		addrs[o.Name] = o.addr.Addr
	}
	m.mu.Unlock()
	begun := time.Now()
	code, result := n.purge(m.t, fmt.Sprintf(`{%s, "soft": %v}`, body, s.Soft))
	if code != 200 {
		return // who has not heard of it may hand what it has to others
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range result.Nodes {
		for i := range modelURLs {
			if !names(i) {
				continue
			}
			at := fmt.Sprint(addrs[a.Name], i)
			p := m.promises[at]
			if s.Soft && begun.After(p.soft) {
				p.soft = begun
			} else if !s.Soft && begun.After(p.hard) {
				p.hard = begun
			}
			m.promises[at] = p
		}
	}
}

// setApart cuts a node off, or puts it back. Some time later the others notice,
// and so does it, unless it is frozen.
func (m *model) setApart(i int, apart, frozen bool) {
	m.mu.Lock()
	was := m.apart[i]
	m.apart[i], m.frozen[i] = apart, frozen
	m.mu.Unlock()
	if was == apart {
		return
	}
	m.freeze(m.nodes[i], apart)
	m.rings()
}

// rings gives each node the ring that memberlist would, by and by.
func (m *model) rings() {
	notice := 5 * time.Second
	m.mu.Lock()
	nodes := append([]*bubbleNode(nil), m.nodes...)
	m.mu.Unlock()
	for i, n := range nodes {
		time.AfterFunc(notice+time.Duration(i)*30*time.Millisecond, func() { m.look(n) })
	}
}

// look sets the ring of a node by what it can reach now.
func (m *model) look(n *bubbleNode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := -1
	for i, o := range m.nodes {
		if o == n {
			at = i
		}
	}
	if at < 0 || n.crashed.Load() || m.frozen[at] {
		return
	}
	ring := []peer.Node{n.addr}
	for i, o := range m.nodes {
		if i != at && !o.crashed.Load() && !m.apart[at] && !m.apart[i] {
			ring = append(ring, o.addr)
		}
	}
	n.SetRing(ring)
}

func (m *model) restart(i int) {
	old := m.nodes[i]
	fresh := m.bubble.start(old.Name, nil)
	fresh.Purger.NoteBeat()
	m.mu.Lock()
	m.nodes = m.nodes[:len(m.nodes)-1]
	m.nodes[i] = fresh
	m.apart[i], m.frozen[i] = false, false
	nodes := append([]*bubbleNode(nil), m.nodes...)
	m.mu.Unlock()
	for j, o := range nodes {
		if m.apart[j] {
			m.net.part(fresh.addr.Addr, o.addr.Addr, true)
		}
	}
	for j := range nodes { // it asks the others to let it join, and all of them see it
		m.look(nodes[(i+j)%len(nodes)])
	}
}
