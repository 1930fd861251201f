package command

import (
	"bytes"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/report"
)

// TestTerminalsGetNoOrders: a client chooses URLs, and an upstream tags, that a terminal
// would take for more than text.
func TestTerminalsGetNoOrders(t *testing.T) {
	all := report.Entries{Entries: []report.Entry{{
		URL: "http://a.test/\u009b2J\u202egnp.caf\u00e9\x1b[31m\u65e5\u672c", Tags: []string{"a\rb", "\u2066c"},
	}}}
	var b bytes.Buffer
	if err := show(&b, all.Print); err != nil {
		t.Fatal(err)
	}
	for _, order := range []string{"\u009b", "\u202e", "\x1b", "\r", "\u2066"} {
		if bytes.Contains(b.Bytes(), []byte(order)) {
			t.Errorf("%q is written", order)
		}
	}
	for _, text := range []string{`http://a.test/\u009b2J\u202egnp.café\x1b[31m日本`, `a\rb \u2066c`, "\n"} {
		if !bytes.Contains(b.Bytes(), []byte(text)) {
			t.Errorf("%q is missing in %q", text, b.String())
		}
	}
}
