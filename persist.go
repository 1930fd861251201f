package caddygroupcache

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
// is in the file. docs/design.md tells why that is enough.

const (
	// saveFor bounds how long a node that stops writes, and restoreFor how long one
	// that has started reads.
	saveFor    = 3 * time.Second
	restoreFor = 10 * time.Second

	// vouchFor is how long after its start a node looks for one that remembers its
	// marker, and retryVouch how often.
	vouchFor   = time.Minute
	retryVouch = 200 * time.Millisecond

	// markerPatience is how long others may take to hear of a marker.
	markerPatience = time.Second
)

// A restoreResult is what became of something that was written before a restart.
type restoreResult uint8

const (
	restored           restoreResult = iota // entries and chunks that are stored again
	restoredOutdated                        // entries that were purged or replaced meanwhile
	restoredUnverified                      // files, because nobody can tell what was purged meanwhile
	restoredUnreadable                      // files and records
	restoreResultCount
)

var restoreResultNames = [restoreResultCount]string{"restored", "outdated", "unverified", "unreadable"}

// A persistence is where a node keeps what it has stored over a restart.
type persistence struct {
	dir     string
	began   atomic.Bool // the last process's file is taken; from here on there is something to write
	results [restoreResultCount]atomic.Int64
}

// prepare makes sure that the directory can be written to, and removes what
// processes have left there that ended amid it.
func (p *persistence) prepare() error {
	err := os.MkdirAll(p.dir, 0o700)
	var probe *os.File
	if err == nil {
		probe, err = os.CreateTemp(p.dir, savedName+".*")
	}
	if err != nil {
		return fmt.Errorf("persist: %w: give it a directory that Caddy may write to", err)
	}
	_ = probe.Close()
	left, _ := filepath.Glob(filepath.Join(p.dir, savedName+".*")) // the pattern is good
	for _, name := range left {
		_ = os.Remove(name) // the next process tries again
	}
	return nil
}

// take takes away the file of the process before: whatever happens to this one,
// it is not read again. The file is nil if there is none.
func (p *persistence) take() *os.File {
	taken := filepath.Join(p.dir, savedName+".taken")
	err := os.Rename(filepath.Join(p.dir, savedName), taken)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(taken)
		_ = os.Remove(taken) // where open files can't be removed, leave does it
	}
	if err != nil {
		p.results[restoredUnreadable].Add(1)
		return nil
	}
	return file
}

func leave(file *os.File) { _ = errors.Join(file.Close(), os.Remove(file.Name())) }

// restore stores what the process before has written.
func (p *process) restore(file *os.File, clustered bool) {
	defer leave(file)
	results := &p.persist.results
	in, head, err := newSavedReader(file)
	if err != nil {
		results[restoredUnreadable].Add(1)
		return
	}
	away := time.Now().Round(0).Sub(head.written) // by the wall clock: nothing else goes on over a restart
	if away < 0 || clustered != (head.marker != 0) {
		results[restoredUnverified].Add(1)
		return
	}
	since := time.Now().Add(-away)
	ctx, cancel := context.WithTimeout(p.node.over, vouchFor)
	defer cancel()
	if clustered && !p.node.vouched(ctx, head.marker) {
		results[restoredUnverified].Add(1)
		return
	}
	m, ok := p.node.missedSince(ctx, since, head.known)
	if !ok {
		results[restoredUnverified].Add(1)
		return
	}
	until := time.Now().Add(restoreFor)
	room := p.node.store.BodyLimit() // what is beyond it would throw out what came first, and is asked for most
	for time.Now().Before(until) && p.node.over.Err() == nil {
		record, err := in.next()
		if err == io.EOF {
			return
		}
		result := restoredUnreadable
		if err == nil {
			if saved, err := peer.DecodeSaved(record, since); err == nil {
				if room -= int64(len(saved.Body)); room < 0 {
					return
				}
				result = p.node.takeBack(saved, m)
			}
		}
		results[result].Add(1)
		if err != nil && !errors.Is(err, errUnreadable) {
			return
		}
	}
}

