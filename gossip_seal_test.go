package caddygroupcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

func sealOf(t testing.TB, letters string) *packetSeal {
	s := newPacketSeal()
	s.setKeys(keysOf(t, letters))
	return s
}

func TestPacketIsTakenOnceAndByItsReceiver(t *testing.T) {
	a, b := sealOf(t, "1"), sealOf(t, "1")
	message := []byte("message")
	packet := a.seal(b.life, message)
	for i := range packet {
		forged := bytes.Clone(packet)
		forged[i] ^= 1
		if _, err := b.open(forged); !errors.Is(err, errForged) {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
	}
	for n := range packet {
		if _, err := b.open(packet[:n]); !errors.Is(err, errForged) {
			t.Fatalf("%d bytes of it: %v", n, err)
		}
	}
	if got, err := b.open(packet); err != nil || !bytes.Equal(got, message) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.open(packet); !errors.Is(err, errReplayed) {
		t.Errorf("again: %v", err)
	}
	if _, err := sealOf(t, "1").open(packet); !errors.Is(err, errMisdirected) {
		t.Errorf("at another node, or after a restart: %v", err)
	}
	if _, err := b.open(sealOf(t, "2").seal(b.life, message)); !errors.Is(err, errForged) {
		t.Errorf("with another secret: %v", err)
	}
	if _, err := sealOf(t, "21").open(a.seal(0, message)); !errors.Is(err, errMisdirected) {
		t.Errorf("for nobody: %v", err)
	}
	c := sealOf(t, "21")
	if _, err := c.open(a.seal(c.life, message)); err != nil {
		t.Errorf("with a key that is not the first: %v", err)
	}
}

func TestPacketsMayOvertakeEachOther(t *testing.T) {
	a, b := sealOf(t, "1"), sealOf(t, "1")
	var packets [][]byte
	for range 3 * windowBits {
		packets = append(packets, a.seal(b.life, []byte("x")))
	}
	open := func(i int, want error) {
		t.Helper()
		if _, err := b.open(packets[i]); !errors.Is(err, want) {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
	// In blocks, each backwards.
	for start := 0; start < windowBits; start += 64 {
		for i := start + 63; i >= start; i-- {
			open(i, nil)
		}
	}
	for i := range windowBits {
		open(i, errReplayed)
	}
	open(3*windowBits-1, nil)
	open(2*windowBits-1, errReplayed) // it may have come: nobody knows any more
	open(2*windowBits, nil)
	open(2*windowBits, errReplayed)
	for i := 2*windowBits + 1; i < 3*windowBits-1; i++ {
		open(i, nil)
		open(i, errReplayed)
	}
}

func TestSendersAreForgottenWhenThereAreTooMany(t *testing.T) {
	s := newPacketSeal()
	for life := range uint64(maxWindows + 100) {
		s.first(life+1, 1)
		s.first(1, life+2) // in use all the time
	}
	if len(s.windows) != maxWindows || s.windows[1] == nil || s.windows[2] != nil {
		t.Errorf("%d windows", len(s.windows))
	}
}

func FuzzPacketSeal(f *testing.F) {
	a, b := sealOf(f, "1"), sealOf(f, "1")
	f.Add([]byte("x"))
	f.Add(a.seal(b.life, []byte("message")))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if got, err := sealOf(t, "12").open(packet); err == nil {
			t.Errorf("%q is taken", got)
		}
	})
}

func TestChooseKey(t *testing.T) {
	ids := func(letters string) (all []keyID) {
		for _, k := range keysOf(t, letters) {
			all = append(all, k.id)
		}
		return all
	}
	for _, test := range []struct {
		own    string
		others []string
		turn   int
		want   int
	}{
		{"n", nil, 0, 0},
		{"no", nil, 0, 0},
		{"no", nil, 1, 1},
		{"no", nil, 2, 0},
		{"no", []string{"o", "o"}, 0, 1},
		{"no", []string{"o", "o"}, 1, 1},
		{"no", []string{"no", "o"}, 0, 1},
		{"no", []string{"no", "no"}, 1, 0},
		{"no", []string{"on"}, 0, 0},
		{"on", []string{"no"}, 0, 0},
		{"no", []string{"n", "no"}, 0, 0},
		{"no", []string{"n", "o"}, 0, 0},
		{"no", []string{"", "o"}, 0, 0},
		{"o", []string{"n"}, 0, 0},
		{"xno", []string{"no", "on"}, 0, 1},
	} {
		var others [][]keyID
		for _, o := range test.others {
			others = append(others, ids(o))
		}
		if got := chooseKey(keysOf(t, test.own), others, test.turn); got != test.want {
			t.Errorf("%s among %q, turn %d: %d", test.own, test.others, test.turn, got)
		}
	}
}

// A tap stands before a node and records what others send to it.
type tap struct {
	addr string

	mu      sync.Mutex // guards below
	packets [][]byte
	streams []*bytes.Buffer
}

// newTap returns a tap before the address that target returns.
func newTap(t *testing.T, target func() string) *tap {
	t.Helper()
	tp := new(tap)
	l, u := listenBoth(t)
	tp.addr = l.Addr().String()
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			tp.mu.Lock()
			tp.packets = append(tp.packets, bytes.Clone(buf[:n]))
			tp.mu.Unlock()
			if to, err := net.ResolveUDPAddr("udp", target()); err == nil {
				_, _ = u.WriteTo(buf[:n], to)
			}
		}
	}()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target())
			if err != nil {
				in.Close()
				continue
			}
			record := new(bytes.Buffer)
			tp.mu.Lock()
			tp.streams = append(tp.streams, record)
			tp.mu.Unlock()
			go func() {
				_, _ = io.Copy(in, out)
				in.Close()
			}()
			go func() {
				buf := make([]byte, 32<<10)
				for {
					n, err := in.Read(buf)
					tp.mu.Lock()
					record.Write(buf[:n])
					tp.mu.Unlock()
					if _, werr := out.Write(buf[:n]); err != nil || werr != nil {
						out.Close()
						return
					}
				}
			}()
		}
	}()
	return tp
}

