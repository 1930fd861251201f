//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"net/http"
	"testing"
)

func TestClientsThatOfferH2CAreServedLikeOthers(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" { // as servers do that know h2c
			http.Error(w, "no HTTP2-Settings", http.StatusBadRequest)
			return
		}
		cacheable(0)(w, r)
	})
	for _, nodes := range []int{1, 3} {
		c := startCluster(t, nodes, o, patient)
		path := fmt.Sprintf("/%d", nodes)
		for i := range 2 * nodes {
			a := c[i%nodes].get(path, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
			a.is(t, fmt.Sprintf("request %d", i), bodyOf(path))
			if a.hit() != (i > 0) || a.header.Get("Upgrade") != "" {
				t.Errorf("request %d: %s, %v", i, a.cacheStatus(), a.header)
			}
		}
		if n := o.fetches(path); n != 1 {
			t.Errorf("nodes: %d: %d fetches", nodes, n)
		}
	}
}
