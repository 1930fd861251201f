//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A host is where a node runs: a network namespace, or just this machine.
//
// The lab reaches into namespaces instead of through their network: a socket
// belongs to the namespace of the thread that made it. So clients, the origin and
// the admin API are on each host's own loopback, and no fault of the network
// between nodes is one of theirs.
type host struct {
	ip   string // for other nodes
	todo chan func()
	end  chan struct{} // closed by close
}

// newHost begins a host. If it can't be set up it has failed.
func newHost(ip string, setUp func() error) (*host, error) {
	h := &host{ip: ip, todo: make(chan func()), end: make(chan struct{})}
	ready := make(chan error)
	go func() {
		// The thread is not unlocked: it ends with this goroutine, and takes with
		// it what was started on it.
		runtime.LockOSThread()
		err := error(nil)
		if setUp != nil {
			err = setUp()
		}
		ready <- err
		for err == nil {
			select {
			case f := <-h.todo:
				f()
			case <-h.end:
				return
			}
		}
	}()
	return h, <-ready
}

func (h *host) close() { close(h.end) }

// on runs f on the host's thread.
func (h *host) on(f func()) {
	done := make(chan struct{})
	h.todo <- func() {
		defer close(done)
		f()
	}
	<-done
}

// start starts a process that does not outlive the lab.
func (h *host) start(cmd *exec.Cmd) (err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	h.on(func() { err = cmd.Start() })
	return err
}

func (h *host) listen(address string) (l net.Listener, err error) {
	h.on(func() { l, err = net.Listen("tcp", address) })
	return l, err
}

// dial makes a socket on the host's thread, and connects it elsewhere, so that
// nobody waits for somebody else's connection.
func (h *host) dial(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	var fd int
	h.on(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connecting to %s: %w", address, err)
	}
	file := os.NewFile(uintptr(fd), address)
	defer file.Close() // the connection has its own
	conn, err := net.FileConn(file)
	return conn, errors.Join(err, ctx.Err())
}
