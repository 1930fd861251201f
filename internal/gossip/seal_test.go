package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// sealOf returns a seal that holds the secrets of some letters, of a node without
// members.
func sealOf(t testing.TB, letters string) *seal {
	t.Helper()
	s, err := newSeal(keysOf(t, letters), func() map[uint64]bool { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asReceiver is what others know of a process.
func (s *seal) asReceiver() receiver { return receiver{s.life, s.ids()} }

func TestPacketIsOpenedOnceByItsReceiver(t *testing.T) {
	a, b := sealOf(t, "1"), sealOf(t, "1")
	for _, message := range [][]byte{[]byte("message"), {}, bytes.Repeat([]byte("x"), 1400-sealBytes)} {
		packet := a.seal(b.asReceiver(), message)
		if len(packet) != sealBytes+len(message) {
			t.Errorf("%d bytes are sealed in %d", len(message), len(packet))
		}
		if len(message) > 0 && bytes.Contains(packet, message) {
			t.Errorf("%q is sealed in plaintext", message)
		}
		if got, err := b.open(packet); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%q, %v", got, err)
		}
		if got, err := b.open(packet); !errors.Is(err, errReplayed) || got != nil {
			t.Errorf("again: %q, %v", got, err)
		}
	}
	c := sealOf(t, "21")
	if _, err := c.open(a.seal(c.asReceiver(), []byte("x"))); err != nil {
		t.Errorf("with a key that is not the first: %v", err)
	}
	nonce := func() []byte { return a.seal(b.asReceiver(), nil)[sealedHead : sealedHead+sealedNonce] }
	if bytes.Equal(nonce(), nonce()) {
		t.Error("two packets have one nonce")
	}
}

// No node opens a packet that was recorded, changed, or meant for another process.
func TestSealWithstands(t *testing.T) {
	a, b, c := sealOf(t, "1"), sealOf(t, "1"), sealOf(t, "12")
	fresh := func() []byte { return a.seal(b.asReceiver(), []byte("message")) }
	recorded := fresh()
	if _, err := b.open(recorded); err != nil {
		t.Fatal(err)
	}
	restarted := sealOf(t, "1")
	rotated := sealOf(t, "1")
	rotated.life = b.life
	if changed, err := rotated.setKeys(keysOf(t, "2")); err != nil || !changed {
		t.Fatal(changed, err)
	}
	rewritten := func(at int, value uint64) []byte {
		p := fresh()
		binary.BigEndian.PutUint64(p[at:], value)
		return p
	}
	plaintext := append(slices.Clone(recorded[:sealedHead+sealedNonce]), labeled([]byte{0, 1, 2, 3})...)
	for _, test := range []struct {
		name   string
		at     *seal
		packet []byte
		want   error
	}{
		{"replayed", b, recorded, errReplayed},
		{"reflected to the sender", a, recorded, errMisdirected},
		{"reflected before it has come", a, fresh(), errMisdirected},
		{"sent to another node", c, fresh(), errMisdirected},
		{"sent to the receiver after a restart", restarted, recorded, errMisdirected},
		{"sent after its secret has gone", rotated, fresh(), errForged},
		{"for another receiver", c, rewritten(0, c.life), errForged},
		{"from another sender", b, rewritten(8, c.life), errForged},
		{"with a later count", b, rewritten(16, 1<<40), errForged},
		{"with the highest count", b, rewritten(16, math.MaxUint64), errForged},
		{"by another secret", b, sealOf(t, "2").seal(b.asReceiver(), []byte("message")), errForged},
		{"for a receiver whose life is not known", b, a.seal(receiver{}, []byte("message")), errMisdirected},
		{"one head, the body of another", b, slices.Concat(fresh()[:sealedHead], fresh()[sealedHead:]), errForged},
		{"one nonce, the body of another", b, slices.Concat(fresh()[:sealedHead+sealedNonce], fresh()[sealedHead+sealedNonce:]), errForged},
		{"with a byte more", b, append(fresh(), 0), errForged},
		{"twice in one", b, slices.Concat(recorded, recorded), errForged},
		{"plaintext", b, labeled([]byte{0, 1, 2, 3}), errForged},
		{"plaintext behind a head", b, plaintext, errForged},
		{"a head alone", b, recorded[:sealedHead], errForged},
		{"zeros", b, make([]byte, 1400), errForged},
		{"nothing", b, nil, errForged},
	} {
		if got, err := test.at.open(test.packet); !errors.Is(err, test.want) || got != nil {
			t.Errorf("%s: %q, %v; want %v", test.name, got, err, test.want)
		}
	}
	if got, err := b.open(fresh()); err != nil || string(got) != "message" {
		t.Errorf("after all that, a packet is opened as %q, %v", got, err)
	}
}

func TestChangedPacketIsNotOpened(t *testing.T) {
	a, b := sealOf(t, "1"), sealOf(t, "21")
	packet := a.seal(b.asReceiver(), []byte("message"))
	for i := range 8 * len(packet) {
		forged := bytes.Clone(packet)
		forged[i/8] ^= 1 << (i % 8)
		if _, err := b.open(forged); !errors.Is(err, errForged) {
			t.Fatalf("with bit %d changed: %v", i, err)
		}
	}
	for n := range packet {
		if _, err := b.open(packet[:n]); !errors.Is(err, errForged) {
			t.Fatalf("%d bytes of it: %v", n, err)
		}
		if _, err := b.open(packet[n+1:]); !errors.Is(err, errForged) {
			t.Fatalf("without its first %d bytes: %v", n+1, err)
		}
	}
	if _, err := b.open(packet); err != nil {
		t.Errorf("a refused packet has counted: %v", err)
	}
}

// Counts that come from a holder of the secret, in any order, harm no other
// sender.
func TestHighestCount(t *testing.T) {
	a, b, other := sealOf(t, "1"), sealOf(t, "1"), sealOf(t, "1")
	for _, test := range []struct {
		count uint64
		want  error
	}{
		{0, nil}, {0, errReplayed}, {1, nil}, {math.MaxUint64, nil}, {math.MaxUint64, errReplayed},
		{math.MaxUint64 - windowBits + 1, nil}, {math.MaxUint64 - windowBits, errReplayed}, {2, errReplayed}, {0, errReplayed},
	} {
		a.count.Store(test.count - 1)
		if _, err := b.open(a.seal(b.asReceiver(), nil)); !errors.Is(err, test.want) {
			t.Errorf("count %d: %v, want %v", test.count, err, test.want)
		}
	}
	if _, err := b.open(other.seal(b.asReceiver(), nil)); err != nil {
		t.Errorf("of another sender: %v", err)
	}
}

// TestProcessThatJoinsAgainGoesOnCounting: what it sends then was not sent before.
func TestProcessThatJoinsAgainGoesOnCounting(t *testing.T) {
	a, again, b := sealOf(t, "1"), sealOf(t, "1"), sealOf(t, "1")
	again.life = a.life
	for range 3 {
		if _, err := b.open(a.seal(b.asReceiver(), nil)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.open(again.seal(b.asReceiver(), nil)); err != nil {
		t.Errorf("it is refused: %v", err)
	}
}

func TestPacketIsOpenedOnceByManyAtATime(t *testing.T) {
	a, b := sealOf(t, "1"), sealOf(t, "1")
	for range 100 {
		packet := a.seal(b.asReceiver(), []byte("message"))
		var opened atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if _, err := b.open(packet); err == nil {
					opened.Add(1)
				}
			})
		}
		if all.Wait(); opened.Load() != 1 {
			t.Fatalf("opened %d times", opened.Load())
		}
	}
}

func TestPacketsAreSealedWithTheFirstKeyThatTheReceiverHolds(t *testing.T) {
	for _, test := range []struct{ own, held, want string }{
		{"n", "n", "n"},
		{"no", "o", "o"},
		{"no", "no", "n"},
		{"no", "on", "n"},
		{"on", "no", "o"},
		{"no", "n", "n"},
		{"xno", "on", "n"},
		// Its meta is older than its secrets, or names none.
		{"no", "", "n"},
		{"no", "x", "n"},
	} {
		s, to := sealOf(t, test.own), receiver{life: 1}
		for _, k := range keysOf(t, test.held) {
			to.keys = append(to.keys, k.ID)
		}
		if got := s.keyFor(to).id; got != keysOf(t, test.want)[0].ID {
			t.Errorf("%s to %q: sealed with the wrong key", test.own, test.held)
		}
		if _, err := sealOf(t, test.want).open(s.seal(to, nil)); !errors.Is(err, errMisdirected) {
			t.Errorf("%s to %q: %v", test.own, test.held, err)
		}
	}
}

// FuzzOpenPacket feeds a receiver with noise, and with a packet for it, cut, changed
// or as it is.
func FuzzOpenPacket(f *testing.F) {
	f.Add([]byte("noise"), []byte("message"), uint16(0), byte(0), uint16(math.MaxUint16))
	f.Add(make([]byte, sealBytes), []byte{}, uint16(sealBytes-1), byte(1), uint16(math.MaxUint16))
	f.Add(bytes.Repeat([]byte{0xff}, 1400), bytes.Repeat([]byte("x"), 1400), uint16(16), byte(0x80), uint16(40))
	keys := keysOf(f, "21")
	f.Fuzz(func(t *testing.T, noise, message []byte, at uint16, change byte, length uint16) {
		a, b := sealOf(t, "1"), sealOf(t, "1")
		if _, err := b.setKeys(keys); err != nil {
			t.Fatal(err)
		}
		if got, err := b.open(noise); !errors.Is(err, errForged) || got != nil {
			t.Errorf("noise is opened as %q, %v", got, err)
		}
		packet := a.seal(b.asReceiver(), message)
		changed := bytes.Clone(packet[:min(int(length), len(packet))])
		if int(at) < len(changed) {
			changed[at] ^= change
		}
		got, err := b.open(changed)
		if !bytes.Equal(changed, packet) {
			if !errors.Is(err, errForged) || got != nil {
				t.Errorf("opened as %q, %v", got, err)
			}
			got, err = b.open(packet)
		}
		if err != nil || !bytes.Equal(got, message) {
			t.Errorf("%q is opened as %q, %v", message, got, err)
		}
		if _, err := b.open(packet); !errors.Is(err, errReplayed) {
			t.Errorf("again: %v", err)
		}
	})
}
