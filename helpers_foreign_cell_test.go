//go:build unix

package caddygroupcache_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A cell of the matrix asks, and judges what comes back.
type cell struct {
	t *testing.T
	*scenario
	limit *limit
	state string
	nodes cluster
	up    *personal
	round int

	mu      sync.Mutex // guards below
	answers int
	foreign int      // answers with another user's response
	wrong   int      // answers that break a rule
	first   []string // what was wrong with the first of these
}

// An asking is one request of a user.
type asking struct {
	user   int // -1: none, the request has no cookie
	node   int // counted from the round's first
	method string
	fields []string
	leaves bool // as soon as the upstream has been asked
}

// everybody asks at the same time, each at another node.
func (c *cell) everybody(change ...func(*asking)) []asking {
	all := make([]asking, users)
	for i := range all {
		all[i] = asking{user: i + 1, node: i, method: http.MethodGet}
		for _, f := range change {
			f(&all[i])
		}
	}
	return all
}

func atNode(node int) func(*asking) { return func(q *asking) { q.node = node } }

func with(fields ...string) func(*asking) { return func(q *asking) { q.fields = fields } }

// path is what is asked for in a round.
func (c *cell) path() string {
	return fmt.Sprintf("/%s/%s/%s/%s/%d", c.site, c.limit.slug(), strings.Map(dashed, c.name), c.state, c.round)
}

func dashed(r rune) rune {
	if r == ' ' || r == '\'' {
		return '-'
	}
	return r
}

func (c *cell) target() string {
	target := c.path() + "?size=" + strconv.Itoa(c.size)
	if c.halves {
		target += "&halves"
	}
	return target
}

// rounds is how many there are, each with another key and another first node.
func (c *cell) rounds() int {
	if raceEnabled() {
		return 1
	}
	return (len(c.nodes) + 1) / 2
}

// warm sends the first user's request of each round. A response with a lifetime has
// a second of it left then.
func (c *cell) warm() {
	for c.round = range c.rounds() {
		c.ask([]asking{{user: 0, fields: c.almostExpired()}})
	}
}

// fill has all rounds.
func (c *cell) fill() {
	for c.round = range c.rounds() {
		c.run(c)
	}
}

// lastSecond is how long a response to almostExpired is fresh.
const lastSecond = time.Second

// almostExpired are the request fields by which a response comes that is almost stale.
func (c *cell) almostExpired() []string {
	if c.limit.lifetime == 0 || slices.Contains(c.limit.fields, "Age") {
		return nil
	}
	return []string{ageField, strconv.Itoa(int((c.limit.lifetime - lastSecond) / time.Second))}
}

// awaitExpiry waits until what was almost stale when it was asked for is stale.
func awaitExpiry(t *testing.T, asked time.Time) {
	t.Helper()
	eventually(t, "what was stored is stale", func() bool { return time.Since(asked) > lastSecond })
}

// ask sends all requests at the same time.
func (c *cell) ask(all []asking) {
	together(len(all), len(all), func(i int) answer { return c.one(all[i], nil) })
}

// follow sends the second requests when the first has arrived at the upstream, or has
// been answered without it, and the last ones when the first has been answered.
func (c *cell) follow(first asking, second, last []asking) {
	arrived, answered := c.up.arrival(c.path()), make(chan struct{})
	go func() {
		defer close(answered)
		c.one(first, arrived)
	}()
	select {
	case <-arrived:
	case <-answered:
	}
	var all sync.WaitGroup
	all.Go(func() { c.ask(second) })
	<-answered
	c.ask(last)
	all.Wait()
}

// awaitUpstream waits until the upstream has nothing more to do for this cell.
func (c *cell) awaitUpstream() {
	for deadline := time.Now().Add(hang); !c.up.idle(c.path()); time.Sleep(poll) {
		if time.Now().After(deadline) {
			c.report("the upstream is still asked")
			return
		}
	}
}

func (c *cell) purgeSoftly() {
	p := c.nodes[c.round%len(c.nodes)]
	if code, result := p.purge(fmt.Sprintf(`{"group": %q, "urls": ["http://%s%s"], "soft": true}`, c.site, clientHost, c.target())); code != http.StatusOK {
		c.report(fmt.Sprintf("purge: %d %v", code, result))
	}
}

