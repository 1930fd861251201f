//go:build linux

package caddygroupcache_test

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/gossip"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
)

var hostileFor = flag.Duration("hostile", 4*time.Second, "how long the hostile node of TestOneHostileNode goes on")

// A hostileNode is a member of the cluster, and owns keys. What it answers is what a node
// answers, changed; what it sends is what it has been sent, changed.
type hostileNode struct {
	t      *testing.T
	nodes  cluster // the others
	honest string  // where it gets answers
	inside *http.Transport
	wire   *http.Transport
	scheme string // of the others
	sent   atomic.Int64

	// With the cluster's secret; without one, they are nil.
	identity *peer.Identity
	packets  cipher.AEAD
	forger   *gossip.Membership // in whose name packets are sealed
	count    atomic.Uint64

	mu     sync.Mutex // guards below
	random *rand.Rand
	heard  []overheard
}

type overheard struct {
	path string
	body []byte
}

// hostileLife is the life of the hostile node's process.
const hostileLife = 4711

// startHostile has a hostile node join some nodes. It has their secret, if there is one.
func startHostile(t *testing.T, nodes cluster, secret string) *hostileNode {
	t.Helper()
	h := &hostileNode{t: t, nodes: nodes, random: seed.Of(t).Rand(), scheme: "http://"}
	h.inside = &http.Transport{Protocols: new(http.Protocols)}
	h.inside.Protocols.SetUnencryptedHTTP2(true)
	h.wire = h.inside
	var keys []gossip.Keys
	if secret != "" {
		keys = h.know(secret)
	}
	n := node.New("hostile", 16<<20)
	t.Cleanup(n.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := peer.NewServer(node.Owner{Node: n}, n.Identity)
	server.Life = hostileLife
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	h.honest = l.Addr().String()
	face, names := h.answerAt(), []string{"hostile"}
	if secret != "" {
		names = append(names, "forger")
	}
	for i, name := range names {
		cfg := gossip.Config{
			Name: name, Gossip: "127.0.0.1:0", Peers: face, Version: caddygroupcache.ProtocolVersion + uint8(i), // no node calls the forger
			Join: []string{nodes[0].gossip}, Keys: keys, Identity: h.identity, Life: hostileLife + uint64(i),
		}
		members, err := gossip.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = members.Leave(time.Second) })
		for _, p := range nodes {
			eventually(t, p.name+" knows of "+name, func() bool { return p.states()[name] == "alive" })
		}
		if name == "forger" {
			h.forger = members
		}
	}
	return h
}

// know derives what follows from the secret, as each node does.
func (h *hostileNode) know(secret string) []gossip.Keys {
	keys, err := gossip.ReadSecrets("", []string{secret})
	if err != nil {
		h.t.Fatal(err)
	}
	if h.identity, err = caddygroupcache.IdentityOf(secret); err != nil {
		h.t.Fatal(err)
	}
	raw, _ := base64.StdEncoding.DecodeString(secret)
	key, err := hkdf.Key(sha256.New, raw, nil, "caddy-groupcache gossip packets v2", 32)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.packets, err = chacha20poly1305.NewX(key); err != nil {
		h.t.Fatal(err)
	}
	h.scheme, h.wire = "https://", &http.Transport{Protocols: new(http.Protocols)}
	h.wire.Protocols.SetHTTP2(true)
	h.wire.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (&tls.Dialer{Config: h.identity.Client("h2")}).DialContext(ctx, network, addr)
	}
	return keys
}

// answerAt begins to answer the other nodes, and returns where.
func (h *hostileNode) answerAt() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	addr := l.Addr().String()
	face := &http.Server{Handler: h, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	face.Protocols.SetUnencryptedHTTP2(h.identity == nil)
	face.Protocols.SetHTTP2(h.identity != nil)
	if h.identity != nil {
		l = tls.NewListener(l, h.identity.Server("h2"))
	}
	go func() { _ = face.Serve(l) }()
	h.t.Cleanup(func() { _ = face.Close() })
	return addr
}

// draw returns a random number below n.
func (h *hostileNode) draw(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.random.IntN(n)
}

