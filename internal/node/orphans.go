package node

import (
	"container/list"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
)

const (
	// OrphanGrace is how long a fetch goes on that no request waits for: one may
	// come for the same, as from a client that loads a page again.
	OrphanGrace = 5 * time.Second

	// MaxOrphans bounds such fetches. Each holds two connections, the one of the
	// client that is gone and one to the upstream.
	MaxOrphans = 256
)

// orphans are the fetches whose clients are gone before a header has come, and
// which no other request follows. If there are too many, the oldest ends. The zero value
// has none.
type orphans struct {
	mu  sync.Mutex // guards all, and from, next and over of each orphan
	All list.List  // of *orphan, the oldest first
}

// A sharedRequest is one to the upstream, or to the owner, that others than its client
// may wait for.
type sharedRequest interface {
	// Wanted reports whether another request waits for it, or its header has come.
	Wanted() bool
	// Abandon ends it, or reports false: a request waits for it on another node. It may
	// be called more than once, and when it is over.
	Abandon() bool
}

// An Orphan is such a request from when its client is gone. The zero value is one whose
// client is there.
type Orphan struct {
	of      *orphans
	request sharedRequest
	from    *list.Element // its place in the list; nil: it has none
	next    *time.Timer   // when it is looked at again
	over    bool
}

// ClientGone is called when the client of a request is gone. The request goes on for a
// while if it is not wanted, and as long as it is.
func (one *Orphan) ClientGone(of *orphans, request sharedRequest) {
	one.of, one.request = of, request
	var oldest *Orphan
	wanted := request.Wanted()
	of.mu.Lock()
	if !one.over {
		one.next = guard.AfterFunc(OrphanGrace, one.look)
		if !wanted {
			oldest = of.enterLocked(one)
		}
	}
	of.mu.Unlock()
	if oldest != nil && !oldest.request.Wanted() {
		oldest.request.Abandon()
	}
}

// look is called after each grace.
func (one *Orphan) look() {
	if !one.request.Wanted() && one.request.Abandon() {
		return
	}
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	one.of.leaveLocked(one)
	if !one.over {
		one.next = guard.AfterFunc(OrphanGrace, one.look)
	}
}

// enterLocked adds an orphan, and returns the one that has to go for it, or nil.
func (o *orphans) enterLocked(one *Orphan) (oldest *Orphan) {
	one.from = o.All.PushBack(one)
	if o.All.Len() > MaxOrphans {
		oldest = o.All.Front().Value.(*Orphan)
		o.leaveLocked(oldest)
	}
	return oldest
}

func (o *orphans) leaveLocked(one *Orphan) {
	if one.from != nil {
		o.All.Remove(one.from)
		one.from = nil
	}
}

// End is called when the request is over, whether its client is gone or not.
func (o *orphans) End(one *Orphan) {
	o.mu.Lock()
	defer o.mu.Unlock()
	one.over = true
	o.leaveLocked(one)
	if one.next != nil {
		one.next.Stop()
	}
}

// wanted reports whether a request waits for the holder of a lease.
func (t *flights) wanted(lease uint64) bool {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	f := t.leases[lease]
	return f != nil && f.Fill.Readers() > 0
}

// A transfer is the request to the owner that feeds a flight: on behalf of all
// its followers.
type transfer struct {
	flight *Flight
	reply  *peer.Reply
}

// Wanted reports whether a request on this node waits, or may make use of what has come.
func (t transfer) Wanted() bool {
	_, known := t.flight.Fill.Known()
	return known || t.flight.Fill.Readers() > 0
}

// Abandon ends a transfer that no request waits for.
func (t transfer) Abandon() bool {
	t.reply.Close() // with which copyFromOwner comes to nothing
	return true
}
