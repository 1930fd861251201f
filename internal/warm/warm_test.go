package warm

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func gzipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}

const oneSitemap = `<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
	<url><loc>http://a.test/1?x=1&amp;y=2</loc><image:image><image:loc>http://a.test/picture</image:loc></image:image></url>
	<url>
		<loc>
			http://a.test/2
		</loc>
		<lastmod>2026-01-01</lastmod>
	</url>
</urlset>`

func TestReadURLs(t *testing.T) {
	ofSitemap := []string{"http://a.test/1?x=1&y=2", "http://a.test/2"}
	for name, tt := range map[string]struct {
		list string
		want []string // nil: an error
	}{
		"lines":       {"http://a.test/1\n\n# a comment\n  https://b.test/2  # another\nhttp://a.test/1\nhttp://a.test/#part\n", []string{"http://a.test/1", "https://b.test/2", "http://a.test/"}},
		"CRLF":        {"http://a.test/1\r\nhttp://a.test/2", []string{"http://a.test/1", "http://a.test/2"}},
		"BOM":         {"\ufeffhttp://a.test/1\n", []string{"http://a.test/1"}},
		"a sitemap":   {oneSitemap, ofSitemap},
		"after BOM":   {"\ufeff" + oneSitemap, ofSitemap},
		"CDATA":       {"<urlset><url><loc>\n<![CDATA[http://a.test/1?x=1&y=2]]>\n</loc></url><url><loc>http://a.<!-- b -->test/2</loc><loc/></url></urlset>", ofSitemap},
		"compressed":  {gzipped(oneSitemap), ofSitemap},
		"gz of lines": {gzipped("http://a.test/1"), []string{"http://a.test/1"}},
		"twice":       {gzipped(gzipped(oneSitemap)), ofSitemap},
		"a path":      {"/news", nil},
		"another":     {"ftp://a.test/", nil},
		"empty":       {"\n# nothing\n", nil},
		"HTML":        {"<html><body>Not found</body></html>", nil},
		"broken":      {"<urlset><url><loc>http://a.test/</loc>", nil},
		"thrice":      {gzipped(gzipped(gzipped(oneSitemap))), nil},
		"broken gzip": {"\x1f\x8bnonsense", nil},
	} {
		c, err := New("127.0.0.1", false)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.readURLs(t.Context(), strings.NewReader(tt.list))
		if (err != nil) != (tt.want == nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestALongListIsNotCutShort: what is beyond the bound is an error, and no end.
func TestALongListIsNotCutShort(t *testing.T) {
	c, err := New("127.0.0.1", false)
	if err != nil {
		t.Fatal(err)
	}
	long := "http://a.test/1\n" + strings.Repeat("# "+strings.Repeat("x", 1021)+"\n", maxSitemapBytes>>10) + "http://a.test/2\n"
	for name, list := range map[string]string{"lines": long, "compressed": gzipped(long)} {
		if got, err := c.readURLs(t.Context(), strings.NewReader(list)); err == nil || !strings.Contains(err.Error(), "64 MiB") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func FuzzReadURLs(f *testing.F) {
	for _, seed := range []string{oneSitemap, gzipped(oneSitemap), "http://a.test/\n# b", "<sitemapindex><sitemap><loc>http://a/</loc></sitemap></sitemapindex>", "</a>", "<a></b>", "\x1f\x8b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, list string) {
		c := &Client{Header: make(http.Header), http: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			return nil, errors.New("there is no network")
		})}}
		urls, err := c.readURLs(t.Context(), strings.NewReader(list))
		if err != nil {
			return
		}
		for _, u := range urls {
			if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
				t.Errorf("%q is none", u)
			}
		}
	})
}

