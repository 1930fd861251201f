package caddygroupcache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// gossipTransport is memberlist's transport with bounds on what strangers can
// make it hold, and with an end: Shutdown breaks off dials and streams, for
// which memberlist would wait out TCPTimeout. In a cluster with a secret,
// streams are mutual TLS, and packets are sealed; memberlist gets to see none
// of a stranger's.
type gossipTransport struct {
	*memberlist.NetTransport
	gossipSecurity
	log     *log.Logger
	ctx     context.Context // of every dial
	stop    context.CancelFunc
	lobby   peer.Lobby
	streams chan net.Conn
	packets chan *memberlist.Packet
	once    sync.Once
	closed  chan struct{} // the listeners are
	working sync.WaitGroup

	// mu guards open and inbound, the number of streams in it that came from others.
	mu      sync.Mutex
	open    map[*gossipConn]struct{}
	inbound int
}

// gossipSecurity is what a transport needs in a cluster with a secret. The zero
// value is for one without.
type gossipSecurity struct {
	identity *peer.Identity // for streams
	seal     *packetSeal
	// lifeOf returns the life of the node at an address; 0: not known.
	lifeOf func(memberlist.Address) uint64
}

// gossipProtocol keeps streams apart from connections to the peers port (ALPN).
const gossipProtocol = "groupcache-gossip"

func newGossipTransport(bind netip.AddrPort, security gossipSecurity, logger *log.Logger) (*gossipTransport, error) {
	nt, err := listenGossip(bind, logger)
	if err != nil {
		return nil, fmt.Errorf("opening gossip on %s, TCP and UDP: %w; choose an address of this host and a free port", bind, err)
	}
	t := &gossipTransport{
		NetTransport:   nt,
		gossipSecurity: security,
		log:            logger,
		lobby:          peer.Lobby{Room: maxStreams},
		streams:        make(chan net.Conn),
		packets:        make(chan *memberlist.Packet),
		closed:         make(chan struct{}),
		open:           make(map[*gossipConn]struct{}),
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.working.Go(t.accept)
	t.working.Go(t.receivePackets)
	return t, nil
}

// listenGossip opens the sockets. Asked for any port, the kernel finds one that
// is free for TCP, which may be taken for UDP: then it is asked again.
func listenGossip(bind netip.AddrPort, logger *log.Logger) (*memberlist.NetTransport, error) {
	var failure error
	for range 10 {
		nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{bind.Addr().String()}, BindPort: int(bind.Port()), Logger: logger,
		})
		if err == nil {
			return nt, nil
		}
		failure = err
		if bind.Port() != 0 {
			break
		}
	}
	return nil, failure
}

// accept passes inbound streams on to memberlist, which starts a goroutine for
// each, as long as there are not too many.
func (t *gossipTransport) accept() {
	for {
		select {
		case <-t.closed:
			return
		case conn := <-t.NetTransport.StreamCh():
			t.working.Go(func() { t.receive(conn) })
		}
	}
}

func (t *gossipTransport) receive(raw net.Conn) {
	conn := raw
	if t.seal != nil {
		secured := tls.Server(raw, t.identity.Server(gossipProtocol))
		if err := t.greet(raw, secured); err != nil {
			t.log.Printf("[WARN] memberlist: %s: %v %s", refusedStream, err, memberlist.LogConn(raw))
			_ = raw.Close()
			return
		}
		conn = secured
	}
	c, ok := t.track(conn, raw, true)
	if !ok {
		return
	}
	select {
	case t.streams <- c:
	case <-t.ctx.Done():
		_ = c.Close()
	}
}

// greet shakes hands with whoever began a stream.
func (t *gossipTransport) greet(raw net.Conn, secured *tls.Conn) error {
	leave := t.lobby.Enter(raw)
	defer leave()
	ctx, cancel := context.WithTimeout(t.ctx, greetTimeout)
	defer cancel()
	return secured.HandshakeContext(ctx)
}

// receivePackets passes packets on to memberlist that are sealed for this node.
func (t *gossipTransport) receivePackets() {
	for {
		select {
		case <-t.closed:
			return
		case p := <-t.NetTransport.PacketCh():
			if t.seal != nil {
				var err error
				if p.Buf, err = t.seal.open(p.Buf); err != nil {
					t.log.Printf("[WARN] memberlist: %s: %v %s", refusedPacket, err, memberlist.LogAddress(p.From))
					continue
				}
				if len(p.Buf) == 0 {
					continue
				}
			}
			select {
			case t.packets <- p:
			case <-t.ctx.Done():
			}
		}
	}
}

// PacketCh is where memberlist takes packets from.
func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// WriteTo sends a packet.
func (t *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet. One to a node whose life is not known here yet
// would be refused there; it is lost like any other packet may be.
func (t *gossipTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if t.seal != nil {
		life := t.lifeOf(a)
		if life == 0 {
			return time.Now(), nil
		}
		b = t.seal.seal(life, b)
	}
	return t.NetTransport.WriteToAddress(b, a)
}

func (t *gossipTransport) track(conn, raw net.Conn, inbound bool) (*gossipConn, bool) {
	c := &gossipConn{Conn: conn, raw: raw, transport: t, inbound: inbound, budget: maxStreamBytes}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		_ = raw.Close()
		return nil, false
	}
	if inbound {
		if t.inbound >= maxStreams {
			_ = raw.Close()
			t.log.Printf("[WARN] memberlist: %s %s", tooManyStreams, memberlist.LogConn(conn))
			return nil, false
		}
		t.inbound++
	}
	t.open[c] = struct{}{}
	return c, true
}

func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.streams }

func (t *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t *gossipTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	raw, err := dialer.DialContext(t.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	conn := raw
	if t.seal != nil {
		secured := tls.Client(raw, t.identity.Client(gossipProtocol))
		ctx, cancel := context.WithTimeout(t.ctx, timeout)
		defer cancel()
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		conn = secured
	}
	c, ok := t.track(conn, raw, false)
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// Shutdown may be called more than once: memberlist.Create does when it fails.
func (t *gossipTransport) Shutdown() error {
	var err error
	t.once.Do(func() {
		t.stop() // from here on track opens nothing
		t.mu.Lock()
		open := make([]*gossipConn, 0, len(t.open))
		for c := range t.open {
			open = append(open, c)
		}
		t.mu.Unlock()
		for _, c := range open {
			_ = c.raw.Close() // TLS would like to say goodbye first
			_ = c.Close()
		}
		t.lobby.Clear()
		err = t.NetTransport.Shutdown() // waits for us to take what has come
		close(t.closed)
		t.working.Wait()
	})
	return err
}

// gossipConn is a stream that ends with its transport and yields only so many bytes.
type gossipConn struct {
	net.Conn
	raw       net.Conn // without TLS
	transport *gossipTransport
	inbound   bool
	budget    int // for Read, which has one caller at a time
	once      sync.Once
}

var errStreamTooLong = errors.New("stream is longer than this node reads")

func (c *gossipConn) Read(p []byte) (int, error) {
	if c.budget <= 0 {
		return 0, errStreamTooLong
	}
	n, err := c.Conn.Read(p[:min(len(p), c.budget)])
	c.budget -= n
	return n, err
}

// Write closes the stream when it fails, since memberlist forgets to if that
// happens with the label.
func (c *gossipConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

func (c *gossipConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		c.transport.mu.Lock()
		delete(c.transport.open, c)
		if c.inbound {
			c.transport.inbound--
		}
		c.transport.mu.Unlock()
		err = c.Conn.Close()
	})
	return err
}

// Interface guards
var _ memberlist.NodeAwareTransport = (*gossipTransport)(nil)
