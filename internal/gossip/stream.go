package gossip

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
)

const (
	maxStreamBytes = 4 << 20 // memberlist itself would read 20 MiB
	// maxOpenBytes bounds what all streams that are open have brought: memberlist
	// holds it until they end.
	maxOpenBytes = 8 << 20
)

var (
	errStreamTooLong = errors.New("stream is longer than this node reads")
	errNoRoom        = errors.New("streams bring more than this node has room for")
)

// A stream is a connection that ends with its transport, yields only so many bytes, and
// none if it does not begin as those of memberlist do.
type stream struct {
	net.Conn
	raw       net.Conn // without TLS
	transport *transport
	inbound   bool
	once      sync.Once

	// For Read, which has one caller at a time.
	budget int
	vetted bool
	begin  []byte // what has been read of it, and not yet by memberlist
	failed error  // what follows begin

	brought atomic.Int64
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

// Read fails when the stream is longer than maxStreamBytes, or is not memberlist's.
func (s *stream) Read(p []byte) (int, error) {
	if !s.vetted {
		s.vetted = true
		s.begin, s.failed = vetStream(bringing{s})
	}
	if len(s.begin) > 0 {
		n := copy(p, s.begin)
		s.begin = s.begin[n:]
		return n, nil
	}
	if s.failed != nil {
		return 0, s.failed
	}
	return bringing{s}.Read(p)
}

// bringing reads a stream, and counts what comes.
type bringing struct{ s *stream }

func (b bringing) Read(p []byte) (int, error) {
	s := b.s
	if s.budget <= 0 {
		return 0, errStreamTooLong
	}
	n, err := s.Conn.Read(p[:min(len(p), s.budget)])
	s.budget -= n
	s.brought.Add(int64(n))
	if s.transport.brought.Add(int64(n)) > maxOpenBytes {
		return 0, errNoRoom
	}
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
		s.transport.brought.Add(-s.brought.Load())
	})
	return err
}
