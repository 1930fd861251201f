//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ruled has one response block of each kind.
const ruled = `
		@images header Content-Type image/*
		@redirects status 302 303
		@pages header Content-Type text/html*
		@errors status 4xx
		response @images {
			ttl 1h force
			store_without Set-Cookie X-Request-Id
			tags +image +static
		}
		response @redirects {
			ttl 10m
		}
		response @errors {
			no_store
		}
		response @pages {
			ttl 10m
			tags +page
		}`

// TestResponseBlocks: what the cache stores and serves is as the blocks say, on all nodes.
// The client that is fetched for gets the response as it is.
func TestResponseBlocks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		fields []string
		stored bool
		reason string
		ttl    int  // at least, in seconds
		cookie bool // on hits
		tag    string
	}{
		{"what the response says is overruled", 200, []string{"Content-Type", "image/png", "Cache-Control", "no-cache, max-age=0"}, true, "", 3500, false, "image"},
		{"a cookie is left out", 200, []string{"Content-Type", "image/png", "Set-Cookie", "a=b"}, true, "", 3500, false, "static"},
		{"beside tags of its own", 200, []string{"Content-Type", "image/png", "Cache-Tag", "own"}, true, "", 3500, false, "own"},
		{"private stays private", 200, []string{"Content-Type", "image/png", "Cache-Control", "private"}, false, "private", 0, false, ""},
		{"no-store stays no-store", 200, []string{"Content-Type", "image/png", "Cache-Control", "no-store"}, false, "no-store", 0, false, ""},
		{"a redirect that says nothing", 302, []string{"Location", "/elsewhere"}, true, "", 590, false, ""},
		{"a redirect that says something", 302, []string{"Location", "/elsewhere", "Cache-Control", "max-age=60"}, true, "", 50, false, ""},
		{"not stored", 404, []string{"Cache-Control", "max-age=60"}, false, "rule", 0, false, ""},
		{"the first that matches", 404, []string{"Content-Type", "image/png"}, true, "", 3500, false, "image"},
		{"a page", 200, []string{"Content-Type", "text/html; charset=utf-8"}, true, "", 590, false, "page"},
		{"a page with a cookie", 200, []string{"Content-Type", "text/html", "Set-Cookie", "a=b"}, false, "set-cookie", 0, false, ""},
		{"what no block is about", 200, []string{"Content-Type", "text/css", "Cache-Control", "max-age=60"}, true, "", 50, false, ""},
	} {
		for _, nodes := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, nodes: %d", tt.name, nodes), func(t *testing.T) {
				o := startOrigin(t, saying(tt.status, "body", append(tt.fields, "X-Request-Id", "7")...))
				c := startCluster(t, nodes, o, ruled)
				first := c[0].get("/a")
				for i := 0; i < len(tt.fields); i += 2 {
					if tt.fields[i] != "Cache-Tag" && first.header.Get(tt.fields[i]) != tt.fields[i+1] {
						t.Errorf("the first client: %s %q", tt.fields[i], first.header.Get(tt.fields[i]))
					}
				}
				if first.status != tt.status || first.header.Get("X-Request-Id") != "7" || len(first.header["Cache-Tag"])+len(first.header["Surrogate-Key"]) > 0 {
					t.Errorf("the first client: status %d, %v", first.status, first.header)
				}
				if !tt.stored && !strings.Contains(first.cacheStatus(), "detail="+tt.reason) {
					t.Errorf("the first client: %s, want %s", first.cacheStatus(), tt.reason)
				}
				for _, p := range c {
					a := p.get("/a")
					if a.hit() != tt.stored || a.status != tt.status || tt.stored && (len(a.header["Set-Cookie"]) > 0 || ttlOf(t, a) < tt.ttl) {
						t.Errorf("%s: status %d, %s, %v", p.name, a.status, a.cacheStatus(), a.header)
					}
					if image := strings.Contains(strings.Join(tt.fields, " "), "image/"); tt.stored && (a.header.Get("X-Request-Id") == "") != image {
						t.Errorf("%s: X-Request-Id %q", p.name, a.header.Get("X-Request-Id"))
					}
				}
				if tt.tag != "" {
					if out, exit := caddyCommand(t, "groupcache", "purge", "--tag", tt.tag, "--address", c[0].admin); exit != 0 {
						t.Fatal(out)
					}
					if a := c[nodes-1].get("/a"); a.hit() {
						t.Errorf("after a purge of %s: %s", tt.tag, a.cacheStatus())
					}
				}
			})
		}
	}
}

