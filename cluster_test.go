//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"hash"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cacheable answers every path with a body that names it, after a while.
func cacheable(after time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(after)
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, bodyOf(r.URL.Path))
	}
}

func bodyOf(path string) string { return "body of " + path }

// fetchedOnce fails the test if there were more fetches than keys. Under the
// race detector a node can be busy for so long that another takes it for
// frozen and fetches for itself; the answer says so. That breaks the
// connection, and with it the fills of others that came over it, who then fetch
// too: up to two for each are forgiven. If no answer says so, none is.
func fetchedOnce(t *testing.T, o *origin, keys int, answers []answer) {
	t.Helper()
	alone := 0
	for _, a := range answers {
		if strings.Contains(a.cacheStatus(), "detail=peer-") {
			alone++
		}
	}
	t.Logf("%d fetches for %d keys, %d because a node was busy", o.fetches(""), keys, alone)
	if n := o.fetches(""); n > keys+3*alone {
		t.Errorf("%d fetches for %d keys, of which %d because a node was busy", n, keys, alone)
	}
}

// patient is for tests that count fetches: a node that is busy for a moment, as
// under the race detector, is not a silent one.
const patient = "peer_timeout 5s"

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

func TestStaleIsServedWhileOneRefreshRuns(t *testing.T) {
	const seconds, rate, delay, fresh = 5, 200, time.Second, 2 * time.Second
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		w.Header().Set("Cache-Control", "max-age=2, stale-while-revalidate=30")
		io.WriteString(w, "body")
	})
	c := startCluster(t, 3, o, patient)
	c[0].get("/swr").is(t, "the first", "body")
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	start := time.Now()
	answers := together(seconds*rate, seconds*rate, func(i int) answer {
		<-tick.C
		return c[i%3].get("/swr")
	})
	var slowest time.Duration
	for i, a := range answers {
		a.is(t, fmt.Sprintf("request %d", i), "body")
		slowest = max(slowest, a.took)
	}
	figure(t, "the slowest request after the first", slowest, 50*time.Millisecond, delay)
	// The first, and one for each time that it has become stale: the age of a
	// response counts from its request. A busy machine takes more than 5 s for all.
	most := 3 + int64(time.Since(start)/fresh)
	figure(t, "fetches", int64(o.fetches("")), most, most)
}

func TestConcurrentClientsOfColdKeysShareFetches(t *testing.T) {
	const keys, clients = 6, 600
	o := startOrigin(t, cacheable(400*time.Millisecond))
	c := startCluster(t, 3, o, patient)
	path := func(i int) string { return fmt.Sprintf("/cold/%d", i%keys) }

	answers := together(clients, clients, func(i int) answer { return c[i/keys%3].get(path(i)) })
	var slowest time.Duration
	for i, a := range answers {
		a.is(t, path(i), bodyOf(path(i)))
		slowest = max(slowest, a.took)
	}
	t.Logf("the slowest of %d answers after %v", clients, slowest)
	fetchedOnce(t, o, keys, answers)
	c.awaitIdle()
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

// A gate holds an origin back until the test opens it.
type gate chan struct{}

func (g gate) open() { close(g) }

func (g gate) wait(r *http.Request) {
	select {
	case <-g:
	case <-r.Context().Done():
	}
}

func TestLeadersClientLeavesAndFollowersGetTheFill(t *testing.T) {
	const followers = 99
	var mu sync.Mutex
	gates := make(map[string]gate)
	gateOf := func(path string) gate {
		mu.Lock()
		defer mu.Unlock()
		if gates[path] == nil {
			gates[path] = make(gate)
		}
		return gates[path]
	}
	part := strings.Repeat("0123456789abcdef", 1024)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/before") {
			gateOf(r.URL.Path).wait(r)
		}
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, bodyOf(r.URL.Path), part)
		w.(http.Flusher).Flush()
		gateOf(r.URL.Path).wait(r)
		fmt.Fprint(w, part)
	})
	c := startCluster(t, 3, o, patient)
	for lead, leader := range c { // one of them owns the key
		for _, when := range []string{"before", "amid"} {
			path := fmt.Sprintf("/%s/%d", when, lead)
			ctx, leave := context.WithCancel(t.Context())
			gone := make(chan struct{})
			go func() {
				do(leader.request(http.MethodGet, path, nil).WithContext(ctx))
				close(gone)
			}()
			eventually(t, "the leader fetches", func() bool { return o.fetches(path) == 1 })

			var reading atomic.Int32
			answers := make([]answer, followers)
			var wg sync.WaitGroup
			follow := func(from, to int) {
				for i := from; i < to; i++ {
					wg.Go(func() {
						answers[i] = do(c[i%3].request(http.MethodGet, path, nil), func() { reading.Add(1) })
					})
				}
				if when == "amid" {
					eventually(t, "the followers read along", func() bool { return int(reading.Load()) == to })
				}
			}
			follow(0, followers/2)
			leave()
			<-gone
			follow(followers/2, followers)
			gateOf(path).open()
			wg.Wait()
			for i, a := range answers {
				a.is(t, fmt.Sprintf("follower %d of %s", i, path), bodyOf(path)+part+part)
			}
			if n := o.fetches(path); n != 1 {
				t.Errorf("%s: %d fetches", path, n)
			}
		}
	}
	c.awaitIdle()
}

