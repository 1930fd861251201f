package caddygroupcache

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A shop is an upstream of some pages with tags. It counts the requests for each.
type shop struct {
	mu      sync.Mutex // guards below
	asked   map[string]int
	control string
}

func (s *shop) handler() caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		s.mu.Lock()
		s.asked[r.URL.String()]++
		n := s.asked[r.URL.String()]
		s.mu.Unlock()
		control := s.control
		if control == "" {
			control = "max-age=3600"
		}
		page := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		w.Header().Set("Cache-Control", control)
		w.Header().Set("Surrogate-Key", "all page-"+page+" even-"+fmt.Sprint(len(page)%2 == 0))
		_, err := fmt.Fprintf(w, "%s %d", r.URL, n)
		return err
	}
}

func (s *shop) fetches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := 0
	for _, n := range s.asked {
		all += n
	}
	return all
}

// pages are 30 URLs: two hosts, three paths on each, queries.
func pages() (urls []string) {
	for _, host := range []string{"a.test", "b.a.test:8080"} {
		for _, dir := range []string{"shop", "shopping", "shop/x"} {
			for i := range 5 {
				urls = append(urls, fmt.Sprintf("http://%s/%s/%d?q=%d", host, dir, i, i))
			}
		}
	}
	return urls
}

// get asks a node for a URL, a little later than what happened before.
func (m *bubbleNode) get(t testing.TB, up caddyhttp.HandlerFunc, url string, fields ...string) (body, status string) {
	t.Helper()
	time.Sleep(time.Microsecond)
	w := do(m.handler, up, request(t.Context(), url, fields...))
	if w.Code != 200 {
		t.Errorf("%s: %s: %d", m.name, url, w.Code)
	}
	return w.Body.String(), w.Header().Get("Cache-Status")
}

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
								t.Fatalf("%s: %s is not warm: %s", m.name, u, status)
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
								t.Errorf("purge by %s, %s: %s: %q, want fetch %d (%s)", b.nodes[purger].name, m.name, u, body, want, status)
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
		other := newHandler(t, b.nodes[0].node, func(h *Handler) { h.Group = "other" })
		b.nodes[0].process.handlers.Store(&map[string]*Handler{"default": b.nodes[0].handler, "other": other})
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
								r = caddyhttp.PrepareRequest(r, replacer(r), nobody{}, nil)
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
							t.Errorf("%s, round %d: %s (%s)", m.name, round, body, status)
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
			"empty":               {``, "reading what to purge"},
			"nothing named":       {`{}`, "nothing is named"},
			"all is false":        {`{"all": false, "urls": [], "soft": true}`, "nothing is named"},
			"not JSON":            {`all`, "reading what to purge"},
			"a list":              {`["http://a.test/1"]`, "reading what to purge"},
			"unknown field":       {`{"all": true, "everything": true}`, `unknown field "everything"`},
			"wrong type":          {`{"all": "yes"}`, "bool"},
			"wrong type of list":  {`{"tags": "all"}`, "tags"},
			"wrong type in list":  {`{"tags": ["all", 1]}`, "tags"},
			"two objects":         {`{"all": true}{"all": true}`, "more than one"},
			"rubbish behind":      {`{"all": true} x`, "more than one"},
			"10 MB":               {`{"all": true, "tags": ["` + strings.Repeat("x", 10<<20) + `"]}`, "too large"},
			"unknown group":       {`{"all": true, "group": "nobody"}`, `"nobody"`},
			"no scheme":           {`{"tags": ["all"], "urls": ["a.test/1"]}`, "scheme"},
			"path only":           {`{"urls": ["/1"]}`, "scheme"},
			"another scheme":      {`{"urls": ["ftp://a.test/1"]}`, "scheme"},
			"no host":             {`{"urls": ["http:///1"]}`, "scheme"},
			"user name":           {`{"urls": ["http://bob@a.test/1"]}`, "user names"},
			"fragment":            {`{"urls": ["http://a.test/1#top"]}`, "fragments"},
			"broken URL":          {`{"urls": ["http://a.test/%zz"]}`, "%zz"},
			"too long a URL":      {`{"urls": ["http://a.test/` + strings.Repeat("x", 17<<10) + `"]}`, "longer than"},
			"prefix without host": {`{"prefixes": ["/shop"]}`, "scheme"},
			"empty prefix":        {`{"prefixes": [""]}`, "scheme"},
			"empty host":          {`{"hosts": [""]}`, "host"},
			"host with a path":    {`{"hosts": ["a.test/1"]}`, "host"},
			"host with a scheme":  {`{"hosts": ["http://a.test"]}`, "host"},
			"empty tag":           {`{"tags": [""]}`, "1 to 256 bytes"},
			"tag of spaces":       {`{"tags": [" all "]}`, "1 to 256 bytes"},
			"overlong tag":        {`{"tags": ["all", "` + long + `"]}`, "1 to 256 bytes"},
			"one of many is bad":  {`{"all": true, "tags": ["all"], "hosts": ["a.test"], "urls": ["http://a.test/1", "x"]}`, `"x"`},
		} {
			code, result := b.nodes[1].purge(t, tt.body)
			if code != 400 || !strings.Contains(result.ID, tt.want) || len(result.ID) > 1000 {
				t.Errorf("%s: %d %.200s", name, code, result.ID)
			}
			if _, status := b.nodes[0].get(t, up, url); !strings.Contains(status, "; hit;") {
				t.Fatalf("%s: it was purged all the same", name)
			}
		}
		if n := b.nodes[1].purges[store.All].Load(); n != 0 {
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
				if got := m.purges[kind].Load(); got != want {
					t.Errorf("%s: %s: %d, want %d", m.name, kind, got, want)
				}
			}
		}
	})
}

