//go:build unix

package caddygroupcache_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
)

// unannounced writes a body without saying how long it is.
func unannounced(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		for range n >> 10 {
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<10))
			w.(http.Flusher).Flush()
		}
	}
}

// breaking announces more than it writes, and breaks off.
func breaking(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "max-age=60")
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, "short")
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// An explained is a response that is fetched once, as a client would, and what
// explain has to say of it afterwards.
type explained struct {
	name   string
	origin http.HandlerFunc
	asked  []string // fields of the client's request; nil: nobody asks
	method string   // of that request; default: GET
	params []string // of explain, beside the URL

	verdict, detail, reason string
	cause                   string // what the cause begins with
}

// asked is a client's request without fields of its own.
var asked = []string{}

var explanations = []explained{
	{name: "never asked for", origin: cached, verdict: "fetch"},
	{name: "stored", origin: cached, asked: asked, verdict: "hit", detail: "local"},
	{name: "HEAD of what is stored", origin: cached, asked: asked, params: []string{"method", "HEAD"}, verdict: "hit", detail: "local"},
	{name: "HEAD of what is not", origin: cached, params: []string{"method", "HEAD"}, verdict: "fetch", reason: "method"},
	{name: "negative answer", origin: saying(404, "", "Cache-Control", "max-age=3600"), asked: asked, verdict: "hit", detail: "local"},
	{name: "by ttl", origin: saying(410, ""), asked: asked, verdict: "hit", detail: "local"},

	// What the request is.
	{name: "POST", origin: cached, asked: asked, params: []string{"method", "POST"}, verdict: "bypass", reason: "method"},
	{name: "upgrade", origin: cached, asked: asked, params: []string{"header", "Upgrade: websocket", "header", "Connection: Upgrade"}, verdict: "bypass", reason: "upgrade", cause: "Upgrade: websocket"},
	{name: "body", origin: cached, asked: asked, params: []string{"header", "Content-Length: 5"}, verdict: "bypass", reason: "request-body", cause: "Content-Length: 5"},
	{name: "chunked body", origin: cached, params: []string{"header", "Transfer-Encoding: chunked"}, verdict: "bypass", reason: "request-body", cause: "Transfer-Encoding: chunked"},
	{name: "connection", origin: cached, asked: asked, params: []string{"header", "Connection: close, X-Secret"}, verdict: "bypass", reason: "connection", cause: "Connection: close, X-Secret"},
	{name: "no-store of the client", origin: cached, asked: asked, params: []string{"header", "Cache-Control: no-store"}, verdict: "bypass", reason: "request-no-store", cause: "Cache-Control: no-store"},
	{name: "no-cache of the client", origin: cached, asked: asked, params: []string{"header", "Cache-Control: no-cache"}, verdict: "revalidate", reason: "request-no-cache", cause: "Cache-Control: no-cache"},
	{name: "Pragma", origin: cached, asked: asked, params: []string{"header", "Pragma: no-cache"}, verdict: "revalidate", reason: "request-no-cache", cause: "Pragma: no-cache"},
	{name: "min-fresh", origin: saying(200, "body", "Cache-Control", "max-age=60"), asked: asked, params: []string{"header", "Cache-Control: min-fresh=90"}, verdict: "fetch", reason: "request-no-cache", cause: "Cache-Control: min-fresh=90"},
	{name: "credentials", origin: cached, asked: asked, params: []string{"header", "Authorization: Basic c2VjcmV0"}, verdict: "revalidate", reason: "authorization", cause: "Authorization"},
	{name: "credentials, shared", origin: saying(200, "body", "Cache-Control", "public, max-age=60"), asked: asked, params: []string{"header", "Authorization: Basic c2VjcmV0"}, verdict: "hit", detail: "local"},
	{name: "only-if-cached", origin: cached, params: []string{"header", "Cache-Control: only-if-cached"}, verdict: "unavailable", reason: "only-if-cached", cause: "Cache-Control: only-if-cached"},
	{name: "only-if-cached, stored", origin: cached, asked: asked, params: []string{"header", "Cache-Control: only-if-cached"}, verdict: "hit", detail: "local"},
	{name: "long" + strings.Repeat("g", 16<<10), origin: cached, verdict: "bypass", reason: "bad-target"},

	// What the response is.
	{name: "no-store", origin: saying(200, "", "Cache-Control", "no-store"), asked: asked, verdict: "fetch", reason: "no-store", cause: "Cache-Control: no-store"},
	{name: "no-store for caches like this", origin: saying(200, "", "CDN-Cache-Control", "no-store", "Cache-Control", "max-age=60"), asked: asked, verdict: "fetch", reason: "no-store", cause: "Cdn-Cache-Control: no-store"},
	{name: "no-store for surrogates", origin: saying(200, "", "Surrogate-Control", "no-store", "Cache-Control", "max-age=60"), asked: asked, verdict: "fetch", reason: "no-store", cause: "Surrogate-Control: no-store"},
	{name: "private", origin: saying(200, "", "Cache-Control", "private, max-age=60"), asked: asked, verdict: "fetch", reason: "private", cause: "Cache-Control: private, max-age=60"},
	{name: "cookie", origin: saying(200, "", "Cache-Control", "max-age=60", "Set-Cookie", "session=abc"), asked: asked, verdict: "fetch", reason: "set-cookie", cause: "Set-Cookie"},
	{name: "vary star", origin: saying(200, "", "Cache-Control", "max-age=60", "Vary", "Accept, *"), asked: asked, verdict: "fetch", reason: "vary-star", cause: "Vary: Accept, *"},
	{name: "no freshness", origin: saying(200, "body"), asked: asked, verdict: "fetch", reason: "no-freshness"},
	{name: "redirect without freshness", origin: saying(302, "", "Location", "/"), asked: asked, verdict: "fetch", reason: "no-freshness"},
	{name: "expired", origin: saying(200, "", "Cache-Control", "max-age=0"), asked: asked, verdict: "fetch", reason: "expired", cause: "Cache-Control: max-age=0"},
	{name: "expired by date", origin: saying(200, "", "Expires", "0"), asked: asked, verdict: "fetch", reason: "expired", cause: "Expires: 0"},
	{name: "part", origin: saying(206, "b", "Cache-Control", "max-age=60", "Content-Range", "bytes 0-0/4"), asked: asked, verdict: "fetch", reason: "partial", cause: "Content-Range: bytes 0-0/4"},
	{name: "events", origin: saying(200, "data:\n\n", "Cache-Control", "max-age=60", "Content-Type", "text/event-stream"), asked: asked, verdict: "fetch", reason: "event-stream", cause: "Content-Type: text/event-stream"},
	{name: "too large", origin: saying(200, strings.Repeat("x", 65<<10), "Cache-Control", "max-age=60", "Content-Length", "66560"), asked: asked, verdict: "fetch", reason: "too-large", cause: "Content-Length: 66560"},
	{name: "too large without saying so", origin: unannounced(80 << 10), asked: asked, verdict: "fetch", reason: "too-large"},
	{name: "cut off", origin: breaking, asked: asked, verdict: "fetch", reason: "truncated"},
	{name: "many fields", origin: func(w http.ResponseWriter, r *http.Request) {
		for i := range 300 {
			w.Header().Add("X-Many", fmt.Sprint(i))
		}
		cached(w, r)
	}, asked: asked, verdict: "fetch", reason: "header-too-big"},
	{name: "trailers", origin: saying(200, "", "Cache-Control", "max-age=60", "Trailer", "X-Sum"), asked: asked, verdict: "fetch", reason: "trailers", cause: "Trailer: X-Sum"},
	{name: "a status nobody understands", origin: saying(299, "", "Cache-Control", "max-age=60, must-understand"), asked: asked, verdict: "fetch", reason: "status", cause: "Cache-Control: max-age=60, must-understand"},
	{name: "401", origin: saying(401, "", "Cache-Control", "max-age=60"), asked: asked, verdict: "fetch", reason: "request-status"},
	{name: "429", origin: saying(429, "", "Cache-Control", "max-age=60"), asked: asked, verdict: "fetch", reason: "request-status"},
	{name: "304 out of nothing", origin: saying(304, ""), asked: asked, verdict: "fetch", reason: "not-modified"},
	{name: "for one who has credentials", origin: cached, asked: []string{"Authorization", "Basic c2VjcmV0"}, verdict: "fetch", reason: "authorization", cause: "Authorization"},
	{name: "slow", origin: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, "begins")
		w.(http.Flusher).Flush()
		select {
		case <-time.After(2 * time.Second): // longer than fill_timeout
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, " and ends")
	}, asked: asked, verdict: "fetch", reason: "fill-timeout"},
	{name: "HEAD", origin: cached, asked: asked, method: "HEAD", verdict: "fetch", reason: "method"},

	// What is stored, but not served.
	{name: "another variant", origin: saying(200, "", "Cache-Control", "max-age=60", "Vary", "Accept-Language"), asked: []string{"Accept-Language", "de"}, params: []string{"header", "Accept-Language: en"}, verdict: "fetch", reason: "vary-mismatch", cause: "Vary: Accept-Language"},
	{name: "the same variant", origin: saying(200, "", "Cache-Control", "max-age=60", "Vary", "Accept-Language"), asked: []string{"Accept-Language", "de"}, params: []string{"header", "Accept-Language: de"}, verdict: "hit", detail: "local"},
	{name: "stale", origin: saying(200, "", "Cache-Control", "max-age=60", "Age", "70", "ETag", `"1"`), asked: asked, verdict: "revalidate", reason: "stale", cause: "for 10s"},
	{name: "stale and forbidden", origin: saying(200, "", "Cache-Control", "max-age=60, must-revalidate", "Age", "70", "ETag", `"1"`), asked: asked, verdict: "revalidate", reason: "stale", cause: "for 10s, and must-revalidate forbids to serve it so"},
	{name: "a redirect without freshness", origin: saying(302, "", "Location", "/"), asked: asked, verdict: "fetch", reason: "no-freshness"},
	{name: "stale while revalidate", origin: saying(200, "", "Cache-Control", "max-age=60, stale-while-revalidate=600", "Age", "70"), asked: asked, verdict: "stale", detail: "local"},
	{name: "validated each time", origin: saying(200, "", "Cache-Control", "no-cache", "ETag", `"1"`), asked: asked, verdict: "revalidate", reason: "must-validate"},
}

