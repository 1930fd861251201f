package main

import (
	"fmt"
	"hash/fnv"
)

// An element is one thing that a composition may have. All lines are those of a
// Caddyfile; an empty part adds nothing. Named matchers are unique to an element,
// so any elements go together.
type element struct {
	name   string
	chance int // of 1000; 0 means 120

	// The case of a known difference that the element shows, or 0. Elements whose
	// case is in notYet are drawn only on demand.
	known int

	servers  string   // in the global option servers
	top      string   // beside the sites
	matchers string   // first in the site
	before   string   // before the cache, where the shape has an order of its own
	behind   string   // behind the cache, likewise
	proxy    string   // in reverse_proxy
	cache    string   // in groupcache
	errors   string   // in handle_errors; %cache is the directive groupcache
	second   string   // a second site on another listener: its groupcache options
	flags    []string // what the upstream does, on about half of the URLs
	paths    []string // further paths that are asked for
	methods  []string // further methods

	ordered bool // makes sense only where the shape has an order of its own
	auth    bool // gives requests a user
	ttl     bool // the operator says that all responses may be stored
}

// notYet switches off what still differs, by the cases of issue 20. An entry goes
// when its case is mended.
var notYet = map[int]string{
	7:  "a template takes what it likes from a request, and no Vary says so: a ttl shares it",
	12: "Last-Modified alone makes a response fresh for all clients: RFC 9111 §4.2.2 lets a cache guess",
	5:  "users from forward_auth don't keep responses from being shared",
}

// The matchers that look at the client. %s is the matcher's name.
var clientMatchers = []struct{ name, lines string }{
	{"remote_ip", "%s remote_ip 127.0.0.3"},
	{"not remote_ip", "%s not remote_ip 127.0.0.1 127.0.0.2"},
	{"client_ip", "%s client_ip 127.0.0.3"},
	{"header", "%s header X-Role guest"},
	{"header_regexp", "%s header_regexp X-Role ^gu"},
	{"expression", "%s expression `{http.request.header.X-Role} == \"guest\"`"},
	{"method", "%s method HEAD"},
}

// The handlers that end a request, or change it. %s is the matcher's name.
var guards = []struct {
	name, lines string
	before      int // the case that it shows in front of the cache
}{
	{"abort", "abort %s", 0},
	{"respond", "respond %s denied 403", 0},
	{"error", "error %s 403", 0},
	{"redir", "redir %s /elsewhere", 0},
	{"handle", "handle %s {\n\trespond internal 203\n}", 0},
	{"route", "route %s {\n\trespond internal 203\n}", 0},
	{"header", "header %s X-Client special", 0},
	{"rewrite", "rewrite %s /p/rewritten", 1},
	{"request_header", "request_header %s X-Tenant special", 1},
}

// catalogue returns all elements.
func catalogue() []*element {
	all := append(handlers(), upstreams()...)
	for i, m := range clientMatchers {
		for j, g := range guards {
			name := fmt.Sprintf("@g%d%d", i, j)
			matcher, lines := fmt.Sprintf(m.lines, name), fmt.Sprintf(g.lines, name)
			all = append(all,
				&element{name: g.name + " @" + m.name + " before", chance: 8, known: g.before, ordered: true, matchers: matcher, before: lines},
				&element{name: g.name + " @" + m.name + " behind", chance: 8, known: 1, matchers: matcher, behind: lines})
		}
	}
	return all
}

