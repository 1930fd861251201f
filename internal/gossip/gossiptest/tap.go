// Package gossiptest records the gossip between nodes, for tests that send it
// again.
package gossiptest

import (
	"bytes"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
)

// A Tap stands before a node, forwards what others send to it, and records that.
type Tap struct {
	addr   string
	target func() string

	mu      sync.Mutex // guards below
	packets [][]byte
	streams [][]byte // that have ended
}

// NewTap returns a tap before the address that target returns. It ends with the
// test.
func NewTap(t testing.TB, target func() string) *Tap {
	t.Helper()
	l, u := listen(t)
	tap := &Tap{addr: l.Addr().String(), target: target}
	t.Cleanup(func() {
		_ = l.Close()
		_ = u.Close()
	})
	go tap.forwardPackets(u)
	go tap.forwardStreams(l)
	return tap
}

// Addr is the address that others dial instead of the node's.
func (tap *Tap) Addr() string { return tap.addr }

// Recorded returns the packets, and what each stream that has ended carried towards
// the node: the beginning of one proves nothing.
func (tap *Tap) Recorded() (packets, streams [][]byte) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return slices.Clone(tap.packets), slices.Clone(tap.streams)
}

// listen opens one port for TCP and UDP.
func listen(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if u, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			return l, u
		}
		_ = l.Close()
	}
	t.Fatal("no free port")
	return nil, nil
}

func (tap *Tap) forwardPackets(u net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		tap.mu.Lock()
		tap.packets = append(tap.packets, bytes.Clone(buf[:n]))
		tap.mu.Unlock()
		if to, err := net.ResolveUDPAddr("udp", tap.target()); err == nil {
			_, _ = u.WriteTo(buf[:n], to)
		}
	}
}

func (tap *Tap) forwardStreams(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", tap.target())
		if err != nil {
			_ = in.Close()
			continue
		}
		go func() {
			_, _ = io.Copy(in, out)
			_ = in.Close()
		}()
		go tap.forwardStream(in, out)
	}
}

func (tap *Tap) forwardStream(in, out net.Conn) {
	var record []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		record = append(record, buf[:n]...)
		if _, werr := out.Write(buf[:n]); err != nil || werr != nil {
			_ = out.Close()
			break
		}
	}
	if len(record) > 0 {
		tap.mu.Lock()
		tap.streams = append(tap.streams, record)
		tap.mu.Unlock()
	}
}
