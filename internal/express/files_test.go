//go:build linux

package express

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-groupcache/caddy-groupcache/internal/fill"
	"github.com/caddy-groupcache/caddy-groupcache/internal/seed"
	"github.com/caddy-groupcache/caddy-groupcache/internal/store"
)

// large is a site with bodies that are large enough for files, by path.
type large map[string][]byte

func largeBody(random interface{ Uint64() uint64 }, size int) []byte {
	body := make([]byte, 0, size+8)
	for len(body) < size {
		body = fmt.Appendf(body, "%x ", random.Uint64())
	}
	return body[:size]
}

func (l large) Answer(w *Writer, r *http.Request) bool {
	body, ok := l[r.URL.Path]
	if !ok {
		return false
	}
	w.FromFile(store.Key{r.URL.Path[1]}, 1, body)
	w.Status(http.StatusOK)
	w.Field("Content-Length", fmt.Sprint(len(body)))
	w.Send(body)
	return true
}

// serveLarge serves a site on loopback.
func serveLarge(t *testing.T, site large, files *Files, timeout time.Duration) (addr string) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := NewListener(inner, Options{
		Find: func(*http.Request) Site { return site }, Context: context.Background(), Files: files, WriteTimeout: timeout,
	}, new(Open))
	s := &http.Server{Handler: http.NotFoundHandler()}
	go s.Serve(ln) //nolint:errcheck // until it is closed
	t.Cleanup(func() { _ = s.Close() })
	return inner.Addr().String()
}

// A getter asks for bodies on one connection.
type getter struct {
	conn net.Conn
	body []byte
}

func dialLarge(t *testing.T, addr string) *getter {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &getter{conn: conn, body: make([]byte, 2<<20)}
}

func (g *getter) ask(path string) error {
	_, err := io.WriteString(g.conn, "GET "+path+" HTTP/1.1\r\nHost: a.example\r\n\r\n")
	return err
}

// get returns a body, which is valid until the next call.
func (g *getter) get(path string, size int) ([]byte, error) {
	if err := g.ask(path); err != nil {
		return nil, err
	}
	return g.read(size)
}

