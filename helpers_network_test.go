package caddygroupcache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

// A network connects nodes inside a synctest bubble, where time is the test's.
// It delays what is sent, and holds it back where nodes cannot reach each other,
// as TCP does.
type network struct {
	mu        sync.Mutex // guards below
	listeners map[string]*fakeListener
	apart     map[[2]string]bool // who cannot reach whom, by address
	delay     func() time.Duration
	changed   chan struct{} // closed and replaced when apart changes
}

func newNetwork() *network {
	return &network{listeners: make(map[string]*fakeListener), apart: make(map[[2]string]bool), changed: make(chan struct{})}
}

// part makes two nodes unreachable for each other, or reachable again.
func (n *network) part(a, b string, apart bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.apart[[2]string{a, b}], n.apart[[2]string{b, a}] = apart, apart
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *network) blocked(a, b string) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.apart[[2]string{a, b}], n.changed
}

// slow sets how long what is sent takes. The function is called under a lock.
func (n *network) slow(delay func() time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = delay
}

func (n *network) lag() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.delay == nil {
		return 0
	}
	return n.delay()
}

type fakeAddr string

func (fakeAddr) Network() string  { return "tcp" }
func (a fakeAddr) String() string { return string(a) }

type fakeListener struct {
	net    *network
	addr   string
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (n *network) listen(addr string) *fakeListener {
	l := &fakeListener{net: n, addr: addr, accept: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[addr] = l
	return l
}

// attach gives a node an address, from which it dials, and a listener there.
func (n *network) attach(m *node.Node) net.Listener {
	addr := m.Name + ":8000"
	m.Client.DialWith(func(ctx context.Context, _, to string) (net.Conn, error) { return n.dial(ctx, addr, to) })
	return n.listen(addr)
}

func (l *fakeListener) Addr() net.Addr { return fakeAddr(l.addr) }

func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// dial connects two addresses.
func (n *network) dial(ctx context.Context, from, to string) (net.Conn, error) {
	for {
		apart, changed := n.blocked(from, to)
		if !apart {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	n.mu.Lock()
	l := n.listeners[to]
	n.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	there, back := newPipe(n, from, to), newPipe(n, to, from)
	select {
	case l.accept <- &fakeConn{in: there, out: back, local: to, remote: from}:
		return &fakeConn{in: back, out: there, local: from, remote: to}, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A pipe is one direction of a connection.
type pipe struct {
	net      *network
	from, to string

	mu     sync.Mutex // guards below
	queue  []segment
	closed bool          // by the writer: what was sent still arrives
	broken bool          // by the reader
	more   chan struct{} // closed and replaced when something changes
}

type segment struct {
	at   time.Time // when it arrives
	data []byte
}

func newPipe(n *network, from, to string) *pipe {
	return &pipe{net: n, from: from, to: to, more: make(chan struct{})}
}

func (p *pipe) changeLocked() {
	close(p.more)
	p.more = make(chan struct{})
}

func (p *pipe) write(b []byte) (int, error) {
	at := time.Now().Add(p.net.lag())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.broken {
		return 0, io.ErrClosedPipe
	}
	if n := len(p.queue); n > 0 && p.queue[n-1].at.After(at) {
		at = p.queue[n-1].at // in order
	}
	p.queue = append(p.queue, segment{at, slices.Clone(b)})
	p.changeLocked()
	return len(b), nil
}

func (p *pipe) close(reader bool) {
	apart, _ := p.net.blocked(p.from, p.to)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.broken = true, p.broken || reader
	if apart {
		p.queue = nil // nobody will send it again
	}
	p.changeLocked()
}

func (p *pipe) read(b []byte, stop <-chan struct{}) (int, error) {
	for {
		apart, changed := p.net.blocked(p.from, p.to)
		p.mu.Lock()
		more, wait := p.more, time.Duration(-1)
		if p.broken {
			p.mu.Unlock()
			return 0, net.ErrClosed
		}
		if !apart && len(p.queue) > 0 {
			if wait = time.Until(p.queue[0].at); wait <= 0 {
				n := copy(b, p.queue[0].data)
				if p.queue[0].data = p.queue[0].data[n:]; len(p.queue[0].data) == 0 {
					p.queue = p.queue[1:]
				}
				p.mu.Unlock()
				return n, nil
			}
		}
		if !apart && p.closed && len(p.queue) == 0 {
			p.mu.Unlock()
			return 0, io.EOF
		}
		p.mu.Unlock()
		var arrives <-chan time.Time
		if wait > 0 {
			arrives = time.After(wait)
		}
		select {
		case <-more:
		case <-changed:
		case <-arrives:
		case <-stop:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// A fakeConn is one end of a connection.
type fakeConn struct {
	in, out       *pipe
	local, remote string

	mu       sync.Mutex // guards below
	deadline chan struct{}
	timer    *time.Timer
}

func (c *fakeConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	stop := c.deadline
	c.mu.Unlock()
	return c.in.read(b, stop)
}

func (c *fakeConn) Write(b []byte) (int, error) { return c.out.write(b) }

func (c *fakeConn) Close() error {
	c.in.close(true)
	c.out.close(false)
	return nil
}

func (c *fakeConn) LocalAddr() net.Addr              { return fakeAddr(c.local) }
func (c *fakeConn) RemoteAddr() net.Addr             { return fakeAddr(c.remote) }
func (c *fakeConn) SetWriteDeadline(time.Time) error { return nil } // a write never blocks
func (c *fakeConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *fakeConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	stop := make(chan struct{})
	c.deadline, c.timer = stop, nil
	if !t.IsZero() {
		c.timer = time.AfterFunc(time.Until(t), func() { close(stop) })
	}
	// Who is reading looks at the new one.
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.changeLocked()
	return nil
}

// A bubble is a cluster on such a network, with everything of a node but Caddy
// and memberlist around it.
type bubble struct {
	t     *testing.T
	net   *network
	nodes []*bubbleNode
}

// bubbleNode is one node of a bubble.
type bubbleNode struct {
	*node.Node
	handler *Handler
	process *process
	server  *peer.Server
	addr    peer.Node
	crash   func()
	crashed atomic.Bool
}

func newBubble(t *testing.T, n int, set func(*Handler)) *bubble {
	b := &bubble{t: t, net: newNetwork()}
	b.net.slow(func() time.Duration { return 50 * time.Microsecond })
	for i := range n {
		b.start(fmt.Sprintf("node%d", i), set)
	}
	for _, m := range b.nodes {
		m.SetRing(b.addrs())
	}
	b.settle()
	return b
}

// settle lets nodes hear of each other's purges.
func (b *bubble) settle() { time.Sleep(10 * time.Millisecond) }

// urlOf returns a URL that a node owns.
func (b *bubble) urlOf(m *bubbleNode) string {
	for i := 0; ; i++ {
		url := fmt.Sprintf("http://a.test/%d", i)
		k, _ := keyOf(m.handler, request(context.Background(), url))
		if _, self := m.Ring.Load().Owner(k); self {
			return url
		}
	}
}

func (b *bubble) addrs() []peer.Node {
	var all []peer.Node
	for _, m := range b.nodes {
		all = append(all, m.addr)
	}
	return all
}

var incarnations int // of nodes: no two have one address

func (b *bubble) start(name string, set func(*Handler)) *bubbleNode {
	incarnations++
	m := &bubbleNode{Node: node.New(name, 16<<20), addr: peer.Node{Name: name, Addr: fmt.Sprintf("%s-%d:8000", name, incarnations)}}
	m.Client.DialWith(func(ctx context.Context, _, to string) (net.Conn, error) { return b.net.dial(ctx, m.addr.Addr, to) })
	m.server = peer.NewServer(node.Owner{Node: m.Node}, m.Identity)
	m.server.Life, m.addr.Life = m.Life, m.Life
	listener := b.net.listen(m.addr.Addr)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = m.server.Serve(listener)
	}()
	m.handler = newHandler(b.t, m.Node, func(h *Handler) {
		h.PeerTimeout = caddy.Duration(250 * time.Millisecond)
		if set != nil {
			set(h)
		}
	})
	m.process = &process{node: m.Node, cacheSize: 16 << 20}
	m.process.config.handlers.Store(&handlersByGroup{m.handler.Group: {m.handler}})
	m.Purger.Names = m.process.config.namesOf
	m.crash = sync.OnceFunc(func() {
		m.crashed.Store(true)
		m.server.Close()
		m.Node.Close()
		<-served
	})
	b.t.Cleanup(m.crash)
	b.nodes = append(b.nodes, m)
	return m
}

// purge asks a node's admin API for a purge.
func (m *bubbleNode) purge(t testing.TB, body string) (int, PurgeResult) {
	t.Helper()
	w := httptest.NewRecorder()
	if err := m.process.servePurge(w, httptest.NewRequest(http.MethodPost, "/groupcache/purge", strings.NewReader(body))); err != nil {
		var api caddy.APIError
		if !errors.As(err, &api) {
			t.Fatal(err)
		}
		return api.HTTPStatus, PurgeResult{ID: api.Error()}
	}
	return w.Code, resultOf(t, w)
}

func resultOf(t testing.TB, w *httptest.ResponseRecorder) (r PurgeResult) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatalf("%q: %v", w.Body, err)
	}
	return r
}
