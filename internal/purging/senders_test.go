package purging

import (
	"net/http/httptest"
	"testing"
)

// TestRangesAndTheirClients: an IPv4 address counts however it is written, in the config and
// by the connection.
func TestRangesAndTheirClients(t *testing.T) {
	for _, tt := range []struct {
		from, client string
		want         bool
	}{
		{"10.0.0.5", "10.0.0.5", true},
		{"10.0.0.5", "::ffff:10.0.0.5", true},
		{"::ffff:10.0.0.5", "10.0.0.5", true},
		{"::ffff:10.0.0.5", "::ffff:10.0.0.5", true},
		{"::ffff:10.0.0.5", "10.0.0.6", false},
		{"::ffff:10.0.0.0/104", "10.1.2.3", true},
		{"::ffff:10.0.0.0/104", "11.0.0.1", false},
		{"::ffff:0.0.0.0/96", "192.0.2.1", true},
		{"::ffff:0.0.0.0/96", "2001:db8::1", false},
		{"2001:db8::/32", "2001:db8::1", true},
		{"fe80::1", "fe80::1%eth0", true},
		{"::/0", "2001:db8::1", true},
		{"::/0", "10.0.0.5", false},
	} {
		var s Senders
		if err := s.AddRange(tt.from); err != nil {
			t.Error(err)
			continue
		}
		if cause := s.Forbid(httptest.NewRequest("PURGE", "/", nil), tt.client, false); (cause == "") != tt.want {
			t.Errorf("from %s, client %s: %q", tt.from, tt.client, cause)
		}
	}
	if err := new(Senders).AddRange("::ffff:0.0.0.0/90"); err == nil {
		t.Error("a range of IPv4 and something else is accepted")
	}
}
