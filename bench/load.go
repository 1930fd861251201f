package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// host is what all requests name. The default cache key has the host in it, and
// nodes on one machine would otherwise each have keys of their own.
const host = "bench.example"

// requestFields are what the requests carry beside Host.
var requestFields = [...][2]string{
	{"Accept", "*/*"},
	{"Accept-Encoding", "gzip"},
	{"User-Agent", "groupcache-bench"},
}

// A target is where requests go, and what must come back.
type target struct {
	addr   string
	http2  bool
	tls    bool
	path   func(n int64) string // of the n-th request
	fields [][2]string          // more request fields
	upload []byte               // content of a POST; nil: they are GETs. With HTTP/1.1 only
	socket bool                 // messages over a connection that is upgraded first
	status int
	length int64 // of the body; -1: whatever
	// What Cache-Status may contain; answers are counted by which it was. Nil:
	// it is not looked at.
	claims []string
	// The part of the answers that must have the first claim; 0: all.
	share float64
}

// An answer is what the generator reads of a response.
type answer struct {
	status int
	length int64
	cache  []byte    // Cache-Status; good until the next request
	first  time.Time // when its first byte was there
}

// check returns which of the target's claims the answer fulfils, or what is
// wrong with it.
func (t *target) check(a *answer) (int, error) {
	if a.status != t.status || t.length >= 0 && a.length != t.length {
		return 0, fmt.Errorf("status %d with a body of %d bytes, not %d with %d (Cache-Status: %s)", a.status, a.length, t.status, t.length, a.cache)
	}
	if t.claims == nil {
		return 0, nil
	}
	i := slices.IndexFunc(t.claims, func(claim string) bool { return bytes.Contains(a.cache, []byte(claim)) })
	if i < 0 {
		return 0, fmt.Errorf("the Cache-Status is %q, which has none of %q", a.cache, t.claims)
	}
	return i, nil
}

// A wire is a connection on which one request at a time is made.
type wire interface {
	do(path string, more [][2]string) (answer, error)
	close()
}

// longest is how long a connection is used; a server that hangs does not hang the
// generator.
const longest = 10 * time.Minute

func (t *target) dial() (wire, error) {
	c, err := net.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(longest)); err != nil {
		return nil, err
	}
	if t.tls {
		protocol := map[bool]string{false: "http/1.1", true: "h2"}[t.http2]
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{protocol}})
	}
	if t.http2 {
		return newH2(c, map[bool]string{false: "http", true: "https"}[t.tls])
	}
	h := &h1{conn: c, in: bufio.NewReaderSize(c, 64<<10), upload: t.upload}
	if t.socket {
		return newSocket(h, int(t.length))
	}
	return h, nil
}

// h1 is a connection with HTTP/1.1. It is cheaper than net/http's, which would
// take more of the machine than the servers that it is to measure.
type h1 struct {
	conn  net.Conn
	in    *bufio.Reader
	out   []byte
	cache []byte

	upload []byte
}

func (c *h1) close() { c.conn.Close() }

func (c *h1) do(path string, more [][2]string) (answer, error) {
	method := "GET "
	if c.upload != nil {
		method = "POST "
	}
	b := append(append(c.out[:0], method...), path...)
	b = append(b, " HTTP/1.1\r\nHost: "+host+"\r\n"...)
	for _, fields := range [...][][2]string{requestFields[:], more} {
		for _, f := range fields {
			b = append(append(b, f[0]...), ": "...)
			b = append(append(b, f[1]...), "\r\n"...)
		}
	}
	if c.upload != nil {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(c.upload)), 10), "\r\n"...)
	}
	c.out = append(append(b, "\r\n"...), c.upload...)
	if _, err := c.conn.Write(c.out); err != nil {
		return answer{}, err
	}
	return c.read()
}

func (c *h1) read() (a answer, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return a, err
	}
	a.first = time.Now()
	if len(line) < 12 {
		return a, fmt.Errorf("the status line is %q", line)
	}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, fmt.Errorf("the status line is %q", line)
	}
	length, chunked := int64(-1), false
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return a, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if value, ok := field(line, "content-length: "); ok {
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return a, fmt.Errorf("%q: %w", line, err)
			}
		} else if value, ok := field(line, "cache-status: "); ok {
			c.cache = append(c.cache[:0], value...)
			a.cache = c.cache
		} else if _, ok := field(line, "transfer-encoding: "); ok {
			chunked = true
		}
	}
	switch {
	case a.status == http.StatusNotModified, a.status == http.StatusSwitchingProtocols:
		return a, nil // whatever its Content-Length says
	case chunked:
		if a.length, err = io.Copy(io.Discard, httputil.NewChunkedReader(c.in)); err == nil {
			_, err = c.in.ReadSlice('\n') // the end of the trailers, of which there are none
		}
		return a, err
	case length < 0:
		return a, errors.New("the response has no Content-Length")
	}
	n, err := io.CopyN(io.Discard, c.in, length)
	a.length = n
	return a, err
}