func (g *getter) read(size int) ([]byte, error) {
	head := len(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
	_, err := io.ReadFull(g.conn, g.body[:head+size])
	return g.body[head : head+size], err
}

// TestHotBodiesAreSentFromFiles: many clients at the same time, bodies of which some find room.
func TestHotBodiesAreSentFromFiles(t *testing.T) {
	random := seed.Of(t).Rand()
	site := large{}
	for i, size := range []int{leastFile - 1, leastFile, 300_001, 1 << 20, 1 << 20} {
		site[fmt.Sprintf("/%c", 'a'+i)] = largeBody(random, size)
	}
	budget := fill.NewBudget(4 << 20)
	files := NewFiles(budget, 2<<20)
	addr := serveLarge(t, site, files, 0)
	var clients sync.WaitGroup
	for range 8 {
		client := dialLarge(t, addr)
		clients.Go(func() {
			for i := range 200 {
				path := fmt.Sprintf("/%c", 'a'+i%len(site))
				if body, err := client.get(path, len(site[path])); err != nil || !bytes.Equal(body, site[path]) {
					t.Errorf("%s: %v, or another body", path, err)
					return
				}
			}
		})
	}
	clients.Wait()
	files.mu.Lock()
	kept := len(files.kept)
	files.mu.Unlock()
	taken := files.Taken()
	if kept < 2 || taken > 2<<20 || budget.Used() != taken {
		t.Errorf("%d files of %d bytes, %d of the budget", kept, taken, budget.Used())
	}
	awaitSent(t, files)
	files.countAnew() // they were sent in this window, or the one before
	files.countAnew()
	if files.open != 0 || files.taken != 0 || budget.Used() != 0 {
		t.Errorf("%d files and %d bytes are left, %d of the budget", files.open, files.taken, budget.Used())
	}
}

// awaitSent waits until no file is being sent: a client has a response before its server knows.
func awaitSent(t *testing.T, files *Files) {
	t.Helper()
	busy := func() bool {
		files.mu.Lock()
		defer files.mu.Unlock()
		for _, one := range files.kept {
			if one.users > 1 {
				return true
			}
		}
		return len(files.kept) != files.open
	}
	for by := time.Now().Add(time.Minute); busy(); runtime.Gosched() {
		if time.Now().After(by) {
			t.Fatal("a file is still being sent")
		}
	}
}

// hot has a body asked for until it has a file.
func hot(t *testing.T, files *Files, id bodyID, body []byte) *file {
	t.Helper()
	for range leastSent {
		if one := files.get(id, body); one != nil {
			return one
		}
	}
	t.Fatal("no file")
	return nil
}

// TestSlowClientsKeepTheirFile: a file that is given up is there, and counted, until it has been
// sent.
func TestSlowClientsKeepTheirFile(t *testing.T) {
	site := large{"/a": largeBody(seed.Of(t).Rand(), 1<<20)}
	budget := fill.NewBudget(1 << 20)
	files := NewFiles(budget, 1<<20)
	hot(t, files, bodyID{store.Key{'a'}, 1}, site["/a"]).release()
	client := dialLarge(t, serveLarge(t, site, files, 0))
	const asked = 16 // more than the buffers of a connection take
	for range asked {
		if err := client.ask("/a"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.read(len(site["/a"])); err != nil {
		t.Fatal(err)
	}
	files.countAnew()
	files.mu.Lock()
	for id, one := range files.kept {
		files.drop(id, one)
	}
	open := files.open
	files.mu.Unlock()
	if used := budget.Used(); open != 1 || used != 1<<20 {
		t.Errorf("%d files while one is being sent, %d bytes of the budget", open, used)
	}
	for range asked - 1 {
		if body, err := client.read(len(site["/a"])); err != nil || !bytes.Equal(body, site["/a"]) {
			t.Fatalf("%v, or another body", err)
		}
	}
}

// TestFilesThatAreSentMakeNoRoom: a file that is being sent is neither given up, which would free
// nothing and cost a second copy, nor counted anew, and another body waits for its end.
func TestFilesThatAreSentMakeNoRoom(t *testing.T) {
	body := largeBody(seed.Of(t).Rand(), 1<<20)
	budget := fill.NewBudget(1 << 20)
	files := NewFiles(budget, 1<<20)
	a, b := bodyID{store.Key{'a'}, 1}, bodyID{store.Key{'b'}, 1}
	sent := hot(t, files, a, body)
	for range 10 * leastSent {
		if files.get(b, body) != nil {
			t.Fatal("a second file has found room")
		}
	}
	files.countAnew()
	files.countAnew()
	if again := files.get(a, body); again != sent {
		t.Error("the file is given up while it is being sent")
	}
	sent.release()
	sent.release()
	files.countAnew()
	files.countAnew()
	hot(t, files, b, body).release()
	tooLarge := NewFiles(budget, 1<<19)
	for range 10 * leastSent {
		if tooLarge.get(a, body) != nil {
			t.Fatal("a file larger than all may be has found room")
		}
	}
}

// TestPanicReleasesTheFile: a site that panics while its response is sent, as a module that logs it
// may, keeps no file.
func TestPanicReleasesTheFile(t *testing.T) {
	body := largeBody(seed.Of(t).Rand(), 1<<20)
	budget := fill.NewBudget(1 << 20)
	files := NewFiles(budget, 1<<20)
	hot(t, files, bodyID{store.Key{'a'}, 1}, body).release()
	client, server := pair(t)
	site := panicking{body}
	c := &Conn{Conn: server, l: &Listener{options: Options{Files: files}, open: new(Open)}, site: site}
	func() {
		defer func() { _ = recover() }()
		_, _ = c.respond()
		t.Error("the site did not panic")
	}()
	_ = client.Close()
	files.countAnew()
	files.countAnew()
	if files.open != 0 || budget.Used() != 0 {
		t.Errorf("%d files and %d bytes are left", files.open, budget.Used())
	}
}

type panicking struct{ body []byte }

func (p panicking) Answer(w *Writer, _ *http.Request) bool {
	w.FromFile(store.Key{'a'}, 1, p.body)
	panic("of a module that logs")
}

// TestClientsThatTakeNothingOfAFile: the time-out of writing is that of any other response.
func TestClientsThatTakeNothingOfAFile(t *testing.T) {
	body := largeBody(seed.Of(t).Rand(), 1<<20)
	files := NewFiles((*fill.Budget)(nil), 1<<20)
	one := hot(t, files, bodyID{store.Key{'a'}, 1}, body)
	defer one.release()
	client, server := pair(t)
	c := &Conn{Conn: server, l: &Listener{options: Options{WriteTimeout: time.Nanosecond, Files: files}}, raw: rawConn(server)}
	w := &Writer{conn: c, head: []byte("head"), file: one}
	for w.err == nil {
		w.Send(body)
	}
	if !errors.Is(w.err, os.ErrDeadlineExceeded) {
		t.Error(w.err)
	}
	_ = client.Close()
}

// TestSystemThatSendsNoFiles: what it leaves is sent from where the body lies.
func TestSystemThatSendsNoFiles(t *testing.T) {
	body := largeBody(seed.Of(t).Rand(), 1<<20)
	for name, fd := range map[string]int{"no descriptor": -1, "no file": 0} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t)
			if name == "no file" { // but the connection
				raw := rawConn(server)
				if err := raw.Control(func(of uintptr) { fd = int(of) }); err != nil {
					t.Fatal(err)
				}
			}
			c := &Conn{Conn: server, l: new(Listener), raw: rawConn(server)}
			w := &Writer{conn: c, head: []byte("head\r\n"), file: &file{fd: fd, size: int64(len(body))}}
			sent := make(chan struct{})
			go func() { defer close(sent); w.Send(body); _ = server.Close() }()
			got, err := io.ReadAll(client)
			<-sent
			if err != nil || w.err != nil || !bytes.Equal(got, append([]byte("head\r\n\r\n"), body...)) {
				t.Errorf("%v and %v, or another body of %d bytes", err, w.err, len(got))
			}
		})
	}
}

