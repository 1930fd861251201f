//go:build unix

package caddygroupcache_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// An origin is the upstream. It counts the requests for every path.
type origin struct {
	*httptest.Server
	mu    sync.Mutex // guards count
	count map[string]int
}

func startOrigin(t *testing.T, handler http.HandlerFunc) *origin {
	t.Helper()
	o := &origin{count: make(map[string]int)}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.count[r.URL.Path]++
		o.mu.Unlock()
		handler(w, r)
	}))
	o.Start()
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

func (o *origin) addr() string { return o.Listener.Addr().String() }

// fetches returns how many requests there were for a path, or for all.
func (o *origin) fetches(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if path != "" {
		return o.count[path]
	}
	all := 0
	for _, n := range o.count {
		all += n
	}
	return all
}

// cacheable answers every path with a body that names it, after a while.
func cacheable(after time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(after)
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, bodyOf(r.URL.Path))
	}
}

func bodyOf(path string) string { return "body of " + path }

// fetchedOnce fails the test if there were more fetches than keys. Under the
// race detector a node can be busy for so long that another takes it for
// frozen and fetches for itself; the answer says so. That breaks the
// connection, and with it the fills of others that came over it, who then fetch
// too: up to two for each are forgiven. If no answer says so, none is.
func fetchedOnce(t *testing.T, o *origin, keys int, answers []answer) {
	t.Helper()
	alone := 0
	for _, a := range answers {
		if strings.Contains(a.cacheStatus(), "detail=peer-") {
			alone++
		}
	}
	t.Logf("%d fetches for %d keys, %d because a node was busy", o.fetches(""), keys, alone)
	if n := o.fetches(""); n > keys+3*alone {
		t.Errorf("%d fetches for %d keys, of which %d because a node was busy", n, keys, alone)
	}
}

// A gate holds an origin back until the test opens it.
type gate chan struct{}

func (g gate) open() { close(g) }

func (g gate) wait(r *http.Request) {
	select {
	case <-g:
	case <-r.Context().Done():
	}
}

// pattern writes the first n bytes of a body in which no two blocks are alike.
func pattern(w io.Writer, n int) {
	src := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 64<<10)
	for n > 0 {
		_, _ = src.Read(block) // never fails
		k, err := w.Write(block[:min(n, len(block))])
		if err != nil {
			return
		}
		n -= k
	}
}

// saying returns a handler that sets fields and writes a body.
func saying(status int, body string, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(fields); i += 2 {
			w.Header().Add(fields[i], fields[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// An endless is a body whose bytes follow from where they are, so that no test
// has to hold it.
type endless struct{ size, at int64 }

func (e *endless) Read(p []byte) (int, error) {
	n := int(min(int64(len(p)), e.size-e.at))
	if n == 0 {
		return 0, io.EOF
	}
	var word [8]byte
	for i := 0; i < n; {
		binary.LittleEndian.PutUint64(word[:], uint64(e.at/8)*0x9e3779b97f4a7c15)
		k := copy(p[i:n], word[e.at%8:])
		i, e.at = i+k, e.at+int64(k)
	}
	return n, nil
}

func (e *endless) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += e.at
	case io.SeekEnd:
		offset += e.size
	}
	e.at = offset
	return offset, nil
}