// A socket is a connection that was upgraded, as for WebSocket. What is sent over it comes
// back.
type socket struct {
	*h1
	message []byte
}

// socketPath is where the upstream takes upgrades.
const socketPath = "/socket"

var upgradeFields = [][2]string{
	{"Connection", "Upgrade"}, {"Upgrade", "websocket"},
	{"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
}

func newSocket(c *h1, size int) (wire, error) {
	a, err := c.do(socketPath, upgradeFields)
	if err == nil && a.status != http.StatusSwitchingProtocols {
		err = fmt.Errorf("status %d for an upgrade", a.status)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return &socket{c, make([]byte, size)}, nil
}

func (c *socket) do(string, [][2]string) (a answer, err error) {
	if _, err = c.conn.Write(c.message); err != nil {
		return a, err
	}
	a.status = http.StatusOK
	a.length, err = io.CopyN(io.Discard, c.in, int64(len(c.message)))
	return a, err
}

// field returns the value of a header line if it begins with a name in lower
// case.
func field(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) || line[0]|0x20 != name[0] || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return line[len(name):], true
}

// h2 is a connection with HTTP/2. Without TLS, it shows what it is that costs.
type h2 struct {
	conn   net.Conn
	out    *bufio.Writer
	framer *http2.Framer
	block  bytes.Buffer
	enc    *hpack.Encoder
	dec    *hpack.Decoder
	scheme string
	stream uint32
	unread int // bytes of the connection's window that the server has used

	status, cache []byte
	length        int64 // Content-Length, or -1
}

// window is so large that the generator never holds up a server.
const window = 1 << 30

func newH2(conn net.Conn, scheme string) (*h2, error) {
	c := &h2{conn: conn, out: bufio.NewWriter(conn), scheme: scheme, stream: 1}
	c.framer = http2.NewFramer(c.out, bufio.NewReaderSize(conn, 64<<10))
	c.framer.SetReuseFrames()
	c.enc = hpack.NewEncoder(&c.block)
	c.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case ":status":
			c.status = append(c.status[:0], f.Value...)
		case "cache-status":
			c.cache = append(c.cache[:0], f.Value...)
		case "content-length":
			c.length, _ = strconv.ParseInt(f.Value, 10, 64)
		}
	})
	_, _ = c.out.WriteString(http2.ClientPreface) // Flush returns the error
	err := errors.Join(
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		c.framer.WriteWindowUpdate(0, window),
		c.out.Flush(),
	)
	return c, err
}

func (c *h2) close() { c.conn.Close() }

func (c *h2) do(path string, more [][2]string) (answer, error) {
	c.block.Reset()
	c.length = -1
	c.cache = c.cache[:0]
	for _, f := range [...][2]string{{":method", "GET"}, {":scheme", c.scheme}, {":authority", host}} {
		_ = c.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a Buffer takes all
	}
	_ = c.enc.WriteField(hpack.HeaderField{Name: ":path", Value: path, Sensitive: true}) // paths don't come again
	for _, fields := range [...][][2]string{requestFields[:], more} {
		for _, f := range fields {
			_ = c.enc.WriteField(hpack.HeaderField{Name: lower(f[0]), Value: f[1]})
		}
	}
	id := c.stream
	c.stream += 2
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndStream: true, EndHeaders: true})
	if err == nil {
		err = c.out.Flush()
	}
	if err != nil {
		return answer{}, err
	}
	return c.read(id)
}

func lower(name string) string { return string(bytes.ToLower([]byte(name))) }

func (c *h2) read(id uint32) (a answer, err error) {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return a, err
		}
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			a.first = time.Now()
			if !f.HeadersEnded() || f.StreamID != id {
				return a, fmt.Errorf("unexpected %v", f)
			}
			if _, err := c.dec.Write(f.HeaderBlockFragment()); err != nil {
				return a, err
			}
			a.status, _ = strconv.Atoi(string(c.status))
			a.cache = c.cache
		case *http2.DataFrame:
			a.length += int64(len(f.Data()))
			if c.unread += int(f.Length); c.unread > window/2 {
				if err := c.framer.WriteWindowUpdate(0, uint32(c.unread)); err != nil {
					return a, err
				}
				c.unread = 0
			}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.framer.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame, *http2.RSTStreamFrame:
			return a, fmt.Errorf("the server sent %v", f)
		}
		if err != nil {
			return a, err
		}
		if frame.Header().StreamID == id && frame.Header().Flags.Has(http2.FlagDataEndStream) && frame.Header().Type <= http2.FrameHeaders {
			return a, c.out.Flush()
		}
	}
}

