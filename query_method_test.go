package caddygroupcache

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// aQuery returns a QUERY as Caddy would hand it to the handler.
func aQuery(ctx context.Context, target, content string, fields ...string) *http.Request {
	r := request(ctx, target, fields...)
	body := httptest.NewRequest(rfc9111.MethodQuery, target, strings.NewReader(content))
	r.Method, r.Body, r.ContentLength = body.Method, body.Body, body.ContentLength
	return r
}

// echo is an upstream that answers with what it was asked.
func echo(calls *atomic.Int64, fields ...string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		return fixed(calls, fmt.Sprintf("%s %q of %s", r.Method, content, r.Header.Get("Content-Type")), fields...)(w, r)
	}
}

// TestQueryIsStoredByItsContent: and by what tells its meaning; each is its own, and no
// GET's.
func TestQueryIsStoredByItsContent(t *testing.T) {
	json := []string{"Content-Type", "application/json"}
	different := map[string]func(ctx context.Context) *http.Request{
		"content":         func(ctx context.Context) *http.Request { return aQuery(ctx, "/a", "b", json...) },
		"no content":      func(ctx context.Context) *http.Request { return aQuery(ctx, "/a", "", json...) },
		"Content-Type":    func(ctx context.Context) *http.Request { return aQuery(ctx, "/a", "a", "Content-Type", "text/plain") },
		"no Content-Type": func(ctx context.Context) *http.Request { return aQuery(ctx, "/a", "a") },
		"Content-Encoding": func(ctx context.Context) *http.Request {
			return aQuery(ctx, "/a", "a", append(json, "Content-Encoding", "gzip")...)
		},
		"Content-Language": func(ctx context.Context) *http.Request {
			return aQuery(ctx, "/a", "a", append(json, "Content-Language", "de")...)
		},
		"target": func(ctx context.Context) *http.Request { return aQuery(ctx, "/b", "a", json...) },
		"method": func(ctx context.Context) *http.Request { return request(ctx, "/a", json...) },
	}
	for name, other := range different {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler(t, newLoneNode(t), nil)
				var calls atomic.Int64
				up := echo(&calls, "Cache-Control", "max-age=60")
				wantStatus(t, do(h, up, aQuery(t.Context(), "/a", "a", json...)), "fwd=uri-miss; fwd-status=200; stored")
				wantStatus(t, do(h, up, other(t.Context())), "fwd=uri-miss; fwd-status=200; stored")
				w := do(h, up, aQuery(t.Context(), "/a", "a", json...))
				wantStatus(t, w, "hit")
				if want := `QUERY "a" of application/json`; w.Body.String() != want || calls.Load() != 2 {
					t.Errorf("got %q after %d requests, want %q after 2", w.Body, calls.Load(), want)
				}
			})
		})
	}
}

