package peer

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// slow is a backend whose fills go on when the test says so.
type slow struct {
	backend
	begun chan struct{}
	goOn  chan struct{}
}

func newSlow() slow {
	s := slow{begun: make(chan struct{}, 10), goOn: make(chan struct{})}
	s.lookup = func(ctx context.Context, q *Query, a *Answer) {
		if q.Key != (store.Key{2}) {
			a.None(Ticket{}, nil)
			return
		}
		if a.Follow(nil) != nil {
			return
		}
		a.Header(testEntry(nil))
		a.Data([]byte("first"))
		a.Flush()
		s.begun <- struct{}{}
		select {
		case <-s.goOn:
			a.Data([]byte("second"))
			a.End(store.Digest([]byte("firstsecond")), 3)
		case <-ctx.Done():
		}
	}
	return s
}

// follow begins to follow the slow fill; the channel tells how it ended.
func (s slow) follow(t *testing.T, c *Client, to Node) chan error {
	t.Helper()
	reply, err := c.Lookup(t.Context(), to, NewQuery("g", store.Key{2}, nil, nil), patience)
	if err != nil {
		t.Fatal(err)
	}
	<-s.begun
	end := make(chan error, 1)
	go func() {
		defer reply.Close()
		_, err := reply.Header()
		if err == nil {
			_, err = reply.Body(into(io.Discard))
		}
		end <- err
	}()
	return end
}

func TestRotationNodeAfterNode(t *testing.T) {
	b := newSlow()
	theirs, ours := identity(t, "o"), identity(t, "o")
	to, s := serveAs(t, b, theirs)
	c := newClientAs(t, ours)
	under := func(want string) {
		t.Helper()
		eventually(t, "the connection is under "+want, func() bool {
			if err := ask(c, to); err != nil {
				t.Fatal(err)
			}
			return c.by(to.Addr) == want
		})
	}
	under("o")
	first := b.follow(t, c, to)

	hold(t, theirs, "no")
	s.Rekey()
	under("o")
	hold(t, ours, "no")
	c.Rekey()
	under("n")
	second := b.follow(t, c, to)
	// What began under the old secret goes on, as long as both hold it.
	close(b.goOn)
	for _, end := range []chan error{first, second} {
		if err := <-end; err != nil {
			t.Errorf("a fill that was under way: %v", err)
		}
	}
	eventually(t, "the connection that was replaced is closed", func() bool {
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		return len(c.pool.conns) == 1
	})
	hold(t, theirs, "n")
	s.Rekey()
	under("n")
	hold(t, ours, "n")
	c.Rekey()
	under("n")
}

// The other way round: who was asked changes first to what the asker prefers.
func TestServerHasTheClientComeAgain(t *testing.T) {
	theirs := identity(t, "o")
	to, s := serveAs(t, nothing, theirs)
	c := newClientAs(t, identity(t, "no"))
	if err := ask(c, to); err != nil || c.by(to.Addr) != "o" {
		t.Fatalf("%v, under %q", err, c.by(to.Addr))
	}
	hold(t, theirs, "no")
	s.Rekey()
	eventually(t, "the client has come again", func() bool { return ask(c, to) == nil && c.by(to.Addr) == "n" })
	conn := func() *clientConn {
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		return c.pool.byAddr[to.Addr].conn
	}
	settled := conn()
	for range 10 {
		if err := ask(c, to); err != nil || conn() != settled {
			t.Fatalf("it comes again and again: %v", err)
		}
	}
}

// slack is how much later than it should something may happen on a busy machine.
// It is little beside how long a connection stays otherwise.
const slack = drainTimeout / 6

// What had begun may end, for a moment; nothing else begins.
func TestRemovedSecretIsWorthNothing(t *testing.T) {
	for _, side := range []string{"server", "client"} {
		for _, ends := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, ends=%v", side, ends), func(t *testing.T) {
				b := newSlow()
				theirs, ours := identity(t, "o"), identity(t, "o")
				to, s := serveAs(t, b, theirs)
				c := newClientAs(t, ours)
				end := b.follow(t, c, to)
				before := s.Refused()
				removed := time.Now()
				if side == "server" {
					hold(t, theirs, "n")
					s.Rekey()
				} else {
					hold(t, ours, "n")
					c.Rekey()
				}
				if side == "server" && ask(newClientAs(t, identity(t, "o")), to) == nil {
					t.Error("somebody gets in with the old secret")
				}
				eventually(t, "they talk no more", func() bool { return ask(c, to) != nil })
				if took := time.Since(removed); took > notice+slack {
					t.Errorf("they talked for %v", took)
				}
				if ends {
					close(b.goOn)
				}
				if err := <-end; (err == nil) != ends || time.Since(removed) > notice+lastWords+slack {
					t.Errorf("the fill ended after %v with %v", time.Since(removed), err)
				}
				eventually(t, "what they tried is counted", func() bool { return s.Refused() > before })
				eventually(t, "the connection is closed", func() bool {
					s.mu.Lock()
					d := s.listener
					s.mu.Unlock()
					d.mu.Lock()
					defer d.mu.Unlock()
					return len(d.conns) == 0
				})
			})
		}
	}
}

func TestIdleConnectionUnderARemovedSecretIsClosedSoon(t *testing.T) {
	for _, side := range []string{"server", "client"} {
		theirs, ours := identity(t, "o"), identity(t, "o")
		to, s := serveAs(t, nothing, theirs)
		c := newClientAs(t, ours)
		if err := ask(c, to); err != nil {
			t.Fatal(err)
		}
		removed := time.Now()
		if side == "server" {
			hold(t, theirs, "n")
			s.Rekey()
		} else {
			hold(t, ours, "n")
			c.Rekey()
		}
		eventually(t, "the connection is closed", func() bool {
			c.pool.mu.Lock()
			defer c.pool.mu.Unlock()
			return len(c.pool.conns) == 0
		})
		if took := time.Since(removed); took > notice+parting+slack {
			t.Errorf("that took %v", took)
		}
	}
}

func TestConnectionThatWasIdleWhenTheSecretWentMakesNoRequestFail(t *testing.T) {
	for range 20 {
		theirs := identity(t, "o")
		to, s := serveAs(t, nothing, theirs)
		c := newClientAs(t, identity(t, "no"))
		if err := ask(c, to); err != nil {
			t.Fatal(err)
		}
		hold(t, theirs, "n")
		s.Rekey()
		for deadline := time.Now().Add(patience); c.by(to.Addr) != "n" && time.Now().Before(deadline); {
			if err := ask(c, to); err != nil {
				t.Fatal(err)
			}
		}
		if c.by(to.Addr) != "n" {
			t.Error("still under the old secret")
		}
	}
}

// A request that comes over a connection whose notice is over is sent again
// over another one.
func TestRequestUnderASecretThatIsGoneIsSentAgain(t *testing.T) {
	theirs := identity(t, "on")
	to, s := serveAs(t, nothing, theirs)
	c := newClientAs(t, identity(t, "on"))
	if err := ask(c, to); err != nil || c.by(to.Addr) != "o" {
		t.Fatalf("%v, under %q", err, c.by(to.Addr))
	}
	hold(t, theirs, "n")
	before := s.Refused()
	s.listener.mu.Lock()
	for conn := range s.listener.conns {
		conn.expire()
	}
	s.listener.mu.Unlock()
	if err := ask(c, to); err != nil || c.by(to.Addr) != "n" {
		t.Errorf("%v, under %q", err, c.by(to.Addr))
	}
	if n := s.Refused() - before; n != 1 {
		t.Errorf("counted %d times", n)
	}
}
