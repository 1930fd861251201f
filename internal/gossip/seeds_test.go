package gossip

import (
	"fmt"
	"testing"
)

func TestParseSeed(t *testing.T) {
	for seed, want := range map[string]string{
		"host":            "host 7946",
		"host:1":          "host 1",
		"a.b-c_d:65535":   "a.b-c_d 65535",
		"192.0.2.1":       "192.0.2.1 7946",
		"192.0.2.1:8":     "192.0.2.1 8",
		"2001:db8::1":     "2001:db8::1 7946",
		"[2001:db8::1]":   "2001:db8::1 7946",
		"[2001:db8::1]:8": "2001:db8::1 8",
		"":                "", "host:": "", "host:x": "", "host:0": "", "host:65536": "", ":1": "", "a b": "",
		"a/b:1": "", "[fe80::1%eth0]:1": "", "fe80::1%eth0": "", "[host": "", "a:b:c": "", "[]": "",
	} {
		host, port, err := parseSeed(seed)
		got := fmt.Sprint(host, " ", port)
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("parseSeed(%q): %q, %v, want %q", seed, got, err, want)
		}
	}
}
