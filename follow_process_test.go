//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestConcurrentClientsOfColdKeysShareFetches(t *testing.T) {
	const keys, clients = 6, 600
	o := startOrigin(t, cacheable(400*time.Millisecond))
	c := startCluster(t, 3, o, patient)
	path := func(i int) string { return fmt.Sprintf("/cold/%d", i%keys) }

	answers := together(clients, clients, func(i int) answer { return c[i/keys%3].get(path(i)) })
	var slowest time.Duration
	for i, a := range answers {
		a.is(t, path(i), bodyOf(path(i)))
		slowest = max(slowest, a.took)
	}
	t.Logf("the slowest of %d answers after %v", clients, slowest)
	fetchedOnce(t, o, keys, answers)
	c.awaitIdle()
}

func TestLeadersClientLeavesAndFollowersGetTheFill(t *testing.T) {
	const followers = 99
	var mu sync.Mutex
	gates := make(map[string]gate)
	gateOf := func(path string) gate {
		mu.Lock()
		defer mu.Unlock()
		if gates[path] == nil {
			gates[path] = make(gate)
		}
		return gates[path]
	}
	part := strings.Repeat("0123456789abcdef", 1024)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/before") {
			gateOf(r.URL.Path).wait(r)
		}
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, bodyOf(r.URL.Path), part)
		w.(http.Flusher).Flush()
		gateOf(r.URL.Path).wait(r)
		fmt.Fprint(w, part)
	})
	c := startCluster(t, 3, o, patient)
	for lead, leader := range c { // one of them owns the key
		for _, when := range []string{"before", "amid"} {
			path := fmt.Sprintf("/%s/%d", when, lead)
			ctx, leave := context.WithCancel(t.Context())
			gone := make(chan struct{})
			go func() {
				do(leader.request(http.MethodGet, path, nil).WithContext(ctx))
				close(gone)
			}()
			eventually(t, "the leader fetches", func() bool { return o.fetches(path) == 1 })

			var reading atomic.Int32
			answers := make([]answer, followers)
			var wg sync.WaitGroup
			follow := func(from, to int) {
				for i := from; i < to; i++ {
					wg.Go(func() {
						answers[i] = do(c[i%3].request(http.MethodGet, path, nil), func() { reading.Add(1) })
					})
				}
				if when == "amid" {
					eventually(t, "the followers read along", func() bool { return int(reading.Load()) == to })
				}
			}
			follow(0, followers/2)
			leave()
			<-gone
			follow(followers/2, followers)
			gateOf(path).open()
			wg.Wait()
			for i, a := range answers {
				a.is(t, fmt.Sprintf("follower %d of %s", i, path), bodyOf(path)+part+part)
			}
			if n := o.fetches(path); n != 1 {
				t.Errorf("%s: %d fetches", path, n)
			}
		}
	}
	c.awaitIdle()
}

func TestReadersJoinAStream(t *testing.T) {
	const readers, flushes, step = 6, 20, 100 * time.Millisecond
	piece := strings.Repeat("=", 1000)
	for _, vary := range []string{"", "Accept-Encoding"} {
		t.Run("vary="+vary, func(t *testing.T) {
			t.Parallel()
			var reading atomic.Int32
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				if vary != "" {
					w.Header().Set("Vary", vary)
				}
				for i := range flushes {
					// It never ends for readers who wait for the end.
					for last := i == flushes-1; last && reading.Load() < readers && r.Context().Err() == nil; {
						time.Sleep(poll)
					}
					fmt.Fprintf(w, "%02d%s", i, piece)
					w.(http.Flusher).Flush()
					time.Sleep(step)
				}
			})
			c := startCluster(t, 3, o, patient)
			answers := together(readers, readers, func(i int) answer {
				time.Sleep(time.Duration(i) * step)
				return do(c[i%3].request(http.MethodGet, "/stream", nil, "Accept-Encoding", "br"), func() { reading.Add(1) })
			})
			var whole strings.Builder
			for i := range flushes {
				fmt.Fprintf(&whole, "%02d%s", i, piece)
			}
			for i, a := range answers {
				a.is(t, fmt.Sprint("reader ", i), whole.String())
				figure(t, fmt.Sprintf("first byte for reader %d (%s)", i, a.cacheStatus()), a.firstByte, 700*time.Millisecond, 5*time.Second)
			}
			if n := o.fetches(""); n != 1 {
				t.Errorf("%d fetches", n)
			}
			c.awaitIdle()
		})
	}
}

