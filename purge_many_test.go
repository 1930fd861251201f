package caddygroupcache

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestPurgeCostsEachHandlerOnce: many sites with settings of their own, in one group, make a
// purge of a URL no dearer than their number.
func TestPurgeCostsEachHandlerOnce(t *testing.T) {
	allocations := func(n int) float64 {
		one, a := newLoneNode(t), &App{groups: make(handlersByGroup)}
		for i := range n {
			a.join(newHandler(t, one, func(h *Handler) { h.MaxBodySize = int64(i + 1) }))
		}
		all := a.groups[defaultGroup].distinct()
		if len(all) != n {
			t.Fatalf("%d of %d handlers", len(all), n)
		}
		named := []store.Selector{{Kind: store.URL, Value: "http://a.test/"}}
		return testing.AllocsPerRun(3, func() { withKeys(named, all) })
	}
	if few, many := allocations(10), allocations(80); many > 12*few {
		t.Errorf("%v allocations for 10 handlers, and %v for 80", few, many)
	}
}

// TestPurgeOfAllThatARequestMayName: what fits a request is acknowledged, and holds on all
// nodes, though its names are more than one message to another node takes.
func TestPurgeOfAllThatARequestMayName(t *testing.T) {
	var urls, tags []string
	for i := range 20_000 {
		urls = append(urls, fmt.Sprintf("http://a.test/products/%06d", i))
	}
	for i := range 115_000 {
		tags = append(tags, fmt.Sprintf("t%05x", i))
	}
	for name, some := range map[string][]string{"urls": urls, "tags": tags} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 2, nil)
				var calls atomic.Int64
				asked := func() int64 {
					before := calls.Load()
					for _, m := range b.nodes {
						for _, u := range []string{urls[0], urls[len(urls)-1]} {
							m.get(t, fixed(&calls, "page", "Cache-Control", "max-age=3600", "Cache-Tag", tags[0]+","+tags[len(tags)-1]), u)
						}
					}
					return calls.Load() - before
				}
				if first, again := asked(), asked(); first == 0 || again != 0 {
					t.Fatalf("%d fetches, and then %d", first, again)
				}
				request, err := json.Marshal(map[string][]string{name: some})
				if err != nil || len(request) > 1<<20 {
					t.Fatal(err, len(request))
				}
				code, result := b.nodes[0].purge(t, string(request))
				if code != http.StatusOK {
					t.Errorf("%d %+v", code, result.Nodes)
				}
				if n := asked(); n != 2 {
					t.Errorf("%d fetches after the purge", n)
				}
			})
		})
	}
}
