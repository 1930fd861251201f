//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// TestCookiesThatAreIgnored: visitors who differ in nothing but analytics share what varies
// by Cookie, on one node and on three; users with a session don't, at the same time.
func TestCookiesThatAreIgnored(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.Header.Get("Cookie"), "_ga") {
					t.Errorf("the upstream gets %q", r.Header.Get("Cookie"))
				}
				w.Header().Set("Vary", "Cookie")
				w.Header().Set("Cache-Control", "s-maxage=60")
				fmt.Fprint(w, "for ", r.Header.Get("Cookie"))
			})
			c := startCluster(t, nodes, o, "cookies ignore _ga* _gid\npeer_timeout 5s")
			for i := range 40 {
				a := c[i%nodes].get("/page", "Cookie", fmt.Sprintf("_ga=GA1.%d; _gid=%d", i, i))
				a.is(t, "visitor", "for ")
			}
			if n := o.fetches("/page"); n != 1 {
				t.Errorf("%d fetches for 40 visitors", n)
			}
			var all sync.WaitGroup
			for i := range 60 {
				all.Go(func() {
					want, cookie := "for ", fmt.Sprintf("_ga=GA1.%d", i)
					if i%3 > 0 {
						want = fmt.Sprintf("for lang=de; session=%d", i%3)
						cookie = fmt.Sprintf("session=%d; _gid=%d; lang=de", i%3, i)
					}
					c[i%nodes].get("/together", "Cookie", cookie).is(t, cookie, want)
				})
			}
			all.Wait()
			if n := o.fetches("/together"); n < 3 || n > 3*nodes { // before it is known what they vary by, nodes may ask too
				t.Errorf("%d fetches for visitors and two users", n)
			}
		})
	}
}

// byCookie are sites that make something else of requests with the cookie role=guest than
// of others, in front of the cache or behind it.
var byCookie = map[string]string{
	"request_header @m":  "@g header Cookie role=guest\nrequest_header @g X-Tenant special\nCACHE\nreverse_proxy UPSTREAM",
	"regexp":             "@c header_regexp Cookie role=(\\w+)\nrequest_header @c X-Tenant {re.c.1}\nCACHE\nreverse_proxy UPSTREAM",
	"request_header ph":  "request_header X-Tenant {cookie.role}\nCACHE\nreverse_proxy UPSTREAM",
	"rewrite @m":         "@g header Cookie role=guest\nrewrite @g /special{uri}\nCACHE\nreverse_proxy UPSTREAM",
	"rewrite ph":         "rewrite * /{cookie.role}{uri}\nCACHE\nreverse_proxy UPSTREAM",
	"vars @m":            "@g header Cookie role=guest\nvars @g tenant special\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant {vars.tenant}\n}",
	"vars respond":       "vars tenant {cookie.role}\nCACHE\nrespond \"for {vars.tenant}\"",
	"vars @m respond":    "@g header Cookie role=guest\nvars @g tenant special\nCACHE\nrespond \"for {vars.tenant}\"",
	"map":                "map {cookie.role} {tenant} {\nguest special\ndefault other\n}\nCACHE\nrespond \"for {tenant}\"",
	"map request_header": "map {cookie.role} {tenant} {\nguest special\ndefault other\n}\nrequest_header X-Tenant {tenant}\nCACHE\nreverse_proxy UPSTREAM",
	"handles":            "@g header Cookie role=guest\nhandle @g {\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant guest\n}\n}\nhandle {\nCACHE\nreverse_proxy UPSTREAM\n}",
	"invoked":            "@g header Cookie role=guest\nhandle @g {\nrequest_header X-Tenant special\ninvoke cached\n}\nhandle {\ninvoke cached\n}",
	"root":               "root * DIR/{cookie.role}\nCACHE\nfile_server",
	"try_files":          "root * DIR\ntry_files {cookie.role}/a\nCACHE\nfile_server",
	"header":             "@g header Cookie role=guest\nheader @g X-For guest\nCACHE\nreverse_proxy UPSTREAM",
	"behind respond":     "@g header Cookie role=guest\nCACHE\nrespond @g denied 403\nreverse_proxy UPSTREAM",
}

// TestCookiesThatTheRoutesLookAt: a cookie that the upstream is not to get is still there for
// the routes around the cache, so each client gets what it gets without it.
func TestCookiesThatTheRoutesLookAt(t *testing.T) {
	for name, body := range byCookie {
		t.Run(name, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "%s %s for %s", r.Host, r.URL.Path, r.Header.Get("X-Tenant"))
			})
			dir := t.TempDir()
			files(t, dir)
			var answers [2][]string
			for i, cache := range []string{"", "groupcache {\nttl 1h\ncookies ignore role\n}"} {
				c := newCluster(t, 1, o, "")
				c[0].config = composition(t, c[0], o, body, cache, dir)
				c[0].start()
				for _, role := range []string{"admin", "guest", "admin", "guest"} {
					a := do(c[0].request(http.MethodGet, "/a/x", nil, "Cookie", "role="+role))
					answers[i] = append(answers[i], fmt.Sprintf("%s: %d %q %s", role, a.status, a.body, a.header.Get("X-For")))
				}
			}
			for i, want := range answers[0] {
				if answers[1][i] != want {
					t.Errorf("%s with the cache, without it %s", answers[1][i], want)
				}
			}
		})
	}
}