func TestNobodyGetsSomebodyElsesAnswer(t *testing.T) {
	const clients = 90
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		who := r.Header.Get("Cookie")
		switch r.URL.Path {
		case "/private":
			w.Header().Set("Cache-Control", "private, max-age=60")
		case "/no-store":
			w.Header().Set("Cache-Control", "no-store")
		case "/set-cookie":
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("Set-Cookie", "seen="+who)
		}
		fmt.Fprintf(w, "account of %s", who)
	})
	c := startCluster(t, 3, o, patient)
	for _, path := range []string{"/private", "/no-store", "/set-cookie"} {
		answers := together(clients, clients, func(i int) answer {
			return c[i%3].get(path, "Cookie", fmt.Sprintf("user=%d", i))
		})
		var slowest time.Duration
		for i, a := range answers {
			who := fmt.Sprintf("user=%d", i)
			a.is(t, path+" for "+who, "account of "+who)
			if s := a.header.Get("Set-Cookie"); s != "" && s != "seen="+who {
				t.Errorf("%s for %s: Set-Cookie: %s", path, who, s)
			}
			slowest = max(slowest, a.took)
		}
		t.Logf("%s: the slowest of %d after %v", path, clients, slowest)
		if n := o.fetches(path); n != clients {
			t.Errorf("%s: %d fetches for %d clients", path, n, clients)
		}
	}
	c.awaitIdle()
}

func TestEachBodyBelongsToItsKey(t *testing.T) {
	const requests, keys, atOnce = 3000, 600, 300
	// Bodies of many sizes, so that a buffer of another key would show.
	body := func(path string) string {
		return strings.Repeat(bodyOf(path)+"\n", 1+len(path)*len(path)%97*7)
	}
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, body(r.URL.RequestURI()))
	})
	c := startCluster(t, 3, o, patient)
	path := func(i int) string { return fmt.Sprintf("/body/%s?n=%d", strings.Repeat("x", i%23), i*keys/requests) }
	start := time.Now()
	answers := together(requests, atOnce, func(i int) answer { return c[i%3].get(path(i - i%5)) })
	for i, a := range answers {
		a.is(t, path(i-i%5), body(path(i-i%5)))
	}
	t.Logf("%d requests in %v", requests, time.Since(start))
	fetchedOnce(t, o, keys, answers)
	c.awaitIdle()
}

func TestReadersOutliveTheNodeTheyReadFrom(t *testing.T) {
	part := strings.Repeat("0123456789abcdef", 1024)
	for what, signal := range map[string]syscall.Signal{"frozen": syscall.SIGSTOP, "killed": syscall.SIGKILL} {
		t.Run(what, func(t *testing.T) {
			opened := make(gate)
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				fmt.Fprint(w, bodyOf(r.URL.Path), part)
				w.(http.Flusher).Flush()
				opened.wait(r)
				fmt.Fprint(w, part)
			})
			c := startCluster(t, 3, o, patient)
			others, victim := c[:2], c[2]
			// Enough keys to have some whose owner stops, and some whose
			// leader does.
			streams := paths("stream", 12)
			var reading atomic.Int32
			var wg sync.WaitGroup
			for i, path := range streams {
				wg.Go(func() { // its client's fate is open when it leads on the victim
					p := c[i%3]
					a := do(p.request(http.MethodGet, path, nil), func() { reading.Add(1) })
					if p != victim {
						a.is(t, path+" led by "+p.name, bodyOf(path)+part+part)
					}
				})
			}
			eventually(t, "all streams have begun", func() bool { return int(reading.Load()) == len(streams) })
			for _, path := range streams {
				for _, p := range others {
					wg.Go(func() {
						a := do(p.request(http.MethodGet, path, nil), func() { reading.Add(1) })
						a.is(t, path+" followed on "+p.name, bodyOf(path)+part+part)
					})
				}
			}
			eventually(t, "all read along", func() bool { return int(reading.Load()) == 3*len(streams) })
			victim.signal(signal)
			opened.open()
			if signal == syscall.SIGSTOP {
				others.awaitIdle()
				victim.kill() // lets its own clients go
			}
			wg.Wait()
			t.Logf("%d fetches for %d streams", o.fetches(""), len(streams))
			others.awaitIdle()
			for i, path := range streams {
				if p := c[i%3]; p != victim {
					a := p.get(path)
					a.is(t, path+" on "+p.name+" afterwards", bodyOf(path)+part+part)
					if !a.hit() {
						t.Errorf("%s on %s, which has fetched it: %s", path, p.name, a.cacheStatus())
					}
				}
			}
		})
	}
}

