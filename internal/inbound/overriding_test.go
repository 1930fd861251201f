package inbound

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// TestNamesAreCanonical: others are in no header that net/http has read.
func TestNamesAreCanonical(t *testing.T) {
	for _, name := range slices.Concat(overriding, ofTheClient) {
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s is not canonical", name)
		}
	}
}

func TestForwardedCountsWithoutItsAddresses(t *testing.T) {
	key := func(forwarded string) string { return OverridingKey(http.Header{"Forwarded": {forwarded}}) }
	for _, same := range [][2]string{
		{"for=1.2.3.4", `for="[2001:db8::1]:80"`},
		{"for=1.2.3.4;proto=https", "proto=https; For=_hidden"},
		{"for=a;host=d", "host=d;by=c"},
		{"for=a, for=b", "for=c"},
		{`for="[2001:db8::1]:80";host="d"`, `host="d"`},
	} {
		if key(same[0]) != key(same[1]) {
			t.Errorf("%q and %q differ", same[0], same[1])
		}
	}
	for _, other := range [][2]string{
		{"host=a", "host=b"},
		{"for=1;host=a", "for=1"},
		{`for="1;host=a"`, "for=1"},
		{"for=1 host=a", "for=1"},
		{"for=1=host", "for=1"},
		{"for", "for=1"},
		{`for="x;proto=https"`, `proto=https"`},
		{`host="a;for=b;c"`, `host="a;c"`},
		{`host="a\";for=b;c"`, `host="a\";c"`},
		{`proto="http;for=x`, `proto="http`},
		{"for=a, for=b;by=c;host=d", "host=d"},
		{"host=a, host=b", "host=a;host=b"},
	} {
		if key(other[0]) == key(other[1]) {
			t.Errorf("%q and %q are taken for one", other[0], other[1])
		}
	}
}

// TestWhichNamesOverride: in each spelling that upstreams take for the same, and no other.
func TestTooManyOverridingFieldsHaveNoKey(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "http://a.test/", nil)
	n := store.New(1<<20, 1<<20)
	defer n.Close()
	for i := range maxOverriding + 1 {
		a := &Addressing{Store: n}
		if _, ok := a.Of(r, FieldsOf(r.Header), "/"); !ok {
			t.Fatalf("no key with %d of them", i)
		}
		r.Header.Set(fmt.Sprintf("X-Now-%d", i), "x")
	}
	a := &Addressing{Store: n}
	if _, ok := a.Of(r, FieldsOf(r.Header), "/"); ok {
		t.Error("a key of too many")
	}
}

func TestWhichNamesOverride(t *testing.T) {
	plain := func(name string) bool { // without what makes it quick
		name = http.CanonicalHeaderKey(strings.NewReplacer("_", "-", ".", "-").Replace(name))
		of := func(family string) bool { return strings.HasPrefix(name, family) }
		return slices.Contains(overriding, name) || slices.ContainsFunc(overridingFamilies, of) && !slices.Contains(ofTheClient, name)
	}
	names := []string{"", "X", "X-", "Xy", "X--", "Accept", "X-Any", strings.Repeat("x", 100), "X-Forwarded-" + strings.Repeat("a", 100), "X-F", "X.f", "X_forwarded"}
	for _, name := range slices.Concat(overriding, overridingFamilies, ofTheClient) {
		names = append(names, name, name+"a", name+"-A", name[:len(name)-1], "A"+name, name+strings.Repeat("b", 40))
	}
	for _, name := range names {
		for _, other := range []string{"-", "_", "."} {
			for _, spelling := range []string{name, strings.ToLower(name), strings.Replace(name, "-", "_", 1)} {
				spelling = http.CanonicalHeaderKey(strings.ReplaceAll(spelling, "-", other))
				if got, want := OverridesURL(spelling), plain(spelling); got != want {
					t.Errorf("%s: %v, want %v", spelling, got, want)
				}
			}
		}
	}
}
