package caddygroupcache

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
	"github.com/caddy-groupcache/caddy-groupcache/routes"
)

func TestPurgeOfEachKindOnAllNodes(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		purged        func(url string) bool
	}{
		{"url", `{"urls": ["http://A.test:80/shop/1?q=1"]}`, func(u string) bool { return u == "http://a.test/shop/1?q=1" }},
		{"urls", `{"urls": ["http://a.test/shop/1?q=1", "http://b.a.test:8080/shop/x/2?q=2", "http://a.test/shop/1"]}`, func(u string) bool {
			return u == "http://a.test/shop/1?q=1" || u == "http://b.a.test:8080/shop/x/2?q=2"
		}},
		{"prefix", `{"prefixes": ["http://a.test/shop"]}`, func(u string) bool { return strings.HasPrefix(u, "http://a.test/shop") }},
		{"directory", `{"prefixes": ["http://a.test/shop/"]}`, func(u string) bool { return strings.HasPrefix(u, "http://a.test/shop/") }},
		{"host", `{"hosts": ["a.test"]}`, func(u string) bool { return strings.HasPrefix(u, "http://a.test/") }},
		{"host and port", `{"hosts": ["B.a.test:8080"]}`, func(u string) bool { return strings.HasPrefix(u, "http://b.a.test:8080/") }},
		{"host on another port", `{"hosts": ["b.a.test:80"]}`, func(u string) bool { return false }},
		{"tag", `{"tags": ["page-3?"]}`, func(u string) bool { return false }},
		{"tags", `{"tags": ["page-3", "page-4"]}`, func(u string) bool { return strings.Contains(u, "/3?") || strings.Contains(u, "/4?") }},
		{"mixed", `{"tags": ["page-3"], "hosts": ["a.test"]}`, func(u string) bool { return strings.Contains(u, "/3?") || strings.HasPrefix(u, "http://a.test/") }},
		{"all", `{"all": true}`, func(u string) bool { return true }},
		{"all of the group", `{"all": true, "group": "default"}`, func(u string) bool { return true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 3, nil)
				s := &shop{asked: make(map[string]int)}
				up := s.handler()
				for purger := range b.nodes {
					for i, u := range pages() {
						b.nodes[(i+purger)%3].get(t, up, u)
					}
					for _, u := range pages() {
						for _, m := range b.nodes {
							if _, status := m.get(t, up, u); !strings.Contains(status, "; hit;") {
								t.Fatalf("%s: %s is not warm: %s", m.Name, u, status)
							}
						}
					}
					begun := time.Now()
					code, result := b.nodes[purger].purge(t, tt.request)
					if code != 200 || len(result.Nodes) != 3 || result.ID == "" || time.Since(begun) > time.Millisecond {
						t.Fatalf("%d %+v after %v", code, result, time.Since(begun))
					}
					for i, u := range pages() {
						before := s.asked[u]
						for n := range b.nodes {
							m := b.nodes[(n+i)%3]
							body, status := m.get(t, up, u)
							want := before
							if tt.purged(u) {
								want++
							}
							if body != fmt.Sprint(u, " ", want) || s.asked[u] != want {
								t.Errorf("purge by %s, %s: %s: %q, want fetch %d (%s)", b.nodes[purger].Name, m.Name, u, body, want, status)
							}
						}
					}
				}
			})
		})
	}
}

func TestPurgeIsOfOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		other := newHandler(t, b.nodes[0].Node, func(h *Handler) { h.Group = "other" })
		b.nodes[0].process.config.handlers.Store(&handlersByGroup{"default": {b.nodes[0].handler}, "other": {other}})
		url := "http://a.test/1"
		both := func() (string, string) {
			one, _ := b.nodes[0].get(t, up, url)
			return one[len(one)-1:], do(other, up, request(t.Context(), url)).Body.String()[len(url)+1:]
		}
		both()
		for _, step := range []struct{ request, def, other string }{
			{`{"group": "other", "tags": ["all"]}`, "1", "3"},
			{`{"group": "other", "urls": ["http://a.test/1"]}`, "1", "4"},
			{`{"group": "default", "all": true}`, "5", "4"},
			{`{"tags": ["all"]}`, "6", "7"},
		} {
			if code, result := b.nodes[0].purge(t, step.request); code != 200 {
				t.Errorf("%s: %d %+v", step.request, code, result)
			}
			if def, other := both(); def != step.def || other != step.other {
				t.Errorf("%s: %s and %s, want %s and %s", step.request, def, other, step.def, step.other)
			}
		}
	})
}

