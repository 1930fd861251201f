package caddygroupcache

import (
	"encoding/hex"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestBusiestThatAreNotServed: of keys that are asked for alike, the list has the one that
// the upstream has to answer, with the reason.
func TestBusiestThatAreNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, newLoneNode(t), nil)
		stored := fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=600")
		private := fixed(new(atomic.Int64), "hello", "Cache-Control", "private")
		for range 2000 { // one in 16 counts
			do(h, stored, request(t.Context(), "/stored"))
			do(h, private, request(t.Context(), "/private"))
		}
		time.Sleep(10 * time.Second)
		busiest, missed := h.node.Busiest(time.Now())
		if len(busiest) != 2 || len(missed) == 0 {
			t.Fatalf("%+v, %+v", busiest, missed)
		}
		k, _ := keyOf(h, request(t.Context(), "/private"))
		if first := missed[0]; first.Hash != hex.EncodeToString(k[:]) || first.Reason != "private" || first.MissesPerSecond != first.PerSecond {
			t.Errorf("%+v", first)
		}
		for _, one := range busiest {
			if one.Hash != missed[0].Hash && one.MissesPerSecond > one.PerSecond/10 {
				t.Errorf("%+v", one)
			}
		}
	})
}