// A sample is what one round of a load has shown.
type sample struct {
	requests  int64
	perSecond float64
	cpu       time.Duration // of the servers, per request
	generator time.Duration // of this process, per request
	claims    []int64       // answers by the target's claims
	latencies []time.Duration
}

// A load is requests from many connections to one or more targets.
type load struct {
	targets     []*target // connections take them in turn
	connections int
	servers     []*harness.Process // whose processor time counts
	rate        int                // requests a second of all connections together; 0: as many as go
}

// longestRound is how long a round may be, and what one with slow servers becomes
// at most.
const longestRound = time.Minute

// settle is how long a load runs before it is measured.
const settle = 50 * time.Millisecond

// run loads the targets for a while.
func (l *load) run(ctx context.Context, d time.Duration) (sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var pids []int
	for _, p := range l.servers {
		pids = append(pids, p.Pid())
	}
	workers := make([]*worker, l.connections)
	var issued atomic.Int64
	var all sync.WaitGroup
	defer all.Wait()
	for i := range workers {
		t := l.targets[i%len(l.targets)]
		w := &worker{target: t, issued: &issued, claims: make([]atomic.Int64, max(1, len(t.claims)))}
		if l.rate > 0 {
			w.interval = time.Second * time.Duration(l.connections) / time.Duration(l.rate)
			w.offset = w.interval * time.Duration(i) / time.Duration(l.connections)
		}
		workers[i] = w
		all.Go(func() {
			if err := w.work(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	state := func() (snapshot, error) {
		s := snapshot{at: time.Now(), own: ownTime(), claims: make([]int64, len(workers[0].claims))}
		for _, w := range workers {
			for i := range w.claims {
				s.claims[i] += w.claims[i].Load()
				s.requests += w.claims[i].Load()
			}
		}
		var err error
		s.cpu, err = cpuTime(pids...)
		return s, err
	}
	if !wait(ctx, settle) {
		return sample{}, context.Cause(ctx)
	}
	begin, err := state()
	if err != nil {
		return sample{}, err
	}
	for _, w := range workers {
		w.timed.Store(l.rate > 0)
	}
	end := begin
	// Longer if the servers are so slow that it would tell nothing.
	for end.requests-begin.requests < int64(l.connections) && end.at.Sub(begin.at) < max(d, longestRound) {
		if !wait(ctx, d) {
			return sample{}, context.Cause(ctx)
		}
		if end, err = state(); err != nil {
			return sample{}, err
		}
	}
	cancel(nil)
	all.Wait()
	s := end.since(begin)
	for _, w := range workers {
		s.latencies = append(s.latencies, w.latencies...)
	}
	return s, l.plausible(s)
}

// plausible reports what can't be said of single answers.
func (l *load) plausible(s sample) error {
	if s.requests == 0 {
		return errors.New("no request was answered")
	}
	if share := l.targets[0].share; float64(s.claims[0]) < share*float64(s.requests) {
		return fmt.Errorf("of %d answers only %d have %q", s.requests, s.claims[0], l.targets[0].claims[0])
	}
	return nil
}

type snapshot struct {
	at       time.Time
	cpu, own time.Duration
	requests int64
	claims   []int64
}

func (s snapshot) since(b snapshot) sample {
	n := max(s.requests-b.requests, 1)
	d := sample{
		requests:  s.requests - b.requests,
		perSecond: float64(s.requests-b.requests) / s.at.Sub(b.at).Seconds(),
		cpu:       (s.cpu - b.cpu) / time.Duration(n),
		generator: (s.own - b.own) / time.Duration(n),
		claims:    s.claims,
	}
	for i := range d.claims {
		d.claims[i] -= b.claims[i]
	}
	return d
}

// wait reports whether the time has passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// A worker makes the requests of one connection.
type worker struct {
	target *target
	issued *atomic.Int64
	claims []atomic.Int64 // answers so far

	interval, offset time.Duration // interval 0: as many requests as go
	timed            atomic.Bool
	latencies        []time.Duration
}

func (w *worker) work(ctx context.Context) error {
	c, err := w.target.dial()
	if err != nil {
		return err
	}
	defer c.close()
	due := time.Now().Add(w.offset)
	for ctx.Err() == nil {
		begin := due
		if ahead := time.Until(due); w.interval > 0 && ahead > 0 {
			if !wait(ctx, ahead) {
				return nil
			}
			begin = time.Now() // that a timer is late is not the server's doing
		}
		path := w.target.path(w.issued.Add(1))
		a, err := c.do(path, w.target.fields)
		var claim int
		if err == nil {
			claim, err = w.target.check(&a)
		}
		if err != nil {
			return fmt.Errorf("GET %s at %s: %w", path, w.target.addr, err)
		}
		w.claims[claim].Add(1)
		if w.timed.Load() {
			w.latencies = append(w.latencies, time.Since(begin)) // with what it had to wait for the request before
		}
		due = due.Add(w.interval)
	}
	return nil
}
