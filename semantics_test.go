package caddygroupcache

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// compressing is an upstream that takes the first of its codings that the
// client accepts.
func compressing(calls *atomic.Int64, offers ...string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		for _, coding := range offers {
			if strings.Contains(r.Header.Get("Accept-Encoding"), coding) {
				return fixed(calls, coding, "Cache-Control", "max-age=60", "Vary", "Accept-Encoding", "Content-Encoding", coding)(w, r)
			}
		}
		return fixed(calls, "plain", "Cache-Control", "max-age=60", "Vary", "Accept-Encoding")(w, r)
	}
}

func TestCodingsAreSharedAsFarAsTheUpstreamOffersThem(t *testing.T) {
	tests := []struct {
		name     string
		offers   []string
		requests []string // Accept-Encoding, and after a > whether it is fetched and in what coding
	}{
		{"one coding", []string{"gzip"}, []string{
			"gzip, deflate, br, zstd > fetched gzip", "gzip > hit gzip", "br,gzip > hit gzip", "GZIP, Deflate > hit gzip",
			"gzip;q=0.1 > fetched gzip", " > fetched plain", "br > fetched plain",
		}},
		{"none", nil, []string{"gzip, br > fetched plain", " > hit plain", "br > hit plain", "identity;q=0 > fetched plain"}},
		{"two", []string{"br", "gzip"}, []string{
			"gzip, br > fetched br", "gzip > fetched gzip", "br > hit br", "gzip, deflate > fetched gzip", "deflate > fetched plain",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, 3)
			target := c.target(1)
			for i, step := range tt.requests {
				var calls atomic.Int64
				accept, want, _ := strings.Cut(step, " > ")
				w := do(c.handlers[i%3], compressing(&calls, tt.offers...), request(t.Context(), target, "Accept-Encoding", accept))
				got := "hit " + w.Body.String()
				if calls.Load() > 0 {
					got = "fetched " + w.Body.String()
				}
				if got != want {
					t.Errorf("%q: %s, want %s; %v", accept, got, want, w.Header())
				}
			}
		})
	}
}

func TestCookiesAndCredentialsAreSharedOnlyWhenTheOperatorSaysSo(t *testing.T) {
	for _, tt := range []struct {
		name    string
		set     func(*Handler)
		fetches int64
		cookie  bool
	}{
		{"by default", nil, 4, true},
		{"set_cookie store", func(h *Handler) { h.SetCookie = storeCookies }, 3, true},
		{"authorization ignore", func(h *Handler) { h.Authorization = ignoreCredentials }, 4, true},
		{"both", func(h *Handler) { h.SetCookie, h.Authorization = storeCookies, ignoreCredentials }, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), tt.set)
			var calls atomic.Int64
			up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "Set-Cookie", "a=b")
			var last *httptest.ResponseRecorder
			for _, credentials := range []string{"alice", "bob", "", ""} {
				r := request(t.Context(), "/a")
				if credentials != "" {
					r.Header.Set("Authorization", credentials)
				}
				last = do(h, up, r)
			}
			if calls.Load() != tt.fetches || (last.Header().Get("Set-Cookie") == "a=b") != tt.cookie {
				t.Errorf("%d fetches, want %d; %v", calls.Load(), tt.fetches, last.Header())
			}
		})
	}
}

