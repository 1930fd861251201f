package peer

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestSelectorsThatNameNothingAreRefused: whoever applies a purge takes a selector
// for what it says that it is.
func TestSelectorsThatNameNothingAreRefused(t *testing.T) {
	key := strings.Repeat("k", len(store.Key{}))
	for name, test := range map[string]struct {
		selector store.Selector
		refused  bool
	}{
		"a key":             {store.Selector{Kind: store.OfKey, Value: key}, false},
		"a short key":       {store.Selector{Kind: store.OfKey, Value: key[1:]}, true},
		"an empty key":      {store.Selector{Kind: store.OfKey}, true},
		"a long key":        {store.Selector{Kind: store.OfKey, Value: key + "k"}, true},
		"no kind":           {store.Selector{Value: key}, true},
		"a kind to come":    {store.Selector{Kind: store.KindCount, Value: key}, true},
		"a tag of any size": {store.Selector{Kind: store.Tag, Value: "t"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			purges := []store.Purge{{ID: 1, Selectors: []store.Selector{{Kind: store.All}, test.selector}}}
			got, _, err := DecodePurges(bytes.NewReader(EncodePurges(purges, time.Time{})))
			if errors.Is(err, ErrProtocol) != test.refused || test.refused && len(got) != 0 {
				t.Errorf("decoded %+v, %v", got, err)
			}
		})
	}
}