// one sends a request and judges the answer. Its client may leave when the request has
// arrived at the upstream.
func (c *cell) one(q asking, arrived <-chan struct{}) answer {
	p := c.nodes[(c.round+q.node)%len(c.nodes)]
	fields := slices.Concat(c.limit.identity(q.user), q.fields)
	r := p.request(q.method, c.target(), nil, fields...)
	if q.leaves {
		ctx, leave := context.WithCancel(r.Context())
		defer leave()
		r = r.WithContext(ctx)
		go func() {
			select {
			case <-arrived:
			case <-ctx.Done():
			}
			leave()
		}()
	}
	asked := time.Now()
	a := do(r)
	if q.leaves && a.err != nil {
		return a
	}
	what, foreign := c.judge(q, asked, a)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers++
	if foreign {
		c.foreign++
	}
	if what != "" {
		c.reportLocked(fmt.Sprintf("round %d, %s: %s (%d, %s)", c.round, userName(q.user), what, a.status, a.cacheStatus()))
	}
	return a
}

func (c *cell) report(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reportLocked(what)
}

func (c *cell) reportLocked(what string) {
	c.wrong++
	if len(c.first) < 2 {
		c.first = append(c.first, what)
	}
}

// judge tells what is wrong with an answer, and whether it is another user's response.
func (c *cell) judge(q asking, asked time.Time, a answer) (wrong string, foreign bool) {
	asker, giver := userName(q.user), a.header.Get(userField)
	if q.user < 0 {
		asker = anybody
	}
	switch {
	case a.err != nil && !(c.breaks && c.limit.lifetime > 0 && a.status == http.StatusPartialContent):
		return a.err.Error(), false
	case a.status >= 502 && giver == "" && q.mayFail():
		return "", false
	case a.status == http.StatusNotModified:
		if tag := a.header.Get("Etag"); tag == "" || tag != c.limit.tagOf(asker) {
			return "304 for " + tag, false
		}
		return "", false
	case a.status != http.StatusOK && a.status != http.StatusPartialContent:
		return "no such answer was to come", false
	}
	foreign = giver != asker
	switch tag, cookie := a.header.Get("Etag"), a.header.Get("Set-Cookie"); {
	case tag != c.limit.tagOf(giver):
		return fmt.Sprintf("%s's page, but the tag is %s", giver, tag), foreign
	case cookie != "" && cookie != "user="+asker:
		return "Set-Cookie: " + cookie, foreign
	case foreign && !c.allows(asker, giver, asked, a.header, q):
		return giver + "'s page", foreign
	}
	return c.incomplete(q, giver, a), foreign
}

// incomplete tells what is wrong with the bytes of a user's page.
func (c *cell) incomplete(q asking, giver string, a answer) string {
	page := pageOf(giver, c.path(), c.size)
	if a.status == http.StatusPartialContent {
		var start, end, size int
		if _, err := fmt.Sscanf(a.header.Get("Content-Range"), "bytes %d-%d/%d", &start, &end, &size); err != nil || size != c.size || start > end || end >= size {
			return "Content-Range: " + a.header.Get("Content-Range")
		}
		page = page[start : end+1]
	}
	if q.method == http.MethodHead {
		page = ""
	}
	if a.err != nil && strings.HasPrefix(page, a.body) {
		return ""
	}
	if a.body != page {
		return fmt.Sprintf("not %s's page, but %s, or of another length than %d", giver, brief(a.body), len(page))
	}
	return ""
}

// mayFail reports whether an error of the upstream, or of the cache, is an answer.
func (q asking) mayFail() bool {
	return slices.Contains(q.fields, outageField) || slices.Contains(q.fields, goneField) ||
		slices.ContainsFunc(q.fields, func(s string) bool { return strings.Contains(s, "only-if-cached") })
}

// allows reports whether one user's response may be given to another who asked then.
func (c *cell) allows(asker, giver string, asked time.Time, h http.Header, q asking) bool {
	l := c.limit
	if l.lifetime == 0 || l.known && !l.public && (hasCredentials(asker) || hasCredentials(giver)) {
		return false
	}
	made, err := strconv.ParseInt(h.Get(madeField), 10, 64)
	if err != nil {
		return false
	}
	stated, _ := strconv.Atoi(h.Get(ageField))
	age := time.Duration(stated)*time.Second + max(asked.Sub(time.Unix(0, made)), 0)
	if age < l.lifetime {
		return true
	}
	return !l.strict && age < l.lifetime+max(l.stale, c.tolerance(q))
}