// pair returns two ends of a connection.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // it has accepted
	if client, err = net.Dial("tcp", ln.Addr().String()); err == nil {
		server, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

// TestFilesAreCounted: whatever is asked for, given up and released, the files take what they
// have of the budget and no more than they may, and each has its own body.
func TestFilesAreCounted(t *testing.T) {
	seed.Rapid(t)
	bodies := make([][]byte, 6)
	for i := range bodies {
		bodies[i] = []byte(strings.Repeat(fmt.Sprint(i), leastFile+i))
	}
	rapid.Check(t, func(t *rapid.T) {
		limit := int64(leastFile * rapid.IntRange(0, 4).Draw(t, "limit"))
		budget := fill.NewBudget(int64(leastFile * rapid.IntRange(0, 6).Draw(t, "budget")))
		files := NewFiles(budget, limit)
		files.counting = true // windows end here when they are told to
		var used []*file
		defer func() {
			for _, one := range used {
				one.release()
			}
			files.countAnew()
			files.counting = true
			files.countAnew()
			if files.open != 0 || files.taken != 0 || budget.Used() != 0 {
				t.Fatalf("%d files, %d bytes and %d of the budget are left", files.open, files.taken, budget.Used())
			}
		}()
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 19).Draw(t, "step") {
			case 0:
				files.countAnew()
			case 1, 2, 3, 4, 5, 6, 7:
				if len(used) > 0 {
					i := rapid.IntRange(0, len(used)-1).Draw(t, "used")
					used[i].release()
					used = append(used[:i], used[i+1:]...)
				}
			default:
				i := rapid.IntRange(0, len(bodies)-1).Draw(t, "body")
				if one := files.get(bodyID{store.Key{byte(i)}, store.Generation(i)}, bodies[i]); one != nil {
					used = append(used, one)
					if one.size != int64(len(bodies[i])) {
						t.Fatalf("body %d has a file of %d bytes", i, one.size)
					}
				}
			}
			if files.taken != budget.Used() || files.taken > limit {
				t.Fatalf("%d bytes, %d of the budget, limit %d", files.taken, budget.Used(), limit)
			}
		}
	})
}

// TestFileSendingAllocatesNothing: neither does a response from a file.
func TestFileSendingAllocatesNothing(t *testing.T) {
	body := largeBody(seed.Of(t).Rand(), leastFile)
	files := NewFiles((*fill.Budget)(nil), 1<<20)
	id := bodyID{store.Key{'a'}, 1}
	hot(t, files, id, body).release()
	client, server := pair(t)
	c := &Conn{Conn: server, l: &Listener{options: Options{Files: files}}}
	w, got := &Writer{conn: c}, make([]byte, len("head\r\n")+len(body))
	n := testing.AllocsPerRun(100, func() {
		w.head = append(w.head[:0], "head"...)
		w.FromFile(id.key, id.generation, body)
		w.Send(body) // the connection has room for it
		w.file.release()
		if _, err := io.ReadFull(client, got); err != nil || w.err != nil || w.file == nil {
			t.Errorf("%v, %v, file %v", err, w.err, w.file)
		}
		w.file = nil
	})
	if n > 0 {
		t.Errorf("%g allocations", n)
	}
}
