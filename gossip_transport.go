package caddygroupcache

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossipTransport is memberlist's transport with bounds on what strangers can
// make it hold, and with an end: Shutdown breaks off dials and streams, for
// which memberlist would wait out TCPTimeout.
type gossipTransport struct {
	*memberlist.NetTransport
	log     *log.Logger
	ctx     context.Context // of every dial
	stop    context.CancelFunc
	streams chan net.Conn
	once    sync.Once
	closed  chan struct{} // the listeners are
	done    chan struct{} // accept is

	// mu guards open and inbound, the number of streams in it that came from others.
	mu      sync.Mutex
	open    map[*gossipConn]struct{}
	inbound int
}

func newGossipTransport(bind netip.AddrPort, logger *log.Logger) (*gossipTransport, error) {
	nt, err := listenGossip(bind, logger)
	if err != nil {
		return nil, fmt.Errorf("opening gossip on %s, TCP and UDP: %w; choose an address of this host and a free port", bind, err)
	}
	t := &gossipTransport{
		NetTransport: nt,
		log:          logger,
		streams:      make(chan net.Conn),
		closed:       make(chan struct{}),
		done:         make(chan struct{}),
		open:         make(map[*gossipConn]struct{}),
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	go t.accept()
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
	defer close(t.done)
	for {
		select {
		case <-t.closed:
			return
		case conn := <-t.NetTransport.StreamCh():
			c, ok := t.track(conn, true)
			if !ok {
				continue
			}
			select {
			case t.streams <- c:
			case <-t.ctx.Done():
				_ = c.Close()
			}
		}
	}
}

func (t *gossipTransport) track(conn net.Conn, inbound bool) (*gossipConn, bool) {
	c := &gossipConn{Conn: conn, transport: t, inbound: inbound, budget: maxStreamBytes}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		_ = conn.Close()
		return nil, false
	}
	if inbound {
		if t.inbound >= maxStreams {
			_ = conn.Close()
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
	conn, err := dialer.DialContext(t.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	c, ok := t.track(conn, false)
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
			_ = c.Close()
		}
		err = t.NetTransport.Shutdown() // waits for accept to take what was accepted
		close(t.closed)
		<-t.done
	})
	return err
}

// abandon is Shutdown for a transport that has no memberlist: nobody else
// takes the packets whose delivery Shutdown waits for.
func (t *gossipTransport) abandon() {
	go func() {
		for {
			select {
			case <-t.PacketCh():
			case <-t.closed:
				return
			}
		}
	}()
	_ = t.Shutdown()
}

// gossipConn is a stream that ends with its transport and yields only so many bytes.
type gossipConn struct {
	net.Conn
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
