package caddygroupcache

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-groupcache/caddy-groupcache/internal/inbound"
	"github.com/caddy-groupcache/caddy-groupcache/internal/node"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// newHandler returns a handler on a node, without Caddy around it.
func newHandler(t testing.TB, n *node.Node, set func(*Handler)) *Handler {
	t.Helper()
	h := new(Handler)
	if set != nil {
		set(h)
	}
	h.setDefaults()
	if err := h.check(); err != nil {
		t.Fatal(err)
	}
	h.policy, h.terms = h.options(), h.keyTerms()
	h.logger = zap.NewNop()
	h.node, h.space = n, n.Store.Namespace(h.Group)
	h.denials = new(purgeRefusals)
	shared, _ := unnamed.LoadOrStore(n, new(atomic.Bool))
	h.unnamed = shared.(*atomic.Bool)
	h.named()
	h.counters = new(groupCounters).of(h.Group)
	return h
}

// ownerOf is what answers other nodes.
func ownerOf(n *node.Node) node.Owner { return node.Owner{Node: n} }

// unnamed are whether some handler of a node leaves no Cache-Status, as in its process.
var unnamed sync.Map

// keyOf returns the key of a request.
func keyOf(h *Handler, r *http.Request) (store.Key, bool) {
	a, ok := h.addressOf(r, inbound.FieldsOf(r.Header), requestURI(r))
	return a.Key, ok
}

func newLoneNode(t testing.TB) *node.Node {
	n := node.New("alone", 64<<20)
	t.Cleanup(n.Close)
	return n
}

// request returns a request as Caddy would hand it to the handler.
func request(ctx context.Context, target string, fields ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, caddy.NewReplacer())
	return r.WithContext(ctx)
}

// do runs a request and returns what the client gets. A panic of
// http.ErrAbortHandler, which cuts the connection, makes the status -1.
func do(h *Handler, next caddyhttp.HandlerFunc, r *http.Request) (w *httptest.ResponseRecorder) {
	w = httptest.NewRecorder()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			w.Code = -1
		}
	}()
	if err := h.ServeHTTP(w, r, next); err != nil {
		w.Code = 599
	}
	return w
}

func wantStatus(t *testing.T, w *httptest.ResponseRecorder, want string) {
	t.Helper()
	if got := w.Header().Get("Cache-Status"); !strings.Contains(got, want) {
		t.Errorf("Cache-Status is %q, want %q in it", got, want)
	}
}

// followers runs n requests at the same time and returns what they got.
func followers(n int, get func(i int) *httptest.ResponseRecorder) func() []*httptest.ResponseRecorder {
	var wg sync.WaitGroup
	all := make([]*httptest.ResponseRecorder, n)
	for i := range n {
		wg.Go(func() { all[i] = get(i) })
	}
	return func() []*httptest.ResponseRecorder {
		wg.Wait()
		return all
	}
}

// A testCluster is some nodes with their peer servers, without memberlist.
type testCluster struct {
	nodes    []*node.Node
	handlers []*Handler
	servers  []*peer.Server
	addrs    []peer.Node
}

