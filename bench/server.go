package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"

	_ "github.com/caddy-groupcache/caddy-groupcache" // the nodes are this program
)

// A site is what one port of a Caddy process serves, with HTTP/1.1 and HTTP/2.
type site struct {
	addr   string
	secure bool // it speaks TLS
}

// target returns a target at the site for answers of 200 with a body of a size.
func (s site) target(http2 bool, size int, path func(int64) string) *target {
	return &target{addr: s.addr, http2: http2, tls: s.secure, path: path, status: http.StatusOK, length: int64(size)}
}

// always is a path that does not change.
func always(path string) func(int64) string { return func(int64) string { return path } }

// A node is a Caddy process with one site for each of the directives that are
// compared.
type node struct {
	*harness.Node
	addrs []string // of all sites

	cache   site // groupcache and reverse_proxy
	lane    site // the same with the express lane
	inside  site // groupcache and a handler in the same process
	ceiling site
	full    site // the ceiling with three more header fields
	respond site
	files   site
	proxy   site // reverse_proxy alone
	encoded site // groupcache, and behind it encode and reverse_proxy
	encode  site // these two alone

	// The same over TLS.
	cacheTLS, laneTLS, ceilingTLS site

	costly   site // groupcache with options that look at requests, and a handler
	costless site // the handler alone
}

// A cluster is what nodes have in common.
type cluster struct {
	sizes   []string // cache_size of each node
	secret  string
	compare bool // the nodes have the sites to compare with, too
	costly  bool // the nodes have the sites for what clients can make a request cost
}

// lab is where servers run during one session.
type lab struct {
	dir    string // for configs, logs and files
	origin string
	count  int // of clusters started
}

// certificate returns the files of a certificate and its key.
func (l *lab) certificate() string {
	return filepath.Join(l.dir, "cert.pem") + " " + filepath.Join(l.dir, "key.pem")
}

// makeCertificate writes these files.
func (l *lab) makeCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certFile, keyFile, _ := strings.Cut(l.certificate(), " ")
	return errors.Join( // other caches read them as another user
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o644),
	)
}

// startOrigin starts the upstream, and makes the certificate of all servers.
func (l *lab) startOrigin(ctx context.Context) (*harness.Process, error) {
	if err := l.makeCertificate(); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	l.origin = addr
	return l.start(ctx, "origin", addr, harness.Self(roleOrigin, addr))
}

