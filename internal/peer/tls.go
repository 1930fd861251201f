package peer

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Who is a node is decided here, for every connection between nodes.
//
// From each secret follows a certificate authority, the same on every node
// because its key is derived and Ed25519 signs the same bytes the same way.
// Each process signs itself a leaf under each authority, with a key that
// nobody else ever sees, and accepts who has a leaf under one of its own. No
// name, address or file has a part in it.
//
// While secrets change, two nodes may hold different ones. They use the first
// of the client's that both have: the client names its authorities in the
// server name (SNI), the server answers with a leaf under the first that it
// has too, and asks for a leaf under one of its own, from which the client
// picks. The server name holds ids, which say nothing about the secrets.

// MaxSecrets is how many secrets a node can hold: their ids must fit into one
// label of a host name.
const MaxSecrets = 4

const (
	domain = ".peer.groupcache.internal"

	// A leaf is valid from long before it was made, so that clocks may differ
	// by weeks, and replaced long before its end.
	leafBackdate = 60 * 24 * time.Hour
	leafLifetime = 120 * 24 * time.Hour
	leafRenewal  = 30 * 24 * time.Hour

	handshakeTimeout = 5 * time.Second
)

// ErrUnauthorized says that the other side has not shown that it is a node of
// this cluster.
var ErrUnauthorized = errors.New("peer: not a node of this cluster")

// A Secret is what peers need of a secret of the cluster.
type Secret struct {
	ID   string // short and public: lower-case letters and digits
	Seed []byte // of the authority's key, 32 bytes
}

// An Identity is how a node shows others that it belongs to the cluster, and
// finds out whether they do. The zero value is that of a cluster without
// secrets, where everybody belongs.
type Identity struct {
	current atomic.Pointer[authorities]
}

// SetSecrets replaces the secrets. The first is preferred, all are accepted.
func (id *Identity) SetSecrets(secrets []Secret) error {
	if len(secrets) > MaxSecrets {
		return fmt.Errorf("%d secrets are too many: at most %d", len(secrets), MaxSecrets)
	}
	was, is := id.authorities(), new(authorities)
	for _, s := range secrets {
		if a := was.find(s.ID); a != nil {
			is.list = append(is.list, a)
			continue
		}
		a, err := newAuthority(s)
		if err != nil {
			return fmt.Errorf("deriving an authority from secret %s: %w", s.ID, err)
		}
		is.list = append(is.list, a)
	}
	if slices.Equal(was.list, is.list) {
		return nil
	}
	is.prepare()
	id.current.Store(is)
	return nil
}

func (id *Identity) authorities() *authorities {
	if a := id.current.Load(); a != nil {
		return a
	}
	return noAuthorities
}

// Server returns how to answer a connection for a protocol (ALPN) now.
func (id *Identity) Server(protocol string) *tls.Config { return id.authorities().server(protocol) }

// Client returns how to begin a connection for a protocol (ALPN) now.
func (id *Identity) Client(protocol string) *tls.Config { return id.authorities().client(protocol) }

// authorities is what follows from the secrets that a node holds at a time.
// It is immutable.
type authorities struct {
	list []*authority
	pool *x509.CertPool
	name string // what a client sends as server name
}

var noAuthorities = new(authorities)

func (as *authorities) prepare() {
	as.pool = x509.NewCertPool()
	ids := make([]string, len(as.list))
	for i, a := range as.list {
		as.pool.AddCert(a.cert)
		ids[i] = a.id
	}
	as.name = strings.Join(ids, "-") + domain
}

func (as *authorities) find(id string) *authority {
	for _, a := range as.list {
		if a.id == id {
			return a
		}
	}
	return nil
}

// trusts reports whether a connection that was accepted by an authority, or
// without any, would be accepted now.
func (as *authorities) trusts(by *authority) bool {
	if by == nil {
		return len(as.list) == 0
	}
	return slices.Contains(as.list, by)
}

// acceptedBy returns the authority that vouches for the other side of a
// connection.
func (as *authorities) acceptedBy(c tls.ConnectionState) *authority {
	for _, chain := range c.VerifiedChains {
		for _, a := range as.list {
			if chain[len(chain)-1].Equal(a.cert) {
				return a
			}
		}
	}
	return nil
}

func (as *authorities) base(protocol string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		SessionTicketsDisabled: true,
		VerifyConnection: func(c tls.ConnectionState) error {
			// Without ALPN on the other side, crypto/tls goes on without it.
			if c.NegotiatedProtocol != protocol || as.acceptedBy(c) == nil {
				return ErrUnauthorized
			}
			return nil
		},
	}
}

func (as *authorities) server(protocol string) *tls.Config {
	c := as.base(protocol)
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, as.pool
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if len(as.list) == 0 {
			return nil, ErrUnauthorized
		}
		wanted := strings.TrimSuffix(hello.ServerName, domain)
		for id := range strings.SplitSeq(wanted, "-") {
			if a := as.find(id); a != nil {
				return a.leaf(time.Now())
			}
		}
		return as.list[0].leaf(time.Now())
	}
	return c
}

func (as *authorities) client(protocol string) *tls.Config {
	c := as.base(protocol)
	c.RootCAs, c.ServerName = as.pool, as.name
	c.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		for _, a := range as.list {
			leaf, err := a.leaf(time.Now())
			if err != nil {
				return nil, err
			}
			if asked.SupportsCertificate(leaf) == nil {
				return leaf, nil
			}
		}
		return new(tls.Certificate), nil // the server will refuse
	}
	return c
}

// ExplainHandshake says what is probably wrong where crypto/tls tells only how it found
// out.
func ExplainHandshake(err error) error {
	var alert tls.AlertError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)), errors.As(err, &alert) && (alert == alertUnknownCA || alert == alertBadCertificate):
		return fmt.Errorf("the other side has another secret, or another cluster name: %w", err)
	case errors.As(err, new(tls.RecordHeaderError)):
		return fmt.Errorf("the other side has no secret, or is no node: %w", err)
	}
	return err
}

// Alerts of RFC 8446 §6.2 by which the other side refuses a certificate.
const (
	alertBadCertificate tls.AlertError = 42
	alertUnknownCA      tls.AlertError = 48
)

// An authority signs for who knows one secret.
type authority struct {
	id   string
	key  ed25519.PrivateKey
	cert *x509.Certificate

	mu      sync.Mutex // guards below
	minted  *tls.Certificate
	renewAt time.Time
}

// newAuthority makes the same authority on every node.
func newAuthority(s Secret) (*authority, error) {
	if len(s.Seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("a seed of %d bytes, not %d", len(s.Seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(s.Seed)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "groupcache cluster " + s.ID},
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 §4.1.2.5
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{id: s.ID, key: key, cert: cert}, nil
}

// leaf returns this process's certificate under the authority.
func (a *authority) leaf(now time.Time) (*tls.Certificate, error) {
	now = now.Round(0) // by the clock that others check it by, which may have been set since
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.minted != nil && now.Before(a.renewAt) && now.After(a.renewAt.Add(-2*leafRenewal)) {
		return a.minted, nil
	}
	minted, err := a.mint(now)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	a.minted, a.renewAt = minted, now.Add(leafRenewal)
	return minted, nil
}

func (a *authority) mint(now time.Time) (*tls.Certificate, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "groupcache node"},
		NotBefore:    now.Add(-leafBackdate),
		NotAfter:     now.Add(leafLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{"*" + domain},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}, nil
}
