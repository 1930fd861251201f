//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"testing"
)

// The matrix of foreign answers: how a response limits its own reuse (limits), times
// the way on which a client gets a response that was not fetched for it (scenarios),
// times one node and three, times a cold and a stale cache, with different users at
// the same time. An answer that is neither the asker's own nor explicitly shareable
// fails.
//
// What decides (RFC 9111 §4): another request's response may answer a request only if
// it could be reused for that without validation, on whatever way it comes.
//
//	the response has                        another user may get it
//	no-store, private, Set-Cookie,          never
//	  Vary: * or a field of the user
//	no freshness, or none left (ETag or     never: it could be validated only, and a 304 says
//	  Last-Modified only, max-age=0,        nothing but that one user's page is still the same
//	  s-maxage=0, Expires in the past)
//	no-cache, public or not                 never, for the same reason
//	no-cache="set-cookie"                   as the rest of it says, without the field
//	a lifetime, explicit or heuristic       while it is fresh
//	  and stale-while-revalidate            and so long after that
//	  and a request with Authorization      only with public, s-maxage or must-revalidate (§3.5)
//
// A lifetime that has run out may be stretched by who is allowed to: the operator
// (stale while_revalidate, and in an outage stale if_error), and the client (max-stale,
// and in an outage stale-if-error), unless the response forbids it (must-revalidate);
// beside s-maxage only by the operator. A lifetime that never was can't be: that is nobody's permission. A soft
// purge only makes something stale.

// scenarios are the columns. Users 1 to 8 ask, each at another node.
var scenarios = []scenario{
	{name: "memory", site: "plain", size: 3000, shares: "cold", run: func(c *cell) {
		for range 3 {
			c.ask(c.everybody())
		}
	}},
	{name: "collapsed on one node", site: "plain", size: 3000, shares: "cold", run: func(c *cell) {
		for range 2 {
			c.ask(c.everybody(atNode(0)))
		}
	}},
	{name: "read along from another node", site: "plain", size: 3000, halves: true, shares: "cold", run: func(c *cell) {
		all := c.everybody()
		c.follow(all[0], all[1:5], all[5:])
	}},
	{name: "landed flight", site: "plain", size: 100 << 10, shares: "cold", run: func(c *cell) {
		all := c.everybody()
		c.ask(all[:1])
		c.ask(c.everybody(atNode(1))[1:])
		c.ask(c.everybody(atNode(2))[1:])
	}},
	{name: "validated by another", site: "plain", size: 3000, staleOnly: true, run: func(c *cell) {
		for node := range 2 { // the first user's response is the one that a 304 confirms
			all := c.everybody(atNode(node))
			c.follow(asking{user: 0, node: node}, all[:6], c.everybody()[6:])
		}
	}},
	{name: "outage", site: "error", size: 3000, shares: "stale", run: func(c *cell) {
		c.ask(c.everybody(with(outageField, "503")))
		c.ask(c.everybody(with(outageField, "503")))
	}},
	{name: "refused", site: "error", size: 3000, shares: "stale", run: func(c *cell) {
		c.ask(c.everybody(with(goneField, "gone")))
		c.ask(c.everybody(with(goneField, "gone")))
	}},
	{name: "outage for every second", site: "both", size: 100 << 10, halves: true, run: func(c *cell) {
		all := c.everybody()
		for i := range all {
			if i%2 == 0 {
				all[i].fields = []string{outageField, "503"}
			}
		}
		c.ask(all)
		c.awaitUpstream()
		c.ask(all)
	}},
	{name: "background refresh", site: "refresh", size: 3000, shares: "stale", run: func(c *cell) {
		for range 2 {
			c.ask(c.everybody())
			c.awaitUpstream()
		}
	}},
	{name: "stored parts", site: "plain", size: 1<<20 + 300_000, breaks: true, run: func(c *cell) {
		all := c.everybody()[:4]
		for i, part := range []string{"1048576-1050000", "1100000-", "500-999", "1048000-1049000"} {
			all[i].fields = []string{"Range", "bytes=" + part}
		}
		c.ask(all)
		c.ask(all)
	}},
	{name: "directives of the client", site: "plain", size: 3000, tolerates: true, run: func(c *cell) {
		c.ask(c.directing())
		c.ask(c.directing(outageField, "503"))
	}},
	{name: "HEAD beside GET", site: "plain", size: 3000, run: func(c *cell) {
		all := c.everybody()
		for i := range all {
			if i%2 == 0 {
				all[i].method = http.MethodHead
			}
		}
		c.ask(all)
		c.follow(all[0], all[1:5], all[5:])
	}},
	{name: "conditions of the client", site: "plain", size: 3000, run: func(c *cell) {
		all := c.everybody()
		for i := range all {
			if tag := c.limit.tagOf(userName(all[i].user)); tag != "" {
				all[i].fields = []string{"If-None-Match", tag}
			}
		}
		c.ask(all)
		c.follow(all[0], all[1:5], all[5:])
	}},
	{name: "soft purge", site: "both", size: 3000, run: func(c *cell) {
		c.ask(c.everybody())
		c.purgeSoftly()
		c.ask(c.everybody(with(outageField, "503")))
		c.ask(c.everybody())
		c.purgeSoftly()
		c.ask(c.everybody())
	}},
	{name: "leader's client leaves", site: "plain", size: 100 << 10, halves: true, shares: "cold", run: func(c *cell) {
		all := c.everybody()
		all[0].leaves = true
		c.follow(all[0], all[1:5], all[5:])
	}},
}

// directing are users each of whom asks for less freshness in other words.
func (c *cell) directing(more ...string) []asking {
	all := c.everybody()
	for i, directives := range []string{
		"max-stale", "max-stale=3600", "max-stale=3600, max-age=60", "stale-if-error=3600",
		"max-stale, stale-if-error=3600", "only-if-cached, max-stale", "max-age=0", "no-cache",
	} {
		all[i].fields = append([]string{cc, directives}, more...)
	}
	return all
}

// TestForeignAnswers: 0 of them.
func TestForeignAnswers(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes: %d", nodes), func(t *testing.T) {
			t.Parallel()
			up := startPersonal(t, limits)
			c := startSites(t, nodes, up.origin, handles(matrixSites))
			for i := range scenarios {
				t.Run(scenarios[i].name, func(t *testing.T) { scenarios[i].fill(t, c, up, sample(i)) })
			}
		})
	}
}

// sample returns the limits that a scenario is tried with: all, or under the race
// detector, which is slow, every third, and others in the next scenario.
func sample(scenario int) (some []*limit) {
	if !raceEnabled() {
		return limits
	}
	for i := scenario % 3; i < len(limits); i += 3 {
		some = append(some, limits[i])
	}
	return some
}