// ttlOf is the ttl that Cache-Status states.
func ttlOf(t *testing.T, a answer) (ttl int) {
	t.Helper()
	if _, rest, found := strings.Cut(a.cacheStatus(), "ttl="); found {
		_, _ = fmt.Sscanf(rest, "%d", &ttl) // 0, if it is none
	}
	return ttl
}

// TestRuleOutlivesValidation: what a 304 renews stays as the block has it, though what the
// block matched is not stored.
func TestRuleOutlivesValidation(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Cache-Control", "max-age=0")
		w.Header().Set("Cache-Tag", "own")
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, "body")
	})
	c := startCluster(t, 1, o, `
		@cookies header Set-Cookie *
		response @cookies {
			ttl 1s force
			store_without Set-Cookie
			tags +cookies
		}`)
	for round := range 3 {
		a := c[0].get("/a")
		a.is(t, fmt.Sprint("round ", round), "body")
		if hit := c[0].get("/a"); !hit.hit() || len(hit.header["Set-Cookie"]) > 0 {
			t.Errorf("round %d: %s, then %s %v", round, a.cacheStatus(), hit.cacheStatus(), hit.header)
		}
		g := c[0].explain("/a").Groups[0]
		if v := g.Nodes[0].Variants; len(v) != 1 || v[0].Rule != "@cookies" || strings.Join(v[0].Tags, " ") != "cookies own" || len(v[0].Groups) > 0 {
			t.Errorf("round %d: %+v", round, v)
		}
		if words := strings.Join(g.Words, "\n"); !strings.Contains(words, "stored by response @cookies") {
			t.Errorf("round %d: %s", round, words)
		}
		until := time.Now().Add(1100 * time.Millisecond)
		eventually(t, "it is stale", func() bool { return time.Now().After(until) })
	}
	if n := o.fetches("/a"); n != 3 {
		t.Errorf("%d requests to the upstream", n)
	}
}

// TestCookieOfAValidationIsItsClients: a page that is validated for each client is stored
// without the cookie, and each client gets the one that the upstream has set for it.
func TestCookieOfAValidationIsItsClients(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"1"`)
			w.Header().Set("Set-Cookie", "session="+r.Header.Get("X-User"))
			w.Header().Set("Cache-Control", "no-cache")
			if r.Header.Get("If-None-Match") == `"1"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprint(w, "body")
		})
		c := startCluster(t, nodes, o, "@cookies header Set-Cookie *\nresponse @cookies {\nstore_without Set-Cookie\n}")
		for i := range 6 {
			user := fmt.Sprint("user", i)
			fields := []string{"X-User", user}
			if i > 3 {
				fields = append(fields, "If-None-Match", `"1"`)
			}
			a := c[i%nodes].get("/a", fields...)
			if got := a.header.Values("Set-Cookie"); len(got) != 1 || got[0] != "session="+user {
				t.Errorf("%d nodes, %s: %d %q, %s", nodes, user, a.status, got, a.cacheStatus())
			}
		}
	}
}

func TestExplainNamesTheRule(t *testing.T) {
	c := startCluster(t, 1, startOrigin(t, saying(404, "none")), ruled)
	c[0].get("/a")
	g := c[0].explain("/a").Groups[0]
	if words := strings.Join(g.Words, "\n"); g.Reason != "rule" || !strings.Contains(words, "response: @errors") {
		t.Errorf("reason %q: %s", g.Reason, words)
	}
}
