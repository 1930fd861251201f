package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip/gossiptest"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// recordGossip starts two nodes with one secret, and records what b sends to a.
func recordGossip(t *testing.T) (a, b *node, packets, streams [][]byte) {
	t.Helper()
	var bound string
	ready := make(chan struct{})
	tap := gossiptest.NewTap(t, func() string { <-ready; return bound })
	a = startNode(t, "a", func(cfg *Config) {
		keyed(t, "", "1")(cfg)
		cfg.AdvertiseGossip = tap.Addr()
	})
	bound = a.bound.String()
	close(ready)
	b = startNode(t, "b", keyed(t, tap.Addr(), "1"))
	waitRing(t, "a b", a, b)
	waitFor(t, "some gossip", func() bool {
		packets, streams = tap.Recorded()
		return len(packets) >= 10 && len(streams) >= 1
	})
	return a, b, packets, streams
}

// mustRefuse sends packets and streams to a node, as they are and with another
// count, and waits until each was refused.
func (n *node) mustRefuse(t *testing.T, packets, streams [][]byte) {
	t.Helper()
	refuses := func(what, network string, b []byte) {
		t.Helper()
		before := n.Refused()
		send(t, network, n.bound.String(), b)
		waitFor(t, what+" to be refused by "+n.cfg.Name, func() bool { return n.Refused() > before })
	}
	before := n.Refused()
	for _, p := range packets {
		send(t, "udp", n.bound.String(), p)
	}
	waitFor(t, "packets that were recorded to be refused by "+n.cfg.Name, func() bool { return n.Refused() >= before+int64(len(packets)) })
	for i, p := range packets {
		forged := bytes.Clone(p)
		binary.BigEndian.PutUint64(forged[16:], 1<<40+uint64(i)) // a count that has not come yet
		refuses("a packet that was changed", "udp", forged)
	}
	for _, s := range streams {
		refuses("a stream that was recorded", "tcp", s)
	}
}

// A recorded packet or stream is refused by its sender, by its receiver, by another
// node, and by the receiver after a restart.
func TestGossipThatWasRecordedIsRefused(t *testing.T) {
	t.Parallel()
	a, b, packets, streams := recordGossip(t)
	for _, sent := range slices.Concat(packets, streams) {
		if bytes.Contains(sent, []byte(label)) {
			t.Error("gossip in plaintext")
		}
	}
	b.mustRefuse(t, packets, nil)
	waitRing(t, "a b", a, b)
	b.kill()
	waitFor(t, "b's death", func() bool { return a.find("b").State == StateDead })
	a.mustRefuse(t, packets, streams)
	a.kill()
	again := startNode(t, "a", func(cfg *Config) {
		keyed(t, "", "1")(cfg)
		cfg.Gossip, cfg.AdvertiseGossip = a.bound.String(), a.Addr()
	})
	again.mustRefuse(t, packets, streams)
	c := startNode(t, "c", keyed(t, "", "1"))
	c.mustRefuse(t, packets, streams)
	for _, n := range []*node{a, again, c} {
		if got := n.find("b"); got.Present() {
			t.Errorf("b is back in the eyes of %s: %+v", n.cfg.Name, got)
		}
	}
	waitRing(t, "a", again)
	waitRing(t, "c", c)
}

func TestPacketToAnUnknownLifeIsNotSent(t *testing.T) {
	t.Parallel()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	own, other := sealOf(t, "1"), sealOf(t, "1")
	tr, err := newTransport(netip.MustParseAddrPort("127.0.0.1:0"), security{
		identity: new(peer.Identity), seal: own,
		receiverAt: func(to memberlist.Address) receiver {
			if to.Name == "known" {
				return other.asReceiver()
			}
			return receiver{}
		},
	}, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Shutdown() }()
	before := own.count.Load()
	for _, name := range []string{"", "unknown", "known"} {
		if _, err := tr.WriteToAddress([]byte("to "+name), memberlist.Address{Name: name, Addr: socket.LocalAddr().String()}); err != nil {
			t.Error(err)
		}
	}
	if _, err := tr.WriteTo([]byte("to an address"), socket.LocalAddr().String()); err != nil {
		t.Error(err)
	}
	_ = socket.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1500)
	n, _, err := socket.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.open(buf[:n]); err != nil || string(got) != "to known" {
		t.Errorf("the first packet that was sent is opened as %q, %v", got, err)
	}
	if sent := own.count.Load() - before; sent != 1 {
		t.Errorf("%d packets were sealed", sent)
	}
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", nil)
	b := startNode(t, "b", seeds(a.Addr()))
	waitRing(t, "a b", a, b)
	payloads := [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"), {0}, {244}, {244, 0}, {244, 255, 'x'}, bytes.Repeat([]byte{0xc1}, 1400), labeled(nil),
	}
	for kind := range 16 { // each message type, and more
		for _, body := range [][]byte{nil, {0xff}, {0xdf, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x81}, 300), {0x81, 0xa5, 'N', 'o', 'd', 'e', 's', 0xff}} {
			payloads = append(payloads, labeled(append([]byte{byte(kind)}, body...)))
		}
	}
	for _, p := range payloads {
		send(t, "udp", a.Addr(), p)
		send(t, "tcp", a.Addr(), p)
	}
	waitFor(t, "garbage to be refused", func() bool { return a.Refused() > int64(len(payloads)/2) })
	c := startNode(t, "c", seeds(a.Addr()))
	waitRing(t, "a b c", a, b, c)
}

func TestManyStreams(t *testing.T) {
	t.Parallel()
	a := startNode(t, "a", nil)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	waitFor(t, "a stream too many to be refused", func() bool {
		c, err := net.Dial("tcp", a.Addr())
		if err == nil {
			conns = append(conns, c)
		}
		a.transport.mu.Lock()
		defer a.transport.mu.Unlock()
		if a.transport.inbound > maxStreams {
			t.Fatalf("%d streams", a.transport.inbound)
		}
		return a.Refused() > 0
	})
	b := startNode(t, "b", seeds(a.Addr())) // as soon as the idle ones time out
	waitRing(t, "a b", a, b)
}

func TestGossipTransportEnds(t *testing.T) {
	t.Parallel()
	tr, err := newTransport(netip.MustParseAddrPort("127.0.0.1:0"), security{}, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := tr.DialTimeout(l.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn.(*stream).budget = 3
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Write([]byte{messagePing, 2, 3, 4, 5}); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "\x00\x02\x03" || !errors.Is(err, errStreamTooLong) {
		t.Errorf("read %q, %v from a stream that is too long", got, err)
	}
	send(t, "udp", fmt.Sprintf("127.0.0.1:%d", tr.port()), []byte("never taken"))
	_ = tr.Shutdown()
	_ = tr.Shutdown() // again
	if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing after the end: %v", err)
	}
	if _, err := tr.DialTimeout(l.Addr().String(), time.Second); err == nil {
		t.Error("dialed after the end")
	}
	if len(tr.open) != 0 {
		t.Errorf("%d streams are left", len(tr.open))
	}
}