func TestNodeThatCannotBeReachedIsNamedAndToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		deaf := b.nodes[2]
		url := b.urlOf(deaf)
		for _, m := range b.nodes {
			m.get(t, up, url)
		}
		for _, m := range b.nodes[:2] {
			b.net.part(m.addr.Addr, deaf.addr.Addr, true)
		}
		begun := time.Now()
		code, result := b.nodes[0].purge(t, `{"tags": ["all"]}`)
		if took := time.Since(begun); code != 502 || took < purgeDeadline || took > purgeDeadline+time.Millisecond || !slices.Equal(result.missing(), []string{deaf.name}) {
			t.Errorf("%d %+v after %v", code, result, took)
		}
		for _, a := range result.Nodes {
			if (a.Name == deaf.name) != (a.Error != "") {
				t.Errorf("%+v", a)
			}
		}
		for _, m := range b.nodes[:2] {
			if body, _ := m.get(t, up, url); strings.HasSuffix(body, " 1") {
				t.Errorf("%s has acknowledged and serves %q", m.name, body)
			}
		}
		for _, m := range b.nodes[:2] {
			b.net.part(m.addr.Addr, deaf.addr.Addr, false)
		}
		time.Sleep(remindEvery + purgeDeadline + time.Second)
		if body, _ := deaf.get(t, up, url); strings.HasSuffix(body, " 1") {
			t.Errorf("%s was reachable again and serves %q", deaf.name, body)
		}
		told := &b.nodes[0].reminders
		told.mu.Lock()
		defer told.mu.Unlock()
		if n := len(told.nodes); n != 0 {
			t.Errorf("%d nodes are still being told", n)
		}
	})
}

// freeze has nobody reach a node, which does not note that it runs either.
func (b *bubble) freeze(m *bubbleNode, frozen bool) {
	for _, o := range b.nodes {
		if o != m {
			b.net.part(o.addr.Addr, m.addr.Addr, frozen)
		}
	}
}

func TestNodeThatWasFrozenAsksBeforeItServesAHit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		for _, m := range b.nodes {
			m.noteBeat()
			for _, u := range pages() {
				m.get(t, up, u)
			}
		}
		frozen := b.nodes[2]
		b.freeze(frozen, true)
		code, result := b.nodes[0].purge(t, `{"hosts": ["a.test"]}`)
		if code != 502 || !slices.Equal(result.missing(), []string{frozen.name}) {
			t.Errorf("%d %+v", code, result)
		}
		time.Sleep(time.Minute)
		for _, m := range b.nodes[:2] {
			m.noteBeat()
		}
		b.freeze(frozen, false)
		// Its very first answer, before anything of it has run.
		for _, u := range pages() {
			body, status := frozen.get(t, up, u)
			if strings.HasPrefix(u, "http://a.test/") != strings.HasSuffix(body, " 2") {
				t.Errorf("%s: %q %s", u, body, status)
			}
		}
	})
}