// hasCredentials reports whether a user of a limit that is about them sends some.
func hasCredentials(user string) bool {
	i, err := strconv.Atoi(strings.TrimPrefix(user, "u"))
	return err == nil && i%2 == 1
}

// tolerance is by how much a lifetime that has run out is stretched.
func (c *cell) tolerance(q asking) time.Duration {
	outage := slices.Contains(q.fields, outageField) || slices.Contains(q.fields, goneField)
	refreshes := c.site == "refresh" || c.site == "both"
	if refreshes || outage && c.site == "error" || c.tolerates && !c.limit.operators {
		return time.Hour
	}
	return 0
}

// mustShare reports whether this cell is one of those that show that the matrix would
// find a foreign answer.
func (c *cell) mustShare() bool {
	l := c.limit
	if l.lifetime < time.Minute || l.known || (l.strict || l.operators) && c.state == "stale" || c.state != c.shares {
		return false
	}
	kept := l.tag != "" || !l.modified.IsZero() || c.state == "cold" // or it is not stored when it is stale
	return kept && (c.state == "stale" || !slices.Contains(l.fields, "Age"))
}

const (
	strongTag, weakTag = `"%s"`, `W/"%s"`
	cc                 = "Cache-Control"
)

// limits are the rows.
var limits = []*limit{
	{name: "strong ETag only", tag: strongTag},
	{name: "weak ETag only", tag: weakTag},
	{name: "no-cache, ETag", fields: []string{cc, "no-cache"}, tag: weakTag},
	{name: "public, no-cache, ETag", fields: []string{cc, "public, no-cache"}, tag: strongTag},
	{name: "max-age=60, no-cache, ETag", fields: []string{cc, "max-age=60, no-cache"}, tag: strongTag},
	{name: "max-age=0, must-revalidate, ETag", fields: []string{cc, "max-age=0, must-revalidate"}, tag: weakTag},
	{name: "max-age=0, ETag", fields: []string{cc, "max-age=0"}, tag: strongTag},
	{name: "public, max-age=0, ETag", fields: []string{cc, "public, max-age=0"}, tag: strongTag},
	{name: "s-maxage=0, ETag", fields: []string{cc, "s-maxage=0"}, tag: strongTag},
	{name: "s-maxage=0, max-age=60", fields: []string{cc, "s-maxage=0, max-age=60"}},
	{name: "CDN-Cache-Control: no-cache beside max-age=60, ETag", fields: []string{cc, "max-age=60", "CDN-Cache-Control", "no-cache"}, tag: strongTag},
	{name: "Expires in the past, ETag", fields: []string{"Expires", "Thu, 01 Jan 1970 00:00:00 GMT"}, tag: strongTag},
	{name: "Last-Modified = Date", modified: aFewSecondsAgo, dated: true},
	{name: "no-cache=set-cookie, ETag", fields: []string{cc, `no-cache="set-cookie"`}, tag: strongTag, cookie: true},
	{name: "nothing"},
	{name: "private, max-age=60", fields: []string{cc, "private, max-age=60"}, tag: strongTag},
	{name: "no-store", fields: []string{cc, "no-store"}, tag: strongTag},
	{name: "Vary: Cookie, max-age=60", fields: []string{"Vary", "Cookie", cc, "max-age=60"}, tag: strongTag},
	{name: "Vary: *, max-age=60", fields: []string{"Vary", "*", cc, "max-age=60"}, tag: strongTag},
	{name: "Set-Cookie, max-age=60", fields: []string{cc, "max-age=60"}, tag: strongTag, cookie: true},

	// No longer fresh when it arrives: a lifetime that has run out.
	{name: "max-age=60, Age: 60, ETag", fields: []string{cc, "max-age=60", "Age", "60"}, tag: strongTag, lifetime: time.Minute},
	{name: "max-age=60, must-revalidate, Age: 60, ETag", fields: []string{cc, "max-age=60, must-revalidate", "Age", "60"}, tag: weakTag, lifetime: time.Minute, strict: true, public: true},

	// What may be shared, and by whom.
	{name: "Authorization, max-age=60", fields: []string{cc, "max-age=60"}, tag: strongTag, known: true, lifetime: time.Minute},
	{name: "Authorization, public, max-age=60", fields: []string{cc, "public, max-age=60"}, tag: strongTag, known: true, lifetime: time.Minute, public: true},
	{name: "max-age=60", fields: []string{cc, "max-age=60"}, lifetime: time.Minute},
	{name: "max-age=60, ETag", fields: []string{cc, "max-age=60"}, tag: strongTag, lifetime: time.Minute},
	{name: "max-age=60, no-cache=set-cookie, ETag", fields: []string{cc, `max-age=60, no-cache="set-cookie"`}, tag: strongTag, cookie: true, lifetime: time.Minute},
	{name: "s-maxage=60, ETag", fields: []string{cc, "s-maxage=60"}, tag: weakTag, lifetime: time.Minute, operators: true, public: true},
	{name: "public, max-age=1, ETag", fields: []string{cc, "public, max-age=1"}, tag: strongTag, lifetime: time.Second, public: true},
	{name: "max-age=1, stale-while-revalidate=60, ETag", fields: []string{cc, "max-age=1, stale-while-revalidate=60"}, tag: strongTag, lifetime: time.Second, stale: time.Minute},
	{name: "Expires in a minute, ETag", expires: time.Minute, tag: strongTag, lifetime: time.Minute},
	{name: "Last-Modified long ago", modified: longAgo}, // the users have cookies
	{name: "public, Last-Modified long ago", fields: []string{cc, "public"}, modified: longAgo, lifetime: 24 * time.Hour, public: true},
}

