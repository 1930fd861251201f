package caddygroupcache

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestVariants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		var calls atomic.Int64
		up := func(w http.ResponseWriter, r *http.Request) error {
			calls.Add(1)
			time.Sleep(time.Second)
			return fixed(new(atomic.Int64), r.Header.Get("X-Lang"), "Cache-Control", "max-age=60", "Vary", "X-Lang")(w, r)
		}
		for round := range 2 {
			wait := followers(90, func(i int) *httptest.ResponseRecorder {
				return do(h, up, request(t.Context(), "/a", "X-Lang", strconv.Itoa(i%3)))
			})
			for i, w := range wait() {
				if w.Body.String() != strconv.Itoa(i%3) {
					t.Errorf("round %d: client %d got %q", round, i, w.Body)
				}
			}
			if n := calls.Load(); n != 3 {
				t.Errorf("round %d: %d fetches for 3 variants", round, n)
			}
		}
		wantStatus(t, do(h, up, request(t.Context(), "/a", "X-Lang", "new")), "fwd=vary-miss")
	})
}

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

// preferring is an upstream that answers with the first of its offers that the
// field of a request names, as Express and others choose among equals.
func preferring(calls *atomic.Int64, field string, offers ...string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		for member := range strings.SplitSeq(r.Header.Get(field), ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(member), ";")
			if slices.Contains(offers, name) {
				kind := map[string]string{"Accept": "Content-Type", "Accept-Language": "Content-Language"}[field]
				return fixed(calls, name, "Cache-Control", "max-age=60", "Vary", field, kind, name)(w, r)
			}
		}
		return fixed(calls, "none", "Cache-Control", "max-age=60", "Vary", field)(w, r)
	}
}

func TestOrderOfWhatAClientAcceptsCounts(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		c := newCluster(t, nodes)
		var calls atomic.Int64
		types := preferring(&calls, "Accept", "text/html", "application/json")
		languages := preferring(&calls, "Accept-Language", "de", "en")
		for i, step := range []struct {
			field, value string
			up           func(http.ResponseWriter, *http.Request) error
			fetched      bool
			want         string
		}{
			{"Accept", "text/html, application/json", types, true, "text/html"},
			{"Accept", "application/json, text/html", types, true, "application/json"},
			{"Accept", "application/json,Text/HTML;q=1.0", types, false, "application/json"},
			{"Accept", "text/html, application/json", types, false, "text/html"},
			{"Accept-Language", "de, en", languages, true, "de"},
			{"Accept-Language", "en, de", languages, true, "en"},
			{"Accept-Language", "EN,de", languages, false, "en"},
			{"Accept-Language", "en;q=0.5, de;q=0.5", languages, true, "en"},
			{"Accept-Language", "de;q=0.50, en;q=0.50", languages, true, "de"},
		} {
			before := calls.Load()
			w := do(c.handlers[i%nodes], step.up, request(t.Context(), "/"+step.field, step.field, step.value))
			if fetched := calls.Load() > before; fetched != step.fetched || w.Body.String() != step.want {
				t.Errorf("nodes: %d, %s: %s: got %q, want %q; fetched: %v", nodes, step.field, step.value, w.Body, step.want, fetched)
			}
		}
	}
}

func TestResponseWithoutALanguageIsForReadersOfAll(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		c := newCluster(t, nodes)
		var calls atomic.Int64
		up := fixed(&calls, "hello", "Cache-Control", "max-age=60", "Vary", "Accept-Language")
		for i, step := range []struct {
			accept  string
			fetches int64
		}{{"en, de;q=0.5", 1}, {"de;q=0.5, en", 1}, {"de;q=0.50,EN", 1}, {"de, en;q=0.5", 2}, {"en", 3}, {"en, de;q=0.5", 3}} {
			do(c.handlers[i%nodes], up, request(t.Context(), "/a", "Accept-Language", step.accept))
			if calls.Load() != step.fetches {
				t.Errorf("nodes: %d, %s: %d fetches, want %d", nodes, step.accept, calls.Load(), step.fetches)
			}
		}
	}
}