func TestNodeThatCannotAskServesNoHits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		lonely := b.nodes[1]
		url := b.urlOf(lonely)
		lonely.noteBeat()
		lonely.get(t, up, url)
		b.freeze(lonely, true)
		time.Sleep(time.Minute)
		if _, status := lonely.get(t, up, url); !strings.Contains(status, "detail=catching-up") {
			t.Errorf("nobody has told it anything: %s", status)
		}
		b.freeze(lonely, false)
		time.Sleep(2 * time.Second)
		lonely.noteBeat()
		if _, status := lonely.get(t, up, url); !strings.Contains(status, "; hit;") {
			t.Errorf("it has been told: %s", status)
		}
		// If nobody ever answers, it goes on after a while, and at once when
		// there is nobody left to ask.
		b.freeze(lonely, true)
		time.Sleep(time.Minute)
		lonely.get(t, up, url)
		lonely.setRing([]peer.Node{lonely.addr})
		time.Sleep(2 * time.Second)
		lonely.noteBeat()
		if _, status := lonely.get(t, up, url); !strings.Contains(status, "; hit;") {
			t.Errorf("there is nobody to ask: %s", status)
		}
	})
}

func TestHealedPartitionsLearnFromEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 4, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		for _, m := range b.nodes {
			for _, u := range pages() {
				m.get(t, up, u)
			}
		}
		left, right := b.nodes[:2], b.nodes[2:]
		part := func(apart bool) {
			for _, l := range left {
				for _, r := range right {
					b.net.part(l.addr.Addr, r.addr.Addr, apart)
				}
			}
		}
		part(true)
		all := b.addrs()
		for i, m := range b.nodes {
			m.setRing(all[i/2*2 : i/2*2+2])
		}
		b.settle()
		if code, result := left[0].purge(t, `{"hosts": ["a.test"]}`); code != 200 || len(result.Nodes) != 2 {
			t.Errorf("%d %+v", code, result)
		}
		if code, _ := right[1].purge(t, `{"tags": ["page-3"]}`); code != 200 {
			t.Errorf("%d", code)
		}
		time.Sleep(time.Minute)
		part(false)
		// They notice one after the other.
		begun := time.Now()
		for _, i := range []int{2, 0, 3, 1} {
			b.nodes[i].setRing(all)
			b.settle()
		}
		for _, u := range pages() {
			purged := strings.HasPrefix(u, "http://a.test/") || strings.Contains(u, "/3?")
			for _, m := range b.nodes {
				if body, status := m.get(t, up, u); purged == strings.HasSuffix(body, " 1") {
					t.Errorf("%s: %s: %q %s", m.name, u, body, status)
				}
			}
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestNewNodeLearnsWhatItsOwnersMayNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		b.nodes[0].purge(t, `{"tags": ["all"]}`)
		b.nodes[0].invalidate(store.NewPurgeID(), b.nodes[0].handler.space, []store.Selector{{Kind: store.Tag, Value: "x"}}, time.Second)
		newcomer := b.start("newcomer", nil)
		for _, m := range b.nodes {
			m.setRing(b.addrs())
		}
		b.settle()
		if list, _ := newcomer.Purges(); len(list) != 1 || list[0].Selectors[0].Value != "all" {
			t.Errorf("it knows of %+v", list)
		}
	})
}

