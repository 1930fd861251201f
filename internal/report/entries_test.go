package report

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// stored is a node with a response for each URL, all with the tags.
func stored(t *testing.T, urls []string, tags ...string) *node.Node {
	t.Helper()
	n := node.New("one", 64<<20)
	t.Cleanup(n.Close)
	for i, u := range urls {
		e, why := store.NewEntry(200, make(http.Header), make(http.Header), rfc9111.Freshness{Received: time.Now(), Lifetime: time.Minute}, time.Now())
		if why != rfc9111.None {
			t.Fatal(why)
		}
		e.Size, e.Generation, e.Digest = 1, store.NewGeneration(), store.Digest([]byte("x"))
		e.SetLabels(u, tags, nil)
		if n.Store.Commit(n.Store.Namespace("default"), store.Key{byte(i), byte(i >> 8), 1}, e, []byte("x")) == nil {
			t.Fatal("not stored")
		}
	}
	return n
}

func urlsOf(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("http://a.test/%04d", i))
	}
	return all
}

func TestListIsBounded(t *testing.T) {
	urls := urlsOf(300)
	n := stored(t, urls, "news")
	all, err := GatherEntries(t.Context(), n, EntriesQuery{Limit: 100})
	if err != nil || len(all.Entries) != 100 || !all.More || all.Nodes[0].Matched != 300 {
		t.Fatalf("%v: %d entries, more %v, %+v", err, len(all.Entries), all.More, all.Nodes)
	}
	for i, e := range all.Entries {
		if e.URL != urls[i] || e.TTLSeconds < 50 || e.Variants != 1 || !slices.Equal(e.Tags, []string{"news"}) || e.Owner != "one" {
			t.Errorf("at %d: %+v", i, e)
		}
	}
	for _, limit := range []int{-1, 0, MaxEntries + 1} {
		if _, err := GatherEntries(t.Context(), n, EntriesQuery{Limit: limit}); err == nil {
			t.Errorf("limit %d is taken", limit)
		}
	}
	many := EntriesQuery{Limit: 1, Selectors: slices.Repeat([]store.Selector{{Kind: store.Tag, Value: "a"}}, maxEntrySelectors+1)}
	if _, err := GatherEntries(t.Context(), n, many); err == nil {
		t.Error("any number of selectors is taken")
	}
}

// TestListFitsAReport: however long URLs and tags are, and however much of them JSON has to
// escape.
func TestListFitsAReport(t *testing.T) {
	var urls, tags []string
	for i := range 100 {
		urls = append(urls, fmt.Sprintf("http://a.test/%04d%s", i, strings.Repeat("<", 16<<10)))
		tags = append(tags, fmt.Sprintf("%03d%s", i, strings.Repeat("<", 200)))
	}
	p := list(stored(t, urls, tags...), EntriesQuery{Limit: MaxEntries})
	b, err := json.Marshal(p)
	if err != nil || len(b) > 1<<20 || len(p.Entries) < 5 || !p.Cut || p.Matched != 100 {
		t.Errorf("%v: %d bytes, %d entries of %d, cut %v", err, len(b), len(p.Entries), p.Matched, p.Cut)
	}
}

func TestListGoesByTheWordsOfAPurge(t *testing.T) {
	n := stored(t, []string{"http://a.test/x", "http://a.test/xy", "https://b.test/x", "http://a.test:8080/x"}, "news")
	for _, tt := range []struct {
		selector store.Selector
		want     int
	}{
		{store.Selector{Kind: store.URL, Value: "http://a.test/x"}, 1},
		{store.Selector{Kind: store.Prefix, Value: "http://a.test/"}, 2},
		{store.Selector{Kind: store.Host, Value: "a.test"}, 3},
		{store.Selector{Kind: store.Tag, Value: "news"}, 4},
		{store.Selector{Kind: store.Tag, Value: "new"}, 0},
	} {
		all, err := GatherEntries(t.Context(), n, EntriesQuery{Limit: 10, Selectors: []store.Selector{tt.selector}})
		if err != nil || len(all.Entries) != tt.want || all.More {
			t.Errorf("%v: %v, %+v", tt.selector, err, all)
		}
		n.Store.Purge(store.Purge{ID: store.NewPurgeID(), At: time.Now(), Selectors: []store.Selector{tt.selector}})
		left, err := GatherEntries(t.Context(), n, EntriesQuery{Limit: 10})
		if err != nil || len(left.Entries) != 4-tt.want {
			t.Errorf("%v: purged: %v, %+v", tt.selector, err, left)
		}
		n = stored(t, []string{"http://a.test/x", "http://a.test/xy", "https://b.test/x", "http://a.test:8080/x"}, "news")
	}
	if all, err := GatherEntries(t.Context(), n, EntriesQuery{Limit: 10, Group: "another"}); err != nil || len(all.Entries) > 0 {
		t.Errorf("another group: %v, %+v", err, all)
	}
}

// TestListHasNoGaps: where a node's part is cut short, nothing of other nodes follows.
func TestListHasNoGaps(t *testing.T) {
	n := stored(t, nil)
	entry := func(i int) Entry { return Entry{URL: fmt.Sprintf("http://a.test/%d", i), Key: fmt.Sprintf("%064x", i)} }
	all := Entries{Node: "one", Nodes: []EntriesNode{{Name: "one"}, {Name: "two"}}}
	all.merge(n.Ring.Load(), []part{{Entries: []Entry{entry(1), entry(5), entry(9)}}, {Cut: true, Entries: []Entry{entry(1), entry(2), entry(6)}}}, 10)
	var got []string
	for _, e := range all.Entries {
		got = append(got, e.URL[len(e.URL)-1:]+strings.Join(e.Nodes, "+"))
	}
	if want := "1one+two 2two 5one 6two"; strings.Join(got, " ") != want || !all.More {
		t.Errorf("%s, more %v, want %s", got, all.More, want)
	}
}

// TestListLooksAtAllVariants: what a purge would drop is listed, though a newer variant of its
// key is none of it.
func TestListLooksAtAllVariants(t *testing.T) {
	n := stored(t, nil)
	for _, language := range []string{"de", "en"} {
		e, why := store.NewEntry(200, http.Header{"Vary": {"Accept-Language"}}, http.Header{"Accept-Language": {language}},
			rfc9111.Freshness{Received: time.Now(), Lifetime: time.Minute}, time.Now())
		if why != rfc9111.None {
			t.Fatal(why)
		}
		e.Size, e.Generation = 1, store.NewGeneration()
		e.SetLabels("http://a.test/", []string{"page", "page-" + language}, nil)
		if n.Store.Commit(n.Store.Namespace("default"), store.Key{1}, e, []byte("x")) == nil {
			t.Fatal("not stored")
		}
	}
	for tag, want := range map[string]string{"page": "page-en", "page-de": "page-de", "page-en": "page-en"} {
		all, err := GatherEntries(t.Context(), n, EntriesQuery{Limit: 10, Selectors: []store.Selector{{Kind: store.Tag, Value: tag}}})
		if err != nil || len(all.Entries) != 1 || all.Entries[0].Variants != 2 || !slices.Contains(all.Entries[0].Tags, want) {
			t.Errorf("%s: %v, %+v", tag, err, all.Entries)
		}
	}
}
