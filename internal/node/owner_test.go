package node

import (
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// TestFillsOfOthersHaveABound: whatever time another node asks for. The time itself is not
// run through, since a day of nodes that talk takes a minute.
func TestFillsOfOthersHaveABound(t *testing.T) {
	for said, want := range map[time.Duration]time.Duration{
		maxFillTime - 1:  maxFillTime - 1,
		maxFillTime + 1:  maxFillTime,
		1000 * time.Hour: maxFillTime,
		1 << 62:          maxFillTime,
	} {
		if got := fillTimeOf(&peer.Query{Within: said}); got != want {
			t.Errorf("who asks for %v gets %v, want %v", said, got, want)
		}
	}
}
