package node

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A Rejection says why the last response for a key was not stored.
type Rejection struct {
	Why          rfc9111.Reason
	Status       int // 0: there was none
	Field, Value string
	Part         bool // of what was asked for by its first chunk, and can only be stored as a whole
	At           time.Time
}

// maxRejections bounds what is remembered: about 200 KiB at worst.
const maxRejections = 512

// Rejections remembers the latest ones, for operators who ask why something is not
// cached. Nothing that is served depends on them, only how the upstream is asked for it. The
// zero value is empty.
type Rejections struct {
	mu    sync.Mutex // guards below
	ByKey map[store.Key]Rejection
	Keys  []store.Key // of byKey; when full, the oldest is at next
	next  int
}

// Note remembers why a response for a key was not stored.
func (s *Rejections) Note(k store.Key, why rfc9111.Reason, r Rejection) {
	if r.Why != why { // it seemed storable first
		r.Field, r.Value, r.Part = "", "", false
	}
	r.Why, r.At = why, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ByKey == nil {
		s.ByKey = make(map[store.Key]Rejection)
	}
	if _, known := s.ByKey[k]; !known {
		if len(s.Keys) < maxRejections {
			s.Keys = append(s.Keys, k)
		} else {
			delete(s.ByKey, s.Keys[s.next])
			s.Keys[s.next] = k
			s.next = (s.next + 1) % maxRejections
		}
	}
	s.ByKey[k] = r
}

// Lately returns what the log has had of a key within the last second, or the zero
// refusal.
func (s *Rejections) Lately(k store.Key, now time.Time) Rejection {
	last, known := s.Of(k)
	if !known || now.Sub(last.At) >= time.Second {
		return Rejection{}
	}
	return last
}

// WantsWhole reports whether the upstream was asked for a part of a key lately, and what came
// could not be stored.
func (s *Rejections) WantsWhole(k store.Key, now time.Time) bool {
	last, known := s.Of(k)
	return known && last.Part && now.Sub(last.At) < UncacheableFor
}

// SaidBy reports whether the header of a response has the very field that was the
// reason.
func (r Rejection) SaidBy(status int, header http.Header) bool {
	lines := header[r.Field]
	return r.Status == status && len(lines) == 1 && r.Value != "" && lines[0] == r.Value
}

// Of returns the rejection of a key, and whether there is one.
func (s *Rejections) Of(k store.Key) (Rejection, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, known := s.ByKey[k]
	return r, known
}
