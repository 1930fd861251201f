//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestEveryNodeServesWhatOneFetched(t *testing.T) {
	const keys, delay = 12, 400 * time.Millisecond
	o := startOrigin(t, cacheable(delay))
	c := startCluster(t, 3, o, patient)
	path := func(i int) string { return fmt.Sprintf("/key/%d", i) }

	first := together(keys, keys, func(i int) answer { return c[i%3].get(path(i)) })
	for i, a := range first {
		a.is(t, "first "+path(i), bodyOf(path(i)))
		if a.took < delay || a.hit() {
			t.Errorf("first %s: %s after %v", path(i), a.cacheStatus(), a.took)
		}
	}
	var later []time.Duration
	details := make(map[string]int)
	for range 5 {
		for i := range keys {
			for _, p := range c {
				a := p.get(path(i))
				a.is(t, p.name+path(i), bodyOf(path(i)))
				if !a.hit() || a.header.Get("Age") == "" {
					t.Errorf("%s%s: %s, Age %q", p.name, path(i), a.cacheStatus(), a.header.Get("Age"))
				}
				later = append(later, a.took)
				_, detail, _ := strings.Cut(a.cacheStatus(), "detail=")
				details[detail]++
			}
		}
	}
	t.Logf("where hits came from: %v", details)
	figure(t, "median of later requests", median(later), 5*time.Millisecond, 100*time.Millisecond)
	if n := o.fetches(""); n != keys {
		t.Errorf("%d fetches for %d keys", n, keys)
	}
}

// TestIgnoredDirectivesCountNowhere: neither on the node that the client asks nor
// on the one that owns the key.
func TestIgnoredDirectivesCountNowhere(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	c := startCluster(t, 2, o, patient+"\n\t\trequest_directives ignore")
	for i := range 12 { // some of them each node owns
		path := fmt.Sprintf("/reload/%d", i)
		c[0].get(path).is(t, "the first "+path, bodyOf(path))
		for _, p := range c {
			for _, field := range []string{"Cache-Control", "Pragma"} {
				if g := p.explain(path, "header", field+": no-cache").Groups[0]; g.Verdict != "hit" {
					t.Errorf("%s%s with %s: %s %s is expected", p.name, path, field, g.Verdict, g.Reason)
				}
				if a := p.get(path, field, "no-cache"); !a.hit() {
					t.Errorf("%s%s with %s: %s", p.name, path, field, a.cacheStatus())
				}
			}
		}
	}
}

// outsized is an origin whose header has more than a peer takes: what, and where, is the
// first part of the path.
func outsized(long string) http.HandlerFunc {
	var tags []string
	for i := range 256 {
		tags = append(tags, fmt.Sprintf("%0250d", i))
	}
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "max-age=60")
		switch kind, _, _ := strings.Cut(r.URL.Path[1:], "/"); kind {
		case "varies":
			h.Set("Vary", "X-Large")
		case "varies-by-many":
			h.Set("Vary", "Accept, X-Large, "+long)
		case "fields":
			for i := range 200 {
				h.Set(fmt.Sprint("X-", strings.Repeat("N", 60), i), strings.Repeat("v", 300))
			}
		case "name":
			h.Set(long, "v")
		case "tags":
			h.Set("Surrogate-Key", strings.Join(tags, " "))
			h.Set("Cache-Groups", `"`+strings.Join(tags, `", "`)+`"`)
		case "groups":
			h.Set("Cache-Group-Invalidation", `"`+strings.Join(tags, `", "`)+`"`)
		case "length":
			h.Set("Content-Length", fmt.Sprintf("%09d", len(bodyOf(r.URL.Path))))
		}
		fmt.Fprint(w, bodyOf(r.URL.Path))
	}
}

// TestHeaderTooBigForAPeerIsNobodysFault: what can't be put to another node, or can't
// be told it, is fetched without it, and not held against it.
func TestHeaderTooBigForAPeerIsNobodysFault(t *testing.T) {
	large, long := strings.Repeat("a", 40<<10), strings.Repeat("A", 300)
	o := startOrigin(t, outsized(long))
	c := newCluster(t, 2, o, patient)
	for _, p := range c {
		p.config = strings.Replace(p.caddyfile(""), "\n\tgroupcache {", "\n\tservers {\n\t\tmax_header_size 1MiB\n\t}\n\tgroupcache {", 1)
		p.start()
	}
	c.awaitMembers()
	ask := func(what string, change func(*http.Request)) (hits int) {
		for i := range 8 {
			path := fmt.Sprintf("/%s/%d", what, i)
			for range 2 {
				for _, p := range c {
					r := p.request(http.MethodGet, path, nil)
					change(r)
					a := do(r)
					a.is(t, p.name+path, bodyOf(path))
					if s := a.cacheStatus(); strings.Contains(s, "detail=peer-") {
						t.Errorf("%s%s: %s", p.name, path, s)
					}
					if a.hit() {
						hits++
					}
				}
			}
		}
		return hits
	}
	fields := func(h http.Header) func(*http.Request) {
		return func(r *http.Request) { maps.Copy(r.Header, h) }
	}
	for _, request := range []struct {
		what   string
		change func(*http.Request)
	}{
		{"plain", fields(http.Header{"Accept": {large}})},
		{"many", fields(http.Header{"Accept": slices.Repeat([]string{"a/b"}, 300)})},
		{"varies", fields(http.Header{"X-Large": {large}})},
		{"varies-by-many", fields(http.Header{"Accept": {large[:30<<10]}, "X-Large": {large[:30<<10]}})},
		{"fields", fields(nil)},
		{"name", fields(nil)},
		{"tags", fields(nil)},
		{"tags", fields(http.Header{"X-Forwarded-Host": {large}})},
		{"plain", func(r *http.Request) { r.Host = large[:16300] }},
		{"groups", func(r *http.Request) { r.Method, r.Host = http.MethodPost, large[:16300] }},
		{"groups", func(r *http.Request) { r.Method, r.Host = http.MethodPost, large[:500] }},
		{"length", fields(nil)},
	} {
		ask(request.what, request.change)
	}
	if hits := ask("after", fields(nil)); hits != 24 {
		t.Errorf("%d hits of 24", hits)
	}
	for _, p := range c {
		if n := p.metric(`caddy_groupcache_refused_total{port="peers"}`); n > 0 {
			t.Errorf("%s has refused %v calls of the other", p.name, n)
		}
	}
}

