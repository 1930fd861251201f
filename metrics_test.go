package caddygroupcache

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// metricLabels are all our metrics, with their labels and, of histograms, what
// Prometheus makes of them.
func metricLabels(t *testing.T) map[string][]string {
	t.Helper()
	described := make(chan *prometheus.Desc, 100)
	for _, c := range []prometheus.Collector{fillSeconds, peerRequests, peerSeconds, collector{}} {
		c.Describe(described)
	}
	close(described)
	labels := make(map[string][]string)
	text := regexp.MustCompile(`fqName: "([a-z_]+)", .*variableLabels: \{([a-z,]*)\}`)
	for d := range described {
		m := text.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("cannot read %s", d)
		}
		names := strings.Split(m[2], ",")
		if strings.HasSuffix(m[1], "_seconds") {
			labels[m[1]+"_bucket"] = append(names, "le")
			continue
		}
		labels[m[1]] = names
	}
	return labels
}

// grafana is what matters here of a dashboard in Grafana's JSON.
type grafana struct {
	Title, UID    string
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Definition string }
	}
	Panels []struct {
		ID          int
		Title, Type string
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct{ Expr, RefID string }
	}
}

func readGrafana(t *testing.T) (dashboard grafana) {
	t.Helper()
	b, err := os.ReadFile("docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.Title == "" || dashboard.UID == "" || dashboard.SchemaVersion == 0 {
		t.Error("Grafana wants a title, a uid and a schema version")
	}
	return dashboard
}

// checkLayout looks whether each panel has an id and a place of its own.
func checkLayout(t *testing.T, dashboard grafana) {
	t.Helper()
	ids := make(map[int]bool)
	taken := make(map[string]string)
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have id %d", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				at := fmt.Sprint(x, ",", y)
				if other := taken[at]; other != "" || x >= 24 {
					t.Fatalf("%s lies on %q, or beside the page", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
	}
}

// TestGrafanaDashboard: it uses all of our metrics and nothing else, and no
// label that they don't have.
func TestGrafanaDashboard(t *testing.T) {
	dashboard := readGrafana(t)
	labels, used := metricLabels(t), make(map[string]bool)
	variables := []string{"__rate_interval"}
	for _, v := range dashboard.Templating.List {
		variables = append(variables, v.Name)
	}
	name := regexp.MustCompile(`caddy_groupcache_[a-z_]+`)
	check := func(where, expr string) {
		for _, metric := range name.FindAllString(expr, -1) {
			if labels[metric] == nil {
				t.Errorf("%s: there is no metric %s", where, metric)
			}
			used[metric] = true
			for _, label := range labelsIn(expr) {
				if label != "instance" && !slices.Contains(labels[metric], label) {
					t.Errorf("%s: %s has no label %s", where, metric, label)
				}
			}
		}
		for _, v := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(expr, -1) {
			if !slices.Contains(variables, v[1]) {
				t.Errorf("%s: there is no variable %s", where, v[1])
			}
		}
		if strings.Count(expr, "(") != strings.Count(expr, ")") || strings.Count(expr, "{") != strings.Count(expr, "}") {
			t.Errorf("%s: brackets in %s", where, expr)
		}
	}
	checkLayout(t, dashboard)
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for metric := range labels {
		if !used[metric] {
			t.Errorf("%s is on no panel", metric)
		}
	}
	for _, v := range dashboard.Templating.List {
		check(v.Name, v.Definition)
	}
}

// labelsIn returns the labels that an expression filters or groups by.
func labelsIn(expr string) (labels []string) {
	for _, m := range regexp.MustCompile(`([a-z_]+)(?:=|!=|=~|!~)"`).FindAllStringSubmatch(expr, -1) {
		labels = append(labels, m[1])
	}
	for _, m := range regexp.MustCompile(`by \(([a-z_, ]+)\)`).FindAllStringSubmatch(expr, -1) {
		labels = append(labels, strings.Split(m[1], ", ")...)
	}
	return labels
}

// TestCountersGoOnOverReloads: each config has a registry of its own, with every
// series once and what was counted before; also when a group comes or goes.
func TestCountersGoOnOverReloads(t *testing.T) {
	s := newSite(t)
	config := s.config("cache_size 64MiB", "one")
	if err := load(t, config); err != nil {
		t.Fatal(err)
	}
	fetchURL(t, s.url("/a"))
	fetchURL(t, s.url("/a"))
	gather := func() map[string]float64 {
		r := prometheus.NewPedanticRegistry()
		if err := registerMetrics(r, currentProcess()); err != nil {
			t.Fatal(err)
		}
		return series(t, r)
	}
	before := gather()
	if before[`caddy_groupcache_requests_total group=default status=hit`] != 1 {
		t.Fatalf("%v", before)
	}
	renamed := strings.Replace(config, "groupcache\n\t\treverse_proxy", "groupcache {\n\t\t\tgroup other\n\t\t}\n\t\treverse_proxy", 1)
	if renamed == config {
		t.Fatal("the config has changed")
	}
	if err := load(t, renamed); err != nil {
		t.Fatal(err)
	}
	fetchURL(t, s.url("/a"))
	if err := load(t, config); err != nil {
		t.Fatal(err)
	}
	after := gather()
	for name, was := range before {
		want := was
		if name == "caddy_groupcache_fill_duration_seconds" {
			want++ // that of the other group
		}
		if after[name] != want {
			t.Errorf("%s was %v and is %v", name, was, after[name])
		}
	}
	if after[`caddy_groupcache_requests_total group=other status=miss`] != 1 {
		t.Errorf("what the group counted that is gone: %v", after)
	}
	page, _ := fetchURL(t, s.url("/metrics"))
	for name := range maps.Keys(metricLabels(t)) {
		if name := strings.TrimSuffix(name, "_bucket"); strings.Count(page, "# TYPE "+name+" ") > 1 {
			t.Errorf("%s is there more than once", name)
		}
	}
}
