package node

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/peer"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// messagePaths are where a node takes messages from others.
var messagePaths = []string{"/1/calls", "/1/lookup", "/1/publish", "/1/purge", "/1/learn", "/1/chunk", "/1/store", "/1/hand-over"}

// A message is what one node sends another.
type message struct {
	path string
	body []byte
}

// overheard returns what nodes send, as a server that answers nothing hears it.
func overheard(t testing.TB) []message {
	t.Helper()
	var mu sync.Mutex
	var heard []message
	heir := []byte{'q', 0, 0, 0, 0} // what the one who is handed things begins with
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1/hand-over" || r.URL.Path == "/1/calls" {
			_, _ = w.Write(heir)
			_ = http.NewResponseController(w).Flush()
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(300 * time.Millisecond)) // some do not end
		var body bytes.Buffer
		_, _ = io.Copy(&body, r.Body)
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, message{r.URL.Path, body.Bytes()})
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	to := peer.Node{Name: "other", Addr: s.Listener.Addr().String()}
	c := peer.NewClient(new(peer.Identity))
	ctx, end := context.WithTimeout(t.Context(), time.Second)
	defer end()
	body := []byte("some body")
	e := claiming(int64(len(body)))
	e.Digest = store.Digest(body)
	e.SetFields([]store.Field{{Name: "Content-Type", Value: "text/plain"}, {Name: "Vary", Value: "X-A"}})
	e.SetLabels("http://a.test/", []string{"tag"}, []string{"group"})
	q := peer.NewQuery("default", store.Key{1}, http.Header{"X-A": {"1"}}, []string{"X-A"})
	q.Lead = true
	_, _ = c.Lookup(ctx, to, q, 100*time.Millisecond) // a call
	q.Long = true
	_, _ = c.Lookup(ctx, to, q, 100*time.Millisecond) // a request
	_, _ = c.PublishWhole(ctx, to, &peer.Publication{Query: q, Entry: e}, body)
	_ = c.Learn(ctx, to, peer.NewQuery("default", store.Key{1}, http.Header{"No-Vary-Search": {"params"}}, []string{"No-Vary-Search"}))
	_, _ = c.Chunk(ctx, to, peer.ChunkID{Key: store.Key{1}, Generation: 1, Index: 1}, 10, peer.Wait{Begin: time.Second, All: time.Second})
	_ = c.PutChunk(ctx, to, peer.ChunkID{Key: store.Key{1}, Generation: 1, Index: 1}, body, peer.Wait{Begin: time.Second, All: time.Second})
	s.Close() // ends the call, which is heard then
	c.Close()
	mu.Lock()
	defer mu.Unlock()
	var stream bytes.Buffer
	if err := (peer.NewGift(&stream)).Entry("default", store.Key{1}, e, body, true); err != nil {
		t.Fatal(err)
	}
	if err := (peer.NewGift(&stream)).Chunk(peer.ChunkID{Key: store.Key{1}, Generation: 1, Index: 1}, body); err != nil {
		t.Fatal(err)
	}
	heard = append(heard, message{"/1/hand-over", append(stream.Bytes(), 'z', 0, 0, 0, 0)})
	for _, s := range []store.Selector{{Kind: store.All}, {Kind: store.Tag, Value: "tag"}, {Kind: store.URL, Value: "http://a.test/"}, {Kind: store.Prefix, Value: "http://a.test/"}, {Kind: store.Host, Value: "a.test"}} {
		for _, soft := range []bool{false, true} {
			heard = append(heard, message{"/1/purge", peer.EncodePurges([]store.Purge{{ID: store.NewPurgeID(), Group: "default", Soft: soft, Selectors: []store.Selector{s}}}, time.Time{})})
		}
	}
	return heard
}

// FuzzMessages: whatever a node is sent, it does not panic, stays within its memory,
// gives back what it has taken, and serves what it has.
func FuzzMessages(f *testing.F) {
	for _, m := range overheard(f) {
		for i, path := range messagePaths {
			if path == m.path {
				f.Add(uint8(i), m.body)
			}
		}
	}
	n := New("alone", 16<<20)
	f.Cleanup(n.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	s := peer.NewServer(Owner{n}, n.Identity)
	go func() { _ = s.Serve(l) }()
	f.Cleanup(func() { _ = s.Close() })
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	f.Cleanup(transport.CloseIdleConnections)
	panics := guard.Panics()
	f.Fuzz(func(t *testing.T, path uint8, body []byte) {
		ctx, end := context.WithTimeout(t.Context(), time.Second) // some messages have a lease, which lasts
		defer end()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.Addr().String()+messagePaths[int(path)%len(messagePaths)], bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := transport.RoundTrip(r); err == nil {
			_, _ = io.CopyN(io.Discard, resp.Body, 64)
			end()
			resp.Body.Close()
		}
		if now := guard.Panics(); now != panics {
			t.Fatalf("%d panics", now-panics)
		}
		if u := n.Store.Usage(); u.Main.Bytes+u.Hot.Bytes+u.IndexBytes > 16<<20 {
			t.Fatalf("%+v", u)
		}
		k := store.Key{250}
		e := claiming(4)
		e.Fresh.Received, e.Fresh.Lifetime = time.Now(), time.Hour
		n.Store.Commit(n.Store.Namespace("fuzz"), k, e, []byte("body"))
		if got := n.Store.Lookup(k, nil, time.Now()).Entry; got == nil {
			t.Fatal("what was stored after all that is gone")
		}
		for until := time.Now().Add(30 * time.Second); n.Budget.Used() > 0 || n.UnderWay() != (UnderWay{}); time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%d bytes are not given back; %+v", n.Budget.Used(), n.UnderWay())
			}
		}
	})
}
