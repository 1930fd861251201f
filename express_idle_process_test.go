//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"testing"
)

var memoryInUse = regexp.MustCompile(`# (?:HeapAlloc|Stack) = (\d+)`)

// inUse returns what a node has on its heap and its stacks after a garbage collection.
func (p *process) inUse(t *testing.T) (all int64) {
	t.Helper()
	for range 2 { // what a pool holds survives one collection
		text, err := p.node.Get("/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			t.Fatal(err)
		}
		all = 0
		for _, m := range memoryInUse.FindAllSubmatch(text, -1) {
			n, _ := strconv.ParseInt(string(m[1]), 10, 64)
			all += n
		}
	}
	if all == 0 {
		t.Fatal("the profile does not tell")
	}
	return all
}

// TestIdleLaneConnections: what each connection takes that has had a hit and waits.
func TestIdleLaneConnections(t *testing.T) {
	const connections, wanted, limit = 2000, 4 << 10, 6 << 10
	if raceEnabled() {
		t.Skip("the race detector takes memory of its own for each goroutine")
	}
	w := startTwins(t)
	for name, secure := range map[string]bool{"HTTP": false, "HTTPS": true} {
		t.Run(name, func(t *testing.T) {
			at := map[bool]string{false: "SITES", true: "SECURE"}[secure]
			w.load(t, "listener_wrappers {\nLANE\n}\n", "", at+"\nCACHE\nreverse_proxy UPSTREAM\n}\n")
			with, without := w.with.takenByIdle(t, connections, secure), w.without.takenByIdle(t, connections, secure)
			t.Logf("an idle connection takes %d bytes without the lane, %d with it", without, with)
			figure(t, "bytes more for each idle connection", with-without, wanted, limit)
		})
	}
}

// takenByIdle returns what each of many idle connections takes.
func (p *process) takenByIdle(t *testing.T, connections int, secure bool) int64 {
	t.Helper()
	p.askInTurn(t, secure, plainGet("/x"), plainGet("/x"))
	before := p.inUse(t)
	for range connections {
		conn := p.dialFor(t, secure)
		defer conn.Close() //nolint:errcheck // it was idle
		_, _ = io.WriteString(conn, plainGet("/x", "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language: en-US,en;q=0.5", "Accept-Encoding: gzip, deflate, br, zstd"))
		if got, _ := readLane(bufio.NewReader(conn), 1, false); len(got) != 1 {
			t.Fatal("no response")
		}
	}
	return (p.inUse(t) - before) / int64(connections)
}
