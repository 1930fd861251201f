package peer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// secretOf makes the secret of a letter.
func secretOf(letter string) Secret {
	return Secret{ID: strings.Repeat(letter, 12), Seed: bytes.Repeat([]byte(letter), 32)}
}

// identity returns an Identity that holds the secrets of some letters.
func identity(t testing.TB, letters string) *Identity {
	t.Helper()
	id := new(Identity)
	hold(t, id, letters)
	return id
}

func hold(t testing.TB, id *Identity, letters string) {
	t.Helper()
	var secrets []Secret
	for _, l := range letters {
		secrets = append(secrets, secretOf(string(l)))
	}
	if err := id.SetSecrets(secrets); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// nothing is a backend that has nothing.
var nothing = backend{lookup: func(_ context.Context, _ *Query, a *Answer) { a.None(Ticket{}, nil) }}

func ask(c *Client, to Node) error {
	reply, err := c.Lookup(context.Background(), to, NewQuery("g", store.Key{1}, nil, nil), patience)
	if err == nil {
		reply.Close()
	}
	return err
}

// by returns whose secret the client's connection is under.
func (c *Client) by(addr string) string {
	c.lines.mu.Lock()
	defer c.lines.mu.Unlock()
	if n := c.lines.byAddr[addr]; n != nil && n.conn != nil && n.conn.by != nil {
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
			}
			c.Close() // many idle connections, each of which is pinged, keep a busy machine busy
		}
	}
}

// stranger returns how somebody without the secret begins a connection, with a
// certificate of an authority of another secret, which may take the name of ours.
func stranger(t *testing.T, name string) *tls.Config {
	t.Helper()
	other, err := newAuthority(secretOf("z"))
	if err != nil {
		t.Fatal(err)
	}
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, Issuer: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"*" + domain},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	parent := *other.cert
	parent.RawSubject, parent.Subject = nil, pkix.Name{CommonName: name}
	der, err := x509.CreateCertificate(rand.Reader, template, &parent, public, other.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return leaf, nil },
	}
}

