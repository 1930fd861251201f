package express

import (
	"fmt"
	"sync"
	"testing"
)

// TestTargetsAreNoted: each that was noted is there, at once and while others are noted, few others
// seem to be, and those that were not noted for long go.
func TestTargetsAreNoted(t *testing.T) {
	var targets Targets
	if targets.has([]byte("/")) {
		t.Error("a target that was not noted is there")
	}
	var noting sync.WaitGroup
	for i := range 4 {
		noting.Go(func() {
			for n := range 10_000 {
				target := fmt.Sprintf("/%d/%d", i, n)
				if targets.Note(target); !targets.has([]byte(target)) {
					t.Errorf("%s is not there", target)
				}
			}
		})
	}
	noting.Wait()
	seem := 0
	for n := range 10_000 {
		if targets.has(fmt.Appendf(nil, "/other/%d", n)) {
			seem++
		}
	}
	if seem > 500 { // of 10,000, with 40,000 noted in 2,097,152 bits: some 190
		t.Errorf("%d of 10000 seem to be there", seem)
	}
	for n := range 3 * mostNoted {
		targets.Note(fmt.Sprintf("/many/%d", n))
	}
	if noted := targets.recent.Load().noted.Load() + targets.before.Load().noted.Load(); noted > 2*mostNoted+8 {
		t.Errorf("%d bits are set", noted)
	}
	if !targets.has(fmt.Appendf(nil, "/many/%d?utm_source=any", 3*mostNoted-1)) {
		t.Error("the last target with another query is not there")
	}
}