func TestExplainNamesTheReason(t *testing.T) {
	handlers := make(map[string]http.HandlerFunc)
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { handlers[r.URL.Path](w, r) })
	path := func(i int) string {
		return fmt.Sprintf("/%d/%s", i, strings.ReplaceAll(explanations[i].name, " ", "-"))
	}
	for i, row := range explanations {
		handlers[path(i)] = row.origin
	}
	c := startCluster(t, 1, o, "max_body_size 64KiB\nfill_timeout 1s\nttl 1h 410")
	for i, row := range explanations {
		t.Run(row.name[:min(len(row.name), 40)], func(t *testing.T) {
			if row.asked != nil {
				r := c[0].request(row.method, path(i), nil, row.asked...)
				do(r) // how that goes is not what this is about
			}
			fetched := o.fetches(path(i))
			e := c[0].explain(path(i), row.params...)
			if o.fetches(path(i)) != fetched {
				t.Error("to explain it was fetched")
			}
			g := e.Groups[0]
			if g.Verdict != row.verdict || g.Detail != row.detail || g.Reason != row.reason || !strings.HasPrefix(g.Cause, row.cause) {
				t.Errorf("got %s %q, reason %q, cause %q; want %s %q, reason %q, cause %q…\n%s", g.Verdict, g.Detail, g.Reason, g.Cause,
					row.verdict, row.detail, row.reason, row.cause, strings.Join(g.Words, "\n"))
			}
			if row.reason != "" && g.Change == "" {
				t.Error("nothing is said of what would change it")
			}
			for _, secret := range []string{"c2VjcmV0", "session=abc"} {
				if text, _ := json.Marshal(g); strings.Contains(string(text), secret) {
					t.Errorf("it gives away %s: %s", secret, text)
				}
			}
			// And it is true: what the next client gets fits.
			if row.verdict != "hit" && row.verdict != "stale" {
				return
			}
			r := c[0].request(params(row.params, "method"), path(i), nil, fieldsOf(row.params)...)
			if a := do(r); !a.hit() || !strings.HasSuffix(a.cacheStatus(), "detail="+row.detail) {
				t.Errorf("a client gets %s", a.cacheStatus())
			}
		})
	}
}

