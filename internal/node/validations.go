package node

import (
	"context"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A stored response that states no-cache, or no lifetime, needs the upstream's word
// for each request that it answers. A 304 answers the cookies of the request that it
// was sent for, so no other request waits for it, with one exception: requests that the
// upstream cannot tell apart share a validation if all of them had come before it
// was sent (RFC 9111 §4.3: the one conditional request is each of theirs). So the
// first request asks at once, and while it is under way, the next one gathers
// others for a tenth of the time that the upstream takes, and then asks for all.

// maxGather is the longest time that a request gathers others.
const maxGather = 20 * time.Millisecond

// A Validation is a conditional request, and those that wait for its result. The one that
// leads it must end it.
type Validation struct {
	all       *validations
	id        validationID
	end       sync.Once
	sender    *Sender       // the others have the same
	over      chan struct{} // closed at the end
	confirmed store.Generation
}

// A validationID is what indistinguishable requests have in common.
type validationID struct {
	flightID
	sender uint64 // a hash
}

// validations are those under way on this node. The zero value has none.
type validations struct {
	mu    sync.Mutex // guards turns
	turns map[validationID]*turns
}

// turns are the validations under way for one validationID.
type turns struct {
	count int         // of those under way
	next  *Validation // the one that gathers; nil: none
}

// Wait returns the body that the upstream has confirmed; 0: none.
func (v *Validation) Wait(ctx context.Context, deadline time.Duration) store.Generation {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	select {
	case <-v.over:
		return v.confirmed
	case <-ctx.Done():
		return 0
	}
}

// Enter returns the validation that a request leads, or waits for.
func (t *validations) Enter(ctx context.Context, q *Lookup, from *Sender, took time.Duration) (v *Validation, leads bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turns == nil {
		t.turns = make(map[validationID]*turns)
	}
	v = &Validation{all: t, id: validationID{q.id(), from.hash()}, sender: from, over: make(chan struct{})}
	now := t.turns[v.id]
	switch {
	case now == nil:
		t.turns[v.id] = &turns{count: 1}
		return v, true
	case now.next == nil:
		now.count++
		now.next = v
		t.mu.Unlock()
		pause(ctx, min(took/10, maxGather))
		t.mu.Lock()
		now.next = nil // it is about to be sent: too late for others
		return v, true
	case now.next.sender.equals(from):
		return now.next, false
	}
	now.count++
	return v, true
}

// End tells the requests that wait which body the upstream has confirmed; 0: none. Only the
// first call counts, and none for a request that leads no validation (nil).
func (v *Validation) End(confirmed store.Generation) {
	if v == nil {
		return
	}
	v.end.Do(func() {
		v.confirmed = confirmed
		close(v.over)
		v.all.mu.Lock()
		defer v.all.mu.Unlock()
		now := v.all.turns[v.id]
		if now.count--; now.count == 0 {
			delete(v.all.turns, v.id)
		}
	})
}

var senderSeed = maphash.MakeSeed()

// A Sender is all that the upstream can know of the sender of a request. Requests
// for one cache key whose senders are equal are one to it.
type Sender struct {
	Host, Target, Proto string
	Address             string // of the client, which proxies tell the upstream
	Tls                 bool
	Header              http.Header // that is not changed
}

func (s *Sender) hash() uint64 {
	sum := maphash.String(senderSeed, s.Host) + maphash.String(senderSeed, s.Target) + maphash.String(senderSeed, s.Address)
	var field maphash.Hash
	field.SetSeed(senderSeed)
	for name, values := range s.Header {
		field.Reset()
		_, _ = field.WriteString(name) // never fails
		for _, value := range values {
			_ = field.WriteByte(0)
			_, _ = field.WriteString(value)
		}
		sum += field.Sum64() // in whatever order the map has them
	}
	return sum
}

func (s *Sender) equals(o *Sender) bool {
	return s.Host == o.Host && s.Target == o.Target && s.Proto == o.Proto && s.Tls == o.Tls && s.Address == o.Address &&
		maps.EqualFunc(s.Header, o.Header, slices.Equal)
}
