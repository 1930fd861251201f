package report

import (
	"slices"
	"testing"
)

// TestHistoryOfReasons: those that there were since the oldest sample, and not before.
func TestHistoryOfReasons(t *testing.T) {
	var s Samples
	for i := range int64(4) {
		s.add(Sample{Requests: map[string]int64{}, NotStored: map[string]int64{"private": 7, "set-cookie": 2 * i}})
	}
	h := s.History()
	if got := h.NotStored["set-cookie"]; len(h.NotStored) != 1 || !slices.Equal(got, []int64{2, 2, 2}) {
		t.Errorf("%v", h.NotStored)
	}
}