func params(all []string, name string) string {
	if i := slices.Index(all, name); i >= 0 {
		return all[i+1]
	}
	return ""
}

func fieldsOf(all []string) (fields []string) {
	for i := 0; i < len(all); i += 2 {
		if name, value, found := strings.Cut(all[i+1], ": "); found && all[i] == "header" {
			fields = append(fields, name, value)
		}
	}
	return fields
}

// TestExplainKnowsTheCluster: what another node knows, and that it is silent.
func TestExplainKnowsTheCluster(t *testing.T) {
	o := startOrigin(t, saying(200, "body", "Cache-Control", "max-age=3600", "Surrogate-Key", "news of-today"))
	c := startCluster(t, 3, o, patient)
	// The owner is who serves it as its own.
	path := "/a"
	c[0].get(path).is(t, "the first", "body")
	owner := slices.IndexFunc(c, func(p *process) bool {
		return strings.HasSuffix(p.get(path).cacheStatus(), "detail=local")
	})
	asker := c[(owner+1)%3]
	g := asker.explain(path).Groups[0]
	if g.Owner != c[owner].name || g.Key != "http://"+clientHost+path || len(g.Hash) != 64 || len(g.Nodes) != 3 {
		t.Errorf("owner %s, key %s, hash %s, %d nodes", g.Owner, g.Key, g.Hash, len(g.Nodes))
	}
	if g.Verdict != "hit" || g.Detail != "peer" && g.Detail != "hot" {
		t.Errorf("%s %s", g.Verdict, g.Detail)
	}
	theirs := g.Nodes[1]
	if !theirs.Owner || theirs.Name != g.Owner || len(theirs.Variants) != 1 {
		t.Fatalf("the owner knows %+v", theirs)
	}
	if v := theirs.Variants[0]; v.Body != "main" || v.Status != 200 || v.Size != 4 || v.TTLSeconds < 3500 || !slices.Equal(v.Tags, []string{"news", "of-today"}) {
		t.Errorf("the owner has %+v", v)
	}

	_, result := c[0].purge(`{"tags": ["of-today"]}`)
	_, byURL := c[0].purge(`{"urls": ["http://` + clientHost + path + `"], "soft": true}`)
	g = asker.explain(path).Groups[0]
	if len(g.Purges) != 1 || g.Purges[0].ID != byURL.ID || !g.Purges[0].Soft || g.Purges[0].Kind != "url" || g.Verdict != "fetch" {
		t.Errorf("after the purge: %s, %+v", g.Verdict, g.Purges)
	}
	c[0].get(path)
	g = asker.explain(path).Groups[0]
	if len(g.Purges) != 2 || g.Purges[1].ID != result.ID || g.Purges[1].Kind != "tag" {
		t.Errorf("once the tags are known again: %+v", g.Purges)
	}

	o.Config.Handler = saying(200, "mine", "Cache-Control", "private")
	var other string
	for i := range 100 { // one that the same node owns
		if other = fmt.Sprintf("/private/%d", i); asker.explain(other).Groups[0].Owner == c[owner].name {
			break
		}
	}
	asker.get(other)
	if g := c[(owner+2)%3].explain(other).Groups[0]; g.Reason != "private" || g.Cause != "Cache-Control: private" {
		t.Errorf("what a third node fetched: %s, %s", g.Reason, g.Cause)
	}

	c[owner].kill()
	if g := asker.explain(path).Groups[0]; g.Detail != "hot" && g.Owner == c[owner].name && (g.Reason != "peer-error" && g.Reason != "peer-timeout" || g.Nodes[1].Error == "") {
		t.Errorf("with a dead owner: %s %s, %+v", g.Verdict, g.Reason, g.Nodes)
	}
}

