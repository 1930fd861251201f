//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
)

// A versioned origin answers with a path's version, and tags it with the path's
// first part.
func versioned(version *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Surrogate-Key", "all "+strings.Split(r.URL.Path, "/")[1])
		_, _ = io.WriteString(w, strconv.FormatInt(version.Load(), 10))
	}
}

// purge asks the node's admin API for a purge.
func (p *process) purge(body string) (int, caddygroupcache.PurgeResult) {
	p.t.Helper()
	resp, err := adminClient.Post("http://"+p.admin+"/groupcache/purge", "application/json", strings.NewReader(body))
	if err != nil {
		p.t.Fatalf("%s: purge: %v", p.name, err)
	}
	defer resp.Body.Close()
	var result caddygroupcache.PurgeResult
	if err := json.NewDecoder(resp.Body).Decode(&result); err != nil {
		p.t.Fatalf("%s: purge: %v", p.name, err)
	}
	return resp.StatusCode, result
}

func missing(r caddygroupcache.PurgeResult) (names []string) {
	for _, a := range r.Nodes {
		if !a.Acknowledged {
			names = append(names, a.Name)
		}
	}
	return names
}

// everywhere has all nodes serve a body for all paths.
func (c cluster) everywhere(t *testing.T, what, body string, paths ...string) {
	t.Helper()
	for _, p := range c {
		for _, path := range paths {
			p.get(path).is(t, what+", "+p.name+path, body)
		}
	}
}