// newCluster starts nodes on loopback.
func newCluster(t testing.TB, n int) *testCluster {
	t.Helper()
	return newClusterAt(t, n, func(*node.Node) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}

// newClusterInBubble starts nodes inside a synctest bubble. What takes a busy
// machine long takes no time there: nodes that move megabytes, or wait for each
// other, do not seem dead to each other.
func newClusterInBubble(t testing.TB, n int) *testCluster {
	t.Helper()
	net := newNetwork()
	return newClusterAt(t, n, net.attach)
}

func newClusterAt(t testing.TB, n int, listen func(*node.Node) net.Listener) *testCluster {
	t.Helper()
	c := new(testCluster)
	for i := range n {
		node := node.New(fmt.Sprintf("node%d", i), 64<<20)
		listener := listen(node)
		server := peer.NewServer(ownerOf(node), node.Identity)
		go server.Serve(listener)
		t.Cleanup(func() { server.Close(); node.Close() })
		c.nodes = append(c.nodes, node)
		c.servers = append(c.servers, server)
		c.addrs = append(c.addrs, peer.Node{Name: node.Name, Addr: listener.Addr().String()})
		c.handlers = append(c.handlers, newHandler(t, node, func(h *Handler) { h.PeerTimeout = caddy.Duration(2 * time.Second) }))
	}
	for _, node := range c.nodes {
		node.SetRing(c.addrs)
	}
	return c
}

// target returns a path that the node owns.
func (c *testCluster) target(owner int) string {
	for i := 0; ; i++ {
		path := fmt.Sprintf("/%d", i)
		k, _ := keyOf(c.handlers[0], request(context.Background(), path))
		if o, _ := c.nodes[0].Ring.Load().Owner(k); o.Name == c.nodes[owner].Name {
			return path
		}
	}
}

// patience is with what a busy machine may take long for.
const patience = 30 * time.Second

// poll waits until something is so.
func poll(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// waitForCommit waits until a node has stored n responses.
func waitForCommit(t *testing.T, n *node.Node, want int64) {
	t.Helper()
	poll(t, fmt.Sprintf("%s has stored %d responses", n.Name, want), func() bool {
		return n.Store.Namespace(defaultGroup).Entries.Load() >= want
	})
}

func reasonNamed(t *testing.T, name string) rfc9111.Reason {
	t.Helper()
	i := slices.IndexFunc(rfc9111.Reasons(), func(r rfc9111.Reason) bool { return r.String() == name })
	if i < 0 {
		t.Fatalf("no reason %q", name)
	}
	return rfc9111.Reasons()[i]
}

// idle fails the test unless nothing of a node is under way any more, and no memory
// taken.
func idle(t *testing.T, n *node.Node) {
	t.Helper()
	var left node.UnderWay
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if left = n.UnderWay(); left == (node.UnderWay{}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not idle: %+v", n.Name, left)
		}
	}
}

// isStored reports whether a target's body is where it is counted as stored.
func isStored(h *Handler, target string) bool {
	r := request(context.Background(), target)
	k, _ := keyOf(h, r)
	e := h.node.Store.Lookup(k, r.Header, time.Now()).Entry
	if e == nil {
		return false
	}
	_, err := h.node.Store.Body(k, e)
	return err == nil
}

// forget makes a chunk of a large body vanish, as eviction does: the entry gets
// a generation under which the other chunks are stored.
func forget(t *testing.T, n *node.Node, h *Handler, target string, gone int, fields ...string) {
	t.Helper()
	forgetAll(t, n, h, target, []int{gone}, fields...)
}

// forgetAll makes several vanish.
func forgetAll(t *testing.T, n *node.Node, h *Handler, target string, gone []int, fields ...string) {
	t.Helper()
	r := request(t.Context(), target, fields...)
	k, _ := keyOf(h, r)
	e := *n.Store.Lookup(k, r.Header, time.Now()).Entry
	first, err := n.Store.Body(k, &e)
	if err != nil {
		t.Fatal(err)
	}
	was := e.Generation
	e.Generation = store.NewGeneration()
	for i := 1; i < store.Chunks(e.Size); i++ {
		if !slices.Contains(gone, i) {
			b, err := n.Store.Chunk(k, was, i)
			if err != nil {
				t.Fatal(err)
			}
			n.Store.PutChunk(k, e.Generation, i, b, true)
		}
	}
	if n.Store.Commit(h.space, k, &e, first) == nil {
		t.Fatal("not stored")
	}
}

func decoded(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(code string) string {
		plain, _ := url.QueryUnescape(code) // never fails
		return plain
	})
}

var escaped = regexp.MustCompile(`\+|%[0-9a-fA-F]{2}`)

// guardedly calls f as net/http would, which takes any panic for the end of a
// connection.
func guardedly(f func()) {
	defer func() { _ = recover() }()
	f()
}