func TestExplainSeveralGroups(t *testing.T) {
	o := startOrigin(t, cached)
	c := newCluster(t, 1, o, "group pages\nkey {http.request.host}|{http.request.uri.path}|{query.page}")
	p := c[0]
	p.start()
	config := p.caddyfile("") + fmt.Sprintf("\nhttp://api.test:%s {\n\tbind 127.0.0.1\n\tgroupcache {\n\t\tgroup api\n\t\tpurge {\n\t\t\ttoken correct-horse-battery\n\t\t}\n\t}\n\treverse_proxy %s\n}\n", p.http[strings.LastIndexByte(p.http, ':')+1:], o.addr())
	if code, answer := p.load(config); code != 200 {
		t.Fatal(answer)
	}
	p.get("/list?page=2&utm=x").is(t, "the first", "body")
	e := p.explain("/list?utm=y&page=2")
	if len(e.Groups) != 1 || e.Groups[0].Group != "pages" || e.Groups[0].Verdict != "hit" { // the other's site is another one
		t.Fatalf("%+v", e.Groups)
	}
	if key := e.Groups[0].Key; key != clientHost+"|/list|2" {
		t.Errorf("the key template yields %s", key)
	}
	for _, method := range []string{"GET", "PURGE"} { // which purges at its own site
		if e := p.explain("/list", "group", "api", "method", method); len(e.Groups) != 1 || e.Groups[0].Group != "api" || e.Groups[0].Reason != "not-routed" {
			t.Errorf("%s: %+v", method, e.Groups)
		}
	}
	for query, sentence := range map[string]string{
		"url=nonsense":                        "scheme and the host",
		"":                                    "scheme and the host",
		"url=http://a/&group=none":            "no handler of the running config",
		"url=http://a/&header=nonsense":       "Name: value",
		"url=http://a/&header=X:+a%0d%0aY:+b": "Name: value",
		"url=http://a/&method=" + url.QueryEscape("G ET"): "method",
	} {
		resp, err := adminClient.Get("http://" + p.admin + "/groupcache/explain?" + query)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 400 || !strings.Contains(string(text), sentence) {
			t.Errorf("%s: %d %s", query, resp.StatusCode, text)
		}
	}
}

