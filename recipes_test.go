//go:build unix

package caddygroupcache_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/webdav"
)

// TestRecipesAreValid: the real binary takes every config of docs/recipes and
// docs/migrate.md as it stands.
func TestRecipesAreValid(t *testing.T) {
	exampleEnv(t)
	pages := repoFiles(t, func(name string) bool {
		return strings.HasPrefix(name, "docs/recipes/") || name == "docs/migrate.md"
	})
	for _, page := range pages {
		found := fence.FindAllSubmatch(readFile(t, page), -1)
		if len(found) == 0 {
			t.Errorf("%s has no config", page)
		}
		for i, snippet := range found {
			t.Run(page+"/"+strconv.Itoa(i+1), func(t *testing.T) {
				name := filepath.Join(t.TempDir(), "Caddyfile")
				if err := os.WriteFile(name, snippet[1], 0o600); err != nil {
					t.Fatal(err)
				}
				validate(t, name)
			})
		}
	}
}

// TestRecipesAreRun: the first config of each page serves an application in a test.
func TestRecipesAreRun(t *testing.T) {
	run := map[string]bool{}
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasSuffix(name, "_test.go") }) {
		for _, m := range regexp.MustCompile(`startRecipes?\(t, (?:\d, )?"([a-z-]+\.md)"`).FindAllSubmatch(readFile(t, name), -1) {
			run["docs/recipes/"+string(m[1])] = true
		}
	}
	for _, page := range repoFiles(t, func(name string) bool { return strings.HasPrefix(name, "docs/recipes/") }) {
		if !run[page] {
			t.Errorf("no test runs the config of %s by startRecipe", page)
		}
	}
}

// A recipe is a node with the first config of a page of docs/recipes.
type recipe struct {
	*process
	host string
	tls  string // host:port, for HTTPS
}

// startRecipe runs the config as it stands, but for ports and for the pairs of
// old and new text: addresses of upstreams and clients, which are on loopback.
func startRecipe(t *testing.T, page, host string, o *origin, replace ...string) *recipe {
	t.Helper()
	return startRecipes(t, 1, page, host, o, replace...)[0]
}

// startRecipes runs the config on a cluster.
func startRecipes(t *testing.T, n int, page, host string, o *origin, replace ...string) []*recipe {
	t.Helper()
	m := fence.FindSubmatch(readFile(t, "docs/recipes/"+page))
	if m == nil {
		t.Fatalf("%s has no config", page)
	}
	return startSite(t, n, string(m[1]), host, o, replace...)
}

// startSite runs a config of the documentation on n nodes.
func startSite(t *testing.T, n int, config, host string, o *origin, replace ...string) (all []*recipe) {
	t.Helper()
	exampleEnv(t)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(config, replace[i]) {
			t.Fatalf("the config has no %q", replace[i])
		}
		config = strings.ReplaceAll(config, replace[i], replace[i+1])
	}
	config, global := strings.CutPrefix(config, "{\n") // global options
	if !global {
		config = "}\n" + config
	}
	c := newCluster(t, n, o, "")
	for _, p := range c {
		one := &recipe{p, host, freePorts(t, 1)[0]}
		_, port, _ := strings.Cut(p.http, ":")
		_, tlsPort, _ := strings.Cut(one.tls, ":")
		p.config = fmt.Sprintf("{\n\tadmin %s\n\thttp_port %s\n\thttps_port %s\n\tdefault_bind 127.0.0.1\n\tpersist_config off\n\tlocal_certs\n\tskip_install_trust\n", p.admin, port, tlsPort)
		if n > 1 {
			p.config += fmt.Sprintf("\tgroupcache {\n\t\tname %s\n\t\tgossip %s\n\t\tpeers %s\n\t\tjoin %s\n\t}\n", p.name, p.gossip, p.peers, p.join)
		}
		p.config += config
		p.start()
		all = append(all, one)
	}
	if n > 1 {
		c.awaitMembers()
	}
	return all
}

// ask sends a request to the site, with pairs of field names and values.
func (p *recipe) ask(method, path, body string, header ...string) answer {
	r := p.request(method, path, strings.NewReader(body), header...)
	r.Host = p.host
	if body == "" {
		r.Body = http.NoBody
	}
	return do(r)
}

// numbered answers each request with the number of requests that there were.
func numbered(set func(w http.ResponseWriter, r *http.Request)) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		set(w, r)
		fmt.Fprint(w, n.Add(1))
	}
}