func TestPurgeInACluster(t *testing.T) {
	var version atomic.Int64
	o := startOrigin(t, versioned(&version))
	c := startCluster(t, 3, o, patient)
	news, shop := paths("news", 15), paths("shop", 15)
	all := append(slices.Clone(news), shop...)
	c.everywhere(t, "at first", "0", all...)

	var took []time.Duration
	for i := range int64(30) {
		version.Store(i + 1)
		start := time.Now()
		code, result := c[i%3].purge(`{"tags": ["news"]}`)
		took = append(took, time.Since(start))
		if code != 200 || len(result.Nodes) != 3 || len(missing(result)) > 0 {
			t.Fatalf("purge %d: %d %+v", i, code, result)
		}
		some := news[i%15]
		c.everywhere(t, fmt.Sprint("after purge ", i), strconv.FormatInt(i+1, 10), some)
	}
	figure(t, "median of purges on 3 nodes", median(took), 50*time.Millisecond, 500*time.Millisecond)
	c.everywhere(t, "what has another tag", "0", shop...)
	if n := o.fetches(shop[0]); n != 1 {
		t.Errorf("%d fetches of what was not purged", n)
	}
	if got := c[2].metric(`caddy_groupcache_purges_total{kind="tag"}`); got != 30 {
		t.Errorf("counted %v purges", got)
	}
	resp, err := adminClient.Post("http://"+c[0].admin+"/groupcache/purge", "application/json", strings.NewReader(`{"tags": ["news"], "al": true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(text), "unknown field") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

func TestPurgeWhileANodeIsFrozen(t *testing.T) {
	var version atomic.Int64
	o := startOrigin(t, versioned(&version))
	c := startCluster(t, 3, o, patient)
	some := paths("news", 20)
	c.everywhere(t, "at first", "0", some...)
	frozen, others := c[2], c[:2]
	frozen.signal(syscall.SIGSTOP)
	version.Store(1)
	// Both at the same time: soon the frozen node is found dead, and not waited
	// for any more.
	var out string
	var exit int
	var command sync.WaitGroup
	command.Go(func() { out, exit = caddyCommand(t, "groupcache", "purge", "--tag", "news", "--address", c[1].admin) })
	code, result := c[0].purge(`{"tags": ["news"]}`)
	command.Wait()
	if code != 502 || !slices.Equal(missing(result), []string{frozen.name}) {
		t.Errorf("%d %+v", code, result)
	}
	others.everywhere(t, "where it was acknowledged", "1", some...)
	if exit == 0 || !strings.Contains(out, frozen.name+"    failed: ") || !strings.Contains(out, "not acknowledged by "+frozen.name) || !strings.Contains(out, c[0].name+"    acknowledged") {
		t.Errorf("exit %d:\n%s", exit, out)
	}
	frozen.signal(syscall.SIGCONT)
	cluster{frozen}.everywhere(t, "from the first answer on", "1", some...)
	c.awaitMembers()
	c.everywhere(t, "later", "1", some...)
	if code, result := c[1].purge(`{"all": true}`); code != 200 {
		t.Errorf("%d %+v", code, result)
	}
}

func TestPurgeCommand(t *testing.T) {
	var version atomic.Int64
	o := startOrigin(t, versioned(&version))
	c := startCluster(t, 2, o, patient)
	path := "/news/1?x=1,2"
	c.everywhere(t, "at first", "0", path, "/shop/1")
	url := "http://" + clientHost + path
	for i, args := range [][]string{
		{"--url", url},
		{"--url", "http://other.test/", "--url", url},
		{"--prefix", "http://" + clientHost + "/new"},
		{"--host", clientHost, "--group", "default"},
		{"--tag", "a,b", "--tag", "news"},
		{"--all"},
	} {
		version.Store(int64(i + 1))
		out, exit := caddyCommand(t, append([]string{"groupcache", "purge", "--address", c[i%2].admin}, args...)...)
		if exit != 0 || !strings.Contains(out, "n1    acknowledged\nn2    acknowledged\n") {
			t.Errorf("%v: exit %d:\n%s", args, exit, out)
		}
		c.everywhere(t, fmt.Sprint(args), strconv.Itoa(i+1), path)
	}
	out, exit := caddyCommand(t, "groupcache", "purge", "--soft", "--tag", "nothing", "--json", "--address", c[0].admin)
	var result caddygroupcache.PurgeResult
	if err := json.Unmarshal([]byte(out), &result); exit != 0 || err != nil || len(result.Nodes) != 2 {
		t.Errorf("exit %d, %v:\n%s", exit, err, out)
	}
	for want, args := range map[string][]string{
		"nothing is named to purge": {"--address", c[0].admin},
		"it takes the scheme":       {"--url", "/news/1", "--address", c[0].admin},
		`no handler`:                {"--all", "--group", "nobody", "--address", c[0].admin},
		"unknown flag":              {"--everything"},
		"connection refused":        {"--all", "--address", "127.0.0.1:1"},
		`unknown command "all"`:     {"all"},
	} {
		if out, exit := caddyCommand(t, append([]string{"groupcache", "purge"}, args...)...); exit == 0 || !strings.Contains(out, want) {
			t.Errorf("%v: exit %d, want %q in:\n%s", args, exit, want, out)
		}
	}
	c.everywhere(t, "what was not purged", "6", path, "/shop/1")
}

// TestPurgeCommandBelievesNoStranger: another server at the address answers 200 to anything.
func TestPurgeCommandBelievesNoStranger(t *testing.T) {
	for _, answer := range []string{"{}", "", `{"id": "x", "nodes": []}`, "ok"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
		out, exit := caddyCommand(t, "groupcache", "purge", "--all", "--address", s.Listener.Addr().String())
		s.Close()
		if exit == 0 || !strings.Contains(out, "no answer to a purge") {
			t.Errorf("%q: %d %s", answer, exit, out)
		}
	}
}

func TestNodeThatStartsAnewServesNothingPurged(t *testing.T) {
	var version atomic.Int64
	o := startOrigin(t, versioned(&version))
	c := startCluster(t, 2, o, patient)
	some := paths("news", 10)
	c.everywhere(t, "at first", "0", some...)
	c[1].kill()
	version.Store(1)
	eventually(t, "the purge succeeds without the node that died", func() bool {
		code, _ := c[0].purge(`{"tags": ["news"]}`)
		return code == 200
	})
	c[1].start()
	c.everywhere(t, "right after the start", "1", some...)
	c.awaitMembers()
	c.everywhere(t, "as a member", "1", some...)
	version.Store(2)
	if code, result := c[1].purge(`{"tags": ["news"]}`); code != 200 || len(result.Nodes) != 2 {
		t.Errorf("%d %+v", code, result)
	}
	c.everywhere(t, "after a purge by the new one", "2", some...)
}

// Purges go on while clients ask. No answer to a request that began after a
// purge had succeeded is older than that purge.
func TestPurgesUnderLoad(t *testing.T) {
	var version atomic.Int64
	o := startOrigin(t, versioned(&version))
	c := startCluster(t, 3, o, patient)
	some := paths("news", 10)
	var purged atomic.Int64 // the version that was purged last
	var all sync.WaitGroup
	var requests, hits atomic.Int64
	done := make(chan struct{})
	for i := range 6 {
		all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				least := purged.Load()
				a := c[(i+n)%3].get(some[n%len(some)])
				requests.Add(1)
				if a.hit() {
					hits.Add(1)
				}
				got, err := strconv.ParseInt(a.body, 10, 64)
				if err != nil || a.err != nil || got < least {
					t.Errorf("got %q, %v, want at least %d (%s)", a.body, a.err, least, a.cacheStatus())
					return
				}
			}
		})
	}
	var took []time.Duration
	kinds := []string{`{"tags": ["news"]}`, `{"hosts": ["demo.test"]}`, `{"prefixes": ["http://demo.test/news/"]}`, `{"all": true}`}
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for i := range 60 {
		<-pause.C
		now := version.Add(1)
		start := time.Now()
		code, result := c[i%3].purge(kinds[i%len(kinds)])
		took = append(took, time.Since(start))
		if code != 200 {
			t.Errorf("purge %d: %d %+v", i, code, result)
			break
		}
		purged.Store(now)
	}
	close(done)
	all.Wait()
	t.Logf("%d requests, %d hits", requests.Load(), hits.Load())
	figure(t, "median of purges under load", median(took), 50*time.Millisecond, time.Second)
	if !bytes.Contains([]byte(c[0].get(some[0]).body), []byte("60")) {
		t.Error("the last version is not served")
	}
}

// A deploy script purges 10,000 tags a second; clients keep asking for what has
// none of them. Times with and without it take turns, so that a machine which has
// other work too slows both.
func TestPurgesHardlySlowHits(t *testing.T) {
	if raceEnabled() {
		t.Skip("measures")
	}
	o := startOrigin(t, versioned(new(atomic.Int64)))
	p := startCluster(t, 1, o, "")[0]
	some := paths("news", 1000)
	cluster{p}.everywhere(t, "at first", "0", some...)

	const turn, rounds, tagsEach = 200 * time.Millisecond, 15, 100
	var cpu, asked [2]float64 // seconds that the node has computed, and hits: without purges, and with
	// hits returns how long a hit takes, with four clients at a time.
	hits := func(purging int) time.Duration {
		var n atomic.Int64
		var all sync.WaitGroup
		before := p.metric("process_cpu_seconds_total")
		end := time.Now().Add(turn)
		for range 4 {
			all.Go(func() {
				for time.Now().Before(end) {
					if a := p.get(some[n.Add(1)%1000]); !a.hit() {
						t.Errorf("%d %s %v", a.status, a.cacheStatus(), a.err)
					}
				}
			})
		}
		all.Wait()
		cpu[purging] += p.metric("process_cpu_seconds_total") - before
		asked[purging] += float64(n.Load())
		return turn / time.Duration(max(n.Load(), 1))
	}
	// purge purges until it is stopped, and returns how many tags it has.
	script := &http.Client{Timeout: hang}
	purged := 0
	purge := func(stop chan struct{}) {
		ticks := time.NewTicker(time.Second * tagsEach / 10_000)
		defer ticks.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticks.C:
			}
			tags := []byte(`{"tags": ["deploy"`)
			for range tagsEach {
				purged++
				tags = strconv.AppendInt(append(tags, `, "deploy`...), int64(purged), 10)
				tags = append(tags, '"')
			}
			resp, err := script.Post("http://"+p.admin+"/groupcache/purge", "application/json", bytes.NewReader(append(tags, "]}"...)))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
				t.Errorf("%s, %v", resp.Status, err)
			}
			resp.Body.Close()
		}
	}
	var quiet, purging []time.Duration
	for range rounds {
		quiet = append(quiet, hits(0))
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			purge(stop)
		}()
		purging = append(purging, hits(1))
		close(stop)
		<-ended
	}
	t.Logf("the node computes %.1f µs for a hit, %.1f µs with the purges and what their requests take", 1e6*cpu[0]/asked[0], 1e6*cpu[1]/asked[1])
	slower := 100 * (median(purging) - median(quiet)) / median(quiet)
	t.Logf("%v a hit, %v while %d tags a second are purged", median(quiet), median(purging), int64(purged)*int64(time.Second)/int64(rounds*turn))
	figure(t, "hits slowed by purges, in percent", int64(slower), 10, 50)
}

