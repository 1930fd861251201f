package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

const (
	protocolHTTP2 = "h2"

	maxStrangers = 128  // connections that have not shown yet who they are
	maxConns     = 1024 // connections that have

	// When a secret goes, nobody new gets in with it. Whoever is in has notice
	// to come again with another one; after that no request begins, and what
	// has begun has lastWords to end. parting is for what is on the wire.
	notice    = 500 * time.Millisecond
	lastWords = 2 * time.Second
	parting   = 100 * time.Millisecond
)

var (
	errTooMany = errors.New("peer: too many connections")
	errBusy    = errors.New("peer: too many requests at the same time")
)

// authListener is a listener that lets in peers that authenticate themselves: with a TLS
// handshake where there is a secret, with the preface of HTTP/2 where there is
// none. net/http gets to see no other connection.
type authListener struct {
	net.Listener
	identity *Identity
	refuse   func(why error)
	lobby    PendingHandshakes

	admitted chan net.Conn
	failed   chan error    // of Listener
	closed   chan struct{} // nobody takes what is admitted any more
	once     sync.Once

	mu     sync.Mutex // guards below
	conns  map[*serverConn]struct{}
	shares map[string]*share // of hosts that have a connection
}

func newAuthListener(l net.Listener, id *Identity, refuse func(why error)) *authListener {
	d := &authListener{
		Listener: l, identity: id, refuse: refuse,
		lobby:    PendingHandshakes{Room: maxStrangers},
		admitted: make(chan net.Conn), failed: make(chan error), closed: make(chan struct{}),
		conns: make(map[*serverConn]struct{}), shares: make(map[string]*share),
	}
	guard.Go(d.listen)
	return d
}

// Accept returns the next connection of a peer.
func (d *authListener) Accept() (net.Conn, error) {
	select {
	case c := <-d.admitted:
		return c, nil
	case err := <-d.failed:
		return nil, err
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener, and the connections that are not net/http's.
func (d *authListener) Close() error {
	d.once.Do(func() { close(d.closed) })
	err := d.Listener.Close()
	d.lobby.Clear()
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		_ = c.Conn.Close()
	}
	return err
}

func (d *authListener) listen() {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			select {
			case d.failed <- err:
				if temporary(err) {
					continue // net/http has waited before it accepts again
				}
			case <-d.closed:
			}
			return
		}
		// Not in the goroutine: it would be chance then which connection has waited longest.
		c := &serverConn{Conn: conn, door: d}
		leave := d.lobby.Enter(c)
		guard.Go(func() { d.receive(c, leave) })
	}
}

// temporary reports whether net/http goes on accepting after an error.
func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// receive lets a connection in, or closes it. leave ends its wait as a pending handshake.
func (d *authListener) receive(c *serverConn, leave func()) {
	admitted := false
	defer func() { // identify may panic
		if !admitted {
			_ = c.Close()
		}
	}()
	peer, err := d.identify(c, leave)
	if err == nil {
		err = d.admit(c)
	}
	if err == nil {
		select {
		case d.admitted <- peer:
			admitted = true
		case <-d.closed:
		}
	} else if c.spoke.Load() { // who says nothing is not refused
		d.refuse(fmt.Errorf("connection from %s: %w", c.RemoteAddr(), err))
	}
}

// identify authenticates a connection, which is a pending handshake until then.
func (d *authListener) identify(c *serverConn, leave func()) (net.Conn, error) {
	defer leave()
	return c.identify(d.identity)
}

// admit keeps account of a connection, unless there are too many or what it
// was accepted for is gone by now.
func (d *authListener) admit(c *serverConn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, host := d.identity.authorities(), hostOf(c)
	switch {
	case len(d.conns) >= maxConns, d.shares[host] != nil && d.shares[host].conns >= maxConnsOfHost:
		return errTooMany
	case !now.trusts(c.by):
		return ErrUnauthorized
	}
	c.outdated.Store(c.under != now)
	d.conns[c] = struct{}{}
	if d.shares[host] == nil {
		d.shares[host] = new(share)
	}
	c.share = d.shares[host]
	c.share.conns++
	return nil
}

// rekey is called when the secrets have changed. Everybody is asked to come
// again, so that no peer uses an old secret for longer than need be, and who was
// let in with one that is gone is given notice.
func (d *authListener) rekey() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.identity.authorities()
	for c := range d.conns {
		c.outdated.Store(c.under != now)
		if !now.trusts(c.by) {
			guard.AfterFunc(notice, c.expire)
		}
	}
}

// A serverConn is a connection from another node.
type serverConn struct {
	net.Conn
	door     *authListener
	under    *authorities // what the node went by when it accepted
	by       *authority   // which vouches for the other side; nil without secrets
	share    *share       // of its host, once it is admitted
	spoke    atomic.Bool  // something was read
	outdated atomic.Bool  // the secrets have changed since

	mu      sync.Mutex // guards below; comes after door.mu
	active  int        // requests under way
	expired bool       // the secret is gone: no other request may begin
}