// TestSlowBodyIsReadAlongOnOtherNodes as it arrives, also beyond its first chunk, by those who
// come early and those who come late.
func TestSlowBodyIsReadAlongOnOtherNodes(t *testing.T) {
	const size, step, every = 1<<20 + 400_000, 4_000, 50 * time.Millisecond // 5 s for the second chunk
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		begin := int64(1<<20 + 20_000)
		_, _ = io.Copy(w, &endless{size: begin})
		for at := begin; at < size && r.Context().Err() == nil; at += step {
			w.(http.Flusher).Flush()
			time.Sleep(every)
			_, _ = io.Copy(w, &endless{size: at + step, at: at})
		}
	})
	c := startCluster(t, 3, o, "")
	var all sync.WaitGroup
	for lead := range c { // one of them owns the key, mostly
		path := fmt.Sprint("/slow/", lead)
		all.Go(func() { c[lead].readAlong(t, path, size) })
		eventually(t, "it is fetched", func() bool { return o.fetches(path) == 1 })
		for i, p := range c {
			all.Go(func() { p.readAlong(t, path, size) })
			all.Go(func() {
				time.Sleep(time.Duration(i+1) * 500 * time.Millisecond) // amid the second chunk
				p.readAlong(t, path, size)
			})
		}
	}
	all.Wait()
	if n := o.fetches(""); n != len(c) {
		t.Errorf("%d fetches", n)
	}
	c.awaitIdle()
}

// readAlong reads a body, and fails if nothing of it comes for long.
func (p *process) readAlong(t *testing.T, path string, size int64) {
	resp, err := (&http.Client{Transport: client.Transport}).Do(p.request(http.MethodGet, path, nil))
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	var longest time.Duration
	sum, buf := sha256.New(), make([]byte, 64<<10)
	for last := time.Now(); err == nil; last = time.Now() {
		var n int
		n, err = resp.Body.Read(buf)
		sum.Write(buf[:n])
		longest = max(longest, time.Since(last))
	}
	if err != io.EOF || [sha256.Size]byte(sum.Sum(nil)) != digestOf(0, size) {
		t.Errorf("%s%s: another body, %v: %s", p.name, path, err, resp.Header.Get("Cache-Status"))
	}
	t.Logf("%s%s: silent for %v at most: %s", p.name, path, longest.Round(time.Millisecond), resp.Header.Get("Cache-Status"))
	if longest > 2*time.Second {
		t.Errorf("%s%s: silent for %v", p.name, path, longest)
	}
}

// TestValidationDoesNotWaitForItsClient: requests that share a validation go on when the
// upstream has answered, however slow the client is whose request has asked.
func TestValidationDoesNotWaitForItsClient(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 15<<20/16)
	hold := make(chan struct{})
	var held atomic.Bool
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") != "" {
			if held.CompareAndSwap(false, true) {
				<-hold
			}
			w.WriteHeader(http.StatusNotModified)
			return
		}
		time.Sleep(300 * time.Millisecond) // a tenth of that is for gathering
		fmt.Fprint(w, body)
	})
	p := startCluster(t, 1, o, "")[0]
	p.get("/a")
	var all sync.WaitGroup
	ask := func() {
		defer all.Done()
		conn, err := net.Dial("tcp", p.http)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintf(conn, "GET /a HTTP/1.1\r\nHost: %s\r\n\r\n", clientHost)
		if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil {
			t.Errorf("%q %v", line, err)
		}
	}
	all.Add(1)
	go ask()
	eventually(t, "a validation", held.Load)
	all.Add(10)
	for range 10 {
		go ask()
	}
	eventually(t, "another validation", func() bool { return o.fetches("/a") > 2 })
	close(hold)
	all.Wait()
}
