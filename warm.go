package caddygroupcache

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dunglas/httpsfv"
)

// A warmer asks a node for many URLs, so that it has them when visitors come. It
// is a client like any other: what it asks for goes through the node's own
// listener and routes.
type warmer struct {
	client      *http.Client
	header      http.Header
	concurrency int
	rate        float64 // requests a second; 0: as fast as they are answered

	mu      sync.Mutex // guards summary
	summary WarmSummary
}

// A WarmSummary is what became of a list of URLs.
type WarmSummary struct {
	// How many there were, and how many have been asked for.
	URLs  int `json:"urls"`
	Asked int `json:"asked"`

	// Served from the cache, stale ones among them; stored now; served by
	// somebody else's fetch; confirmed by the upstream.
	Hits        int `json:"hits"`
	Stored      int `json:"stored"`
	Collapsed   int `json:"collapsed"`
	Revalidated int `json:"revalidated"`

	// Not stored, by the reason that Cache-Status names.
	NotStored map[string]int `json:"not_stored"`

	// Answered without a Cache-Status: the request passed no cache.
	NoCache int `json:"no_cache"`

	// Not answered, by error. The first one of each kind.
	Failed int      `json:"failed"`
	Errors []string `json:"errors,omitempty"`
}

const (
	maxWarmURLs     = 1_000_000
	maxSitemaps     = 1000
	maxSitemapBytes = 64 << 20 // of one, unpacked; the protocol's bound is 50 MB
	maxSitemapDepth = 3
	maxWarmErrors   = 5
	warmTimeout     = time.Minute // for one request
)

// newWarmer returns a warmer whose connections all go to one host, whatever the
// URLs say; to their ports, unless connect names one.
func newWarmer(connect string, insecure bool) (*warmer, error) {
	host, port, err := net.SplitHostPort(connect)
	if err != nil {
		host, port = strings.Trim(connect, "[]"), ""
	}
	if host == "" {
		return nil, fmt.Errorf("connect %q: it takes a host, with or without a port", connect)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	w := &warmer{header: make(http.Header), summary: WarmSummary{NotStored: make(map[string]int)}}
	w.client = &http.Client{
		Timeout:       warmTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableCompression:  true, // what browsers accept is among the fields
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 64,
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: insecure}, //nolint:gosec // the operator's own node
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				to := port
				if to == "" {
					_, to, _ = net.SplitHostPort(addr)
				}
				return dialer.DialContext(ctx, network, net.JoinHostPort(host, to))
			},
		},
	}
	return w, nil
}

// run asks for all URLs and returns what became of them. If ctx ends it stops,
// and tells of what it has done so far. It calls progress after each answer, one
// call at a time.
func (w *warmer) run(ctx context.Context, urls []string, progress func(WarmSummary)) WarmSummary {
	w.summary.URLs = len(urls)
	turns := make(chan string)
	var workers sync.WaitGroup
	for range w.concurrency {
		workers.Go(func() {
			for u := range turns {
				w.ask(ctx, u)
				w.mu.Lock()
				progress(w.summary)
				w.mu.Unlock()
			}
		})
	}
	w.pace(ctx, urls, turns)
	close(turns)
	workers.Wait()
	return w.summary
}

// pace hands out URLs, not faster than the rate.
func (w *warmer) pace(ctx context.Context, urls []string, turns chan<- string) {
	start := time.Now()
	for i, u := range urls {
		if w.rate > 0 {
			due := start.Add(time.Duration(float64(i) / w.rate * float64(time.Second)))
			if wait := time.Until(due); wait > 0 && !pause(ctx, wait) {
				return
			}
		}
		select {
		case turns <- u:
		case <-ctx.Done():
			return
		}
	}
}

func (w *warmer) ask(ctx context.Context, u string) {
	resp, err := w.get(ctx, u, w.header)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body) // what breaks off is not stored
		resp.Body.Close()
	}
	if ctx.Err() != nil {
		return // it was not the node that broke off
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &w.summary
	s.Asked++
	if err != nil {
		s.Failed++
		if len(s.Errors) < maxWarmErrors {
			s.Errors = append(s.Errors, err.Error())
		}
		return
	}
	s.count(resp.Header["Cache-Status"])
}

func (w *warmer) get(ctx context.Context, u string, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	r.Header = header.Clone()
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	return w.client.Do(r)
}

