package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A node may keep what it has stored over a restart. When it stops it writes a
// file; the process that starts next takes the file away when its config runs, so
// that it counts once, and stores what is in it while it already serves. If that
// stops before it has read all, it writes the rest too.
//
// A purge that happened in between must apply. A node that is no part of a cluster
// can't have missed any. One that is tells the others, before it writes, a purge
// that names nothing: a marker. It reads the file only if one of them still
// remembers the marker, and so all purges since; these are then compared with what
// is in the file. docs/design/purging.md tells why that is enough.

const (
	// saveFor bounds how long a node that stops writes, and restoreFor how long one
	// that has started reads.
	saveFor    = 3 * time.Second
	restoreFor = 10 * time.Second

	// vouchFor is how long after its start a node looks for one that remembers its
	// marker, and retryVouch how often.
	vouchFor   = time.Minute
	RetryVouch = 200 * time.Millisecond

	// markerTimeout is how long others may take to hear of a marker.
	markerTimeout = time.Second
)

// A restoreResult is what became of something that was written before a restart.
type restoreResult uint8

const (
	restored           restoreResult = iota // entries and chunks that are stored again
	restoredOutdated                        // entries that were purged or replaced meanwhile
	restoredUnverified                      // files, because no node can tell what was purged meanwhile
	restoredUnreadable                      // files and records
	restoreResultCount
)

var RestoreResultNames = [restoreResultCount]string{"restored", "outdated", "unverified", "unreadable"}

// Persistence keeps what a node has stored over a restart.
type Persistence struct {
	node    *Node
	Dir     string
	Began   atomic.Bool // the last process's file is taken; from here on there is something to write
	Results [restoreResultCount]atomic.Int64

	// Keys authenticate what is kept: the first one signs, all are accepted. Without
	// any, damage is found, and nothing else. It may be nil.
	Keys func() [][]byte

	lock *os.File // held from Prepare to Release
	kept *kept    // by the process before; nil: nothing, or all of it is read

	mu       sync.Mutex // guards below
	saved    bool       // the file for the next process is there, if any is
	outdated bool       // a purge has come since it was begun that no other node remembers
}

// kept is a file that is being read.
type kept struct {
	file  *os.File
	stop  context.CancelFunc
	ctx   context.Context
	done  chan struct{} // closed when it is not read any more
	since time.Time     // when it was written, by this process's clock

	// What is left of it when it was stopped; set before done is closed.
	in     *savedReader // nil: nothing was read yet
	missed missed
	over   bool // all is read, or not to be read
}

// NewPersistence returns what keeps a node's entries in a directory of its own.
func NewPersistence(n *Node, dir string) *Persistence { return &Persistence{node: n, Dir: dir} }

// Prepare makes sure that the directory can be written to and is no other process's,
// and removes what processes have left there that ended amid it.
func (p *Persistence) Prepare() error {
	if p.lock != nil {
		return nil
	}
	err := os.MkdirAll(p.Dir, 0o700)
	if err == nil {
		p.lock, err = takeLock(filepath.Join(p.Dir, lockName), p.node.Name)
	}
	var probe *os.File
	if err == nil {
		probe, err = os.CreateTemp(p.Dir, SavedName+".*")
	}
	if err != nil {
		p.Release()
		return fmt.Errorf("persist: %w: give it a directory of this process's own that Caddy may write to", err)
	}
	_ = probe.Close()
	left, _ := filepath.Glob(filepath.Join(p.Dir, SavedName+".*")) // the pattern is good
	for _, name := range left {
		_ = os.Remove(name) // the next process tries again
	}
	return nil
}

// Release lets another process have the directory.
func (p *Persistence) Release() {
	if p.lock != nil {
		_ = p.lock.Close()
		p.lock = nil
	}
}

// Begin takes over what the process before has kept, once. It is called when the
// config runs: a process that ends before that leaves the file as it is.
func (p *Persistence) Begin(clustered bool) error {
	if p.Began.Swap(true) {
		return nil
	}
	file, err := p.Take()
	if file != nil {
		guard.Go(func() { p.Restore(file, clustered) })
	}
	return err
}

// Take takes away the file of the process before: what happens to this one, it is not
// read again. It is nil if there is none.
func (p *Persistence) Take() (*kept, error) {
	name, taken := filepath.Join(p.Dir, SavedName), filepath.Join(p.Dir, SavedName+".taken")
	file, err := openOwn(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		if err = os.Rename(name, taken); err != nil {
			_ = file.Close()
		}
	}
	if err != nil {
		p.Results[restoredUnreadable].Add(1)
		return nil, fmt.Errorf("persist: the file of the last process is not read: %w", err)
	}
	k := &kept{file: file, done: make(chan struct{})}
	k.ctx, k.stop = context.WithCancel(p.node.Over)
	p.kept = k
	return k, nil
}

// taken is the name of the file as long as it is read. The next process removes it
// if this one ends without having done so.
func (p *Persistence) taken() string { return filepath.Join(p.Dir, SavedName+".taken") }

