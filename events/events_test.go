package events

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// TestTimeThatRequestsHaveToEnd: the grace period begins after the delay. Without one there
// is no end.
func TestTimeThatRequestsHaveToEnd(t *testing.T) {
	for site, want := range map[string]time.Duration{
		`{}`:                     0,
		`{"grace_period": "4s"}`: 4 * time.Second,
		`{"grace_period": "4s", "shutdown_delay": "5s"}`: 9 * time.Second,
		`{"shutdown_delay": "5s"}`:                       0,
	} {
		err := caddy.Run(&caddy.Config{
			Admin:   &caddy.AdminConfig{Disabled: true, Config: &caddy.ConfigSettings{Persist: new(false)}},
			AppsRaw: caddy.ModuleMap{"http": json.RawMessage(site), "tls": json.RawMessage(`{"disable_storage_clean": true}`)},
		})
		if err != nil {
			t.Fatal(err)
		}
		got := time.Duration(-1)
		err = stopper{caddy.ActiveContext(), func(grace time.Duration) { got = grace }}.Handle(t.Context(), caddy.Event{})
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", site, got, err)
		}
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	}
}
