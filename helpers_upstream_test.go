package caddygroupcache

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// fixed is an upstream that counts its requests.
func fixed(calls *atomic.Int64, body string, fields ...string) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		calls.Add(1)
		for i := 0; i+1 < len(fields); i += 2 {
			w.Header().Add(fields[i], fields[i+1])
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, err := io.WriteString(w, body)
		return err
	}
}

// confirmed is an upstream that says of its response, when asked, that it has not
// changed, and how long that holds.
func confirmed(calls, notModified *atomic.Int64, first, then string) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("If-None-Match") != `"1"` {
			return fixed(calls, "hello", "Cache-Control", first, "Etag", `"1"`)(w, r)
		}
		notModified.Add(1)
		w.Header().Set("Cache-Control", then)
		w.Header().Set("Etag", `"1"`)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
}

// randomBody returns a body in which no two chunks are alike.
func randomBody(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b) // never fails
	return b
}

// A file is an upstream that has one body, as file servers have it.
type file struct {
	body   []byte
	tag    string
	length bool // announces its length
	ranges bool // answers with parts
	pause  chan struct{}

	mu    sync.Mutex
	asked []string // Range of each request
}

func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	f.mu.Lock()
	f.asked = append(f.asked, r.Header.Get("Range"))
	body, tag := f.body, f.tag
	f.mu.Unlock()
	w.Header().Set("Cache-Control", "max-age=60")
	w.Header().Set("Content-Type", "application/octet-stream")
	if tag != "" {
		w.Header().Set("Etag", tag)
	}
	if f.ranges {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		return nil
	}
	if f.length {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	}
	for len(body) > 0 {
		n := min(len(body), 100_000)
		if _, err := w.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
		if f.pause != nil {
			<-f.pause
		}
	}
	return nil
}

// requests returns how many there were, and forgets them.
func (f *file) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func getLarge(t *testing.T, h *Handler, up caddyhttp.Handler, target string, fields ...string) *httptest.ResponseRecorder {
	t.Helper()
	return do(h, up.ServeHTTP, request(t.Context(), target, fields...))
}

func wantBody(t *testing.T, what string, w *httptest.ResponseRecorder, want []byte) {
	t.Helper()
	if !bytes.Equal(w.Body.Bytes(), want) {
		t.Errorf("%s: %d, %d bytes, want %d: %s", what, w.Code, w.Body.Len(), len(want), w.Header().Get("Cache-Status"))
	}
}

var farPart = []string{"Range", "bytes=2500000-2500009"}

// whole206 is an upstream that answers with what it is asked for.
func whole206(body []byte) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		start, length := beginPart(w, r, body)
		_, err := w.Write(body[start : start+length])
		return err
	}
}

// answers is an upstream whose partial answers are what change makes of the
// right ones.
type answers struct {
	body    []byte
	control string // Cache-Control; "": max-age=60
	tag     string // Etag; "": a strong one
	change  func(a *partAnswer)
	asked   []string // for which ranges
}

type partAnswer struct {
	status      int
	header      http.Header
	body        []byte
	start, size int64 // for Content-Range, as they are to be said
	length      int64
}

func (u *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	u.asked = append(u.asked, r.Header.Get("Range"))
	h := http.Header{
		"Cache-Control": {cmp.Or(u.control, "max-age=60")},
		"Etag":          {cmp.Or(u.tag, `"1"`)},
		"Content-Type":  {"x/y"},
	}
	set, isPart := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if isPart && u.change != nil {
		var start, end int64
		if _, err := fmt.Sscanf(set, "%d-%d", &start, &end); err != nil {
			return err
		}
		size := int64(len(u.body))
		end = min(end, size-1)
		a := &partAnswer{http.StatusPartialContent, h, u.body[start : end+1], start, size, end - start + 1}
		u.change(a)
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.start, a.start+a.length-1, a.size))
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
		for name, values := range a.header {
			w.Header()[name] = values
		}
		w.WriteHeader(a.status)
		_, err := w.Write(a.body)
		return err
	}
	for name, values := range h {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(u.body)))
	for body := u.body; len(body) > 0; {
		n, err := w.Write(body[:min(len(body), 100_000)])
		if err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// A slow upstream answers after a while, unless the request ends before.
type slow struct {
	after  time.Duration
	asked  atomic.Int64
	under  atomic.Int64 // way
	ended  atomic.Int64 // before their answers
	answer caddyhttp.HandlerFunc
}

func (u *slow) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	u.asked.Add(1)
	u.under.Add(1)
	defer u.under.Add(-1)
	select {
	case <-r.Context().Done():
		u.ended.Add(1)
		return r.Context().Err()
	case <-time.After(u.after):
	}
	if u.answer != nil {
		return u.answer(w, r)
	}
	return fixed(new(atomic.Int64), "hello", "Cache-Control", "max-age=60")(w, r)
}

// A variedPage is different for each language, and says whether it was asked in
// full.
type variedPage struct{ full, validated atomic.Int64 }

func (p *variedPage) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", r.URL.Query().Get("cc"))
	w.Header().Set("Etag", `"`+r.Header.Get("X-Kind")+`"`)
	w.Header().Set("Vary", "X-Kind")
	if r.Header.Get("If-None-Match") == w.Header().Get("Etag") {
		p.validated.Add(1)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	p.full.Add(1)
	fmt.Fprint(w, r.URL.Path, " in ", r.Header.Get("X-Kind"))
	return nil
}

// typical is an upstream with a dozen response fields.
func typical(size int) caddyhttp.HandlerFunc {
	body := []byte(strings.Repeat("x", size))
	length := strconv.Itoa(size)
	date := time.Now().UTC().Format(http.TimeFormat)
	return func(w http.ResponseWriter, _ *http.Request) error {
		h := w.Header()
		h.Set("Cache-Control", "public, max-age=3600")
		h.Set("Content-Length", length)
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Date", date)
		h.Set("Etag", `"33a64df551425fcc55e4d42a148795d9f25f89d4"`)
		h.Set("Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT")
		h.Set("Server", "origin/1.0")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("Vary", "Accept-Encoding")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Request-Time", "0.013")
		_, err := w.Write(body)
		return err
	}
}

// beginPart answers with the header of what a request asks for: the whole, or a part.
func beginPart(w http.ResponseWriter, r *http.Request, body []byte) (start, length int) {
	length, status := len(body), http.StatusOK
	if set, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		from, to, _ := strings.Cut(set, "-")
		start, _ = strconv.Atoi(from)
		last, err := strconv.Atoi(to)
		if err != nil {
			last = len(body) - 1
		}
		length, status = min(last+1, len(body))-start, http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start+length-1, len(body)))
	}
	w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=600")
	w.Header().Set("Etag", `"1"`)
	w.Header().Set("Content-Length", strconv.Itoa(length))
	w.WriteHeader(status)
	return start, length
}
