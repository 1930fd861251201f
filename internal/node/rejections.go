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
	At           time.Time
}

// MaxRejections bounds what is remembered: about 200 KiB at worst.
const MaxRejections = 512

// Rejections remembers the latest ones, for operators who ask why something is not
// cached. Nothing that is served depends on them. The zero value is empty.
type Rejections struct {
	mu    sync.Mutex // guards below
	ByKey map[store.Key]Rejection
	Keys  []store.Key // of byKey; when full, the oldest is at next
	next  int
}

// Note remembers why a response for a key was not stored.
func (s *Rejections) Note(k store.Key, why rfc9111.Reason, r Rejection) {
	if r.Why != why { // it seemed storable first
		r.Field, r.Value = "", ""
	}
	r.Why, r.At = why, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ByKey == nil {
		s.ByKey = make(map[store.Key]Rejection)
	}
	if _, known := s.ByKey[k]; !known {
		if len(s.Keys) < MaxRejections {
			s.Keys = append(s.Keys, k)
		} else {
			delete(s.ByKey, s.Keys[s.next])
			s.Keys[s.next] = k
			s.next = (s.next + 1) % MaxRejections
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
