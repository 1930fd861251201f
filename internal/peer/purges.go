package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// Bounds of the purges in one message.
const (
	maxPurges = 1 << 14
	// MaxSelectors is how many selectors one purge may have.
	MaxSelectors = 1 << 12
	// MaxSelectorLength bounds what a purge may name, in bytes: a URL of the
	// longest host and target that may be stored.
	MaxSelectorLength = 17 << 10
	// MaxPurgeBytes bounds the selectors of one purge, so that it fits a frame.
	MaxPurgeBytes = 48 << 10
	// maxPurgeMessage bounds what the purges of one message take here: several times
	// what a node remembers, which is the longest message.
	maxPurgeMessage = 4 << 20
)

// purgeSize is what a purge takes beside its selectors, and selectorSize what one of
// these takes beside its value, in bytes.
const (
	purgeSize    = 128
	selectorSize = 32
)

// EncodePurges encodes purges, and when the youngest arrived that is gone; zero:
// none is.
func EncodePurges(purges []store.Purge, dropped time.Time) []byte {
	w, now := frameWriter{}, time.Now()
	for _, p := range purges {
		w.frame(framePurge, func(e *encoder) {
			e.uint(uint64(p.ID))
			e.age(now, p.At)
			e.string(p.Group)
			e.flag(p.Soft)
			e.flag(p.Fleeting)
			e.uint(uint64(len(p.Selectors)))
			for _, s := range p.Selectors {
				e.uint(uint64(s.Kind))
				e.string(s.Value)
			}
		})
	}
	w.frame(frameEnd, func(e *encoder) {
		e.flag(!dropped.IsZero())
		if !dropped.IsZero() {
			e.age(now, dropped)
		}
	})
	return w.buf
}

// DecodePurges decodes what EncodePurges has written.
func DecodePurges(r io.Reader) (purges []store.Purge, dropped time.Time, err error) {
	return decodePurges(newFrameReader(r), func(int64) bool { return true })
}

// decodePurges is DecodePurges. It asks for room before it decodes a purge.
func decodePurges(frames *frameReader, room func(n int64) bool) (purges []store.Purge, dropped time.Time, err error) {
	now, size := time.Now(), int64(0)
	for {
		kind, d, _, err := frames.next()
		switch {
		case err != nil:
			return nil, time.Time{}, err
		case kind == framePurge && len(purges) < maxPurges:
			takes := d.purgeTakes()
			if size += takes; size > maxPurgeMessage {
				return nil, time.Time{}, malformed("too many purges")
			}
			if !room(takes) {
				return nil, time.Time{}, ErrRefused
			}
			p := d.purge(now)
			if err := d.done(); err != nil {
				return nil, time.Time{}, err
			}
			purges = append(purges, p)
		case kind == frameEnd:
			if d.flag() {
				dropped = now.Add(-d.dur("age"))
			}
			return purges, dropped, d.done()
		default:
			return nil, time.Time{}, malformed("no purge")
		}
	}
}

// takings are what was taken of memory for one thing, piece by piece.
type takings struct {
	memory reserve // nil: it counts nowhere
	taken  []func()
}

func (t *takings) take(n int64) bool {
	if t.memory == nil {
		return true
	}
	release, ok := t.memory(n)
	if ok {
		t.taken = append(t.taken, release)
	}
	return ok
}

func (t *takings) release() {
	for _, release := range t.taken {
		release()
	}
}

// purgeTakes returns how much memory the purge takes that a decoder is at, without
// decoding it.
func (d *decoder) purgeTakes() int64 {
	at := *d
	_, n := at.purgeHead(time.Time{})
	return purgeSize + int64(len(d.rest)) + selectorSize*int64(n)
}

// purgeHead decodes a purge up to its selectors, and how many follow.
func (d *decoder) purgeHead(now time.Time) (p store.Purge, selectors int) {
	p = store.Purge{ID: store.PurgeID(d.uint(math.MaxUint64, "purge"))}
	p.At = now.Add(-d.dur("age"))
	p.Group = d.string(maxGroupName, "group name")
	p.Soft = d.flag()
	p.Fleeting = d.flag()
	return p, int(d.uint(MaxSelectors, "selectors"))
}

func (d *decoder) purge(now time.Time) store.Purge {
	p, n := d.purgeHead(now)
	p.Selectors = make([]store.Selector, 0, min(n, 16))
	for range n {
		s := store.Selector{Kind: store.Kind(d.uint(math.MaxUint8, "selector")), Value: d.string(MaxSelectorLength, "selector")}
		if d.err == nil && !s.Valid() {
			d.fail("selector")
		}
		if d.err != nil {
			break
		}
		p.Selectors = append(p.Selectors, s)
	}
	return p
}

