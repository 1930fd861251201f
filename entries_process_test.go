//go:build unix

package caddygroupcache_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache"
)

// entries asks a node what is stored, by a query.
func (p *process) entries(query string) (all caddygroupcache.Entries, status int) {
	p.t.Helper()
	resp, err := adminClient.Get("http://" + p.admin + "/groupcache/entries" + query)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
			p.t.Fatal(err)
		}
	}
	return all, resp.StatusCode
}

func TestListOfAllNodes(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=600")
			w.Header().Set("Vary", "Accept-Language")
			w.Header().Set("Cache-Tag", "page"+r.URL.Path[1:2])
			_, _ = io.WriteString(w, "hello")
		})
		c := startCluster(t, nodes, o, patient)
		for i := range 30 {
			path := fmt.Sprintf("/%d/%02d", i%3, i)
			c[i%nodes].get(path, "Accept-Language", "de")
			c[(i+1)%nodes].get(path, "Accept-Language", "en")
		}
		for _, p := range c {
			all, _ := p.entries("")
			if len(all.Entries) != 30 || all.More || len(all.Nodes) != nodes {
				t.Fatalf("%s: %d entries, more %v, %+v", p.name, len(all.Entries), all.More, all.Nodes)
			}
			for i, e := range all.Entries {
				want := fmt.Sprintf("http://%s/%d/%02d", clientHost, i/10, i/10+i%10*3)
				if e.URL != want || e.Status != 200 || e.Size != 5 || e.Variants != 2 || e.TTLSeconds < 500 || !slices.Equal(e.Tags, []string{fmt.Sprint("page", i/10)}) || !slices.Contains(e.Nodes, e.Owner) {
					t.Errorf("%s: %d: %+v, want %s", p.name, i, e, want)
				}
			}
			for query, want := range map[string]int{
				"?tag=page1": 10, "?tag=page1&tag=page2": 20, "?prefix=http://" + clientHost + "/0/": 10, "?host=" + clientHost: 30, "?host=b.test": 0,
				"?url=http://" + clientHost + "/0/00": 1, "?limit=7": 7, "?group=default": 30, "?group=another": 0,
			} {
				if all, status := p.entries(query); status != 200 || len(all.Entries) != want || all.More != (want == 7) {
					t.Errorf("%s: %s: status %d, %d entries, more %v", p.name, query, status, len(all.Entries), all.More)
				}
			}
			for _, wrong := range []string{"?limit=0", "?limit=1001", "?limit=x", "?tags=page1", "?prefix=/0/", "?host=a/b", "?tag="} {
				if _, status := p.entries(wrong); status != http.StatusBadRequest {
					t.Errorf("%s: %s: status %d", p.name, wrong, status)
				}
			}
		}
		out, exit := caddyCommand(t, "groupcache", "list", "--address", c[0].admin, "--tag", "page1", "--limit", "4")
		if exit != 0 || strings.Count(out, "http://"+clientHost+"/1/") != 4 || !strings.Contains(out, "There are more") {
			t.Errorf("exit code %d: %s", exit, out)
		}
		if nodes > 1 {
			c[2].signal(syscall.SIGSTOP)
			all, status := c[0].entries("")
			c[2].signal(syscall.SIGCONT)
			named := slices.IndexFunc(all.Nodes, func(n caddygroupcache.EntriesNode) bool { return n.Name == c[2].name && n.Error != "" })
			if status != 200 || named < 0 || len(all.Entries) == 0 {
				t.Errorf("with a frozen node: status %d, %+v", status, all.Nodes)
			}
		}
	}
}

// TestListTellsWhatAPurgeDrops: a list by a URL, in a spelling that no client has used, has responses whose
// keys have more than the URL and less of its query.
func TestListTellsWhatAPurgeDrops(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })
	c := newCluster(t, 2, o, "ttl 1h\nquery ignore utm_*")
	for _, p := range c {
		p.config = plain(p, "@guest header X-Role guest\nrespond @guest denied 403")
		p.start()
	}
	c.awaitMembers()
	url := "http://" + clientHost + "/page"
	for _, role := range []string{"admin", "user"} {
		c[0].get("/page?utm_source=mail", "X-Role", role, "X-Original-Role", role)
	}
	for _, p := range c {
		if all, status := p.entries("?url=" + url); status != 200 || len(all.Entries) != 2 || all.Entries[0].URL != url {
			t.Errorf("%s: status %d, %+v", p.name, status, all.Entries)
		}
	}
	if status, result := c[1].purge(`{"urls": ["` + url + `"]}`); status != 200 {
		t.Errorf("status %d, %+v", status, result)
	}
	if all, _ := c[0].entries(""); len(all.Entries) != 0 {
		t.Errorf("after the purge: %+v", all.Entries)
	}
}
