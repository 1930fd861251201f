package caddygroupcache

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// ends are the ways on which a handler can break off.
var ends = map[string]func() error{
	"error":   func() error { return io.ErrUnexpectedEOF },
	"nothing": func() error { return nil },
	"panic":   func() error { panic("a bug") },
	"abort":   func() error { panic(http.ErrAbortHandler) },
}

// moments are how far a response gets before that.
var moments = map[string]func(w http.ResponseWriter, r *http.Request, body []byte){
	"at once": func(http.ResponseWriter, *http.Request, []byte) {},
	"after the header": func(w http.ResponseWriter, r *http.Request, body []byte) {
		_, _ = beginPart(w, r, body)
	},
	"amid the body": func(w http.ResponseWriter, r *http.Request, body []byte) {
		start, length := beginPart(w, r, body)
		_, _ = w.Write(body[start : start+length/2])
		_ = http.NewResponseController(w).Flush()
	},
}

// A leader is a way on which a request comes to lead a flight, and what it takes to
// get there. The body is that of the response.
type leader struct {
	nodes   int
	size    int // of the body
	fields  []string
	prepare func(t *testing.T, c *testCluster, target string, body []byte)
}

var leaders = map[string]leader{
	"a fetch":              {nodes: 2, size: 1000},
	"a fetch of much":      {nodes: 2, size: 3 << 20},
	"a first chunk":        {nodes: 2, size: 3 << 20, fields: farPart},
	"a refresh":            {nodes: 2, size: 1000, prepare: storeStale},
	"a chunk that is gone": {nodes: 1, size: 3 << 20, fields: farPart, prepare: storeWithoutChunk},
}

// storeStale stores the response on its owner and makes it stale.
func storeStale(t *testing.T, c *testCluster, target string, body []byte) {
	do(c.handlers[0], whole206(body), request(t.Context(), target))
	k, _ := keyOf(c.handlers[0], request(t.Context(), target))
	c.nodes[0].Purger.Everywhere([]store.Purge{{ID: store.NewPurgeID(), Soft: true, Selectors: []store.Selector{node.SelectorOf(k)}}})
}

// storeWithoutChunk stores the response and has one of its chunks vanish.
func storeWithoutChunk(t *testing.T, c *testCluster, target string, body []byte) {
	do(c.handlers[0], whole206(body), request(t.Context(), target))
	forget(t, c.nodes[0], c.handlers[0], target, 2)
}

// TestEveryLeaderEndsItsFlight: whoever leads, on the node that owns the key or on
// another one, and however the handlers break off, no flight, lease or memory is left,
// and the next client gets its response.
func TestEveryLeaderEndsItsFlight(t *testing.T) {
	before := guard.Panics()
	defer func() { ExpectedPanics.Add(guard.Panics() - before) }() // of refreshes
	for leads, how := range leaders {
		c, number := newCluster(t, how.nodes), 0
		for _, h := range c.handlers {
			h.FillTimeout = caddy.Duration(time.Hour) // that ends a flight too, but is not what is tested
		}
		for end, breakOff := range ends {
			for moment, begin := range moments {
				for asked, h := range c.handlers {
					number++
					target := c.targetLike(0, number)
					t.Run(fmt.Sprintf("%s/%s %s/node %d", leads, end, moment, asked), func(t *testing.T) {
						c.breaksOff(t, how, h, target, func(w http.ResponseWriter, r *http.Request, body []byte) error {
							begin(w, r, body)
							return breakOff()
						})
					})
				}
			}
		}
	}
}

// targetLike returns a path that a node owns, another one for each number.
func (c *testCluster) targetLike(owner, number int) string {
	for i := 0; ; i++ {
		path := fmt.Sprintf("/%d/%d", number, i)
		k, _ := keyOf(c.handlers[0], request(context.Background(), path))
		if o, _ := c.nodes[0].Ring.Load().Owner(k); o.Name == c.nodes[owner].Name {
			return path
		}
	}
}

// breaksOff has some clients ask for what a leader is needed for, while the handlers
// break off, and then one when they don't.
func (c *testCluster) breaksOff(t *testing.T, how leader, h *Handler, target string, broken func(http.ResponseWriter, *http.Request, []byte) error) {
	body := randomBody(how.size)
	if how.prepare != nil {
		how.prepare(t, c, target, body)
	}
	var asked atomic.Int64
	wait := followers(3, func(int) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		guardedly(func() {
			_ = h.ServeHTTP(w, request(t.Context(), target, how.fields...), caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				asked.Add(1)
				return broken(w, r, body)
			}))
		})
		return w
	})
	answered := make(chan struct{})
	go func() {
		wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(patience):
		t.Fatal("the clients wait for a flight that nobody leads")
	}
	poll(t, "the handlers are asked", func() bool { return asked.Load() > 0 }) // if for nobody, they are so in the background
	for _, n := range c.nodes {
		idle(t, n)
	}
	for i, h := range c.handlers {
		w := do(h, whole206(body), request(t.Context(), target))
		if w.Code != http.StatusOK || w.Body.String() != string(body) {
			t.Errorf("node %d answers afterwards with %d and %d bytes (%s)", i, w.Code, w.Body.Len(), w.Header().Get("Cache-Status"))
		}
	}
	for _, n := range c.nodes {
		idle(t, n)
	}
}
