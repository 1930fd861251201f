package front

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// TestOwnAndEdits: what is stored of a header, by what the handlers behind have done to
// what stood in it before.
func TestOwnAndEdits(t *testing.T) {
	type h = http.Header
	for name, tt := range map[string]struct {
		before, after, own h
		appends, ok        bool
	}{
		"nothing before":       {h{}, h{"A": {"1"}}, h{"A": {"1"}}, false, true},
		"left as it was":       {h{"A": {"1"}}, h{"A": {"1"}, "B": {"2"}}, h{"B": {"2"}}, false, true},
		"appended to":          {h{"A": {"1"}}, h{"A": {"1", "2"}}, h{"A": {"2"}}, true, true},
		"replaced":             {h{"A": {"1"}}, h{"A": {"2"}}, h{"A": {"2"}}, false, true},
		"deleted":              {h{"A": {"1"}}, h{"B": {"2"}}, h{"B": {"2"}}, false, false},
		"one of two lines":     {h{"A": {"1", "2"}}, h{"A": {"1"}}, h{"A": {"1"}}, false, true},
		"appended, replaced":   {h{"A": {"1"}, "B": {"1"}}, h{"A": {"1", "2"}, "B": {"2"}}, h{"A": {"2"}, "B": {"2"}}, true, false},
		"Server is deleted":    {h{"Server": {"Caddy"}}, h{"A": {"1"}}, h{"A": {"1"}}, false, true},
		"Server of the front":  {h{"Server": {"Caddy"}}, h{"Server": {"Caddy"}}, h{}, false, true},
		"without values":       {h{"A": nil}, h{"A": {"1"}}, h{"A": {"1"}}, false, true},
		"nothing, then no one": {h{"A": nil}, h{}, h{}, false, true},
	} {
		before := FieldsOf(tt.before)
		appends, ok := before.Edits(tt.after)
		if ok != tt.ok || ok && appends != tt.appends {
			t.Errorf("%s: appends %v, ok %v", name, appends, ok)
		}
		if own := before.Own(tt.after); !reflect.DeepEqual(own, tt.own) {
			t.Errorf("%s: stored is %v", name, own)
		}
	}
}

// TestFieldsAreCopied: a handler may change a line in place.
func TestFieldsAreCopied(t *testing.T) {
	header := http.Header{"A": {"1"}}
	before := FieldsOf(header)
	header["A"][0] = "2"
	if own := before.Own(header); len(own["A"]) != 1 {
		t.Error("a line that was changed in place is taken for one of the front")
	}
}

// TestForbidsLate: only what was changed since.
func TestForbidsLate(t *testing.T) {
	o := rfc9111.Options{Targeted: []string{"Cdn-Cache-Control"}}
	private, public := http.Header{"Cache-Control": {"private"}}, http.Header{"Cache-Control": {"max-age=1"}}
	cdn := http.Header{"Cache-Control": {"max-age=1"}, "Cdn-Cache-Control": {"no-store"}}
	for name, tt := range map[string]struct {
		before, after http.Header
		forbids       bool
	}{
		"no more than before": {private, private, false},
		"private since":       {public, private, true},
		"public since":        {private, public, false},
		"of a target, since":  {public, cdn, true},
		"nothing":             {http.Header{}, http.Header{}, false},
	} {
		if got := FieldsOf(tt.before).ForbidsLate(tt.after, o); got != tt.forbids {
			t.Errorf("%s: %v", name, got)
		}
	}
}
