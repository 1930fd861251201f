package caddygroupcache

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A refusal says why the last response for a key was not stored.
type refusal struct {
	why          rfc9111.Reason
	status       int // 0: there was none
	field, value string
	at           time.Time
}

// maxCause bounds what is remembered of a field.
const maxCause = 160

func newRefusal(why rfc9111.Reason, status int, request, response http.Header) refusal {
	field, value := rfc9111.Cause(why, status, request, response)
	if len(value) > maxCause {
		value = value[:maxCause] + "…"
	}
	return refusal{why: why, status: status, field: field, value: strings.Clone(value)}
}

// maxRefusals bounds what is remembered: about 200 KiB at worst.
const maxRefusals = 512

// A refusalLog remembers the latest refusals, for those who ask why something is not
// cached. Nothing that is served depends on them. The zero value is empty.
type refusalLog struct {
	mu    sync.Mutex // guards below
	byKey map[store.Key]refusal
	keys  []store.Key // of byKey; when full, the oldest is at next
	next  int
}

func (s *refusalLog) note(k store.Key, why rfc9111.Reason, r refusal) {
	if r.why != why { // it seemed storable first
		r.field, r.value = "", ""
	}
	r.why, r.at = why, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byKey == nil {
		s.byKey = make(map[store.Key]refusal)
	}
	if _, known := s.byKey[k]; !known {
		if len(s.keys) < maxRefusals {
			s.keys = append(s.keys, k)
		} else {
			delete(s.byKey, s.keys[s.next])
			s.keys[s.next] = k
			s.next = (s.next + 1) % maxRefusals
		}
	}
	s.byKey[k] = r
}

// lately returns what the log has had of a key within the last second, or the zero
// refusal.
func (s *refusalLog) lately(k store.Key, now time.Time) refusal {
	last, known := s.of(k)
	if !known || now.Sub(last.at) >= time.Second {
		return refusal{}
	}
	return last
}

// saidBy reports whether the header of a response has the very field that was the
// reason.
func (r refusal) saidBy(status int, header http.Header) bool {
	lines := header[r.field]
	return r.status == status && len(lines) == 1 && r.value != "" && lines[0] == r.value
}

func (s *refusalLog) of(k store.Key) (refusal, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, known := s.byKey[k]
	return r, known
}