// TestReadSitemapFollowsIndexes: through the node, whatever host they are on, and not
// without an end.
func TestReadSitemapFollowsIndexes(t *testing.T) {
	index := func(urls ...string) string {
		return "<sitemapindex><sitemap><loc>" + strings.Join(urls, "</loc></sitemap><sitemap><loc>") + "</loc></sitemap></sitemapindex>"
	}
	var hosts atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts.Store(r.Host)
		switch r.URL.Path {
		case "/index.xml":
			fmt.Fprint(w, index("http://one.test/a.xml", "http://two.test/b.xml.gz", "http://one.test/a.xml"))
		case "/a.xml":
			fmt.Fprint(w, oneSitemap)
		case "/b.xml.gz":
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, gzipped(gzipped(strings.ReplaceAll(oneSitemap, "a.test", "b.test"))))
		case "/self.xml":
			fmt.Fprint(w, index("http://one.test/self.xml", "http://one.test/self.xml"))
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	c, err := New(s.Listener.Addr().String(), false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.readSitemap(t.Context(), "http://one.test/index.xml")
	if err != nil || !slices.Equal(got, []string{"http://a.test/1?x=1&y=2", "http://a.test/2", "http://b.test/1?x=1&y=2", "http://b.test/2"}) || hosts.Load() != "one.test" {
		t.Errorf("%q, %v", got, err)
	}
	for _, u := range []string{"http://one.test/self.xml", "http://one.test/none.xml"} {
		if got, err := c.readSitemap(t.Context(), u); err == nil {
			t.Errorf("%s: %q", u, got)
		}
	}
}

func TestSummaryCounts(t *testing.T) {
	for line, want := range map[string]Summary{
		"groupcache; hit; ttl=5; detail=local":                         {Hits: 1},
		"groupcache; hit; ttl=-5; detail=hot":                          {Hits: 1},
		"groupcache; fwd=uri-miss; fwd-status=200; stored":             {Stored: 1},
		"groupcache; fwd=uri-miss; collapsed":                          {Collapsed: 1},
		"groupcache; fwd=stale; fwd-status=304":                        {Revalidated: 1},
		"groupcache; fwd=uri-miss; fwd-status=200; detail=private":     {NotStored: map[string]int{"private": 1}},
		"Origin; hit, groupcache; fwd=bypass; detail=request-no-store": {NotStored: map[string]int{"request-no-store": 1}},
		"groupcache; fwd=uri-miss; detail=x, \"CDN\"; hit":             {Hits: 1},
		"":                 {NoCache: 1},
		"no; structured==": {NoCache: 1},
	} {
		got := Summary{NotStored: make(map[string]int)}
		got.count([]string{line})
		if got.Hits != want.Hits || got.Stored != want.Stored || got.Collapsed != want.Collapsed || got.Revalidated != want.Revalidated ||
			got.NoCache != want.NoCache || !maps.Equal(got.NotStored, want.NotStored) {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

// TestErrorsOfTheServerAreFailures: where the upstream is down nothing is warm, and nobody may
// think so. An error that is stored is as warm as it can be.
func TestErrorsOfTheServerAreFailures(t *testing.T) {
	answers := map[string]struct {
		status int
		said   string
	}{
		"http://a.test/down":      {502, "groupcache; fwd=uri-miss; detail=aborted"},
		"http://a.test/no-cache":  {500, ""},
		"http://a.test/stored":    {503, "groupcache; fwd=uri-miss; fwd-status=503; stored"},
		"http://a.test/hit":       {500, "groupcache; hit; ttl=5"},
		"http://a.test/not-found": {404, "groupcache; fwd=uri-miss; fwd-status=404; detail=no-freshness"},
	}
	c := &Client{Concurrency: 2, http: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		a := answers[r.URL.String()]
		return &http.Response{StatusCode: a.status, Status: fmt.Sprint(a.status, " ", http.StatusText(a.status)), Header: http.Header{"Cache-Status": {a.said}}, Body: http.NoBody}, nil
	})}}
	s := c.Run(t.Context(), slices.Collect(maps.Keys(answers)), func(Summary) {})
	if s.Asked != 5 || s.Failed != 2 || s.Stored != 1 || s.Hits != 1 || s.NotStored["no-freshness"] != 1 || s.NoCache != 0 {
		t.Errorf("%+v", s)
	}
	if !slices.Contains(s.Errors, "http://a.test/down: status 502 Bad Gateway") {
		t.Errorf("%q", s.Errors)
	}
}

// TestRunIsBounded: never more requests at the same time, nor faster, than it
// was told.
func TestRunIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency, rate, urls = 3, 10, 50
		var now, most, all atomic.Int64
		c := &Client{Concurrency: concurrency, Rate: rate}
		c.http = &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second) // slower than the rate
			now.Add(-1)
			all.Add(1)
			return &http.Response{StatusCode: 200, Header: http.Header{"Cache-Status": {"groupcache; hit"}}, Body: http.NoBody}, nil
		})}
		list := make([]string, urls)
		for i := range list {
			list[i] = fmt.Sprint("http://a.test/", i)
		}
		start, steps := time.Now(), 0
		s := c.Run(t.Context(), list, func(Summary) { steps++ })
		if most.Load() != concurrency || s.Hits != urls || s.Asked != urls || steps != urls {
			t.Errorf("%d at the same time, %d steps, %+v", most.Load(), steps, s)
		}
		if took := time.Since(start); took < urls/concurrency*time.Second {
			t.Errorf("it took %v", took)
		}
		c.Concurrency = urls
		start = time.Now()
		c.Run(t.Context(), list, func(Summary) {})
		if took := time.Since(start); took < (urls-1)*time.Second/rate || took > urls*time.Second/rate+time.Second {
			t.Errorf("at %d a second, %d took %v", rate, urls, took)
		}

		ctx, stop := context.WithCancel(t.Context())
		all.Store(0)
		time.AfterFunc(2500*time.Millisecond, stop)
		c.Run(ctx, list, func(Summary) {})
		if n := all.Load(); n == 0 || n >= urls {
			t.Errorf("%d requests before it was stopped", n)
		}
	})
}