// ServeHTTP answers as a node does, and changes one piece in four.
func (h *hostileNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hears, out := io.Pipe()
	go func() {
		var all bytes.Buffer
		_, _ = io.Copy(out, io.TeeReader(io.LimitReader(r.Body, 1<<20), &limitedBuffer{&all, 64 << 10}))
		_ = out.Close()
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.heard) < 500 {
			h.heard = append(h.heard, overheard{r.URL.Path, all.Bytes()})
		}
	}()
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+h.honest+r.URL.Path, hears)
	if err != nil {
		return
	}
	req.ContentLength = r.ContentLength
	resp, err := h.inside.RoundTrip(req)
	if err != nil {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	piece := make([]byte, 16<<10)
	for {
		n, err := resp.Body.Read(piece)
		said := piece[:n]
		if n > 0 && h.draw(4) == 0 {
			said = h.changed(said)
		}
		if _, failed := w.Write(said); failed != nil || err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}

// A limitedBuffer takes so many bytes, and forgets the rest.
type limitedBuffer struct {
	*bytes.Buffer
	limit int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	_, _ = l.Buffer.Write(p[:max(min(len(p), l.limit-l.Len()), 0)])
	return len(p), nil
}

// changed returns a message with something wrong.
func (h *hostileNode) changed(b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + h.draw(3) {
		if len(b) < 8 {
			return append(b, make([]byte, h.draw(64))...)
		}
		at := h.draw(len(b) - 4)
		switch h.draw(7) {
		case 0:
			b[at] ^= 1 << h.draw(8)
		case 1:
			b[at] = byte(h.draw(256))
		case 2:
			b = b[:at]
		case 3: // a length, perhaps
			binary.BigEndian.PutUint32(b[at:], []uint32{1<<32 - 1, 1 << 31, 1 << 20, 300_000, 0}[h.draw(5)])
		case 4:
			b = append(b[:at:at], b[h.draw(len(b)):]...)
		case 5:
			b = append(b, b[at:]...)
		case 6:
			b = append(b[:at:at], append(bytes.Repeat([]byte{0xff}, h.draw(12)), b[at:]...)...)
		}
	}
	return b
}

// attack sends until ctx ends.
func (h *hostileNode) attack(ctx context.Context) {
	for ctx.Err() == nil {
		p := h.nodes[h.draw(len(h.nodes))]
		h.sent.Add(1)
		switch h.draw(10) {
		case 0:
			h.halfSend(ctx, p)
		case 1:
			h.throw("udp", p.gossip, h.sealed(p, h.gossip(2000)))
		case 2:
			h.throw("tcp", p.gossip, h.gossip(40_000))
		default:
			h.post(ctx, p)
		}
	}
}

// message returns something that was heard, changed, or as it was.
func (h *hostileNode) message() overheard {
	h.mu.Lock()
	if len(h.heard) == 0 {
		h.mu.Unlock()
		return overheard{"/1/lookup", make([]byte, 100)}
	}
	m := h.heard[h.random.IntN(len(h.heard))]
	other := h.heard[h.random.IntN(len(h.heard))]
	h.mu.Unlock()
	if h.draw(8) > 0 {
		m.body = h.changed(m.body)
	}
	if h.draw(8) == 0 {
		m.path = other.path
	}
	return m
}

func (h *hostileNode) post(ctx context.Context, p *process) {
	m := h.message()
	ctx, end := context.WithTimeout(ctx, time.Duration(50+h.draw(300))*time.Millisecond)
	defer end()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.scheme+p.peers+m.path, bytes.NewReader(m.body))
	if err != nil {
		return
	}
	if resp, err := h.wire.RoundTrip(r); err == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, int64(h.draw(64<<10)))
		resp.Body.Close()
	}
}

// halfSend begins many requests at once, and ends none.
func (h *hostileNode) halfSend(ctx context.Context, p *process) {
	ctx, end := context.WithTimeout(ctx, time.Second)
	defer end()
	var all sync.WaitGroup
	for range 200 {
		m := h.message()
		head := binary.BigEndian.AppendUint32([]byte("q"), 200_000)
		hangs, begin := io.Pipe()
		all.Go(func() {
			_, _ = begin.Write(append(head, make([]byte, 150_000)...))
			<-ctx.Done()
			_ = begin.Close()
		})
		all.Go(func() {
			defer hangs.Close()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.scheme+p.peers+m.path, hangs)
			if err != nil {
				return
			}
			r.ContentLength = 200_005
			if resp, err := h.wire.RoundTrip(r); err == nil {
				resp.Body.Close()
			}
		})
	}
	all.Wait()
}

