package rfc9111

import "testing"

func TestReasonNames(t *testing.T) {
	seen := map[string]Reason{}
	for _, r := range Reasons() {
		name := r.String()
		if other, ok := seen[name]; ok || name == "" || name == "unknown" {
			t.Errorf("reason %d is called %q, as %d is", r, name, other)
		}
		seen[name] = r
	}
	if None.String() != "" || Reason(255).String() != "unknown" {
		t.Error("None or an unknown reason has a name")
	}
}

// What one client can provoke alone must not make a URL uncacheable for all.
func TestReasonsOfOneClientAreForgotten(t *testing.T) {
	for _, r := range []Reason{None, Method, RequestNoStore, RequestNoCache, Authorization, Partial, RequestStatus, StrayNotModified, Aborted, Precondition} {
		if r.RemembersUncacheable() {
			t.Errorf("%q is remembered", r)
		}
	}
	for _, r := range []Reason{NoStore, Private, SetCookie, ClearSiteData, VaryStar, NoFreshness, EventStream, TooLarge, PartsOnly, SecondUpstream} {
		if !r.RemembersUncacheable() {
			t.Errorf("%q is not remembered", r)
		}
	}
}
