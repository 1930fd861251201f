package caddygroupcache

import (
	"encoding/binary"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestRefusalsAreBounded(t *testing.T) {
	var log refusalLog
	key := func(i int) (k store.Key) {
		binary.BigEndian.PutUint64(k[:], uint64(i))
		return k
	}
	long := http.Header{"Cache-Control": {"private, x=" + strings.Repeat("x", 10_000)}}
	for i := range 3 * maxRefusals {
		log.note(key(i), rfc9111.Private, newRefusal(rfc9111.Private, 200, nil, long))
		log.note(key(i), rfc9111.Private, newRefusal(rfc9111.Private, 200, nil, long))
	}
	if len(log.byKey) != maxRefusals || len(log.keys) != maxRefusals || cap(log.keys) > 4*maxRefusals {
		t.Errorf("%d refusals, %d keys, room for %d", len(log.byKey), len(log.keys), cap(log.keys))
	}
	if _, known := log.of(key(0)); known {
		t.Error("the oldest is still there")
	}
	r, known := log.of(key(3*maxRefusals - 1))
	if !known || r.field != "Cache-Control" || len(r.value) > 2*maxCause {
		t.Errorf("the latest: %v, %d bytes", known, len(r.value))
	}
}

// TestARefusalLaterThanTheHeaderHasNoCause: what seemed storable at first is
// not blamed on a field.
func TestARefusalLaterThanTheHeaderHasNoCause(t *testing.T) {
	var log refusalLog
	log.note(store.Key{}, rfc9111.Aborted, newRefusal(rfc9111.None, 200, nil, http.Header{"Cache-Control": {"max-age=1"}}))
	if r, _ := log.of(store.Key{}); r.why != rfc9111.Aborted || r.status != 200 || r.field != "" {
		t.Errorf("%+v", r)
	}
}

func TestEveryReasonHasWords(t *testing.T) {
	for _, why := range rfc9111.Reasons() {
		if w := reasonWords[why]; w.because == "" || w.change == "" {
			t.Errorf("%s: %+v", why, w)
		}
	}
}
