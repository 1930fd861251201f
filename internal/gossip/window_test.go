package gossip

import (
	"errors"
	"testing"
)

func newWindows(members ...uint64) *windows {
	known := make(map[uint64]bool)
	for _, life := range members {
		known[life] = true
	}
	return &windows{members: func() map[uint64]bool { return known }, lives: make(map[uint64]*window)}
}

func TestPacketsMayOvertakeEachOther(t *testing.T) {
	ws := newWindows()
	take := func(count uint64, want error) {
		t.Helper()
		if err := ws.take(1, count); !errors.Is(err, want) {
			t.Fatalf("packet %d: %v, want %v", count, err, want)
		}
	}
	// In blocks, each backwards.
	for start := uint64(1); start < windowBits; start += 64 {
		for count := start + 63; count >= start; count-- {
			take(count, nil)
		}
	}
	for count := uint64(1); count <= windowBits; count++ {
		take(count, errReplayed)
	}
	take(3*windowBits, nil)
	take(2*windowBits, errReplayed) // it may have come: the window does not tell any more
	take(2*windowBits+1, nil)
	take(2*windowBits+1, errReplayed)
	for count := uint64(2*windowBits + 2); count < 3*windowBits; count++ {
		take(count, nil)
		take(count, errReplayed)
	}
}

// FuzzWindow compares a window with a list of all that has come. Each byte is how
// far the next count is from the highest, in quarters of words of the window.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{128, 129, 128, 127, 128, 64, 255, 0, 128})
	f.Add([]byte{255, 255, 1, 2, 3, 2, 1, 0, 200, 200, 150, 60})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var w window
		var top uint64
		come := make(map[uint64]bool)
		for _, step := range steps {
			count := top + 16*uint64(step) + uint64(step)%16
			if back := uint64(16 * 128); count >= back {
				count -= back
			}
			want := !come[count] && (count > top || top-count < windowBits)
			if got := w.first(count); got != want {
				t.Fatalf("count %d, when %d is the highest: %v", count, top, got)
			}
			come[count], top = true, max(top, count)
		}
	})
}

// A cluster may see more processes come and go than a node has windows for.
func TestForgottenSendersCannotBeReplayed(t *testing.T) {
	const member, gone, late = 1, 2, maxWindows + 200
	ws := newWindows(member, late)
	for life := uint64(1); life <= maxWindows+100; life++ {
		want := error(nil)
		if life > maxWindows {
			want = errUnknownSender // until its meta has come
		}
		if err := ws.take(life, 1); !errors.Is(err, want) {
			t.Fatalf("life %d: %v, want %v", life, err, want)
		}
	}
	if len(ws.lives) > maxWindows {
		t.Errorf("%d windows", len(ws.lives))
	}
	if err := ws.take(member, 1); !errors.Is(err, errReplayed) {
		t.Errorf("a member's packet, again: %v", err)
	}
	if err := ws.take(member, 2); err != nil {
		t.Errorf("a member's next packet: %v", err)
	}
	if err := ws.take(gone, 1); err == nil {
		t.Error("a packet is taken again, since its sender was forgotten")
	}
	if err := ws.take(late, 1); err != nil {
		t.Errorf("a new member's first packet: %v", err)
	}
	if err := ws.take(late, 1); !errors.Is(err, errReplayed) {
		t.Errorf("a new member's first packet, again: %v", err)
	}
	if len(ws.lives) != 2 {
		t.Errorf("%d windows of two members", len(ws.lives))
	}
}

func TestFullOfMembers(t *testing.T) {
	var all []uint64
	for life := range uint64(maxWindows) {
		all = append(all, life+1)
	}
	ws := newWindows(all...)
	for range 2 {
		for _, life := range append(all, maxWindows+1) {
			err := ws.take(life, 1)
			if life > maxWindows && !errors.Is(err, errUnknownSender) {
				t.Fatalf("one too many: %v", err)
			}
		}
	}
	for _, life := range all {
		if err := ws.take(life, 1); !errors.Is(err, errReplayed) {
			t.Fatalf("life %d: %v", life, err)
		}
	}
}