func (e *encoder) flag(set bool) {
	if set {
		e.uint(1)
	} else {
		e.uint(0)
	}
}

func (d *decoder) flag() bool { return d.uint(1, "flag") == 1 }

func (s *Server) purge(w http.ResponseWriter, r *http.Request) {
	frames, inTime := s.frames(w, r)
	defer frames.close()
	room := takings{memory: s.reserve}
	defer room.release()
	purges, dropped, err := decodePurges(frames, room.take)
	if err != nil {
		s.refuse(w)
		return
	}
	inTime()
	if !dropped.IsZero() {
		s.backend.PurgeOldest(purges, dropped)
		w.WriteHeader(http.StatusOK)
		return
	}
	var names func(int64) bool
	if r.URL.RawQuery == withNames && sizeOfAll(purges) <= 2*purgeMessage {
		names = room.upTo(maxPurgeMessage / 2)
	}
	named, ok := s.backend.Purge(purges, names)
	switch {
	case !ok:
		http.Error(w, "too many names", http.StatusInsufficientStorage)
	case len(named) == 0:
		w.WriteHeader(http.StatusOK)
	default:
		w.Header().Set(namedField, "1")
		_, _ = w.Write(EncodePurges(named, time.Time{})) // an error is that of an asker that is gone
	}
}

// upTo returns what takes memory little by little, in blocks, up to a limit.
func (t *takings) upTo(limit int64) func(n int64) bool {
	const block = 64 << 10
	var used, taken int64
	return func(n int64) bool {
		if used += n; used > limit {
			return false
		}
		for taken < used {
			if !t.take(block) {
				return false
			}
			taken += block
		}
		return true
	}
}

func (s *Server) purges(w http.ResponseWriter, r *http.Request) {
	if !s.empty(w, r) {
		s.refuse(w)
		return
	}
	all, dropped := s.backend.Purges()
	if after, err := strconv.ParseUint(r.URL.Query().Get("after"), 16, 64); err == nil && after != 0 {
		last := slices.IndexFunc(all, func(p store.Purge) bool { return uint64(p.ID) == after })
		if last < 0 {
			w.Header().Set(gapField, "1")
		}
		all = all[last+1:]
	}
	n := batchOf(all, purgeBatch)
	if n < len(all) {
		w.Header().Set(moreField, all[len(all)-1].ID.String())
	}
	_, _ = w.Write(EncodePurges(all[:n], dropped)) // an error is that of an asker that is gone
}

// purgeBatch is about how much of purges goes in one request or answer, in bytes of
// memory, which is twice what crosses the wire. A connection is given up when a ping takes
// too long, and that waits behind what goes before it: some 8 KiB do not hold it up even
// over a link of 200 kbit/s.
const purgeBatch = 16 << 10

// purgeMessage is the same for purges that a request waits for: far less than
// maxPurgeMessage, and not many messages for a purge of all that a request may name.
const purgeMessage = 256 << 10

const (
	// moreField is the header field of an answer that has not all purges. It has the ID of
	// the last one.
	moreField = "Groupcache-More"

	// gapField is that of an answer which does not go on where the last one ended, since the
	// node has forgotten that purge, and perhaps others after it: it begins with the oldest
	// that is left.
	gapField = "Groupcache-Gap"

	// namedField is that of an answer to a purge which has purges itself: see Client.Purge.
	namedField = "Groupcache-Named"

	// withNames is the query of one that asks for them.
	withNames = "names"
)

// batchOf returns how many of some purges go together, of about so many bytes of memory.
func batchOf(purges []store.Purge, about int64) (n int) {
	for size := int64(0); n < len(purges) && size < about; n++ {
		size += sizeOf(purges[n])
	}
	return n
}

func sizeOf(p store.Purge) int64 {
	size := int64(purgeSize)
	for _, s := range p.Selectors {
		size += SelectorSize(s)
	}
	return size
}

func sizeOfAll(purges []store.Purge) (size int64) {
	for _, one := range purges {
		size += sizeOf(one)
	}
	return size
}

// SelectorSize is what a selector takes in memory, in bytes.
func SelectorSize(s store.Selector) int64 { return selectorSize + int64(len(s.Value)) }

// SplitPurge returns purges like one, of selectors of which each purge fits a message.
func SplitPurge(like store.Purge, selectors []store.Selector) (purges []store.Purge) {
	for len(selectors) > 0 {
		n, size := 0, 0
		for n < len(selectors) && n < MaxSelectors && (n == 0 || size+len(selectors[n].Value)+8 <= MaxPurgeBytes) {
			size += len(selectors[n].Value) + 8
			n++
		}
		one := like
		one.ID, one.Selectors = store.NewPurgeID(), selectors[:n]
		purges, selectors = append(purges, one), selectors[n:]
	}
	return purges
}

