package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An upstream answers for one lane, as the composition's script has it. What it
// answers depends on the URL, the fields of the request that the response says it
// depends on, and how often an unsafe method has changed the URL: so a stored
// response and a new one have the same bytes.
type upstream struct {
	calls atomic.Int64 // without those of forward_auth

	mu       sync.Mutex // guards what follows
	script   *composition
	run      string
	versions map[string]int
}

func (u *upstream) play(run string, c *composition) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.script, u.run, u.versions = c, run, make(map[string]int)
	u.calls.Store(0)
}

// change has a URL change without a request.
func (u *upstream) change(uri string, by int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.versions[uri] += by
}

// lastModified is that of all responses and files that have one.
var lastModified = time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	c, page := u.script, r.Header.Get(pageField)
	if r.Header.Get(runField) != u.run {
		c = nil
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != "PURGE" && r.Method != "QUERY" {
		u.versions[page]++
	}
	version := u.versions[page]
	u.mu.Unlock()
	if c == nil {
		return
	}
	if r.URL.Path == "/lab/auth" {
		authenticate(w, r)
		return
	}
	if r.Method != "PURGE" {
		u.calls.Add(1)
	}
	p := c.pageAt(withoutTracking(r.URL.RequestURI()))
	p.flags["version"] = p.flags["version"] && strings.HasPrefix(page, versioned)
	if !p.flags["version"] {
		version = 0
	} else {
		p.flags["statuses"] = false // only a success invalidates
	}
	if c.has("overruled") || p.flags["targeted"] { // or what is one user's would be said to be everybody's
		p.flags["error of one user"], p.flags["accel"] = false, false
	}
	p.flags["no-vary-search"] = c.has("no-vary-search") && strings.HasPrefix(p.uri, "/p/n")
	p.serve(w, r, version)
}

// withoutTracking returns a URL without the parameter utm.
func withoutTracking(uri string) string {
	path, query, _ := strings.Cut(uri, "?")
	all := slices.DeleteFunc(strings.Split(query, "&"), func(one string) bool { return strings.HasPrefix(one, "utm=") })
	if query = strings.Join(all, "&"); query == "" {
		return path
	}
	return path + "?" + query
}

// authenticate gives the user of the cookie, as an authentication service would.
func authenticate(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie("who"); err == nil {
		w.Header().Set("Remote-User", c.Value)
		return
	}
	w.WriteHeader(http.StatusUnauthorized)
}

// A page is what the script has for one URL.
type page struct {
	seed  uint64
	uri   string
	flags map[string]bool
}

func (c *composition) pageAt(uri string) *page {
	p := &page{c.seed, uri, make(map[string]bool)}
	for _, e := range c.elements {
		for _, flag := range e.flags {
			if flag == "version" || draw(c.seed, uri, flag)%2 == 0 {
				p.flags[flag] = true
			}
		}
	}
	return p
}

func (p *page) pick(what string, from ...string) string {
	return from[draw(p.seed, p.uri, what)%uint64(len(from))]
}

func (p *page) serve(w http.ResponseWriter, r *http.Request, version int) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if p.flags["delay"] {
		time.Sleep(time.Duration(draw(p.seed, p.uri, "ms")%4) * time.Millisecond)
	}
	if p.flags["slow"] {
		time.Sleep(time.Duration(30+draw(p.seed, p.uri, "ms")%90) * time.Millisecond)
	}
	if p.flags["no-vary-search"] {
		h.Set("No-Vary-Search", `params=("utm")`)
	}
	if p.flags["targeted"] {
		h.Set(p.pick("targeted", "Groupcache-Cache-Control", "CDN-Cache-Control", "Surrogate-Control", "X-Own-Control"),
			p.pick("aim", "max-age=60", "no-store", "private", "no-cache", "max-age=0", "s-maxage=60", "max-age=60, must-revalidate"))
	}
	id := p.identity(h, r)
	status, done := p.refuse(w, r)
	if done {
		return
	}
	if p.flags["line"] {
		h.Set("X-Line", "upstream")
	}
	if p.flags["set cookie"] {
		h.Set("Set-Cookie", "seen=1; Path=/")
	}
	language := "-"
	if p.flags["language"] {
		h.Add("Vary", "Accept-Language")
		language = r.Header.Get("Accept-Language")
	}
	if p.flags["overriding"] {
		for _, name := range []string{"X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "Rsc", "X-Forwarded-Prefix"} {
			language += r.Header.Get(name)
		}
	}
	if r.Method == "QUERY" {
		content, _ := io.ReadAll(r.Body)
		language += " content=" + string(content)
	}
	if p.flags["content location"] && strings.HasPrefix(r.Header.Get(pageField), versioned) {
		h.Set("Content-Location", r.Header.Get(pageField))
	}
	body := fmt.Appendf(nil, "<p>uri=%s site=%s tenant=%s page=%s version=%d language=%s id=%s;</p>\n",
		p.uri, r.Header.Get("X-Site"), r.Header.Get("X-Tenant"), r.Header.Get("X-Page"), version, language, id)
	if p.flags["long"] {
		body = append(body, bytes.Repeat([]byte("long "), int(draw(p.seed, p.uri, "length")%4000))...)
	}
	if p.flags["large"] {
		for i := range 100_000 + draw(p.seed, p.uri, "size")%150_000 {
			body = fmt.Appendf(body, "%010d\n", i)
		}
	}
	tag := fmt.Sprintf(`"%x"`, draw(p.seed, string(body)))
	if p.flags["validators"] {
		h.Set("Etag", p.pick("weak", "", "W/")+tag)
		if !p.flags["unsaid"] {
			h.Set("Last-Modified", lastModified.Format(http.TimeFormat))
		}
	}
	p.send(w, r, status, body)
}

