//go:build unix

package caddygroupcache_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// shop is an origin with pages that can be stored and some that cannot.
func shop(w http.ResponseWriter, r *http.Request) {
	time.Sleep(20 * time.Millisecond)
	kind := strings.Split(r.URL.Path, "/")[1]
	w.Header().Set("Surrogate-Key", kind)
	switch kind {
	case "account":
		w.Header().Set("Cache-Control", "private")
	case "basket":
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Set-Cookie", "basket=1")
	default:
		w.Header().Set("Cache-Control", "max-age=5, stale-while-revalidate=30")
	}
	_, _ = io.WriteString(w, strings.Repeat("x", 4<<10))
}

// gate runs caddy groupcache dashboard, and returns the address that it prints.
func (p *process) gate() string {
	p.t.Helper()
	command, err := harness.Start(p.node.Command("groupcache", "dashboard", "--address", p.admin), "dashboard", filepath.Join(p.dir, "dashboard"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(command.Kill)
	address, err := command.AwaitLine(p.t.Context(), "http://")
	if err != nil {
		p.t.Fatal(err)
	}
	return address
}

// TestClusterStatus: what the dashboard shows, from any node.
func TestClusterStatus(t *testing.T) {
	o := startOrigin(t, shop)
	c := startCluster(t, 3, o, patient)
	for i := range 300 {
		c[i%3].get(fmt.Sprint("/page/", i%2))
	}
	c[1].get("/account/orders")
	_, purge := c[2].purge(`{"tags": ["a", "b"], "hosts": ["other.test"], "soft": true}`)
	status := func(p *process) (s caddygroupcache.ClusterStatus) {
		t.Helper()
		resp, err := adminClient.Get("http://" + p.admin + "/groupcache/cluster")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%d %v", resp.StatusCode, err)
		}
		return s
	}
	s := status(c[0])
	if s.Node != c[0].name || len(s.Nodes) != 3 {
		t.Fatalf("%+v", s)
	}
	requests, notStored, busy := int64(0), int64(0), 0
	for _, n := range s.Nodes {
		if n.Report == nil || n.Report.Node != n.Name || n.Self != (n.Name == c[0].name) || n.LatencyMillis == 0 != n.Self {
			t.Fatalf("%s tells of %+v", c[0].name, n)
		}
		for _, g := range n.Report.Groups {
			requests += g.Hits + g.Stale + g.Revalidated + g.Misses + g.Collapsed + g.Bypasses
			notStored += g.NotStored["private"]
		}
		if p := n.Report.Purges; len(p) != 1 || p[0].ID != purge.ID || strings.Join(p[0].Named, ", ") != "host other.test, tag a, tag b" || !p[0].Soft {
			t.Errorf("%s tells of the purges %+v", n.Name, p)
		}
		busy += len(n.Report.Busiest)
		for _, k := range n.Report.Busiest {
			if k.URL != "" || len(k.Hash) != 64 || k.PerSecond <= 0 {
				t.Errorf("without show_keys %s tells of %+v", n.Name, k)
			}
		}
		if m := n.Report.Memory; m.BodyLimit <= 0 || m.IndexLimit < m.Limit/8 || m.Main+m.Hot+m.IndexLimit+m.InFlightLimit > m.Limit {
			t.Errorf("%s divides its memory as in %+v", n.Name, m)
		}
	}
	if requests != 301 || notStored != 1 || busy == 0 { // one in sixteen of 301: hardly none
		t.Errorf("%d requests, %d not stored, %d busy keys", requests, notStored, busy)
	}
	c[2].kill()
	eventually(t, "its death is known", func() bool {
		for _, n := range status(c[0]).Nodes {
			if n.Name == c[2].name {
				return n.State == "dead" && n.Report == nil && n.Error != ""
			}
		}
		return false
	})
}

// TestDashboardGate: the command lets in only who has its address, and only to
// the cache's part of the admin API.
func TestDashboardGate(t *testing.T) {
	o := startOrigin(t, cached)
	c := startCluster(t, 1, o, "")
	address := c[0].gate()
	root, _, _ := strings.Cut(strings.TrimPrefix(address, "http://"), "/")
	var purges atomic.Int64
	ask := func(method, url string, fields ...string) (int, http.Header) {
		t.Helper()
		body := ""
		if method == http.MethodPost {
			body = fmt.Sprintf(`{"tags": ["t%d"]}`, purges.Add(1))
		}
		r, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(fields); i += 2 {
			r.Header.Set(fields[i], fields[i+1])
		}
		r.Host = r.Header.Get("Host")
		resp, err := adminClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	for _, row := range []struct {
		what, method, url string
		fields            []string
		want              int
	}{
		{"the page, as a browser opens it", "GET", address, []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "none"}, 200},
		{"its figures", "GET", address + "cluster", []string{"Referer", address, "Sec-Fetch-Mode", "cors"}, 200},
		{"a purge of the page", "POST", address + "purge", []string{"Origin", "http://" + root}, 200},
		{"a purge of another site", "POST", address + "purge", []string{"Origin", "http://evil.test"}, 403},
		{"a purge of nobody", "POST", address + "purge", []string{"Origin", "null"}, 403},
		{"without the secret", "GET", "http://" + root + "/groupcache/", nil, 403},
		{"another secret", "GET", "http://" + root + "/AAAA/groupcache/", nil, 403},
		{"a name that leads here", "GET", address, []string{"Host", "evil.test"}, 403},
		{"the rest of the admin API", "GET", strings.TrimSuffix(address, "groupcache/") + "config/", nil, 403},
		{"by a detour", "GET", address + "../config/", nil, 403},
		{"a name with dots", "GET", address + "..", nil, 403},
		{"by a hidden detour", "GET", address + "%2e%2e/config/", nil, 403},
		{"another method", "DELETE", address, nil, 403},
	} {
		if got, header := ask(row.method, row.url, row.fields...); got != row.want {
			t.Errorf("%s: %d, want %d", row.what, got, row.want)
		} else if header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: other sites may read it", row.what)
		}
	}
	if got := c[0].metric(`caddy_groupcache_purges_total{kind="tag"}`); got != 1 {
		t.Errorf("%v purges", got)
	}
	// The admin endpoint itself refuses a page of another site.
	for _, fields := range [][]string{{"Origin", "http://evil.test"}, {"Host", "evil.test"}, {"Sec-Fetch-Mode", "no-cors"}} {
		if got, _ := ask("POST", "http://"+c[0].admin+"/groupcache/purge", fields...); got != 403 && got != 400 {
			t.Errorf("the admin endpoint answers %d to %v", got, fields)
		}
	}
	if out, exit := caddyCommand(t, "groupcache", "dashboard", "--address", c[0].admin, "--listen", "0.0.0.0:0"); exit == 0 || !strings.Contains(out, "loopback") {
		t.Errorf("%d %s", exit, out)
	}
}