// count reads a Cache-Status (RFC 9211). Its last member is the cache nearest to
// the client.
func (s *WarmSummary) count(lines []string) {
	list, err := httpsfv.UnmarshalList(lines)
	if err != nil || len(list) == 0 {
		s.NoCache++
		return
	}
	item, ok := list[len(list)-1].(httpsfv.Item)
	if !ok {
		s.NoCache++
		return
	}
	has := func(name string) bool {
		v, ok := item.Params.Get(name)
		return ok && v == true
	}
	word := func(name string) string {
		v, _ := item.Params.Get(name)
		return fmt.Sprint(v)
	}
	switch {
	case has("hit"):
		s.Hits++
	case has("stored"):
		s.Stored++
	case has("collapsed"):
		s.Collapsed++
	case word("fwd") == "stale" && word("fwd-status") == "304":
		s.Revalidated++
	default:
		s.NotStored[word("detail")]++
	}
}

// readURLs reads a list of URLs: one a line, where # begins a comment, or a
// sitemap or an index of sitemaps, which may be compressed.
func (w *warmer) readURLs(ctx context.Context, r io.Reader) ([]string, error) {
	l := &urlList{w: w, seen: make(map[string]bool)}
	if err := l.read(ctx, r, 0); err != nil {
		return nil, err
	}
	if len(l.urls) == 0 {
		return nil, errors.New("there is no URL in it")
	}
	return l.urls, nil
}

// readSitemap fetches a sitemap, through the node's listener too.
func (w *warmer) readSitemap(ctx context.Context, u string) ([]string, error) {
	l := &urlList{w: w, seen: make(map[string]bool)}
	if err := l.fetch(ctx, u, 0); err != nil {
		return nil, err
	}
	if len(l.urls) == 0 {
		return nil, fmt.Errorf("there is no URL in %s", u)
	}
	return l.urls, nil
}

// A urlList gathers URLs, each once.
type urlList struct {
	w        *warmer
	urls     []string
	seen     map[string]bool
	sitemaps int
}

func (l *urlList) fetch(ctx context.Context, u string, depth int) error {
	if l.sitemaps++; l.sitemaps > maxSitemaps {
		return fmt.Errorf("more than %d sitemaps", maxSitemaps)
	}
	header := l.w.header.Clone()
	header.Set("Accept-Encoding", "gzip")
	resp, err := l.w.get(ctx, u, header)
	if err != nil {
		return fmt.Errorf("fetching the sitemap: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("fetching the sitemap %s: status %s", u, resp.Status)
	}
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && coding != "gzip" && coding != "identity" {
		return fmt.Errorf("fetching the sitemap %s: its coding is %s, which was not asked for", u, coding)
	}
	if err := l.read(ctx, resp.Body, depth); err != nil {
		return fmt.Errorf("reading the sitemap %s: %w", u, err)
	}
	return nil
}

func (l *urlList) read(ctx context.Context, r io.Reader, depth int) error {
	b := bufio.NewReader(io.LimitReader(r, maxSitemapBytes))
	for range 2 { // a file that is compressed, and sent so: not without an end
		magic, _ := b.Peek(2)
		if string(magic) != "\x1f\x8b" {
			break
		}
		unpacked, err := gzip.NewReader(b)
		if err != nil {
			return err
		}
		b = bufio.NewReader(io.LimitReader(unpacked, maxSitemapBytes))
	}
	start, _ := b.Peek(512)
	start = bytes.TrimPrefix(start, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(bytes.TrimSpace(start), []byte("<")) {
		return l.readXML(ctx, b, depth)
	}
	return l.readLines(b)
}

func (l *urlList) readLines(r io.Reader) error {
	s := bufio.NewScanner(r)
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), " #")
		line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
		if line == "" || line[0] == '#' {
			continue
		}
		if err := l.add(line); err != nil {
			return err
		}
	}
	return s.Err()
}

// readXML reads a sitemap as sitemaps.org describes it: urlset/url/loc, or
// sitemapindex/sitemap/loc.
func (l *urlList) readXML(ctx context.Context, r io.Reader, depth int) error {
	d := xml.NewDecoder(r)
	var nested []string
	path := []string{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			path = append(path, t.Name.Local)
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			text := strings.TrimSpace(string(t))
			switch strings.Join(path, "/") {
			case "urlset/url/loc":
				if err := l.add(text); err != nil {
					return err
				}
			case "sitemapindex/sitemap/loc":
				nested = append(nested, text)
			}
		}
	}
	if len(nested) > 0 && depth == maxSitemapDepth {
		return fmt.Errorf("sitemaps of sitemaps, more than %d deep", maxSitemapDepth)
	}
	for _, u := range nested {
		if err := l.fetch(ctx, u, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (l *urlList) add(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%.200q is no URL with scheme and host", text)
	case len(l.urls) == maxWarmURLs:
		return fmt.Errorf("more than %d URLs", maxWarmURLs)
	}
	if u.Fragment = ""; !l.seen[u.String()] {
		l.seen[u.String()] = true
		l.urls = append(l.urls, u.String())
	}
	return nil
}
