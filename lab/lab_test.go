//go:build linux

package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// TestShortSelection tries the faults that need neither root nor much time. A
// clients' second is longer on a machine that runs other tests at the same time,
// so how long they wait is for the whole lab to say.
func TestShortSelection(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("it builds Caddy: ", err)
	}
	l, err := newLab("", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l.quick = true
	for _, f := range faults {
		if !f.quick {
			continue
		}
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			r, err := l.try(f)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r.row(f))
			for _, note := range r.notes {
				t.Log(note)
			}
			if r.errors.n+r.wrong.n+r.old.n+len(r.found) > 0 || r.leaked != "" {
				t.Error(strings.Join(r.faults, "\n"))
			}
			if r.recovered > 2*backWithin || r.requests < perSecond {
				t.Errorf("as before after %v, with %d requests", r.recovered, r.requests)
			}
		})
	}
}

// The lab would be of no use if it did not see what is wrong.
func TestReadTellsPagesApart(t *testing.T) {
	right := page("/news/1", 7)
	if version, err := read("/news/1", right); version != 7 || err != nil {
		t.Errorf("version %d, %v", version, err)
	}
	for what, body := range map[string][]byte{
		"another page":     page("/news/2", 7),
		"a part":           right[:len(right)-1],
		"more":             append(page("/news/1", 7), 'x'),
		"nothing":          nil,
		"mixed versions":   append(page("/news/1", 8)[:len("/news/1 8\n")], right[len("/news/1 7\n"):]...),
		"one byte changed": append(append([]byte(nil), right[:500]...), append([]byte("\x00"), right[501:]...)...),
	} {
		if _, err := read("/news/1", body); err == nil {
			t.Errorf("%s is taken for the page", what)
		}
	}
}

func TestReadPartTellsPartsApart(t *testing.T) {
	whole := page("/large/1", 7)
	header := func(tag, of string) http.Header {
		return http.Header{"Etag": {tag}, "Content-Range": {"bytes 10-19/" + of}}
	}
	size := strconv.Itoa(len(whole))
	if version, err := readPart("/large/1", header(`"7"`, size), whole[10:20]); version != 7 || err != nil {
		t.Errorf("version %d, %v", version, err)
	}
	for what, one := range map[string]struct {
		header http.Header
		part   []byte
	}{
		"another place":   {header(`"7"`, size), whole[11:21]},
		"less":            {header(`"7"`, size), whole[10:19]},
		"another edition": {header(`"8"`, size), whole[10:20]},
		"another size":    {header(`"7"`, "20"), whole[10:20]},
		"no tag":          {header("", size), whole[10:20]},
	} {
		if _, err := readPart("/large/1", one.header, one.part); err == nil {
			t.Errorf("%s is taken for the part", what)
		}
	}
}

func TestPacketsThatBeginAConnection(t *testing.T) {
	packet := func(protocol, flags byte) []byte {
		p := make([]byte, 40)
		p[0], p[9], p[33] = 0x45, protocol, flags
		return p
	}
	for flags, want := range map[byte]bool{0x02: true, 0x12: false, 0x10: false, 0x18: false} {
		if begins(packet(6, flags)) != want {
			t.Errorf("flags %#x: begins %v", flags, !want)
		}
	}
	if begins(packet(17, 0x02)) || begins(packet(6, 0x02)[:30]) {
		t.Error("UDP, or less than a header of TCP")
	}
}

// A node whose clients get anything but what is theirs has to be noticed.
func TestLoadNoticesWhatIsWrong(t *testing.T) {
	var answer atomic.Pointer[http.HandlerFunc]
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*answer.Load())(w, r) }))
	defer site.Close()
	h, err := newHost("127.0.0.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	n := newNode(&harness.Node{Name: "n", HTTP: site.Listener.Addr().String()}, h)
	defer n.clients.CloseIdleConnections()
	n.promised.Store(7)
	var calls atomic.Int64
	right := func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(page(r.URL.Path, 7)) }

	for what, c := range map[string]struct {
		answer              http.HandlerFunc
		mood                mood
		absent, reloaded    bool
		errors, wrong, old  int
		spared, countedLess int
	}{
		"the page":            {answer: right},
		"another page":        {answer: func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(page("/other", 7)) }, wrong: 1},
		"half a page":         {answer: func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(page(r.URL.Path, 7)[:600]) }, wrong: 1},
		"what was purged":     {answer: func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(page(r.URL.Path, 6)) }, old: 1},
		"an error":            {answer: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }, errors: 1},
		"a broken connection": {answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, errors: 1},
		"a connection that a reload closes": {answer: func(w http.ResponseWriter, r *http.Request) {
			if calls.Add(1) == 1 {
				panic(http.ErrAbortHandler)
			}
			right(w, r)
		}, reloaded: true},
		"the origin's error": {answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(brokenField, "1")
			w.WriteHeader(http.StatusInternalServerError)
		}, spared: 1},
		"an error amid the origin's": {answer: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }, mood: failing},
		"a node that is frozen":      {answer: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }, absent: true, countedLess: 1},
		"a node that was killed amid it": {answer: func(w http.ResponseWriter, r *http.Request) {
			n.goes()
			panic(http.ErrAbortHandler)
		}, countedLess: 1},
	} {
		tr := &trial{origin: newOrigin(), nodes: []*node{n}}
		if c.mood != well {
			tr.origin.set(c.mood)
		}
		n.absent.Store(c.absent)
		n.reloaded.Store(0)
		if c.reloaded {
			n.clients.CloseIdleConnections() // over others net/http asks again
			n.reloaded.Store(time.Now().UnixNano())
		}
		answer.Store(&c.answer)
		l := newLoad(tr)
		l.request(n, "/news/1")
		if l.errors.n != c.errors || l.wrong.n != c.wrong || l.old.n != c.old || l.spared != c.spared || l.counted != 1-c.countedLess {
			t.Errorf("%s: %d errors, %d wrong, %d outdated, %d spared, %d counted", what, l.errors.n, l.wrong.n, l.old.n, l.spared, l.counted)
		}
	}
}

// The network does to packets what it is told, and only that.
func TestNetwork(t *testing.T) {
	if why := canNetwork(); why != "" {
		t.Skip("LEFT OUT: the network of the laboratory: ", why)
	}
	n := new(network)
	defer n.close()
	var hosts []*host
	for range 2 {
		h, err := n.addHost()
		if err != nil {
			t.Fatal(err)
		}
		defer h.close()
		hosts = append(hosts, h)
	}
	l, err := hosts[1].listen(hosts[1].ip + ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	conn, err := hosts[0].dial(t.Context(), "tcp", hosts[1].ip+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// echo returns how long an answer takes, or an error if there is none in time.
	echo := func(patience time.Duration) (time.Duration, error) {
		start := time.Now()
		conn.SetDeadline(start.Add(patience))
		if _, err := conn.Write([]byte{1}); err != nil {
			return 0, err
		}
		_, err := io.ReadFull(conn, make([]byte, 1))
		return time.Since(start), err
	}
	if _, err := echo(5 * time.Second); err != nil {
		t.Error(err)
	}
	n.set(link{delay: 100 * time.Millisecond}, []int{0}, []int{1})
	if took, err := echo(5 * time.Second); took < 200*time.Millisecond || err != nil {
		t.Errorf("with 100 ms each way: %v, %v", took, err)
	}
	n.heal()
	n.setOneWay(cut, []int{1}, []int{0})
	if took, err := echo(time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with the way back cut: %v, %v", took, err)
	}
	n.heal()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // it is sent again
		t.Errorf("healed: %v", err)
	}
}
