package store

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// TestInspectChangesNothing: neither what would be evicted next, nor what a
// purge has still to be compared with.
func TestInspectChangesNothing(t *testing.T) {
	s := New(1<<20, 1<<20)
	defer s.Close()
	space := s.Namespace("g")
	now := time.Now()
	put := func(vary string) {
		response := http.Header{"Vary": {"Accept-Language"}, "X": {vary}}
		e, _ := NewEntry(200, response, http.Header{"Accept-Language": {vary}}, rfc9111.Freshness{Received: now, Lifetime: time.Hour}, now)
		e.SetLabels("http://a/", []string{"t"}, nil)
		s.Commit(space, key(1), e, []byte("body"))
	}
	put("de")
	put("en")
	in := s.Inspect(key(1), http.Header{"Accept-Language": {"de"}}, now)
	if len(in.Variants) != 2 || in.Variants[0].Matches || !in.Variants[1].Matches || !in.Variants[1].Here || len(in.Vary) != 1 {
		t.Fatalf("%+v", in)
	}
	s.Purge(Purge{ID: 1, Soft: true, Selectors: []Selector{{Tag, "t"}}})
	r := s.shard(key(1)).resources.get(key(1))
	compared := r.compared.Load()
	in = s.Inspect(key(1), http.Header{}, now)
	if len(in.Variants) != 2 || in.Variants[0].Entry.Fresh.TTL(time.Now()) > 0 {
		t.Errorf("after a soft purge: %+v", in.Variants)
	}
	s.Purge(Purge{ID: 2, Selectors: []Selector{{URL, "http://a/"}}})
	if in = s.Inspect(key(1), http.Header{}, now); len(in.Variants) != 0 {
		t.Errorf("after a purge: %+v", in.Variants)
	}
	if r.is(visited) || r.compared.Load() != compared || len(r.variants) != 2 {
		t.Errorf("it was changed: visited %v, compared %d, %d variants", r.is(visited), r.compared.Load(), len(r.variants))
	}
	s.MarkUncacheable(space, key(2), rfc9111.Private, now.Add(time.Minute))
	if in := s.Inspect(key(2), nil, now); in.Uncacheable != rfc9111.Private || in.Until != now.Add(time.Minute) {
		t.Errorf("%+v", in)
	}
	if in := s.Inspect(key(2), nil, now.Add(time.Hour)); in.Uncacheable != rfc9111.None {
		t.Errorf("%+v", in)
	}
}

func TestPurgeIsAbout(t *testing.T) {
	const url = "http://a.test:8080/x/y"
	labeled := func(url string) *Entry {
		e := new(Entry)
		e.SetLabels(url, []string{"t"}, []string{"g"})
		return e
	}
	for _, c := range []struct {
		s    Selector
		want bool
	}{
		{Selector{All, ""}, true},
		{Selector{URL, url}, true},
		{Selector{URL, url + "/z"}, false},
		{Selector{Prefix, "http://a.test:8080/x"}, true},
		{Selector{Prefix, "http://a.test:8080/y"}, false},
		{Selector{Host, "a.test"}, true},
		{Selector{Host, "a.test:8080"}, true},
		{Selector{Host, "a.test:80"}, false},
		{Selector{Tag, "t"}, true},
		{Selector{Tag, "u"}, false},
		{Selector{Group, GroupOf(url, "g")}, true},
		{Selector{Group, GroupOf("http://b.test/", "g")}, false},
	} {
		p := Purge{Selectors: []Selector{c.s}}
		if got := len(p.About("g", key(1), labeled(url))) == 1; got != c.want {
			t.Errorf("%v %q: %v", c.s.Kind, c.s.Value, got)
		}
	}
	k := key(1)
	if p := (Purge{Group: "g", Selectors: []Selector{{OfKey, string(k[:])}}}); len(p.About("g", k, labeled(url))) != 1 || len(p.About("h", k, labeled(url))) != 0 {
		t.Error("by key and group")
	}
	if p := (Purge{Selectors: []Selector{{Host, "b.test:443"}}}); len(p.About("g", k, labeled("https://b.test/"))) != 1 {
		t.Error("by host and the scheme's own port")
	}
}
