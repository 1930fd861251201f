package purging

import (
	"fmt"
	"testing"
	"time"
)

func TestLinesOfRefusalsAreBounded(t *testing.T) {
	var r Refusals
	now := time.Now()
	lines := 0
	for i := range 10 * maxClients {
		if _, log := r.Note(Forbidden, fmt.Sprint("client ", i), now); log {
			lines++
		}
	}
	if lines != maxClients+1 || len(r.clients) != maxClients+1 {
		t.Errorf("%d lines, %d clients", lines, len(r.clients))
	}
	now = now.Add(quiet)
	if held, log := r.Note(Forbidden, "", now); !log || held != 9*maxClients-1 {
		t.Errorf("after a minute: %d held back, %v", held, log)
	}
	if _, log := r.Note(Forbidden, "another", now); !log || len(r.clients) != 2 {
		t.Errorf("after a minute: %v, %d clients", log, len(r.clients))
	}
}