// A log that is too short to tell what a node has missed makes it drop
// everything.
func TestNodeThatMissedTooMuchDropsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 2, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		const url = "http://a.test/1"
		away := b.nodes[1]
		away.noteBeat()
		away.get(t, up, url)
		b.freeze(away, true)
		b.nodes[0].setRing([]peer.Node{b.nodes[0].addr})
		b.nodes[0].purge(t, `{"tags": ["all"]}`)
		large := fmt.Sprintf(`{"tags": [%s"x"]}`, strings.Repeat(`"`+strings.Repeat("x", 250)+`", `, 150))
		for range 20 {
			b.nodes[0].purge(t, large)
		}
		if list, dropped := b.nodes[0].Purges(); dropped.IsZero() || len(list) < 2 {
			t.Fatalf("%d purges are left, dropped %v", len(list), dropped)
		}
		b.nodes[0].setRing(b.addrs())
		time.Sleep(time.Minute)
		b.freeze(away, false)
		b.nodes[0].noteBeat()
		if body, status := away.get(t, up, url); !strings.HasSuffix(body, " 2") {
			t.Errorf("%q %s", body, status)
		}
		// From then on it knows all that there is to know.
		away.get(t, up, url)
		b.nodes[0].noteBeat()
		list, dropped := b.nodes[0].Purges()
		away.learnPurges(list, dropped)
		if _, status := away.get(t, up, url); !strings.Contains(status, "; hit;") {
			t.Errorf("told again what it knows: %s", status)
		}
	})
}

// A fill that began before a purge and ends after it is served to its own
// client, and stored nowhere, whoever leads it, whoever owns the key, whoever
// reads along, and whatever comes first.
func TestFillThatBeganBeforeThePurgeIsStoredNowhere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	interleavings := 10_000
	if raceDetector {
		interleavings = 1_000
	}
	const each = 500
	for first := 0; first < interleavings; first += each {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, 3, nil)
			for i := first; i < first+each; i++ {
				if err := b.interleave(t, i, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
					t.Fatalf("interleaving %d of seed %#x: %v", i, seed, err)
				}
			}
		})
	}
}

// interleave has one fill and one purge go on at the same time.
func (b *bubble) interleave(t *testing.T, i int, random *rand.Rand) error {
	const span = int(2 * time.Millisecond)
	some := func() time.Duration { return time.Duration(random.IntN(span)) }
	lags := rand.New(rand.NewPCG(random.Uint64(), 0))
	b.net.slow(func() time.Duration { return time.Duration(lags.IntN(200)) * time.Microsecond })
	url := fmt.Sprintf("http://a.test/dir%d/page", i)
	leader, purger := b.nodes[random.IntN(3)], b.nodes[random.IntN(3)]
	purge := []string{
		fmt.Sprintf(`{"urls": [%q]}`, url), fmt.Sprintf(`{"tags": ["tag%d"]}`, i),
		fmt.Sprintf(`{"prefixes": ["http://a.test/dir%d/"]}`, i),
	}[random.IntN(3)]
	pauses := []time.Duration{some(), some(), some()}
	var mu sync.Mutex                   // guards asked
	asked := make(map[string]time.Time) // by body: when its request came
	up := func(w http.ResponseWriter, r *http.Request) error {
		mu.Lock()
		body := fmt.Sprintf("fetch %d %d", i, len(asked))
		asked[body] = time.Now()
		mu.Unlock()
		time.Sleep(pauses[0])
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Surrogate-Key", fmt.Sprint("tag", i))
		_, _ = io.WriteString(w, body[:6])
		_ = http.NewResponseController(w).Flush()
		time.Sleep(pauses[1])
		_, err := io.WriteString(w, body[6:])
		return err
	}
	when, joins := some(), []time.Duration{some(), some(), some()}
	wait := followers(len(joins)+1, func(n int) *httptest.ResponseRecorder {
		if n == 0 {
			return do(leader.handler, up, request(t.Context(), url))
		}
		time.Sleep(joins[n-1])
		return do(b.nodes[n%3].handler, up, request(t.Context(), url))
	})
	time.Sleep(when)
	begun := time.Now()
	code, result := purger.purge(t, purge)
	if code != 200 {
		return fmt.Errorf("%d %+v", code, result)
	}
	time.Sleep(time.Nanosecond)
	check := func(what string, w *httptest.ResponseRecorder) error {
		mu.Lock()
		defer mu.Unlock()
		at, whole := asked[w.Body.String()]
		switch {
		case w.Code != 200 || !whole:
			return fmt.Errorf("%s: %d %q", what, w.Code, w.Body)
		case what != "" && at.Before(begun):
			return fmt.Errorf("%s got what was fetched %v before the purge (%s)", what, begun.Sub(at), w.Header().Get("Cache-Status"))
		}
		return nil
	}
	// Right after the purge, while all of it may still be on its way, and when
	// it has arrived.
	for round := range 2 {
		for _, n := range random.Perm(3) {
			m := b.nodes[n]
			if err := check(fmt.Sprintf("%s, round %d", m.name, round), do(m.handler, up, request(t.Context(), url))); err != nil {
				return err
			}
		}
		for _, w := range wait() {
			if err := check("", w); err != nil {
				return err
			}
		}
		b.settle()
	}
	return nil
}

