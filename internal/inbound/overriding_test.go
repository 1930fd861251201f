package inbound

import (
	"net/http"
	"slices"
	"testing"
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
