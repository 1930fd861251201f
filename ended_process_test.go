//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The upstream has the last word: an answer that says what a URL is now ends what is
// stored of it, also where that answer can't be stored itself.

// A mutable upstream answers each path with what was set last.
type mutable struct {
	*origin
	answers sync.Map // of http.HandlerFunc, by path
}

func startMutable(t *testing.T) *mutable {
	m := new(mutable)
	m.origin = startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		answer, _ := m.answers.Load(r.URL.Path)
		answer.(http.HandlerFunc)(w, r)
	})
	return m
}

func (m *mutable) set(path string, answer http.HandlerFunc) { m.answers.Store(path, answer) }

// expire has all nodes store pages of some paths, and waits until they are stale.
func (m *mutable) expire(t *testing.T, c cluster, paths ...string) {
	t.Helper()
	for _, path := range paths {
		m.set(path, almostExpired)
	}
	each(len(paths), 8, func(i int) { c.everywhere(t, "at first", "page", paths[i]) })
	awaitExpiry(t, time.Now())
}

// definite are answers that say what a URL is now, and can't be stored.
var definite = map[string]http.HandlerFunc{
	"404":      saying(http.StatusNotFound, "there is no such page"),
	"410":      saying(http.StatusGone, "there is no such page any more"),
	"301":      saying(http.StatusMovedPermanently, "", "Location", "/elsewhere"),
	"302":      saying(http.StatusFound, "", "Location", "/elsewhere"),
	"no-store": saying(http.StatusOK, "another page", cc, "no-store"),
}

// sees tells what a node answers: a status, or what is in the body of a 200.
func (p *process) sees(path string) string {
	a := p.get(path)
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.status != http.StatusOK:
		return strconv.Itoa(a.status)
	}
	return a.body
}

// An ending is one URL whose page is stored on all nodes when the upstream changes
// its mind. The first to hear of it is one of the nodes.
type ending struct {
	site, answer string
	first        int
}

func (e ending) path() string { return fmt.Sprintf("/%s/%s/%d", e.site, e.answer, e.first) }

// want is what clients see from now on.
func (e ending) want() string {
	if e.answer == "no-store" {
		return "another page"
	}
	return e.answer
}

// run begins when the page is stale. It returns what was wrong, or "".
func (e ending) run(c cluster, up *mutable) string {
	path := e.path()
	up.set(path, definite[e.answer])
	saw := c[e.first].sees(path)
	if e.site != "error" { // the first to ask may get what is stale
		for deadline := time.Now().Add(5 * time.Second); saw == "page" && time.Now().Before(deadline); time.Sleep(poll) {
			saw = c[e.first].sees(path)
		}
	}
	if saw != e.want() {
		return fmt.Sprintf("%s after %d answers of the upstream", saw, up.fetches(path))
	}
	for range 2 {
		for _, p := range c {
			if saw := p.sees(path); saw != e.want() {
				return fmt.Sprintf("%s at %s, after a client has seen %s at %s", saw, p.name, e.want(), c[e.first].name)
			}
		}
	}
	up.set(path, saying(http.StatusServiceUnavailable, ""))
	for _, p := range c {
		if saw := p.sees(path); saw != "503" {
			return fmt.Sprintf("%s at %s in an outage later", saw, p.name)
		}
	}
	return ""
}

// TestUpstreamHasTheLastWord: a page with stale-while-revalidate, or with
// stale-if-error, is gone on all nodes as soon as a client has seen a definite answer
// to its URL, and does not come back in an outage.
func TestUpstreamHasTheLastWord(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes: %d", nodes), func(t *testing.T) {
			up := startMutable(t)
			c := startSites(t, nodes, up.origin, handles(matrixSites))
			var all []ending
			var paths []string
			for _, site := range []string{"error", "refresh", "both"} {
				for answer := range definite {
					for first := range c {
						all = append(all, ending{site, answer, first})
						paths = append(paths, all[len(all)-1].path())
					}
				}
			}
			up.expire(t, c, paths...)
			each(len(all), len(all), func(i int) {
				if wrong := all[i].run(c, up); wrong != "" {
					t.Errorf("%s, %s at %s: %s", strings.ReplaceAll(matrixSites[all[i].site], "\n", ", "), all[i].answer, c[all[i].first].name, wrong)
				}
			})
		})
	}
}

// indefinite are statuses that say nothing about the URL: something was wrong with one
// request, or is with the upstream.
var indefinite = []int{
	400, 406, 408, 411, 412, 413, 414, 415, 416, 417, 421, 425, 426, 428, 429, 431,
	500, 501, 502, 503, 504, 505,
}

// TestIndefiniteAnswerEndsNothing: what blames one request, or an error of the
// upstream, leaves the page where it is.
func TestIndefiniteAnswerEndsNothing(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("nodes: %d", nodes), func(t *testing.T) {
			up := startMutable(t)
			c := startSites(t, nodes, up.origin, handles(matrixSites))
			var paths []string
			eachStatus := func(f func(site string, status int, path string)) {
				for _, site := range []string{"error", "both"} {
					for _, status := range indefinite {
						f(site, status, fmt.Sprintf("/%s/%d", site, status))
					}
				}
			}
			eachStatus(func(_ string, _ int, path string) { paths = append(paths, path) })
			up.expire(t, c, paths...)
			eachStatus(func(site string, status int, path string) {
				up.set(path, saying(status, "something is wrong"))
				want := strconv.Itoa(status)
				if site == "both" || standsIn(status) {
					want = "page"
				}
				if saw := c[status%nodes].sees(path); saw != want {
					t.Errorf("site %s, %d: %s", site, status, saw)
				}
			})
			c.awaitIdle() // what was fetched in the background is here
			eachStatus(func(site string, status int, path string) {
				up.set(path, saying(http.StatusServiceUnavailable, ""))
				for _, p := range c {
					if saw := p.sees(path); saw != "page" {
						t.Errorf("site %s, in an outage after %d: %s at %s", site, status, saw, p.name)
					}
				}
			})
		})
	}
}
