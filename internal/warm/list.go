package warm

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// What a list may have.
const (
	maxURLs         = 1_000_000
	maxSitemaps     = 1000
	maxSitemapBytes = 64 << 20 // of one, unpacked; the protocol's bound is 50 MB
	maxSitemapDepth = 3
)

// readURLs reads a list of URLs: one a line, where # begins a comment, or a
// sitemap or an index of sitemaps, which may be compressed. Sitemaps that it names are
// fetched from the node. It returns each URL once, and an error if there is none, if
// something is no URL, or if a bound is exceeded.
func (c *Client) readURLs(ctx context.Context, r io.Reader) ([]string, error) {
	l := &urlList{client: c, seen: make(map[string]bool)}
	if err := l.read(ctx, r, 0); err != nil {
		return nil, err
	}
	if len(l.urls) == 0 {
		return nil, errors.New("there is no URL in it")
	}
	return l.urls, nil
}

// readSitemap fetches a sitemap from the node and reads it as readURLs does.
func (c *Client) readSitemap(ctx context.Context, u string) ([]string, error) {
	l := &urlList{client: c, seen: make(map[string]bool)}
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
	client   *Client
	urls     []string
	seen     map[string]bool
	sitemaps int
}

func (l *urlList) fetch(ctx context.Context, u string, depth int) error {
	if l.sitemaps++; l.sitemaps > maxSitemaps {
		return fmt.Errorf("more than %d sitemaps", maxSitemaps)
	}
	header := l.client.Header.Clone()
	header.Set("Accept-Encoding", "gzip")
	resp, err := l.client.get(ctx, u, header)
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

// A bounded reader fails beyond maxSitemapBytes: the end that io.LimitReader makes there
// would pass for that of the list.
type bounded struct {
	io.Reader
	read int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.read += n; b.read > maxSitemapBytes {
		return 0, fmt.Errorf("a list of more than %d MiB: make several of it", maxSitemapBytes>>20)
	}
	return n, err
}

func (l *urlList) read(ctx context.Context, r io.Reader, depth int) error {
	b := bufio.NewReader(&bounded{Reader: r})
	for range 2 { // a file that is compressed, and sent so: not without an end
		magic, _ := b.Peek(2)
		if string(magic) != "\x1f\x8b" {
			break
		}
		unpacked, err := gzip.NewReader(b)
		if err != nil {
			return err
		}
		b = bufio.NewReader(&bounded{Reader: unpacked})
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

// Where a sitemap has URLs, and an index other sitemaps.
const (
	ofURL     = "urlset/url/loc"
	ofSitemap = "sitemapindex/sitemap/loc"
)

// readXML reads a sitemap as sitemaps.org describes it.
func (l *urlList) readXML(ctx context.Context, r io.Reader, depth int) error {
	d := xml.NewDecoder(r)
	var nested []string
	var text strings.Builder // of the loc that path is at, which may come in pieces, as CDATA does
	path := []string{}
	at := func() string { return strings.Join(path[:min(len(path), 4)], "/") }
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
		case xml.CharData:
			if where := at(); where == ofURL || where == ofSitemap {
				text.Write(t)
			}
		case xml.EndElement:
			where, u := at(), strings.TrimSpace(text.String())
			path = path[:len(path)-1]
			if where != ofURL && where != ofSitemap {
				continue
			}
			text.Reset()
			switch {
			case u == "": // nothing is named
			case where == ofSitemap:
				nested = append(nested, u)
			default:
				if err := l.add(u); err != nil {
					return err
				}
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
	case len(l.urls) == maxURLs:
		return fmt.Errorf("more than %d URLs", maxURLs)
	}
	if u.Fragment = ""; !l.seen[u.String()] {
		l.seen[u.String()] = true
		l.urls = append(l.urls, u.String())
	}
	return nil
}

// Read reads the list that an argument names: a file, a sitemap's URL, or - for standard
// input.
func (c *Client) Read(ctx context.Context, name string) ([]string, error) {
	switch {
	case name == "-":
		return c.readURLs(ctx, os.Stdin)
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		return c.readSitemap(ctx, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	urls, err := c.readURLs(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return urls, nil
}