func TestQueriesThatTheUpstreamCallsEquivalentShareAResponse(t *testing.T) {
	type step struct{ query, want string }
	tests := []struct {
		name  string
		field string // No-Vary-Search
		steps []step
	}{
		{"some parameters", `params=("utm" "x y")`, []step{
			{"?id=1&utm=a", "fetched"}, {"?id=1&utm=b", "hit"}, {"?utm=c&id=1", "hit"}, {"?id=1", "hit"}, {"?id=1&x+y=1", "hit"}, {"?id=1&utm=a", "hit"},
			{"?id=2&utm=a", "fetched"}, {"?id=2", "hit"}, {"?id=1&utmost=1", "fetched"}, {"", "fetched"}, {"?utm=1", "hit"},
		}},
		{"all but one", `params, except=("id")`, []step{{"", "fetched"}, {"?a=1", "hit"}, {"?id=1", "fetched"}, {"?b&id=1", "hit"}}},
		{"order", "key-order", []step{{"?a=1&b=2", "fetched"}, {"?b=2&a=1", "hit"}, {"?a=1", "fetched"}}},
		{"broken", `params=("a"`, []step{{"?a=1", "fetched"}, {"?a=2", "fetched"}, {"?a=1", "hit"}}},
		{"no word of it", "", []step{{"?a=1&b=2", "fetched"}, {"?b=2&a=1", "fetched"}, {"?a=1&b=2", "hit"}}},
	}
	for _, tt := range tests {
		for nodes := 1; nodes <= 3; nodes += 2 {
			t.Run(fmt.Sprintf("%s, nodes: %d", tt.name, nodes), func(t *testing.T) {
				c := newCluster(t, nodes)
				for i, s := range tt.steps {
					var calls atomic.Int64
					up := fixed(&calls, s.query, "Cache-Control", "max-age=60")
					if tt.field != "" {
						up = fixed(&calls, s.query, "Cache-Control", "max-age=60", "No-Vary-Search", tt.field)
					}
					w := do(c.handlers[i%nodes], up, request(t.Context(), "/a"+s.query))
					got := "hit"
					if calls.Load() > 0 {
						got = "fetched"
					}
					if got != s.want || w.Code != 200 {
						t.Errorf("%d: %q on node %d: %s, want %s; %d %v", i, s.query, i%nodes, got, s.want, w.Code, w.Header())
					}
				}
			})
		}
	}
}

func TestQueriesThatAreNoLongerEquivalent(t *testing.T) {
	c := newCluster(t, 3)
	var calls atomic.Int64
	field := `params=("x")`
	up := func(w http.ResponseWriter, r *http.Request) error {
		fields := []string{"Cache-Control", "max-age=60"}
		if field != "" {
			fields = append(fields, "No-Vary-Search", field)
		}
		return fixed(&calls, r.URL.RawQuery, fields...)(w, r)
	}
	get := func(i int, query, want string) {
		t.Helper()
		if w := do(c.handlers[i], up, request(t.Context(), "/a?"+query)); w.Body.String() != want {
			t.Errorf("%s on node %d: got %q", query, i, w.Body)
		}
	}
	get(0, "x=1", "x=1")
	get(1, "x=2", "x=1")
	field = ""
	// Nobody can know yet, and what is stored is fresh.
	get(2, "x=3", "x=1")
	// Another parameter shows it, on the node that fetches.
	get(0, "y=1", "y=1")
	get(0, "x=4", "x=4")
	get(0, "x=5", "x=5")
	// On the others what was said holds for what is stored, and for nothing new.
	get(1, "x=6", "x=1")
	get(1, "y=2", "y=2")
	get(1, "x=7", "x=7")
	get(2, "y=2&x=8", "y=2&x=8")
	// A change of the resource reaches all of it.
	field = `params=("x")`
	get(0, "z=1&x=1", "z=1&x=1")
	post := request(t.Context(), "/a?z=1&x=2")
	post.Method = http.MethodPost
	do(c.handlers[1], up, post)
	get(0, "z=1&x=1", "z=1&x=1")
	get(2, "z=1&x=3", "z=1&x=1")
	if n := calls.Load(); n != 10 {
		t.Errorf("%d requests at the upstream", n)
	}
}

