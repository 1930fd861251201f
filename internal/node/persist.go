package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A node may keep what it has stored over a restart. When it stops it writes a
// file; the process that starts next takes the file away, so that it counts once,
// and stores what is in it while it already serves.
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
}

// NewPersistence returns what keeps a node's entries in a directory of its own.
func NewPersistence(n *Node, dir string) *Persistence { return &Persistence{node: n, Dir: dir} }

// Prepare makes sure that the directory can be written to, and removes what
// processes have left there that ended amid it.
func (p *Persistence) Prepare() error {
	err := os.MkdirAll(p.Dir, 0o700)
	var probe *os.File
	if err == nil {
		probe, err = os.CreateTemp(p.Dir, SavedName+".*")
	}
	if err != nil {
		return fmt.Errorf("persist: %w: give it a directory that Caddy may write to", err)
	}
	_ = probe.Close()
	left, _ := filepath.Glob(filepath.Join(p.Dir, SavedName+".*")) // the pattern is good
	for _, name := range left {
		_ = os.Remove(name) // the next process tries again
	}
	return nil
}

// Take takes away the file of the process before: whatever happens to this one,
// it is not read again. The file is nil if there is none.
func (p *Persistence) Take() *os.File {
	taken := filepath.Join(p.Dir, SavedName+".taken")
	err := os.Rename(filepath.Join(p.Dir, SavedName), taken)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(taken)
		_ = os.Remove(taken) // where open files can't be removed, leave does it
	}
	if err != nil {
		p.Results[restoredUnreadable].Add(1)
		return nil
	}
	return file
}

func leave(file *os.File) { _ = errors.Join(file.Close(), os.Remove(file.Name())) }

// Restore stores what the process before has written.
func (p *Persistence) Restore(file *os.File, clustered bool) {
	defer leave(file)
	results := &p.Results
	in, head, err := NewSavedReader(file)
	if err != nil {
		results[restoredUnreadable].Add(1)
		return
	}
	away := time.Now().Round(0).Sub(head.Written) // by the wall clock: nothing else goes on over a restart
	if away < 0 || clustered != (head.Marker != 0) {
		results[restoredUnverified].Add(1)
		return
	}
	since := time.Now().Add(-away)
	ctx, cancel := context.WithTimeout(p.node.Over, vouchFor)
	defer cancel()
	if clustered && !p.Vouched(ctx, head.Marker) {
		results[restoredUnverified].Add(1)
		return
	}
	m, ok := p.missedSince(ctx, since, head.Known)
	if !ok {
		results[restoredUnverified].Add(1)
		return
	}
	until := time.Now().Add(restoreFor)
	room := p.node.Store.BodyLimit() // what is beyond it would throw out what came first, and is asked for most
	for time.Now().Before(until) && p.node.Over.Err() == nil {
		record, err := in.Next()
		if err == io.EOF {
			return
		}
		result := restoredUnreadable
		if err == nil {
			if saved, err := peer.DecodeSaved(record, since); err == nil {
				if room -= int64(len(saved.Body)); room < 0 {
					return
				}
				result = p.takeBack(saved, m)
			}
		}
		results[result].Add(1)
		if err != nil && !errors.Is(err, ErrUnreadable) {
			return
		}
	}
}

// Vouched returns true once the others have told which purges they remember, and
// the marker is among those of one of them.
func (p *Persistence) Vouched(ctx context.Context, marker store.PurgeID) bool {
	for {
		vouched := false
		for _, from := range p.node.Others() {
			purges, dropped, err := p.node.Client.Purges(ctx, from)
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
	purges []store.Purge
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
	for _, one := range all {
		if !heard[one.ID] {
			m.purges = append(m.purges, one)
		}
	}
	return m, true
}

// takeBack stores something again, unless it was purged.
func (p *Persistence) takeBack(saved peer.Given, m missed) restoreResult {
	if saved.Entry == nil {
		p.node.Store.PutChunk(saved.ID.Key, saved.ID.Generation, saved.ID.Index, saved.Body, true)
		return restored
	}
	e := saved.Entry
	for _, one := range m.purges {
		if len(one.About(saved.Query.Group, saved.ID.Key, e.URL(), e.Tags())) > 0 { // softly too: rather too much
			return restoredOutdated
		}
	}
	e.Checked, e.Compared = m.before, true
	space := p.node.Store.NamespaceOfPeer(saved.Query.Group)
	if space == nil || p.node.Store.PutMoved(space, saved.ID.Key, e, saved.Body) == nil {
		return restoredOutdated
	}
	return restored
}

// Save writes what is stored, for as long as it may. A node that is part of a cluster
// leaves a marker with the others.
func (p *Persistence) Save(clustered bool) error {
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
	w, err := CreateSaved(p.Dir, head)
	if err != nil {
		return fmt.Errorf("persist: %w", err)
	}
	ctx, cancel := context.WithTimeout(p.node.Over, saveFor)
	defer cancel()
	if err := w.Finish(p.saveAll(ctx, w)); err != nil {
		return fmt.Errorf("persist: writing to %s: %w", p.Dir, err)
	}
	return nil
}

// LeaveMarker tells all other nodes a purge that names nothing.
func (p *Persistence) LeaveMarker() store.PurgeID {
	marker := []store.Purge{{ID: store.NewPurgeID()}}
	p.node.Purger.apply(marker, false)
	p.node.broadcast(operationPurge, p.node.Others(), markerTimeout, func(ctx context.Context, to peer.Node) error {
		return p.node.Purger.tell(ctx, to, marker)
	})
	return marker[0].ID
}

// saveAll writes all entries whose bodies are here, with what chunks of these are:
// first what was asked for lately. It ends early if ctx does.
func (p *Persistence) saveAll(ctx context.Context, w *savedWriter) error {
	keys, spaces := p.node.Store.Ranked()
	for i, k := range keys {
		for _, v := range slices.Backward(p.node.Store.Inspect(k, nil, time.Now()).Variants) { // the newest last, as they came in
			if ctx.Err() != nil {
				return nil
			}
			if err := p.saveEntry(ctx, w, spaces[i].Name, k, v.Entry); err != nil {
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