// Each kind of purge, on three nodes that are warm on 30 URLs: what it names is
// fetched again, once, and nothing else.
func TestEachKindOfPurgeInACluster(t *testing.T) {
	var version atomic.Int64
	o := startOrigin(t, versioned(&version))
	c := startCluster(t, 3, o, patient)
	all := append(paths("news", 15), paths("news1", 15)...)
	url := func(path string) string { return "http://" + clientHost + path }
	for i, test := range []struct {
		body  string
		named func(path string) bool
	}{
		{fmt.Sprintf(`{"urls": [%q]}`, url(all[3])), func(p string) bool { return p == all[3] }},
		{fmt.Sprintf(`{"prefixes": [%q]}`, url("/news/")), func(p string) bool { return strings.HasPrefix(p, "/news/") }},
		{`{"tags": ["news"]}`, func(p string) bool { return strings.HasPrefix(p, "/news/") }},
		{`{"tags": ["new"]}`, func(string) bool { return false }},
		{fmt.Sprintf(`{"hosts": [%q]}`, clientHost), func(string) bool { return true }},
		{`{"hosts": ["test"]}`, func(string) bool { return false }},
		{`{"all": true}`, func(string) bool { return true }},
		{`{"tags": ["news1"], "soft": true}`, func(p string) bool { return strings.HasPrefix(p, "/news1/") }},
	} {
		version.Store(0)
		if code, result := c[0].purge(`{"all": true}`); code != 200 {
			t.Fatal(result)
		}
		c.everywhere(t, "at first", "0", all...)
		before := make(map[string]int)
		for _, path := range all {
			before[path] = o.fetches(path)
		}
		version.Store(1)
		if code, result := c[i%3].purge(test.body); code != 200 {
			t.Fatalf("%s: %+v", test.body, result)
		}
		for _, path := range all {
			want, fetches := "0", 0
			if test.named(path) {
				want, fetches = "1", 1
			}
			for _, p := range c {
				if soft := strings.Contains(test.body, "soft"); soft && want == "1" {
					// What is stale is served until one node has it anew.
					eventually(t, p.name+path+" is new", func() bool { return p.get(path).body == want })
				}
				a := p.get(path)
				a.is(t, fmt.Sprintf("after %s, %s%s", test.body, p.name, path), want)
				if want == "0" && !a.hit() {
					t.Errorf("after %s, %s%s: %s", test.body, p.name, path, a.cacheStatus())
				}
			}
			if n := o.fetches(path) - before[path]; n != fetches {
				t.Errorf("after %s: %d fetches of %s, want %d", test.body, n, path, fetches)
			}
		}
	}
}

