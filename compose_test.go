package caddygroupcache

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// composed runs Caddy with one site of the given directives, in which UPSTREAM stands
// for the address of up, and returns its URL and the count of requests to up.
func composed(t *testing.T, up http.HandlerFunc, site string) (front string, calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		up(w, r)
	}))
	t.Cleanup(upstream.Close)
	port := freePort(t)
	if err := load(t, fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tstorage file_system %q\n}\nhttp://:%s {\n\tbind 127.0.0.1\n%s\n}\n",
		t.TempDir(), port, strings.ReplaceAll(site, "UPSTREAM", upstream.Listener.Addr().String()))); err != nil {
		t.Fatal(err)
	}
	return "http://127.0.0.1:" + port, calls
}

// TestIncludedFragmentsHaveTheirOwnKeys: httpInclude makes requests that have a URL and
// no request target.
func TestIncludedFragmentsHaveTheirOwnKeys(t *testing.T) {
	front, calls := composed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if name, page := strings.CutPrefix(r.URL.Path, "/page/"); page {
			fmt.Fprintf(w, `{{httpInclude "/fragment/%s"}}, {{httpInclude "/fragment/foot?of=%s"}}`, name, name)
			return
		}
		_, _ = io.WriteString(w, r.URL.RequestURI())
	}, "route {\n\ttemplates\n\tgroupcache {\n\t\tttl 1h\n\t}\n\treverse_proxy UPSTREAM\n}")
	for range 2 {
		for _, name := range []string{"a", "b"} {
			if body, header := fetchURL(t, front+"/page/"+name); body != "/fragment/"+name+", /fragment/foot?of="+name {
				t.Errorf("%s: %q %v", name, body, header)
			}
		}
	}
	if n := calls.Load(); n != 6 {
		t.Errorf("%d requests to the upstream", n)
	}
}

// TestVersionsOfHTTPThatAreTold: a handler behind the cache that tells the version of HTTP
// tells each client its own.
func TestVersionsOfHTTPThatAreTold(t *testing.T) {
	front, _ := composed(t, nil, "route {\n\tgroupcache {\n\t\tttl 1h\n\t}\n\trespond \"{http.request.proto}\"\n}")
	for range 2 {
		for _, proto := range []string{"HTTP/1.1", "HTTP/1.0"} {
			address := strings.TrimPrefix(front, "http://")
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET / %s\r\nHost: %s\r\nConnection: close\r\n\r\n", proto, address)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != proto {
				t.Errorf("%s: %q (%s), %v", proto, body, resp.Header.Get("Cache-Status"), err)
			}
			conn.Close()
		}
	}
}

// TestFieldsOfTheResponseAsPlaceholders: a handler behind the cache reads what another one
// behind it has set.
func TestFieldsOfTheResponseAsPlaceholders(t *testing.T) {
	front, _ := composed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Cache-Control", r.URL.RawQuery)
	}, "route {\n\tgroupcache\n\theader >X-Copy \"of {http.response.header.Etag}\"\n\treverse_proxy UPSTREAM\n}")
	for _, control := range []string{"max-age=60", "private", "no-cache"} {
		for range 2 {
			if _, header := fetchURL(t, front+"/?"+control); header.Get("X-Copy") != `of "1"` {
				t.Errorf("%s: %v", control, header)
			}
		}
	}
}

