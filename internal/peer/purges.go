package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
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
	purges, _, err := decodePurges(frames, room.take)
	if err != nil {
		s.refuse(w)
		return
	}
	inTime()
	s.backend.Purge(purges)
	w.WriteHeader(http.StatusOK)
}

func (s *Server) purges(w http.ResponseWriter, r *http.Request) {
	if !s.empty(w, r) {
		s.refuse(w)
		return
	}
	_, _ = w.Write(EncodePurges(s.backend.Purges())) // the asker is gone: nobody to tell
}

// Purge has a node apply purges. Nil means that it has: from now on it serves
// nothing that was fetched before. The breaker is not asked, because each node
// counts.
func (c *Client) Purge(ctx context.Context, to Node, purges []store.Purge) error {
	body := EncodePurges(purges, time.Time{})
	resp, err := c.post(ctx, to, pathPurge, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return fmt.Errorf("purging at %s: %w", to.Name, causeOf(ctx, err))
	}
	return resp.Body.Close()
}

// Purges returns the recent purges that a node knows of, and when the youngest
// arrived there that it has forgotten; zero: none.
func (c *Client) Purges(ctx context.Context, from Node) ([]store.Purge, time.Time, error) {
	resp, err := c.post(ctx, from, pathPurges, nil, 0)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("asking %s for purges: %w", from.Name, causeOf(ctx, err))
	}
	frames, room := c.frames(resp.Body), takings{memory: c.Reserve}
	defer room.release()
	purges, dropped, err := decodePurges(frames, room.take)
	frames.close()
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, time.Time{}, fmt.Errorf("asking %s for purges: %w", from.Name, causeOf(ctx, err))
	}
	return purges, dropped, nil
}
