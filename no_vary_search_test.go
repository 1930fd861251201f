package caddygroupcache

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
)

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
		{"all but one", `except=("id")`, []step{{"", "fetched"}, {"?a=1", "hit"}, {"?id=1", "fetched"}, {"?b&id=1", "hit"}, {"?id=2&b", "fetched"}, {"?id=2", "hit"}}},
		{"none counts", "except=()", []step{{"?a=1", "fetched"}, {"?b=1", "hit"}, {"", "hit"}}},
		{"both", `params=("a"), except=("id")`, []step{{"?a=1", "fetched"}, {"?a=2", "fetched"}, {"?a=1", "hit"}}},
		{"all but one, as earlier drafts had it", `params, except=("id")`, []step{{"?a=1", "fetched"}, {"?a=2", "fetched"}, {"?a=1", "hit"}}},
		{"all, as earlier drafts had it", "params", []step{{"?a=1", "fetched"}, {"?a=2", "fetched"}, {"?a=1", "hit"}}},
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
	up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "No-Vary-Search", "except=()")
	for _, query := range []string{"?a", "?b", "?a"} {
		r := request(t.Context(), "/a"+query)
		replacer(r).Set("http.request.uri", "/a"+query)
		do(h, up, r)
	}
	if calls.Load() != 2 {
		t.Errorf("%d fetches", calls.Load())
	}
}