func TestClientsOfUncacheableURLDoNotQueue(t *testing.T) {
	const clients, delay = 60, 300 * time.Millisecond
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		w.Header().Set("Cache-Control", "private")
		fmt.Fprint(w, r.Header.Get("Cookie"))
	})
	c := startCluster(t, 3, o, patient)
	start := time.Now()
	answers := together(clients, clients, func(i int) answer {
		return c[i%3].get("/mine", "Cookie", fmt.Sprint("user=", i))
	})
	figure(t, "60 clients of a private URL", time.Since(start), 1500*time.Millisecond, 4*time.Second)
	for i, a := range answers {
		a.is(t, fmt.Sprint("client ", i), fmt.Sprint("user=", i))
	}
	if n := o.fetches(""); n != clients {
		t.Errorf("%d fetches for %d clients", n, clients)
	}
	c.awaitIdle()
}

func TestReadersJoinAStream(t *testing.T) {
	const readers, flushes, step = 6, 20, 100 * time.Millisecond
	piece := strings.Repeat("=", 1000)
	for _, vary := range []string{"", "Accept-Encoding"} {
		t.Run("vary="+vary, func(t *testing.T) {
			t.Parallel()
			var reading atomic.Int32
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				if vary != "" {
					w.Header().Set("Vary", vary)
				}
				for i := range flushes {
					// It never ends for readers who wait for the end.
					for last := i == flushes-1; last && reading.Load() < readers && r.Context().Err() == nil; {
						time.Sleep(poll)
					}
					fmt.Fprintf(w, "%02d%s", i, piece)
					w.(http.Flusher).Flush()
					time.Sleep(step)
				}
			})
			c := startCluster(t, 3, o, patient)
			answers := together(readers, readers, func(i int) answer {
				time.Sleep(time.Duration(i) * step)
				return do(c[i%3].request(http.MethodGet, "/stream", nil, "Accept-Encoding", "br"), func() { reading.Add(1) })
			})
			var whole strings.Builder
			for i := range flushes {
				fmt.Fprintf(&whole, "%02d%s", i, piece)
			}
			for i, a := range answers {
				a.is(t, fmt.Sprint("reader ", i), whole.String())
				figure(t, fmt.Sprintf("first byte for reader %d (%s)", i, a.cacheStatus()), a.firstByte, 700*time.Millisecond, 5*time.Second)
			}
			if n := o.fetches(""); n != 1 {
				t.Errorf("%d fetches", n)
			}
			c.awaitIdle()
		})
	}
}

