package inbound

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// aContent is a request's content, which has few letters so that two are often nearly
// the same, with what tells its meaning.
func aContent(rng *rand.Rand) (Content, http.Header) {
	letters := []byte("a\x00\x01\",=")
	c := make(Content, rng.IntN(6))
	for i := range c {
		c[i] = letters[rng.IntN(len(letters))]
	}
	header := make(http.Header)
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language"} {
		for range rng.IntN(3) {
			header.Add(name, []string{"", "a", "a,a", "b"}[rng.IntN(4)])
		}
	}
	return c, header
}

// TestNoTwoContentsShareAKey: of 10,000 random pairs, those that are equal do, and no
// others.
func TestNoTwoContentsShareAKey(t *testing.T) {
	rng := seed.Of(t).Rand()
	resource := store.Key{1}
	for range 10_000 {
		a, ah := aContent(rng)
		b, bh := aContent(rng)
		same := bytes.Equal(a, b)
		for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language"} {
			same = same && slices.Equal(ah[name], bh[name])
		}
		if (a.Key(resource, ah) == b.Key(resource, bh)) != same {
			t.Fatalf("%q %v and %q %v: equal %v", a, ah, b, bh, same)
		}
		if a.Key(resource, ah) == resource || a.Key(resource, ah) == a.Key(store.Key{2}, ah) {
			t.Fatalf("%q %v: the key is that of a GET, or of another resource", a, ah)
		}
	}
}
