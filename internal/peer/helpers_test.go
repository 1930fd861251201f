package peer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// backend is a Backend of functions.
type backend struct {
	lookup  func(context.Context, *Query, *Answer)
	publish func(context.Context, *Publication) (store.Generation, rfc9111.Reason)
	learn   func(*Query)
	purge   func([]store.Purge)
	purges  func() ([]store.Purge, time.Time)
	chunk   func(ChunkID) []byte
	put     func(ChunkID, []byte)
	full    bool // there is no memory for anything
	take    func(*Query, *store.Entry, []byte)
	heard   []store.PurgeID
}

func (b backend) Lookup(q *Query, a *Answer) {
	a.Later(func(ctx context.Context) { b.lookup(ctx, q, a) })
}

func (b backend) Learn(q *Query) { b.learn(q) }
func (b backend) Purge(purges []store.Purge, _ func(int64) bool) ([]store.Purge, bool) {
	b.purge(purges)
	return nil, true
}
func (b backend) PurgeOldest(purges []store.Purge, _ time.Time)  { b.purge(purges) }
func (b backend) Purges() ([]store.Purge, time.Time)             { return b.purges() }
func (b backend) Chunk(id ChunkID) []byte                        { return b.chunk(id) }
func (b backend) PutChunk(id ChunkID, chunk []byte)              { b.put(id, chunk) }
func (b backend) TakeOver(q *Query, e *store.Entry, body []byte) { b.take(q, e, body) }
func (b backend) Heard(time.Time) ([]store.PurgeID, bool)        { return b.heard, true }
func (b backend) Reserve(int64) (func(), bool)                   { return func() {}, !b.full }
func (b backend) Publish(ctx context.Context, p *Publication) (store.Generation, rfc9111.Reason) {
	return b.publish(ctx, p)
}

func serve(t testing.TB, b Backend) (Node, *Server) {
	t.Helper()
	return serveAs(t, b, new(Identity))
}

func serveAs(t testing.TB, b Backend, id *Identity) (Node, *Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(b, id)
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return Node{Name: "owner", Addr: l.Addr().String()}, s
}

func newClient(t testing.TB) *Client { return newClientAs(t, new(Identity)) }

func newClientAs(t testing.TB, id *Identity) *Client {
	c := NewClient(id)
	t.Cleanup(c.Close)
	return c
}

func testEntry(body []byte) *store.Entry {
	e := &store.Entry{
		Status: 200,
		Size:   int64(len(body)), Digest: store.Digest(body), Generation: 7,
		Fresh: rfc9111.Freshness{
			Received: time.Now().Add(-10 * time.Second), InitialAge: 3 * time.Second, Lifetime: time.Minute,
			StaleWhileRevalidate: time.Second, StaleIfError: time.Hour, MustRevalidate: true, SharedAuth: true, Immutable: true,
		},
		Fetched: time.Now().Add(-15 * time.Second), Sent: time.Now().Add(-11 * time.Second),
	}
	e.SetFields([]store.Field{{Name: "Content-Type", Value: "text/plain"}, {Name: "X-A", Value: "1"}, {Name: "X-A", Value: "2"}})
	e.SetChoice(store.VariantKey{Vary: []string{"Accept-Encoding"}, Selected: store.Selection{1, 2, 3}})
	e.SetLabels("https://a.test/b?c", []string{"t1", "t2"}, []string{"g"})
	return e
}

func fieldsOf(e *store.Entry) []store.Field {
	var fields []store.Field
	for name, value := range e.Fields() {
		fields = append(fields, store.Field{Name: name, Value: value})
	}
	return fields
}

const (
	patience = 30 * time.Second // with what a busy machine may take long for
	skew     = 5 * time.Second  // between two readings of the clock
)

// pieces is a Body.
type pieces struct {
	rest []string
	end  error
}

func (p *pieces) Next(context.Context, func()) ([]byte, Stored, error) {
	if len(p.rest) == 0 {
		return nil, Stored{}, p.end
	}
	next := p.rest[0]
	p.rest = p.rest[1:]
	return []byte(next), Stored{}, nil
}

// sink is a Sink for tests.
type sink struct {
	io.Writer
	stored []Stored
}

func (s *sink) Stored(next Stored) error {
	s.stored = append(s.stored, next)
	return nil
}

func (s *sink) Ahead(int64, []byte) {}

func into(w io.Writer) Sink { return &sink{Writer: w} }

// rejecting is a backend to which nothing may get through.
func rejecting(t *testing.T) Backend {
	return backend{
		func(context.Context, *Query, *Answer) { t.Error("nonsense was looked up") },
		func(context.Context, *Publication) (store.Generation, rfc9111.Reason) {
			t.Error("nonsense was published")
			return 0, rfc9111.None
		},
		func(*Query) { t.Error("nonsense was learned") },
		func([]store.Purge) { t.Error("nonsense was purged") },
		func() ([]store.Purge, time.Time) {
			t.Error("purges were handed to a stranger")
			return nil, time.Time{}
		},
		func(ChunkID) []byte {
			t.Error("a chunk was handed to a stranger")
			return nil
		},
		func(ChunkID, []byte) { t.Error("a stranger's chunk was kept") },
		false,
		func(*Query, *store.Entry, []byte) { t.Error("nonsense was taken over") },
		nil,
	}
}

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

func sharedOf(c *Client, to Node) *muxClient {
	conn := c.connOf(to)
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return conn.shared
}

// lookUp looks up a key, and wants a kind of answer.
func lookUp(t *testing.T, c *Client, to Node, k store.Key, want ReplyKind) *Reply {
	t.Helper()
	reply, err := c.Lookup(t.Context(), to, NewQuery("g", k, nil, nil), patience)
	if err != nil || reply.Kind != want {
		t.Fatalf("%+v, %v", reply, err)
	}
	return reply
}

// leases is a backend that gives leases, and tells when they are over.
func leases() (backend, chan struct{}) {
	over := make(chan struct{}, 10)
	return backend{lookup: func(ctx context.Context, _ *Query, a *Answer) {
		if a.Lease(Ticket{Lease: 1}, nil) == nil {
			<-ctx.Done()
		}
		over <- struct{}{}
	}}, over
}

func soon(t *testing.T, over <-chan struct{}) {
	t.Helper()
	select {
	case <-over:
	case <-time.After(patience):
		t.Fatal("it lasts")
	}
}

// frames returns what some messages look like on the wire.
func wire(write func(*frameWriter)) []byte {
	var b bytes.Buffer
	w := frameWriter{w: &b}
	write(&w)
	_ = w.flush()
	return b.Bytes()
}

// stepped returns a reading of the clock as it would be had its settable part been set
// forward, or back, by whole seconds: what suspending a machine or correcting its clock does.
func stepped(t time.Time, by time.Duration) time.Time {
	*(*int64)(unsafe.Pointer(&t)) += int64(by/time.Second) << 30 // the seconds of a time.Time that has both parts
	return t
}