func TestNoVarySearchHasNoEffectOnAKeyOfOnesOwn(t *testing.T) {
	h := newHandler(t, newLoneNode(t), func(h *Handler) { h.Key = "{http.request.uri}" })
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "No-Vary-Search", "params")
	for _, query := range []string{"?a", "?b", "?a"} {
		r := request(t.Context(), "/a"+query)
		replacer(r).Set("http.request.uri", "/a"+query)
		do(h, up, r)
	}
	if calls.Load() != 2 {
		t.Errorf("%d fetches", calls.Load())
	}
}

func TestHeadUpdatesTheStoredResponse(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tag     string // of the response to HEAD
		fetches int64  // by the GET after it
	}{
		{"the same", `"1"`, 0},
		{"another", `"2"`, 1},
		{"unclear", "", 1},
	} {
		for asked := range 2 { // the owner, and another node
			t.Run(fmt.Sprintf("%s, node %d", tt.name, asked), func(t *testing.T) {
				c := newCluster(t, 2)
				target := c.target(0)
				var calls, validations atomic.Int64
				up := func(w http.ResponseWriter, r *http.Request) error {
					fields := []string{"Cache-Control", "max-age=0", "Etag", `"1"`}
					if r.Method == http.MethodHead {
						fields = []string{"Cache-Control", "max-age=60", "Etag", tt.tag, "X-New", "1"}
					}
					if r.Header.Get("If-None-Match") != "" {
						validations.Add(1)
					}
					return fixed(&calls, "hello", fields...)(w, r)
				}
				do(c.handlers[0], up, request(t.Context(), target))
				head := request(t.Context(), target)
				head.Method = http.MethodHead
				do(c.handlers[asked], up, head)
				calls.Store(0)
				for i, h := range c.handlers {
					w := do(h, up, request(t.Context(), target))
					if calls.Load() != tt.fetches*int64(i+1) || w.Body.String() != "hello" || tt.fetches == 0 && w.Header().Get("X-New") != "1" {
						t.Errorf("node %d: %d fetches, want %d for each; %v", i, calls.Load(), tt.fetches, w.Header())
					}
					if i == 0 && (validations.Load() > 0) != (tt.name == "unclear") {
						t.Errorf("%d validations", validations.Load())
					}
				}
			})
		}
	}
}

func TestLanguagesAreSharedAsFarAsTheUpstreamIsKnownToHaveThem(t *testing.T) {
	c := newCluster(t, 3)
	target := c.target(1)
	for i, step := range []struct{ accept, kind, want string }{
		{"de, en;q=0.5", "", "fetched de"},
		{"en;q=0.5,de", "", "hit de"},
		{"fr;q=0.8, de", "", "hit de"},
		{"de", "", "hit de"},
		{"de", "a=b", "fetched de"},
		{"fr, de", "", "fetched fr"},
		{"en", "", "fetched en"},
		{"en;q=0.2, fr", "", "hit fr"},
		{"", "", "fetched "},
	} {
		var calls atomic.Int64
		language := strings.TrimSpace(step.accept[:min(len(step.accept), 2)])
		up := fixed(&calls, language, "Cache-Control", "max-age=60", "Vary", "Accept-Language, X-Kind", "Content-Language", language)
		w := do(c.handlers[i%3], up, request(t.Context(), target, "Accept-Language", step.accept, "X-Kind", step.kind))
		got := "hit " + w.Body.String()
		if calls.Load() > 0 {
			got = "fetched " + w.Body.String()
		}
		if got != step.want {
			t.Errorf("%d: %q: %s, want %s", i, step.accept, got, step.want)
		}
	}
}