// begin reports whether a request may begin. It ends with end.
func (c *serverConn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expired {
		return false
	}
	c.active++
	return true
}

func (c *serverConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	if c.expired && c.active == 0 {
		c.closeAfter(parting)
	}
}

func (c *serverConn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expired = true
	if c.active == 0 {
		c.closeAfter(parting)
	} else {
		c.closeAfter(lastWords)
	}
}

func (c *serverConn) closeAfter(d time.Duration) {
	guard.AfterFunc(d, func() { _ = c.Conn.Close() })
}

// identify waits until the other side has shown that it is a peer, and returns
// the connection to talk to it.
func (c *serverConn) identify(id *Identity) (net.Conn, error) {
	c.under = id.authorities()
	if err := c.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	var peer net.Conn
	if len(c.under.list) == 0 {
		begin, err := readPreface(c)
		if err != nil {
			return nil, err
		}
		peer = &prefixed{Conn: c, prefix: begin, rest: bufio.NewReaderSize(c, 16<<10)}
	} else {
		t := tls.Server(c, c.under.server(protocolHTTP2))
		if err := t.Handshake(); err != nil {
			return nil, ExplainHandshake(err)
		}
		c.by, peer = c.under.acceptedBy(t.ConnectionState()), t
	}
	return peer, c.SetDeadline(time.Time{})
}

func (c *serverConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.spoke.Load() {
		c.spoke.Store(true)
	}
	return n, err
}

// Close may be called more than once.
func (c *serverConn) Close() error {
	c.door.mu.Lock()
	if _, admitted := c.door.conns[c]; admitted {
		delete(c.door.conns, c)
		if c.share.conns--; c.share.conns == 0 {
			delete(c.door.shares, hostOf(c))
		}
	}
	c.door.mu.Unlock()
	return c.Conn.Close()
}

// preface is how every HTTP/2 connection begins, followed by a SETTINGS frame
// (RFC 9113 §3.4); that has a head of nine bytes, as all have (§4.1).
const (
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	headH2        = 9
	frameSettings = 4
)

// readPreface fails at the first byte that is not HTTP/2's, and at a first frame
// that is not what it has to be. net/http would wait for more, and not tell; nor
// does it tell of a frame that is too long. What was read is returned.
func readPreface(r io.Reader) ([]byte, error) {
	got := make([]byte, 0, len(preface)+headH2)
	for len(got) < cap(got) {
		n, err := r.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		if begun := min(len(got), len(preface)); string(got[:begun]) != preface[:begun] {
			return nil, malformed("not HTTP/2")
		}
		if err != nil && len(got) < cap(got) {
			return nil, err
		}
	}
	frame := got[len(preface):]
	length := int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2])
	if length > maxFrameH2 || frame[3] != frameSettings {
		return nil, malformed("HTTP/2 without its settings")
	}
	return got, nil
}

// prefixed is a connection of which some was read already.
type prefixed struct {
	net.Conn
	prefix []byte
	rest   *bufio.Reader // net/http reads HTTP/2 frames a head at a time
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.prefix = p.prefix[n:]
		return n, nil
	}
	return p.rest.Read(b)
}

type (
	connKey    struct{}
	streamsKey struct{}
	shareKey   struct{}
)

// withConn notes in the context of a connection's requests which one it is, how many
// shared streams it has, and what its host has.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	ctx = context.WithValue(ctx, streamsKey{}, new(atomic.Int32))
	switch t := conn.(type) {
	case *tls.Conn:
		ctx = context.WithValue(ctx, connKey{}, t.NetConn())
		return context.WithValue(ctx, shareKey{}, t.NetConn().(*serverConn).share)
	case *prefixed:
		return context.WithValue(ctx, shareKey{}, t.Conn.(*serverConn).share)
	}
	return ctx
}

// comeAgain is the header field by which a server asks for another connection
// in place of the one that a response came on.
const comeAgain = "Groupcache-Come-Again"

// attend has next answer a request, unless it comes over a connection whose
// secret is gone. Who uses a connection from before the secrets changed is
// asked for another one. A shared stream does not count as under way: that
// would keep the connection from its end. Its calls do (mux_server.go).
func (d *authListener) attend(w http.ResponseWriter, r *http.Request, next http.Handler) {
	host := r.Context().Value(shareKey{}).(*share)
	if !take(&host.requests, maxRequestsOfHost) {
		d.refuse(fmt.Errorf("request from %s: %w", r.RemoteAddr, errBusy))
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer host.requests.Add(-1)
	c, ok := r.Context().Value(connKey{}).(*serverConn)
	if !ok { // no secret, or none when it was accepted
		next.ServeHTTP(w, r)
		return
	}
	if !c.begin() {
		d.refuse(fmt.Errorf("request from %s: %w", c.RemoteAddr(), ErrUnauthorized))
		w.WriteHeader(http.StatusMisdirectedRequest)
		return
	}
	if c.outdated.Load() {
		w.Header().Set(comeAgain, "1")
	}
	if r.URL.Path == pathCalls {
		c.end()
	} else {
		defer c.end()
	}
	next.ServeHTTP(w, r)
}
