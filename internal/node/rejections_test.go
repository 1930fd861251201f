package node

import (
	"encoding/binary"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

func TestRejectionsAreBounded(t *testing.T) {
	var log Rejections
	key := func(i int) (k store.Key) {
		binary.BigEndian.PutUint64(k[:], uint64(i))
		return k
	}
	private := Rejection{Why: rfc9111.Private, Status: 200, Field: "Cache-Control", Value: "private"}
	for i := range 3 * maxRejections {
		log.Note(key(i), rfc9111.Private, private)
		log.Note(key(i), rfc9111.Private, private)
	}
	if len(log.ByKey) != maxRejections || len(log.Keys) != maxRejections || cap(log.Keys) > 4*maxRejections {
		t.Errorf("%d rejections, %d keys, room for %d", len(log.ByKey), len(log.Keys), cap(log.Keys))
	}
	if _, known := log.Of(key(0)); known {
		t.Error("the oldest is still there")
	}
	r, known := log.Of(key(3*maxRejections - 1))
	if !known || r.Field != "Cache-Control" {
		t.Errorf("the latest: %v, %+v", known, r)
	}
}

// TestARejectionLaterThanTheHeaderHasNoCause: what seemed storable at first is
// not blamed on a field.
func TestARejectionLaterThanTheHeaderHasNoCause(t *testing.T) {
	var log Rejections
	log.Note(store.Key{}, rfc9111.Aborted, Rejection{Status: 200, Field: "Cache-Control", Value: "max-age=1"})
	if r, _ := log.Of(store.Key{}); r.Why != rfc9111.Aborted || r.Status != 200 || r.Field != "" {
		t.Errorf("%+v", r)
	}
}
