package node

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Large bodies: the first chunk goes the way of every body, with its entry. The
// others are handed to the nodes that own them as they come in, and fetched
// from there when a client gets to them. So no node holds more of a body than a
// chunk or two, however large it is.

// chunkTimeout is how long a node waits until another has given or taken a
// chunk. Until that begins it waits for peer_timeout, as for any answer.
const chunkTimeout = 5 * time.Second

// ErrChunkGone says that a chunk is neither here nor with its owner.
var ErrChunkGone = errors.New("a part of the stored body is not there any more")

// Chunks gets and stores the chunks of large bodies, wherever they are. Requests that
// want the same chunk at the same time share one transfer.
type Chunks struct {
	node *Node

	mu        sync.Mutex // guards below
	transfers map[peer.ChunkID]*chunkTransfer
}

type chunkTransfer struct {
	done  chan struct{} // closed when the rest is set
	chunk []byte
	err   error

	followers int // requests that wait for done; guarded by Chunks.mu
}

// Followed reports whether a request waits for the transfer of a chunk that another
// one began.
func (c *Chunks) Followed(id peer.ChunkID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.transfers[id]
	return one != nil && one.followers > 0
}

// follow counts a follower of a chunk until leave.
func (c *Chunks) follow(one *chunkTransfer) (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	one.followers++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		one.followers--
	}
}

// owner returns the node that owns a chunk.
func (c *Chunks) owner(id peer.ChunkID) (peer.Node, bool) {
	return c.node.Owner(store.ChunkKey(id.Key, id.Index))
}

