package caddygroupcache

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// outages are upstreams that fail.
var outages = map[string]caddyhttp.HandlerFunc{
	"no connection": func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(502, io.ErrUnexpectedEOF) },
	"an answer": func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("X-Error", "yes")
		w.WriteHeader(http.StatusServiceUnavailable)
		return nil
	},
}

func TestHeadInAnOutageIsAnsweredLikeGet(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for name, down := range outages {
			for directives, want := range map[string]int{
				"max-age=0, stale-if-error=600":                  200,
				"max-age=0, stale-if-error=600, must-revalidate": 0, // the error
				"max-age=0": 0,
			} {
				t.Run(fmt.Sprintf("nodes: %d, %s, %s", nodes, name, directives), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c := newClusterInBubble(t, nodes)
						target := c.target(0)
						ask := func(i int, method string, up caddyhttp.HandlerFunc, fields ...string) *httptest.ResponseRecorder {
							r := request(t.Context(), target, fields...)
							r.Method = method
							return do(c.handlers[i], up, r)
						}
						ask(0, "GET", fixed(new(atomic.Int64), "hello", "Cache-Control", directives, "Etag", `"1"`, "X-A", "b"))
						for i := range nodes {
							get, head := ask(i, "GET", down), ask(i, "HEAD", down)
							if head.Code != get.Code || (head.Code == 200) != (want == 200) || head.Body.Len() > 0 {
								t.Errorf("node %d: GET %d, HEAD %d %q", i, get.Code, head.Code, head.Body)
							}
							for _, field := range []string{"X-A", "X-Error", "Etag", "Content-Length", "Cache-Control"} {
								if g, h := get.Header().Get(field), head.Header().Get(field); g != h {
									t.Errorf("node %d: %s of GET %q, of HEAD %q", i, field, g, h)
								}
							}
							if want == 200 {
								wantStatus(t, head, "hit; ttl=")
							}
							if known := ask(i, "HEAD", down, "Authorization", "alice"); known.Code == 200 {
								t.Errorf("node %d: with credentials: %d", i, known.Code)
							}
						}
						time.Sleep(time.Second) // for which the failure is remembered
						up := ask(0, "HEAD", fixed(new(atomic.Int64), "", "X-A", "c"))
						if up.Code != 200 || up.Header().Get("X-A") != "c" || up.Header().Get("X-Error") != "" {
							t.Errorf("after the outage: %d %v", up.Code, up.Header())
						}
					})
				})
			}
		}
	}
}