// same fails the test unless two answers have one body, which was fetched once.
func same(t *testing.T, what string, a, b answer) {
	t.Helper()
	if a.status != http.StatusOK || b.status != http.StatusOK || a.body != b.body || !b.hit() {
		t.Errorf("%s: %d %s, then %d %s (%s)", what, a.status, brief(a.body), b.status, brief(b.body), b.cacheStatus())
	}
}

// differ fails the test unless the second answer is another one of the upstream.
func differ(t *testing.T, what string, a, b answer) {
	t.Helper()
	if b.status != http.StatusOK || a.body == b.body || b.hit() {
		t.Errorf("%s: %s, then %d %s (%s)", what, brief(a.body), b.status, brief(b.body), b.cacheStatus())
	}
}

func TestRecipeWordPress(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) {}))
	p := startRecipe(t, "wordpress.md", "www.example.com", o, "10.0.0.5:8080", o.addr(), "10.0.0.5", "127.0.0.1")
	page := p.ask("GET", "/a-page/", "")
	same(t, "another visitor, with a cookie of analytics", page, p.ask("GET", "/a-page/?utm_source=x", "", "Cookie", "_ga=1"))
	author := p.ask("GET", "/a-page/", "", "Cookie", "wordpress_logged_in_1=a")
	differ(t, "an author", page, author)
	same(t, "a visitor after the author", page, p.ask("GET", "/a-page/", ""))
	for _, path := range []string{"/wp-login.php", "/wp-admin/post.php", "/wp-json/wc/store/v1/cart"} {
		differ(t, path, p.ask("GET", path, ""), p.ask("GET", path, ""))
	}
	p.ask("POST", "/a-page/", "a=b", "Cookie", "wordpress_logged_in_1=a")
	changed := p.ask("GET", "/a-page/", "")
	differ(t, "after the author's POST", page, changed)
	if a := p.ask("PURGE", "/.*", "", "X-Purge-Method", "regex"); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	differ(t, "after the purge", changed, p.ask("GET", "/a-page/", ""))
}

func TestRecipeMediaWiki(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "s-maxage=18000, must-revalidate, max-age=0")
		w.Header().Set("Vary", "Accept-Encoding, Cookie")
	}))
	p := startRecipe(t, "mediawiki.md", "wiki.example.com", o, "10.0.0.5:8080", o.addr(), "10.0.0.5", "127.0.0.1")
	const main = "/index.php?title=Main_Page"
	page := p.ask("GET", main, "")
	same(t, "a visitor with cookies of analytics", page, p.ask("GET", main, "", "Cookie", "_ga=GA1.2; _ga_X1=GS1; _gid=3"))
	for _, cookie := range []string{"wikiUserID=1; wikiToken=x", "wiki_session=x", "_ga=1; enwiki_session=x"} {
		if a := p.ask("GET", main, "", "Cookie", cookie); a.cacheStatus() != "" || a.body == page.body {
			t.Errorf("with %s: %d (%s)", cookie, a.status, a.cacheStatus())
		}
	}
	if a := p.ask("PURGE", main, ""); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	differ(t, "after the purge", page, p.ask("GET", main, ""))
}

// TestRecipeDrupal has the fields of Drupal 10 with Varnish Purge.
func TestRecipeDrupal(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=900, public")
		w.Header().Set("Expires", "Sun, 19 Nov 1978 05:00:00 GMT")
		w.Header().Set("Vary", "Cookie")
		w.Header().Set("Cache-Tags", "node:1 node_list rendered")
		if strings.Contains(r.Header.Get("Cookie"), "SESS") {
			w.Header().Set("Cache-Control", "must-revalidate, no-cache, private")
		}
	}))
	p := startRecipe(t, "drupal.md", "www.example.com", o, "10.0.0.5:8080", o.addr(), "10.0.0.5", "127.0.0.1")
	page := p.ask("GET", "/node/1", "")
	same(t, "a visitor with cookies of analytics", page, p.ask("GET", "/node/1", "", "Cookie", "_ga=GA1.2; _gid=3"))
	if page.header.Get("Cache-Tags") != "" {
		t.Error("clients get the tags")
	}
	user := p.ask("GET", "/node/1", "", "Cookie", "SSESS0123456789abcdef=x")
	if user.cacheStatus() != "" || user.body == page.body {
		t.Errorf("a user: %d (%s)", user.status, user.cacheStatus())
	}
	same(t, "a visitor after the user", page, p.ask("GET", "/node/1", ""))
	if a := p.ask("BAN", "/", "", "Cache-Tags", "node:9|node:1"); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	differ(t, "after the purge", page, p.ask("GET", "/node/1", ""))
}