// Purge has a node apply purges. A nil error means that it has: from now on it serves
// nothing that was fetched before. The breaker is not asked, because each node
// counts. If the node's configuration has other names for the same responses, these are
// returned on request, as purges: other nodes may have stored responses under them.
func (c *Client) Purge(ctx context.Context, to Node, purges []store.Purge, names bool) (named []store.Purge, err error) {
	path := pathPurge
	if names {
		path += "?" + withNames
	}
	for len(purges) > 0 {
		n := batchOf(purges, purgeMessage)
		some, err := c.purge(ctx, to, path, purges[:n], time.Time{})
		if err != nil {
			return nil, err
		}
		named, purges = append(named, some...), purges[n:]
	}
	return named, nil
}

// purge has a node apply purges that fit one message.
func (c *Client) purge(ctx context.Context, to Node, path string, purges []store.Purge, dropped time.Time) (named []store.Purge, err error) {
	body := EncodePurges(purges, dropped)
	resp, err := c.post(ctx, to, path, bytes.NewReader(body), int64(len(body)))
	if err == nil {
		if resp.Header.Get(namedField) != "" {
			frames, room := c.frames(resp.Body), takings{memory: c.Reserve}
			named, _, err = decodePurges(frames, room.take)
			room.release()
			frames.close()
		}
		err = errors.Join(err, resp.Body.Close()) // or what is not read of it holds up the connection
	}
	if err != nil {
		return nil, fmt.Errorf("purging at %s: %w", to.Name, causeOf(ctx, err))
	}
	return named, nil
}

// PurgeAll has a node apply all purges that this one remembers, which may be many, some at a
// time, for which it has so long each. With the oldest it is told when the youngest arrived
// that is forgotten here; zero: none is.
func (c *Client) PurgeAll(ctx context.Context, to Node, purges []store.Purge, dropped time.Time, each time.Duration) error {
	for len(purges) > 0 {
		n := batchOf(purges, purgeBatch)
		batch, cancel := context.WithTimeoutCause(ctx, each, ErrTimeout)
		_, err := c.purge(batch, to, pathPurge, purges[:n], dropped)
		cancel()
		if err != nil {
			return err
		}
		purges, dropped = purges[n:], time.Time{}
	}
	return nil
}

// Purges returns the recent purges that a node knows of, and when the youngest
// arrived there that it has forgotten; zero: none. It asks for some at a time, for which
// the node has so long each, up to the last one that the node knew of at the first answer:
// however fast others come, it ends. None is missing between those that are returned.
func (c *Client) Purges(ctx context.Context, from Node, each time.Duration) (all []store.Purge, dropped time.Time, err error) {
	for after, until, size := store.PurgeID(0), store.PurgeID(0), int64(0); ; {
		some, err := c.somePurges(ctx, from, after, each)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("asking %s for purges: %w", from.Name, err)
		}
		for _, p := range some.purges {
			size += sizeOf(p)
		}
		if len(some.purges) == 0 && some.more || size > maxPurgeMessage {
			return nil, time.Time{}, fmt.Errorf("asking %s for purges: %w", from.Name, malformed("too many purges"))
		}
		if some.gap {
			all = nil
		}
		if after == 0 {
			until = some.last
		}
		all = append(all, some.purges...)
		if !some.more || slices.ContainsFunc(some.purges, func(p store.Purge) bool { return p.ID == until }) {
			return all, some.dropped, nil
		}
		after = all[len(all)-1].ID
	}
}

// A purgeAnswer has some of the purges that a node knows of.
type purgeAnswer struct {
	purges  []store.Purge
	dropped time.Time
	more    bool
	last    store.PurgeID // of all, if there are more; a node of an earlier version does not tell it
	gap     bool          // between these and those before
}

func (c *Client) somePurges(ctx context.Context, from Node, after store.PurgeID, each time.Duration) (some purgeAnswer, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, each, ErrTimeout)
	defer cancel()
	resp, err := c.post(ctx, from, pathPurges+"?after="+after.String(), nil, 0)
	if err == nil {
		frames, room := c.frames(resp.Body), takings{memory: c.Reserve}
		defer room.release()
		some.purges, some.dropped, err = decodePurges(frames, room.take)
		frames.close()
		err = errors.Join(err, resp.Body.Close())
		last := resp.Header.Get(moreField)
		id, _ := strconv.ParseUint(last, 16, 64)
		some.more, some.last, some.gap = last != "", store.PurgeID(id), resp.Header.Get(gapField) != ""
	}
	if err != nil {
		return purgeAnswer{}, causeOf(ctx, err)
	}
	return some, nil
}
