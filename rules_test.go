package caddygroupcache

import (
	"bytes"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/rules"
)

// withRule gives a handler a response block.
func withRule(r *rules.Rule) func(*Handler) {
	return func(h *Handler) { h.Response = []*rules.Rule{r} }
}

// TestRuleOfOneHandlerIsNotAnothers: what a block lets one handler store, another one of
// the group that has none does not serve, and the other way round.
func TestRuleOfOneHandlerIsNotAnothers(t *testing.T) {
	n := newLoneNode(t)
	plain := newHandler(t, n, nil)
	for name, r := range map[string]*rules.Rule{
		"without a cookie": {StoreWithout: []string{"Set-Cookie"}, TTL: caddy.Duration(time.Hour)},
		"forced":           {TTL: caddy.Duration(time.Hour), Force: true},
		"not at all":       {NoStore: true},
	} {
		ruled := newHandler(t, n, withRule(r))
		up := fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=600")
		if name != "not at all" {
			up = fixed(new(atomic.Int64), "hello", "Set-Cookie", "a=b", "Cache-Control", "max-age=600")
		}
		if name == "forced" {
			up = fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=0")
		}
		for range 2 {
			do(ruled, up, request(t.Context(), "/"+name[:3]))
			do(plain, up, request(t.Context(), "/"+name[:3]))
		}
		for h, who := range map[*Handler]string{ruled: "ruled", plain: "plain"} {
			hit := do(h, up, request(t.Context(), "/"+name[:3])).Header().Get("Age") != ""
			if want := (who == "ruled") != (name == "not at all"); hit != want {
				t.Errorf("%s, %s: hit %v", name, who, hit)
			}
		}
	}
}

// TestRuleBeforeAnotherCounts: what one handler stores by a rule that stands before no_store,
// a handler without that rule does not serve.
func TestRuleBeforeAnotherCounts(t *testing.T) {
	n := newLoneNode(t)
	nothing := &rules.Rule{NoStore: true}
	first := &rules.Rule{Match: &caddyhttp.ResponseMatcher{StatusCode: []int{200}}, TTL: caddy.Duration(time.Hour)}
	some := newHandler(t, n, func(h *Handler) { h.Response = []*rules.Rule{first, nothing} })
	none := newHandler(t, n, withRule(nothing))
	var calls atomic.Int64
	up := fixed(&calls, "hello", "Cache-Control", "max-age=600")
	for range 2 {
		do(some, up, request(t.Context(), "/"))
		do(none, up, request(t.Context(), "/"))
	}
	if calls.Load() != 3 {
		t.Errorf("%d fetches, want one of the handler that stores and two of the other", calls.Load())
	}
}

// TestRuleOfParts: a part far into a response is stored as the block says, like the whole.
func TestRuleOfParts(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 300_000)
	for name, tt := range map[string]struct {
		rule   rules.Rule
		stored bool
	}{
		"not stored": {rules.Rule{NoStore: true}, false},
		"stored":     {rules.Rule{TTL: caddy.Duration(time.Hour), Force: true, StoreWithout: []string{"Set-Cookie"}}, true},
	} {
		n := newLoneNode(t)
		h := newHandler(t, n, withRule(&tt.rule))
		var asked atomic.Int64
		up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			asked.Add(1)
			w.Header().Set("Etag", `"1"`)
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set("Content-Type", "video/mp4")
			w.Header().Set("Cache-Control", "max-age=0")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
			return nil
		})
		if tt.stored { // the cookie would keep it out, and so would its age
			if w := do(newHandler(t, newLoneNode(t), nil), up, request(t.Context(), "/a", farPart...)); w.Code != http.StatusPartialContent {
				t.Errorf("without a block: %d", w.Code)
			}
		}
		asked.Store(0)
		var last string
		for range 3 {
			w := do(h, up, request(t.Context(), "/a", farPart...))
			if w.Code != http.StatusPartialContent || w.Body.String() != string(body[2500000:2500010]) {
				t.Errorf("%s: %d, %d bytes", name, w.Code, w.Body.Len())
			}
			last = w.Header().Get("Cache-Status")
		}
		if stored := asked.Load() == 2; stored != tt.stored { // the first chunk, and that with the part
			t.Errorf("%s: the upstream was asked %d times, %s", name, asked.Load(), last)
		}
	}
}
