package rfc9111

import "testing"

func TestUpgrade(t *testing.T) {
	const settings = "AAMAAABkAARAAAAAAAIAAAAA"
	for _, tt := range []struct {
		name     string
		request  []string
		upgrades bool
		left     []string // of the request that doesn't
	}{
		{"none", nil, false, nil},
		{"WebSocket (RFC 6455 §1.3)", []string{"Upgrade", "websocket", "Connection", "Upgrade"}, true, nil},
		{"in other letters, beside another option", []string{"Upgrade", "WebSocket", "Connection", "keep-alive, upgrade"}, true, nil},
		{"over two lines", []string{"Upgrade", "websocket", "Connection", "keep-alive", "Connection", "upgrade"}, true, nil},
		{"Connection does not name it", []string{"Upgrade", "websocket", "Connection", "keep-alive"}, false, []string{"Upgrade", "websocket", "Connection", "keep-alive"}},
		{"without Connection", []string{"Upgrade", "websocket"}, false, []string{"Upgrade", "websocket"}},
		{"to nothing", []string{"Connection", "Upgrade"}, false, []string{"Connection", "Upgrade"}},
		{"to an empty list", []string{"Upgrade", " ,", "Connection", "Upgrade"}, false, nil},
		{"h2c (RFC 7540 §3.2)", []string{"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "Http2-Settings", settings}, false, nil},
		{"h2c, as clients may write it", []string{"Connection", "close", "Connection", "upgrade,http2-settings , te", "Upgrade", "H2C", "Http2-Settings", settings, "X", "y"},
			false, []string{"Connection", "close, te", "X", "y"}},
		{"h2c without settings", []string{"Connection", "Upgrade", "Upgrade", "h2c"}, false, nil},
		{"h2c with settings that go through", []string{"Connection", "Upgrade", "Upgrade", "h2c", "Http2-Settings", settings}, true, nil},
		{"h2c or another one (RFC 9110 §7.8)", []string{"Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c, websocket", "Http2-Settings", settings}, true, nil},
		{"h2c and another line", []string{"Connection", "Upgrade", "Upgrade", "h2c", "Upgrade", "IRC/6.9"}, true, nil},
		{"a list (RFC 9110 §7.8)", []string{"Connection", "upgrade", "Upgrade", "websocket, IRC/6.9, RTA/x11"}, true, nil},
		{"a name that begins like it", []string{"Connection", "Upgrade", "Upgrade", "h2cx"}, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := header(tt.request...)
			if got := Upgrades(h); got != tt.upgrades {
				t.Errorf("got %v", got)
			}
			if !tt.upgrades {
				DropUpgrade(h)
				equalHeader(t, h, header(tt.left...))
			}
		})
	}
}

func FuzzUpgrade(f *testing.F) {
	f.Add("Upgrade, HTTP2-Settings", "h2c", "x")
	f.Add("close,, UPGRADE", "h2c , websocket", "")
	f.Fuzz(func(t *testing.T, connection, upgrade, settings string) {
		h := header("Connection", connection, "Upgrade", upgrade, "Http2-Settings", settings)
		if Upgrades(h) {
			return
		}
		named := NamesFields(h["Connection"])
		DropUpgrade(h)
		if len(h["Upgrade"]) > 0 && hasOption(h["Connection"], "upgrade") || NamesFields(h["Connection"]) != named {
			t.Errorf("%q, %q: %v is left", connection, upgrade, h)
		}
	})
}