func TestStaleBesideSMaxage(t *testing.T) {
	const minute = time.Minute
	for _, tt := range []struct {
		name                     string
		directives               string
		whileRevalidate, ifError time.Duration // the operator's
		client                   string        // its Cache-Control, later
		later                    time.Duration
		atOnce, inOutage         bool // served stale
	}{
		{name: "nothing said", directives: "s-maxage=1", later: 10 * time.Second},
		{name: "as the public suite has it", directives: "max-age=2, s-maxage=2", later: 10 * time.Second},
		{name: "as the public suite has it, with the operator's if_error", directives: "max-age=2, s-maxage=2", ifError: minute, later: 10 * time.Second},
		{name: "as frameworks send it", directives: "s-maxage=1, stale-while-revalidate=60", later: 10 * time.Second, atOnce: true, inOutage: true},
		{name: "after the window", directives: "s-maxage=1, stale-while-revalidate=60", later: 2 * minute},
		{name: "a client that takes anything", directives: "s-maxage=1, stale-while-revalidate=60", client: "max-stale, stale-if-error=3600", later: 2 * minute},
		{name: "a client that takes nothing stale", directives: "s-maxage=1, stale-while-revalidate=60", client: "max-stale=0", later: 10 * time.Second},
		{name: "for errors", directives: "s-maxage=1, stale-if-error=60", later: 10 * time.Second, inOutage: true},
		{name: "the operator's while_revalidate", directives: "s-maxage=1", whileRevalidate: minute, later: 10 * time.Second, atOnce: true, inOutage: true},
		{name: "the operator's if_error", directives: "s-maxage=1", ifError: minute, later: 10 * time.Second, inOutage: true},
		{name: "the operator's, but the response says none", directives: "s-maxage=1, stale-if-error=0", ifError: minute, later: 10 * time.Second},
		{name: "must-revalidate", directives: "s-maxage=1, must-revalidate, stale-while-revalidate=60, stale-if-error=60", whileRevalidate: minute, ifError: minute, later: 10 * time.Second},
		{name: "proxy-revalidate", directives: "s-maxage=1, proxy-revalidate, stale-while-revalidate=60, stale-if-error=60", whileRevalidate: minute, ifError: minute, later: 10 * time.Second},
		{name: "no-cache", directives: "no-cache, s-maxage=1, stale-if-error=60", ifError: minute, later: 10 * time.Second},
	} {
		for _, nodes := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, nodes: %d", tt.name, nodes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newClusterInBubble(t, nodes)
					for _, h := range c.handlers {
						h.policy.StaleWhileRevalidate, h.policy.StaleIfError = tt.whileRevalidate, tt.ifError
					}
					up := fixed(new(atomic.Int64), "hello", "Cache-Control", tt.directives, "Etag", `"1"`)
					slow := func(w http.ResponseWriter, r *http.Request) error {
						time.Sleep(300 * time.Millisecond)
						return fixed(new(atomic.Int64), "slow", "Cache-Control", "no-store")(w, r)
					}
					ask := func(i int, path string, up caddyhttp.HandlerFunc) *httptest.ResponseRecorder {
						r := request(t.Context(), path)
						if tt.client != "" {
							r.Header.Set("Cache-Control", tt.client)
						}
						return do(c.handlers[i], up, r)
					}
					for i, h := range c.handlers {
						do(h, up, request(t.Context(), fmt.Sprintf("/slow/%d", i)))
						do(h, up, request(t.Context(), fmt.Sprintf("/down/%d", i)))
					}
					time.Sleep(tt.later)
					for i := range c.handlers {
						start := time.Now()
						w := ask(i, fmt.Sprintf("/slow/%d", (i+1)%nodes), slow)
						if got := w.Body.String() == "hello"; got != tt.atOnce || tt.atOnce && time.Since(start) > 0 {
							t.Errorf("node %d: %q after %v", i, w.Body, time.Since(start))
						}
						w = ask(i, fmt.Sprintf("/down/%d", (i+1)%nodes), outages["no connection"])
						if got := w.Body.String() == "hello"; got != tt.inOutage {
							t.Errorf("node %d: %d %q in an outage", i, w.Code, w.Body)
						}
					}
					time.Sleep(time.Second) // until what goes on in the background is over
				})
			})
		}
	}
}

func TestExplainSaysWhatForbidsStaleness(t *testing.T) {
	for directives, want := range map[string]string{
		"s-maxage=1": "s-maxage",
		"s-maxage=1, must-revalidate, stale-while-revalidate=60": "must-revalidate",
		"s-maxage=1, proxy-revalidate":                           "proxy-revalidate",
		"s-maxage=1, stale-while-revalidate=60":                  "",
		"s-maxage=1, stale-if-error=60":                          "",
		"max-age=1":                                              "",
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), nil)
			do(h, fixed(new(atomic.Int64), "hello", "Cache-Control", directives, "Etag", `"1"`), request(t.Context(), "http://a.test/a"))
			time.Sleep(10 * time.Second)
			g, err := explainGroup(t.Context(), h, http.MethodGet, "http://a.test/a", nil)
			if err != nil || len(g.Nodes) != 1 || len(g.Nodes[0].Variants) != 1 {
				t.Fatalf("%s: %v, %+v", directives, err, g)
			}
			if got := g.Nodes[0].Variants[0].StaleForbiddenBy; got != want {
				t.Errorf("%s: %q, want %q", directives, got, want)
			}
			words := strings.Join(g.Words, "\n")
			if want != "" && !strings.Contains(words, "stale for 9s, but "+want+" forbids") || want == "" && strings.Contains(words, "forbids") {
				t.Errorf("%s: %s", directives, words)
			}
		})
	}
}