// TestRunMakesUpForNothing: a node that has stood still does not get at once what it has
// held up.
func TestRunMakesUpForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, stood = 10, 20 * time.Second
		var mu sync.Mutex // guards begun
		var begun []time.Time
		start := time.Now()
		c := &Client{Concurrency: 4, Rate: rate}
		c.http = &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			mu.Lock()
			begun = append(begun, time.Now())
			mu.Unlock()
			time.Sleep(max(time.Until(start.Add(stood)), time.Millisecond))
			return &http.Response{StatusCode: 200, Header: http.Header{"Cache-Status": {"groupcache; hit"}}, Body: http.NoBody}, nil
		})}
		c.Run(t.Context(), slices.Repeat([]string{"http://a.test/"}, 100), func(Summary) {})
		for i, at := range begun[:len(begun)-rate-1] {
			if within := begun[i+rate+1].Sub(at); within < time.Second {
				t.Fatalf("%d requests within %v", rate+2, within)
			}
		}
	})
}

// TestRunAsksAsBrowsersDo: what a list has as people write it is asked for as browsers do, or
// they would get another response than the one that is warm.
func TestRunAsksAsBrowsersDo(t *testing.T) {
	var asked []string
	c := &Client{Concurrency: 1, http: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.Scheme+"://"+r.URL.Host+r.URL.RequestURI())
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})}}
	list := "http://a.test/caf\u00e9?q=caf\u00e9 au lait\nhttp://a.test/caf%c3%a9?q=%e9\nhttp://b\u00fccher.test/"
	urls, err := c.readURLs(t.Context(), strings.NewReader(list))
	if err != nil {
		t.Fatal(err)
	}
	c.Run(t.Context(), urls, func(Summary) {})
	want := []string{"http://a.test/caf%C3%A9?q=caf%C3%A9%20au%20lait", "http://a.test/caf%c3%a9?q=%e9", "http://b\u00fccher.test/"}
	if !slices.Equal(asked, want) {
		t.Errorf("%q, want %q", asked, want)
	}
}

// A transport is an http.RoundTripper of a function.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
