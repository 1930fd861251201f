package warm

import (
	"strings"
	"testing"
)

func TestWarmProgress(t *testing.T) {
	for asked, want := range map[int]int{0: 0, 1: 3, 5: 15, 10: barWidth} {
		bar := (&Summary{URLs: 10, Asked: asked}).bar()
		if got := strings.Count(bar, "#"); got != want || len(bar) < barWidth+2 {
			t.Errorf("%d of 10: %s", asked, bar)
		}
	}
	var out strings.Builder
	s := Summary{URLs: 9, Asked: 8, Hits: 1, Stored: 2, Failed: 1, NotStored: map[string]int{"private": 1, "set-cookie": 3}, Errors: []string{"refused"}}
	if err := s.Print(&out); err != nil {
		t.Fatal(err)
	}
	if private, cookie := strings.Index(out.String(), "private"), strings.Index(out.String(), "set-cookie"); cookie < 0 || private < cookie || !strings.Contains(out.String(), "refused") {
		t.Errorf("%s", out.String())
	}
}
