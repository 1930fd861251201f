package caddygroupcache

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPurgeAtANodeThatHasJustStarted waits until the node can know of the others, which would
// serve what is purged otherwise while it is acknowledged. It does not wait for ever.
func TestPurgeAtANodeThatHasJustStarted(t *testing.T) {
	for name, tt := range map[string]struct {
		joins time.Duration // 0: never
		nodes int
		takes time.Duration
	}{
		"others are found": {time.Second, 2, time.Second},
		"nobody answers":   {0, 1, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, 1, nil)
				other := b.start("other", nil)
				other.SetRing(b.addrs())
				b.settle()
				starting := b.nodes[0]
				joined := starting.Purger.Joining.Begin()
				if tt.joins > 0 {
					time.AfterFunc(tt.joins, func() {
						starting.SetRing(b.addrs())
						joined()
					})
				}
				begun := time.Now()
				code, result := starting.purge(t, `{"all": true}`)
				if took := time.Since(begun); code != 200 || len(result.Nodes) != tt.nodes || took < tt.takes || took > tt.takes+100*time.Millisecond {
					t.Errorf("%d %+v after %v", code, result.Nodes, took)
				}
				begun = time.Now()
				if starting.purge(t, `{"all": true}`); tt.joins > 0 && time.Since(begun) > 100*time.Millisecond {
					t.Errorf("the next one waits for %v", time.Since(begun))
				}
			})
		})
	}
}
