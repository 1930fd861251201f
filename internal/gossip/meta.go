package gossip

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// A meta is a node's description of itself, which memberlist hands to all others:
// one byte of protocol version, then the peer address. Without an address it says
// that the node is leaving. A build of another version keeps to that much. There
// follow a zero byte, the node's life (see Member and seal), and in a cluster with
// secrets the ids of the keys that it holds.
type meta struct {
	version  uint8
	leaving  bool
	peers    string // "" if it cannot be dialed
	receiver receiver
}

func (m meta) encode() []byte {
	if m.leaving {
		return []byte{m.version}
	}
	b := append([]byte{m.version}, m.peers...)
	if m.receiver.life == 0 {
		return b
	}
	b = binary.BigEndian.AppendUint64(append(b, 0), m.receiver.life)
	for _, id := range m.receiver.keys {
		b = append(b, id[:]...)
	}
	return b
}

// decodeMeta reads a meta. Without a secret any process may have written it; one
// that does not follow the format has no peers.
func decodeMeta(b []byte) meta {
	if len(b) == 0 {
		return meta{}
	}
	m := meta{version: b[0], leaving: len(b) == 1}
	peers, secured, found := bytes.Cut(b[1:], []byte{0})
	if !validPeerAddr(string(peers)) {
		return m
	}
	if found {
		ids := len(secured) - 8
		if ids < 0 || ids%len(KeyID{}) != 0 || ids/len(KeyID{}) > maxSecrets {
			return m
		}
		if m.receiver.life = binary.BigEndian.Uint64(secured); m.receiver.life == 0 {
			return m
		}
		for id := range slices.Chunk(secured[8:], len(KeyID{})) {
			m.receiver.keys = append(m.receiver.keys, KeyID(id))
		}
	}
	m.peers = string(peers)
	return m
}
