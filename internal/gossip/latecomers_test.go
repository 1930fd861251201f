package gossip

import (
	"io"
	"net"
	"testing"
)

// TestLatecomersAreBounded: also if packets come while those that are held are looked at.
func TestLatecomersAreBounded(t *testing.T) {
	var l latecomers
	for l.hold(1, nil, "early") {
	}
	l.settle(func(uint64, net.Addr) bool {
		l.hold(2, nil, "amid it")
		return false
	}, io.Discard)
	if held := len(l.held); l.hold(3, nil, "late") || held > 2*maxLatecomers {
		t.Errorf("%d are held, and there is room for more", held)
	}
}