// Merging what other nodes remember is commutative and idempotent, as far as
// anybody can see.
func TestMergingPurgesInAnyOrderComesToTheSame(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			var purges []store.Purge
			for i := range 1 + random.IntN(20) {
				purges = append(purges, store.Purge{
					ID: store.PurgeID(i + 1), Soft: random.IntN(2) == 0, At: time.Now(),
					Selectors: []store.Selector{{Kind: store.Tag, Value: fmt.Sprint("tag", random.IntN(10))}},
				})
			}
			outcome := func(parts func(*node)) (all string) {
				n := newLoneNode(t)
				space := n.store.Namespace(defaultGroup)
				for i := range 10 {
					e := entryFor(t, fmt.Sprint("http://a.test/", i), fmt.Sprint("tag", i))
					n.store.Commit(space, store.Key{byte(i)}, e, []byte("hello"))
				}
				time.Sleep(time.Second)
				parts(n)
				list, _ := n.Purges()
				for i := range 10 {
					e := n.store.Lookup(store.Key{byte(i)}, nil, time.Now()).Entry
					all += fmt.Sprint(i, ":", e != nil, e != nil && e.Fresh.TTL(time.Now()) > 0, " ")
				}
				return fmt.Sprint(all, len(list))
			}
			want := outcome(func(n *node) { n.Purge(purges) })
			got := outcome(func(n *node) {
				for range 3 { // again and again, in parts that overlap, in any order
					for _, i := range random.Perm(len(purges)) {
						from := random.IntN(i + 1)
						part := slices.Clone(purges[from : i+1])
						random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
						n.mergePurges(peer.EncodePurges(part, time.Time{}))
						time.Sleep(time.Millisecond)
					}
				}
			})
			if got != want {
				t.Errorf("seed %#x: %s, want %s", seed, got, want)
			}
		})
	}
}

func entryFor(t testing.TB, url string, tags ...string) *store.Entry {
	t.Helper()
	now := time.Now()
	e, why := store.NewEntry(200, http.Header{}, nil, rfc9111.Freshness{Received: now, Lifetime: time.Hour}, now)
	if why != rfc9111.None {
		t.Fatal(why)
	}
	e.SetLabels(url, tags, nil)
	return e
}

// A node that the others had given up serves hits again before they have it on
// their rings. A purge meanwhile succeeds without it; as soon as it is back it
// is told, since it has no reason to ask.
func TestNodeThatWasGivenUpIsToldWhatItCannotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		s := &shop{asked: make(map[string]int)}
		up := s.handler()
		givenUp := b.nodes[1]
		url := b.urlOf(givenUp)
		givenUp.get(t, up, url)
		all := b.addrs()
		for _, i := range []int{0, 2} {
			b.nodes[i].setRing([]peer.Node{all[0], all[2]})
		}
		if code, result := b.nodes[0].purge(t, `{"tags": ["all"]}`); code != 200 || len(result.Nodes) != 2 {
			t.Errorf("%d %+v", code, result)
		}
		b.nodes[2].setRing(all)
		b.settle()
		for _, i := range []int{1, 2} {
			if body, status := b.nodes[i].get(t, up, url); !strings.HasSuffix(body, " 2") {
				t.Errorf("node%d: %q %s", i, body, status)
			}
		}
	})
}
