package caddygroupcache

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// memberlist encrypts its packets, but whoever has recorded one can send it
// again, to this node or another, today or next year. So each packet also says
// for which life of which node it is meant, and which packet of which sender
// it is, and is taken once:
//
//	to     8 bytes  the life of the receiver
//	from   8 bytes  the life of the sender
//	count  8 bytes  grows with each packet of that life
//	mac   16 bytes  HMAC-SHA256 of the above and the packet
//
// A life is a random number that a process draws at its start, and tells in
// its node meta. No clock has a part in it. Streams need none of this: TLS
// keeps them apart.
const (
	sealBytes  = 8 + 8 + 8 + macBytes
	macBytes   = 16
	windowBits = 1024 // how far packets may overtake each other
	maxWindows = maxMembers
)

var (
	errForged      = errors.New("it is not sealed with a key of this cluster")
	errMisdirected = errors.New("it is for another node, or for this one before its last start")
	errReplayed    = errors.New("it came before")
)

// A packetSeal seals packets, and opens each of others' once.
type packetSeal struct {
	life  uint64
	count atomic.Uint64
	keys  atomic.Pointer[[][]byte] // the first seals, all open

	mu      sync.Mutex // guards below
	windows map[uint64]*window
	used    uint64 // counts uses of windows
}

// A window is which packets of a life have come.
type window struct {
	top  uint64 // the highest count
	seen [windowBits / 64]uint64
	used uint64
}

func newPacketSeal() *packetSeal {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return &packetSeal{life: max(binary.BigEndian.Uint64(b[:]), 1), windows: make(map[uint64]*window)}
}

func (s *packetSeal) setKeys(keys []clusterKeys) {
	all := make([][]byte, len(keys))
	for i, k := range keys {
		all[i] = k.packets
	}
	s.keys.Store(&all)
}

func (s *packetSeal) mac(key, head, packet []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(head)
	h.Write(packet)
	return h.Sum(nil)[:macBytes]
}

// seal returns a packet for the life to.
func (s *packetSeal) seal(to uint64, packet []byte) []byte {
	sealed := make([]byte, 0, sealBytes+len(packet))
	sealed = binary.BigEndian.AppendUint64(sealed, to)
	sealed = binary.BigEndian.AppendUint64(sealed, s.life)
	sealed = binary.BigEndian.AppendUint64(sealed, s.count.Add(1))
	sealed = append(sealed, s.mac((*s.keys.Load())[0], sealed, packet)...)
	return append(sealed, packet...)
}

// open returns what was sealed, the first time.
func (s *packetSeal) open(sealed []byte) ([]byte, error) {
	if len(sealed) < sealBytes {
		return nil, errForged
	}
	head, mac, packet := sealed[:sealBytes-macBytes], sealed[sealBytes-macBytes:sealBytes], sealed[sealBytes:]
	genuine := false
	for _, key := range *s.keys.Load() {
		genuine = genuine || hmac.Equal(mac, s.mac(key, head, packet))
	}
	switch {
	case !genuine:
		return nil, errForged
	case binary.BigEndian.Uint64(head) != s.life:
		return nil, errMisdirected
	case !s.first(binary.BigEndian.Uint64(head[8:]), binary.BigEndian.Uint64(head[16:])):
		return nil, errReplayed
	}
	return packet, nil
}

// first reports whether a packet has not come before, and notes that it has.
// What is older than the window is taken for a packet that has.
func (s *packetSeal) first(from, count uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.windowLocked(from)
	s.used++
	w.used = s.used
	if count > w.top {
		if count-w.top >= windowBits {
			w.seen = [windowBits / 64]uint64{}
		} else {
			for c := w.top + 1; c < count; c++ {
				w.set(c, false)
			}
		}
		w.top = count
		w.set(count, true)
		return true
	}
	if w.top-count >= windowBits || w.has(count) {
		return false
	}
	w.set(count, true)
	return true
}

// windowLocked returns the window of a life. Only who knows a key gets one; if
// they are too many, the one goes that was not used for longest.
func (s *packetSeal) windowLocked(from uint64) *window {
	if w := s.windows[from]; w != nil {
		return w
	}
	if len(s.windows) >= maxWindows {
		var oldest uint64
		for life, w := range s.windows {
			if o := s.windows[oldest]; o == nil || w.used < o.used {
				oldest = life
			}
		}
		delete(s.windows, oldest)
	}
	w := new(window)
	s.windows[from] = w
	return w
}

func (w *window) has(count uint64) bool {
	return w.seen[count/64%uint64(len(w.seen))]&(1<<(count%64)) != 0
}

func (w *window) set(count uint64, yes bool) {
	word, bit := &w.seen[count/64%uint64(len(w.seen))], uint64(1)<<(count%64)
	if *word &^= bit; yes {
		*word |= bit
	}
}

// chooseKey returns the index of the key to seal with: the first that all
// other members hold. Without others it is the one whose turn it is, since who
// might be there holds one of them; if none is common, the first, which all
// will hold when the rotation is over.
func chooseKey(own []clusterKeys, others [][]keyID, turn int) int {
	if len(others) == 0 {
		return turn % len(own)
	}
	for i, k := range own {
		common := true
		for _, ids := range others {
			common = common && slices.Contains(ids, k.id)
		}
		if common {
			return i
		}
	}
	return 0
}

func gossipKeys(keys []clusterKeys) [][]byte {
	all := make([][]byte, len(keys))
	for i, k := range keys {
		all[i] = k.gossip
	}
	return all
}