func TestPurgeReachesAllVariantsAndSpellings(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(*Handler)
		get   []string // what is asked for
		purge string
	}{
		{"any client's variant", nil, []string{"http://a.test/p?x=1"}, "http://a.test/p?x=1"},
		{"absolute form", nil, []string{"http://a.test/p?x=1"}, "http://A.TEST/p?x=1"},
		{"query ignore", func(h *Handler) { h.Query = &Query{Ignore: []string{"utm_*"}} }, []string{"http://a.test/p?utm_a=1&x=1"}, "http://a.test/p?x=1"},
		{"query ignore, another spelling", func(h *Handler) { h.Query = &Query{Ignore: []string{"utm_*"}} }, []string{"http://a.test/p?x=1"}, "http://a.test/p?x=1&utm_b=2"},
		{"query only", func(h *Handler) { h.Query = &Query{Only: []string{"x"}} }, []string{"http://a.test/p?x=1&y=2"}, "http://a.test/p?z&x=1"},
		{"key without query", func(h *Handler) { h.Key = "{http.request.host}{http.request.uri.path}" }, []string{"http://a.test/p?x=1"}, "http://a.test/p?y=1"},
		{"key without host", func(h *Handler) { h.Key = "{http.request.uri}" }, []string{"http://a.test/p?x=1"}, "http://b.test/p?x=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 3, tt.set)
				s := &shop{asked: make(map[string]int)}
				up := func(w http.ResponseWriter, r *http.Request) error {
					w.Header().Set("Vary", "X-Device")
					return s.handler()(w, r)
				}
				all := func() {
					for _, device := range []string{"desk", "phone"} {
						for _, u := range tt.get {
							for _, m := range b.nodes {
								r := request(t.Context(), u, "X-Device", device)
								r = caddyhttp.PrepareRequest(r, replacer(r), routes.Nobody{}, nil)
								do(m.handler, up, r)
							}
						}
					}
				}
				all()
				before := s.fetches()
				all()
				if s.fetches() != before || before != 2*len(tt.get) {
					t.Fatalf("%d fetches, and then %d", before, s.fetches())
				}
				if code, result := b.nodes[1].purge(t, fmt.Sprintf(`{"urls": [%q]}`, tt.purge)); code != 200 {
					t.Fatalf("%d %+v", code, result)
				}
				all()
				if got := s.fetches() - before; got != before {
					t.Errorf("%d fetches after the purge, want %d", got, before)
				}
			})
		})
	}
}

func TestSoftPurgeOnAllNodes(t *testing.T) {
	for control, waits := range map[string]bool{"max-age=60": false, "max-age=60, must-revalidate": true, "s-maxage=60": true} {
		t.Run(control, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 3, nil)
				s := &shop{asked: make(map[string]int), control: control}
				up := s.handler()
				const url = "http://a.test/1"
				for _, m := range b.nodes {
					m.get(t, up, url)
				}
				if code, result := b.nodes[2].purge(t, `{"tags": ["all"], "soft": true}`); code != 200 {
					t.Fatalf("%d %+v", code, result)
				}
				for round := range 2 {
					for i, m := range b.nodes {
						body, status := m.get(t, up, url)
						stale := strings.HasSuffix(body, " 1")
						if stale && (waits || round > 0 || !strings.Contains(status, "hit; ttl=0")) || !stale && round+i == 0 && !waits {
							t.Errorf("%s, round %d: %s (%s)", m.Name, round, body, status)
						}
						b.settle() // the refresh in the background
					}
				}
				if n := s.fetches(); n != 2 {
					t.Errorf("%d fetches", n)
				}
			})
		})
	}
}

func TestBadPurgesPurgeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		const url = "http://a.test/1"
		b.nodes[0].get(t, up, url)
		long := strings.Repeat("x", 300)
		for name, tt := range map[string]struct{ body, want string }{
			"empty":                 {``, "reading what to purge"},
			"nothing named":         {`{}`, "nothing is named"},
			"all is false":          {`{"all": false, "urls": [], "soft": true}`, "nothing is named"},
			"not JSON":              {`all`, "reading what to purge"},
			"a list":                {`["http://a.test/1"]`, "reading what to purge"},
			"unknown field":         {`{"all": true, "everything": true}`, `unknown field "everything"`},
			"wrong type":            {`{"all": "yes"}`, "bool"},
			"the same twice":        {`{"tags": ["all"], "tags": ["page-1"]}`, "twice"},
			"the same, in capitals": {`{"tags": ["all"], "TAGS": ["page-1"]}`, "twice"},
			"wrong type of list":    {`{"tags": "all"}`, "tags"},
			"wrong type in list":    {`{"tags": ["all", 1]}`, "tags"},
			"two objects":           {`{"all": true}{"all": true}`, "more than one"},
			"rubbish behind":        {`{"all": true} x`, "more than one"},
			"10 MB":                 {`{"all": true, "tags": ["` + strings.Repeat("x", 10<<20) + `"]}`, "too large"},
			"unknown group":         {`{"all": true, "group": "nobody"}`, `"nobody"`},
			"no scheme":             {`{"tags": ["all"], "urls": ["a.test/1"]}`, "scheme"},
			"path only":             {`{"urls": ["/1"]}`, "scheme"},
			"another scheme":        {`{"urls": ["ftp://a.test/1"]}`, "scheme"},
			"no host":               {`{"urls": ["http:///1"]}`, "scheme"},
			"user name":             {`{"urls": ["http://bob@a.test/1"]}`, "user names"},
			"fragment":              {`{"urls": ["http://a.test/1#top"]}`, "fragments"},
			"broken URL":            {`{"urls": ["http://a.test/%zz"]}`, "%zz"},
			"too long a URL":        {`{"urls": ["http://a.test/` + strings.Repeat("x", 17<<10) + `"]}`, "longer than"},
			"prefix without host":   {`{"prefixes": ["/shop"]}`, "scheme"},
			"empty prefix":          {`{"prefixes": [""]}`, "scheme"},
			"empty host":            {`{"hosts": [""]}`, "host"},
			"host with a path":      {`{"hosts": ["a.test/1"]}`, "host"},
			"host with a scheme":    {`{"hosts": ["http://a.test"]}`, "host"},
			"pattern of hosts":      {`{"hosts": ["*.test"], "all": true}`, "patterns"},
			"URL of two hosts":      {`{"urls": ["http://a.test,b.test/1"]}`, "lists"},
			"empty tag":             {`{"tags": [""]}`, "1 to 256 bytes"},
			"tag of spaces":         {`{"tags": [" all "]}`, "1 to 256 bytes"},
			"overlong tag":          {`{"tags": ["all", "` + long + `"]}`, "1 to 256 bytes"},
			"one of many is bad":    {`{"all": true, "tags": ["all"], "hosts": ["a.test"], "urls": ["http://a.test/1", "x"]}`, `"x"`},
		} {
			code, result := b.nodes[1].purge(t, tt.body)
			if code != 400 || !strings.Contains(result.ID, tt.want) || len(result.ID) > 1000 {
				t.Errorf("%s: %d %.200s", name, code, result.ID)
			}
			if _, status := b.nodes[0].get(t, up, url); !strings.Contains(status, "; hit;") {
				t.Fatalf("%s: it was purged all the same", name)
			}
		}
		if n := b.nodes[1].Purger.Counts[store.All].Load(); n != 0 {
			t.Errorf("counted %d", n)
		}
	})
}

func TestPurgesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		b.nodes[0].purge(t, `{"urls": ["http://a.test/1"], "tags": ["a", "b"], "prefixes": ["http://a.test/"], "hosts": ["a.test"], "all": true}`)
		post := request(t.Context(), "http://a.test/1")
		post.Method = http.MethodPost
		do(b.nodes[0].handler, func(w http.ResponseWriter, _ *http.Request) error { return nil }, post)
		for _, m := range b.nodes {
			for kind, want := range map[store.Kind]int64{store.URL: 1, store.Tag: 2, store.Prefix: 1, store.Host: 1, store.All: 1, store.Group: 0} {
				if got := m.Purger.Counts[kind].Load(); got != want {
					t.Errorf("%s: %s: %d, want %d", m.Name, kind, got, want)
				}
			}
		}
	})
}