// sealed returns a packet as the forger would send it to a node.
func (h *hostileNode) sealed(p *process, packet []byte) []byte {
	if h.packets == nil {
		return packet
	}
	head := make([]byte, 24, 24+chacha20poly1305.NonceSizeX)
	for _, m := range h.forger.Members() {
		if m.Name == p.name {
			binary.BigEndian.PutUint64(head, m.Life)
		}
	}
	binary.BigEndian.PutUint64(head[8:], hostileLife+1)
	binary.BigEndian.PutUint64(head[16:], 1<<32+h.count.Add(1))
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	binary.BigEndian.PutUint64(nonce, h.count.Add(1))
	return h.packets.Seal(append(head, nonce...), nonce, packet, head)
}

// gossip returns what looks like a message of memberlist, up to its content.
func (h *hostileNode) gossip(limit int) []byte {
	const label = "caddy-groupcache"
	b := append([]byte{244, byte(len(label))}, label...)
	b = append(b, byte(h.draw(14)))
	for range h.draw(6) {
		b = append(b, [][]byte{
			{0x83}, {0x80}, []byte("\xa5Nodes"), []byte("\xacUserStateLen"), []byte("\xa4Join"), []byte("\xa4Node"), []byte("\xa4Addr"), []byte("\xa4Meta"), []byte("\xa3Vsn"),
			{0xce, 0, 0x0f, 0xff, 0xff}, {0xc3}, {0xdd, 0xff, 0xff, 0xff, 0xff}, {0xdb, 0x7f, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0x91}, 1000), {1},
		}[h.draw(15)]...)
	}
	return append(b, make([]byte, h.draw(limit))...)
}

func (h *hostileNode) throw(network, addr string, b []byte) {
	conn, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if network == "tcp" && h.identity != nil {
		conn = tls.Client(conn, h.identity.Client("groupcache-gossip/2"))
	}
	_, _ = conn.Write(b)
	_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	_, _ = conn.Read(make([]byte, 1))
}

// TestOneHostileNode: the others go on, serve what is right, and take no more than
// cache_size + 128 MiB in addition.
//
//	go test -run TestOneHostileNode -v -timeout 30m -hostile 10m .
func TestOneHostileNode(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector's own memory is many times as much")
	}
	t.Run("without a secret", func(t *testing.T) { testOneHostileNode(t, "") })
	t.Run("with the secret", func(t *testing.T) {
		var secret [32]byte
		_, _ = cryptorand.Read(secret[:]) // never fails
		testOneHostileNode(t, base64.StdEncoding.EncodeToString(secret[:]))
	})
}

func testOneHostileNode(t *testing.T, secret string) {
	page := func(path string) string { return "page of " + path }
	c := newCluster(t, 2, startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Cache-Tag", "news")
		fmt.Fprint(w, page(r.URL.Path))
	}), "")
	const size = 64 << 20
	for _, p := range c {
		p.app = "cache_size 64MiB"
		if secret != "" {
			p.app += "\n\tsecret " + secret
		}
		p.start()
	}
	c.awaitMembers()
	var before []int64
	for _, p := range c {
		p.get("/warm")
		before = append(before, p.memory())
	}
	h := startHostile(t, c, secret)
	ctx, end := context.WithTimeout(t.Context(), *hostileFor)
	defer end()
	var all sync.WaitGroup
	for range 24 {
		all.Go(func() { h.attack(ctx) })
	}
	asked, wrong := 0, 0
	for ctx.Err() == nil { // visitors of pages that it owns in part
		p, path := c[asked%2], fmt.Sprint("/", asked/4%2000)
		a := p.get(path)
		if a.err != nil || a.status != 200 {
			t.Errorf("%s%s: status %d, %v", p.name, path, a.status, a.err)
		}
		if asked++; a.body != page(path) {
			wrong++ // it is trusted with the cache
		}
	}
	all.Wait()
	h.mu.Lock()
	t.Logf("%d kinds of messages were heard", len(h.heard))
	if len(h.heard) == 0 {
		t.Error("no node has asked the hostile one")
	}
	h.mu.Unlock()
	t.Logf("%d messages; %d pages, of which %d were not the upstream's", h.sent.Load(), asked, wrong)
	for i, p := range c {
		select {
		case <-p.died:
			t.Fatalf("%s has ended: %v", p.name, p.cmd.ProcessState)
		default:
		}
		s, err := p.status()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", p.name, s.Memory)
		figure(t, p.name+": growth of resident memory in MiB", (p.memory()-before[i])>>20, (size+128<<20)>>20, (size+128<<20)>>20)
	}
}
