package node

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestBusyKeys(t *testing.T) {
	var b HotKeys
	key := func(i int) (k store.Key) {
		binary.BigEndian.PutUint64(k[:], uint64(i))
		return k
	}
	start := time.Now()
	// Three busy ones among a crowd that would fill the sketch many times over.
	for i := range 20_000 {
		at := start.Add(time.Duration(i) * time.Millisecond)
		b.Count("g", key(1000+i), "", at)
		for busy := 1; busy <= 3; busy++ {
			for range busy {
				b.Count("g", key(busy), "", at)
			}
		}
	}
	if len(b.Now) > maxHot {
		t.Errorf("%d keys", len(b.Now))
	}
	top := b.top(start.Add(20 * time.Second))
	if len(top) < hotShown {
		t.Fatalf("%d keys", len(top))
	}
	for i, want := range []int{3, 2, 1} {
		// What a key has inherited from others is less than their mean.
		rate, hash := float64(want*1000*hotSample), fmt.Sprintf("%016x", want)
		if got := top[i]; !strings.HasPrefix(got.Hash, hash) || got.PerSecond < rate || got.PerSecond > 1.1*rate || got.URL != "" || got.Group != "g" {
			t.Errorf("number %d is %+v, want %s with about %v", i, got, hash, rate)
		}
	}
	b.Count("g", key(1), "http://a.test/"+strings.Repeat("x", 1000), start.Add(21*time.Second))
	b.Show.Store(true)
	if got := b.top(start.Add(22 * time.Second))[2]; !strings.HasPrefix(got.URL, "http://a.test/xxx") || len(got.URL) > 2*maxHotURL {
		t.Errorf("%+v", got)
	}
	b.Show.Store(false)
	if got := b.top(start.Add(22 * time.Second))[2]; got.URL != "" {
		t.Errorf("a URL that is to be shown no more: %+v", got)
	}
	if got := b.top(start.Add(90 * time.Second)); len(got) == 0 {
		t.Error("what was busy a minute ago is forgotten")
	}
	if got := b.top(start.Add(5 * time.Minute)); len(got) != 0 {
		t.Errorf("five minutes later %d keys are still busy", len(got))
	}
}
