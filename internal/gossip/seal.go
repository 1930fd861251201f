package gossip

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Each packet of gossip is sealed for one process, and opened once:
//
//	to      8 bytes  the life of the receiver
//	from    8 bytes  the life of the sender
//	count   8 bytes  grows with each packet of the sender
//	nonce  24 bytes  random
//	sealed           the packet by XChaCha20-Poly1305, and a tag of 16 bytes
//
// The first three are associated data. A life is a random number that a
// process draws at its start, and tells in its node meta. So a packet that was
// recorded is refused by the receiver, which keeps a window of the counts that
// have come (RFC 4303 §3.4.3 does the same for IPsec), by every other node, and
// by the receiver after a restart. No clock is needed. Streams need no seal:
// they are TLS.
//
// The nonce is random, because a machine that is cloned while it runs would use
// a count twice. All nodes share the key for as long as the secret lasts; that
// may be more packets than random nonces of 12 bytes are safe for (2^32, NIST
// SP 800-38D §8.3), but not of 24.
const (
	sealedHead  = 8 + 8 + 8
	sealedNonce = chacha20poly1305.NonceSizeX
	sealBytes   = sealedHead + sealedNonce + chacha20poly1305.Overhead
)

var (
	errForged        = errors.New("it is not sealed with a secret of this cluster")
	errMisdirected   = errors.New("it is for another node, or for this one before its last start")
	errReplayed      = errors.New("it came before")
	errUnknownSender = errors.New("its sender is no member, and it may have come before")
)

// A seal seals packets, and opens each of others' once.
type seal struct {
	life  uint64
	count atomic.Uint64
	keys  atomic.Pointer[[]packetKey] // in the order of the secrets; at least one

	windows windows
}

// A packetKey seals and opens packets under one secret.
type packetKey struct {
	id   KeyID
	aead cipher.AEAD
}

// A receiver is the process that a packet is for.
type receiver struct {
	life uint64  // 0: not known
	keys []KeyID // the secrets that it holds
}

// newSeal draws a life. members returns the lives of all members: see windows.
func newSeal(keys []Keys, members func() map[uint64]bool) (*seal, error) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	s := &seal{life: max(binary.BigEndian.Uint64(b[:]), 1), windows: windows{members: members, lives: make(map[uint64]*window)}}
	s.count.Store(uint64(time.Since(processStart))) // far beyond what a seal before this one has counted to
	_, err := s.setKeys(keys)
	return s, err
}

// processStart is where the counts of this process begin. One that leaves its cluster and joins
// one again, since a config was refused, has the same life there.
var processStart = time.Now()

// setKeys replaces the keys, and reports whether they differ from those before.
func (s *seal) setKeys(keys []Keys) (changed bool, err error) {
	all := make([]packetKey, len(keys))
	for i, k := range keys {
		all[i].id = k.ID
		if all[i].aead, err = chacha20poly1305.NewX(k.packets); err != nil {
			return false, fmt.Errorf("loading gossip key %d of %d: %w", i+1, len(keys), err)
		}
	}
	was := s.keys.Swap(&all)
	return was == nil || !slices.EqualFunc(*was, all, func(a, b packetKey) bool { return a.id == b.id }), nil
}

// ids returns which secrets this node holds.
func (s *seal) ids() []KeyID {
	var ids []KeyID
	for _, k := range *s.keys.Load() {
		ids = append(ids, k.id)
	}
	return ids
}

// keyFor returns the key for a receiver's packets: the first of this node's own
// that the receiver holds. A member shares a secret with this node, or it could not
// have joined; if its meta names none that is still here, the first is chosen, which
// all members hold when the rotation is over.
func (s *seal) keyFor(to receiver) packetKey {
	own := *s.keys.Load()
	return own[max(0, slices.IndexFunc(own, func(k packetKey) bool { return slices.Contains(to.keys, k.id) }))]
}

// seal returns a packet for a receiver.
func (s *seal) seal(to receiver, packet []byte) []byte {
	sealed := make([]byte, sealedHead+sealedNonce, sealBytes+len(packet))
	binary.BigEndian.PutUint64(sealed, to.life)
	binary.BigEndian.PutUint64(sealed[8:], s.life)
	binary.BigEndian.PutUint64(sealed[16:], s.count.Add(1))
	head, nonce := sealed[:sealedHead], sealed[sealedHead:]
	_, _ = rand.Read(nonce) // never fails
	return s.keyFor(to).aead.Seal(sealed, nonce, packet, head)
}

// senderOf returns the life of the sender of a sealed packet.
func senderOf(sealed []byte) uint64 { return binary.BigEndian.Uint64(sealed[8:]) }

// open returns the packet, the first time. It fails if the packet is not sealed
// with one of this node's secrets, for this process, or has come before.
func (s *seal) open(sealed []byte) ([]byte, error) {
	if len(sealed) < sealBytes {
		return nil, errForged
	}
	head, nonce, sealed := sealed[:sealedHead], sealed[sealedHead:sealedHead+sealedNonce], sealed[sealedHead+sealedNonce:]
	packet, err := []byte(nil), errForged
	for _, key := range *s.keys.Load() {
		// Not in place: a key that does not fit would destroy it for the next.
		if packet, err = key.aead.Open(nil, nonce, sealed, head); err == nil {
			break
		}
	}
	switch {
	case err != nil:
		return nil, errForged
	case binary.BigEndian.Uint64(head) != s.life:
		return nil, errMisdirected
	}
	if err := s.windows.take(binary.BigEndian.Uint64(head[8:]), binary.BigEndian.Uint64(head[16:])); err != nil {
		return nil, err
	}
	return packet, nil
}
