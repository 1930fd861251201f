package caddygroupcache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
)

// deadlineOfFlights is the fill_timeout where the deadline is to end a flight. Where it is
// not, an hour would.
const deadlineOfFlights = 10 * time.Second

// A lead is one way to lead a flight. Each is tried on the node that owns the key, and on
// another one, which has a lease of the owner then.
type lead struct {
	size   int // of the body
	fields []string
	stale  bool // the response is stored, and stale
}

var leads = map[string]lead{
	"fetch":     {size: 1000},
	"far range": {size: 3 << 20, fields: farPart},
	"refresh":   {size: 1000, stale: true},
}

// A leadEnd is how the handlers that a leader runs end.
type leadEnd func(l *led) error

// A led flight is one that the first node of a bubble leads.
type led struct {
	b     *bubble
	leave context.CancelFunc // has its client go
	ctx   context.Context    // of the request to the upstream
	rest  func() error       // sends what is left of the response
}

var leadEnds = map[string]leadEnd{
	"done":  func(l *led) error { return l.rest() },
	"error": func(*led) error { return io.ErrUnexpectedEOF },
	"panic": func(*led) error { panic("a bug") },
	"client gone": func(l *led) error {
		l.leave()
		select {
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-time.After(deadlineOfFlights / 2): // it is wanted by now
			return l.rest()
		}
	},
	"deadline": func(l *led) error {
		time.Sleep(deadlineOfFlights + time.Second)
		for i, m := range l.b.nodes { // though the handlers still run
			if left := m.UnderWay(); left.Fills+left.Asks+left.Leases > 0 {
				l.b.t.Errorf("node %d after the deadline: %+v", i, left)
			}
		}
		time.Sleep(deadlineOfFlights)
		return l.rest()
	},
	"other node gone": func(l *led) error {
		go l.b.nodes[1].crash()
		time.Sleep(time.Second)
		return l.rest()
	},
	"own node gone": func(l *led) error {
		go l.b.nodes[0].crash()
		time.Sleep(time.Second)
		return io.ErrUnexpectedEOF
	},
}

// TestEveryFlightEnds: for each way to lead a flight, each end of what its leader does, and
// each moment of that, no flight, lease or memory is left on any node, and a client whose
// upstream has sent everything has got it.
func TestEveryFlightEnds(t *testing.T) {
	before := guard.Panics()
	defer func() { ExpectedPanics.Add(guard.Panics() - before) }() // of refreshes
	for way, lead := range leads {
		for name, end := range leadEnds {
			for _, amid := range []bool{false, true} {
				for owner := range 2 {
					t.Run(fmt.Sprintf("%s/%s/amid the body %v/owner %d", way, name, amid, owner), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							within := time.Hour
							if name == "deadline" {
								within = deadlineOfFlights
							}
							b := newBubble(t, 2, func(h *Handler) { h.FillTimeout = caddy.Duration(within) })
							lead.run(b, owner, amid, end)
						})
					})
				}
			}
		}
	}
}

// run has the first node lead a flight for a key of a node, and looks at what is left.
func (lead lead) run(b *bubble, owner int, amid bool, end leadEnd) {
	t := b.t
	url, body := b.urlOf(b.nodes[owner]), randomBody(lead.size)
	if lead.stale {
		do(b.nodes[0].handler, whole206(body), request(t.Context(), url))
		time.Sleep(2 * time.Minute) // its max-age is one
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var runs atomic.Int64
	var rested atomic.Bool
	up := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if runs.Add(1) > 1 {
			return whole206(body)(w, r)
		}
		start, length, sent := 0, 0, 0
		begin := func() { start, length = beginPart(w, r, body) }
		if amid {
			begin()
			sent, _ = w.Write(body[start : start+length/2])
			_ = http.NewResponseController(w).Flush()
		}
		return end(&led{b: b, leave: leave, ctx: r.Context(), rest: func() error {
			rested.Store(true)
			if !amid {
				begin()
			}
			_, err := w.Write(body[start+sent : start+length])
			return err
		}})
	})
	got, want := httptest.NewRecorder(), httptest.NewRecorder()
	guardedly(func() { _ = b.nodes[0].handler.ServeHTTP(got, request(ctx, url, lead.fields...), up) })
	_ = whole206(body)(want, request(t.Context(), url, lead.fields...))
	if rested.Load() && ctx.Err() == nil && !bytes.Equal(got.Body.Bytes(), want.Body.Bytes()) {
		t.Errorf("the client has %d bytes of %d", got.Body.Len(), want.Body.Len())
	}
	time.Sleep(6 * deadlineOfFlights)
	if runs.Load() == 0 {
		t.Error("the upstream was not asked")
	}
	for i, m := range b.nodes {
		if left := m.UnderWay(); left != (node.UnderWay{}) {
			t.Errorf("node %d (gone: %v): %+v is left", i, m.crashed.Load(), left)
		}
	}
}
