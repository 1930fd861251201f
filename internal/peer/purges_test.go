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

// TestPurgesOfABusyNode: however many purges come while a node is asked for those that it
// remembers, there is an end of them. If it forgets some that were to be told next, nothing is
// told of those before: a node that gets both would take the ones between for known.
func TestPurgesOfABusyNode(t *testing.T) {
	for name, test := range map[string]struct {
		come, gone int // with each answer
		first      int // that is told; 0: the first of all
	}{
		"more come than it tells at a time":    {come: 200},
		"some are forgotten before their turn": {come: 120, gone: 120, first: 241},
	} {
		t.Run(name, func(t *testing.T) {
			oldest, youngest := 1, 300
			to, _ := serve(t, backend{purges: func() (all []store.Purge, dropped time.Time) {
				for id := oldest; id <= youngest; id++ {
					all = append(all, store.Purge{ID: store.PurgeID(id), At: time.Now(), Selectors: []store.Selector{{Kind: store.Tag, Value: "news"}}})
				}
				if oldest > 1 {
					dropped = time.Now()
				}
				oldest, youngest = oldest+test.gone, youngest+test.come
				return all, dropped
			}})
			all, dropped, err := newClient(t).Purges(t.Context(), to, patience)
			if err != nil || len(all) == 0 || dropped.IsZero() != (test.gone == 0) {
				t.Fatalf("%d purges, dropped %v, %v", len(all), dropped, err)
			}
			for i, p := range all {
				if want := store.PurgeID(max(test.first, 1) + i); p.ID != want {
					t.Fatalf("%d is told in the place of %d", p.ID, want)
				}
			}
			if last := all[len(all)-1].ID; last < 300 {
				t.Errorf("told up to %d of 300", last)
			}
		})
	}
}

// TestPurgesBeyondAMessage: one request may name more than a node takes in one message.
func TestPurgesBeyondAMessage(t *testing.T) {
	var purges []store.Purge
	for id := range 2 * maxPurgeMessage / MaxPurgeBytes {
		p := store.Purge{ID: store.PurgeID(id + 1)}
		for range MaxPurgeBytes / 100 {
			p.Selectors = append(p.Selectors, store.Selector{Kind: store.Tag, Value: strings.Repeat("x", 92)})
		}
		purges = append(purges, p)
	}
	var got []store.PurgeID
	to, _ := serve(t, backend{purge: func(some []store.Purge) {
		for _, p := range some {
			got = append(got, p.ID)
		}
	}})
	if _, err := newClient(t).Purge(t.Context(), to, purges, false); err != nil {
		t.Error(err)
	}
	if len(got) != len(purges) || got[0] != 1 || got[len(got)-1] != purges[len(purges)-1].ID {
		t.Errorf("%d of %d purges were told", len(got), len(purges))
	}
}
