package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"

	"github.com/golang/groupcache"
	pb "github.com/golang/groupcache/groupcachepb"
)

// errNoBody is the Getter's answer when no finished body is at hand.
var errNoBody = errors.New("store: body is not here")

// bodies is the golang/groupcache side of a store. A Group never forgets or
// changes a value on request, cannot be made twice under one name and cannot
// be removed, so:
//
//   - a value's key is cache key + generation: what it means never changes;
//   - a body enters the Group only when it is finished. It is put into
//     arrivals, the Group is asked for it, and takes it from there: as a main
//     value through the Getter, or as a hot one through a ProtoGetter;
//   - the Getter never fetches, never blocks and never panics, so that the
//     Group's singleflight has nothing to wait for;
//   - a Group whose store is closed is kept for the next store of its size.
type bodies struct {
	group *groupcache.Group

	mu       sync.RWMutex // guards below
	arrivals map[string]arrival
}

type arrival struct {
	body []byte
	hot  bool // this node is not the owner: a hot copy at best
}

// PickPeer is asked by the Group for every value that it doesn't have. The
// ring is not consulted: whoever puts a body in has decided which kind it is.
func (b *bodies) PickPeer(key string) (groupcache.ProtoGetter, bool) {
	b.mu.RLock()
	a, ok := b.arrivals[key]
	b.mu.RUnlock()
	return hotBody(a.body), ok && a.hot
}

// hotOneIn is how many bodies from other nodes the Group gets for each that it
// keeps in its hot cache.
const hotOneIn = 10

// hotBody hands a body that came from its owner to the Group, which may keep it in
// its hot cache.
type hotBody []byte

func (h hotBody) Get(_ context.Context, _ *pb.GetRequest, out *pb.GetResponse) error {
	out.Value = h
	return nil
}

func (b *bodies) get(_ context.Context, key string, dest groupcache.Sink) error {
	b.mu.RLock()
	a, ok := b.arrivals[key]
	b.mu.RUnlock()
	if !ok {
		return errNoBody
	}
	// As a string, because SetBytes would copy it. Nobody ever changes it.
	return dest.SetString(unsafe.String(unsafe.SliceData(a.body), len(a.body)))
}

// lookup returns the body's bytes, which must not be changed.
func (b *bodies) lookup(key string) ([]byte, error) {
	l := lookups.Get().(*lookup)
	defer l.release()
	if err := b.group.Get(context.Background(), key, l.sink); err != nil {
		return nil, err
	}
	_, err := l.view.WriteTo(l)
	return l.bytes, err
}

// A lookup is what it takes to get at the slice behind a ByteView without
// copying it. The Group keeps nothing of it, so it can be used again.
type lookup struct {
	view  groupcache.ByteView
	sink  groupcache.Sink // of view
	bytes []byte
}

var lookups = sync.Pool{New: func() any {
	l := new(lookup)
	l.sink = groupcache.ByteViewSink(&l.view)
	return l
}}

// release keeps no body alive.
func (l *lookup) release() {
	l.view, l.bytes = groupcache.ByteView{}, nil
	lookups.Put(l)
}

// Write is called by ByteView.WriteTo, with all there is.
func (l *lookup) Write(p []byte) (int, error) {
	l.bytes = p
	return len(p), nil
}

// WriteString is Write for a body that came through the Getter.
func (l *lookup) WriteString(s string) (int, error) {
	return l.Write(unsafe.Slice(unsafe.StringData(s), len(s)))
}

func (b *bodies) put(key string, body []byte, hot bool) {
	b.mu.Lock()
	b.arrivals[key] = arrival{body, hot}
	b.mu.Unlock()
	// The arrival rules out errNoBody, unless this look joins one that was under
	// way before.
	for range 3 {
		if _, err := b.lookup(key); err == nil {
			break
		}
	}
	b.mu.Lock()
	delete(b.arrivals, key)
	b.mu.Unlock()
}

func groupKey(k Key, g Generation) string {
	var b [len(k) + 8]byte
	copy(b[:], k[:])
	binary.BigEndian.PutUint64(b[len(k):], uint64(g))
	return string(b[:])
}

var (
	registerPicker sync.Once

	groupsMu sync.Mutex
	groups   = map[string]*bodies{}  // by Group name: what the process-wide picker answers from
	idle     = map[int64][]*bodies{} // closed ones, by size
)

// openBodies returns a Group of the given size. golang/groupcache has one
// picker for the process and asks it once per Group.
func openBodies(size int64) *bodies {
	registerPicker.Do(func() {
		groupcache.RegisterPerGroupPeerPicker(func(name string) groupcache.PeerPicker {
			groupsMu.Lock()
			defer groupsMu.Unlock()
			if b, ok := groups[name]; ok {
				return b
			}
			return groupcache.NoPeers{} // a Group of somebody else in this process
		})
	})
	groupsMu.Lock()
	defer groupsMu.Unlock()
	if free := idle[size]; len(free) > 0 {
		idle[size] = free[:len(free)-1]
		return free[len(free)-1]
	}
	b := &bodies{arrivals: make(map[string]arrival)}
	name := fmt.Sprintf("caddy-groupcache-%d", len(groups))
	groups[name] = b
	b.group = groupcache.NewGroup(name, size, groupcache.GetterFunc(b.get))
	return b
}

func (b *bodies) close(size int64) {
	groupsMu.Lock()
	defer groupsMu.Unlock()
	idle[size] = append(idle[size], b)
}

var _ io.StringWriter = (*lookup)(nil)
