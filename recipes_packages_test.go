//go:build unix

package caddygroupcache_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// The recipes for what npm and Go have, with the applications and clients themselves.

// startNodeApplication installs packages and runs a program that prints its port. It
// skips the test where that can't be done.
func startNodeApplication(t *testing.T, packages []string, program string, files map[string]string) *origin {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skipf("LEFT OUT: %v need Node and npm", packages)
	}
	dir := t.TempDir()
	install := exec.Command("npm", append([]string{"install", "--prefer-offline", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0", "--ignore-scripts"}, packages...)...)
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("LEFT OUT: npm can't install %v: %v\n%s", packages, err, out)
	}
	files["app.js"] = program
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	node := exec.Command("node", "app.js")
	node.Dir = dir
	p, err := harness.Start(node, "node", filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	line, err := p.AwaitLine(t.Context(), "port ")
	if err != nil {
		t.Fatal(err)
	}
	port := strings.TrimPrefix(line, "port ")
	return startOrigin(t, httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "127.0.0.1:" + port}).ServeHTTP)
}

// TestRecipeExpress runs Express itself.
func TestRecipeExpress(t *testing.T) {
	const app = `
const express = require('express')
const app = express()
let n = 0
app.get('/page', (q, s) => { s.send('page ' + Math.floor(n++ / 100)) })
app.get('/session', (q, s) => { s.cookie('connect.sid', 'x').send('session ' + n++) })
app.use('/static', express.static('public'))
app.use('/lasting', express.static('public', {maxAge: '1h'}))
const server = app.listen(0, '127.0.0.1', () => console.log('port ' + server.address().port))
`
	o := startNodeApplication(t, []string{"express@5.1.0"}, app, map[string]string{"public/a.txt": "a"})
	p := startRecipe(t, "express.md", "www.example.com", o, "127.0.0.1:3000", o.addr())
	page := p.ask("GET", "/page", "")
	if page.header.Get("Etag") == "" || page.header.Get("Cache-Control") != "" {
		t.Errorf("Express answers with %v", page.header)
	}
	same(t, "a page", page, p.ask("GET", "/page", ""))
	if a := p.ask("GET", "/page", "", "If-None-Match", page.header.Get("Etag")); a.status != http.StatusNotModified || o.fetches("/page") != 1 {
		t.Errorf("a browser that has the page gets %d, after %d fetches", a.status, o.fetches("/page"))
	}
	p.ask("GET", "/page", "", "Cookie", "connect.sid=x")
	if n := o.fetches("/page"); n != 2 {
		t.Errorf("%d fetches when a session has asked too", n)
	}
	differ(t, "a response that sets the cookie of a session", p.ask("GET", "/session", ""), p.ask("GET", "/session", ""))
	for path, fetches := range map[string]int{"/static/a.txt": 2, "/lasting/a.txt": 1} {
		p.ask("GET", path, "")
		p.ask("GET", path, "").is(t, path, "a")
		if n := o.fetches(path); n != fetches {
			t.Errorf("%s: %d fetches", path, n)
		}
	}

	// Without ttl, each request is validated.
	p = startRecipe(t, "express.md", "www.example.com", o, "127.0.0.1:3000", o.addr(), "ttl 10s", "")
	before := o.fetches("/page")
	p.ask("GET", "/page", "")
	a := p.ask("GET", "/page", "")
	if !strings.Contains(a.cacheStatus(), "fwd-status=304") || a.status != 200 || o.fetches("/page") != before+2 {
		t.Errorf("without ttl: %d (%s), and %d fetches", a.status, a.cacheStatus(), o.fetches("/page")-before)
	}
}