// TestListsOfFilesAreSortedAsTheirClientsWish: file_server remembers that in cookies, and says
// so in no Vary.
func TestListsOfFilesAreSortedAsTheirClientsWish(t *testing.T) {
	root := t.TempDir()
	for name, size := range map[string]int{"a": 2, "b": 1} {
		if err := os.WriteFile(filepath.Join(root, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	front, _ := composed(t, nil, fmt.Sprintf("root * %q\ngroupcache {\n\tttl 1h\n}\nfile_server browse", root))
	fetchURL(t, front+"/") // its port accepts
	for range 2 {
		for cookies, first := range map[string]string{"": "a", "sort=size": "b", "sort=name; order=desc": "b", "order=asc": "a"} {
			r, err := http.NewRequest(http.MethodGet, front+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept", "application/json")
			if cookies != "" {
				r.Header.Set("Cookie", cookies)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if _, list, _ := strings.Cut(string(body), `"name":"`); err != nil || !strings.HasPrefix(list, first) {
				t.Errorf("%q: %q (%s), %v", cookies, body, resp.Header.Get("Cache-Status"), err)
			}
		}
	}
}

// TestHandledResponsesHaveTheUpstreamsLimits: what handle_response makes in place of the
// upstream's answer, by X-Accel-Redirect or as an error page.
func TestHandledResponsesHaveTheUpstreamsLimits(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file.txt")
	old := time.Now().Add(-24 * 365 * time.Hour)
	if err := errors.Join(os.WriteFile(file, []byte("a file"), 0o600), os.Chtimes(file, old, old)); err != nil {
		t.Fatal(err)
	}
	front, calls := composed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Accel-Redirect", "/file.txt")
		for name, values := range r.URL.Query() {
			if name == "status" {
				defer w.WriteHeader(500)
			} else {
				w.Header()[name] = values
			}
		}
	}, fmt.Sprintf(`forward_auth UPSTREAM {
		uri /?Cache-Control=no-store
	}
	groupcache
	reverse_proxy UPSTREAM {
		header_down -Set-Cookie
		@accel header X-Accel-Redirect *
		handle_response @accel {
			root * %s
			rewrite * {rp.header.X-Accel-Redirect}
			method GET
			file_server
		}
	}`, root))
	for _, tt := range []struct{ query, want string }{
		{"Cache-Control=private,no-store", "no-store"},
		{"Cache-Control=max-age%3D60,private", "private"},
		{"", "no-freshness"},
		{"status=500&Cache-Control=max-age%3D60", "handled-error"},
		{"Set-Cookie=a&Cache-Control=max-age%3D60", "set-cookie"},
		{"Cache-Control=max-age%3D60&Vary=X-A", "hit; ttl="},
		{"Groupcache-Cache-Control=max-age%3D60&Cache-Control=private", "hit; ttl="},
	} {
		before := calls.Load()
		for range 2 {
			fetchURL(t, front+"/?"+tt.query)
		}
		body, header := fetchURL(t, front+"/?"+tt.query)
		stored := calls.Load() == before+4 // with those of forward_auth
		if status := header.Get("Cache-Status"); body != "a file" || !strings.Contains(status, tt.want) && !strings.Contains(status, "hit-for-miss") || stored != strings.HasPrefix(tt.want, "hit;") {
			t.Errorf("%s: %q, %v, stored: %v", tt.query, body, header, stored)
		}
	}
}

// TestUpstreamsThatTakeOverAreAskedForEachClient: so are those of intercept, whose response to one
// client says nothing of another.
func TestUpstreamsThatTakeOverAreAskedForEachClient(t *testing.T) {
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
	}))
	defer second.Close()
	first := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Del("Content-Type")
		if r.Header.Get("X-Role") == "guest" {
			w.WriteHeader(http.StatusForbidden)
		}
	}
	front, _ := composed(t, first, "groupcache\nintercept {\n@a status 200\nhandle_response @a {\nreverse_proxy "+second.Listener.Addr().String()+"\n}\n}\nreverse_proxy UPSTREAM")
	for range 2 {
		for role, want := range map[string]int{"admin": http.StatusOK, "guest": http.StatusForbidden} {
			r, _ := http.NewRequest(http.MethodGet, front+"/a", nil)
			r.Header.Set("X-Role", role)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s got %d (%s), want %d", role, resp.StatusCode, resp.Header.Get("Cache-Status"), want)
			}
		}
	}
}

