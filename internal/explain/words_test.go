package explain

import (
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

func TestEveryReasonHasWords(t *testing.T) {
	for _, why := range rfc9111.Reasons() {
		if w := reasonWords[why]; w.because == "" || w.change == "" {
			t.Errorf("%s: %+v", why, w)
		}
	}
}
