package gossip

import (
	"bytes"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// A vettedNetwork carries what nodes of memberlist say to each other, and has all of it vetted.
type vettedNetwork struct {
	t *testing.T

	mu      sync.Mutex // guards below
	packets map[byte]int
	streams map[byte]int
	checked int
	several int
	cut     func(from, to string) bool // packets and streams that get lost
}

// A vettedTransport is where one node sends from.
type vettedTransport struct {
	*memberlist.MockTransport
	network *vettedNetwork
	name    string
}

func (v *vettedTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return v.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (v *vettedTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	v.network.packet(b)
	if v.network.loses(v.name, a.Name) {
		return time.Now(), nil
	}
	return v.MockTransport.WriteToAddress(b, a)
}

func (v *vettedTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if v.network.loses(v.name+" by a stream", a.Name) {
		return nil, io.ErrClosedPipe
	}
	conn, err := v.MockTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	return &vettedConn{Conn: conn, network: v.network}, nil
}

func (v *vettedTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return v.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// A vettedConn keeps what goes both ways, and has it vetted at the end.
type vettedConn struct {
	net.Conn
	network   *vettedNetwork
	said, got bytes.Buffer
	once      sync.Once
}

func (c *vettedConn) Write(p []byte) (int, error) {
	c.said.Write(p)
	return c.Conn.Write(p)
}

func (c *vettedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.got.Write(p[:n])
	return n, err
}

func (c *vettedConn) Close() error {
	c.once.Do(func() {
		c.network.stream(c.said.Bytes())
		c.network.stream(c.got.Bytes())
	})
	return c.Conn.Close()
}

func (n *vettedNetwork) loses(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut != nil && n.cut(from, to)
}

// packet vets a packet, and notes what is in it.
func (n *vettedNetwork) packet(p []byte) {
	if err := vetPacket(p); err != nil {
		n.t.Errorf("a packet of %d bytes is refused: %v: %q", len(p), err, p[:min(len(p), 80)])
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p = unlabeled(p)
	if p[0] == messageChecked {
		n.checked++
		p = p[5:]
	}
	if p[0] != messageCompound {
		n.packets[p[0]]++
		return
	}
	n.several++
	lengths, rest := p[2:2+2*int(p[1])], p[2+2*int(p[1]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n.packets[rest[0]]++
		rest = rest[int(lengths[0])<<8|int(lengths[1]):]
	}
}

// stream vets what went one way on a stream that has ended, and notes what it is.
func (n *vettedNetwork) stream(b []byte) {
	if len(b) == 0 {
		return
	}
	begin, err := vetStream(bytes.NewReader(b))
	if err != nil {
		n.t.Errorf("a stream of %d bytes is refused: %v: %q", len(b), err, b[:min(len(b), 80)])
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.streams[unlabeled(begin)[0]]++
}

// saw reports whether messages of all these types went by.
func (n *vettedNetwork) saw(messages map[byte]int, types ...byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, kind := range types {
		if messages[kind] == 0 {
			return false
		}
	}
	return true
}

// talkative is a delegate that says as much as memberlist lets it.
type talkative struct{ delegate }

func (talkative) NodeMeta(limit int) []byte                                  { return bytes.Repeat([]byte{'m'}, limit) }
func (talkative) LocalState(bool) []byte                                     { return make([]byte, 200_000) }
func (talkative) MergeRemoteState([]byte, bool)                              {}
func (talkative) AckPayload() []byte                                         { return make([]byte, 700) }
func (talkative) NotifyPingComplete(*memberlist.Node, time.Duration, []byte) {}

// TestEachMessageOfMemberlistIsLetThrough: nodes that fail for some of the others, and
// leave, say all that memberlist has words for.
func TestEachMessageOfMemberlistIsLetThrough(t *testing.T) {
	network := &vettedNetwork{t: t, packets: make(map[byte]int), streams: make(map[byte]int)}
	var mock memberlist.MockNetwork
	var transports []*vettedTransport
	for _, letter := range []string{"a", "b", "c", "d"} {
		name := strings.Repeat(letter, 200)
		transports = append(transports, &vettedTransport{mock.NewTransport(name), network, name})
	}
	var members []*memberlist.Memberlist
	for _, transport := range transports {
		c := memberlist.DefaultLANConfig()
		fast(c)
		c.Name, c.Label, c.Transport = transport.name, label+" of a name", transport
		c.BindAddr, c.PushPullInterval, c.EnableCompression = "127.0.0.1", 100*time.Millisecond, false
		c.Delegate, c.Ping, c.Logger = talkative{}, talkative{}, log.New(io.Discard, "", 0)
		m, err := memberlist.Create(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Shutdown() })
		if len(members) > 0 {
			if _, err := m.Join([]string{members[0].LocalNode().FullAddress().Name + "/" + members[0].LocalNode().Address()}); err != nil {
				t.Fatal(err)
			}
		}
		members = append(members, m)
	}
	// a's packets don't reach b, nor those of the others whom it asks to try: that takes
	// indirect pings, nacks, and pings on a stream.
	cut := func(lost func(from, to string) bool) {
		network.mu.Lock()
		defer network.mu.Unlock()
		network.cut = lost
	}
	b := transports[1].name
	cut(func(from, to string) bool { return to == b && !strings.Contains(from, " ") })
	waitFor(t, "what a node says of one that it can't reach by packets", func() bool {
		return network.saw(network.packets, messagePing, messageIndirectPing, messageAck, messageNack, messageAlive) &&
			network.saw(network.streams, messagePing, messageAck, messagePushPull)
	})
	cut(func(from, to string) bool { return to == b || strings.HasPrefix(from, b) })
	waitFor(t, "a node to be suspected, and thought dead", func() bool { return network.saw(network.packets, messageSuspect, messageDead) })
	cut(nil)
	// What a node does not understand it answers with an error.
	conn, err := transports[0].MockTransport.DialAddressTimeout(memberlist.Address{Name: transports[2].name}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(conn)
		answer <- b
	}()
	wrong := append([]byte{messageLabeled, byte(len(label + " of a name"))}, label+" of a name"...)
	if _, err := conn.Write(append(wrong, messageCompressed, 0x80)); err != nil {
		t.Fatal(err)
	}
	network.stream(<-answer)
	_ = conn.Close()
	if !network.saw(network.streams, messageError) {
		t.Error("there was no error")
	}
	if err := members[3].Leave(time.Second); err != nil {
		t.Error(err)
	}
	network.mu.Lock()
	defer network.mu.Unlock()
	if network.checked == 0 || network.several == 0 {
		t.Errorf("%d packets with a checksum, %d of several messages", network.checked, network.several)
	}
}
