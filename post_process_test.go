//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"testing"
)

// TestPostLeavesNothingOfItsSender: what a POST answers with may answer a GET, but none of
// another user whom the upstream, or what Caddy makes of its answer, tells apart.
func TestPostLeavesNothingOfItsSender(t *testing.T) {
	for name, body := range map[string]string{
		"field of the way":     "CACHE\nreverse_proxy UPSTREAM {\nheader_up X-Geo {header.X-Who}\n}",
		"private, by X-Accel":  "CACHE\nreverse_proxy UPSTREAM {\n@accel header X-Accel-Redirect *\nhandle_response @accel {\nheader Content-Location /page\nheader Cache-Control max-age=60\nrespond \"for alice\"\n}\n}",
		"user of forward_auth": "forward_auth UPSTREAM {\nuri /auth\ncopy_headers X-Geo\n}\nCACHE\nreverse_proxy UPSTREAM",
	} {
		t.Run(name, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/auth" {
					w.Header().Set("X-Geo", r.Header.Get("X-Who"))
					return
				}
				if name == "private, by X-Accel" {
					w.Header().Set("Cache-Control", "private")
					if r.Header.Get("X-Who") != "alice" {
						w.WriteHeader(http.StatusForbidden)
						return
					}
					w.Header().Set("X-Accel-Redirect", "/file")
					return
				}
				w.Header().Set("Vary", "X-Geo")
				w.Header().Set("Cache-Control", "max-age=60")
				w.Header().Set("Content-Location", "/page")
				fmt.Fprint(w, "for ", r.Header.Get("X-Geo"))
			})
			var answers [2][]string
			for i, cache := range []string{"", "groupcache"} {
				c := newCluster(t, 1, o, "")
				c[0].config = composition(t, c[0], o, body, cache, t.TempDir())
				c[0].start()
				for _, asked := range []string{"POST alice", "GET bobby", "POST bobby", "GET alice", "GET bobby"} {
					var method, who string
					fmt.Sscan(asked, &method, &who)
					a := do(c[0].request(method, "/page", nil, "X-Who", who))
					answers[i] = append(answers[i], fmt.Sprintf("%s: %d %q", asked, a.status, a.body))
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