func handlers() []*element {
	return []*element{
		{name: "ttl", cache: "ttl 1m", ttl: true},
		{name: "ttl 404", cache: "ttl 30s 404 403", chance: 60},
		{name: "query sort", cache: "query sort", chance: 60},
		{name: "stale", cache: "stale while_revalidate 1m", chance: 60},
		{name: "max_body_size", cache: "max_body_size 1KiB", chance: 60},
		{name: "repeated", behind: "%cache", chance: 60, ordered: true},
		{name: "nested", behind: "handle /p/1* {\n\t%cache\n\t%upstream\n}"},
		{name: "invoke", top: "&(named) {\n\t%upstream\n}", behind: "invoke /p/2* named"},

		{name: "vars", before: "vars shop green", proxy: "header_up X-Tenant {vars.shop}"},
		{name: "map by path", before: "map {path} {tenant} {\n\t~^/p/([0-9]) t$1\n\tdefault t0\n}", proxy: "header_up X-Tenant {tenant}"},
		{name: "request_header", before: "request_header X-Tenant blue"},
		{name: "header set", before: "header X-Frame-Options DENY"},
		{name: "header deferred delete", before: "header -X-Line"},
		{name: "header add", before: "header +Link </s.css>", chance: 60},
		{name: "header behind", behind: "header X-Behind {path}", ordered: true},
		{name: "header private in front", known: 4, before: "header /p/* Cache-Control \"private, no-store\"", flags: []string{"user unsaid"}},
		{name: "header deleted behind", known: 4, ordered: true, before: "header X-Line front", behind: "header -X-Line"},
		{name: "header line of one client", known: 4, chance: 60, matchers: "@line header X-Role staff", before: "header @line X-Line upstream", flags: []string{"line"}},
		{name: "rewrite", before: "rewrite /p/3* /p/rewritten?{query}"},
		{name: "uri", before: "uri replace /p/4 /p/uri"},
		{name: "handle_path", behind: "handle_path /p/5* {\n\trewrite * /stripped{uri}\n\t%upstream\n}"},
		{name: "try_files", before: "@notp path /files/*\ntry_files @notp {path} /files/a.txt", paths: []string{"/files/none.txt"}},
		{name: "file_server", behind: "handle /files/* {\n\tfile_server {\n\t\tprecompressed gzip\n\t}\n}", paths: []string{"/files/a.txt", "/files/b.html", "/files/gone"}},
		{name: "encode", behind: "encode gzip"},
		{name: "templates", behind: "handle /tpl/* {\n\ttemplates\n\tfile_server\n}", paths: []string{"/tpl/plain.html"}},
		{name: "httpInclude", known: 7, behind: "handle /tpl/* {\n\ttemplates\n\tfile_server\n}", paths: []string{"/tpl/a.html", "/tpl/b.html"}},
		{name: "guard by path", matchers: "@bp path /p/1*", behind: "respond @bp denied 403"},
		{name: "guard by query", matchers: "@bq query x=2", behind: "error @bq 410"},
		{name: "intercept", matchers: "", behind: "intercept {\n\t@missing status 404\n\thandle_response @missing {\n\t\trespond \"not here\" 404\n\t}\n}"},
		{name: "copy_response", proxy: "@teapot status 404\nhandle_response @teapot {\n\tcopy_response_headers\n\tcopy_response 404\n}"},
		{name: "basic_auth", before: "basic_auth /p/2* {\n\talice $2a$04$4uZl5VA0nq5cATdY4Rn8cuRZiEhm/iUcMMV92IRb6Au9CIi9gDHQG\n}", chance: 60, flags: []string{"basic"}, auth: true},
		{name: "forward_auth", known: 5, auth: true, before: "forward_auth %auth {\n\turi /lab/auth\n\tcopy_headers Remote-User\n}", flags: []string{"remote user"}},
		{name: "handle_errors", errors: "respond \"error {err.status_code}\""},
		{name: "handle_errors with cache", known: 10, ordered: true, matchers: "@he header X-Role guest", before: "error @he 403", errors: "%cache\nrespond \"error page\" 200"},
		{name: "unsafe methods", flags: []string{"version"}, methods: []string{"PUT", "POST", "DELETE"}},
		{name: "two listeners", known: 2, second: "same"},
		{name: "two sites with different options", known: 3, second: "ttl 3m", ttl: true},
		{name: "header_up client", known: 6, proxy: "header_up X-Geo {remote_host}", flags: []string{"geo"}},
		{name: "X-Accel-Redirect", known: 9, proxy: "@accel header X-Accel-Redirect *\nhandle_response @accel {\n\trewrite * {rp.header.X-Accel-Redirect}\n\tfile_server\n}", flags: []string{"accel"}},
		{name: "error page", known: 9, proxy: "@broken status 5xx\nhandle_response @broken {\n\trewrite * /files/a.txt\n\tfile_server\n}", flags: []string{"error of one user"}},
		{name: "purge from", known: 11, servers: "trusted_proxies static 127.0.0.2", cache: "purge {\n\tfrom 10.0.0.1\n}", methods: []string{"PURGE"}},
	}
}

// upstreams are what the upstream's script may do; script.go says how.
func upstreams() []*element {
	var all []*element
	for _, flag := range []string{
		"limits", "unsaid", "validators", "ranges", "language", "user", "cookie", "set cookie",
		"statuses", "delay", "line", "long", "broken", "error of one user",
	} {
		all = append(all, &element{name: "upstream: " + flag, chance: 200, flags: []string{flag}})
	}
	return append(all,
		&element{name: "upstream: address", known: 6, flags: []string{"address"}},
		&element{name: "upstream: Last-Modified alone", known: 12, flags: []string{"heuristic"}},
		&element{name: "upstream: stale", known: 8, chance: 120, flags: []string{"stale"},
			before: "map {path} {page} {\n\t~^/p/([0-9]) page$1\n\tdefault page\n}", proxy: "header_up X-Page {page}"})
}

// draw returns a number that depends on the seed and the words, and on nothing else.
func draw(seed uint64, words ...any) uint64 {
	h := fnv.New64a()
	fmt.Fprintln(h, append([]any{seed}, words...)...)
	x := h.Sum64() // FNV alone mixes its high bits badly
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
