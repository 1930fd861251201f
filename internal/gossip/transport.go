package gossip

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

const (
	maxStreams       = 64 // inbound, at the same time
	handshakeTimeout = 5 * time.Second

	// streamProtocol keeps streams apart from connections to the peers port, and
	// from other versions of gossip (ALPN).
	streamProtocol = "groupcache-gossip/2"
)

// A transport is memberlist's transport with bounds on what unauthenticated
// peers can make it hold, and with an end: Shutdown breaks off dials and
// streams, for which memberlist would wait out TCPTimeout. In a cluster with a
// secret, streams are mutual TLS, and packets are sealed; memberlist gets to see
// none of an unauthenticated peer.
//
// memberlist itself encrypts nothing, so nothing may bypass this type. Therefore
// sockets is not embedded: a method that memberlist begins to call in some
// version would be promoted, and write in plaintext.
type transport struct {
	security
	sockets *memberlist.NetTransport
	log     *log.Logger
	ctx     context.Context // of every dial
	cancel  context.CancelFunc
	pending peer.PendingHandshakes // handshakes
	streams chan net.Conn
	packets chan *memberlist.Packet
	once    sync.Once
	closed  chan struct{} // the listeners are
	working sync.WaitGroup
	brought atomic.Int64 // bytes, by the streams that are open

	// mu guards open and inbound, the number of streams in it that came from others.
	mu      sync.Mutex
	open    map[*stream]struct{}
	inbound int
}

// security holds the secrets of a transport. The zero value is for a cluster
// without one.
type security struct {
	identity *peer.Identity // for streams
	seal     *seal
	// receiverAt returns the node at an address.
	receiverAt func(memberlist.Address) receiver
	late       *latecomers
}

func newTransport(bind netip.AddrPort, s security, logger *log.Logger) (*transport, error) {
	sockets, err := listen(bind, logger)
	if err != nil {
		return nil, fmt.Errorf("opening gossip on %s, TCP and UDP: %w; choose an address of this host and a free port", bind, err)
	}
	t := &transport{
		security: s,
		sockets:  sockets,
		log:      logger,
		pending:  peer.PendingHandshakes{Room: maxStreams},
		streams:  make(chan net.Conn),
		packets:  make(chan *memberlist.Packet),
		closed:   make(chan struct{}),
		open:     make(map[*stream]struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	guard.GoWait(&t.working, t.accept)
	guard.GoWait(&t.working, t.receivePackets)
	return t, nil
}

// listen opens the sockets. Asked for any port, the kernel finds one that is free
// for TCP, which may be taken for UDP: then it is asked again.
func listen(bind netip.AddrPort, logger *log.Logger) (*memberlist.NetTransport, error) {
	var failure error
	for range 10 {
		sockets, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{bind.Addr().String()}, BindPort: int(bind.Port()), Logger: logger,
		})
		if err == nil {
			return sockets, nil
		}
		failure = err
		if bind.Port() != 0 {
			break
		}
	}
	return nil, failure
}

// port returns the port of both sockets.
func (t *transport) port() uint16 { return uint16(t.sockets.GetAutoBindPort()) }

// FinalAdvertiseAddr returns the address that memberlist tells the others, as
// this node was configured.
func (t *transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return t.sockets.FinalAdvertiseAddr(ip, port)
}

// accept passes inbound streams on to memberlist, which starts a goroutine for
// each, as long as there are not too many.
func (t *transport) accept() {
	for {
		select {
		case <-t.closed:
			return
		case conn := <-t.sockets.StreamCh():
			leave := t.pending.Enter(conn)
			guard.GoWait(&t.working, func() { t.receive(conn, leave) })
		}
	}
}

