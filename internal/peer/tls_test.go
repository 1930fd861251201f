package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// by returns whose secret the client's connection is under.
func (c *Client) by(addr string) string {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if n := c.pool.byAddr[addr]; n != nil && n.conn != nil && n.conn.by != nil {
		return n.conn.by.id[:1]
	}
	return ""
}

func TestAuthorityIsTheSameOnEveryNode(t *testing.T) {
	one, err := newAuthority(secretOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	two, _ := newAuthority(secretOf("a"))
	other, _ := newAuthority(secretOf("b"))
	if !one.cert.Equal(two.cert) {
		t.Error("one secret makes two authorities")
	}
	if one.cert.Equal(other.cert) || bytes.Equal(one.cert.RawSubject, other.cert.RawSubject) {
		t.Error("two secrets make one authority")
	}
	c := one.cert
	if !c.IsCA || c.MaxPathLen != 0 || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign || c.NotBefore.Year() != 2000 || c.NotAfter.Year() != 9999 {
		t.Errorf("%+v", c)
	}
	if _, err := newAuthority(Secret{ID: "x", Seed: []byte("short")}); err == nil {
		t.Error("a short seed makes an authority")
	}
	if err := new(Identity).SetSecrets(make([]Secret, MaxSecrets+1)); err == nil {
		t.Error("any number of secrets is taken")
	}
}

func TestLeafIsReplacedLongBeforeItsEnd(t *testing.T) {
	a, _ := newAuthority(secretOf("a"))
	const day = 24 * time.Hour
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	first, err := a.leaf(start)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for now := start; now.Before(start.Add(400 * day)); now = now.Add(day) {
		leaf, err := a.leaf(now)
		if err != nil {
			t.Fatal(err)
		}
		seen[leaf.Leaf.SerialNumber.String()] = true
		// The other side's clock may be wrong by weeks.
		for _, theirs := range []time.Time{now.Add(-45 * day), now, now.Add(45 * day)} {
			if theirs.Before(leaf.Leaf.NotBefore) || theirs.After(leaf.Leaf.NotAfter) {
				t.Fatalf("on %v the leaf is valid from %v to %v", now, leaf.Leaf.NotBefore, leaf.Leaf.NotAfter)
			}
		}
	}
	if len(seen) < 10 || len(seen) > 20 {
		t.Errorf("%d leaves in 400 days", len(seen))
	}
	if again, _ := a.leaf(start); again == first || start.Before(again.Leaf.NotBefore) || again.Leaf.NotBefore.After(start) {
		t.Error("a clock that was set back leaves a leaf that is not valid yet")
	}
	other, _ := newAuthority(secretOf("a"))
	if theirs, _ := other.leaf(start); theirs.PrivateKey.(ed25519.PrivateKey).Equal(first.PrivateKey) {
		t.Error("two nodes have one key")
	}
}

// TestLeafOfAWrongClock: a node has started with a clock that was years off, and corrected
// since. Others take it in without its being restarted.
func TestLeafOfAWrongClock(t *testing.T) {
	for _, off := range []time.Duration{-400 * 24 * time.Hour, 400 * 24 * time.Hour} {
		a, _ := newAuthority(secretOf("a"))
		now := time.Now()
		if _, err := a.leaf(stepped(now, off)); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
		leaf, err := a.leaf(now)
		if err != nil || now.Before(leaf.Leaf.NotBefore) || now.After(leaf.Leaf.NotAfter) {
			t.Errorf("off by %v: valid from %v to %v, %v", off, leaf.Leaf.NotBefore, leaf.Leaf.NotAfter, err)
		}
	}
}

// TestEntryThatWasAsleep crosses the wire as old as it is.
func TestEntryThatWasAsleep(t *testing.T) {
	e, now := testEntry(nil), time.Now()
	e.Fresh.Received, e.Fetched, e.Sent = now, now, now
	var enc encoder
	appendEntry(&enc, e, stepped(now, 2*time.Hour))
	d := decoder{rest: enc}
	got := d.entry(now, now)
	for what, at := range map[string]time.Time{"received": got.Fresh.Received, "fetched": got.Fetched, "sent": got.Sent} {
		if age := now.Sub(at); age < 2*time.Hour {
			t.Errorf("%s %v ago: %v", what, age, d.err)
		}
	}
}

func TestNodesTalkIfTheyHaveASecretInCommon(t *testing.T) {
	var sets []string
	for _, a := range []string{"", "a", "b", "c"} {
		for _, b := range []string{"", "a", "b", "c"} {
			for _, c := range []string{"", "a", "b", "c"} {
				if a != "" && (b != "" || c == "") && (b == "" || a != b) && (c == "" || a != c && b != c) {
					sets = append(sets, a+b+c)
				}
			}
		}
	}
	if len(sets) != 15 {
		t.Fatalf("%v", sets)
	}
	for _, theirs := range sets {
		to, s := serveAs(t, nothing, identity(t, theirs))
		for _, ours := range sets {
			first := "" // of the client's that both have
			for _, l := range ours {
				if first == "" && strings.ContainsRune(theirs, l) {
					first = string(l)
				}
			}
			before := s.Refused()
			c := newClientAs(t, identity(t, ours))
			err := ask(c, to)
			if (err == nil) != (first != "") {
				t.Errorf("%s asks %s: %v", ours, theirs, err)
			}
			if got := c.by(to.Addr); got != first {
				t.Errorf("%s asks %s under %q", ours, theirs, got)
			}
			if first == "" {
				eventually(t, ours+" is counted by "+theirs, func() bool { return s.Refused() > before })
				if err != nil && !strings.Contains(err.Error(), "another secret") {
					t.Errorf("%s asks %s: %v", ours, theirs, err)
				}
			}
			c.Close() // many idle connections, each of which is pinged, keep a busy machine busy
		}
	}
}

func (a *authority) clientOnly() *tls.Config {
	as := &authorities{list: []*authority{a}}
	as.prepare()
	return as.client(protocolHTTP2)
}

func TestClocksMayDifferByWeeks(t *testing.T) {
	id := identity(t, "a").authorities()
	for _, test := range []struct {
		skew time.Duration
		ok   bool
	}{{0, true}, {-45 * 24 * time.Hour, true}, {45 * 24 * time.Hour, true}, {-100 * 24 * time.Hour, false}, {200 * 24 * time.Hour, false}} {
		ours, theirs := net.Pipe()
		server, client := id.server(protocolHTTP2), id.client(protocolHTTP2)
		client.Time = func() time.Time { return time.Now().Add(test.skew) }
		failed := make(chan error, 1)
		go func() {
			failed <- tls.Server(theirs, server).Handshake()
			theirs.Close()
		}()
		err := tls.Client(ours, client).Handshake()
		ours.Close()
		if got := err == nil; got != test.ok {
			t.Errorf("a clock that is off by %v: %v, %v", test.skew, err, <-failed)
		}
	}
}

func TestNodeWithASecretDoesNotTalkToOneWithout(t *testing.T) {
	to, s := serveAs(t, rejecting(t), new(Identity))
	if err := ask(newClientAs(t, identity(t, "a")), to); err == nil {
		t.Error("a client with a secret asks in plaintext")
	}
	eventually(t, "it is counted", func() bool { return s.Refused() > 0 })
	to, s = serveAs(t, rejecting(t), identity(t, "a"))
	if err := ask(newClient(t), to); err == nil {
		t.Error("a server with a secret answers in plaintext")
	}
	eventually(t, "it is counted", func() bool { return s.Refused() > 0 })
}

// counting is a listener that counts connections.
type counting struct {
	net.Listener
	mu    sync.Mutex
	conns int
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns++
		l.mu.Unlock()
	}
	return c, err
}

func TestManyCallsDialOnce(t *testing.T) {
	for _, letters := range []string{"", "a"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		counted := &counting{Listener: l}
		s := NewServer(nothing, identity(t, letters))
		go s.Serve(counted)
		t.Cleanup(func() { s.Close() })
		c := newClientAs(t, identity(t, letters))
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := ask(c, Node{Name: "x", Addr: l.Addr().String()}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		counted.mu.Lock()
		if counted.conns != 1 {
			t.Errorf("secret %q: %d connections", letters, counted.conns)
		}
		counted.mu.Unlock()
	}
}

func BenchmarkHandshake(b *testing.B) {
	for _, letters := range []string{"", "a"} {
		b.Run("secret="+letters, func(b *testing.B) {
			id := identity(b, letters)
			to, _ := serveAs(b, nothing, id)
			for b.Loop() {
				c := NewClient(id)
				if err := ask(c, to); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}