func TestNodeThatStopsHurtsNoClientOfAnother(t *testing.T) {
	for what, signal := range map[string]syscall.Signal{"frozen": syscall.SIGSTOP, "killed": syscall.SIGKILL} {
		t.Run(what, func(t *testing.T) {
			o := startOrigin(t, cacheable(0))
			c := startCluster(t, 3, o, "")
			others, victim := c[:2], c[2]
			warm, cold := paths("warm", 60), paths("cold", 60)
			all := append(warm, cold...)
			sweep(t, c, warm)

			// settled reports whether the others have everything cached.
			settled := func() bool {
				before, hits := o.fetches(""), 0
				answers := sweep(t, others, all)
				for _, a := range answers {
					if a.hit() {
						hits++
					}
				}
				t.Logf("%d of %d requests are hits, %d fetches", hits, len(answers), o.fetches("")-before)
				return hits == len(answers) && o.fetches("") == before
			}

			victim.signal(signal)
			var slowest time.Duration
			requests := 0
			note := func(answers []answer) {
				for _, a := range answers {
					slowest = max(slowest, a.took)
				}
				requests += len(answers)
			}
			// As long as the others take it for alive, they ask it.
			note(sweep(t, others, warm))
			note(sweep(t, others, cold))
			if signal == syscall.SIGSTOP && others[0].states()[victim.name] == "dead" {
				t.Log("it was found dead too soon to be asked")
			}
			eventually(t, "what was fetched anew is cached", settled)
			rounds := 0
			eventually(t, "the others take it for dead", func() bool {
				rounds++
				note(sweep(t, others, paths(fmt.Sprint("round-", rounds), 10)))
				return others[0].states()[victim.name] == "dead" && others[1].states()[victim.name] == "dead"
			})
			figure(t, fmt.Sprintf("the slowest of %d requests", requests), slowest, time.Second, 2*time.Second)

			// Its keys have other owners now, and are fetched once more at most.
			before := o.fetches("")
			sweep(t, others, all)
			t.Logf("%d of %d keys were fetched anew", o.fetches("")-before, len(all))
			eventually(t, "what was fetched anew is cached", settled)
			others.awaitIdle()
		})
	}
}

func TestMembersFindEachOther(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	c := newCluster(t, 3, o, "")
	seeds := c[0].gossip + " " + c[1].gossip
	for _, p := range c {
		p.join = seeds
	}
	took := func(what string, begin time.Time) { t.Logf("%s: %v", what, time.Since(begin)) }

	begin := time.Now()
	c[0].run()
	c[1].run()
	c[0].awaitReady()
	c[1].awaitReady()
	c[:2].awaitMembers()
	took("two seeds that start together", begin)
	c[2].start()
	c.awaitMembers()

	for _, p := range []*process{c[2], c[0]} { // the latter is a seed
		begin = time.Now()
		p.kill()
		p.start()
		c.awaitMembers()
		took(p.name+" killed and started again", begin)

		begin = time.Now()
		p.signal(syscall.SIGTERM)
		p.awaitEnd()
		p.start()
		c.awaitMembers()
		took(p.name+" stopped and started again", begin)
	}

	c[2].signal(syscall.SIGSTOP)
	eventually(t, "the others take it for dead", func() bool {
		return c[0].states()["n3"] == "dead" && c[1].states()["n3"] == "dead"
	})
	begin = time.Now()
	c[2].signal(syscall.SIGCONT)
	c.awaitMembers()
	took("a frozen node that wakes up", begin)
	sweep(t, c, paths("after", 20))
	c.awaitIdle()
}

func TestNodeLeavesCleanly(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	c := startCluster(t, 3, o, "")
	others, leaver := c[:2], c[2]
	warm := paths("warm", 30)
	sweep(t, c, warm)

	begin := time.Now()
	leaver.signal(syscall.SIGTERM)
	eventually(t, "the others know that it left", func() bool {
		sweep(t, others, warm)
		switch a, b := others[0].states()["n3"], others[1].states()["n3"]; {
		case a == "dead" || b == "dead":
			t.Fatalf("the others see %s and %s", a, b)
		default:
			return a == "left" && b == "left"
		}
		return false
	})
	figure(t, "until the others knew", time.Since(begin), 2*time.Second, 8*time.Second)
	if code := leaver.awaitEnd(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("until it ended: %v", time.Since(begin))
	others.awaitMembers()
	sweep(t, others, warm)
	fetched := o.fetches("")
	for _, a := range sweep(t, others, warm) {
		if !a.hit() && !strings.Contains(a.cacheStatus(), "peer-timeout") {
			t.Errorf("%s", a.cacheStatus())
		}
	}
	t.Logf("%d fetches for what was asked before", o.fetches("")-fetched)
	others.awaitIdle()
}
