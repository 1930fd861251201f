package storing

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// TestRenewedEntryKeepsItsOwnGroups: what a purge of its URL finds it by, whatever groups a
// validation brings.
func TestRenewedEntryKeepsItsOwnGroups(t *testing.T) {
	had := []string{pathGroup("/a?b"), inbound.QueryGroup("/a"), "theirs"}
	_, groups := new(Policy).Relabel(nil, []string{"new"}, nil, had)
	if !slices.Contains(groups, had[0]) || !slices.Contains(groups, had[1]) || !slices.Contains(groups, "new") || slices.Contains(groups, "theirs") {
		t.Errorf("%q", groups)
	}
}

func TestCausesAreBounded(t *testing.T) {
	long := http.Header{"Cache-Control": {"private, x=" + strings.Repeat("x", 10_000)}}
	r := new(Policy).Rejection(rfc9111.Private, 200, nil, long)
	if r.Field != "Cache-Control" || len(r.Value) > 2*maxCause {
		t.Errorf("%s, %d bytes", r.Field, len(r.Value))
	}
}
