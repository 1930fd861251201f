//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestErrorsThatATTLNamesAreStored: a 404 of file_server is an error, of which Caddy or
// handle_errors makes a response. That is the same from the cache, on the owner and on
// other nodes, for one client after the other and at the same time.
func TestErrorsThatATTLNamesAreStored(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for _, page := range []string{"", "\thandle_errors {\n\t\theader X-Page error\n\t\trespond \"no {http.request.uri.path}: {err.message}\" {err.status_code}\n\t}\n"} {
			t.Run(fmt.Sprintf("%d/page %v", nodes, page != ""), func(t *testing.T) {
				dir := t.TempDir()
				o := startOrigin(t, func(http.ResponseWriter, *http.Request) {})
				c := newCluster(t, nodes, o, "ttl 1h 404")
				for _, p := range c {
					config := p.caddyfile("")
					i := strings.Index(config, "\thandle /of/another/route")
					p.config = config[:i] + "\troot * " + dir + "\n\troute {\n\t\theader X-Behind {path}\n\t\tfile_server\n\t}\n" + page + "}\n"
					p.start()
				}
				c.awaitMembers()
				check := func(a answer, path string) {
					want, field := "", ""
					if page != "" {
						want, field = "no "+path+": Not Found", "error"
					}
					if a.status != 404 || a.body != want || a.header.Get("X-Page") != field || a.header.Get("X-Behind") != path {
						t.Errorf("%s: %d %q %q %q (%s), %v", path, a.status, a.body, a.header.Get("X-Page"), a.header.Get("X-Behind"), a.cacheStatus(), a.err)
					}
				}
				for _, p := range c {
					check(p.get("/missing"), "/missing")
				}
				for _, p := range c {
					a := p.get("/missing")
					if check(a, "/missing"); !a.hit() {
						t.Errorf("%s at %s", a.cacheStatus(), p.name)
					}
				}
				if err := os.WriteFile(filepath.Join(dir, "missing"), []byte("found"), 0o600); err != nil {
					t.Fatal(err)
				}
				check(c[0].get("/missing"), "/missing") // for an hour
				var all sync.WaitGroup
				for i := range 30 {
					all.Go(func() { check(c[i%len(c)].get("/together"), "/together") })
				}
				all.Wait()
				if code, _ := c[0].purge(`{"urls": ["http://` + clientHost + `/missing"]}`); code != 200 {
					t.Fatalf("purge: %d", code)
				}
				if a := c[0].get("/missing"); a.status != 200 || a.body != "found" {
					t.Errorf("after a purge: %d %q", a.status, a.body)
				}
			})
		}
	}
}

// TestOtherErrorsAreNotStored: those whose status no ttl names.
func TestOtherErrorsAreNotStored(t *testing.T) {
	dir := t.TempDir()
	o := startOrigin(t, func(http.ResponseWriter, *http.Request) {})
	p := newCluster(t, 1, o, "ttl 1h")[0]
	config := p.caddyfile("")
	p.config = config[:strings.Index(config, "\thandle /of/another/route")] + "\troot * " + dir + "\n\tfile_server\n}\n"
	p.start()
	if a := p.get("/missing"); a.status != 404 {
		t.Fatal(a.status)
	}
	if err := os.WriteFile(filepath.Join(dir, "missing"), []byte("found"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := p.get("/missing"); a.body != "found" {
		t.Errorf("%d %q", a.status, a.body)
	}
}
