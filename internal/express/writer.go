package express

import (
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Writer writes one response. Nothing is sent before Send.
type Writer struct {
	conn  *Conn
	head  []byte
	err   error
	parts [2][]byte
	vec   net.Buffers

	file   *file // that the body is sent from; nil: from where it lies
	sender fileSender
}

// A fileSender sends a header and a file behind it. It is kept for its step.
type fileSender struct {
	head   []byte // what is left of it
	fd     int
	offset int64
	size   int64
	err    error                 // of the last system call
	step   func(fd uintptr) bool // as a RawConn takes it
}

// left is how many bytes are to be sent yet.
func (s *fileSender) left() int64 { return int64(len(s.head)) + s.size - s.offset }

// writers are those that are in no use. There are as many as responses at one time.
var writers = sync.Pool{New: func() any { return &Writer{head: make([]byte, 0, 2048)} }}

// Sizes in bytes.
const (
	copied  = 4 << 10  // up to which a body is copied behind its header
	record  = 16 << 10 // what TLS encrypts at once
	maxHead = 64 << 10 // of a buffer that is kept
)

// Status begins the response. It reports false if net/http would write a response of this
// status in another way.
func (w *Writer) Status(code int) bool {
	text := http.StatusText(code)
	if text == "" || code < 200 || code == http.StatusNoContent || code == http.StatusNotModified {
		return false
	}
	b := append(w.head[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(code), 10)
	b = append(append(b, ' '), text...)
	w.head = append(b, "\r\n"...)
	return true
}

// Field adds a line to the header.
func (w *Writer) Field(name, value string) {
	b := append(w.head, name...)
	b = append(append(b, ": "...), value...)
	w.head = append(b, "\r\n"...)
}

// FromFile has a body sent from a file, if clients ask for it all the time, and this one's
// connection takes files: one that is not encrypted.
func (w *Writer) FromFile(k store.Key, generation store.Generation, body []byte) {
	c := w.conn
	if c.l.options.Files == nil || c.tls != nil || len(body) < leastFile {
		return
	}
	if c.raw == nil {
		c.raw = rawConn(c.Conn)
	}
	if c.raw != nil {
		w.file = c.l.options.Files.get(bodyID{k, generation}, body)
	}
}

// Send sends the response with its body. What becomes of it only the connection is told.
func (w *Writer) Send(body []byte) {
	w.head = append(w.head, "\r\n"...)
	c := w.conn
	switch {
	case w.file != nil:
		w.sendFile(body)
	case len(body) <= copied:
		w.head = append(w.head, body...)
		w.err = c.write(w.head)
	case c.tls != nil:
		n := min(len(body), record-len(w.head)%record)
		w.head = append(w.head, body[:n]...)
		if w.err = c.write(w.head); w.err == nil {
			w.err = c.write(body[n:])
		}
	default:
		w.writeAll(w.head, body)
	}
}

// sendFile sends the body from its file, and what the system leaves of it from where it lies:
// the system may refuse to send files.
func (w *Writer) sendFile(body []byte) {
	s := &w.sender
	s.head, s.fd, s.offset, s.size, s.err = w.head, w.file.fd, 0, w.file.size, nil
	w.err = s.sendOn(w.conn)
	if w.err == nil && s.left() > 0 {
		w.writeAll(s.head, body[s.offset:])
	}
	s.head = nil
}

// writeAll writes the header and the body without a copy.
func (w *Writer) writeAll(head, body []byte) {
	w.parts = [2][]byte{head, body}
	w.vec = w.parts[:]
	w.err = w.conn.writeAll(&w.vec)
	w.parts, w.vec = [2][]byte{}, nil
}

// finish gives the writer back, and returns what has become of the response.
func (w *Writer) finish() error {
	err := w.err
	w.file.release()
	w.conn, w.err, w.file = nil, nil, nil
	if w.head = w.head[:0]; cap(w.head) <= maxHead {
		writers.Put(w)
	}
	return err
}

// write writes b. Over TLS that is in pieces, each with a deadline of its own, because a
// connection of which one has passed is lost.
func (c *Conn) write(b []byte) error {
	const piece = 4 * record
	for c.tls != nil && len(b) > piece {
		c.writeBy()
		if _, err := c.Conn.Write(b[:piece]); err != nil {
			return err
		}
		b = b[piece:]
	}
	for {
		c.writeBy()
		n, err := c.Conn.Write(b)
		if !c.goesOn(int64(n), err) {
			return err
		}
		b = b[n:]
	}
}

func (c *Conn) writeAll(vec *net.Buffers) error {
	for {
		c.writeBy()
		n, err := vec.WriteTo(c.Conn)
		if !c.goesOn(n, err) {
			return err
		}
	}
}

// goesOn reports whether a write whose deadline has passed is to go on: the client is slow,
// but takes something.
func (c *Conn) goesOn(n int64, err error) bool {
	return n > 0 && c.tls == nil && errors.Is(err, os.ErrDeadlineExceeded)
}

// writeBy sets the deadline for the next write.
func (c *Conn) writeBy() {
	if c.l.options.WriteTimeout <= 0 {
		return
	}
	if now := time.Now(); now.Sub(c.writeSet) > deadlineStep {
		c.writeSet = now
		_ = c.Conn.SetWriteDeadline(deadline(now, c.l.options.WriteTimeout)) // Write will tell
	}
}