func TestNobodyGetsSomebodyElsesAnswer(t *testing.T) {
	const clients = 90
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		who := r.Header.Get("Cookie")
		switch r.URL.Path {
		case "/private":
			w.Header().Set("Cache-Control", "private, max-age=60")
		case "/no-store":
			w.Header().Set("Cache-Control", "no-store")
		case "/set-cookie":
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Set-Cookie", "seen="+who)
		}
		fmt.Fprintf(w, "account of %s", who)
	})
	c := startCluster(t, 3, o, patient)
	for _, path := range []string{"/private", "/no-store", "/set-cookie"} {
		answers := together(clients, clients, func(i int) answer {
			return c[i%3].get(path, "Cookie", fmt.Sprintf("user=%d", i))
		})
		var slowest time.Duration
		for i, a := range answers {
			who := fmt.Sprintf("user=%d", i)
			a.is(t, path+" for "+who, "account of "+who)
			if s := a.header.Get("Set-Cookie"); s != "" && s != "seen="+who {
				t.Errorf("%s for %s: Set-Cookie: %s", path, who, s)
			}
			slowest = max(slowest, a.took)
		}
		t.Logf("%s: the slowest of %d after %v", path, clients, slowest)
		if n := o.fetches(path); n != clients {
			t.Errorf("%s: %d fetches for %d clients", path, n, clients)
		}
	}
	c.awaitIdle()
}

func TestEachBodyBelongsToItsKey(t *testing.T) {
	const requests, keys, atOnce = 3000, 600, 300
	// Bodies of many sizes, so that a buffer of another key would show.
	body := func(path string) string {
		return strings.Repeat(bodyOf(path)+"\n", 1+len(path)*len(path)%97*7)
	}
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, body(r.URL.RequestURI()))
	})
	c := startCluster(t, 3, o, patient)
	path := func(i int) string { return fmt.Sprintf("/body/%s?n=%d", strings.Repeat("x", i%23), i*keys/requests) }
	start := time.Now()
	answers := together(requests, atOnce, func(i int) answer { return c[i%3].get(path(i - i%5)) })
	for i, a := range answers {
		a.is(t, path(i-i%5), body(path(i-i%5)))
	}
	t.Logf("%d requests in %v", requests, time.Since(start))
	fetchedOnce(t, o, keys, answers)
	c.awaitIdle()
}

// TestHeaderTooBigForAPeerIsNobodysFault: what can't be put to another node, or can't
// be told it, is fetched without it, and not held against it.
func TestHeaderTooBigForAPeerIsNobodysFault(t *testing.T) {
	large, long := strings.Repeat("a", 40<<10), strings.Repeat("A", 300)
	var tags []string
	for i := range 256 {
		tags = append(tags, fmt.Sprintf("%0250d", i))
	}
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
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
	})
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

// sweep asks some nodes for some paths, at the same time, and fails the test
// for every error. It returns all answers.
func sweep(t *testing.T, nodes cluster, paths []string) []answer {
	t.Helper()
	answers := together(len(nodes)*len(paths), 24, func(i int) answer {
		return nodes[i%len(nodes)].get(paths[i/len(nodes)])
	})
	for i, a := range answers {
		p, path := nodes[i%len(nodes)], paths[i/len(nodes)]
		a.is(t, p.name+path, bodyOf(path))
	}
	return answers
}

func paths(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("/%s/%d", prefix, i)
	}
	return all
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

func TestReadersOutliveTheNodeTheyReadFrom(t *testing.T) {
	part := strings.Repeat("0123456789abcdef", 1024)
	for what, signal := range map[string]syscall.Signal{"frozen": syscall.SIGSTOP, "killed": syscall.SIGKILL} {
		t.Run(what, func(t *testing.T) {
			opened := make(gate)
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				fmt.Fprint(w, bodyOf(r.URL.Path), part)
				w.(http.Flusher).Flush()
				opened.wait(r)
				fmt.Fprint(w, part)
			})
			c := startCluster(t, 3, o, patient)
			others, victim := c[:2], c[2]
			// Enough keys to have some whose owner stops, and some whose
			// leader does.
			streams := paths("stream", 12)
			var reading atomic.Int32
			var wg sync.WaitGroup
			for i, path := range streams {
				wg.Go(func() { // its client's fate is open when it leads on the victim
					p := c[i%3]
					a := do(p.request(http.MethodGet, path, nil), func() { reading.Add(1) })
					if p != victim {
						a.is(t, path+" led by "+p.name, bodyOf(path)+part+part)
					}
				})
			}
			eventually(t, "all streams have begun", func() bool { return int(reading.Load()) == len(streams) })
			for _, path := range streams {
				for _, p := range others {
					wg.Go(func() {
						a := do(p.request(http.MethodGet, path, nil), func() { reading.Add(1) })
						a.is(t, path+" followed on "+p.name, bodyOf(path)+part+part)
					})
				}
			}
			eventually(t, "all read along", func() bool { return int(reading.Load()) == 3*len(streams) })
			victim.signal(signal)
			opened.open()
			if signal == syscall.SIGSTOP {
				others.awaitIdle()
				victim.kill() // lets its own clients go
			}
			wg.Wait()
			t.Logf("%d fetches for %d streams", o.fetches(""), len(streams))
			others.awaitIdle()
			for i, path := range streams {
				if p := c[i%3]; p != victim {
					a := p.get(path)
					a.is(t, path+" on "+p.name+" afterwards", bodyOf(path)+part+part)
					if !a.hit() {
						t.Errorf("%s on %s, which has fetched it: %s", path, p.name, a.cacheStatus())
					}
				}
			}
		})
	}
}

