package express

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// What makes a body worth a file.
const (
	leastFile   = 128 << 10   // bytes: a smaller body is copied as fast
	leastSent   = 8           // times in a window: to make a file costs some copies
	window      = time.Second // in which sendings are counted
	mostCounted = 512         // bodies without a file whose sendings are counted
	mostFiles   = 256         // each takes a descriptor
)

// Files are second copies of bodies that clients ask for all the time: each in a sealed file
// in memory (memfd_create(2)), whose pages the kernel sends as they are (sendfile(2)), where it
// copies those of the process. A file that is not sent for a second is given up. The methods may be called at the same time.
type Files struct {
	memory Memory
	limit  int64 // bytes of all files

	mu       sync.Mutex // guards below
	kept     map[bodyID]*file
	open     int   // those that are not kept any more, but still sent, among them
	taken    int64 // bytes of them
	counted  [mostCounted]countedBody
	counting bool // a window is under way
}

// A bodyID tells a body apart: it stands for the same bytes always.
type bodyID struct {
	key        store.Key
	generation store.Generation
}

// A countedBody is one without a file.
type countedBody struct {
	id   bodyID
	sent int // in this window
}

// A file is a copy of a body. It is closed when it is neither kept nor sent.
type file struct {
	files        *Files
	fd           int
	size         int64
	users        int // responses that are sent from it, and one more while it is kept
	sent, before int // how often, in this window and in the one before
}

// Memory is what files are counted in.
type Memory interface {
	TakeFor(n int64) bool // false: there is no room for so many bytes
	Give(n int64)
}

// NewFiles returns Files of at most limit bytes.
func NewFiles(memory Memory, limit int64) *Files {
	return &Files{memory: memory, limit: limit, kept: make(map[bodyID]*file)}
}

// Taken returns how many bytes all files have.
func (f *Files) Taken() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.taken
}

// get returns the file of a body, until it is released, or nil if the body has none.
func (f *Files) get(id bodyID, body []byte) *file {
	has, room := f.find(id, int64(len(body)))
	if !room {
		return has
	}
	fd, err := newFile(body)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil { // as without a free descriptor: the body is sent from where it lies
		f.give(int64(len(body)))
		return nil
	}
	if other := f.kept[id]; other != nil {
		f.drop(id, other)
	}
	made := &file{files: f, fd: fd, size: int64(len(body)), users: 2, sent: leastSent}
	f.kept[id] = made
	return made
}

// find counts a sending of a body. It returns the body's file, or reports that there is room
// for one, which is taken.
func (f *Files) find(id bodyID, size int64) (has *file, room bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.counting {
		f.counting = true
		guard.AfterFunc(window, f.countAnew)
	}
	if has = f.kept[id]; has != nil && has.size == size { // or it came from a node that has sent less
		has.sent++
		has.users++
		return has, false
	}
	has = nil
	c := &f.counted[binary.LittleEndian.Uint16(id.key[:])%mostCounted]
	if c.id != id {
		*c = countedBody{id: id}
	}
	if c.sent++; c.sent < leastSent || !f.takeRoom(size, c.sent) {
		return nil, false
	}
	c.sent = 0
	return nil, true
}

// takeRoom takes the bytes and the descriptor of a file for a body that was sent so often in
// this window. The file that is wanted least makes room for one that is wanted twice as much, so
// that bodies which are wanted alike do not take turns.
func (f *Files) takeRoom(size int64, sent int) bool {
	if size > f.limit {
		return false
	}
	if f.taken+size > f.limit || f.open >= mostFiles {
		f.dropLeast(sent / 2)
	}
	if f.taken+size > f.limit || f.open >= mostFiles || !f.memory.TakeFor(size) {
		return false
	}
	f.taken += size
	f.open++
	return true
}

// dropLeast gives up the file that is wanted least, if it was sent no more than so often in a
// window. One that is being sent makes no room.
func (f *Files) dropLeast(sent int) {
	var id bodyID
	var least *file
	for other, one := range f.kept {
		if one.users == 1 && max(one.sent, one.before) <= sent {
			id, least, sent = other, one, max(one.sent, one.before)
		}
	}
	if least != nil {
		f.drop(id, least)
	}
}

// countAnew begins a window, if there are files, or are about to be.
func (f *Files) countAnew() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, one := range f.kept {
		if one.before, one.sent = one.sent, 0; one.before == 0 && one.users == 1 { // or its next client makes a second copy
			f.drop(id, one)
		}
	}
	f.counted = [mostCounted]countedBody{}
	if f.counting = f.open > 0; f.counting {
		guard.AfterFunc(window, f.countAnew)
	}
}

// drop keeps a file no more.
func (f *Files) drop(id bodyID, one *file) {
	delete(f.kept, id)
	f.leave(one)
}

// leave ends one use of a file.
func (f *Files) leave(one *file) {
	if one.users--; one.users == 0 {
		closeFile(one.fd)
		f.give(one.size)
	}
}

func (f *Files) give(size int64) {
	f.taken -= size
	f.open--
	f.memory.Give(size)
}

// release ends the use of a file that get has returned; nil is none.
func (one *file) release() {
	if one == nil {
		return
	}
	one.files.mu.Lock()
	defer one.files.mu.Unlock()
	one.files.leave(one)
}
