package storing

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

func TestCausesAreBounded(t *testing.T) {
	long := http.Header{"Cache-Control": {"private, x=" + strings.Repeat("x", 10_000)}}
	r := new(Policy).Rejection(rfc9111.Private, 200, nil, long)
	if r.Field != "Cache-Control" || len(r.Value) > 2*maxCause {
		t.Errorf("%s, %d bytes", r.Field, len(r.Value))
	}
}