// matrixSites are the handlers that the scenarios use, with the options of each.
var matrixSites = map[string]string{
	"plain":   "",
	"error":   "stale if_error 1h",
	"refresh": "stale while_revalidate 1h",
	"both":    "stale if_error 1h\nstale while_revalidate 1h",
}

// users is how many of them there are beside user 0, who has been there before if
// the cache is stale.
const users = 8

// A scenario is one way on which clients get responses.
type scenario struct {
	name      string
	site      string
	size      int    // of the page
	halves    bool   // the page comes in two halves, without its length
	staleOnly bool   // it needs a stored response
	breaks    bool   // a part may break off, since each user's page has another tag
	tolerates bool   // a lifetime that has run out is stretched by an hour
	shares    string // the state in which responses that may be shared must be: a control
	run       func(c *cell)
}

// fill fills one column of the matrix.
func (s *scenario) fill(t *testing.T, nodes cluster, up *personal, limits []*limit) {
	var cold, stale []*cell
	for _, l := range limits {
		if !s.staleOnly {
			cold = append(cold, &cell{t: t, scenario: s, limit: l, state: "cold", nodes: nodes, up: up})
		}
		stale = append(stale, &cell{t: t, scenario: s, limit: l, state: "stale", nodes: nodes, up: up})
	}
	atATime := len(limits)
	if s.size > 1<<20 {
		atATime /= 2
	}
	each(len(stale), atATime, func(i int) { stale[i].warm() })
	warmed := time.Now()
	each(len(cold), atATime, func(i int) { cold[i].fill() })
	awaitExpiry(t, warmed)
	each(len(stale), atATime, func(i int) { stale[i].fill() })
	for _, c := range append(cold, stale...) {
		if c.wrong > 0 {
			t.Errorf("%s, %s: %d of %d answers are wrong: %s", c.limit.name, c.state, c.wrong, c.answers, strings.Join(c.first, "; "))
		}
		if c.mustShare() && c.foreign == 0 {
			t.Errorf("%s, %s: none of %d answers is shared", c.limit.name, c.state, c.answers)
		}
	}
}

// almostExpired is a page that is fresh for one more second.
var almostExpired = saying(http.StatusOK, "page", cc, "max-age=60", "Age", "59", "Etag", `"1"`)

// standsIn reports whether a stale page stands in for a status (RFC 5861 §4).
func standsIn(status int) bool {
	return status == 500 || 502 <= status && status <= 504
}

var aFewSecondsAgo = time.Now().Truncate(time.Second)

// longAgo makes a heuristic lifetime of a day, the longest.
var longAgo = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
