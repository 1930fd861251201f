package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
)

const (
	dialTimeout = 2 * time.Second
	// drainTimeout is how long a connection that was replaced may take to
	// finish what is under way on it.
	drainTimeout = time.Minute
)

var (
	errClosed   = errors.New("peer: client is closed")
	errUnstable = errors.New("peer: connections break at once")
)

// connectionPool is a client's connections, by address: one to each peer, which
// all calls share, with one connection in use.
//
// A connection can be replaced under way: calls go over the old one until the
// new one is there, what has begun on the old one ends on it, and then it is
// closed. So a change of secrets makes no call wait. net/http's own pool can do
// none of this, and dials once for each of many calls that come at a time.
type connectionPool struct {
	identity  *Identity
	transport *http.Transport // dials, and keeps nothing
	ctx       context.Context // of every dial
	stop      context.CancelFunc

	mu     sync.Mutex // guards below
	byAddr map[string]*pooledConn
	conns  map[*clientConn]struct{} // open; in use or replaced
}

// pooledConn is the way to one peer. Its fields are guarded by connectionPool.mu.
type pooledConn struct {
	conn    *clientConn // nil: none
	dialing *dialing    // nil: no dial is under way
}

// dialing is an attempt to connect. Its fields are valid once done is closed.
type dialing struct {
	done chan struct{}
	err  error
}

// A clientConn is a connection to another node.
type clientConn struct {
	*http.ClientConn
	handshake
	replaced atomic.Bool // no call will use it any more
	shared   *muxClient  // guarded by connectionPool.mu; nil: there was none yet
}

// closeSoon closes a connection without waiting for it: its hooks may want connectionPool.mu.
func (c *clientConn) closeSoon() { guard.Go(func() { _ = c.Close() }) }

// handshake is how a connection came about.
type handshake struct {
	under *authorities
	by    *authority // which vouches for the other side; nil without secrets
}

type handshakeKey struct{}

func (h handshake) scheme() string {
	if len(h.under.list) > 0 {
		return "https"
	}
	return "http"
}

func newConnectionPool(id *Identity) *connectionPool {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	l := &connectionPool{
		identity: id,
		byAddr:   make(map[string]*pooledConn),
		conns:    make(map[*clientConn]struct{}),
		transport: &http.Transport{
			DialContext: dialer.DialContext,
			DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return dialTLS(ctx, dialer, network, addr)
			},
			Protocols:              &protocols,
			HTTP2:                  http2Config(),
			MaxResponseHeaderBytes: 8 << 10,
			IdleConnTimeout:        time.Minute,
			DisableCompression:     true,
		},
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

func dialTLS(ctx context.Context, dialer *net.Dialer, network, addr string) (net.Conn, error) {
	h := ctx.Value(handshakeKey{}).(*handshake)
	raw, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, h.under.client(protocolHTTP2))
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, ExplainHandshake(err)
	}
	h.by = h.under.acceptedBy(conn.ConnectionState())
	return conn, nil
}

// roundTrip sends a request over the connection to addr.
func (l *connectionPool) roundTrip(req *http.Request, addr string) (*http.Response, error) {
	for again := false; ; again = true {
		conn, err := l.reserve(req.Context(), addr)
		if err != nil {
			return nil, err
		}
		req.URL.Scheme = conn.scheme()
		sent := time.Now()
		resp, err := conn.RoundTrip(req)
		switch {
		case err == nil && resp.StatusCode == http.StatusMisdirectedRequest: // its secret is gone on the other side
		case err == nil:
			if resp.Header.Get(comeAgain) != "" {
				l.replace(addr, conn)
			}
			return resp, nil
		case time.Since(sent) > pingAfter || req.Context().Err() != nil || endsCall(err):
			return nil, err
		}
		// What breaks sooner than a ping could have found out was closed by the
		// other side, perhaps before it saw the request.
		l.abandon(conn)
		if again || req.GetBody == nil {
			return resp, err
		}
		if err == nil {
			_ = resp.Body.Close()
		}
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = body
	}
}

// streamError is what net/http makes of its own error of one stream, if errors.As asks for
// a type with these fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

// refusedStream is the code of a stream of which the other side has read nothing (RFC 9113 §8.7).
const refusedStream = 7

func (e streamError) Error() string { return fmt.Sprintf("peer: stream reset with code %d", e.Code) }

// endsCall reports whether an error is of one call, and says nothing of the connection: of
// other calls on it, some bring long responses.
func endsCall(err error) bool {
	var reset streamError
	return errors.Is(err, errBodyPanicked) || errors.As(err, &reset) && reset.Code != refusedStream
}