// TestSecondUpstreamsAreAskedForEachClient: where handle_response asks another upstream, the
// first one decides about each client, and what it has said is not in the response.
func TestSecondUpstreamsAreAskedForEachClient(t *testing.T) {
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("X-Where", "127.0.0.1:1")
		_, _ = io.WriteString(w, "second")
	}))
	defer second.Close()
	first := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private")
		switch {
		case r.URL.Path == "/plain":
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(http.StatusNonAuthoritativeInfo)
		case r.Header.Get("X-Role") == "guest":
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Header().Set("X-Accel-Redirect", "/file")
			w.Header().Set("X-Where", second.Listener.Addr().String())
		}
		_, _ = io.WriteString(w, "first")
	}
	for name, tt := range map[string]struct{ list, admin, guest string }{
		"redirect": {"@a header X-Accel-Redirect *\nhandle_response @a {\nrewrite * {rp.header.X-Accel-Redirect}\nPROXY\n}", "second", "first"},
		"verdict":  {"@a status 200\nhandle_response @a {\nhandle {\nPROXY\n}\n}", "second", "first"},
		"fallback": {"@a status 404\nhandle_response @a {\nPROXY\n}", "first", "second"},
		"address":  {"@a header X-Where *\nhandle_response @a {\nreverse_proxy {rp.header.X-Where}\n}", "second", "first"},
		"third":    {"@a status 404\nhandle_response @a {\nreverse_proxy UPSTREAM {\nhandle_response {\nPROXY\n}\n}\n}", "first", "second"},
	} {
		t.Run(name, func(t *testing.T) {
			list := strings.ReplaceAll(tt.list, "PROXY", "reverse_proxy "+second.Listener.Addr().String())
			front, _ := composed(t, first, "groupcache\nreverse_proxy UPSTREAM {\n"+list+"\n}")
			ask := func(path, role string) (body, status string) {
				r, _ := http.NewRequest(http.MethodGet, front+path, nil)
				r.Header.Set("X-Role", role)
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				all, _ := io.ReadAll(resp.Body)
				return string(all), resp.Header.Get("Cache-Status")
			}
			for range 2 {
				for _, role := range []string{"admin", "guest", "admin"} {
					want := map[string]string{"admin": tt.admin, "guest": tt.guest}[role]
					if body, status := ask("/a", role); body != want {
						t.Errorf("as %s: %q (%s), want %q", role, body, status, want)
					}
				}
			}
			ask("/plain", "admin")
			if body, status := ask("/plain", "guest"); body != "first" || name != "third" && name != "address" && !strings.Contains(status, "hit;") {
				t.Errorf("a response of the first upstream: %q (%s)", body, status)
			}
		})
	}
}

// TestForwardAuthInFrontLimitsNothingBehind: what it leaves in the placeholders is not of
// the response that is stored.
func TestForwardAuthInFrontLimitsNothingBehind(t *testing.T) {
	front, _ := composed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
	}, "forward_auth UPSTREAM {\n\turi /\n}\ngroupcache\nroute {\n\theader Cache-Control max-age=60\n\trespond hello\n}")
	fetchURL(t, front+"/")
	if body, header := fetchURL(t, front+"/"); body != "hello" || !strings.Contains(header.Get("Cache-Status"), "hit") {
		t.Errorf("%q %v", body, header)
	}
}

// TestErrorPagesAreNotStoredAsThePage.
func TestErrorPagesAreNotStoredAsThePage(t *testing.T) {
	var works atomic.Bool
	front, _ := composed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		switch {
		case r.Header.Get("X-Error") != "":
			_, _ = io.WriteString(w, "sorry")
		case works.Load():
			_, _ = io.WriteString(w, "the page")
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	}, `
	route {
		groupcache
		reverse_proxy UPSTREAM {
			@err status 418
			handle_response @err {
				error 500
			}
		}
	}
	handle_errors {
		groupcache
		reverse_proxy UPSTREAM {
			header_up X-Error 1
		}
	}`)
	for range 2 {
		if body, header := fetchURL(t, front+"/"); body != "sorry" || !strings.Contains(strings.Join(header["Cache-Status"], " "), "detail=error-route") {
			t.Errorf("%q %v", body, header)
		}
	}
	works.Store(true)
	for _, want := range []string{"stored", "hit"} {
		if body, header := fetchURL(t, front+"/"); body != "the page" || !strings.Contains(header.Get("Cache-Status"), want) {
			t.Errorf("%q %v", body, header)
		}
	}
}

// TestVaryByWhatCaddySetsIsNotStored: the upstream gets the client's address in a field
// that the client has not sent.
func TestVaryByWhatCaddySetsIsNotStored(t *testing.T) {
	front, calls := composed(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", strings.TrimPrefix(r.URL.Path, "/"))
	}, "groupcache\nreverse_proxy UPSTREAM")
	for _, name := range []string{"X-Forwarded-For", "Accept, x-forwarded-for"} {
		fetchURL(t, front+"/"+strings.ReplaceAll(name, " ", "%20"))
		if _, header := fetchURL(t, front+"/"+strings.ReplaceAll(name, " ", "%20")); strings.Contains(header.Get("Cache-Status"), "hit;") {
			t.Errorf("%s: %v", name, header)
		}
	}
	if n := calls.Load(); n != 4 {
		t.Errorf("%d requests to the upstream", n)
	}
	fetchURL(t, front+"/X-Forwarded-Proto")
	if _, header := fetchURL(t, front+"/X-Forwarded-Proto"); !strings.Contains(header.Get("Cache-Status"), "hit;") {
		t.Errorf("%v", header)
	}
}