// Restore stores what the process before has written.
func (p *Persistence) Restore(k *kept, clustered bool) {
	defer close(k.done)
	k.over = true // also if something panics
	defer func() {
		if k.over {
			_ = errors.Join(k.file.Close(), os.Remove(p.taken()))
		}
	}()
	in, head, err := NewSavedReader(k.file, p.keys())
	if err != nil {
		p.Results[restoredUnreadable].Add(1)
		return
	}
	away := time.Now().Round(0).Sub(head.Written) // by the wall clock: nothing else goes on over a restart
	if away < 0 || clustered != (head.Marker != 0) {
		p.Results[restoredUnverified].Add(1)
		return
	}
	k.since = time.Now().Add(-away)
	ctx, cancel := context.WithTimeout(k.ctx, vouchFor)
	defer cancel()
	ok := !clustered || p.Vouched(ctx, head.Marker)
	if ok {
		k.missed, ok = p.missedSince(ctx, k.since, head.Known)
	}
	if !ok {
		if k.over = k.ctx.Err() == nil; k.over {
			p.Results[restoredUnverified].Add(1)
		}
		return
	}
	k.in = in
	until := time.Now().Add(restoreFor)
	room := p.node.Store.BodyLimit() // what is beyond it would throw out what came first, and is asked for most
	k.over = p.readKept(k, func(saved peer.Given) (restoreResult, bool) {
		if room -= int64(len(saved.Body)); room < 0 || time.Now().After(until) {
			return 0, false
		}
		return p.takeBack(saved, k.missed), true
	})
}

// readKept hands on what a file holds until its end, or until the function wants no
// more. It reports false if it was stopped before.
func (p *Persistence) readKept(k *kept, each func(peer.Given) (result restoreResult, more bool)) bool {
	for k.ctx.Err() == nil {
		record, err := k.in.Next()
		if err == io.EOF {
			return true
		}
		result, more := restoredUnreadable, true
		if err == nil {
			if saved, err := peer.DecodeSaved(record, k.since); err == nil {
				if result, more = each(saved); !more {
					return true
				}
			}
		}
		p.Results[result].Add(1)
		if err != nil && !errors.Is(err, ErrUnreadable) {
			return true
		}
	}
	return false
}

// keys returns what authenticates the file.
func (p *Persistence) keys() [][]byte {
	if p.Keys == nil {
		return nil
	}
	return p.Keys()
}

// Vouched returns true once the others have told which purges they remember, and
// the marker is among those of one of them.
func (p *Persistence) Vouched(ctx context.Context, marker store.PurgeID) bool {
	for {
		vouched := false
		for _, from := range p.node.Others() {
			purges, dropped, err := p.node.Client.Purges(ctx, from, catchUpFor)
			if err != nil {
				continue
			}
			p.node.Purger.Learn(purges, dropped)
			vouched = vouched || slices.ContainsFunc(purges, func(one store.Purge) bool { return one.ID == marker })
		}
		if vouched || !pause(ctx, RetryVouch) {
			return vouched
		}
	}
}

// missed are the purges that happened after something was written.
type missed struct {
	purges *store.Purged
	before time.Time // when they were looked up: later ones compare themselves
}

// missedSince returns the purges that this process has heard of and the one before
// had not. It reports false if some of them may be forgotten already.
func (p *Persistence) missedSince(ctx context.Context, since time.Time, known []store.PurgeID) (m missed, ok bool) {
	for {
		m.before = time.Now()
		// One that is being applied may have its time already, and not be listed.
		recent, few := p.node.Purger.Log.Recent(m.before)
		if few && !slices.ContainsFunc(recent, func(id store.PurgeID) bool { return !p.node.Purger.Log.Knows(id) }) {
			break
		}
		if !pause(ctx, RetryVouch) {
			return m, false
		}
	}
	all, dropped := p.node.Purger.Log.All()
	if dropped.After(since.Add(-store.PurgeGrace)) {
		return m, false
	}
	heard := make(map[store.PurgeID]bool, len(known))
	for _, id := range known {
		heard[id] = true
	}
	m.purges = store.NewPurged(slices.DeleteFunc(all, func(one store.Purge) bool { return heard[one.ID] }))
	return m, true
}

// current returns the namespace of an entry that was saved, unless it was purged since.
func (p *Persistence) current(saved peer.Given, m missed) (*store.Namespace, bool) {
	e := saved.Entry
	if m.purges.Has(saved.Query.Group, saved.ID.Key, e) { // softly too: rather too much
		return nil, false
	}
	e.Checked, e.Compared = m.before, true
	space := p.node.Store.NamespaceOfPeer(saved.Query.Group)
	return space, space != nil
}

// takeBack stores something again, unless it was purged.
func (p *Persistence) takeBack(saved peer.Given, m missed) restoreResult {
	if saved.Entry == nil {
		p.node.Store.PutChunk(saved.ID.Key, saved.ID.Generation, saved.ID.Index, saved.Body, true)
		return restored
	}
	space, ok := p.current(saved, m)
	if !ok || p.node.Store.PutMoved(space, saved.ID.Key, saved.Entry, saved.Body) == nil {
		return restoredOutdated
	}
	return restored
}

