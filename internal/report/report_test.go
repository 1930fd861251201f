package report

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestReportOfAnOlderNode: what it leaves out is empty, and not null, which the
// page could not show.
func TestReportOfAnOlderNode(t *testing.T) {
	var report Report
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
	for _, name := range []string{"groups", "busiest", "missed", "purges", "history"} {
		if text := string(fields[name]); strings.Contains(text, "null") {
			t.Errorf("%s is %s", name, text)
		}
	}
}

func TestHistory(t *testing.T) {
	var s Samples
	total := Sample{Requests: map[string]int64{"hit": 0, "miss": 0}}
	for i := range 3 * maxSamples {
		total.Fills++
		total.Requests = map[string]int64{"hit": total.Requests["hit"] + int64(i%7), "miss": 0}
		s.add(total)
	}
	h := s.History()
	hits := h.Requests["hit"]
	if len(hits) != maxSamples || len(h.Fills) != maxSamples || h.Fills[0] != 1 {
		t.Fatalf("%d intervals of hits, %d of fills", len(hits), len(h.Fills))
	}
	if last := hits[maxSamples-1]; last != (3*maxSamples-1)%7 || len(h.Requests["miss"]) != maxSamples || h.Requests["miss"][0] != 0 {
		t.Errorf("the last interval has %d", last)
	}
}

// TestPurgesAsTheyWereNamed: without what accompanies a URL, which is no text for people, and
// without what is no purge.
func TestPurgesAsTheyWereNamed(t *testing.T) {
	now := time.Now()
	told := Purges([]store.Purge{
		{ID: 1, At: now, Selectors: []store.Selector{
			{Kind: store.URL, Value: "http://a.test/"}, {Kind: store.Group, Value: "http://a.test\n\x00path 0123"}, {Kind: store.OfKey, Value: strings.Repeat("k", 32)},
		}},
		{ID: 2, At: now}, // the marker of a node that has stopped
	}, now)
	if len(told) != 1 || told[0].ID != store.PurgeID(1).String() || strings.Join(told[0].Named, ", ") != "url http://a.test/" || told[0].More != 0 {
		t.Errorf("%+v", told)
	}
}

func TestPurgesAreBounded(t *testing.T) {
	var purge store.Purge
	for range 100 {
		purge.Selectors = append(purge.Selectors, store.Selector{Kind: store.Tag, Value: strings.Repeat("t", 10_000)}, store.Selector{Kind: store.OfKey, Value: strings.Repeat("k", 32)})
	}
	if s := purgeOf(purge, time.Now()); len(s.Named) != maxNamed || s.More != 100-maxNamed || len(s.Named[0]) > 2*maxNamedLength {
		t.Errorf("%d named, %d more", len(s.Named), s.More)
	}
}