// TestClientsShareOneQuery: a hundred of them on three nodes, at the same time.
func TestClientsShareOneQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 3, nil)
		var calls atomic.Int64
		answer := echo(&calls, "Cache-Control", "max-age=60")
		up := func(w http.ResponseWriter, r *http.Request) error {
			time.Sleep(100 * time.Millisecond)
			return answer(w, r)
		}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				w := do(b.nodes[i%3].handler, up, aQuery(t.Context(), "http://a.test/search", "one"))
				if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"one"`) {
					t.Errorf("client %d got %d %q", i, w.Code, w.Body)
				}
			})
		}
		all.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("the upstream was asked %d times", n)
		}
		b.settle()
	})
}

// TestQueryThatPasses: with the content that it came with.
func TestQueryThatPasses(t *testing.T) {
	large := strings.Repeat("x", inbound.MaxContent+1)
	for name, test := range map[string]struct {
		r    func(ctx context.Context) *http.Request
		set  func(*Handler)
		want string
	}{
		"too large":          {r: func(ctx context.Context) *http.Request { return aQuery(ctx, "/a", large) }, want: "fwd=bypass; fwd-status=200; detail=request-body"},
		"large, length told": {r: func(ctx context.Context) *http.Request { r := aQuery(ctx, "/a", large); r.ContentLength = -1; return r }, want: "detail=request-body"},
		"incremental":        {r: func(ctx context.Context) *http.Request { return aQuery(ctx, "/a", "a", "Incremental", "?1") }, want: "detail=request-body"},
		"range":              {r: func(ctx context.Context) *http.Request { return aQuery(ctx, "/a", "a", "Range", "bytes=0-0") }, want: "detail=request-body"},
		"switched off":       {r: func(ctx context.Context) *http.Request { return aQuery(ctx, "/a", "a") }, set: func(h *Handler) { h.QueryMethod = queryMethodOff }, want: "fwd=method"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandler(t, newLoneNode(t), test.set)
			var calls atomic.Int64
			for range 2 {
				r := test.r(t.Context())
				want, _ := io.ReadAll(test.r(t.Context()).Body)
				w := do(h, echo(&calls, "Cache-Control", "max-age=60"), r)
				wantStatus(t, w, test.want)
				if !strings.HasPrefix(w.Body.String(), fmt.Sprintf("QUERY %q", want)) {
					t.Errorf("the upstream got something else: %.40q", w.Body)
				}
			}
		})
	}
}

// TestQueryIsRepeatedWithItsContent: when it is validated, refreshed in the background, or
// asked again because what was waited for came to nothing.
func TestQueryIsRepeatedWithItsContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		asked := func(want string) {
			t.Helper()
			before := calls.Load()
			up := echo(&calls, "Cache-Control", "max-age=1, stale-while-revalidate=10", "Etag", `"1"`)
			w := do(h, up, aQuery(t.Context(), "/a", "a"))
			synctest.Wait()
			wantStatus(t, w, want)
			if !strings.HasPrefix(w.Body.String(), `QUERY "a"`) {
				t.Errorf("%s: got %q", want, w.Body)
			}
			if want != "hit; ttl=1" && calls.Load() == before {
				t.Errorf("%s: the upstream was not asked", want)
			}
		}
		asked("stored")
		time.Sleep(3 * time.Second)
		asked("hit; ttl=-") // and refreshed
		asked("hit; ttl=1")
		time.Sleep(20 * time.Second)
		asked("fwd=stale")
	})
}

// TestChangeDropsQueries: what an unsafe request to the target has changed, and what is
// purged by its URL.
func TestChangeDropsQueries(t *testing.T) {
	for name, change := range map[string]func(h *Handler){
		"POST": func(h *Handler) {
			r := request(context.Background(), "http://a.test/a")
			r.Method = http.MethodPost
			do(h, fixed(new(atomic.Int64), ""), r)
		},
		"purge by URL": func(h *Handler) {
			h.node.Purger.Invalidate(store.NewPurgeID(), h.space, []store.Selector{{Kind: store.URL, Value: "http://a.test/a"}}, time.Second)
		},
	} {
		for key, template := range map[string]string{"default key": "", "template": "{http.request.uri.path}"} {
			t.Run(name+", "+key, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBubble(t, 3, func(h *Handler) { h.Key = template; h.PeerTimeout = caddy.Duration(time.Second) })
					var calls atomic.Int64
					up := echo(&calls, "Cache-Control", "max-age=60")
					for _, m := range b.nodes {
						do(m.handler, up, aQuery(t.Context(), "http://a.test/a", "a"))
					}
					change(b.nodes[0].handler)
					for i, m := range b.nodes {
						want := "hit"
						if i == 0 {
							want = "stored"
						}
						wantStatus(t, do(m.handler, up, aQuery(t.Context(), "http://a.test/a", "a")), want)
					}
					b.settle()
				})
			})
		}
	}
}

// TestUsersOfOneQueryGetTheirOwn: users with cookies ask the same at the same time, cold
// and stale, and the upstream has not said that its answer is for all.
func TestUsersOfOneQueryGetTheirOwn(t *testing.T) {
	for _, control := range []string{"", "no-cache", "private, max-age=60", "max-age=0, must-revalidate"} {
		for _, nodes := range []int{1, 3} {
			t.Run(fmt.Sprintf("%q, %d nodes", control, nodes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBubble(t, nodes, nil)
					up := func(w http.ResponseWriter, r *http.Request) error {
						time.Sleep(100 * time.Millisecond)
						cookie := r.Header.Get("Cookie")
						w.Header().Set("Etag", fmt.Sprintf("W/%q", cookie))
						if control != "" {
							w.Header().Set("Cache-Control", control)
						}
						return fixed(new(atomic.Int64), cookie)(w, r)
					}
					for range 2 { // cold, then with something stored
						var all sync.WaitGroup
						for i := range 12 {
							all.Go(func() {
								user := fmt.Sprintf("user=%d", i%6)
								w := do(b.nodes[i%nodes].handler, up, aQuery(t.Context(), "http://a.test/search", "one", "Cookie", user))
								if w.Code != http.StatusOK || w.Body.String() != user {
									t.Errorf("%s got %d %q (%s)", user, w.Code, w.Body, w.Header().Get("Cache-Status"))
								}
							})
						}
						all.Wait()
					}
					b.settle()
				})
			})
		}
	}
}