// TestRecipeNextJS has the fields of Next.js 15.
func TestRecipeNextJS(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "rsc, next-router-state-tree, next-router-prefetch, next-router-segment-prefetch, Accept-Encoding")
		w.Header().Set("Cache-Control", "s-maxage=60, stale-while-revalidate=31535940")
		if r.URL.Path == "/personal" || strings.Contains(r.Header.Get("Cookie"), "__prerender_bypass=") {
			w.Header().Set("Cache-Control", "private, no-cache, no-store, max-age=0, must-revalidate")
		}
	}))
	p := startRecipe(t, "nextjs.md", "www.example.com", o, "127.0.0.1:3000", o.addr())
	page := p.ask("GET", "/", "")
	same(t, "another visitor", page, p.ask("GET", "/?utm_source=x", "", "Cookie", "_ga=1"))
	part := p.ask("GET", "/", "", "RSC", "1")
	differ(t, "what the router asks for", page, part)
	same(t, "the router again", part, p.ask("GET", "/", "", "RSC", "1"))
	differ(t, "a draft", page, p.ask("GET", "/", "", "Cookie", "__prerender_bypass=x"))
	same(t, "a visitor after the draft", page, p.ask("GET", "/", ""))
	differ(t, "a personal page", p.ask("GET", "/personal", ""), p.ask("GET", "/personal", ""))
	if a := p.ask("POST", "/hooks/purge", `{"hosts": ["www.example.com"]}`, "Authorization", "Bearer "+exampleToken); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	differ(t, "after a deployment", page, p.ask("GET", "/", ""))
}

