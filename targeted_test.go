package caddygroupcache

import (
	"fmt"
	"sync/atomic"
	"testing"
)

func TestTargetedFieldsAreTheOperatorsChoice(t *testing.T) {
	for _, tt := range []struct {
		name     string
		targeted []string
		fields   []string
		stored   bool
		detail   string // of a response that is not stored
	}{
		{"by default", nil, []string{"Groupcache-Cache-Control", "max-age=60", "CDN-Cache-Control", "no-store", "Cache-Control", "no-store"}, true, ""},
		{"by default, the next", nil, []string{"CDN-Cache-Control", "max-age=60", "Cache-Control", "no-store"}, true, ""},
		{"to this cache alone", []string{"groupcache-cache-control"}, []string{"Groupcache-Cache-Control", "max-age=60", "Cache-Control", "no-store"}, true, ""},
		{"to the CDN in front", []string{"groupcache-cache-control"}, []string{"CDN-Cache-Control", "max-age=60", "Surrogate-Control", "max-age=60", "Cache-Control", "no-store"}, false, "detail=no-store"},
		{"a name of one's own", []string{"Edge-Cache-Control", "CDN-Cache-Control"}, []string{"Edge-Cache-Control", "private", "CDN-Cache-Control", "max-age=60"}, false, "detail=private"},
	} {
		for _, nodes := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, nodes: %d", tt.name, nodes), func(t *testing.T) {
				c := newCluster(t, nodes)
				var calls atomic.Int64
				up := fixed(&calls, "hello", tt.fields...)
				for i := range 2 * nodes {
					h := newHandler(t, c.nodes[i%nodes], func(h *Handler) { h.Targeted = tt.targeted })
					w := do(h, up, request(t.Context(), "/a"))
					if i > 0 && tt.stored {
						wantStatus(t, w, "hit")
					}
					wantStatus(t, w, tt.detail)
					for j := 0; j < len(tt.fields); j += 2 {
						if got := w.Header().Get(tt.fields[j]); got != tt.fields[j+1] {
							t.Errorf("%s: %q", tt.fields[j], got)
						}
					}
				}
				if (calls.Load() == 1) != tt.stored {
					t.Errorf("%d fetches", calls.Load())
				}
			})
		}
	}
}
