package express

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// newFile returns a file in memory with the bytes of a body, which nothing can change.
func newFile(body []byte) (fd int, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err = unix.MemfdCreate("groupcache", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3
		fd, err = unix.MemfdCreate("groupcache", flags)
	}
	if err != nil {
		return 0, fmt.Errorf("making a file in memory: %w", err)
	}
	for rest := body; len(rest) > 0 && err == nil; {
		var n int
		if n, err = unix.Write(fd, rest); err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		rest = rest[max(n, 0):]
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		closeFile(fd)
		return 0, fmt.Errorf("filling a file in memory: %w", err)
	}
	return fd, nil
}

func closeFile(fd int) { _ = unix.Close(fd) } // of memory: nothing is written at the end

// rawConn returns the connection for system calls, or nil if what is written into it is not
// what the client gets.
func rawConn(c net.Conn) syscall.RawConn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// send sends what the connection takes. It reports false if that has to take some first.
func (s *fileSender) send(to uintptr) bool {
	for s.left() > 0 {
		var n int
		if len(s.head) > 0 {
			n, s.err = unix.SendmsgN(int(to), s.head, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			s.head = s.head[max(n, 0):]
		} else {
			n, s.err = unix.Sendfile(int(to), s.fd, &s.offset, int(s.size-s.offset))
		}
		switch {
		case errors.Is(s.err, unix.EAGAIN):
			return false
		case errors.Is(s.err, unix.EINTR):
		case s.err != nil || n <= 0:
			return true
		}
	}
	return true
}

// sendOn sends a header and the file behind it on a connection. It may leave some of both without an error,
// where the system refuses to send files.
func (s *fileSender) sendOn(c *Conn) error {
	if s.step == nil {
		s.step = s.send
	}
	for {
		c.writeBy()
		before := s.left()
		err := c.raw.Write(s.step)
		if !c.goesOn(before-s.left(), err) {
			return err
		}
	}
}