func TestExplainCommand(t *testing.T) {
	o := startOrigin(t, saying(200, "body", "Cache-Control", "private"))
	c := startCluster(t, 1, o, "")
	c[0].get("/mine")
	out, exit := caddyCommand(t, "groupcache", "explain", "http://"+clientHost+"/mine", "--address", c[0].admin, "--header", "Accept: text/html")
	if exit != 0 {
		t.Fatalf("exit %d: %s", exit, out)
	}
	for _, part := range []string{"fetch, private", "http://" + clientHost + "/mine", c[0].name, "Cache-Control: private"} {
		if !strings.Contains(out, part) {
			t.Errorf("it does not tell %q:\n%s", part, out)
		}
	}
	var e caddygroupcache.Explanation
	out, exit = caddyCommand(t, "groupcache", "explain", "http://"+clientHost+"/mine", "--address", c[0].admin, "--json", "--method", "POST")
	if err := json.Unmarshal([]byte(out), &e); err != nil || exit != 0 || e.Groups[0].Reason != "method" {
		t.Errorf("%d %v %s", exit, err, out)
	}
	if out, exit := caddyCommand(t, "groupcache", "explain", "/mine", "--address", c[0].admin); exit == 0 {
		t.Errorf("a path without a host was taken: %s", out)
	}
}
