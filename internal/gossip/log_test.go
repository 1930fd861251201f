package gossip

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-groupcache/caddy-groupcache/internal/ratelimit"
)

func TestMemberlistLog(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	var refused atomic.Int64
	var suspects []string
	l := newMemberlistLog(zap.New(core), &refused, func(s string) { suspects = append(suspects, s) })
	for _, line := range []string{
		"[DEBUG] memberlist: one", "[INFO] memberlist: two", "[WARN] memberlist: three", "[ERR] memberlist: four",
		"[ERROR] memberlist: five", "Err: six", "[ERR] Failed to shutdown", "[INFO] memberlist: Suspect a b has failed, no acks received",
		"[ERR] memberlist: Failed to decode ping: x from=1", "[ERR] memberlist: Failed to decode ping: y from=2",
		"[WARN] memberlist: Binding to public address without encryption!",
	} {
		if n, err := l.Write([]byte(line + "\n")); n != len(line)+1 || err != nil {
			t.Fatal(n, err)
		}
	}
	var got []string
	for _, e := range logs.All() {
		text := e.Message
		if port := e.ContextMap()["port"]; port != nil {
			text = "refused at " + port.(string)
		}
		got = append(got, e.Level.String()+" "+text)
	}
	want := []string{
		"debug one", "info two", "warn three", "error four", "error five", "error Err: six", "error Failed to shutdown",
		"info Suspect a b has failed, no acks received", "warn refused at gossip",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if refused.Load() != 2 || !slices.Equal(suspects, []string{"a b"}) {
		t.Errorf("%d refused, suspects %q", refused.Load(), suspects)
	}
}

func TestKindsOfLinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // all in one minute
		core, logs := observer.New(zapcore.InfoLevel)
		l := NewLimitedLog(zap.New(core))
		for i := range 1000 {
			l.Refused("gossip", fmt.Sprintf("%s-%s", strings.Repeat("x", i%99), strings.Repeat("y", i/99)))
		}
		if n := logs.Len(); n > maxLogKinds+1 {
			t.Errorf("%d lines", n)
		}
	})
}

// TestKindsOfLinesMakeRoom: members have other names after each start. A kind that comes after
// many others has lines of its own all the same.
func TestKindsOfLinesMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		l := NewLimitedLog(zap.New(core))
		for start := range 3 {
			for member := range maxLogKinds {
				l.Write(zapcore.InfoLevel, fmt.Sprintf("degraded cache-%d-%d", member, start), "degraded")
			}
			time.Sleep(ratelimit.Quiet)
		}
		if n := logs.Len(); n != 3*maxLogKinds {
			t.Errorf("%d lines of %d kinds", n, 3*maxLogKinds)
		}
	})
}