// startCluster starts the nodes of a cluster and returns when all see each other.
func (l *lab) startCluster(ctx context.Context, c cluster) (nodes []*node, err error) {
	l.count++
	all, err := harness.Bench.Nodes(len(c.sizes), filepath.Join(l.dir, strconv.Itoa(l.count)))
	if err != nil {
		return nil, err
	}
	for i, n := range all {
		n.Global = "grace_period 1s\n\tlog {\n\t\tlevel WARN\n\t}\n"
		n.App = "cache_size " + c.sizes[i]
		if c.secret != "" {
			n.App += "\n\t\tsecret " + c.secret
		}
		node, err := l.node(n, c)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
	if err := harness.StartAll(ctx, all...); err != nil {
		return nil, err
	}
	for _, n := range nodes {
		for _, addr := range n.addrs {
			if err := n.AwaitListener(ctx, addr); err != nil {
				endAll(nodes)
				return nil, err
			}
		}
	}
	return nodes, nil
}

// newSecret returns a secret as caddy groupcache keygen makes them.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// endAll ends nodes. How they end is no matter here.
func endAll(nodes []*node) {
	var all []*harness.Node
	for _, n := range nodes {
		all = append(all, n.Node)
	}
	_ = harness.EndAll(all...)
}

// node adds the sites to a node.
func (l *lab) node(at *harness.Node, c cluster) (*node, error) {
	n := &node{Node: at}
	add := func(s *site, body string) error {
		var err error
		if s.addr, err = freeAddr(); err != nil {
			return err
		}
		n.addrs = append(n.addrs, s.addr)
		lane, scheme, certificate, protocols := "", "http", "", "h1 h2c"
		if s.secure {
			scheme, certificate, protocols = "https", "tls "+l.certificate()+"\n\t", "h1 h2"
		}
		if s == &n.lane || s == &n.laneTLS {
			lane = "\t\tlistener_wrappers {\n\t\t\tgroupcache\n\t\t}\n"
		}
		at.Global += fmt.Sprintf("\tservers %s {\n\t\tprotocols %s\n%s\t}\n", s.addr, protocols, lane)
		at.Sites += fmt.Sprintf("\n%s://:%s {\n\tbind 127.0.0.1\n\t%s%s\n}\n", scheme, port(s.addr), certificate, body)
		return nil
	}
	proxy := "reverse_proxy " + l.origin
	// Each site has a group of its own: the ports of nodes differ here, and nodes share a
	// group that stands at several listeners only by equal ports.
	err := errors.Join(
		add(&n.cache, "groupcache\n\t"+proxy),
		add(&n.lane, "groupcache {\n\t\tgroup lane\n\t\texpress\n\t}\n\t"+proxy),
		add(&n.inside, "groupcache {\n\t\tgroup inside\n\t}\n\tbench_ceiling"),
	)
	at.HTTP = n.cache.addr
	if c.costly {
		err = errors.Join(err, add(&n.costly, "groupcache {\n\t\tgroup costly\n\t\tquery ignore utm_*\n\t\tcookies ignore _ga*\n\t}\n\t"+costlyRoute()), add(&n.costless, costlyRoute()))
	}
	if !c.compare {
		return n, err
	}
	var responses []string
	for size, body := range bodies {
		responses = append(responses, "respond /"+size+" `"+string(body)+"`")
		if err := os.WriteFile(filepath.Join(l.dir, size+".html"), body, 0o600); err != nil {
			return nil, err
		}
	}
	n.cacheTLS.secure, n.laneTLS.secure, n.ceilingTLS.secure = true, true, true
	return n, errors.Join(err,
		add(&n.cacheTLS, "groupcache {\n\t\tgroup secure\n\t}\n\t"+proxy),
		add(&n.laneTLS, "groupcache {\n\t\tgroup secure-lane\n\t\texpress\n\t}\n\t"+proxy),
		add(&n.ceilingTLS, "bench_ceiling"),
		add(&n.ceiling, "bench_ceiling"),
		add(&n.full, "bench_ceiling full"),
		add(&n.respond, setting("Content-Length")+strings.Join(responses, "\n\t")),
		// It sends Accept-Ranges beside what it has of its own.
		add(&n.files, setting("Content-Length", "Content-Type", "Etag", "Last-Modified", "X-Request-Time")+"root * "+l.dir+"\n\tfile_server"),
		add(&n.proxy, proxy),
		add(&n.encoded, "groupcache {\n\t\tgroup encoded\n\t}\n\tencode gzip\n\t"+proxy),
		add(&n.encode, "encode gzip\n\t"+proxy),
	)
}

// costlyRoute answers all requests with 1 KiB, which varies by what its path says.
func costlyRoute() string {
	return `route {
		header Cache-Control max-age=86400
		header Etag "\"1\""
		header /vary Vary "Accept-Encoding, Accept-Language, X-Variant"
		header /variants Vary X-Variant
		header /cookies Vary Cookie
		respond "` + strings.Repeat("x", 1<<10) + `"
	}`
}

// setting returns the directive that sets all fields but some.
func setting(but ...string) string {
	var s strings.Builder
	s.WriteString("header {\n")
	for _, f := range fields {
		if !slices.Contains(but, f[0]) {
			fmt.Fprintf(&s, "\t\t%s %q\n", f[0], f[1])
		}
	}
	s.WriteString("\t}\n\t")
	return s.String()
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
