package caddygroupcache

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestURLIsDroppedWhateverElseIsInItsKeys: a purge, and a change, drop what is stored of a
// URL, though the key leaves out a part of its query, and has something that the request
// lacks which purges or changes: a proxy's field, a Host in another case.
func TestURLIsDroppedWhateverElseIsInItsKeys(t *testing.T) {
	const token = "Bearer " + purgeToken
	stored := map[string]struct {
		query  *Query
		search string // No-Vary-Search
		asked  []string
		drop   string
	}{
		"as it came":      {nil, "", []string{"/p?utm=1"}, "/p?utm=1"},
		"query ignore":    {&Query{Ignore: []string{"utm"}}, "", []string{"/p?utm=1"}, "/p"},
		"query only":      {&Query{Only: []string{"id"}}, "", []string{"/p?id=1&utm=1"}, "/p?x=1&id=1"},
		"query sort":      {&Query{Sort: true}, "", []string{"/p?b=1&a=1"}, "/p?a=1&b=1"},
		"no-vary-search":  {nil, `params=("utm")`, []string{"/p?utm=1", "/p?utm=2", "/p"}, "/p"},
		"both":            {&Query{Ignore: []string{"id"}}, `params=("utm")`, []string{"/p?id=1&utm=1", "/p"}, "/p?utm=2"},
		"told by another": {nil, `params=("utm")`, []string{"/p?utm=2", "/p?utm=1"}, "/p?utm=1"},
	}
	ways := map[string]func(*testing.T, *bubble, string) int{
		"command": func(t *testing.T, b *bubble, target string) int {
			code, _ := b.nodes[1].purge(t, `{"urls": ["http://a.test`+target+`"]}`)
			return code
		},
		"PURGE": func(t *testing.T, b *bubble, target string) int {
			return purgeBy(t, b.nodes[1].handler, "PURGE", "http://a.test"+target, "Authorization", token).Code
		},
		"POST": func(t *testing.T, b *bubble, target string) int {
			return purgeBy(t, b.nodes[1].handler, http.MethodPost, "http://a.test"+target).Code
		},
		"Location": func(t *testing.T, b *bubble, target string) int {
			r := request(t.Context(), "http://a.test/form")
			r.Method = http.MethodPost
			return do(b.nodes[1].handler, fixed(new(atomic.Int64), "", "Location", target), r).Code
		},
	}
	clients := map[string][2]string{"field of a proxy": {"http://a.test", "https"}, "host": {"http://A.test", ""}}
	for name, one := range stored {
		for way, drop := range ways {
			for client, by := range clients {
				t.Run(strings.Join([]string{name, way, client}, ", "), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						purges := withPurge(t, nil)
						b := newBubble(t, 3, func(h *Handler) { purges(h); h.Query = one.query })
						var calls atomic.Int64
						page := "old"
						fields := []string{"Cache-Control", "max-age=60"}
						if one.search != "" {
							fields = append(fields, "No-Vary-Search", one.search)
						}
						all := func() (fetches int64) {
							before := calls.Load()
							for _, m := range b.nodes {
								for _, target := range one.asked {
									if got, status := m.get(t, fixed(&calls, page, fields...), by[0]+target, "X-Forwarded-Proto", by[1]); got != page {
										t.Errorf("%s: %s is %q (%s)", m.Name, target, got, status)
									}
								}
							}
							return calls.Load() - before
						}
						if first, again := all(), all(); first == 0 || again != 0 {
							t.Fatalf("%d fetches, and then %d", first, again)
						}
						if code := drop(t, b, one.drop); code != 200 {
							t.Fatal(code)
						}
						page = "new"
						all()
					})
				})
			}
		}
	}
}