// TestRecipeApollo runs Apollo Server itself.
func TestRecipeApollo(t *testing.T) {
	if raceEnabled() {
		t.Skip("runs without the race detector: it takes npm a while")
	}
	const app = `
const { ApolloServer } = require('@apollo/server')
const { startStandaloneServer } = require('@apollo/server/standalone')
const typeDefs = '\
  enum CacheControlScope { PUBLIC PRIVATE } \
  directive @cacheControl(maxAge: Int, scope: CacheControlScope, inheritMaxAge: Boolean) on FIELD_DEFINITION | OBJECT | INTERFACE | UNION \
  type Query { product: Int @cacheControl(maxAge: 60) me: Int @cacheControl(maxAge: 60, scope: PRIVATE) now: Int broken: Int @cacheControl(maxAge: 60) } \
  type Mutation { sell: Int }'
let n = 0
const one = () => n++
const tags = { async requestDidStart() { return { async willSendResponse({ response }) { response.http.headers.set('Cache-Tag', 'product-17') } } } }
const resolvers = { Query: { product: one, me: one, now: one, broken() { n++; throw new Error('broken ' + n) } }, Mutation: { sell: one } }
startStandaloneServer(new ApolloServer({ typeDefs, resolvers, plugins: [tags] }), { listen: { host: '127.0.0.1', port: 0 } }).then(({ url }) => console.log('port ' + new URL(url).port))
`
	o := startNodeApplication(t, []string{"@apollo/server@5.1.0", "graphql@16.12.0"}, app, map[string]string{})
	p := startRecipe(t, "graphql.md", "api.example.com", o, "10.0.1.1:4000", o.addr())
	query := func(what string) answer {
		return p.ask("GET", "/graphql?query="+url.QueryEscape("{"+what+"}"), "", "Apollo-Require-Preflight", "1")
	}
	product := query("product")
	same(t, "a query that is cached", product, query("product"))
	for _, what := range []string{"me", "now", "broken", "product me"} {
		differ(t, what, query(what), query(what))
	}
	if a := p.ask("POST", "/graphql", `{"query":"mutation{sell}"}`, "Content-Type", "application/json"); a.status != 200 || a.hit() {
		t.Errorf("a mutation: %d %s", a.status, a.body)
	}
	if a := p.ask("POST", "/hooks/purge", `{"tags": ["product-17"]}`, "Authorization", "Bearer "+exampleToken); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	differ(t, "after the purge", product, query("product"))
}

// TestRecipeNextJSItself builds a site with Next.js, and runs it: a page that is made again
// each minute, one of each visitor's own, and a draft.
func TestRecipeNextJSItself(t *testing.T) {
	if raceEnabled() {
		t.Skip("runs without the race detector: it takes npm a while")
	}
	const app = `
require('child_process').execFileSync(process.execPath, ['node_modules/next/dist/bin/next', 'build'], { stdio: 'inherit' })
const site = require('next')({ dev: false })
site.prepare().then(() => {
  const server = require('http').createServer(site.getRequestHandler())
  server.listen(0, '127.0.0.1', () => console.log('port ' + server.address().port))
})`
	t.Setenv("NEXT_TELEMETRY_DISABLED", "1")
	o := startNodeApplication(t, []string{"next@16.0.3", "react@19.2.0", "react-dom@19.2.0"}, app, map[string]string{
		"app/layout.js": `export default function Layout({ children }) { return <html><body>{children}</body></html> }`,
		"app/page/page.js": `import { draftMode } from 'next/headers'
			export const revalidate = 60
			export default async function Page() { return <p>page, draft: {String((await draftMode()).isEnabled)}</p> }`,
		"app/personal/page.js": `import { cookies } from 'next/headers'
			export default async function Page() { return <p>personal: {(await cookies()).get('user')?.value}</p> }`,
		"app/draft/route.js": `import { draftMode } from 'next/headers'
			export async function GET() { (await draftMode()).enable(); return new Response('draft') }`,
	})
	p := startRecipe(t, "nextjs.md", "www.example.com", o, "127.0.0.1:3000", o.addr())
	visit := func(what, path, want string, fetches int, header ...string) answer {
		t.Helper()
		a := p.ask("GET", path, "", header...)
		text := strings.ReplaceAll(a.body, "<!-- -->", "") // which React puts between texts
		if found := strings.Contains(text, want); a.status != http.StatusOK || !found || o.fetches("") != fetches {
			t.Errorf("%s: %d, with %q in it: %t, after %d fetches, not %d", what, a.status, want, found, o.fetches(""), fetches)
		}
		return a
	}
	visit("a page", "/page", "page, draft: false", 1)
	visit("another visitor", "/page?utm_source=x", "page, draft: false", 1, "Cookie", "_ga=1")
	visit("Next.js's router", "/page", "static/chunks", 2, "RSC", "1")
	visit("the router again", "/page", "static/chunks", 2, "RSC", "1")
	visit("a personal page", "/personal", "personal: alice", 3, "Cookie", "user=alice")
	visit("another visitor's", "/personal", "personal: bob", 4, "Cookie", "user=bob")
	draft, _, _ := strings.Cut(visit("a draft begins", "/draft", "draft", 5).header.Get("Set-Cookie"), ";")
	visit("a draft", "/page", "page, draft: true", 6, "Cookie", draft)
	visit("the page after it", "/page", "page, draft: false", 6)
	if a := p.ask("POST", "/hooks/purge", `{"hosts": ["www.example.com"]}`, "Authorization", "Bearer "+exampleToken); a.status != 200 {
		t.Errorf("purge: %d %s", a.status, a.body)
	}
	visit("after a deployment", "/page", "page, draft: false", 7)
	visit("the router after it", "/page", "static/chunks", 8, "RSC", "1")
}

