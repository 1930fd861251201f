//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCrashCostsTheShareOfTheNodeOnce: a node of four is killed, or frozen, and the others are
// asked for everything at once, long before they know that it is gone. What it owned is fetched
// once in the cluster at most, and what another node has a copy of is not.
func TestCrashCostsTheShareOfTheNodeOnce(t *testing.T) {
	const pages, nodes = 400, 4
	for name, size := range map[string]int{"copies on one node": 0, "hardly a copy": 2000} {
		for how, end := range map[string]func(*process){"killed": (*process).kill, "frozen": func(p *process) { p.signal(syscall.SIGSTOP) }} {
			if raceEnabled() && how == "killed" {
				continue // it does little that a frozen one does not
			}
			t.Run(name+", "+how, func(t *testing.T) {
				fill := strings.Repeat("=", size)
				o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
					time.Sleep(20 * time.Millisecond)
					w.Header().Set("Cache-Control", "max-age=600")
					fmt.Fprint(w, bodyOf(r.URL.Path), fill)
				})
				c := startCluster(t, nodes, o, patient)
				all := paths("page", pages)
				ask := func(nodes cluster) (slowest time.Duration) {
					for i, a := range together(len(nodes)*pages, 24, func(i int) answer { return nodes[i%len(nodes)].get(all[i/len(nodes)]) }) {
						a.is(t, all[i/len(nodes)], bodyOf(all[i/len(nodes)])+fill)
						slowest = max(slowest, a.took)
					}
					return slowest
				}
				ask(c[:1])
				share := 0
				for _, path := range all {
					if c[0].explain(path).Groups[0].Owner == c[nodes-1].name {
						share++
					}
				}
				before, begin := o.fetches(""), time.Now()
				end(c[nodes-1])
				slowest := ask(c[:nodes-1])
				unnoticed, noticed := o.fetches("")-before, time.Since(begin)
				eventually(t, "the others know that it is gone", func() bool {
					for _, p := range c[:nodes-1] {
						if p.states()["n4"] != "dead" {
							return false
						}
					}
					return true
				})
				ask(c[:nodes-1])
				fetched := o.fetches("") - before
				t.Logf("a share of %d: %d fetches within %v, %d at the end; the slowest answer took %v", share, unnoticed, noticed, fetched, slowest)
				// On a busy machine a node that is there may not answer in time, and what is asked
				// of it is fetched too.
				most := share * 2
				if size == 0 {
					share, most = 0, share/10
				}
				figure(t, "fetches because of a crash", int64(fetched), int64(share), int64(most))
			})
		}
	}
}
