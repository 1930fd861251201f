package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// What memberlist would read is looked at before it gets there. memberlist inflates what
// says that it is compressed to 40 MiB, in layers, and makes room for as many nodes as a
// stream says will come, up to a million. Nodes of this cache send nothing of the kind.

// The types of memberlist's messages.
const (
	messagePing byte = iota
	messageIndirectPing
	messageAck
	messageSuspect
	messageAlive
	messageDead
	messagePushPull
	messageCompound
	_ // user
	_ // compressed
	_ // encrypted
	messageNack
	messageChecked
	messageError

	messageLabeled byte = 244
)

// maxPacket bounds a packet, in bytes. memberlist gathers what it sends up to 1,400.
const maxPacket = 4 << 10

var (
	packetTypes = []byte{messagePing, messageIndirectPing, messageAck, messageNack, messageSuspect, messageAlive, messageDead}
	streamTypes = []byte{messagePing, messageAck, messagePushPull, messageError}
)

var errNoMessage = errors.New("not a message that a node of this cache sends")

// vetPacket returns why a packet must not get to memberlist.
func vetPacket(p []byte) error {
	if len(p) > maxPacket {
		return fmt.Errorf("%w: a packet of %d bytes", errNoMessage, len(p))
	}
	p = unlabeled(p)
	if len(p) >= 5 && p[0] == messageChecked {
		p = p[5:]
	}
	if len(p) == 0 || p[0] != messageCompound {
		return vetMessage(p, packetTypes)
	}
	// The number of messages, the length of each in two bytes, the messages.
	if len(p) < 2 || len(p) < 2+2*int(p[1]) {
		return errNoMessage
	}
	lengths, rest := p[2:2+2*int(p[1])], p[2+2*int(p[1]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(lengths[0])<<8 | int(lengths[1])
		if n > len(rest) {
			return errNoMessage
		}
		if err := vetMessage(rest[:n], packetTypes); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// unlabeled returns what follows a label. memberlist refuses what has the wrong one.
func unlabeled(p []byte) []byte {
	if len(p) >= 2 && p[0] == messageLabeled && len(p) >= 2+int(p[1]) {
		return p[2+int(p[1]):]
	}
	return p
}

func vetMessage(m, types []byte) error {
	if len(m) == 0 || !slices.Contains(types, m[0]) {
		return errNoMessage
	}
	return nil
}

// vetStream reads the beginning of a stream, and returns it, or why the stream must not
// get to memberlist.
func vetStream(r io.Reader) (begin []byte, err error) {
	var read bytes.Buffer
	in := &beginning{Reader: io.TeeReader(r, &read)}
	kind := in.byte()
	if kind == messageLabeled {
		in.skip(int(in.byte()))
		kind = in.byte()
	}
	switch {
	case in.failed != nil:
		return read.Bytes(), in.failed
	case !slices.Contains(streamTypes, kind):
		return nil, errNoMessage
	case kind == messagePushPull && !in.pushPull():
		if in.failed != nil {
			return read.Bytes(), in.failed
		}
		return nil, errNoMessage
	}
	return read.Bytes(), nil
}

// A beginning reads the first bytes of a stream. The first failure sticks; what is read
// after it is 0.
type beginning struct {
	io.Reader
	failed error
}

func (b *beginning) byte() byte {
	var one [1]byte
	if b.failed == nil {
		_, b.failed = io.ReadFull(b, one[:])
	}
	return one[0]
}

// uint reads a number of so many bytes, big endian.
func (b *beginning) uint(bytes int) (n uint64) {
	for range bytes {
		n = n<<8 | uint64(b.byte())
	}
	return n
}

func (b *beginning) skip(bytes int) {
	for range bytes {
		b.byte()
	}
}

// pushPull reads the header of a push/pull, which is a map in MessagePack, and reports
// whether no more is to come than this node has room for.
func (b *beginning) pushPull() bool {
	const fixedMap, fixedString = 0x80, 0xa0
	fields := int(b.byte()) - fixedMap
	if fields < 0 || fields > 3 {
		return false
	}
	for range fields {
		length := int(b.byte()) - fixedString
		if length < 0 || length > len("UserStateLen") {
			return false
		}
		name := make([]byte, length)
		for i := range name {
			name[i] = b.byte()
		}
		switch n, ok := b.value(); {
		case !ok, b.failed != nil:
			return false
		case string(name) == "Nodes" && n <= maxMembers, string(name) == "UserStateLen" && n <= maxLocalState:
		case string(name) != "Join":
			return false
		}
	}
	return b.failed == nil
}

// value reads a number that is not negative, or a boolean. memberlist's encoder writes a
// positive number beyond 127 as a signed one.
func (b *beginning) value() (n uint64, ok bool) {
	switch kind := b.byte(); {
	case kind <= 0x7f:
		return uint64(kind), true
	case kind == 0xc2, kind == 0xc3:
		return uint64(kind & 1), true
	case kind >= 0xcc && kind <= 0xcf:
		return b.uint(1 << (kind - 0xcc)), true
	case kind >= 0xd0 && kind <= 0xd3:
		bytes := 1 << (kind - 0xd0)
		n := b.uint(bytes)
		return n, n>>(8*bytes-1) == 0
	}
	return 0, false
}
