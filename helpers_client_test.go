//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// client is every client: it follows nothing, unpacks nothing and keeps
// connections for all of them.
var client = &http.Client{
	Transport: &http.Transport{
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1000,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       hang,
}

// An answer is what a client got.
type answer struct {
	status    int
	header    http.Header
	trailer   http.Header
	body      string
	firstByte time.Duration // until the first byte of the body, or its end
	took      time.Duration
	err       error
}

func (p *process) request(method, path string, body io.Reader, header ...string) *http.Request {
	r, err := http.NewRequest(method, "http://"+p.http+path, body)
	if err != nil {
		panic(err) // a mistake in the test
	}
	r.Host = clientHost
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// get asks the node for a path, with pairs of header name and value. It may be
// called on any goroutine.
func (p *process) get(path string, header ...string) answer {
	for try := 1; ; try++ {
		a := do(p.request(http.MethodGet, path, nil, header...))
		if a.status != 0 || !p.reloaded.Load() || !harness.ClosedUnanswered(a.err) || try == harness.Tries {
			return a
		}
	}
}

// do sends a request and reads the answer. It calls started as soon as some
// of the body is here.
func do(r *http.Request, started ...func()) (a answer) {
	start := time.Now()
	defer func() { a.took = time.Since(start) }()
	resp, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a = answer{status: resp.StatusCode, header: resp.Header}
	var body bytes.Buffer
	buf := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buf)
		if a.firstByte == 0 && (n > 0 || err != nil) {
			a.firstByte = time.Since(start)
			for _, f := range started {
				f()
			}
		}
		body.Write(buf[:n])
		if err != nil {
			if err != io.EOF {
				a.err = err
			}
			a.body, a.trailer = body.String(), resp.Trailer
			return a
		}
	}
}

// cacheStatus is the answer's Cache-Status.
func (a answer) cacheStatus() string { return strings.Join(a.header["Cache-Status"], ", ") }

func (a answer) hit() bool { return strings.HasPrefix(a.cacheStatus(), "groupcache; hit") }

// shared reports whether the answer came from the cache, or from a fill that
// was still on its way to the owner.
func (a answer) shared() bool { return a.hit() || strings.HasSuffix(a.cacheStatus(), "; collapsed") }

// is fails the test unless the answer is a whole 200 with this body.
func (a answer) is(t *testing.T, what, body string) {
	t.Helper()
	switch {
	case a.err != nil:
		t.Errorf("%s: %v", what, a.err)
	case a.status != http.StatusOK:
		t.Errorf("%s: status %d (%s)", what, a.status, a.cacheStatus())
	case a.body != body:
		t.Errorf("%s: got %s, want %s (%s)", what, brief(a.body), brief(body), a.cacheStatus())
	}
}

func brief(body string) string {
	if len(body) <= 64 {
		return strconv.Quote(body)
	}
	return fmt.Sprintf("%q... of %d bytes", body[:32], len(body))
}

// together calls f(0) to f(n-1) at the same time, at most limit of them at
// once, and returns what they return.
func together(n, limit int, f func(i int) answer) []answer {
	answers := make([]answer, n)
	begin := make(chan struct{})
	slots := make(chan struct{}, limit)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			slots <- struct{}{}
			answers[i] = f(i)
			<-slots
		})
	}
	close(begin)
	wg.Wait()
	return answers
}

// patient is for tests that count fetches: a node that is busy for a moment, as
// under the race detector, is not a silent one.
const patient = "peer_timeout 5s"

// sweep asks some nodes for some paths, at the same time, and fails the test
// for every error. It returns all answers.
func sweep(t *testing.T, nodes cluster, paths []string) []answer {
	t.Helper()
	answers := together(len(nodes)*len(paths), 24, func(i int) answer {
		return nodes[i%len(nodes)].get(paths[i/len(nodes)])
	})
	for i, a := range answers {
		p, path := nodes[i%len(nodes)], paths[i/len(nodes)]
		a.is(t, p.name+path, bodyOf(path))
	}
	return answers
}

func paths(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("/%s/%d", prefix, i)
	}
	return all
}

// each calls f for 0 to n-1, some at a time.
func each(n, atATime int, f func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range atATime {
		all.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}
