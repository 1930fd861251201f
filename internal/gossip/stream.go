package gossip

import (
	"errors"
	"net"
	"sync"

	"github.com/hashicorp/memberlist"
)

const maxStreamBytes = 4 << 20 // memberlist itself would read 20 MiB

var errStreamTooLong = errors.New("stream is longer than this node reads")

// A stream is a connection that ends with its transport and yields only so many
// bytes.
type stream struct {
	net.Conn
	raw       net.Conn // without TLS
	transport *transport
	inbound   bool
	budget    int // for Read, which has one caller at a time
	once      sync.Once
}

// track keeps account of a stream, unless there are too many inbound ones or the
// transport has ended; then it closes the connection.
func (t *transport) track(conn, raw net.Conn, inbound bool) (*stream, bool) {
	s := &stream{Conn: conn, raw: raw, transport: t, inbound: inbound, budget: maxStreamBytes}
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
	t.open[s] = struct{}{}
	return s, true
}

// Read fails when the stream is longer than maxStreamBytes.
func (s *stream) Read(p []byte) (int, error) {
	if s.budget <= 0 {
		return 0, errStreamTooLong
	}
	n, err := s.Conn.Read(p[:min(len(p), s.budget)])
	s.budget -= n
	return n, err
}

// Write closes the stream when it fails, since memberlist forgets to if that
// happens with the label.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err != nil {
		_ = s.Close()
	}
	return n, err
}

// Close may be called more than once.
func (s *stream) Close() error {
	err := net.ErrClosed
	s.once.Do(func() {
		s.transport.mu.Lock()
		delete(s.transport.open, s)
		if s.inbound {
			s.transport.inbound--
		}
		s.transport.mu.Unlock()
		err = s.Conn.Close()
	})
	return err
}
