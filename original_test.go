package caddygroupcache

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// changing is a site whose handlers behind the cache are those of a handle_path
// directive, and change the request in place.
func changing(t *testing.T, options string, upstream http.HandlerFunc) (base string) {
	t.Helper()
	s := httptest.NewServer(upstream)
	t.Cleanup(s.Close)
	port := freePort(t)
	config := fmt.Sprintf(`{
		admin off
		auto_https off
		persist_config off
		storage file_system %q
		groupcache
	}
	:%s {
		bind 127.0.0.1
		groupcache {
			%s
		}
		encode gzip
		handle_path /api/* {
			request_header -Accept-Encoding
			request_header +X-Added once
			request_header Host internal
			reverse_proxy %s {
				header_up X-Shown {http.request.header.X-Added}
			}
		}
		handle {
			respond "of another route" 404
		}
	}`, t.TempDir(), port, options, s.Listener.Addr())
	if err := load(t, config); err != nil {
		t.Fatal(err)
	}
	return "http://127.0.0.1:" + port + "/api"
}

func ask(t *testing.T, method, url string, fields ...string) (body []byte, resp *http.Response) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header["Accept-Encoding"] = nil // or else the client would ask for gzip by itself
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	if resp, err = http.DefaultClient.Do(r); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Errorf("%s %s: %v", method, url, err)
	}
	return body, resp
}

// TestHandlersRunOnceMore: for a part of what can't be stored, and for each chunk of
// a large body, the handlers behind the cache run again for the same request, and
// find it as it came.
func TestHandlersRunOnceMore(t *testing.T) {
	content := make([]byte, 3<<20+100)
	rand.Read(content)
	base := changing(t, "", func(w http.ResponseWriter, r *http.Request) {
		if added, shown := r.Header["X-Added"], r.Header.Get("X-Shown"); len(added) != 1 || shown != "once" {
			t.Errorf("%s: X-Added is %q, and a placeholder shows %q", r.URL, added, shown)
		}
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Cache-Control", map[string]string{"/private": "private", "/large": "max-age=60"}[r.URL.Path])
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
	for _, c := range []struct {
		path, part string
		from, to   int
	}{
		{"/private", "bytes=100-199", 100, 200},
		{"/large", "bytes=2500000-3100000", 2_500_000, 3_100_001},
		{"/large", "", 0, len(content)},
	} {
		fields := []string{"Range", c.part}
		if c.part == "" {
			fields = nil
		}
		got, resp := ask(t, http.MethodGet, base+c.path, fields...)
		if !bytes.Equal(got, content[c.from:c.to]) {
			t.Errorf("%s %s: status %d, %d bytes that are not those asked for; %v", c.path, c.part, resp.StatusCode, len(got), resp.Header)
		}
	}
}

// TestVariantIsOfTheClientsRequest: what a response is stored for is what the client
// sent, not what the handlers behind the cache made of it.
func TestVariantIsOfTheClientsRequest(t *testing.T) {
	const page = "<p>a page that is long enough to be worth compressing</p>"
	base := changing(t, "", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Vary", "Accept-Encoding")
		_, _ = io.WriteString(w, strings.Repeat(page, 100))
	})
	for i, want := range []string{"stored", "hit"} {
		got, resp := ask(t, http.MethodGet, base+"/", "Accept-Encoding", "gzip")
		if unpacked, err := gzip.NewReader(bytes.NewReader(got)); err != nil {
			t.Errorf("request %d: %v", i, err)
		} else if got, err = io.ReadAll(unpacked); err != nil || string(got) != strings.Repeat(page, 100) {
			t.Errorf("request %d: %d bytes, %v", i, len(got), err)
		}
		if status := resp.Header.Get("Cache-Status"); !strings.Contains(status, want) {
			t.Errorf("request %d: %s, want a %s", i, status, want)
		}
	}
	if got, resp := ask(t, http.MethodGet, base+"/"); string(got) != strings.Repeat(page, 100) {
		t.Errorf("a client that takes no gzip got %d bytes: %v", len(got), resp.Header)
	}
}

// TestUnsafeRequestInvalidatesWhatItsClientNamed: not what the handlers behind the
// cache made of that.
func TestUnsafeRequestInvalidatesWhatItsClientNamed(t *testing.T) {
	for _, options := range []string{"", "key {http.request.host}{http.request.uri.path}"} {
		base := changing(t, options, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = io.WriteString(w, rand.Text())
		})
		first, _ := ask(t, http.MethodGet, base+"/a")
		if again, _ := ask(t, http.MethodGet, base+"/a"); !bytes.Equal(again, first) {
			t.Errorf("%q: no hit", options)
		}
		ask(t, http.MethodPost, base+"/a")
		if after, resp := ask(t, http.MethodGet, base+"/a"); bytes.Equal(after, first) {
			t.Errorf("%q: what was there before the POST; %v", options, resp.Header)
		}
	}
}