// vouched returns true once the others have told which purges they remember, and
// the marker is among those of one of them.
func (n *node) vouched(ctx context.Context, marker store.PurgeID) bool {
	for {
		vouched := false
		for _, from := range n.others() {
			purges, dropped, err := n.client.Purges(ctx, from)
			if err != nil {
				continue
			}
			n.learnPurges(purges, dropped)
			vouched = vouched || slices.ContainsFunc(purges, func(p store.Purge) bool { return p.ID == marker })
		}
		if vouched || !pause(ctx, retryVouch) {
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
func (n *node) missedSince(ctx context.Context, since time.Time, known []store.PurgeID) (m missed, ok bool) {
	for {
		m.before = time.Now()
		// One that is being applied may have its time already, and not be listed.
		recent, few := n.purged.Recent(m.before)
		if few && !slices.ContainsFunc(recent, func(id store.PurgeID) bool { return !n.purged.Knows(id) }) {
			break
		}
		if !pause(ctx, retryVouch) {
			return m, false
		}
	}
	all, dropped := n.purged.All()
	if dropped.After(since.Add(-store.PurgeGrace)) {
		return m, false
	}
	heard := make(map[store.PurgeID]bool, len(known))
	for _, id := range known {
		heard[id] = true
	}
	for _, p := range all {
		if !heard[p.ID] {
			m.purges = append(m.purges, p)
		}
	}
	return m, true
}

// takeBack stores something again, unless it was purged.
func (n *node) takeBack(saved peer.Given, m missed) restoreResult {
	if saved.Entry == nil {
		n.store.PutChunk(saved.ID.Key, saved.ID.Generation, saved.ID.Index, saved.Body, true)
		return restored
	}
	e := saved.Entry
	for _, p := range m.purges {
		if len(p.About(saved.Query.Group, saved.ID.Key, e.URL(), e.Tags())) > 0 { // softly too: rather too much
			return restoredOutdated
		}
	}
	e.Checked, e.Compared = m.before, true
	space := n.store.NamespaceOfPeer(saved.Query.Group)
	if space == nil || n.store.PutMoved(space, saved.ID.Key, e, saved.Body) == nil {
		return restoredOutdated
	}
	return restored
}

// save writes what is stored, for as long as it may.
func (p *process) save() error {
	head := savedHead{written: time.Now()}
	if p.running != nil {
		if len(p.node.others()) == 0 {
			return nil // nobody could tell the next process what was purged
		}
		head.marker = p.node.leaveMarker()
	}
	known, _ := p.node.purged.All() // before anything is looked at: it is compared with all of these
	for _, one := range known {
		head.known = append(head.known, one.ID)
	}
	w, err := createSaved(p.persist.dir, head)
	if err != nil {
		return fmt.Errorf("persist: %w", err)
	}
	ctx, cancel := context.WithTimeout(p.node.over, saveFor)
	defer cancel()
	if err := w.finish(p.node.saveAll(ctx, w)); err != nil {
		return fmt.Errorf("persist: writing to %s: %w", p.persist.dir, err)
	}
	return nil
}

// leaveMarker tells all other nodes a purge that names nothing.
func (n *node) leaveMarker() store.PurgeID {
	marker := []store.Purge{{ID: store.NewPurgeID()}}
	n.Purge(marker)
	n.tellOthers(operationPurge, markerPatience, func(ctx context.Context, to peer.Node) error {
		return n.tellPurges(ctx, to, marker)
	})
	return marker[0].ID
}

// saveAll writes all entries whose bodies are here, with what chunks of these are:
// first what was asked for lately. It ends early if ctx does.
func (n *node) saveAll(ctx context.Context, w *savedWriter) error {
	keys, spaces := n.store.Ranked()
	for i, k := range keys {
		for _, v := range slices.Backward(n.store.Inspect(k, nil, time.Now()).Variants) { // the newest last, as they came in
			if ctx.Err() != nil {
				return nil
			}
			if err := n.saveEntry(ctx, w, spaces[i].Name, k, v.Entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *node) saveEntry(ctx context.Context, w *savedWriter, group string, k store.Key, e *store.Entry) error {
	body, err := n.store.Body(k, e)
	if err != nil {
		return nil
	}
	if err := w.entry(group, k, e, body); err != nil {
		return err
	}
	for i := 1; i < store.Chunks(e.Size) && ctx.Err() == nil; i++ {
		id := peer.ChunkID{Key: k, Generation: e.Generation, Index: i}
		if chunk := n.Chunk(id); chunk != nil {
			if err := w.chunk(id, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}
