package caddygroupcache

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// TestEachDegradedPeerHasItsLine: also if their names differ by a number only,
// and only once for each as long as it comes and goes.
func TestEachDegradedPeerHasItsLine(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	p := newProcess("n1", 8<<20)
	defer p.node.Close()
	p.config.app.Store(&App{logger: zap.New(core)})
	p.node.SetRing([]peer.Node{{Name: "n1", Addr: "127.0.0.1:1"}, {Name: "n2", Addr: "127.0.0.1:2"}, {Name: "n3", Addr: "127.0.0.1:3"}})
	for range 10 {
		for _, addr := range []string{"127.0.0.1:2", "127.0.0.1:3"} {
			p.onHealth(addr, true)
			p.onHealth(addr, false)
		}
	}
	lines := make(map[any]int)
	for _, line := range logs.All() {
		lines[line.ContextMap()["member"]]++
	}
	if len(lines) != 2 || lines["n2"] != 2 || lines["n3"] != 2 {
		t.Errorf("lines by member: %v", lines)
	}
}
