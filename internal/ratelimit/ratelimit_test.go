package ratelimit

import (
	"fmt"
	"testing"
	"time"
)

func TestKindsAreBounded(t *testing.T) {
	const most = 16
	var l Limiter
	now := time.Now()
	lines := 0
	for i := range 10 * most {
		if _, ok := l.Take(fmt.Sprint("kind ", i), most, now); ok {
			lines++
		}
	}
	if lines != most+1 || len(l.kinds) != most+1 {
		t.Errorf("%d lines, %d kinds", lines, len(l.kinds))
	}
	now = now.Add(Quiet)
	if held, ok := l.Take("", most, now); !ok || held != 9*most-1 {
		t.Errorf("after a minute: %d held back, %v", held, ok)
	}
	if _, ok := l.Take("another", most, now); !ok || len(l.kinds) != 2 {
		t.Errorf("after a minute: %v, %d kinds", ok, len(l.kinds))
	}
}
