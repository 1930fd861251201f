package caddygroupcache

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestDashboardIsOnePage of the admin API, which is only read.
func TestDashboardIsOnePage(t *testing.T) {
	w := httptest.NewRecorder()
	if err := new(adminAPI).dashboard(w, httptest.NewRequest(http.MethodGet, "/groupcache/", nil)); err != nil || w.Body.Len() == 0 {
		t.Errorf("%d bytes, %v", w.Body.Len(), err)
	}
	if err := new(adminAPI).dashboard(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/groupcache/other", nil)); err == nil {
		t.Error("what is not there was found")
	}
	if err := new(adminAPI).dashboard(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/groupcache/", nil)); err == nil {
		t.Error("the page was posted to")
	}
}

// TestSampleHasAllGroups: the history is that of the whole node.
func TestSampleHasAllGroups(t *testing.T) {
	p := &process{}
	if s := p.counters.sample(); len(s.Requests) != int(statusCount) {
		t.Errorf("without groups: %v", s)
	}
	for _, group := range []string{"a", "b"} {
		c := p.counters.of(group)
		c.requests[statusHit].Add(2)
		c.fills[fillFailed].Add(1)
		c.fills[fillStored].Add(2)
	}
	if s := p.counters.sample(); s.Requests["hit"] != 4 || s.Requests["miss"] != 0 || s.Fills != 6 {
		t.Errorf("%v", s)
	}
}