// errOutdated says why nothing is left for the next process.
var errOutdated = errors.New("persist: something was purged while it was written")

// Save writes what is stored, for as long as it may, and what is left of the file of
// the process before. A node that is part of a cluster leaves a marker with the others.
// What is purged from here on, and no other node remembers, makes the file one that no
// process reads: what it holds may have been looked at before.
func (p *Persistence) Save(clustered bool) error {
	p.node.Purger.outdates.set(p.outdate)
	err := p.save(clustered)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.saved = true; p.outdated {
		return errors.Join(err, errOutdated, p.dropLocked())
	}
	return err
}

// outdate is called for such a purge.
func (p *Persistence) outdate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outdated = true; p.saved {
		_ = p.dropLocked()
	}
}

// dropLocked removes the file for the next process.
func (p *Persistence) dropLocked() error {
	if err := os.Remove(filepath.Join(p.Dir, SavedName)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (p *Persistence) save(clustered bool) error {
	rest := p.stopReading()
	if rest != nil {
		defer func() { _ = errors.Join(rest.file.Close(), os.Remove(p.taken())) }()
		if rest.in == nil && !p.node.Purger.Asked.Load() {
			// Nobody has told yet what was purged, and this process has purged nothing.
			if err := os.Rename(p.taken(), filepath.Join(p.Dir, SavedName)); err != nil {
				return fmt.Errorf("persist: putting back what was not read yet: %w", err)
			}
			return nil
		}
	}
	head := SavedHead{Written: time.Now()}
	if clustered {
		if len(p.node.Others()) == 0 {
			return nil // no node could tell the next process what was purged
		}
		head.Marker = p.LeaveMarker()
	}
	known, _ := p.node.Purger.Log.All() // before anything is looked at: it is compared with all of these
	for _, one := range known {
		head.Known = append(head.Known, one.ID)
	}
	w, err := CreateSaved(p.Dir, head, p.keys())
	if err != nil {
		return fmt.Errorf("persist: %w", err)
	}
	ctx, cancel := context.WithTimeout(p.node.Over, saveFor)
	defer cancel()
	err = p.saveAll(ctx, w)
	if err == nil && rest != nil && rest.in != nil {
		err = p.saveRest(rest, w)
	}
	if err := w.Finish(err); err != nil {
		return fmt.Errorf("persist: writing to %s: %w", p.Dir, err)
	}
	return nil
}

// stopReading has the file of the process before not be read any more, and returns
// what is left of it.
func (p *Persistence) stopReading() *kept {
	k := p.kept
	if k == nil {
		return nil
	}
	k.stop()
	<-k.done
	if k.over {
		return nil
	}
	return k
}

// saveRest writes what was not read yet of the file of the process before, without
// what was purged since, for as long as all else may take.
func (p *Persistence) saveRest(k *kept, w *savedWriter) (err error) {
	k.ctx, k.stop = context.WithTimeout(p.node.Over, saveFor)
	defer k.stop()
	p.readKept(k, func(saved peer.Given) (restoreResult, bool) {
		if saved.Entry == nil {
			err = w.chunk(saved.ID, saved.Body)
			return restored, err == nil
		}
		space, ok := p.current(saved, k.missed)
		if ok {
			_, purged := p.node.Store.Purged(space, saved.ID.Key, saved.Entry)
			ok = !purged
		}
		if !ok {
			return restoredOutdated, true
		}
		err = w.Entry(space.Name, saved.ID.Key, saved.Entry, saved.Body)
		return restored, err == nil
	})
	return err
}

// LeaveMarker tells all other nodes a purge that names nothing.
func (p *Persistence) LeaveMarker() store.PurgeID {
	marker := []store.Purge{{ID: store.NewPurgeID()}}
	p.node.Purger.apply(marker, false)
	p.node.broadcast(operationPurge, p.node.Others(), markerTimeout, func(ctx context.Context, to peer.Node) error {
		_, err := p.node.Purger.tell(ctx, to, marker, false)
		return err
	})
	return marker[0].ID
}

// saveAll writes all entries whose bodies are here, with what chunks of these are:
// first what was asked for lately. It ends early if ctx does.
func (p *Persistence) saveAll(ctx context.Context, w *savedWriter) error {
	keys, spaces := p.node.Store.Ranked()
	for i, k := range keys {
		for _, e := range slices.Backward(p.node.Store.Stored(k)) { // the newest last, as they came in
			if ctx.Err() != nil {
				return nil
			}
			if err := p.saveEntry(ctx, w, spaces[i].Name, k, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Persistence) saveEntry(ctx context.Context, w *savedWriter, group string, k store.Key, e *store.Entry) error {
	body, err := p.node.Store.Body(k, e)
	if err != nil {
		return nil
	}
	if err := w.Entry(group, k, e, body); err != nil {
		return err
	}
	for i := 1; i < store.Chunks(e.Size) && ctx.Err() == nil; i++ {
		id := peer.ChunkID{Key: k, Generation: e.Generation, Index: i}
		if chunk, err := p.node.Store.Chunk(id.Key, id.Generation, id.Index); err == nil {
			if err := w.chunk(id, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}
