package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A user has an address, and fields that all its requests carry. All names are of
// one length, so a response to another user differs in its identity alone.
type user struct{ name, address, role, language string }

var users = []user{
	{"alice", "127.0.0.1", "staff", "en"},
	{"bobby", "127.0.0.2", "editor", "de"},
	{"carol", "127.0.0.3", "guest", "en"},
}

// userAt returns the name of the user with an address, as an upstream sees it.
func userAt(address string) string {
	for _, u := range users {
		if u.address == address {
			return u.name
		}
	}
	return "other"
}

const (
	pageField = "X-Lab-Page" // tells the upstream the run and the URL that a client has asked for
	versioned = "/p/v"       // begins the URLs that unsafe methods change
	patience  = 10 * time.Second
)

// A request is what one user asks of both lanes.
type request struct {
	user, node  int
	method, uri string
	second      bool   // of the second listener
	gzip        bool   // accepted
	rng         string // Range
	conditional bool   // with the entity tag that the twin has sent last
	together    bool   // at the same time as its neighbours
	basic       bool   // with alice's password
	forged      bool   // has an X-Forwarded-For that a client made up
	directives  string // Cache-Control
	override    string // a field that makes many upstreams answer for another URL, with its value
	cookies     string // beside the one that tells who it is
	content     string // of a QUERY
	tag         string // what conditional has made of it
}

func (r request) String() string {
	text := fmt.Sprintf("%s: %s %s", users[r.user].name, r.method, r.uri)
	if r.node > 0 {
		text += fmt.Sprintf(" at node %d", r.node+1)
	}
	for has, words := range map[string]bool{" second listener": r.second, " gzip": r.gzip, " If-None-Match": r.conditional, " together": r.together, " forged": r.forged, " Range: " + r.rng: r.rng != "",
		" Cache-Control: " + r.directives: r.directives != "", " " + r.override: r.override != "", " Cookie: " + r.cookies: r.cookies != "", " content " + r.content: r.content != ""} {
		if words {
			text += has
		}
	}
	return text
}

// drawRequests draws n requests, the last third of which is asked together.
func (c *composition) drawRequests(n int) []request {
	var paths, methods []string
	for i := range 3 {
		paths = append(paths, fmt.Sprintf("/p/%d", draw(c.seed, "path", i)%6)+[]string{"", "?x=1", "?x=2"}[draw(c.seed, "query", i)%3])
	}
	for _, e := range c.elements {
		paths, methods = append(paths, e.paths...), append(methods, e.methods...)
	}
	second := c.any(func(e *element) bool { return e.second != "" })
	var all []request
	for i := range n {
		pick := func(what string, of int) int { return int(draw(c.seed, "request", i, what) % uint64(of)) }
		r := request{user: pick("user", len(users)), node: pick("node", 3), method: "GET", uri: paths[pick("path", len(paths))], gzip: pick("gzip", 3) == 0, together: i >= n-n/3, basic: c.has("basic")}
		c.decorate(&r, pick)
		switch pick("kind", 12) {
		case 0:
			r.method = "HEAD"
		case 1:
			if strings.HasPrefix(r.uri, "/tpl/") {
				break // templates would evaluate a part of the page
			}
			r.rng = []string{"bytes=0-9", "bytes=5-24", "bytes=12-"}[pick("range", 3)]
			if c.has("large") && pick("far", 2) == 0 {
				r.rng = []string{"bytes=-7", "bytes=1048570-1048590", "bytes=1100000-1100020", "bytes=1048576-"}[pick("range", 4)]
			}
		case 2, 3:
			r.conditional = true
		}
		r.second = second && pick("second", 3) == 0
		if len(methods) > 0 && !r.together {
			r.change(methods, pick)
		}
		if slices.Contains(methods, "QUERY") && pick("query", 4) == 0 && r.method == "GET" {
			r.method, r.content = "QUERY", []string{"a=1", "a=2", "much=longer"}[pick("content", 3)]
		}
		all = append(all, r)
	}
	return all
}

