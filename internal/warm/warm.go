// Package warm asks a node for a list of URLs, so that it has the responses when
// visitors come. The list is plain text or sitemaps. What became of each URL is told
// by the Cache-Status (RFC 9211) of its response.
package warm

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/caddy-groupcache/caddy-groupcache/internal/guard"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// A Client asks a node for many URLs. It is a client like any other: what it asks for
// goes through the node's own listener and routes. Its fields are set before the first
// request.
type Client struct {
	Header      http.Header // fields of each request; Host is sent in place of the URL's
	Concurrency int         // requests at the same time, at least 1
	Rate        float64     // requests a second at most; 0: as many as are answered

	http *http.Client

	mu      sync.Mutex // guards summary
	summary Summary    // of the running Run
}

// A Summary is what became of a list of URLs.
type Summary struct {
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

	// Not answered, or with an error of the server (5xx) that is not stored, and why: the
	// first errors.
	Failed int      `json:"failed"`
	Errors []string `json:"errors,omitempty"`
}

const (
	maxErrors      = 5           // that a summary names
	requestTimeout = time.Minute // from the connection to the last byte of the body
)

// New returns a client whose connections all go to the host in connect, whatever the
// URLs say; to their ports, unless connect names one. If insecure is true it takes any
// certificate.
func New(connect string, insecure bool) (*Client, error) {
	host, port, err := net.SplitHostPort(connect)
	if err != nil {
		host, port = strings.Trim(connect, "[]"), ""
	}
	if host == "" {
		return nil, fmt.Errorf("connect %q: it takes a host, with or without a port", connect)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	c := &Client{Header: make(http.Header), Concurrency: 1}
	c.http = &http.Client{
		Timeout:       requestTimeout,
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
	return c, nil
}

// Run asks for all URLs and returns what became of them. If ctx ends it stops,
// and tells of what it has done so far. It calls progress after each answer, one
// call at a time.
func (c *Client) Run(ctx context.Context, urls []string, progress func(Summary)) Summary {
	c.summary = Summary{URLs: len(urls), NotStored: make(map[string]int)}
	turns := make(chan string)
	var workers sync.WaitGroup
	for range c.Concurrency {
		guard.GoWait(&workers, func() {
			for u := range turns {
				c.ask(ctx, u)
				c.mu.Lock()
				progress(c.summary)
				c.mu.Unlock()
			}
		})
	}
	c.pace(ctx, urls, turns)
	close(turns)
	workers.Wait()
	return c.summary
}

// pace hands out URLs, not faster than the rate. What a slow node has held up is not made up
// for: all of it would come at once.
func (c *Client) pace(ctx context.Context, urls []string, turns chan<- string) {
	every := time.Duration(0)
	if c.Rate > 0 {
		every = time.Duration(float64(time.Second) / c.Rate)
	}
	due := time.Now()
	for _, u := range urls {
		if every > 0 {
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return
			}
		}
		select {
		case turns <- u:
		case <-ctx.Done():
			return
		}
		if now := time.Now(); now.Sub(due) > every {
			due = now
		}
		due = due.Add(every)
	}
}

func (c *Client) ask(ctx context.Context, u string) {
	resp, err := c.get(ctx, u, c.Header)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body) // what breaks off is not stored
		resp.Body.Close()
	}
	if err == nil && resp.StatusCode >= http.StatusInternalServerError && !kept(resp.Header["Cache-Status"]) {
		err = fmt.Errorf("%s: status %s", u, resp.Status)
	}
	if ctx.Err() != nil {
		return // it was not the node that broke off
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.summary
	s.Asked++
	if err != nil {
		s.Failed++
		if len(s.Errors) < maxErrors {
			s.Errors = append(s.Errors, err.Error())
		}
		return
	}
	s.count(resp.Header["Cache-Status"])
}

// get asks for a URL as a browser does: net/http alone encodes no query.
func (c *Client) get(ctx context.Context, u string, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, rfc9111.Encoded(u), nil)
	if err != nil {
		return nil, err
	}
	r.Header = header.Clone()
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	return c.http.Do(r)
}

// nearest returns the member of a Cache-Status (RFC 9211) that is of the cache nearest to the
// client: the last one.
func nearest(lines []string) (item httpsfv.Item, ok bool) {
	list, err := httpsfv.UnmarshalList(lines)
	if err == nil && len(list) > 0 {
		item, ok = list[len(list)-1].(httpsfv.Item)
	}
	return item, ok
}

func has(item httpsfv.Item, name string) bool {
	v, ok := item.Params.Get(name)
	return ok && v == true
}

// kept reports whether a response is stored, also if that is an error.
func kept(lines []string) bool {
	item, ok := nearest(lines)
	return ok && (has(item, "hit") || has(item, "stored"))
}

// count counts what became of a request.
func (s *Summary) count(lines []string) {
	item, ok := nearest(lines)
	if !ok {
		s.NoCache++
		return
	}
	word := func(name string) string {
		v, _ := item.Params.Get(name)
		return fmt.Sprint(v)
	}
	switch {
	case has(item, "hit"):
		s.Hits++
	case has(item, "stored"):
		s.Stored++
	case has(item, "collapsed"):
		s.Collapsed++
	case word("fwd") == "stale" && word("fwd-status") == "304":
		s.Revalidated++
	default:
		s.NotStored[word("detail")]++
	}
}