func TestRecipeMedia(t *testing.T) {
	film := strings.Repeat("0123456789abcdef", 3<<20/16)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"film"`)
		http.ServeContent(w, r, "film.mp4", time.Time{}, strings.NewReader(film))
	})
	p := startRecipe(t, "media.md", "media.example.com", o, "10.0.1.1:8080", o.addr())
	part := func(path string, from, to int) answer {
		a := p.ask("GET", path, "", "Range", fmt.Sprintf("bytes=%d-%d", from, to))
		if a.status != http.StatusPartialContent || a.body != film[from:to+1] {
			t.Errorf("bytes %d to %d of %s: %d, %s", from, to, path, a.status, brief(a.body))
		}
		return a
	}
	p.ask("GET", "/whole.mp4", "").is(t, "the whole", film)
	if a := part("/whole.mp4", 2<<20, 2<<20+99); !a.hit() {
		t.Errorf("a part of what is stored: %s", a.cacheStatus())
	}
	part("/parts.mp4", 2<<20+100, 2<<20+199) // brings the MiB around it
	fetches := o.fetches("/parts.mp4")
	if a := part("/parts.mp4", 2<<20, 2<<20+99); !a.hit() || o.fetches("/parts.mp4") != fetches {
		t.Errorf("a part beside one that is stored: %s, %d fetches after %d", a.cacheStatus(), o.fetches("/parts.mp4"), fetches)
	}
}

func TestRecipeAPIPlatform(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/books/1":
			w.Header().Set("Cache-Control", "public, s-maxage=3600")
			w.Header().Set("Surrogate-Key", "/books/1, /authors/7")
		case "/laravel":
			w.Header().Set("Cache-Control", "no-cache, private")
			w.Header().Set("Etag", `"a"`)
		}
	}))
	p := startRecipe(t, "api-platform.md", "api.example.com", o, "10.0.0.5:8080", o.addr(), "10.0.0.5", "127.0.0.1")
	book := p.ask("GET", "/books/1", "", "Authorization", "Bearer a")
	same(t, "another user", book, p.ask("GET", "/books/1", "", "Authorization", "Bearer b"))
	if book.header.Get("Surrogate-Key") != "" {
		t.Error("clients get the tags")
	}
	if a := p.ask("PURGE", "/", "", "Surrogate-Key", "/books, /authors/7"); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	differ(t, "after the purge", book, p.ask("GET", "/books/1", ""))
	differ(t, "the default of the frameworks", p.ask("GET", "/laravel", ""), p.ask("GET", "/laravel", ""))
	// A host without a site.
	p.host = "10.0.0.10"
	if a := p.ask("PURGE", "/", "", "Surrogate-Key", "/books/1"); a.status != 200 || a.body != "" {
		t.Errorf("a host that Caddy does not know gets %d %s", a.status, a.body)
	}
}

func TestRecipeGraphQL(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60, public")
		w.Header().Set("Cache-Tag", "product-17")
	}))
	p := startRecipe(t, "graphql.md", "api.example.com", o, "10.0.1.1:4000", o.addr())
	const query = "/graphql?operationName=P&variables=%7B%22id%22%3A17%7D"
	first := p.ask("GET", query, "")
	same(t, "a query by GET", first, p.ask("GET", "/graphql?variables=%7B%22id%22%3A17%7D&operationName=P", ""))
	json := []string{"Content-Type", "application/json"}
	differ(t, "a query by POST", p.ask("POST", "/graphql", `{"query":"{a}"}`, json...), p.ask("POST", "/graphql", `{"query":"{a}"}`, json...))
	same(t, "a query by GET after a POST", first, p.ask("GET", query, ""))
	byContent := p.ask("QUERY", "/graphql", `{"query":"{a}"}`, json...)
	same(t, "a query by QUERY", byContent, p.ask("QUERY", "/graphql", `{"query":"{a}"}`, json...))
	differ(t, "another query by QUERY", byContent, p.ask("QUERY", "/graphql", `{"query":"{b}"}`, json...))
	p.ask("POST", "/graphql", `{"query":"mutation{a}"}`, json...)
	differ(t, "a query by QUERY after a POST", byContent, p.ask("QUERY", "/graphql", `{"query":"{a}"}`, json...))
	if a := p.ask("POST", "/hooks/purge", `{"tags": ["product-17"]}`, "Authorization", "Bearer "+exampleToken); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	differ(t, "after the purge", first, p.ask("GET", query, ""))
}

// TestRecipeWebDAV runs the WebDAV server of the Go project.
func TestRecipeWebDAV(t *testing.T) {
	dir := t.TempDir()
	dav := &webdav.Handler{FileSystem: webdav.Dir(dir), LockSystem: webdav.NewMemLS()}
	var bytesRead atomic.Int64
	var password atomic.Value // of the one user; "" if there is none
	password.Store("")
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if _, given, _ := r.BasicAuth(); given != password.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if d := r.Header.Get("Destination"); d != "" { // nothing but a path is the same on both sides
			u, _ := url.Parse(d)
			r.Header.Set("Destination", u.Path)
		}
		dav.ServeHTTP(countedWriter{w, &bytesRead}, r)
	})
	p := startRecipe(t, "webdav.md", "files.example.com", o, "10.0.1.1:8080", o.addr())
	change := func(method, path, body string, want int, header ...string) {
		t.Helper()
		if a := p.ask(method, path, body, header...); a.status != want {
			t.Errorf("%s %s: %d %s (%v)", method, path, a.status, a.body, a.err)
		}
	}
	text := strings.Repeat("0123456789abcdef", 1000)
	change("MKCOL", "/d/", "", 201)
	change("PUT", "/d/a", text, 201)
	change("PUT", "/b", "b", 201)
	old := time.Now().AddDate(-1, 0, 0) // by Last-Modified it would be fresh for a day
	for _, name := range []string{"d/a", "b"} {
		if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	p.ask("GET", "/d/a", "").is(t, "at first", text)
	read := bytesRead.Load()
	a := p.ask("GET", "/d/a", "")
	a.is(t, "again", text)
	if !strings.Contains(a.cacheStatus(), "fwd-status=304") || bytesRead.Load() != read {
		t.Errorf("the file is not validated but sent again: %s", a.cacheStatus())
	}
	p.ask("GET", "/b", "").is(t, "the other", "b")
	change("PROPFIND", "/d/", "", 207, "Depth", "1")
	change("MOVE", "/d/a", "", 204, "Destination", "http://files.example.com/b", "Overwrite", "T")
	p.ask("GET", "/b", "").is(t, "what was moved over", text)
	change("COPY", "/b", "", 201, "Destination", "http://files.example.com/d/c")
	p.ask("GET", "/d/c", "").is(t, "a copy", text)
	change("DELETE", "/d/", "", 204)
	if a := p.ask("GET", "/d/c", ""); a.status != http.StatusNotFound {
		t.Errorf("a file of a folder that is gone: %d (%s)", a.status, a.cacheStatus())
	}

	// With users.
	p = startRecipe(t, "webdav.md", "files.example.com", o, "10.0.1.1:8080", o.addr(), "max_body_size 8GiB", "authorization ignore")
	password.Store("right")
	who := func(given string) []string {
		r, _ := http.NewRequest("GET", "/", nil)
		r.SetBasicAuth("user", given)
		return []string{"Authorization", r.Header.Get("Authorization")}
	}
	p.ask("GET", "/b", "", who("right")...).is(t, "a user", text)
	read = bytesRead.Load()
	a = p.ask("GET", "/b", "", who("right")...)
	a.is(t, "the user again", text)
	if bytesRead.Load() != read || !strings.Contains(a.cacheStatus(), "fwd-status=304") {
		t.Errorf("the file was sent again: %s", a.cacheStatus())
	}
	for _, header := range [][]string{who("wrong"), nil} {
		if a := p.ask("GET", "/b", "", header...); a.status != http.StatusUnauthorized {
			t.Errorf("with %v: %d (%s)", header, a.status, a.cacheStatus())
		}
	}
}

type countedWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w countedWriter) Write(p []byte) (int, error) {
	w.n.Add(int64(len(p)))
	return w.ResponseWriter.Write(p)
}

func TestRecipeCDN(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Groupcache-Cache-Control", "max-age=3600")
		w.Header().Set("Cdn-Cache-Control", "max-age=300")
		w.Header().Set("Cache-Control", "max-age=0")
	}))
	p := startRecipe(t, "cdn.md", "www.example.com", o, "10.0.1.1:8080", o.addr(), "10.0.0.0/24", "127.0.0.0/8")
	first := p.ask("GET", "/", "")
	hit := p.ask("GET", "/", "")
	same(t, "a page", first, hit)
	if !regexp.MustCompile(`ttl=3[56]\d\d;`).MatchString(hit.cacheStatus()) || hit.header.Get("Age") == "" || hit.header.Get("Cdn-Cache-Control") == "" {
		t.Errorf("%v", hit.header)
	}
	differ(t, "a request that came by HTTPS", first, p.ask("GET", "/", "", "X-Forwarded-Proto", "https"))
	for forwarded, want := range map[string]int{"10.0.5.1": 200, "203.0.113.1": 403, "10.0.5.1, 203.0.113.1": 403} {
		if a := p.ask("PURGE", "/", "", "X-Forwarded-For", forwarded); a.status != want {
			t.Errorf("a purge from %s: %d %s", forwarded, a.status, a.body)
		}
	}
	differ(t, "after the purge", first, p.ask("GET", "/", ""))
}

func TestRecipeSeveralSites(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Tag", "news") }))
	p := startRecipe(t, "several-sites.md", "www.example.com", o, "10.0.1.1:8080", o.addr(), "10.0.1.2:8080", o.addr(), "10.0.1.0/24", "127.0.0.1")
	at := func(host string) func(method, path string, header ...string) answer {
		return func(method, path string, header ...string) answer {
			return (&recipe{process: p.process, host: host}).ask(method, path, "", header...)
		}
	}
	www, shop := at("www.example.com"), at("shop.example.com")
	page, offer := www("GET", "/"), shop("GET", "/")
	if page.body == offer.body {
		t.Error("sites share a response")
	}
	for what, header := range map[string][]string{"PURGE by tag": {"Cache-Tag", "news"}, "PURGE of everything": {"Clear-Cache", "true"}, "PURGE of the URL": nil} {
		page = www("GET", "/")
		if a := www("PURGE", "/", header...); a.status != 200 {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
		differ(t, what, page, www("GET", "/"))
		same(t, what+", at the other site", offer, shop("GET", "/"))
	}
	if a := at("example.com")("GET", "/x"); a.status != 301 || a.header.Get("Location") != "http://www.example.com/x" {
		t.Errorf("the second name: %d %v", a.status, a.header)
	}
	if code, _ := p.purge(`{"group": "shop", "all": true}`); code != 200 {
		t.Errorf("purge of a group: %d", code)
	}
	differ(t, "after the purge of the group", offer, shop("GET", "/"))
}

func TestRecipeHTTPS(t *testing.T) {
	o := startOrigin(t, numbered(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Cache-Control", "max-age=60") }))
	p := startRecipe(t, "https.md", "www.example.com", o, "10.0.0.5:8080", o.addr(), "10.0.0.5", "127.0.0.1")
	visit := func() (a answer) {
		r, err := http.NewRequest(http.MethodGet, "https://www.example.com/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		return doOverTLS(r, p.tls)
	}
	eventually(t, "there is a certificate", func() bool { return visit().err == nil })
	page := visit()
	same(t, "a page", page, visit())
	if a := p.ask("GET", "/a", ""); a.status != 301 || a.header.Get("Location") != "https://www.example.com/a" {
		t.Errorf("plain HTTP: %d %v", a.status, a.header)
	}
	if a := p.ask("PURGE", "/a", ""); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	differ(t, "after the purge by plain HTTP", page, visit())
}

// doOverTLS sends a request to an address, whose certificate it takes as it is.
func doOverTLS(r *http.Request, addr string) answer {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: hang}).Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
}