// reserve returns a connection with room for one more request, which the
// caller must send.
func (l *connectionPool) reserve(ctx context.Context, addr string) (*clientConn, error) {
	for range 3 { // a connection may break as soon as it is there
		l.mu.Lock()
		n := l.pooledLocked(addr)
		if n.conn != nil && n.conn.Reserve() == nil {
			conn := n.conn
			l.mu.Unlock()
			return conn, nil
		}
		d := l.dialLocked(addr, n)
		l.mu.Unlock()
		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, errUnstable
}

// share returns the stream that calls to addr share, and its connection. It
// waits for that until ctx ends or expired fires.
func (l *connectionPool) share(ctx context.Context, addr string, expired <-chan time.Time) (*clientConn, *muxClient, error) {
	for range 3 { // as in reserve
		l.mu.Lock()
		n := l.pooledLocked(addr)
		if conn := n.conn; conn != nil {
			if conn.shared == nil || conn.shared.ended() {
				conn.shared = l.shareLocked(addr, conn)
			}
			if shared := conn.shared; shared != nil {
				l.mu.Unlock()
				return conn, shared, nil
			}
		}
		d := l.dialLocked(addr, n)
		l.mu.Unlock()
		select {
		case <-d.done:
			if d.err != nil {
				return nil, nil, d.err
			}
		case <-expired:
			return nil, nil, ErrTimeout
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	return nil, nil, errUnstable
}

// shareLocked begins a shared stream, or returns nil if the connection has no
// room for one.
func (l *connectionPool) shareLocked(addr string, conn *clientConn) *muxClient {
	if conn.Reserve() != nil {
		return nil
	}
	c := newMuxClient()
	c.start(l.ctx, conn, addr, func() { l.replace(addr, conn) })
	return c
}

func (l *connectionPool) pooledLocked(addr string) *pooledConn {
	n := l.byAddr[addr]
	if n == nil {
		n = new(pooledConn)
		l.byAddr[addr] = n
	}
	return n
}

// dialLocked returns the attempt to connect that is under way, or begins one.
// It is everybody's, so it does not end with the call that began it.
func (l *connectionPool) dialLocked(addr string, n *pooledConn) *dialing {
	if n.dialing != nil {
		return n.dialing
	}
	d := &dialing{done: make(chan struct{})}
	n.dialing = d
	guard.Go(func() {
		err := errUnstable // if dial panics
		defer func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if n.dialing == d {
				n.dialing = nil
			}
			d.err = err
			close(d.done)
		}()
		conn, dialErr := l.dial(addr)
		err = l.use(addr, n, conn, dialErr)
	})
	return d
}

func (l *connectionPool) dial(addr string) (*clientConn, error) {
	conn := &clientConn{handshake: handshake{under: l.identity.authorities()}}
	ctx, cancel := context.WithTimeout(context.WithValue(l.ctx, handshakeKey{}, &conn.handshake), dialTimeout)
	defer cancel()
	var err error
	conn.ClientConn, err = l.transport.NewClientConn(ctx, conn.scheme(), addr)
	return conn, err
}

// use puts a new connection to use in place of the one before. Without an error
// its callers look for one again.
func (l *connectionPool) use(addr string, n *pooledConn, conn *clientConn, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n.dialing = nil
	now := l.identity.authorities()
	switch {
	case l.ctx.Err() != nil || l.byAddr[addr] != n:
		if err == nil {
			conn.closeSoon()
		}
		return errClosed
	case err != nil && conn.under != now: // the secrets have changed meanwhile
		return nil
	case err != nil:
		return err
	case !now.trusts(conn.by):
		conn.closeSoon()
		return nil
	}
	l.conns[conn] = struct{}{}
	conn.SetStateHook(func(cc *http.ClientConn) {
		if conn.replaced.Load() || cc.Err() != nil {
			guard.Go(func() { l.tidy(conn) })
		}
	})
	old := n.conn
	n.conn = conn
	if old != nil {
		l.drainLocked(old, drainTimeout)
	}
	if conn.under != now {
		l.dialLocked(addr, n)
	}
	return nil
}

// drainLocked lets a connection end, within some time, that no call will use
// any more.
func (l *connectionPool) drainLocked(conn *clientConn, within time.Duration) {
	conn.replaced.Store(true)
	if conn.shared != nil {
		conn.shared.retire()
	}
	guard.AfterFunc(within, func() { conn.Close() })
	guard.Go(func() { l.tidy(conn) })
}

// abandon has no call use a connection any more.
func (l *connectionPool) abandon(conn *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.byAddr {
		if n.conn == conn {
			n.conn = nil
			l.drainLocked(conn, lastWords)
		}
	}
}

// tidy forgets a connection that is closed, and closes one that is done with.
func (l *connectionPool) tidy(conn *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.conns[conn]; !open {
		return
	}
	closed := conn.Err() != nil
	if !closed && (!conn.replaced.Load() || conn.InFlight() > 0) {
		return
	}
	delete(l.conns, conn)
	for _, n := range l.byAddr {
		if n.conn == conn {
			n.conn = nil
		}
	}
	if !closed {
		conn.closeSoon()
	}
}

// replace begins to replace a connection, unless another call has.
func (l *connectionPool) replace(addr string, conn *clientConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.byAddr[addr]; n != nil && n.conn == conn {
		l.dialLocked(addr, n)
	}
}

// rekey closes what was accepted under a secret that is gone, at once or after
// its last words, and replaces what is in use.
func (l *connectionPool) rekey() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.identity.authorities()
	for addr, n := range l.byAddr {
		if n.conn == nil || n.conn.under == now {
			continue
		}
		if !now.trusts(n.conn.by) {
			n.conn = nil
		}
		l.dialLocked(addr, n)
	}
	for conn := range l.conns {
		if !now.trusts(conn.by) {
			l.drainLocked(conn, lastWords)
		}
	}
}

// keep lets go of all connections but those to some addresses.
func (l *connectionPool) keep(known map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for addr, n := range l.byAddr {
		if !known[addr] {
			delete(l.byAddr, addr)
			if n.conn != nil {
				l.drainLocked(n.conn, drainTimeout)
			}
		}
	}
}

// close closes all connections. There will be no other.
func (l *connectionPool) close() {
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.byAddr)
	for conn := range l.conns {
		delete(l.conns, conn)
		conn.closeSoon()
	}
}