func TestTruncatedResponseIsNeverStored(t *testing.T) {
	const size = 1000
	body := strings.Repeat("b", size)
	var broken, begun sync.Map // by path: what has been cut off; what the test wants to wait for
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if strings.HasPrefix(r.URL.Path, "/length") {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		if _, again := broken.LoadOrStore(r.URL.Path, true); again {
			io.WriteString(w, body)
			return
		}
		io.WriteString(w, body[:size/2])
		w.(http.Flusher).Flush()
		if g, ok := begun.Load(r.URL.Path); ok {
			g.(gate).wait(r)
		}
		panic(http.ErrAbortHandler)
	})
	c := startCluster(t, 3, o, patient)
	for i, p := range c {
		for _, kind := range []string{"/length/", "/chunked/"} {
			path := kind + p.name
			// Whole only if the node's transport has asked again by itself.
			if a := p.get(path); a.err == nil && a.body != body {
				t.Errorf("%s: got %d bytes as if they were all (%s)", path, len(a.body), a.cacheStatus())
			}
			next := c[(i+1)%3]
			a := next.get(path)
			a.is(t, path+", the next one", body)
			figure(t, path+", the next one", a.took, 100*time.Millisecond, 5*time.Second)
			// Its client may have it before the owner has.
			eventually(t, path+" is cached", func() bool {
				a := c[(i+2)%3].get(path)
				a.is(t, path+", later", body)
				return a.hit()
			})
			if n := o.fetches(path); n > 3 {
				t.Errorf("%s: %d fetches", path, n)
			}
		}
	}
	// Those who read along get all of it, or an error, but no wrong end.
	for _, kind := range []string{"/length/", "/chunked/"} {
		const readers = 30
		path := kind + "followed"
		g := make(gate)
		begun.Store(path, g)
		var reading atomic.Int32
		var wg sync.WaitGroup
		var whole atomic.Int32
		for i := range readers {
			wg.Go(func() {
				a := do(c[i%3].request(http.MethodGet, path, nil), func() { reading.Add(1) })
				switch {
				case a.err == nil && a.body != body:
					t.Errorf("%s: got %d bytes as if they were all (%s)", path, len(a.body), a.cacheStatus())
				case a.err == nil:
					whole.Add(1)
				}
			})
		}
		eventually(t, "all read along", func() bool { return reading.Load() == readers })
		g.open()
		wg.Wait()
		t.Logf("%s: %d of %d readers got a whole body from %d fetches", path, whole.Load(), readers, o.fetches(path))
		if whole.Load() < readers-1 {
			t.Errorf("%s: only %d of %d readers got a whole body", path, whole.Load(), readers)
		}
		c[0].get(path).is(t, path, body)
		c[1].get(path).is(t, path, body)
	}
	c.awaitIdle()
}

// pattern writes the first n bytes of a body in which no two blocks are alike.
func pattern(w io.Writer, n int) {
	src := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 64<<10)
	for n > 0 {
		_, _ = src.Read(block) // never fails
		k, err := w.Write(block[:min(n, len(block))])
		if err != nil {
			return
		}
		n -= k
	}
}

func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// memory returns the resident memory of the node's process at its peak.
func (p *process) memory() int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Skip("no /proc")
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")), 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	p.t.Fatal("no VmHWM")
	return 0
}

