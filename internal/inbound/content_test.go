package inbound

import (
	"fmt"
	"net/http"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestNoTwoQueriesShareAKey: whatever their contents and fields are.
func TestNoTwoQueriesShareAKey(t *testing.T) {
	seed.Rapid(t)
	lines := rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", "a, b"}), 0, 2)
	draw := func(t *rapid.T) (Content, http.Header, string) {
		c, header := Content(rapid.StringN(0, 8, 8).Draw(t, "content")), http.Header{}
		for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language"} {
			if all := lines.Draw(t, name); len(all) > 0 {
				header[name] = all
			}
		}
		return c, header, fmt.Sprintf("%q %q", c, header)
	}
	rapid.Check(t, func(t *rapid.T) {
		for range 100 {
			a, ofA, sayA := draw(t)
			b, ofB, sayB := draw(t)
			if same := a.Key(store.Key{}, ofA) == b.Key(store.Key{}, ofB); same != (sayA == sayB) {
				t.Fatalf("%s and %s: one key is %v", sayA, sayB, same)
			}
		}
	})
}