// receive authenticates a stream, which is a pending handshake until leave is called.
func (t *transport) receive(raw net.Conn, leave func()) {
	defer leave() // without secrets there is no handshake
	conn, passedOn := raw, false
	defer func() { // also if the handshake panics
		if !passedOn {
			_ = raw.Close()
		}
	}()
	if t.seal != nil {
		secured := tls.Server(raw, t.identity.Server(streamProtocol))
		if err := t.handshake(secured, leave); err != nil {
			if !brokeOff(err) { // a member that was killed or frozen amid it is no stranger
				t.log.Printf("[WARN] memberlist: %s: %v %s", refusedStream, peer.ExplainHandshake(err), memberlist.LogConn(raw))
			}
			return
		}
		conn = secured
	}
	leave() // what waits for memberlist is no handshake
	s, ok := t.track(conn, raw, true)
	if !ok {
		return
	}
	select {
	case t.streams <- s:
		passedOn = true
	case <-t.ctx.Done():
		_ = s.Close()
	}
}

// brokeOff reports whether a connection has ended, rather than said something wrong.
func brokeOff(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed, os.ErrDeadlineExceeded, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// handshake waits until the client of a stream is authenticated.
func (t *transport) handshake(secured *tls.Conn, leave func()) error {
	defer leave()
	ctx, cancel := context.WithTimeout(t.ctx, handshakeTimeout)
	defer cancel()
	return secured.HandshakeContext(ctx)
}

// receivePackets passes packets on to memberlist that are sealed for this node.
func (t *transport) receivePackets() {
	for {
		select {
		case <-t.closed:
			return
		case p := <-t.sockets.PacketCh():
			guard.Run(func() { t.receivePacket(p) })
		}
	}
}

func (t *transport) receivePacket(p *memberlist.Packet) {
	if t.seal != nil {
		sealed := p.Buf
		var err error
		if p.Buf, err = t.seal.open(sealed); err != nil {
			why := fmt.Sprintf("[WARN] memberlist: %s: %v %s", refusedPacket, err, memberlist.LogAddress(p.From))
			if err != errMisdirected || !t.late.hold(senderOf(sealed), p.From, why) {
				t.log.Print(why)
			}
			return
		}
		if len(p.Buf) == 0 {
			return
		}
	}
	if err := vetPacket(p.Buf); err != nil {
		t.log.Printf("[WARN] memberlist: %s: %v %s", refusedMessage, err, memberlist.LogAddress(p.From))
		return
	}
	p.Buf = bytes.Clone(p.Buf) // of plaintext it is the beginning of 64 KiB, and memberlist keeps it
	select {
	case t.packets <- p:
	case <-t.ctx.Done():
	}
}

// PacketCh is where memberlist takes packets from.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is where memberlist takes inbound streams from.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteTo sends a packet.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet. One to a node whose life is not known here yet
// would be refused there; it is lost like any other packet may be.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if t.seal != nil {
		to := t.receiverAt(a)
		if to.life == 0 {
			return time.Now(), nil
		}
		b = t.seal.seal(to, b)
	}
	return t.sockets.WriteToAddress(b, a)
}

// DialTimeout begins a stream.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout begins a stream, after a handshake if there is a secret.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	raw, err := dialer.DialContext(t.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	conn := raw
	if t.seal != nil {
		secured := tls.Client(raw, t.identity.Client(streamProtocol))
		ctx, cancel := context.WithTimeout(t.ctx, timeout)
		defer cancel()
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, peer.ExplainHandshake(err)
		}
		conn = secured
	}
	s, ok := t.track(conn, raw, false)
	if !ok {
		return nil, net.ErrClosed
	}
	return s, nil
}

// Shutdown may be called more than once: memberlist.Create does when it fails.
func (t *transport) Shutdown() error {
	var err error
	t.once.Do(func() {
		t.cancel() // from here on track opens nothing
		t.mu.Lock()
		open := make([]*stream, 0, len(t.open))
		for s := range t.open {
			open = append(open, s)
		}
		t.mu.Unlock()
		for _, s := range open {
			_ = s.raw.Close() // TLS would like to say goodbye first
			_ = s.Close()
		}
		t.pending.Clear()
		err = t.sockets.Shutdown() // waits for this transport to take all that has arrived
		close(t.closed)
		t.working.Wait()
	})
	return err
}

// Interface guards
var _ memberlist.NodeAwareTransport = (*transport)(nil)
