//go:build linux

package main

import (
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

func TestMain(m *testing.M) {
	harness.Become(map[string]func(){harness.Caddy: caddycmd.Main})
	os.Exit(m.Run())
}

// TestTwins tries a selection of compositions, in this process and on a cluster.
func TestTwins(t *testing.T) {
	if testing.Short() {
		t.Skip("asks thousands of requests")
	}
	part := 1
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		part = 3 // the race detector takes ten times as long
	}
	wanted := func(known int) bool { _, off := notYet[known]; return !off }
	for name, o := range map[string]options{
		"one node":    {seed: 1, n: 90 / part, nodes: 1},
		"three nodes": {seed: 1001, n: 15 / part, nodes: 3},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			o.requests, o.most, o.wanted = 20, 2, wanted
			if err := run(&out, t.TempDir(), o); err != nil {
				t.Errorf("%v\n%s", err, &out)
			}
		})
	}
}

// The laboratory would be of no use if it did not see what is wrong.
func TestCompare(t *testing.T) {
	header := func(lines ...string) http.Header {
		h := make(http.Header)
		for i := 0; i < len(lines); i += 2 {
			h.Add(lines[i], lines[i+1])
		}
		return h
	}
	ok := func(body string, lines ...string) *answer {
		return &answer{status: 200, header: header(lines...), body: []byte(body)}
	}
	get, part := request{method: "GET"}, request{method: "GET", rng: "bytes=1-2"}
	for _, c := range []struct {
		name       string
		request    request
		site, twin *answer
		kind       string
	}{
		{"the same", get, ok("a", "Age", "1"), ok("a"), ""},
		{"denied on the twin", get, ok("a"), &answer{status: 403, header: header()}, "status"},
		{"aborted on the twin", get, ok("a"), &answer{err: http.ErrAbortHandler}, "broken"},
		{"aborted on the site", get, &answer{err: http.ErrAbortHandler}, ok("a"), "failed"},
		{"another body", get, ok("a"), ok("b"), "body"},
		{"another user's", get, ok("id=alice;"), ok("id=carol;"), "body"},
		{"another user's private", get, ok("id=alice;", "Cache-Control", "private"), ok("id=carol;", "Cache-Control", "private"), "body"},
		{"another user's public", get, ok("id=alice;", "Cache-Control", "public"), ok("id=carol;", "Cache-Control", "public"), ""},
		{"another field", get, ok("a", "X-A", "1"), ok("a"), "field"},
		{"a part", part, &answer{status: 206, header: header(), body: []byte("bc")}, ok("abcd"), ""},
		{"another part", part, &answer{status: 206, header: header(), body: []byte("ab")}, ok("abcd"), "body"},
		{"undecodable", get, ok("a", "Content-Encoding", "gzip"), &answer{status: 200, header: header("Content-Encoding", "gzip"), body: []byte(zipped("a"))}, "undecodable"},
		{"slow", get, &answer{took: time.Minute}, ok("a"), "slow"},
		{"a stranger's purge", request{method: "PURGE"}, ok(""), ok(""), "purge"},
	} {
		kind := ""
		if d := new(composition).compare(c.request, c.site, c.twin); d != nil {
			kind = d.kind
		}
		if kind != c.kind {
			t.Errorf("%s: %q, want %q", c.name, kind, c.kind)
		}
	}
}

func TestShareable(t *testing.T) {
	for _, c := range []struct {
		limits, vary       string
		authenticated, ttl bool
		want               bool
	}{
		{"", "", false, false, false},
		{"", "", false, true, true},
		{"", "", true, true, false},
		{"max-age=60", "", false, false, true},
		{"max-age=60", "", true, false, false},
		{"max-age=60, must-revalidate", "", true, false, true},
		{"Public, max-age=60", "", true, false, true},
		{"s-maxage=60", "", true, false, true},
		{"public, no-cache", "", false, true, false},
		{"private, max-age=60", "", false, true, false},
		{"no-store", "", false, true, false},
		{"public", "Accept-Language", false, false, true},
		{"public", "Accept-Encoding, cookie", false, false, false},
		{"public", "*", false, false, false},
	} {
		h := http.Header{"Cache-Control": {c.limits}, "Vary": {c.vary}}
		site := &composition{elements: []*element{{ttl: c.ttl}}}
		if got := site.shareable(h, c.authenticated); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