// A fill that began before a purge and ends after it is served to its own client,
// and stored nowhere.
func TestFillsThatPurgesOvertakeInACluster(t *testing.T) {
	var version atomic.Int64
	var gates sync.Map // by path: where the origin waits, and until when
	type hold struct {
		amid         bool // the body, rather than before the header
		begun, until gate
	}
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		body := strconv.FormatInt(version.Load(), 10)
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Surrogate-Key", "t"+strings.ReplaceAll(r.URL.Path, "/", "-"))
		if h, ok := gates.LoadAndDelete(r.URL.Path); ok {
			h := h.(hold)
			if h.amid {
				_, _ = io.WriteString(w, body[:1])
				w.(http.Flusher).Flush()
				body = body[1:]
			}
			h.begun.open()
			h.until.wait(r)
		}
		_, _ = io.WriteString(w, body)
	})
	c := startCluster(t, 3, o, patient)
	rounds := 120
	if raceEnabled() {
		rounds = 30
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range rounds {
		path := fmt.Sprintf("/fill/%d", i)
		version.Store(int64(100 + 2*i))
		h := hold{random.IntN(2) == 0, make(gate), make(gate)}
		gates.Store(path, h)
		leader, other := c[random.IntN(3)], c[random.IntN(3)]
		first := make(chan answer)
		go func() { first <- leader.get(path) }()
		<-h.begun
		version.Store(int64(101 + 2*i))
		body := fmt.Sprintf(`{"urls": ["http://%s%s"]}`, clientHost, path)
		if random.IntN(2) == 0 {
			body = fmt.Sprintf(`{"tags": ["t-fill-%d"]}`, i)
		}
		if code, result := other.purge(body); code != 200 {
			t.Fatalf("round %d: %+v", i, result)
		}
		if h.amid { // who comes after the purge does not get what is of before
			other.get(path).is(t, fmt.Sprint("round ", i, ", amid the fill"), strconv.Itoa(101+2*i))
		}
		h.until.open()
		(<-first).is(t, fmt.Sprint("round ", i, ", its own client"), strconv.Itoa(100+2*i))
		c.everywhere(t, fmt.Sprint("round ", i, ", afterwards"), strconv.Itoa(101+2*i), path)
	}
}