// Each kind of stranger is refused and counted, and gets to see nothing but
// what a handshake shows.
func TestStrangersAreRefusedWhereThereIsASecret(t *testing.T) {
	to, s := serveAs(t, rejecting(t), identity(t, "a"))
	ours := func(change func(*tls.Config)) *tls.Config {
		c := identity(t, "a").Client(protocolHTTP2)
		change(c)
		return c
	}
	http1 := "POST /1/lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
	for name, test := range map[string]struct {
		tls  *tls.Config // nil: none
		send string
	}{
		"plain HTTP/1.1":               {nil, http1},
		"h2c":                          {nil, preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
		"noise":                        {nil, strings.Repeat("\xa5", 4096)},
		"half a hello":                 {nil, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		"no certificate":               {&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, preface},
		"TLS 1.2":                      {ours(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), preface},
		"another secret":               {stranger(t, "groupcache cluster zzzzzzzzzzzz"), preface},
		"another secret, ours by name": {stranger(t, "groupcache cluster aaaaaaaaaaaa"), preface},
		"no ALPN":                      {ours(func(c *tls.Config) { c.NextProtos, c.VerifyConnection = nil, nil }), preface},
		"ALPN for HTTP/1.1":            {ours(func(c *tls.Config) { c.NextProtos, c.VerifyConnection = []string{"http/1.1"}, nil }), http1},
		"ALPN for gossip":              {ours(func(c *tls.Config) { c.NextProtos, c.VerifyConnection = []string{"gossip"}, nil }), preface},
		"a leaf as authority":          {leafAsAuthority(t), preface},
	} {
		t.Run(name, func(t *testing.T) {
			before := s.Refused()
			conn, err := net.Dial("tcp", to.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(handshakeTimeout)) // when it is closed in any case
			if test.tls != nil {
				conn = tls.Client(conn, test.tls)
			}
			_, _ = io.WriteString(conn, test.send) // the handshake may fail here, or in the read
			if test.tls == nil {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			if answer, err := io.ReadAll(conn); err == nil && len(answer) > 7 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("answered %q, %v", answer, err) // an alert has 7 bytes
			}
			eventually(t, "it is counted", func() bool { return s.Refused() > before })
			if n := s.Refused() - before; n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
	if err := ask(newClientAs(t, identity(t, "b")), to); err == nil {
		t.Error("a client takes a server of another secret")
	}
}

// leafAsAuthority is what a node with the secret's leaf, but not the secret,
// could try: to vouch for somebody else.
func leafAsAuthority(t *testing.T) *tls.Config {
	t.Helper()
	a, _ := newAuthority(secretOf("a"))
	leaf, err := a.leaf(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, leaf.Leaf, public, leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	c := a.clientOnly()
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der, leaf.Certificate[0]}, PrivateKey: key}, nil
	}
	return c
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
		if a.Follow() != nil {
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
		c.lines.mu.Lock()
		defer c.lines.mu.Unlock()
		return len(c.lines.conns) == 1
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
		c.lines.mu.Lock()
		defer c.lines.mu.Unlock()
		return c.lines.byAddr[to.Addr].conn
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
					d := s.door
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
			c.lines.mu.Lock()
			defer c.lines.mu.Unlock()
			return len(c.lines.conns) == 0
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
	s.door.mu.Lock()
	for conn := range s.door.conns {
		conn.expire()
	}
	s.door.mu.Unlock()
	if err := ask(c, to); err != nil || c.by(to.Addr) != "n" {
		t.Errorf("%v, under %q", err, c.by(to.Addr))
	}
	if n := s.Refused() - before; n != 1 {
		t.Errorf("counted %d times", n)
	}
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

// However many strangers say nothing, a node gets in, and the strangers hold
// no more connections than there is room for.
func TestStrangersDoNotKeepNodesOut(t *testing.T) {
	for _, letters := range []string{"", "a"} {
		to, s := serveAs(t, nothing, identity(t, letters))
		var idle []net.Conn
		for range maxStrangers + 50 {
			conn, err := net.Dial("tcp", to.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			idle = append(idle, conn)
		}
		if err := ask(newClientAs(t, identity(t, letters)), to); err != nil {
			t.Errorf("secret %q: %v", letters, err)
		}
		s.mu.Lock()
		d := s.door
		s.mu.Unlock()
		d.lobby.mu.Lock()
		if n := d.lobby.waiting.Len(); n > maxStrangers {
			t.Errorf("%d strangers wait", n)
		}
		d.lobby.mu.Unlock()
		idle[0].SetReadDeadline(time.Now().Add(patience))
		if _, err := idle[0].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("who has waited longest stays: %v", err)
		}
	}
}

// What a peer says about another key than it was asked about, or of another
// body than its entry's, is not taken.
func TestAnswersAreCheckedAgainstWhatWasAsked(t *testing.T) {
	body := []byte("hello")
	for name, answer := range map[string]func(a *Answer){
		"another key":           func(a *Answer) { a.key[0]++; a.Hit(testEntry(body), body, 0) },
		"none of another key":   func(a *Answer) { a.key[0]++; a.None(Ticket{}, nil) },
		"lease for another key": func(a *Answer) { a.key[0]++; a.Lease(Ticket{Lease: 1}, nil) },
		"another generation": func(a *Answer) {
			a.say(frameEntry, entryNow(testEntry(body)))
			a.Data(body)
			a.End(store.Digest(body), 8)
		},
		"another digest": func(a *Answer) {
			a.say(frameEntry, entryNow(testEntry(body)))
			a.Data([]byte("hullo"))
			a.End(store.Digest([]byte("hullo")), 7)
		},
		"another size": func(a *Answer) {
			e := testEntry(body)
			e.Size = 4
			a.say(frameEntry, entryNow(e))
			a.Data(body)
			a.End(e.Digest, 7)
		},
		"fill of another key": func(a *Answer) {
			a.Follow()
			a.key[0]++
			a.Header(testEntry(nil))
			a.Data(body)
			a.End(store.Digest(body), 7)
		},
		"more than can be stored": func(a *Answer) {
			e := testEntry(make([]byte, store.ChunkSize))
			e.Size = store.MaxBodySize + 1
			a.Hit(e, make([]byte, store.ChunkSize), 0)
		},
		"content length of another size": func(a *Answer) {
			e := testEntry(body)
			e.SetFields(append(fieldsOf(e), store.Field{Name: "Content-Length", Value: "4"}))
			a.Hit(e, body, 0)
		},
	} {
		to, _ := serve(t, backend{lookup: func(_ context.Context, _ *Query, a *Answer) { answer(a) }})
		reply, err := newClient(t).Lookup(t.Context(), to, NewQuery("g", store.Key{1}, nil, nil), patience)
		if err == nil && reply.Kind == Follow {
			_, err = reply.Header()
		}
		if err == nil && reply.Kind == Hit {
			_, err = reply.Body(into(io.Discard))
		}
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	to, _ := serve(t, backend{publish: func(_ context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
		p.Query.Key[0]++
		return 1, rfc9111.None
	}})
	if _, err := newClient(t).Publish(t.Context(), to, NewQuery("g", store.Key{1}, nil, nil), Ticket{}, testEntry(nil), &pieces{nil, io.EOF}); !errors.Is(err, ErrProtocol) {
		t.Errorf("thanks for another key: %v", err)
	}
}

func TestFieldsThatNoNodeWouldStoreAreDropped(t *testing.T) {
	e := testEntry(nil)
	e.SetFields([]store.Field{
		{Name: "X-Good", Value: "1"}, {Name: "A-Good", Value: "2"}, {Name: "X-Split", Value: "a\r\nSet-Cookie: x=y"},
		{Name: "X-Nul", Value: "a\x00b"}, {Name: "X-Line", Value: "a\nb"}, {Name: "X Space", Value: "a"}, {Name: "", Value: "a"},
		{Name: "x-lower", Value: "a"}, {Name: "Connection", Value: "close"}, {Name: "Transfer-Encoding", Value: "chunked"},
		{Name: "X-Evil\r\nX-Other", Value: "a"}, {Name: ":status", Value: "200"},
	})
	enc := encoder{}
	appendEntry(&enc, e, time.Now())
	d := &decoder{rest: enc}
	got := d.entry(time.Now(), time.Now())
	if err := d.done(); err != nil {
		t.Fatal(err)
	}
	if want := "[{A-Good 2} {X-Good 1}]"; fmt.Sprint(fieldsOf(got)) != want {
		t.Errorf("got %v, want %s", fieldsOf(got), want)
	}
}

func TestReasonsThatNobodyKnowsAreNamed(t *testing.T) {
	to, _ := serve(t, backend{lookup: func(_ context.Context, _ *Query, a *Answer) { a.Bypass(200, time.Hour) }})
	reply, err := newClient(t).Lookup(t.Context(), to, NewQuery("g", store.Key{1}, nil, nil), patience)
	if err != nil || reply.Reason != rfc9111.PeerError {
		t.Errorf("%v, %v", reply, err)
	}
}

func TestGroupNamesThatMetricsWouldNotTakeAreRefused(t *testing.T) {
	to, s := serve(t, rejecting(t))
	before := s.Refused()
	reply, err := newClient(t).Lookup(t.Context(), to, NewQuery("\xff", store.Key{1}, nil, nil), patience)
	if err == nil {
		t.Errorf("%+v", reply)
	}
	if s.Refused() != before+1 {
		t.Error("not counted")
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
