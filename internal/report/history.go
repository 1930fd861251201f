package report

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

// History is what a node did in the last minutes: how often in each interval,
// the latest last.
type History struct {
	EverySeconds int64              `json:"every_seconds"`
	Requests     map[string][]int64 `json:"requests"` // by status
	Fills        []int64            `json:"fills"`
	NotStored    map[string][]int64 `json:"not_stored"` // by reason, those that there were
}

const (
	sampleEvery = 5 * time.Second
	maxSamples  = 120
)

// Samples are a node's counters, every now and then.
type Samples struct {
	mu  sync.Mutex // guards all
	all []Sample   // the latest last
}

// A Sample is what a node has counted since it started.
type Sample struct {
	Requests map[string]int64 // by status, all of them
	Fills    int64

	NotStored map[string]int64 // by reason, those that there were
}

// Keep adds samples until ctx ends.
func (s *Samples) Keep(ctx context.Context, take func() Sample) {
	ticks := time.NewTicker(sampleEvery)
	defer ticks.Stop()
	for {
		guard.Run(func() { s.add(take()) })
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

func (s *Samples) add(one Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all = append(s.all, one); len(s.all) > maxSamples+1 {
		s.all = append(s.all[:0], s.all[1:]...)
	}
}

// History returns the differences between samples.
func (s *Samples) History() History {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := History{EverySeconds: seconds(sampleEvery), Requests: make(map[string][]int64), Fills: []int64{}, NotStored: make(map[string][]int64)}
	if len(s.all) == 0 {
		return h
	}
	for status := range s.all[0].Requests {
		h.Requests[status] = []int64{}
	}
	for reason, n := range s.all[len(s.all)-1].NotStored {
		if n > s.all[0].NotStored[reason] {
			h.NotStored[reason] = []int64{}
		}
	}
	for i, is := range s.all[1:] {
		was := s.all[i]
		for status, n := range is.Requests {
			h.Requests[status] = append(h.Requests[status], n-was.Requests[status])
		}
		for reason := range h.NotStored {
			h.NotStored[reason] = append(h.NotStored[reason], is.NotStored[reason]-was.NotStored[reason])
		}
		h.Fills = append(h.Fills, is.Fills-was.Fills)
	}
	return h
}
