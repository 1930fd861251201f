//go:build unix

package caddygroupcache_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
)

// TestWarmCommand: what was warmed is a hit on every node, for browsers too.
func TestWarmCommand(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/sitemap.xml":
			w.Header().Set("Content-Type", "application/xml")
			fmt.Fprint(w, "<urlset>")
			for i := range 20 {
				fmt.Fprintf(w, "<url><loc>http://%s/page/%d</loc></url>", clientHost, i)
			}
			fmt.Fprint(w, "</urlset>")
		case strings.HasPrefix(r.URL.Path, "/page/"):
			w.Header().Set("Cache-Control", "max-age=3600")
			w.Header().Set("Vary", "Accept-Encoding")
			fmt.Fprint(w, bodyOf(r.URL.Path))
		default:
			w.Header().Set("Cache-Control", "private")
		}
	})
	c := startCluster(t, 3, o, patient)
	warm := func(args ...string) (s caddygroupcache.WarmSummary, exit int) {
		t.Helper()
		out, exit := caddyCommand(t, append([]string{"groupcache", "warm", "--connect", c[0].http, "--json"}, args...)...)
		line, _, _ := strings.Cut(out, "\n")
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return s, exit
	}
	sitemap := "http://" + clientHost + "/sitemap.xml"
	if s, exit := warm(sitemap, "--rate", "0"); exit != 0 || s.URLs != 20 || s.Asked != 20 || s.Stored != 20 {
		t.Errorf("at first: %d %+v", exit, s)
	}
	for i := range 20 {
		path := fmt.Sprintf("/page/%d", i)
		a := c[i%3].get(path, "Accept-Encoding", "gzip, deflate, br, zstd")
		a.is(t, path, bodyOf(path))
		if !a.hit() {
			t.Errorf("%s: %s", path, a.cacheStatus())
		}
	}
	list := filepath.Join(t.TempDir(), "urls.txt")
	text := fmt.Sprintf("http://%[1]s/page/1\nhttp://%[1]s/mine\nhttp://%[1]s/page/new\n", clientHost)
	if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, exit := warm(list); exit != 0 || s.Hits != 1 || s.Stored != 1 || s.NotStored["private"] != 1 {
		t.Errorf("from a file: %d %+v", exit, s)
	}
	c[0].kill()
	if s, exit := warm(list); exit == 0 || s.Failed != 3 || len(s.Errors) != 3 {
		t.Errorf("without a node: %d %+v", exit, s)
	}
	for _, args := range [][]string{{"nowhere.txt"}, {list, "--concurrency", "0"}, {list, "--rate", "-1"}, {list, "--header", "nonsense"}} {
		if out, exit := caddyCommand(t, append([]string{"groupcache", "warm"}, args...)...); exit == 0 {
			t.Errorf("%q: %s", args, out)
		}
	}
}