// Get returns a chunk of so many bytes: from this node's memory, from its
// owner, which may be silent for so long, or, as a last resort, from wherever mend gets
// it (nil: from nowhere).
func (c *Chunks) Get(ctx context.Context, id peer.ChunkID, length int64, silence time.Duration, mend func() ([]byte, error)) ([]byte, error) {
	if b := c.here(id, length); b != nil {
		return b, nil
	}
	c.mu.Lock()
	b, follows := c.transfers[id]
	if !follows {
		b = &chunkTransfer{done: make(chan struct{})}
		if c.transfers == nil {
			c.transfers = make(map[peer.ChunkID]*chunkTransfer)
		}
		c.transfers[id] = b
	}
	c.mu.Unlock()
	if !follows {
		b.err = ErrChunkGone // if what mend runs panics
		defer func() {
			c.mu.Lock()
			delete(c.transfers, id)
			c.mu.Unlock()
			close(b.done)
		}()
		b.chunk, b.err = c.obtain(id, length, silence, mend)
		return b.chunk, b.err
	}
	defer c.follow(b)()
	select {
	case <-b.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if b.err != nil && mend != nil {
		return mend() // what the other could not get, for its own reasons
	}
	return b.chunk, b.err
}

// Missing returns which of the further chunks of a body, from first to last, no node has that
// should: the nodes that own them, or did before, are asked all at once. A chunk of a node that
// doesn't answer is missing. Of very many chunks, those that come first are looked for.
func (c *Chunks) Missing(id peer.ChunkID, first, last int, timeout time.Duration) (missing []int) {
	held := make(map[peer.Node][]int) // the chunks that other nodes may have
	for i := max(first, 1); i <= min(last, first+peer.MaxAskedChunks-1); i++ {
		id.Index = i
		if _, err := c.node.Store.Chunk(id.Key, id.Generation, i); err == nil {
			continue
		}
		missing = append(missing, i)
		if owner, self := c.owner(id); !self {
			held[owner] = append(held[owner], i)
		}
		for _, from := range c.node.Previous.Of(store.ChunkKey(id.Key, i), time.Now()) {
			held[from] = append(held[from], i)
		}
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, peer.ErrTimeout)
	defer cancel()
	var mu sync.Mutex // guards missing
	var all sync.WaitGroup
	for from, chunks := range held {
		guard.GoWait(&all, func() {
			start := time.Now()
			there, err := c.node.Client.Chunks(ctx, from, id, chunks)
			c.node.observe(operationChunks, err, time.Since(start))
			mu.Lock()
			defer mu.Unlock()
			missing = slices.DeleteFunc(missing, func(i int) bool { return slices.Contains(there, i) })
		})
	}
	all.Wait()
	return missing
}

// here returns a chunk of so many bytes from this node's memory, or nil. One of another length
// is of no use: other nodes put chunks here before anybody knows how long the body is.
func (c *Chunks) here(id peer.ChunkID, length int64) []byte {
	b, err := c.node.Store.Chunk(id.Key, id.Generation, id.Index)
	if err != nil || int64(len(b)) != length {
		return nil
	}
	return b
}

// First returns the first chunk of a body, from this node's memory.
func (c *Chunks) First(id peer.ChunkID) ([]byte, error) {
	chunk, err := c.node.Store.Chunk(id.Key, id.Generation, id.Index)
	if err != nil {
		return nil, ErrChunkGone
	}
	return chunk, nil
}

// obtain does not end with the request that it is for: others wait too.
func (c *Chunks) obtain(id peer.ChunkID, length int64, silence time.Duration, mend func() ([]byte, error)) ([]byte, error) {
	// Another transfer may have ended between the look and the win.
	if b := c.here(id, length); b != nil {
		return b, nil
	}
	err := ErrChunkGone
	if owner, self := c.owner(id); !self {
		var b []byte
		if b, err = c.request(owner, id, length, peer.Wait{Begin: cmp.Or(silence, DefaultPeerTimeout), All: chunkTimeout}); err == nil {
			c.node.Store.PutChunk(id.Key, id.Generation, id.Index, b, false)
			return b, nil
		}
		if errors.Is(err, peer.ErrMissing) {
			err = ErrChunkGone
		}
	}
	if errors.Is(err, ErrChunkGone) {
		if b := c.node.Previous.chunk(id, length, silence); b != nil {
			return b, nil
		}
	}
	if mend == nil {
		return nil, err
	}
	return mend()
}

func (c *Chunks) request(from peer.Node, id peer.ChunkID, length int64, wait peer.Wait) ([]byte, error) {
	release, ok := c.node.Budget.Take(length)
	if !ok {
		return nil, fill.ErrMemory
	}
	defer release()
	var b []byte
	err := ErrChunkGone
	for range 2 { // a connection may break for reasons that are over at once
		start := time.Now()
		b, err = c.node.Client.Chunk(context.Background(), from, id, length, wait)
		c.node.observe(operationChunk, err, time.Since(start))
		if err == nil || errors.Is(err, peer.ErrMissing) || errors.Is(err, peer.ErrDown) || errors.Is(err, peer.ErrTimeout) || errors.Is(err, peer.ErrGivenUp) {
			break
		}
	}
	return b, err
}

// Store gives a chunk to its owner, or keeps it here if that one can't take
// it, or is silent for so long.
func (c *Chunks) Store(id peer.ChunkID, chunk []byte, silence time.Duration) {
	owner, self := c.owner(id)
	if !self {
		start := time.Now()
		err := c.node.Client.PutChunk(context.Background(), owner, id, chunk, peer.Wait{Begin: cmp.Or(silence, DefaultPeerTimeout), All: chunkTimeout})
		c.node.observe(operationStore, err, time.Since(start))
		self = err != nil
	}
	c.node.Store.PutChunk(id.Key, id.Generation, id.Index, chunk, self)
}

// Settle hands over the chunks that have come in. The last one of a body may be
// shorter than the others.
func (f *Flight) Settle(q *Lookup, last bool) {
	for {
		i, chunk := f.Fill.Unsettled(last)
		if chunk == nil {
			return
		}
		if f.Generation == 0 {
			f.spread(q, store.NewGeneration())
		}
		f.node.Chunks.Store(peer.ChunkID{Key: q.Key, Generation: f.Generation, Index: i}, chunk, q.PeerTimeout)
		f.Fill.Settle(i)
	}
}

// spread says under which generation the chunks of a flight are with their
// owners. It comes before the first of them is known to be.
func (f *Flight) spread(q *Lookup, g store.Generation) {
	f.Generation = g
	key, silence := q.Key, q.PeerTimeout
	f.Fill.PutElsewhere(func(ctx context.Context, i int, offset int64) ([]byte, func(), error) {
		id := peer.ChunkID{Key: key, Generation: g, Index: i}
		return f.node.Pins.Part(id, offset, func() ([]byte, error) {
			return f.node.Chunks.Get(ctx, id, store.ChunkLength(f.Fill.Size(), i), silence, nil)
		})
	})
}

// CommitFirst stores an entry with the first chunk of its body, and returns it
// as stored, if it is.
func (f *Flight) CommitFirst(q *Lookup, d Decision, e *store.Entry, first []byte) *store.Entry {
	if d.Owner == nil {
		return cmp.Or(f.node.Store.CommitSummed(q.Namespace, q.Key, e, first), e)
	}
	d.Lease.Use()
	defer d.Lease.Close()
	body := fill.New[*store.Entry](store.ChunkSize, store.ChunkSize, nil)
	defer body.Release()
	r := body.NewReader()
	defer r.Close()
	_, _ = body.Write(first) // it is no longer than the limit
	body.Close(nil)
	ctx, cancel := context.WithTimeoutCause(context.Background(), chunkTimeout, peer.ErrTimeout)
	defer cancel()
	query := peer.NewQuery(q.Namespace.Name, q.Key, q.Header, e.Vary())
	start := time.Now()
	generation, err := f.node.Client.Publish(ctx, *d.Owner, &peer.Publication{Query: query, Ticket: d.ticket, Entry: e}, Outgoing{Follower: r})
	f.node.observe(operationPublish, err, time.Since(start))
	return cmp.Or(f.keepPublished(q, e, first, generation, err), e)
}

// Outgoing is a fill on its way to another node: the first chunk, and of the
// others only that they are stored.
type Outgoing struct {
	*Follower
	Flight *Flight
	stores bool // the other node is to store it
}

// Followed notes that the other node's followers need it too.
func (o Outgoing) Followed() {
	if o.stores && !o.Flight.Followed.Swap(true) {
		o.Flight.node.readers.Add(1) // until it is published
	}
}

// Next returns the next piece of the first chunk, or how much of the others is stored. Of one
// that is slow to come in it returns pieces too, if a request at the other node waits for them.
func (o Outgoing) Next(ctx context.Context, idle func()) ([]byte, peer.Stored, error) {
	ahead := func() bool { return o.Flight != nil && (!o.stores || o.Flight.Followed.Load()) }
	p, at, err := o.NextSettled(ctx, idle, ahead)
	if o.stores && o.Flight.Outgrown.Load() {
		switch {
		case errors.Is(err, io.EOF):
			err = peer.ErrUnkept
		case err == nil && !o.Flight.Followed.Load():
			err = Ended{rfc9111.TooLarge}
		}
	}
	if err != nil || at == 0 {
		return p, peer.Stored{}, err
	}
	stored := peer.Stored{Size: at}
	if p == nil { // else the leader may be about to say under which generation chunks are stored
		stored.Generation = o.Flight.Generation
	}
	return p, stored, nil
}

// incoming is a fill that comes from another node.
type incoming struct {
	*fill.Fill[*store.Entry]
	n      *Node
	q      *Lookup
	flight *Flight
	from   *peer.Publication // nil: it was asked for
}

// ReadFrom takes some of the first chunk.
func (in incoming) ReadFrom(r io.Reader) (int64, error) {
	in.followed()
	return in.Fill.ReadFrom(r)
}

// followed reports whether others follow a publication here, and has the publisher
// know: the rest is for them even if it becomes too large to be stored.
func (in incoming) followed() bool {
	if in.from == nil || in.Readers() == 0 {
		return false
	}
	in.from.Followed()
	return true
}

// Stored notes that further chunks are with their owners.
func (in incoming) Stored(s peer.Stored) error {
	followed := in.followed()
	switch in.flight.Generation {
	case 0:
		in.flight.spread(in.q, s.Generation)
	case s.Generation:
	default:
		return peer.ErrProtocol
	}
	err := in.Extend(s.Size)
	if followed && errors.Is(err, fill.ErrTooLarge) {
		in.Unlimit()
		err = in.Extend(s.Size)
	}
	return err
}
