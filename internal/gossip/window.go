package gossip

import "sync"

const (
	windowBits = 1024 // how far packets may overtake each other
	maxWindows = maxMembers
)

// windows record which packets of which senders have come.
//
// Each life has a window, member or not: a node's first packets may come before
// its meta. If there are too many windows, those of lives that are no member's are
// forgotten. From then on a packet of a life without a window may have come
// before, so it is taken only if that life is a member's: members' windows are
// never forgotten.
type windows struct {
	members func() map[uint64]bool // the lives of all members now

	mu        sync.Mutex // guards below; comes before the roster's
	lives     map[uint64]*window
	forgotten bool // some have been
}

// A window records which packets of one life have come.
type window struct {
	top  uint64 // the highest count
	seen [windowBits / 64]uint64
}

// take returns why a packet must not be taken, and notes that it has come.
func (ws *windows) take(from, count uint64) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.windowLocked(from)
	switch {
	case w == nil:
		return errUnknownSender
	case !w.first(count):
		return errReplayed
	}
	return nil
}

// windowLocked returns the window of a life, or nil if it may have had one.
func (ws *windows) windowLocked(from uint64) *window {
	if w := ws.lives[from]; w != nil {
		return w
	}
	if ws.forgotten || len(ws.lives) >= maxWindows {
		members := ws.members()
		if len(ws.lives) >= maxWindows {
			ws.forgetLocked(members)
		}
		if !members[from] {
			return nil
		}
	}
	w := new(window)
	ws.lives[from] = w
	return w
}

func (ws *windows) forgetLocked(members map[uint64]bool) {
	ws.forgotten = true
	for life := range ws.lives {
		if !members[life] {
			delete(ws.lives, life)
		}
	}
}

// first reports whether a packet has not come before, and notes that it has.
// A packet that is older than the window counts as one that has.
func (w *window) first(count uint64) bool {
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

func (w *window) has(count uint64) bool {
	return w.seen[count/64%uint64(len(w.seen))]&(1<<(count%64)) != 0
}

func (w *window) set(count uint64, yes bool) {
	word, bit := &w.seen[count/64%uint64(len(w.seen))], uint64(1)<<(count%64)
	if *word &^= bit; yes {
		*word |= bit
	}
}