// send ends the response, whole or broken off.
func (p *page) send(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	switch {
	case p.flags["broken"] && draw(p.seed, p.uri, "breaks")%2 == 0:
		if p.pick("framing", "length", "chunks") == "length" {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		w.WriteHeader(status)
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case p.flags["trailer"] && p.pick("trailers", "yes", "no") == "yes":
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(status)
		_, _ = w.Write(body)
		w.Header().Set("X-Sum", fmt.Sprint(len(body)))
	case (p.flags["ranges"] || p.flags["large"]) && status == http.StatusOK && r.Method != http.MethodPost:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	case status == http.StatusNoContent:
		w.WriteHeader(status)
	default:
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

// identity states how long the response is fresh and for whom, and returns the
// identity of the asker if the body has one.
func (p *page) identity(h http.Header, r *http.Request) string {
	state := func(cc string) {
		if cc != "" {
			h.Set("Cache-Control", cc)
		}
	}
	switch {
	case p.flags["stale"]:
		state("max-age=50, stale-while-revalidate=1000")
		h.Set("Age", "60")
		return "-"
	case p.flags["stale error"]:
		state("max-age=50, stale-if-error=1000")
		h.Set("Age", "60")
		return "-"
	case p.flags["theme"]:
		state("max-age=60")
		h.Add("Vary", "Cookie")
		return cmp.Or(r.Header.Get("X-Theme"), "-")
	case p.flags["geo"]:
		state("max-age=60")
		h.Add("Vary", "X-Geo")
		return userAt(r.Header.Get("X-Geo"))
	case p.flags["address"]:
		state("max-age=60")
		h.Add("Vary", "X-Forwarded-For")
		return userAt(r.Header.Get("X-Forwarded-For"))
	case p.flags["remote user"]:
		state("max-age=60") // for the browser's cache; the upstream knows of no other
		return r.Header.Get("Remote-User")
	case p.flags["user unsaid"]:
		return r.Header.Get("X-User")
	case p.flags["heuristic"]:
		h.Set("Last-Modified", lastModified.Format(http.TimeFormat))
		return r.Header.Get("X-User")
	case p.flags["user"]:
		return p.personal(h, state, "X-User", r.Header.Get("X-User"))
	case p.flags["cookie"]:
		who := ""
		if c, err := r.Cookie("who"); err == nil {
			who = c.Value
		}
		return p.personal(h, state, "Cookie", who)
	case p.flags["unsaid"]:
		return "-"
	case p.flags["limits"]:
		state(p.pick("limit", "private", "no-store", "no-cache", "max-age=0", "s-maxage=60", "public, max-age=60", "private, max-age=60", "max-age=60, must-revalidate"))
		return "-"
	}
	state("max-age=60")
	return "-"
}

// personal says in one of the ways that there are for whom the body is.
func (p *page) personal(h http.Header, state func(string), field, who string) string {
	switch p.pick("personal", "vary", "private", "no-store", "public", "no-cache") {
	case "vary":
		state("max-age=60")
		h.Add("Vary", field)
	case "private":
		state("private, max-age=60")
	case "no-store":
		state("no-store")
	case "no-cache":
		state("no-cache")
	case "public":
		state("public, max-age=60")
	}
	return who
}

// refuse returns the response's status, or ends it.
func (p *page) refuse(w http.ResponseWriter, r *http.Request) (status int, done bool) {
	h := w.Header()
	switch {
	case p.flags["error of one user"]:
		h.Set("Cache-Control", "private, no-store")
		if r.Header.Get("X-User") == users[2].name {
			w.WriteHeader(http.StatusInternalServerError)
			return 0, true
		}
	case p.flags["accel"]:
		h.Set("Cache-Control", "private, no-store")
		if r.Header.Get("X-User") == users[2].name {
			w.WriteHeader(http.StatusForbidden)
			return 0, true
		}
		h.Set("X-Accel-Redirect", "/files/a.txt")
	case p.flags["statuses"]:
		switch p.pick("status", "200", "404", "301", "204", "500", "203") {
		case "404":
			return http.StatusNotFound, false
		case "301":
			h.Set("Location", "/p/moved")
			return http.StatusMovedPermanently, false
		case "204":
			return http.StatusNoContent, false
		case "500":
			return http.StatusInternalServerError, false
		case "203":
			return http.StatusNonAuthoritativeInfo, false
		}
	}
	return http.StatusOK, false
}
