package gossip

import (
	"bytes"
	"compress/lzw"
	"errors"
	"io"
	"runtime"
	"strconv"
	"testing"
	"testing/iotest"
)

// The types of messages that no node sends.
const (
	messageUser       = 8
	messageCompressed = 9
	messageEncrypted  = 10
)

// bomb is a message of memberlist that says it is compressed, and grows by some hundred.
func bomb() []byte {
	var small bytes.Buffer
	z := lzw.NewWriter(&small, lzw.LSB, 8)
	_, _ = z.Write(make([]byte, 16<<20))
	_ = z.Close()
	n := small.Len()
	head := []byte{messageCompressed, 0x82, 0xa4, 'A', 'l', 'g', 'o', 0, 0xa3, 'B', 'u', 'f', 0xdb, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	return append(head, small.Bytes()...)
}

// pushPull is the beginning of a stream that says how much will come.
func pushPull(nodes, state uint32) []byte {
	four := func(n uint32) []byte { return []byte{0xce, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	b := append([]byte{messagePushPull, 0x83, 0xa5}, "Nodes"...)
	b = append(append(append(b, four(nodes)...), 0xac), "UserStateLen"...)
	b = append(append(append(b, four(state)...), 0xa4), "Join"...)
	return append(b, 0xc3)
}

func compound(messages ...[]byte) []byte {
	p := []byte{messageCompound, byte(len(messages))}
	for _, m := range messages {
		p = append(p, byte(len(m)>>8), byte(len(m)))
	}
	return append(p, bytes.Join(messages, nil)...)
}

// TestWhatMemberlistIsNotToRead: each kind that takes much more than its own length, or
// that no node sends.
func TestWhatMemberlistIsNotToRead(t *testing.T) {
	ping := []byte{messagePing, 0x80}
	packets := map[string][]byte{
		"compressed": bomb()[:1000], "compressed, in others": compound(ping, bomb()[:1000]), "compressed, and checked": append([]byte{messageChecked, 0, 0, 0, 0}, bomb()[:1000]...),
		"encrypted": {messageEncrypted, 0}, "for users": {messageUser, 0}, "others in others": compound(compound(ping)), "cut off": compound(ping, ping)[:8],
		"long": append(ping, make([]byte, maxPacket)...), "none": {}, "an empty one in others": compound(nil), "a push/pull": pushPull(1, 1),
	}
	for name, p := range packets {
		if err := vetPacket(labeled(p)); !errors.Is(err, errNoMessage) {
			t.Errorf("a packet, %s: %v", name, err)
		}
	}
	for name, s := range map[string][]byte{
		"compressed": bomb()[:1000], "for users": {messageUser, 0x80}, "many nodes": pushPull(maxMembers+1, 0), "a long state": pushPull(0, maxLocalState+1),
		"compound": compound(ping), "a longer header": append([]byte{messagePushPull, 0x84}, pushPull(0, 0)[2:]...), "another field": append([]byte{messagePushPull, 0x81, 0xa1, 'x'}, 1), "no map": {messagePushPull, 0xdf}, "a negative length": append(append([]byte{messagePushPull, 0x81, 0xac}, "UserStateLen"...), 0xd1, 0xff, 0xff),
	} {
		if _, err := vetStream(bytes.NewReader(labeled(s))); !errors.Is(err, errNoMessage) {
			t.Errorf("a stream, %s: %v", name, err)
		}
	}
	for name, p := range map[string][]byte{"one": ping, "several": compound(ping, []byte{messageAlive, 0x80}), "checked": append([]byte{messageChecked, 0, 0, 0, 0}, ping...)} {
		if err := vetPacket(labeled(p)); err != nil {
			t.Errorf("a packet, %s: %v", name, err)
		}
	}
	for name, s := range map[string][]byte{"a push/pull": pushPull(maxMembers, maxLocalState), "a ping": ping} {
		whole := labeled(append(s, "and more"...))
		rest := iotest.OneByteReader(bytes.NewReader(whole))
		begin, err := vetStream(rest)
		after, _ := io.ReadAll(rest)
		if err != nil || !bytes.Equal(append(begin, after...), whole) {
			t.Errorf("a stream, %s: %q, %v", name, begin, err)
		}
	}
}

// TestStatesOfAnyLength: memberlist writes lengths in as many bytes as they take, and what
// vets them must know each form that its encoder has.
func TestStatesOfAnyLength(t *testing.T) {
	for _, length := range []int{1, 127, 128, 255, 256, 1<<15 - 1, 1 << 15, 1<<16 - 1, 1 << 16, maxLocalState} {
		t.Run(strconv.Itoa(length), func(t *testing.T) {
			t.Parallel()
			got := make(chan int, 1)
			give := func(cfg *Config) { cfg.LocalState = func() []byte { return make([]byte, length) } }
			a := startNode(t, "a", func(cfg *Config) {
				give(cfg)
				cfg.MergeState = func(state []byte) error {
					select {
					case got <- len(state):
					default:
					}
					return nil
				}
			})
			b := startNode(t, "b", func(cfg *Config) {
				give(cfg)
				cfg.Join = []string{a.Addr()}
			})
			waitRing(t, "a b", a, b)
			if n := <-got; n != length {
				t.Errorf("%d bytes of state came, want %d", n, length)
			}
		})
	}
}

// TestGossipTakesNoMoreThanItSends: a node that is not honest has others make room for
// what does not come, or for what they inflate.
func TestGossipTakesNoMoreThanItSends(t *testing.T) {
	a, compressed := startNode(t, "a", nil), labeled(bomb())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	sent := 0
	for range 5 {
		send(t, "udp", a.Addr(), compressed)
		send(t, "tcp", a.Addr(), compressed)
		send(t, "tcp", a.Addr(), labeled(pushPull(1<<20, 20<<20)))
		send(t, "tcp", a.Addr(), labeled(pushPull(0, 20<<20)))
		sent += 4
	}
	waitFor(t, "all to be refused", func() bool { return a.Refused() >= int64(sent) })
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 64 {
		t.Errorf("took %d MiB", took)
	}
	b := startNode(t, "b", seeds(a.Addr()))
	waitRing(t, "a b", a, b)
	waitFor(t, "all that was brought to be gone", func() bool { return a.transport.brought.Load() == 0 })
}

// FuzzVet: what is let through is what came, and holds nothing that is to be inflated.
func FuzzVet(f *testing.F) {
	for _, b := range [][]byte{labeled([]byte{messagePing, 0x80}), labeled(pushPull(3, 100)), labeled(bomb()[:200]), labeled(compound([]byte{messageAlive, 0x80}))} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = vetPacket(b)
		r := bytes.NewReader(b)
		begin, err := vetStream(r)
		if !bytes.HasPrefix(b, begin) || err == nil && len(begin)+r.Len() != len(b) {
			t.Errorf("%q of %q, %v", begin, b, err)
		}
	})
}

// TestDeepMessages: what is nested without end takes no stack without end, which would end
// the process.
func TestDeepMessages(t *testing.T) {
	a := startNode(t, "a", nil)
	deep := bytes.Repeat([]byte{0x91}, maxStreamBytes-1000)
	send(t, "tcp", a.Addr(), labeled(append(append(pushPull(1, 0), 0x81, 0xa1, 'x'), deep...)))
	send(t, "tcp", a.Addr(), labeled(append([]byte{messagePing, 0x81, 0xa1, 'x'}, deep...)))
	send(t, "udp", a.Addr(), labeled(append([]byte{messagePing, 0x81, 0xa1, 'x'}, deep[:maxPacket-100]...)))
	waitFor(t, "all to be refused", func() bool { return a.Refused() >= 3 })
	b := startNode(t, "b", seeds(a.Addr()))
	waitRing(t, "a b", a, b)
}
