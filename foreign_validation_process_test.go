//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// What a validation, or its failure, may give to whom. The matrix of foreign answers
// has all of this among the rest; here it is by itself.

func limitNamed(t *testing.T, name string) *limit {
	t.Helper()
	i := slices.IndexFunc(limits, func(l *limit) bool { return l.name == name })
	if i < 0 {
		t.Fatalf("no limit is named %s", name)
	}
	return limits[i]
}

var cells atomic.Int64

// newCell returns a cell of a site's pages under a key of its own, for a test that does
// the asking itself.
func newCell(t *testing.T, site string, l *limit, c cluster, up *personal) *cell {
	t.Helper()
	return &cell{t: t, scenario: &scenario{name: fmt.Sprint("cell-", cells.Add(1)), site: site, size: 3000}, limit: l, state: "stale", nodes: c, up: up}
}

// check fails the test if an answer was wrong.
func (c *cell) check(t *testing.T) {
	t.Helper()
	if c.wrong > 0 {
		t.Errorf("%s: %d of %d answers are wrong: %s", c.limit.name, c.wrong, c.answers, strings.Join(c.first, "; "))
	}
}

// offOwner makes the round one whose first node does not own the key, if there is
// more than one.
func (c *cell) offOwner() {
	owner := c.nodes[0].explain(c.target()).Groups[0].Owner
	for len(c.nodes) > 1 && c.nodes[c.round%len(c.nodes)].name == owner {
		c.round++ // another key, too
		owner = c.nodes[0].explain(c.target()).Groups[0].Owner
	}
}

// eachSize runs a test against one node and against three.
func eachSize(t *testing.T, site string, f func(t *testing.T, c cluster, up *personal)) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes: %d", nodes), func(t *testing.T) {
			up := startPersonal(t, limits)
			f(t, startSites(t, nodes, up.origin, handles(map[string]string{site: matrixSites[site]})), up)
		})
	}
}

// TestWhatWasNeverFreshIsNeverStale: what never was fresh can't be stale, and does not
// stand in for an error (RFC 5861 §4), whoever asks for that.
func TestWhatWasNeverFreshIsNeverStale(t *testing.T) {
	names := map[string]bool{ // whether it stands in
		"strong ETag only":               false,
		"weak ETag only":                 false,
		"no-cache, ETag":                 false,
		"max-age=0, ETag":                false,
		"Expires in the past, ETag":      false,
		"Last-Modified = Date":           false,
		"max-age=60, ETag":               true,
		"Last-Modified long ago":         false,
		"public, Last-Modified long ago": true,
	}
	errors := [][]string{
		{outageField, "503"}, {goneField, "gone"},
		{outageField, "503", cc, "stale-if-error=3600"}, {goneField, "gone", cc, "max-stale"},
	}
	eachSize(t, "error", func(t *testing.T, nodes cluster, up *personal) {
		all := slices.Sorted(maps.Keys(names))
		each(len(all)*len(errors), len(all)*len(errors), func(i int) {
			name, fields := all[i/len(errors)], errors[i%len(errors)]
			c := newCell(t, "error", limitNamed(t, name), nodes, up)
			c.warm()
			awaitExpiry(t, time.Now())
			c.round = 0
			stood, asked := 0, 0
			for node := range nodes {
				for user := range 2 {
					if a := c.one(asking{user: user, node: node, fields: fields}, nil); a.status == http.StatusOK {
						stood++
					}
					asked++
				}
			}
			if names[name] && stood < asked || !names[name] && stood > 0 {
				t.Errorf("%s, %q: %d of %d answers were what was stored", name, fields, stood, asked)
			}
			c.check(t)
		})
	})
}

// TestNotModifiedAnswersOneUser: a 304 says that one user's page is still the same.
// Others get that page only if it can be shared by its own words.
func TestNotModifiedAnswersOneUser(t *testing.T) {
	names := map[string]bool{ // whether it can be shared
		"weak ETag only":                   false,
		"no-cache, ETag":                   false,
		"max-age=0, must-revalidate, ETag": false,
		"Last-Modified = Date":             false,
		"max-age=60, ETag":                 true,
	}
	eachSize(t, "plain", func(t *testing.T, nodes cluster, up *personal) {
		all := slices.Sorted(maps.Keys(names))
		each(len(all), len(all), func(i int) {
			c := newCell(t, "plain", limitNamed(t, all[i]), nodes, up)
			c.offOwner()
			c.ask([]asking{{user: 0, fields: c.almostExpired()}})
			awaitExpiry(t, time.Now())
			before := up.fetches(c.path())
			c.follow(asking{user: 0}, c.everybody(atNode(0))[:7], nil)
			c.check(t)
			// One request, or a few more if a busy node is taken for a silent one.
			if asked := up.fetches(c.path()) - before; names[all[i]] && asked > 4 {
				t.Errorf("%s: the upstream was asked %d times for what one validation tells", all[i], asked)
			}
		})
	})
}

// TestSameValidationForMany: what has to be validated each time takes fewer requests
// to the upstream than there are clients, if they are all alike, and costs nobody
// somebody else's page if they are not.
func TestSameValidationForMany(t *testing.T) {
	const clients = 16
	eachSize(t, "plain", func(t *testing.T, nodes cluster, up *personal) {
		for _, name := range []string{"strong ETag only", "weak ETag only", "no-cache, ETag", "max-age=0, must-revalidate, ETag"} {
			c := newCell(t, "plain", limitNamed(t, name), nodes, up)
			same, different := make([]asking, clients), make([]asking, clients)
			for i := range clients {
				same[i], different[i] = asking{user: -1, node: i}, asking{user: i, node: i}
			}
			c.ask(same[:1])
			before, start := up.fetches(c.path()), time.Now()
			c.ask(same)
			took, asked := time.Since(start), up.fetches(c.path())-before
			t.Logf("%s: %d clients at a time took %v, %.2f times as long as the upstream, and %d requests to that",
				name, clients, took.Round(time.Millisecond), took.Seconds()/latency.Seconds(), asked)
			if asked >= clients {
				t.Errorf("%s: %d requests to the upstream for %d clients that are alike", name, asked, clients)
			}
			c.ask(different)
			c.check(t)
		}
	})
}
