package main

import (
	"fmt"
	"hash/fnv"
	"slices"
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

	ordered bool   // makes sense only where the shape has an order of its own
	auth    bool   // gives requests a user
	ttl     bool   // the operator says that all responses may be stored
	forced  bool   // also those that say no-cache, and how long they are fresh
	open    bool   // and those to requests with a user
	more    bool   // is documented to ask the upstream more often than its twin is asked
	lacks   string // a response field that is not stored
	but     string // the element that it contradicts
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
	all := slices.Concat(handlers(), cacheOptions(), aroundCache(), byTheClient(), upstreams())
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
		{name: "ttl 403", cache: "ttl 30s 403", chance: 60},
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

// cacheOptions are those of the cache, with what of the upstream or of the requests makes
// them count.
func cacheOptions() []*element {
	return []*element{
		{name: "response ttl", chance: 80, cache: "@rttl status 200 404\nresponse @rttl {\n\tttl 1m\n}", ttl: true},
		{name: "response force", chance: 80, cache: "@rforce header Content-Type text/*\nresponse @rforce {\n\tttl 1m force\n}", ttl: true, forced: true},
		{name: "response of a status", chance: 60, cache: "@rmissing status 4xx\nresponse @rmissing {\n\tttl 1m force\n}", ttl: true, forced: true, flags: []string{"statuses"}},
		{name: "store_without Set-Cookie", chance: 80, cache: "@rcookie header Set-Cookie *\nresponse @rcookie {\n\tstore_without Set-Cookie\n}", lacks: "Set-Cookie", flags: []string{"set cookie"}},
		{name: "store_without X-Line", chance: 60, cache: "@rline header X-Line *\nresponse @rline {\n\tttl 1m force\n\tstore_without X-Line\n\ttags +line\n}", ttl: true, forced: true, lacks: "X-Line", flags: []string{"line"}},
		{name: "no_store", chance: 60, cache: "@rno header X-Line *\nresponse @rno {\n\tno_store\n}", flags: []string{"line"}},
		{name: "second with rules", chance: 30, second: "@r2 status 2xx\nresponse @r2 {\n\tttl 2m force\n}", ttl: true, forced: true},
		{name: "second with no_store", chance: 30, second: "response {\n\tno_store\n}"},
		{name: "second with cookies", chance: 30, second: "cookies only who", flags: []string{"jar", "cookie"}},
		{name: "cookies only", chance: 60, cache: "cookies only who theme", but: "cookies ignore", flags: []string{"jar", "cookie"}},
		{name: "cookies ignore", chance: 60, cache: "cookies ignore _ga* other", but: "cookies only", flags: []string{"jar", "cookie", "theme"}, proxy: "header_up X-Theme {http.request.cookie.theme}"},
		{name: "ignored cookie in front", chance: 60, cache: "cookies ignore other", but: "cookies only", flags: []string{"jar"},
			matchers: "@other header Cookie *other=1*", before: "request_header @other X-Tenant other"},
		{name: "ignored cookie behind", chance: 60, cache: "cookies ignore other", but: "cookies only", flags: []string{"jar"},
			matchers: "@other header Cookie *other=1*", behind: "respond @other denied 403"},
		{name: "stale if_error", chance: 60, cache: "stale if_error 10m"},
		{name: "stale after", chance: 100, cache: "stale after 30ms", flags: []string{"slow", "stale error"}, more: true},
		{name: "stale after, versions", chance: 60, cache: "stale while_revalidate 10m\nstale if_error 10m\nstale after 20ms", flags: []string{"slow", "stale error", "version"}, methods: []string{"PUT"}, more: true},
		{name: "fill_timeout", chance: 30, cache: "fill_timeout 70ms", flags: []string{"slow"}, more: true},
		{name: "targeted", chance: 80, flags: []string{"targeted"}},
		{name: "targeted option", chance: 40, cache: "targeted X-Own-Control", flags: []string{"targeted"}},
		{name: "header_down targeted", chance: 60, proxy: "header_down Groupcache-Cache-Control max-age=60", flags: []string{"overruled"}},
		{name: "No-Vary-Search", chance: 60, flags: []string{"no-vary-search"}, paths: []string{"/p/n?a=1&utm=1", "/p/n?utm=2&a=1", "/p/n?a=2", "/p/n?utm=3&a=2"}, more: true},
		{name: "query ignore", chance: 40, cache: "query ignore utm", paths: []string{"/p/n?a=1&utm=1", "/p/n?utm=2&a=1", "/p/n"}},
		{name: "query only", chance: 40, cache: "query only a x", paths: []string{"/p/n?a=1&utm=1", "/p/n?a=1&utm=2", "/p/n?utm=5"}},
		{name: "key", chance: 40, cache: "key \"{scheme}://{host}{uri}\""},
		{name: "key of a user", chance: 40, cache: "key \"{uri} {header.X-User}\""},
		{name: "authorization ignore", chance: 60, cache: "authorization ignore", open: true},
		{name: "set_cookie store", chance: 60, cache: "set_cookie store", flags: []string{"set cookie"}},
		{name: "request_directives ignore", chance: 40, cache: "request_directives ignore", flags: []string{"directives"}},
		{name: "request directives", chance: 60, flags: []string{"directives"}},
		{name: "express", chance: 80, servers: "listener_wrappers {\n\tgroupcache\n}", cache: "express"},
		{name: "QUERY", chance: 120, methods: []string{"QUERY"}},
		{name: "query_method off", chance: 30, cache: "query_method off", methods: []string{"QUERY"}},
		{name: "purge", chance: 100, cache: "purge {\n\ttoken " + purgeToken + "\n}", but: "purge from", flags: []string{"version"}, methods: []string{"CHANGE"}},
		{name: "purge of slow pages", chance: 60, cache: "purge {\n\ttoken " + purgeToken + "\n}\nstale while_revalidate 10m", but: "purge from", flags: []string{"version", "slow", "stale error"}, methods: []string{"CHANGE"}, more: true},
		{name: "POST with the page", chance: 60, flags: []string{"version", "content location"}, methods: []string{"POST"}},
		{name: "overriding fields", chance: 60, flags: []string{"overriding"}},
	}
}

// aroundCache are more of Caddy's handlers around the cache.
func aroundCache() []*element {
	return []*element{
		{name: "encode in front", chance: 80, ordered: true, before: "encode gzip"},
		{name: "default Cache-Control in front", chance: 40, before: "header ?Cache-Control max-age=60"},
		{name: "Cache-Control behind", chance: 40, ordered: true, behind: "header Cache-Control \"public, max-age=60\""},
		{name: "deferred Cache-Control behind", chance: 40, ordered: true, behind: "header >Cache-Control \"private, max-age=60\""},
		{name: "header_down", chance: 40, proxy: "header_down X-Line replaced"},
		{name: "flush_interval", chance: 40, proxy: "flush_interval -1"},
		{name: "proxy rewrite", chance: 40, proxy: "rewrite {path}?{query}&proxied"},
		{name: "request_body", chance: 60, before: "request_body {\n\tmax_size 6B\n}"},
		{name: "request_body behind", chance: 60, ordered: true, behind: "request_body {\n\tmax_size 6B\n}"},
		{name: "errors of the proxy", chance: 60, proxy: "@gone status 404 500\nhandle_response @gone {\n\terror 503\n}", errors: "respond \"error {err.status_code}\""},
		{name: "two handles", chance: 60, behind: "@staff header X-Role staff\nhandle @staff {\n\theader X-Staff yes\n\t%upstream\n}"},
		{name: "file server errors", chance: 40, cache: "ttl 1m 404", behind: "handle /files/* {\n\tfile_server\n}", paths: []string{"/files/a.txt", "/files/none"}},
	}
}

// byTheClient are handlers around the cache that make something of what a client says.
func byTheClient() []*element {
	return []*element{
		{name: "made behind, matcher", chance: 60, ordered: true, matchers: "@made header X-Made carol", behind: "request_header X-Made {cookie.who}\nrespond @made denied 403"},
		{name: "made behind, placeholder", chance: 60, ordered: true, behind: "request_header X-Mark {header.X-Role}\nheader X-Marked {header.X-Mark}"},
		{name: "replaced behind", chance: 40, ordered: true, matchers: "@visitor header X-Role visitor", behind: "request_header X-Role guest visitor\nheader @visitor X-Visitor yes"},
		{name: "deleted behind", chance: 40, ordered: true, matchers: "@gone header X-Role guest\n@nobody not header X-User *", behind: "request_header @gone -X-User\nrespond @nobody denied 403"},
		{name: "vars behind", chance: 60, ordered: true, matchers: "@tier vars {vars.tier} guest", behind: "vars tier {header.X-Role}\nerror @tier 410"},
		{name: "map behind", chance: 60, ordered: true, matchers: "@kind expression `{kind} == \"special\"`", behind: "map {cookie.who} {kind} {\n\tcarol special\n\tdefault plain\n}\nheader @kind X-Kind special"},
		{name: "rewrite behind", chance: 40, ordered: true, behind: "rewrite /p/2* /p/rewritten?who={cookie.who}"},
		{name: "uri behind", chance: 40, ordered: true, behind: "uri query +role {header.X-Role}"},
		{name: "respond with a placeholder", chance: 60, behind: "respond /p/1* \"for {cookie.who}\""},
		{name: "redir with a placeholder", chance: 60, behind: "redir /p/0* /elsewhere?role={header.X-Role}"},
		{name: "prefix of an address", chance: 40, behind: "respond /p/4* \"from {http.request.remote.host/32}\""},
		{name: "header_down of the client", chance: 80, proxy: "header_down X-Own {header.X-Role}"},
		{name: "header_down adds a cookie", chance: 40, proxy: "header_down +X-Who {cookie.who}"},
		{name: "header_up of the client", chance: 60, proxy: "header_up X-User {cookie.who}"},
		{name: "vars under a matcher", chance: 60, ordered: true, matchers: "@vstaff header X-Role staff", before: "vars @vstaff tier gold\nrequest_header -X-Role", proxy: "header_up X-Page {vars.tier}"},
		{name: "map under a matcher", chance: 60, ordered: true, matchers: "@mstaff header X-Role staff", before: "map @mstaff {path} {level} {\n\tdefault high\n}\nrequest_header -X-Role", proxy: "header_up X-Page {level}"},
		{name: "field of the client in front", chance: 60, before: "request_header X-Tenant {cookie.who}"},
		{name: "name like a constant", chance: 40, before: "map {header.X-Role} {env} {\n\tguest far\n\tdefault near\n}", behind: "header X-Env {env}"},
		{name: "host in front", chance: 40, before: "request_header Host inner.test"},
		{name: "error of a matcher", chance: 60, matchers: "@fails expression `!{'staff': true, 'editor': true}[{http.request.header.X-Role}]`", behind: "respond @fails denied 403"},
		{name: "regexp in front", chance: 60, ordered: true, matchers: "@role header_regexp X-Role ^(..)\n@who header_regexp Cookie who=(..)", before: "vars @role seen yes",
			behind: "handle /nowhere {\n\trespond @who other\n}\nheader X-Seen {re.1}"},
		{name: "basic_auth behind", chance: 60, behind: "handle /p/2* {\n\tbasic_auth {\n\t\talice $2a$04$4uZl5VA0nq5cATdY4Rn8cuRZiEhm/iUcMMV92IRb6Au9CIi9gDHQG\n\t}\n\t%upstream\n}", flags: []string{"basic"}},
		{name: "forward_auth behind", chance: 60, behind: "handle /p/3* {\n\tforward_auth %auth {\n\t\turi /lab/auth\n\t\tcopy_headers Remote-User\n\t}\n\t%upstream\n}"},
		{name: "errors by the client", chance: 60, matchers: "@eguest header X-Role guest", errors: "respond @eguest \"guest error {err.status_code}\""},
		{name: "templates in front", chance: 40, ordered: true, before: "templates"},
	}
}

// purgeToken is what requests need that purge.
const purgeToken = "0123456789abcdef0123456789abcdef"

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
		&element{name: "upstream: slow", chance: 40, flags: []string{"slow"}},
		&element{name: "upstream: large", chance: 40, flags: []string{"large"}, more: true},
		&element{name: "upstream: trailer", chance: 60, flags: []string{"trailer"}},
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
