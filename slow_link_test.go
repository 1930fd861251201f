package caddygroupcache

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// A narrow connection lets so many bytes through in a second, each way. What is
// written waits in a buffer without end: who writes holds locks of net/http, and time
// stands still in the bubble as long as somebody waits for one.
type narrow struct {
	net.Conn
	perSecond int
	out       chan []byte
	closed    chan struct{}
	close     func()
}

func newNarrow(conn net.Conn, perSecond int) *narrow {
	n := &narrow{Conn: conn, perSecond: perSecond, out: make(chan []byte, 1<<16), closed: make(chan struct{})}
	n.close = sync.OnceFunc(func() { close(n.closed) })
	go func() {
		for {
			select {
			case p := <-n.out:
				n.takes(len(p))
				_, _ = n.Conn.Write(p) // the reader hears of an error
			case <-n.closed:
				return
			}
		}
	}()
	return n
}

func (n *narrow) takes(size int) {
	time.Sleep(time.Duration(size) * time.Second / time.Duration(n.perSecond))
}

func (n *narrow) Read(p []byte) (int, error) {
	size, err := n.Conn.Read(p[:min(len(p), 1500)])
	n.takes(size)
	return size, err
}

func (n *narrow) Write(p []byte) (int, error) {
	for piece := range slices.Chunk(p, 1500) {
		n.out <- bytes.Clone(piece)
	}
	return len(p), nil
}

func (n *narrow) Close() error {
	n.close()
	return n.Conn.Close()
}

// Thousands of remembered purges get over a link of 240 kbit/s, both ways, and what goes
// with each push/pull is little.
func TestManyPurgesOverASlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, 1, nil)
		far, near := b.nodes[0], b.start("near", nil)
		const perSecond = 30_000
		near.Client.DialWith(func(ctx context.Context, _, to string) (net.Conn, error) {
			conn, err := b.net.dial(ctx, near.addr.Addr, to)
			if err != nil {
				return nil, err
			}
			return newNarrow(conn, perSecond), nil
		})
		near.SetRing(nil)
		far.SetRing(nil)
		remember := func(m *bubbleNode, what string) {
			for i := range 3000 {
				m.Purger.Learn([]store.Purge{{ID: store.NewPurgeID(), At: time.Now(), Selectors: []store.Selector{{Kind: store.Tag, Value: fmt.Sprintf("%s-number-%d", what, i)}}}}, time.Time{})
			}
		}
		remember(far, "far")
		remember(near, "near")
		if size := len(peer.EncodePurges(far.Purger.Latest(), time.Time{})); size == 0 || size > 20<<10 {
			t.Errorf("%d bytes with each push/pull", size)
		}
		near.Members.Set(b.addrs())
		begun := time.Now()
		for !slices.Contains(owners(near), far.Name) && time.Since(begun) < 2*time.Minute {
			time.Sleep(time.Second)
		}
		t.Logf("on the ring after %v", time.Since(begun))
		for time.Since(begun) < 2*time.Minute && near.UnderWay().Reminders > 0 {
			time.Sleep(time.Second)
		}
		t.Logf("all told after %v", time.Since(begun))
		for _, m := range b.nodes {
			if all, _ := m.Purger.Log.All(); len(all) != 6000 {
				t.Errorf("%s knows %d purges; the ring is %v", m.Name, len(all), owners(m))
			}
		}
	})
}
