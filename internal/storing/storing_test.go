package storing

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// TestRenewedEntryKeepsItsOwnGroups: what a purge of its URL finds it by, whatever groups a
// validation brings.
func TestRenewedEntryKeepsItsOwnGroups(t *testing.T) {
	had := []string{pathGroup("/a?b"), inbound.QueryGroup("/a"), "theirs"}
	_, groups, _ := new(Policy).Relabel(nil, []string{"new"}, nil, had)
	if !slices.Contains(groups, had[0]) || !slices.Contains(groups, had[1]) || !slices.Contains(groups, "new") || slices.Contains(groups, "theirs") {
		t.Errorf("%q", groups)
	}
}

// TestOwnGroupsAreCounted among those of a response: other nodes would not take an entry with
// more, nor anything after it.
func TestOwnGroupsAreCounted(t *testing.T) {
	names := make([]string, rfc9111.MaxTags)
	for i := range names {
		names[i] = fmt.Sprintf("%q", fmt.Sprint("g", i))
	}
	p := new(Policy)
	for method, want := range map[string]rfc9111.Reason{http.MethodGet: rfc9111.None, rfc9111.MethodQuery: rfc9111.HeaderTooBig} {
		x := rfc9111.Exchange{Status: http.StatusOK, Response: http.Header{"Cache-Groups": {strings.Join(names, ", ")}}, Sent: time.Now()}
		e, why := p.NewEntry(x, rfc9111.Freshness{}, httptest.NewRequest(method, "/", nil), "/")
		if why != want {
			t.Fatalf("%s: %v", method, why)
		}
		if e == nil {
			continue
		}
		for own, few := range map[string]bool{"theirs": true, ownGroup + "own": false} {
			if _, groups, got := p.Relabel(nil, e.Groups(), nil, []string{own}); got != few {
				t.Errorf("%d groups after a validation: %v", len(groups), got)
			}
		}
	}
}

func TestCausesAreBounded(t *testing.T) {
	long := http.Header{"Cache-Control": {"private, x=" + strings.Repeat("x", 10_000)}}
	r := new(Policy).Rejection(rfc9111.Private, 200, nil, long)
	if r.Field != "Cache-Control" || len(r.Value) > 2*maxCause {
		t.Errorf("%s, %d bytes", r.Field, len(r.Value))
	}
}
