package caddygroupcache

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestPurgeDuringARollout: while a configuration is being rolled out, nodes have different
// names for the responses of a URL. Whichever node is asked, a purge that succeeds is one of
// what the URL means on any of them, wherever that is stored.
func TestPurgeDuringARollout(t *testing.T) {
	for name, set := range map[string]func(*Handler){
		"query ignore": func(h *Handler) { h.Query = &Query{Ignore: []string{"utm"}} },
		"query sort":   func(h *Handler) { h.Query = &Query{Sort: true} },
		"key":          func(h *Handler) { h.Key = "one for all" },
	} {
		for _, asked := range []int{0, 2} {
			t.Run(fmt.Sprint(name, ", node ", asked), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					started := 0
					b := newBubble(t, 3, func(h *Handler) {
						if started++; started > 1 { // the first node has the configuration before
							set(h)
						}
					})
					page := "old"
					var calls atomic.Int64
					for i := range 8 { // of several owners
						url := fmt.Sprintf("http://a.test/%d?", i)
						for _, m := range b.nodes {
							m.get(t, fixed(&calls, page, "Cache-Control", "max-age=60"), url+"utm=1&a=1")
							m.get(t, fixed(&calls, page, "Cache-Control", "max-age=60"), url+"a=1&utm=1")
						}
					}
					page = "new"
					for i := range 8 {
						url := fmt.Sprintf("http://a.test/%d?", i)
						if code, result := b.nodes[asked].purge(t, `{"urls": ["`+url+`a=1&utm=1"]}`); code != 200 || len(result.Nodes) != 3 {
							t.Fatalf("%d, %+v", code, result)
						}
						for _, m := range b.nodes[1:] {
							if got, status := m.get(t, fixed(&calls, page, "Cache-Control", "max-age=60"), url+"utm=1&a=1"); got != page {
								t.Errorf("%s: %s (%s)", m.Name, got, status)
							}
						}
					}
				})
			})
		}
	}
}
