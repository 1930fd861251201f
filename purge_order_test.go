package caddygroupcache

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A fill that began before a purge and ends after it is served to its own
// client, and stored nowhere, whoever leads it, whoever owns the key, whoever
// reads along, and whatever comes first.
func TestFillThatBeganBeforeThePurgeIsStoredNowhere(t *testing.T) {
	seeds := seed.Of(t)
	interleavings := 10_000
	if raceDetector {
		interleavings = 1_000
	}
	const each = 500
	for first := 0; first < interleavings; first += each {
		synctest.Test(t, func(t *testing.T) {
			b := newBubble(t, 3, nil)
			for i := first; i < first+each; i++ {
				if err := b.interleave(t, i, seeds.Rand()); err != nil {
					t.Fatalf("interleaving %d: %v", i, err)
				}
			}
		})
	}
}

// interleave has one fill and one purge go on at the same time.
func (b *bubble) interleave(t *testing.T, i int, random *rand.Rand) error {
	const span = int(2 * time.Millisecond)
	some := func() time.Duration { return time.Duration(random.IntN(span)) }
	lags := rand.New(rand.NewPCG(random.Uint64(), 0))
	b.net.slow(func() time.Duration { return time.Duration(lags.IntN(200)) * time.Microsecond })
	url := fmt.Sprintf("http://a.test/dir%d/page", i)
	leader, purger := b.nodes[random.IntN(3)], b.nodes[random.IntN(3)]
	purge := []string{
		fmt.Sprintf(`{"urls": [%q]}`, url), fmt.Sprintf(`{"tags": ["tag%d"]}`, i),
		fmt.Sprintf(`{"prefixes": ["http://a.test/dir%d/"]}`, i),
	}[random.IntN(3)]
	pauses := []time.Duration{some(), some(), some()}
	var mu sync.Mutex                   // guards asked
	asked := make(map[string]time.Time) // by body: when its request came
	up := func(w http.ResponseWriter, r *http.Request) error {
		mu.Lock()
		body := fmt.Sprintf("fetch %d %d", i, len(asked))
		asked[body] = time.Now()
		mu.Unlock()
		time.Sleep(pauses[0])
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Surrogate-Key", fmt.Sprint("tag", i))
		_, _ = io.WriteString(w, body[:6])
		_ = http.NewResponseController(w).Flush()
		time.Sleep(pauses[1])
		_, err := io.WriteString(w, body[6:])
		return err
	}
	when, joins := some(), []time.Duration{some(), some(), some()}
	wait := followers(len(joins)+1, func(n int) *httptest.ResponseRecorder {
		if n == 0 {
			return do(leader.handler, up, request(t.Context(), url))
		}
		time.Sleep(joins[n-1])
		return do(b.nodes[n%3].handler, up, request(t.Context(), url))
	})
	time.Sleep(when)
	begun := time.Now()
	code, result := purger.purge(t, purge)
	if code != 200 {
		return fmt.Errorf("%d %+v", code, result)
	}
	time.Sleep(time.Nanosecond)
	check := func(what string, w *httptest.ResponseRecorder) error {
		mu.Lock()
		defer mu.Unlock()
		at, whole := asked[w.Body.String()]
		switch {
		case w.Code != 200 || !whole:
			return fmt.Errorf("%s: %d %q", what, w.Code, w.Body)
		case what != "" && at.Before(begun):
			return fmt.Errorf("%s got what was fetched %v before the purge (%s)", what, begun.Sub(at), w.Header().Get("Cache-Status"))
		}
		return nil
	}
	// Right after the purge, while all of it may still be on its way, and when
	// it has arrived.
	for round := range 2 {
		for _, n := range random.Perm(3) {
			m := b.nodes[n]
			if err := check(fmt.Sprintf("%s, round %d", m.Name, round), do(m.handler, up, request(t.Context(), url))); err != nil {
				return err
			}
		}
		for _, w := range wait() {
			if err := check("", w); err != nil {
				return err
			}
		}
		b.settle()
	}
	return nil
}

// Merging what other nodes remember is commutative and idempotent, as far as
// anybody can see.
func TestMergingPurgesInAnyOrderComesToTheSame(t *testing.T) {
	random := seed.Of(t).Rand()
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			var purges []store.Purge
			for i := range 1 + random.IntN(20) {
				purges = append(purges, store.Purge{
					ID: store.PurgeID(i + 1), Soft: random.IntN(2) == 0, At: time.Now(),
					Selectors: []store.Selector{{Kind: store.Tag, Value: fmt.Sprint("tag", random.IntN(10))}},
				})
			}
			outcome := func(parts func(*node.Node)) (all string) {
				n := newLoneNode(t)
				space := n.Store.Namespace(defaultGroup)
				for i := range 10 {
					e := entryFor(t, fmt.Sprint("http://a.test/", i), fmt.Sprint("tag", i))
					n.Store.Commit(space, store.Key{byte(i)}, e, []byte("hello"))
				}
				time.Sleep(time.Second)
				parts(n)
				list, _ := n.Purger.Log.All()
				for i := range 10 {
					e := n.Store.Lookup(store.Key{byte(i)}, nil, time.Now()).Entry
					all += fmt.Sprint(i, ":", e != nil, e != nil && e.Fresh.TTL(time.Now()) > 0, " ")
				}
				return fmt.Sprint(all, len(list))
			}
			want := outcome(func(n *node.Node) { node.Owner{Node: n}.Purge(purges, nil) })
			got := outcome(func(n *node.Node) {
				for range 3 { // again and again, in parts that overlap, in any order
					for _, i := range random.Perm(len(purges)) {
						from := random.IntN(i + 1)
						part := slices.Clone(purges[from : i+1])
						random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
						n.Purger.Merge(peer.EncodePurges(part, time.Time{}))
						time.Sleep(time.Millisecond)
					}
				}
			})
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

func entryFor(t testing.TB, url string, tags ...string) *store.Entry {
	t.Helper()
	now := time.Now()
	e, why := store.NewEntry(200, http.Header{}, nil, rfc9111.Freshness{Received: now, Lifetime: time.Hour}, now)
	if why != rfc9111.None {
		t.Fatal(why)
	}
	e.SetLabels(url, tags, nil)
	return e
}