func TestHugeBodyStreamsThrough(t *testing.T) {
	const size, readers = 64 << 20, 4
	var reading atomic.Int32
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		io.WriteString(w, "begin")
		w.(http.Flusher).Flush()
		for r.URL.Path == "/followed" && reading.Load() < readers && r.Context().Err() == nil {
			time.Sleep(poll)
		}
		pattern(w, size-5)
	})
	want := sha256.New()
	io.WriteString(want, "begin")
	pattern(want, size-5)
	c := startCluster(t, 3, o, "")
	fetch := func(p *process, path string) (sum hash.Hash, first time.Duration, err error) {
		start := time.Now()
		resp, err := client.Do(p.request(http.MethodGet, path, nil))
		if err != nil {
			return nil, 0, err
		}
		defer resp.Body.Close()
		sum = sha256.New()
		begin := make([]byte, 1)
		if _, err = io.ReadFull(resp.Body, begin); err != nil {
			return nil, 0, err
		}
		sum.Write(begin)
		first = time.Since(start)
		reading.Add(1)
		_, err = io.Copy(sum, resp.Body)
		return sum, first, err
	}
	check := func(what string, sum hash.Hash, first time.Duration, err error) {
		switch {
		case err != nil:
			t.Errorf("%s: %v", what, err)
			return
		case !bytes.Equal(sum.Sum(nil), want.Sum(nil)):
			t.Errorf("%s: another body", what)
		}
		figure(t, what+": first byte", first, 500*time.Millisecond, 2*time.Second)
	}
	limit := int64(64)
	if raceEnabled() { // it takes several bytes of its own for each
		limit *= 3
	}
	for _, path := range []string{"/length", "/chunked"} {
		for _, p := range c {
			before := p.memory()
			sum, first, err := fetch(p, path)
			check(path+" on "+p.name, sum, first, err)
			figure(t, path+" on "+p.name+": MiB of memory", (p.memory()-before)>>20, 64, limit)
		}
	}
	reading.Store(0)
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			sum, first, err := fetch(c[i%3], "/followed")
			check(fmt.Sprintf("/followed by %d", i), sum, first, err)
		})
	}
	wg.Wait()
	t.Logf("%d fetches for %d readers", o.fetches("/followed"), readers)
	for _, p := range c {
		t.Logf("%s: memory at its peak: %d MiB", p.name, p.memory()>>20)
	}
	c.awaitIdle()
}

func TestReloadsUnderLoadLoseNothing(t *testing.T) {
	const reloads = 30
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		fmt.Fprint(w, bodyOf(r.URL.Path))
		if r.URL.Path == "/long" { // under way all the time
			for range 20 {
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
				fmt.Fprint(w, ".")
			}
		}
	})
	c := startCluster(t, 3, o, "")
	warm := paths("warm", 30)
	sweep(t, c, warm)
	hits := `caddy_groupcache_requests_total{group="default",status="hit"}`
	before := c[0].metric(hits)
	fetched := o.fetches("")

	var requests atomic.Int64
	done := make(gate)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := i; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				path := warm[n%len(warm)]
				a := c[i/4].get(path) // four of six ask the node that reloads
				a.is(t, path, bodyOf(path))
				if a.err == nil && !a.hit() && !strings.Contains(a.cacheStatus(), "peer-timeout") {
					t.Errorf("%s: %s", path, a.cacheStatus())
				}
				requests.Add(1)
			}
		})
	}
	wg.Go(func() {
		c[0].get("/long").is(t, "/long", bodyOf("/long")+strings.Repeat(".", 20))
	})
	for i := range reloads {
		c[0].site = fmt.Sprintf("ttl %dm", i+1)
		if status, answer := c[0].load(c[0].caddyfile(fmt.Sprintf("header Reload %d", i))); status != http.StatusOK {
			t.Errorf("reload %d: status %d: %s", i, status, answer)
		}
		if a := c[0].get(warm[0]); a.header.Get("Reload") != strconv.Itoa(i) || !a.hit() {
			t.Errorf("reload %d: %v, Reload: %q, %s", i, a.err, a.header.Get("Reload"), a.cacheStatus())
		}
	}
	done.open()
	wg.Wait()
	t.Logf("%d requests during %d reloads, %d fetches", requests.Load(), reloads, o.fetches("")-fetched)
	for _, path := range warm {
		if n := o.fetches(path); n != 1 {
			t.Errorf("%s: %d fetches", path, n)
		}
	}
	if after := c[0].metric(hits); after <= before {
		t.Errorf("hits counted: %v before, %v after", before, after)
	}
	c.awaitMembers()
	c.awaitIdle()
}