// decorate gives a request the fields that the composition's elements are about.
func (c *composition) decorate(r *request, pick func(string, int) int) {
	if c.has("directives") && pick("directed", 4) == 0 {
		r.directives = []string{"no-cache", "no-store", "max-age=0", "max-stale", "only-if-cached", "min-fresh=1000", "max-age=1", "max-stale=5, stale-if-error=5"}[pick("directives", 8)]
	}
	if c.has("overriding") && pick("overridden", 3) == 0 {
		r.override = []string{"X-Original-Url: /other", "X-Rewrite-Url: /admin", "X-Http-Method-Override: POST", "Rsc: 1", "X-Forwarded-Prefix: /pre", "x_original_url: /under"}[pick("override", 6)]
	}
	if c.has("jar") {
		r.cookies = []string{"", "theme=dark", "theme=light; _ga=1", "_ga=2; other=1", "other=1; theme=dark", "_ga=3"}[pick("jar", 6)]
	}
}

// change makes a request one with, or around, a further method.
func (r *request) change(methods []string, pick func(string, int) int) {
	method := methods[pick("method", len(methods))]
	switch {
	case method == "QUERY":
	case method == "PURGE" && pick("purge", 5) == 0:
		*r = request{user: 1, method: method, uri: r.uri, forged: true}
	case method != "PURGE" && pick("change", 3) == 0:
		*r = request{user: r.user, node: r.node, method: method, uri: versioned + "1"}
	case method != "PURGE" && pick("change", 3) == 1:
		*r = request{user: r.user, node: r.node, method: "GET", uri: versioned + "1"}
	}
}

// An answer is what a client saw.
type answer struct {
	err    error // no response, or a body that broke off
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

// A visitor is one user with its connections.
type visitor struct {
	user      user
	transport *http.Transport
}

func newVisitor(u user) *visitor {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(u.address)}, Timeout: patience}
	return &visitor{u, &http.Transport{DialContext: dialer.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 32}}
}

func (v *visitor) ask(listen, host, run string, r request, tag string) *answer {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var body io.Reader
	if slices.Contains([]string{"PUT", "POST"}, r.method) {
		body = strings.NewReader("changed")
	} else if r.method == "QUERY" {
		body = strings.NewReader(r.content)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "http://"+listen+r.uri, body)
	if err != nil {
		return &answer{err: err}
	}
	req.Host = host
	set := func(field, value string) {
		if value != "" {
			req.Header.Set(field, value)
		}
	}
	set(pageField, r.uri)
	set(runField, run)
	set("X-User", v.user.name)
	set("X-Role", v.user.role)
	if r.cookies == "" || len(r.cookies)%2 == 0 {
		set("Cookie", strings.TrimSuffix("who="+v.user.name+"; "+r.cookies, "; "))
	} else {
		set("Cookie", r.cookies+"; who="+v.user.name)
	}
	set("Cache-Control", r.directives)
	if name, value, ok := strings.Cut(r.override, ": "); ok {
		req.Header[name] = []string{value}
	}
	if r.method == "QUERY" {
		set("Content-Type", "text/plain")
	}
	if r.method == "PURGE" && !r.forged {
		set("Authorization", "Bearer "+purgeToken)
	}
	set("Accept-Language", v.user.language)
	set("User-Agent", "compare")
	set("Range", r.rng)
	if r.gzip {
		set("Accept-Encoding", "gzip")
	}
	if r.conditional {
		set("If-None-Match", tag)
	}
	if r.forged {
		set("X-Forwarded-For", "10.0.0.1, 203.0.113.9")
	}
	if r.basic && v.user.name == users[0].name {
		req.SetBasicAuth(v.user.name, "secret") // basic_auth's hash has this
	}
	start := time.Now()
	a := new(answer)
	resp, err := v.transport.RoundTrip(req)
	if err != nil {
		a.err = err
	} else {
		a.status, a.header = resp.StatusCode, resp.Header
		a.body, a.err = io.ReadAll(resp.Body)
		resp.Body.Close()
		for name, lines := range resp.Trailer {
			a.header["Trailer-"+name] = lines
		}
	}
	a.took = time.Since(start)
	return a
}