// listenBoth opens one port for TCP and UDP.
func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if u, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			return l, u
		}
		l.Close()
	}
	t.Fatal("no free port")
	return nil, nil
}

func (tp *tap) recorded() (packets, streams [][]byte) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	for _, s := range tp.streams {
		if s.Len() > 0 {
			streams = append(streams, bytes.Clone(s.Bytes()))
		}
	}
	return slices.Clone(tp.packets), streams
}

// What was recorded between two nodes is worth nothing to whoever sends it
// again: to the node it was for, to another one, or to the same one after a
// restart.
func TestGossipThatWasRecordedIsRefused(t *testing.T) {
	t.Parallel()
	var a *gossipNode
	ready := make(chan struct{})
	tp := newTap(t, func() string { <-ready; return a.bound.String() })
	a = startGossip(t, "a", func(cfg *membershipConfig) {
		keyed(t, "", "1")(cfg)
		cfg.AdvertiseGossip = tp.addr
	})
	close(ready)
	b := startGossip(t, "b", keyed(t, tp.addr, "1"))
	waitRing(t, "a b", a, b)
	waitFor(t, "some gossip", func() bool {
		packets, streams := tp.recorded()
		return len(packets) >= 10 && len(streams) >= 1
	})
	b.kill()
	waitFor(t, "b's death", func() bool { return a.find("b").State == stateDead })
	packets, streams := tp.recorded()
	for _, p := range packets {
		if bytes.Contains(p, []byte("b.test")) || bytes.Contains(p, []byte(gossipLabel+"\x08")) {
			t.Error("a packet in plaintext")
		}
	}
	c := startGossip(t, "c", keyed(t, "", "1"))
	for _, victim := range []*gossipNode{a, c} {
		addr := victim.bound.String()
		for i, p := range packets {
			before := victim.Refused()
			sendGossip(t, "udp", addr, p)
			waitFor(t, "a packet that was recorded to be refused", func() bool { return victim.Refused() > before })
			forged := bytes.Clone(p)
			binary.BigEndian.PutUint64(forged[16:], 1<<40+uint64(i)) // a count that has not come yet
			sendGossip(t, "udp", addr, forged)
			waitFor(t, "a packet that was changed to be refused", func() bool { return victim.Refused() > before+1 })
		}
		for _, s := range streams {
			before := victim.Refused()
			sendGossip(t, "tcp", addr, s)
			waitFor(t, "a stream that was recorded to be refused", func() bool { return victim.Refused() > before })
		}
		if got := victim.find("b").State; got == stateAlive || got == stateSuspect {
			t.Errorf("b is back in the eyes of %s", victim.cfg.Name)
		}
	}
	waitRing(t, "a", a)
	waitRing(t, "c", c)
}

// watchRings notes every ring of some nodes that lacks one of them.
func watchRings(t *testing.T, nodes ...*gossipNode) (stop func()) {
	done, watching := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watching)
		for {
			for _, n := range nodes {
				for _, m := range n.Members() {
					if !m.present() {
						t.Errorf("%s is %s in the eyes of %s", m.Name, m.State, n.cfg.Name)
						return
					}
				}
			}
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() { close(done); <-watching }
}

func TestGossipKeysRotateNodeAfterNode(t *testing.T) {
	t.Parallel()
	a := startGossip(t, "a", keyed(t, "", "o"))
	b := startGossip(t, "b", keyed(t, a.Addr(), "o"))
	c := startGossip(t, "c", keyed(t, a.Addr(), "o"))
	nodes := []*gossipNode{a, b, c}
	waitRing(t, "a b c", nodes...)
	stop := watchRings(t, nodes...)
	for i, n := range nodes {
		n.rekey(t, "no")
		if i < 2 {
			if !n.sealsWith(t, "o") {
				t.Errorf("%s seals with a key that others lack", n.cfg.Name)
			}
		}
	}
	for _, n := range nodes {
		waitFor(t, n.cfg.Name+" to seal with the new key", func() bool { return n.sealsWith(t, "n") })
	}
	refused := a.Refused() + b.Refused() + c.Refused()
	for _, n := range nodes {
		n.rekey(t, "n")
	}
	d := startGossip(t, "d", keyed(t, a.Addr(), "n"))
	waitRing(t, "a b c d", a, b, c, d)
	stop()
	// Only what was under way when the old key went.
	if now := a.Refused() + b.Refused() + c.Refused(); now > refused+5 {
		t.Errorf("%d packets of members were refused", now-refused)
	}
}

// A rotation by restarts, or one that a node slept through.
func TestNodesJoinAmidARotation(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ a, b, joiner string }{
		{"o", "o", "no"},
		{"n", "n", "no"},
		{"n", "n", "on"},
		{"no", "o", "no"},
		{"no", "no", "o"},
		{"no", "n", "no"},
		{"no", "no", "n"},
	} {
		t.Run(test.a+","+test.b+"+"+test.joiner, func(t *testing.T) {
			t.Parallel()
			a := startGossip(t, "a", keyed(t, "", test.a))
			b := startGossip(t, "b", keyed(t, a.Addr(), test.b))
			waitRing(t, "a b", a, b)
			c := startGossip(t, "c", keyed(t, a.Addr(), test.joiner))
			waitRing(t, "a b c", a, b, c)
		})
	}
}