func TestReloadThatCannotBeAppliedIsRefused(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	c := startCluster(t, 2, o, "")
	p := c[0]
	p.get("/page").is(t, "/page", bodyOf("/page"))
	good := p.caddyfile("")
	other := freePorts(t, 2)
	for _, change := range []struct{ name, caddyfile, says string }{
		{"cache size", strings.Replace(good, "gossip", "cache_size 64MiB\n\t\tgossip", 1), "cache_size"},
		{"gossip", strings.Replace(good, "gossip "+p.gossip, "gossip "+other[0], 1), "gossip"},
		{"peers", strings.Replace(good, "peers "+p.peers, "peers "+other[1], 1), "peers"},
		{"name", strings.Replace(good, "name "+p.name, "name other", 1), "name"},
		{"no cluster", good[:strings.Index(good, "groupcache {")] + "}\n" + good[strings.Index(good, "\nhttp://"):], "cluster"},
		{"unknown option", strings.Replace(good, "gossip", "colour blue\n\t\tgossip", 1), "colour"},
		{"unknown option of the directive", good[:strings.LastIndex(good, "groupcache {")] + "groupcache {\n\t\tcolour blue\n\t}\n}\n", "colour"},
		{"not loopback", strings.Replace(good, "gossip "+p.gossip, "gossip 192.0.2.1:7946", 1), "loopback"},
		{"bad secret", strings.Replace(good, "gossip", "secret short\n\t\tgossip", 1), "keygen"},
		{"another module's fault", strings.Replace(good, "reverse_proxy", "basic_auth {\n\tx y\n}\n\treverse_proxy", 1), ""},
	} {
		if change.caddyfile == good {
			t.Errorf("%s: nothing changed", change.name)
		}
		status, answer := p.load(change.caddyfile)
		t.Logf("%s: %d %s", change.name, status, strings.TrimSpace(answer))
		if status != http.StatusBadRequest || !strings.Contains(answer, change.says) {
			t.Errorf("%s: status %d, %s: want 400 and a word about %s", change.name, status, answer, change.says)
		}
		a := p.get("/page")
		a.is(t, change.name, bodyOf("/page"))
		if !a.hit() {
			t.Errorf("%s: %s", change.name, a.cacheStatus())
		}
		c.awaitMembers()
	}
	if status, answer := p.load(p.caddyfile("header X-After yes")); status != http.StatusOK {
		t.Errorf("a good config afterwards: status %d: %s", status, answer)
	}
	if a := p.get("/page"); !a.hit() || a.header.Get("X-After") == "" {
		t.Errorf("after a good config: %s", a.cacheStatus())
	}
	if n := o.fetches(""); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestStrangersAtThePortsAreRefused(t *testing.T) {
	o := startOrigin(t, cacheable(0))
	c := startCluster(t, 2, o, "")
	p := c[0]
	refused := func(port string) float64 { return p.metric(`caddy_groupcache_refused_total{port="` + port + `"}`) }
	noise := make([]byte, 4096)
	src := rand.NewChaCha8([32]byte{2})
	_, _ = src.Read(noise) // never fails

	raw := func(network, addr string, bytes []byte) func() {
		return func() {
			conn, err := net.DialTimeout(network, addr, 5*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = conn.Write(bytes) // may be reset before it has taken all
			if network == "udp" {
				return
			}
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
			if n, err := io.Copy(io.Discard, io.LimitReader(conn, 1<<20)); n == 1<<20 || os.IsTimeout(err) {
				t.Errorf("%s at %s: %d bytes of answer, then %v", network, addr, n, err)
			}
		}
	}
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	post := func(path string, body []byte) func() {
		return func() {
			transport := &http.Transport{Protocols: &h2}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).
				Post("http://"+p.peers+path, "", bytes.NewReader(body))
			if err != nil {
				t.Errorf("%s: %v", path, err)
				return
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
	}
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, s := range []struct {
		name    string
		port    string
		send    func()
		counted bool
	}{
		{"HTTP/1.1", "peers", raw("tcp", p.peers, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), true},
		{"TLS", "peers", func() {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", p.peers, &tls.Config{InsecureSkipVerify: true})
			if err == nil {
				t.Error("a TLS handshake without TLS")
				conn.Close()
			}
		}, true},
		{"noise", "peers", raw("tcp", p.peers, noise), true},
		{"preface and noise", "peers", raw("tcp", p.peers, append([]byte(preface), noise...)), true},
		{"nothing", "peers", raw("tcp", p.peers, nil), false},
		{"another path", "peers", post("/", nil), true},
		{"another version", "peers", post("/2/lookup", noise), true},
		{"noise as a query", "peers", post("/1/lookup", noise), true},
		{"noise as a publication", "peers", post("/1/publish", noise), true},
		{"an endless frame", "peers", post("/1/lookup", []byte("q\xff\xff\xff\xff")), true},
		{"an endless publication", "peers", post("/1/publish", []byte("q\xff\xff\xff\xff")), true},
		{"noise", "gossip", raw("tcp", p.gossip, noise), true},
		{"HTTP/1.1", "gossip", raw("tcp", p.gossip, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), true},
		{"noise by UDP", "gossip", raw("udp", p.gossip, noise[:1000]), true},
	} {
		before, begin := refused(s.port), time.Now()
		const times = 20
		var wg sync.WaitGroup
		for range times {
			wg.Go(s.send)
		}
		wg.Wait()
		if s.counted {
			eventually(t, s.name+" at "+s.port+" is counted", func() bool { return refused(s.port) > before })
		}
		t.Logf("%s at %s: %v of %d counted, %v", s.name, s.port, refused(s.port)-before, times, time.Since(begin))
	}
	select {
	case <-p.died:
		t.Fatalf("the node has ended: %v", p.cmd.ProcessState)
	default:
	}
	c.awaitMembers()
	sweep(t, c, paths("after", 20))
	c.awaitIdle()
}

func TestWhatIsNotCacheablePassesUntouched(t *testing.T) {
	next := make(chan struct{})
	gone := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "data: first\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-next:
			fmt.Fprint(w, "data: second\n\n")
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
		<-r.Context().Done()
		close(gone)
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		io.Copy(conn, rw)
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "page")
	})
	mux.HandleFunc("/trailer", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "with a trailer")
		w.Header().Set("X-Sum", "42")
	})
	mux.HandleFunc("/late-trailer/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "with a trailer")
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"X-Sum", "42")
	})
	mux.HandleFunc("/echo/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintf(w, "%s ", r.Method)
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		http.ServeContent(w, r, "file.txt", time.Time{}, strings.NewReader("0123456789"))
	})
	o := startOrigin(t, mux.ServeHTTP)
	c := startCluster(t, 2, o, "")

	t.Run("events", func(t *testing.T) {
		for _, p := range c { // each has a stream of its own
			ctx, leave := context.WithCancel(t.Context())
			resp, err := client.Do(p.request(http.MethodGet, "/events", nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			buf := make([]byte, len("data: first\n\n"))
			if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "data: first\n\n" {
				t.Errorf("%s: first event: %q, %v", p.name, buf, err)
			}
			next <- struct{}{}
			buf = make([]byte, len("data: second\n\n"))
			if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "data: second\n\n" {
				t.Errorf("%s: second event: %q, %v", p.name, buf, err)
			}
			leave()
			select { // it ends with its client
			case <-gone:
				gone = make(chan struct{})
			case <-time.After(hang):
				t.Errorf("%s: the client is gone, the upstream's stream goes on", p.name)
			}
			t.Logf("%s: %s", p.name, resp.Header.Get("Cache-Status"))
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		for _, p := range c {
			// Not client.Do, whose timeout hides that the body can be written to.
			resp, err := client.Transport.RoundTrip(p.request(http.MethodGet, "/upgrade", nil, "Connection", "Upgrade", "Upgrade", "echo"))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			conn, ok := resp.Body.(io.ReadWriteCloser)
			if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
				t.Fatalf("%s: %s", p.name, resp.Status)
			}
			for _, word := range []string{"hello", "again"} {
				if _, err := io.WriteString(conn, word); err != nil {
					t.Error(err)
				}
				buf := make([]byte, len(word))
				if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != word {
					t.Errorf("%s: echo of %s: %q, %v", p.name, word, buf, err)
				}
			}
		}
	})
	t.Run("early hints", func(t *testing.T) {
		for i, p := range c {
			var hints []string
			trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", header.Get("Link")))
				return nil
			}}
			r := p.request(http.MethodGet, "/hints", nil)
			a := do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
			a.is(t, p.name, "page")
			if i == 0 && (len(hints) != 1 || hints[0] != "103 </style.css>; rel=preload") {
				t.Errorf("%s: interim responses: %q", p.name, hints)
			}
			if a.shared() != (i > 0) {
				t.Errorf("%s: %s", p.name, a.cacheStatus())
			}
		}
	})
	t.Run("trailers", func(t *testing.T) {
		for _, p := range c {
			a := p.get("/trailer")
			a.is(t, p.name+" announced", "with a trailer")
			if a.trailer.Get("X-Sum") != "42" || a.shared() {
				t.Errorf("%s: announced trailer %v, %s", p.name, a.trailer, a.cacheStatus())
			}
			// That there is one shows too late for who follows; who asked gets it.
			a = p.get("/late-trailer/" + p.name)
			a.is(t, p.name+" not announced", "with a trailer")
			if a.trailer.Get("X-Sum") != "42" {
				t.Errorf("%s: late trailer %v, %s", p.name, a.trailer, a.cacheStatus())
			}
			if a = p.get("/late-trailer/" + p.name); a.hit() {
				t.Errorf("%s: late trailer: %s", p.name, a.cacheStatus())
			}
		}
	})
	t.Run("methods and bodies", func(t *testing.T) {
		for _, p := range c {
			for range 2 {
				do(p.request(http.MethodPost, "/echo/post", strings.NewReader("form"))).is(t, "POST", "POST form")
				a := do(p.request(http.MethodGet, "/echo/body", strings.NewReader(p.name)))
				a.is(t, "GET with a body", "GET "+p.name)
				if strings.Contains(a.cacheStatus(), "stored") || a.hit() {
					t.Errorf("GET with a body: %s", a.cacheStatus())
				}
			}
		}
		if n := o.fetches("/echo/body"); n != 4 {
			t.Errorf("%d fetches for 4 GET with a body", n)
		}
		for i, p := range c {
			a := p.get("/echo/body")
			a.is(t, "GET without a body", "GET ")
			if a.shared() != (i > 0) {
				t.Errorf("%s: GET without a body: %s", p.name, a.cacheStatus())
			}
		}
	})
	t.Run("head and range", func(t *testing.T) {
		head := func(p *process) answer { return do(p.request(http.MethodHead, "/file", nil)) }
		if a := head(c[0]); a.status != http.StatusOK || a.body != "" || a.hit() {
			t.Errorf("HEAD before GET: status %d, %q, %s", a.status, a.body, a.cacheStatus())
		}
		part := c[0].get("/file", "Range", "bytes=2-4")
		if part.status != http.StatusPartialContent || part.body != "234" {
			t.Errorf("range before GET: status %d, %q, %s", part.status, part.body, part.cacheStatus())
		}
		c[0].get("/file").is(t, "GET", "0123456789")
		for _, p := range c {
			a := head(p)
			if a.status != http.StatusOK || a.body != "" || !a.hit() || a.header.Get("Content-Length") != "10" {
				t.Errorf("%s: HEAD: status %d, %q, Content-Length %s, %s", p.name, a.status, a.body, a.header.Get("Content-Length"), a.cacheStatus())
			}
			part := p.get("/file", "Range", "bytes=2-4")
			if part.status != http.StatusPartialContent || part.body != "234" {
				t.Errorf("%s: range: status %d, %q, %s", p.name, part.status, part.body, part.cacheStatus())
			}
			a = p.get("/file")
			a.is(t, "GET", "0123456789")
			if !a.shared() {
				t.Errorf("%s: GET: %s", p.name, a.cacheStatus())
			}
		}
	})
	c.awaitIdle()
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