// packageFiles are a module for the go command and a package for npm, as registries have
// them.
func packageFiles(t *testing.T) map[string]string {
	t.Helper()
	var module, zipped bytes.Buffer
	z := zip.NewWriter(&module)
	w, err := z.Create("example.com/m@v1.0.0/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(w, "module example.com/m\n")
	if err := firstError(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	const about = `{"name":"m","version":"1.0.0"}`
	g := gzip.NewWriter(&zipped)
	tarred := tar.NewWriter(g)
	err = tarred.WriteHeader(&tar.Header{Name: "package/package.json", Mode: 0o644, Size: int64(len(about))})
	_, werr := io.WriteString(tarred, about)
	if err := firstError(err, werr, tarred.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(zipped.Bytes())
	return map[string]string{
		"/example.com/m/@v/list": "v1.0.0\n", "/example.com/m/@v/v1.0.0.info": `{"Version":"v1.0.0"}`, "/example.com/m/@v/v1.0.0.mod": "module example.com/m\n", "/example.com/m/@v/v1.0.0.zip": module.String(),
		"/m":               fmt.Sprintf(`{"name":"m","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"m","version":"1.0.0","dist":{"tarball":"http://packages.example.com/m/-/m-1.0.0.tgz","integrity":"sha512-%s"}}}}`, base64.StdEncoding.EncodeToString(sum[:])),
		"/m/-/m-1.0.0.tgz": zipped.String(),
	}
}

func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestRecipePackages: two machines get a package by the go command and by npm; the registry
// is asked once.
func TestRecipePackages(t *testing.T) {
	files := packageFiles(t)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		text, ok := files[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, text)
	})
	p := startRecipe(t, "packages.md", "packages.example.com", o, "10.0.1.1:4873", o.addr())
	proxy := "http://" + p.http // by which the site's name is found
	for range 2 {
		dir := t.TempDir()
		commands := [][]string{{"go", "mod", "download", "-modcacherw", "-json", "example.com/m@v1.0.0"}}
		if _, err := exec.LookPath("npm"); err == nil {
			commands = append(commands, []string{"npm", "install", "m", "--registry=http://packages.example.com/", "--proxy=" + proxy, "--cache=" + dir + "/npm", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=0"})
		}
		for _, command := range commands {
			cmd := exec.Command(command[0], command[1:]...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HTTP_PROXY="+proxy, "http_proxy="+proxy, "NO_PROXY=", "no_proxy=", "GOPROXY=http://packages.example.com", "GOMODCACHE="+dir+"/go", "GOSUMDB=off", "GONOSUMDB=", "GOPRIVATE=", "GOFLAGS=", "GOWORK=off")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", command, err, out)
			}
			for name := range files {
				if n := o.fetches(name); n > 1 {
					t.Errorf("%v: %d fetches of %s", command, n, name)
				}
			}
		}
	}
	if o.fetches("/example.com/m/@v/v1.0.0.zip") != 1 {
		t.Error("the go command has not got its module by way of the cache")
	}
}