func TestResponseToAPostCanAnswerAGet(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		fields []string
		kept   bool
	}{
		{"as it should be", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=60"}, true},
		{"with an absolute location", 200, []string{"Content-Location", "http://example.com/made", "Expires", "Fri, 31 Dec 2049 23:59:59 GMT"}, true},
		{"of another place", 200, []string{"Content-Location", "/other", "Cache-Control", "max-age=60"}, false},
		{"of another host", 200, []string{"Content-Location", "http://elsewhere.test/made", "Cache-Control", "max-age=60"}, false},
		{"no location", 200, []string{"Cache-Control", "max-age=60"}, false},
		{"no freshness", 200, []string{"Content-Location", "/made", "Last-Modified", "Fri, 01 Jan 2016 00:00:00 GMT"}, false},
		{"stale", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=0", "Etag", `"a"`}, false},
		{"private", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=60, private"}, false},
		{"created", 201, []string{"Content-Location", "/made", "Cache-Control", "max-age=60"}, false},
		{"an error", 500, []string{"Content-Location", "/made", "Cache-Control", "max-age=60"}, false},
		{"too long", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=60", "X-Body", strings.Repeat("x", 2000)}, false},
		{"for what the request's cookie says", 200, []string{"Content-Location", "/made", "Cache-Control", "max-age=60", "Vary", "Cookie"}, false},
	} {
		for nodes := 1; nodes <= 3; nodes += 2 {
			t.Run(fmt.Sprintf("%s, nodes: %d", tt.name, nodes), func(t *testing.T) {
				for poster := range nodes {
					c := newCluster(t, nodes) // a purge just before would be one too many
					h := c.handlers[poster]
					h.MaxBodySize = 1000
					path := fmt.Sprintf("/made%d", poster)
					fields := slices.Clone(tt.fields)
					for i := range fields {
						fields[i] = strings.Replace(fields[i], "/made", path, 1)
					}
					var calls atomic.Int64
					up := func(w http.ResponseWriter, r *http.Request) error {
						if r.Method == http.MethodGet {
							return fixed(&calls, "got", "Cache-Control", "max-age=60")(w, r)
						}
						for i := 0; i < len(fields); i += 2 {
							w.Header().Set(fields[i], fields[i+1])
						}
						w.WriteHeader(tt.status)
						io.WriteString(w, "posted")
						io.WriteString(w, w.Header().Get("X-Body"))
						return nil
					}
					do(h, up, request(t.Context(), path)) // what is stored goes
					post := request(t.Context(), path, "Cookie", "a=b")
					post.Method, post.Body, post.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader("x")), 1
					w := do(h, up, post)
					if !strings.HasPrefix(w.Body.String(), "posted") || strings.Contains(w.Header().Get("Cache-Status"), "stored") != (tt.kept || tt.name == "too long" || strings.HasPrefix(tt.name, "for ")) {
						t.Errorf("%q %v", w.Body, w.Header())
					}
					calls.Store(0)
					for i, other := range c.handlers {
						w := do(other, up, request(t.Context(), path))
						if kept := w.Body.String() == "posted"; kept != tt.kept || kept && calls.Load() > 0 {
							t.Errorf("posted at node %d, node %d: %q after %d fetches; %v", poster, i, w.Body, calls.Load(), w.Header())
						}
					}
				}
			})
		}
	}
}

func TestResponseToAPostIsNotKeptIfAnythingElseWasPurgedMeanwhile(t *testing.T) {
	for nodes := 1; nodes <= 2; nodes++ {
		c := newCluster(t, nodes)
		for owner := range nodes {
			path := c.target(owner)
			var calls atomic.Int64
			post := request(t.Context(), path)
			post.Method = http.MethodPost
			do(c.handlers[0], func(w http.ResponseWriter, r *http.Request) error {
				c.nodes[0].purge([]store.Purge{{ID: store.NewPurgeID(), Selectors: []store.Selector{{Kind: store.Tag, Value: "t"}}}})
				return fixed(&calls, "posted", "Content-Location", path, "Cache-Control", "max-age=60", "Cache-Tag", "t")(w, r)
			}, post)
			for i, h := range c.handlers {
				if w := do(h, fixed(&calls, "got", "Cache-Control", "max-age=60"), request(t.Context(), path)); w.Body.String() != "got" {
					t.Errorf("node %d of %d served %q", i, nodes, w.Body)
				}
			}
		}
	}
}
