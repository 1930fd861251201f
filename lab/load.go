//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// The load: so many requests a second, whatever becomes of those before them,
// each for some page through some node.
const (
	perSecond   = 250
	stablePages = 400
	newsPages   = 20
	shortPages  = 20
	tooLong     = time.Second
)

// A load asks until it is stopped, and keeps count.
type load struct {
	t    *trial
	stop chan struct{}
	all  sync.WaitGroup
	next atomic.Int64 // name of the next cold page

	rests atomic.Bool // nobody asks for anything

	mu      sync.Mutex // guards below
	counted int
	slow    failures
	worst   time.Duration
	errors  failures
	wrong   failures
	old     failures  // where the purge was acknowledged, or all nodes have had time to learn of it
	spared  int       // how often the origin\'s error came through for what is stored
	late    time.Time // when a node that had missed a purge last showed it
	seconds map[int64]*hitCount
	missed  map[string]int  // stable pages that were no hits, by why
	took    []time.Duration // of all requests that count, in the order of their ends
}

type hitCount struct{ hits, asked int }

// failures are how many there were, and what the first ones were.
type failures struct {
	n     int
	first []string
}

func (f *failures) add(format string, args ...any) {
	if f.n++; len(f.first) < 3 {
		f.first = append(f.first, fmt.Sprintf(format, args...))
	}
}

func newLoad(t *trial) *load {
	return &load{t: t, stop: make(chan struct{}), seconds: make(map[int64]*hitCount), missed: make(map[string]int)}
}

func (t *trial) startLoad() *load {
	l := newLoad(t)
	l.all.Go(func() {
		ticks := time.NewTicker(time.Second / perSecond)
		defer ticks.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-ticks.C:
				if !l.rests.Load() {
					l.all.Go(func() { l.request(t.anyNode(), l.page()) })
				}
			}
		}
	})
	return l
}

// end stops the load, and waits for the last answers.
func (l *load) end() {
	close(l.stop)
	l.all.Wait()
}

func (l *load) page() string {
	switch n := rand.IntN(100); {
	case n < 80:
		return fmt.Sprintf("/%s/%d", stable, rand.IntN(stablePages))
	case n < 90:
		return fmt.Sprintf("/%s/%d", news, rand.IntN(newsPages))
	case n < 97:
		return fmt.Sprintf("/%s/%d", short, rand.IntN(shortPages))
	default:
		return fmt.Sprintf("/%s/%d", cold, l.next.Add(1))
	}
}

// request asks a node for a page, judges the answer and returns it.
func (l *load) request(n *node, path string) (a answer) {
	epoch, absent := n.epoch.Load(), n.absent.Load()
	promised, anywhere, before := n.promised.Load(), l.t.promised.Load(), l.t.origin.troubled()
	start := time.Now()
	a = get(n, path)
	if harness.ClosedUnanswered(a.err) && time.Since(time.Unix(0, n.reloaded.Load())) < 3*time.Second {
		// Caddy closes what is idle when it is reloaded. Browsers ask again;
		// net/http doesn't over a connection that it has not used before.
		a = get(n, path)
	}
	took := time.Since(start)
	if absent || n.epoch.Load() != epoch {
		return a
	}
	kind := kindOf(path)
	paced := kind == slow || kind == unique // by the origin
	// Without a cache, who asks an origin that isn't well gets what comes from
	// there. What was stored may not suffer.
	origins := (kind == cold || kind == news || paced) && (before || l.t.origin.troubled())

	l.mu.Lock()
	defer l.mu.Unlock()
	l.counted++
	if took > tooLong && !origins && !paced {
		l.slow.add("%s from %s took %v (%s)", path, n.Name, took.Round(time.Millisecond), a.cacheStatus)
	}
	if kind == stable {
		second := l.seconds[start.Unix()]
		if second == nil {
			second = new(hitCount)
			l.seconds[start.Unix()] = second
		}
		second.asked++
		if a.hit {
			second.hits++
		} else {
			l.missed[a.why()]++
		}
	}
	if !origins && !paced {
		l.worst, l.took = max(l.worst, took), append(l.took, took)
	}
	switch {
	case a.broken && !origins:
		l.spared++ // as without a cache; but it was stored
		return a
	case a.err != nil || a.status != http.StatusOK:
		if !origins {
			l.errors.add("%s from %s after %v: %d, %v (%s)", path, n.Name, took.Round(time.Millisecond), a.status, a.err, a.cacheStatus)
		}
		return a
	case a.wrong != nil:
		l.wrong.add("%s from %s: %v (%s)", path, n.Name, a.wrong, a.cacheStatus)
		return a
	case kind != news:
		return a
	}
	if a.version < promised {
		l.old.add("%s from %s is of version %d, and what is older than %d was purged (%s)", path, n.Name, a.version, promised, a.cacheStatus)
	}
	if a.version < anywhere {
		l.late = time.Now()
	}
	return a
}

// An answer is what a client got.
type answer struct {
	err         error
	status      int
	wrong       error // what is wrong with the body of a 200
	version     int64
	hit         bool
	broken      bool // by the origin
	cacheStatus string
}

// asking is a request for a page.
func (n *node) asking(path string) (*http.Request, error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+n.HTTP+path, nil)
	if err == nil {
		r.Host = "lab.test" // all nodes make the same key of it
	}
	return r, err
}

func get(n *node, path string) (a answer) {
	r, err := n.asking(path)
	if err != nil {
		return answer{err: err}
	}
	resp, err := n.clients.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	a = answer{err: err, status: resp.StatusCode, cacheStatus: resp.Header.Get("Cache-Status")}
	a.broken = resp.Header.Get(brokenField) != ""
	a.hit = strings.HasPrefix(a.cacheStatus, "groupcache; hit") || strings.HasSuffix(a.cacheStatus, "; collapsed")
	if err == nil && a.status == http.StatusOK {
		a.version, a.wrong = read(path, body)
	}
	return a
}

// why says why an answer is no hit.
func (a *answer) why() string {
	if _, detail, ok := strings.Cut(a.cacheStatus, "detail="); ok {
		return detail
	}
	return cmp.Or(strings.TrimSuffix(a.cacheStatus, "; fwd-status=200; stored"), "no answer")
}

// misses tells why stable pages were no hits.
func (l *load) misses() string {
	var all []string
	for _, why := range slices.SortedFunc(maps.Keys(l.missed), func(a, b string) int { return l.missed[b] - l.missed[a] }) {
		all = append(all, fmt.Sprintf("%d %s", l.missed[why], why))
	}
	return strings.Join(all, ", ")
}

// ratio is the part of the requests for stable pages since a time that were hits.
func (l *load) ratio(since time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all hitCount
	for second, c := range l.seconds {
		if second >= since.Unix() {
			all.hits, all.asked = all.hits+c.hits, all.asked+c.asked
		}
	}
	if all.asked == 0 {
		return 0
	}
	return float64(all.hits) / float64(all.asked)
}
