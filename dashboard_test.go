package caddygroupcache

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestDashboardPage: one page that names nothing outside of itself, under a
// policy that lets in nothing else.
func TestDashboardPage(t *testing.T) {
	w := httptest.NewRecorder()
	if err := new(adminAPI).dashboard(w, httptest.NewRequest(http.MethodGet, "/groupcache/", nil)); err != nil {
		t.Fatal(err)
	}
	page := w.Body.String()
	for _, outside := range []string{`src=`, `@import`, `url(`, `<iframe`, `style="`, ` onclick`, ` onload`, `innerHTML`, `eval(`} {
		if strings.Contains(page, outside) {
			t.Errorf("the page has %s", outside)
		}
	}
	for _, address := range regexp.MustCompile(`(?:https?:)?//[a-z][^'" <]*`).FindAllString(page, -1) {
		if address != "http://www.w3.org/2000/svg" && !strings.HasPrefix(address, "https://www.example.com/") {
			t.Errorf("the page names %s", address)
		}
	}
	policy := w.Header().Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy lacks %s: %s", part, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "47DEQpj8HBSa") { // the hash of nothing
		t.Errorf("the policy is lax: %s", policy)
	}
	if err := new(adminAPI).dashboard(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/groupcache/other", nil)); err == nil {
		t.Error("what is not there was found")
	}
	if err := new(adminAPI).dashboard(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/groupcache/", nil)); err == nil {
		t.Error("the page was posted to")
	}
}

func TestBusyKeys(t *testing.T) {
	var b busyKeys
	key := func(i int) (k store.Key) {
		binary.BigEndian.PutUint64(k[:], uint64(i))
		return k
	}
	r := request(t.Context(), "http://a.test/"+strings.Repeat("x", 1000))
	start := time.Now()
	// Three busy ones among a crowd that would fill the sketch many times over.
	for i := range 20_000 {
		at := start.Add(time.Duration(i) * time.Millisecond)
		b.count("g", r, key(1000+i), at)
		for busy := 1; busy <= 3; busy++ {
			for range busy {
				b.count("g", r, key(busy), at)
			}
		}
	}
	if len(b.now) > maxBusy {
		t.Errorf("%d keys", len(b.now))
	}
	top := b.top(start.Add(20 * time.Second))
	if len(top) != busyShown {
		t.Fatalf("%d keys", len(top))
	}
	for i, want := range []int{3, 2, 1} {
		// What a key has inherited from others is less than their mean.
		rate, hash := float64(want*1000*busySample), fmt.Sprintf("%016x", want)
		if got := top[i]; !strings.HasPrefix(got.Hash, hash) || got.PerSecond < rate || got.PerSecond > 1.1*rate || got.URL != "" || got.Group != "g" {
			t.Errorf("number %d is %+v, want %s with about %v", i, got, hash, rate)
		}
	}
	b.show.Store(true)
	b.count("g", r, key(1), start.Add(21*time.Second))
	if got := b.top(start.Add(22 * time.Second))[2]; !strings.HasPrefix(got.URL, "http://a.test/xxx") || len(got.URL) > 2*maxBusyURL {
		t.Errorf("%+v", got)
	}
	if got := b.top(start.Add(90 * time.Second)); len(got) == 0 {
		t.Error("what was busy a minute ago is forgotten")
	}
	if got := b.top(start.Add(5 * time.Minute)); len(got) != 0 {
		t.Errorf("five minutes later %d keys are still busy", len(got))
	}
}

// TestReportOfAnOlderNode: what it leaves out is empty, and not null, which the
// page could not show.
func TestReportOfAnOlderNode(t *testing.T) {
	var report NodeReport
	if err := json.Unmarshal([]byte(`{"node": "old", "purges": [{"id": "1"}]}`), &report); err != nil {
		t.Fatal(err)
	}
	report.complete()
	b, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"groups", "busiest", "purges", "history"} {
		if text := string(fields[name]); strings.Contains(text, "null") {
			t.Errorf("%s is %s", name, text)
		}
	}
}

func TestHistory(t *testing.T) {
	p := &process{}
	c := p.counters.of("g")
	for i := range 3 * maxSamples {
		c.requests[statusHit].Add(int64(i % 7))
		c.fills[fillFailed].Add(1)
		p.sample()
	}
	h := p.samples.history()
	hits := h.Requests["hit"]
	if len(hits) != maxSamples || len(h.Fills) != maxSamples || h.Fills[0] != 1 {
		t.Fatalf("%d intervals of hits, %d of fills", len(hits), len(h.Fills))
	}
	if last := hits[maxSamples-1]; last != (3*maxSamples-1)%7 || h.Requests["miss"][0] != 0 {
		t.Errorf("the last interval has %d", last)
	}
}

func TestPurgeStatusIsBounded(t *testing.T) {
	var purge store.Purge
	for range 100 {
		purge.Selectors = append(purge.Selectors, store.Selector{Kind: store.Tag, Value: strings.Repeat("t", 10_000)}, store.Selector{Kind: store.OfKey, Value: strings.Repeat("k", 32)})
	}
	if s := purgeStatus(purge, time.Now()); len(s.Named) != maxNamedShown || s.More != 100-maxNamedShown || len(s.Named[0]) > 2*maxNamedLength {
		t.Errorf("%d named, %d more", len(s.Named), s.More)
	}
}
