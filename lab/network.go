//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A network connects hosts: each has a namespace with a tun device, and packets
// go through this process from one device to another, or don't. That needs root
// and /dev/net/tun, but neither packet filters nor queueing disciplines, which
// many kernels come without.
type network struct {
	mu    sync.Mutex // guards below
	ports []*port
	links map[[2]int]link // by index of sender and receiver; no entry: a good one
}

// A link is what becomes of packets on their way.
type link struct {
	loss          float64 // 1: all
	delay, jitter time.Duration
	largest       int  // packets of more bytes are lost; 0: none is
	noCalls       bool // packets that begin a TCP connection are lost, as behind NAT
}

var cut = link{loss: 1}

// A port is a host's device.
type port struct {
	net   *network
	index int
	dev   *os.File

	mu    sync.Mutex // guards queue
	queue []parcel   // of delayed packets to this host
	more  chan struct{}
	end   chan struct{} // closed with the network
}

type parcel struct {
	at     time.Time
	packet []byte
}

// The addresses are from the range for tests of network devices (RFC 2544).
const subnet = "198.18.0."

const mtu = 1500

// addHost adds a host with a namespace of its own.
func (n *network) addHost() (*host, error) {
	n.mu.Lock()
	p := &port{net: n, index: len(n.ports), more: make(chan struct{}, 1), end: make(chan struct{})}
	n.mu.Unlock()
	ip := fmt.Sprint(subnet, p.index+1)
	h, err := newHost(ip, func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		if err := setUp("lo", ""); err != nil {
			return err
		}
		if p.dev, err = openTun("lab0"); err != nil {
			return err
		}
		return setUp("lab0", ip)
	})
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.ports = append(n.ports, p)
	n.mu.Unlock()
	go p.receive()
	go p.deliverLate()
	return h, nil
}

func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.ports {
		p.dev.Close()
		close(p.end)
	}
	n.ports = nil
}

// set makes links what they are from now on, both ways.
func (n *network) set(l link, from, to []int) {
	n.setOneWay(l, from, to)
	n.setOneWay(l, to, from)
}

func (n *network) setOneWay(l link, from, to []int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links == nil {
		n.links = make(map[[2]int]link)
	}
	for _, f := range from {
		for _, t := range to {
			n.links[[2]int{f, t}] = l
		}
	}
}

// heal makes all links good.
func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.links)
}

// receive takes what a host sends and hands it on.
func (p *port) receive() {
	buf := make([]byte, mtu)
	for {
		size, err := p.dev.Read(buf)
		if err != nil {
			return
		}
		if size < 20 || buf[0]>>4 != 4 {
			continue
		}
		to := netip.AddrFrom4([4]byte(buf[16:20])).As4()
		p.net.forward(p.index, int(to[3])-1, buf[:size])
	}
}

func (n *network) forward(from, to int, packet []byte) {
	n.mu.Lock()
	var receiver *port
	if to >= 0 && to < len(n.ports) {
		receiver = n.ports[to]
	}
	l := n.links[[2]int{from, to}]
	n.mu.Unlock()
	switch {
	case receiver == nil, l.loss > 0 && rand.Float64() < l.loss:
	case l.largest > 0 && len(packet) > l.largest, l.noCalls && begins(packet):
	case l.delay > 0:
		late := l.delay + time.Duration((rand.Float64()*2-1)*float64(l.jitter))
		receiver.later(parcel{time.Now().Add(late), append([]byte(nil), packet...)})
	default:
		_, _ = receiver.dev.Write(packet)
	}
}

// begins reports whether an IPv4 packet begins a TCP connection: it has the flag SYN
// and not ACK.
func begins(packet []byte) bool {
	const tcp, syn, ack = 6, 0x02, 0x10
	header := int(packet[0]&0x0f) * 4
	return packet[9] == tcp && len(packet) > header+13 && packet[header+13]&(syn|ack) == syn
}

// later delivers a packet when its time has come. Packets may overtake each
// other.
func (p *port) later(one parcel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) < 1000 {
		p.queue = append(p.queue, one)
	}
	select {
	case p.more <- struct{}{}:
	default:
	}
}

func (p *port) deliverLate() {
	for {
		select {
		case <-p.more:
		case <-p.end:
			return
		}
		for {
			p.mu.Lock()
			var due [][]byte
			waiting := p.queue[:0]
			next := time.Hour
			for _, one := range p.queue {
				if wait := time.Until(one.at); wait <= 0 {
					due = append(due, one.packet)
				} else {
					waiting, next = append(waiting, one), min(next, wait)
				}
			}
			p.queue = waiting
			p.mu.Unlock()
			for _, packet := range due {
				_, _ = p.dev.Write(packet)
			}
			if len(waiting) == 0 {
				break
			}
			time.Sleep(min(next, time.Millisecond))
		}
	}
}

// ifreq is struct ifreq of netdevice(7), with the parts of its union that are
// used here.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

func newIfreq(name string) (r ifreq) {
	copy(r.name[:], name)
	return r
}

func (r *ifreq) ioctl(fd int, request uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(r))); errno != 0 {
		return errno
	}
	return nil
}

// openTun makes a device in the thread's namespace. What is read is what the host
// has sent.
func openTun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	r := newIfreq(name)
	*(*uint16)(unsafe.Pointer(&r.data)) = unix.IFF_TUN | unix.IFF_NO_PI
	if err := r.ioctl(fd, unix.TUNSETIFF); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making a tun device: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// setUp gives a device of the thread's namespace an address in the subnet, if it
// is to have one, and switches it on.
func setUp(name, ip string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	address := func(s string) ifreq {
		r := newIfreq(name)
		ip := netip.MustParseAddr(s).As4()
		*(*uint16)(unsafe.Pointer(&r.data)) = unix.AF_INET
		copy(r.data[4:], ip[:])
		return r
	}
	if ip != "" {
		a, mask := address(ip), address("255.255.255.0")
		if err := errors.Join(a.ioctl(fd, unix.SIOCSIFADDR), mask.ioctl(fd, unix.SIOCSIFNETMASK)); err != nil {
			return fmt.Errorf("giving %s an address: %w", name, err)
		}
	}
	r := newIfreq(name)
	*(*uint16)(unsafe.Pointer(&r.data)) = unix.IFF_UP | unix.IFF_RUNNING
	if err := r.ioctl(fd, unix.SIOCSIFFLAGS); err != nil {
		return fmt.Errorf("switching %s on: %w", name, err)
	}
	return nil
}
