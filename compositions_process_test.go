//go:build unix

package caddygroupcache_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// composed are sites that make something else of requests with X-Role: guest than of
// others. CACHE stands for the cache, UPSTREAM for the upstream.
var composed = map[string]string{
	"not above":                 "@guest header X-Role guest\n@other not header X-Role guest\nhandle @guest {\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant guest\n}\n}\nhandle @other {\nCACHE\nreverse_proxy UPSTREAM\n}",
	"and above":                 "@a {\nheader X-Role guest\nheader X-Any *\n}\n@b expression `{http.request.header.X-Role} == \"guest\" || true`\nhandle @a {\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant guest\n}\n}\nhandle @b {\nCACHE\nreverse_proxy UPSTREAM\n}",
	"invoked twice":             "@guest header X-Role guest\nhandle @guest {\nrequest_header X-Tenant special\ninvoke cached\n}\nhandle {\ninvoke cached\n}",
	"invoked, then":             "@guest header X-Role guest\nhandle @guest {\nroute {\ninvoke second\nrespond guests\n}\n}\nhandle {\nroute {\ninvoke second\nreverse_proxy UPSTREAM\n}\n}",
	"rewrite from placeholder":  "rewrite * /{http.request.header.X-Role}{uri}\nCACHE\nreverse_proxy UPSTREAM",
	"rewrite, field removed":    "@guest header X-Role guest\nrewrite @guest /internal{uri}\nrequest_header -X-Role\nCACHE\nreverse_proxy UPSTREAM",
	"field, field removed":      "route {\n@guest header X-Role guest\nrequest_header @guest X-Tenant special\nrequest_header -X-Role\nCACHE\nreverse_proxy UPSTREAM\n}",
	"vars, field removed":       "route {\n@guest header X-Role guest\nvars @guest tenant special\nrequest_header -X-Role\nCACHE\nrespond \"for {vars.tenant}\"\n}",
	"map":                       "map {header.X-Role} {tenant} {\nguest special\ndefault other\n}\nrequest_header X-Tenant {tenant}\nCACHE\nreverse_proxy UPSTREAM",
	"replace":                   "request_header X-Any ^.*$ {header.X-Role}\nCACHE\nreverse_proxy UPSTREAM",
	"root":                      "root * DIR/{header.X-Role}\nCACHE\nfile_server",
	"try_files":                 "root * DIR\ntry_files {header.X-Role}/a\nCACHE\nfile_server",
	"path matcher":              "@p path /a/{header.X-Role}\nCACHE\nrespond /guest own\nrespond @p yes\nreverse_proxy UPSTREAM",
	"two regexps":               "@a header_regexp X-Role (.*)\n@b header_regexp X-Any (.*)\nCACHE\nrespond @a \"for {re.1}\"\nrespond @b \"b {re.1}\"",
	"dynamic":                   "CACHE\nreverse_proxy {\ndynamic a {\nname 127.0.0.1\nport {header.X-Port}\n}\n}",
	"several dynamic":           "CACHE\nreverse_proxy {\ndynamic multi {\na {\nname 127.0.0.1\nport {header.X-Port}\n}\n}\n}",
	"invoked by an answer":      "reverse_proxy UPSTREAM {\nrewrite /auth\n@g header X-User guest\nhandle_response @g {\nroute {\ninvoke second\nrespond guests\n}\n}\nhandle_response {\nroute {\ninvoke second\nreverse_proxy UPSTREAM\n}\n}\n}",
	"fastcgi":                   "CACHE\nreverse_proxy FASTCGI {\ntransport fastcgi {\nroot DIR/{header.X-Role}\n}\n}",
	"fastcgi env":               "CACHE\nreverse_proxy FASTCGI {\ntransport fastcgi {\nroot /srv\nenv TENANT {header.X-Role}\n}\n}",
	"method":                    "@guest header X-Role guest\nmethod @guest HEAD\nCACHE\nreverse_proxy UPSTREAM",
	"handle_response":           "CACHE\nreverse_proxy UPSTREAM {\n@ok status 200\nhandle_response @ok {\n@guest header X-Role guest\nrespond @guest \"guests\" 200\ncopy_response\n}\n}",
	"learned":                   "route {\nCACHE\n@guest expression `{http.request.header.X-Role} == \"guest\"`\nrespond @guest denied 403\nrequest_header X-Role guest\nreverse_proxy UPSTREAM\n}",
	"search":                    "@nv query role=guest\nCACHE\nrespond @nv denied 403\nreverse_proxy UPSTREAM",
	"template":                  "@nv query role=guest\nTEMPLATE\nrespond @nv denied 403\nreverse_proxy UPSTREAM",
	"host template":             "@nv host other.example\nTEMPLATE\nrespond @nv denied 403\nreverse_proxy UPSTREAM",
	"forward_auth":              "forward_auth UPSTREAM {\nuri /auth\ncopy_headers X-User\n}\nCACHE\nreverse_proxy UPSTREAM",
	"errors behind":             "route {\nCACHE\n@guest header X-Role guest\nhandle {\nerror @guest 403\nreverse_proxy UPSTREAM\n}\n}\nhandle_errors {\nrespond gone 200\n}",
	"auth, rewrite":             "forward_auth UPSTREAM {\nuri /auth\ncopy_headers X-Any\n}\nroute {\nCACHE\nrewrite * /{http.reverse_proxy.header.X-User}{uri}\nreverse_proxy UPSTREAM\n}",
	"in handle_response":        "reverse_proxy UPSTREAM {\nrewrite /auth\n@g header X-User guest\nhandle_response @g {\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant special\n}\n}\nhandle_response {\nCACHE\nreverse_proxy UPSTREAM\n}\n}",
	"answer in handle_response": "reverse_proxy UPSTREAM {\nrewrite /auth\nhandle_response {\nroute {\nCACHE\nrewrite * /{rp.header.X-User}{uri}\nreverse_proxy UPSTREAM\n}\n}\n}",
	"two and a group":           "@guest header X-Role guest\n@other not header X-Role guest\nhandle @guest {\nrequest_header -X-Role\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant guest\n}\n}\nhandle @other {\nrequest_header -X-Role\nCACHE\nreverse_proxy UPSTREAM\n}",
	"fastcgi root":              "root * DIR/{header.X-Role}\nCACHE\n@index file {\ntry_files /a/index.html\n}\nrespond @index \"{http.vars.root}{file_match.relative}\"",
	"map behind":                "route {\nCACHE\nmap {header.X-Role} {tenant} {\nguest special\ndefault other\n}\nrespond \"for {tenant}\"\n}",
	"invoked behind":            "CACHE\n@guest header X-Role guest\nhandle @guest {\nrespond guests\n}\nhandle {\ninvoke cached\n}",
	"cookie":                    "@c header_regexp Cookie role=(\\w+)\nrequest_header @c X-Any {re.c.1}\nCACHE\nreverse_proxy UPSTREAM",
	"host set":                  "request_header Host {header.X-Role}.example\nCACHE\nreverse_proxy UPSTREAM",
	"made behind, matcher":      "route {\nCACHE\nrequest_header X-Seen {cookie.role}\n@guest header X-Seen guest\nrespond @guest guests\nreverse_proxy UPSTREAM\n}",
	"made behind, handle":       "route {\nCACHE\nrequest_header X-Seen {cookie.role}\n@guest header_regexp seen X-Seen (gu.*)\nhandle @guest {\nrewrite * /{re.seen.1}{uri}\nreverse_proxy UPSTREAM\n}\nhandle {\nreverse_proxy UPSTREAM\n}\n}",
	"made behind, placeholder":  "route {\nCACHE\nrequest_header +X-Seen {cookie.role}\nrespond \"for {header.X-Seen}\"\n}",
	"made behind, expression":   "route {\nCACHE\nrequest_header X-Seen {cookie.role}\n@guest expression `{http.request.header.X-Seen} == \"guest\"`\nrewrite @guest /guests{uri}\nreverse_proxy UPSTREAM\n}",
	"made of itself":            "route {\nCACHE\nrequest_header X-Role \"^(..).*$\" \"kind-$1\"\n@guest header X-Role kind-gu\nrespond @guest guests\nrespond others\n}",
	"made of what was made":     "route {\nCACHE\nrequest_header X-Seen {cookie.role}\nrequest_header X-Again {header.X-Seen}\n@guest header X-Again guest\nrespond @guest guests\nrespond others\n}",
	"made, and another":         "route {\nCACHE\nrequest_header X-Seen 1\n@guest {\nheader X-Seen 1\nheader X-Role guest\n}\nrespond @guest guests\nrespond others\n}",
	"made by all":               "route {\nCACHE\nrequest_header * ^any$ {cookie.role}\n@guest header X-Any guest\nrespond @guest guests\nrespond others\n}",
	"map behind, and another":   "route {\nCACHE\nmap {path} {kind} {\ndefault k\n}\n@guest expression `{kind} == \"k\" && header({'X-Role': 'guest'})`\nrespond @guest guests\nrespond others\n}",
	"cookie made behind":        "route {\nCACHE\nrequest_header Cookie role={header.X-Role}\nrespond \"for {cookie.role}\"\n}",
	"host for the upstream":     "CACHE\nreverse_proxy UPSTREAM {\nheader_up Host {header.X-Role}.internal\n}",
	"host made behind":          "route {\nCACHE\nrequest_header X-Seen {cookie.role}\nreverse_proxy UPSTREAM {\nheader_up Host ^.*$ {header.X-Seen}.internal\n}\n}",
	"field of the way":          "CACHE\nreverse_proxy UPSTREAM {\nheader_up X-Rewrite-Tenant {cookie.role}\n}",
	"header_down":               "CACHE\nreverse_proxy UPSTREAM {\nheader_down X-Own {header.X-Role}\n}",
	"of the way, set before":    "route {\n@guest header X-Role guest\nvars @guest tenant special\nrequest_header -X-Role\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant {vars.tenant}\n}\n}",
	"of the way, mapped before": "route {\n@guest header X-Role guest\nmap @guest {path} {tenant} {\ndefault special\n}\nrequest_header -X-Role\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant {tenant}\n}\n}",
	"host changed":              "@nv host other.example\nhandle @nv {\nrequest_header Host inner.example\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant special\n}\n}\nhandle {\nrequest_header Host inner.example\nCACHE\nreverse_proxy UPSTREAM\n}",
	"path of a client":          "@own path /a/{header.X-Role}\nhandle @own {\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant own\n}\n}\nhandle {\nCACHE\nreverse_proxy UPSTREAM\n}",
	"templates in two handles":  "@nv query role=guest\nhandle @nv {\nTEMPLATE\nreverse_proxy UPSTREAM {\nheader_up X-Tenant special\n}\n}\nhandle {\nTEMPLATE\nreverse_proxy UPSTREAM\n}",
	"name of a cookie":          "CACHE\nrespond \"for {http.request.cookie.role+x}\"",
	"name like a constant":      "map {header.X-Role} {env} {time-zone} {\nguest special far\ndefault other near\n}\nCACHE\nrespond \"for {env} {time-zone}\"",
	"error of a matcher":        "@denied expression `!{'admin': true}[{http.request.header.X-Role}]`\nCACHE\nrespond @denied denied 403\nreverse_proxy UPSTREAM",
	"regexp of another way":     "route {\n@role header_regexp X-Role (.*)\nvars @role seen 1\nCACHE\n@any header_regexp X-Any (.*)\nhandle /nowhere {\nrespond @any any\n}\nrespond \"for {re.1}\"\n}",
	"replace_status":            "map {cookie.role} {sent} {\nguest 203\ndefault 201\n}\nCACHE\nreverse_proxy UPSTREAM {\n@ok status 200\nreplace_status @ok {sent}\n}",
	"intercept, replace_status": "map {cookie.role} {sent} {\nguest 203\ndefault 201\n}\nroute {\nCACHE\nintercept {\n@ok status 200\nreplace_status @ok {sent}\n}\nreverse_proxy UPSTREAM\n}",
	"intercept":                 "CACHE\nintercept {\n@ok status 200\nhandle_response @ok {\n@guest header X-Role guest\nrespond @guest \"guests\" 200\nrespond other\n}\n}\nreverse_proxy UPSTREAM",
}

func composition(t *testing.T, p *process, o *origin, body, cache, dir string) string {
	config := p.caddyfile("")
	config = config[:strings.Index(config, "\nhttp://:")]
	template := ""
	if cache != "" {
		template = "groupcache {\nttl 1h\nkey {http.request.uri.path}\n}"
	}
	r := strings.NewReplacer("CACHE", cache, "TEMPLATE", template, "UPSTREAM", o.addr(), "DIR", dir, "FASTCGI", "unix/"+filepath.Join(dir, "fcgi"))
	host, port, _ := net.SplitHostPort(p.http)
	named := "&(cached) {\nroute {\nCACHE\nreverse_proxy UPSTREAM\n}\n}\n&(second) {\nCACHE\n}\n"
	return config + "\n" + r.Replace(named) + fmt.Sprintf("http://:%s {\nbind %s\n%s\n}\n", port, host, r.Replace(body))
}

// TestCompositions: with the cache each client gets what it gets without.
func TestCompositions(t *testing.T) {
	for name, body := range composed {
		t.Run(name, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/auth" {
					w.Header().Set("X-User", r.Header.Get("X-Role"))
					return
				}
				w.Header().Set("No-Vary-Search", "params=(\"role\" \"x\")")
				fmt.Fprintf(w, "%s %s for %s %s", r.Host, r.URL.Path, r.Header.Get("X-Tenant")+r.Header.Get("X-Rewrite-Tenant"), r.Header.Get("X-User")+r.Header.Get("X-Any"))
			})
			dir := t.TempDir()
			files(t, dir)
			serveFastCGI(t, filepath.Join(dir, "fcgi"))
			var answers [2][]string
			for i, cache := range []string{"", "groupcache {\nttl 1h\n}"} {
				c := newCluster(t, 1, o, "")
				c[0].config = composition(t, c[0], o, body, cache, dir)
				c[0].start()
				for _, first := range []string{"admin", "guest"} {
					for _, role := range []string{first, "guest", "admin", "guest"} {
						for _, q := range []string{"x", "role=" + role} {
							r := c[0].request(http.MethodGet, "/a/"+first+"?"+q, nil, "X-Role", role, "X-Any", "any", "Cookie", "role="+role+"; role+x="+role, "X-Port", map[string]string{"admin": o.addr()[strings.LastIndex(o.addr(), ":")+1:], "guest": "1"}[role])
							r.Host = "site.example"
							if strings.Contains(body, "host other") && role == "guest" {
								r.Host = "other.example"
							}
							a := do(r)
							answers[i] = append(answers[i], fmt.Sprintf("%s as %s ?%s: %d %q %s", first, role, q, a.status, a.body, a.header.Get("X-Own")))
						}
					}
				}
			}
			for i, want := range answers[0] {
				if answers[1][i] != want {
					t.Errorf("%s with the cache, without it %s", answers[1][i], want)
				}
			}
		})
	}
}

// serveFastCGI serves what a script sees of its root and its environment.
func serveFastCGI(t *testing.T, socket string) {
	t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		_ = fcgi.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // until it is closed
			env := fcgi.ProcessEnv(r)
			fmt.Fprintf(w, "%s for %s", filepath.Base(env["DOCUMENT_ROOT"]), env["TENANT"])
		}))
	}()
}

func files(t *testing.T, dir string) {
	t.Helper()
	for _, role := range []string{"admin", "guest"} {
		for _, name := range []string{"a/admin", "a/guest", "a"} {
			path := filepath.Join(dir, role, name)
			if name == "a" {
				path = filepath.Join(dir, role, "a", "index.html")
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("file of "+role), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRefreshKnowsWhatAnotherUpstreamHasSaid: a refresh makes the response that the client
// would have got whose request has caused it.
func TestRefreshKnowsWhatAnotherUpstreamHasSaid(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/auth" {
			w.Header().Set("X-User", r.Header.Get("X-Role"))
			return
		}
		w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=60")
		fmt.Fprint(w, r.URL.Path)
	})
	c := newCluster(t, 1, o, "")
	body := "forward_auth UPSTREAM {\nuri /auth\ncopy_headers X-User\n}\nroute {\nCACHE\nrewrite * /{http.reverse_proxy.header.X-User}{uri}\nreverse_proxy UPSTREAM\n}"
	c[0].config = composition(t, c[0], o, body, "groupcache", "")
	c[0].start()
	c[0].get("/a", "X-Role", "admin")
	eventually(t, "a refresh", func() bool {
		if a := c[0].get("/a", "X-Role", "admin"); a.body != "/admin/a" {
			t.Errorf("%q (%s)", a.body, a.cacheStatus())
			return true
		}
		return o.fetches("/admin/a") >= 3
	})
}

// TestRefreshTellsTheUpstreamWhatItsClientTells: what another handler has left in placeholders
// for header_up is there in the background too.
func TestRefreshTellsTheUpstreamWhatItsClientTells(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/auth" {
			w.Header().Set("X-User", "somebody")
			return
		}
		w.Header().Set("Cache-Control", "max-age=0, stale-while-revalidate=60")
		fmt.Fprint(w, "for ", r.Header.Get("X-Any"))
	})
	c := newCluster(t, 1, o, "")
	body := "forward_auth UPSTREAM {\nuri /auth\n}\nCACHE\nreverse_proxy UPSTREAM {\nheader_up X-Any {http.reverse_proxy.header.X-User}\n}"
	c[0].config = composition(t, c[0], o, body, "groupcache", "")
	c[0].start()
	eventually(t, "two refreshes", func() bool {
		if a := c[0].get("/a"); a.body != "for somebody" {
			t.Errorf("%q (%s)", a.body, a.cacheStatus())
			return true
		}
		return o.fetches("/a") >= 3
	})
}

// TestAuthenticationBehindTheCache: what has to pass one is handed on, whatever it is, and the
// rest is shared.
func TestAuthenticationBehindTheCache(t *testing.T) {
	const basic = "basic_auth {\nalice $2a$04$4uZl5VA0nq5cATdY4Rn8cuRZiEhm/iUcMMV92IRb6Au9CIi9gDHQG\n}\n"
	const forward = "forward_auth UPSTREAM {\nuri /auth\ncopy_headers X-User\n}\n"
	for name, body := range map[string]string{
		"basic":               "CACHE\nhandle /in/* {\n" + basic + "reverse_proxy UPSTREAM\n}\nhandle {\nreverse_proxy UPSTREAM\n}",
		"forward":             "CACHE\nhandle /in/* {\n" + forward + "reverse_proxy UPSTREAM\n}\nhandle {\nreverse_proxy UPSTREAM\n}",
		"handle_path":         "CACHE\nhandle_path /in/* {\n@a path /a\nroute @a {\n" + forward + "}\nreverse_proxy UPSTREAM\n}\nhandle {\nreverse_proxy UPSTREAM\n}",
		"after one that ends": "CACHE\nhandle_path /other/* {\nreverse_proxy UPSTREAM\n}\nroute /in/* {\n" + basic + "reverse_proxy UPSTREAM\n}\nreverse_proxy UPSTREAM",
		"after another":       "CACHE\nhandle_path /other/* {\nreverse_proxy UPSTREAM\n}\nhandle /in/* {\n" + basic + "reverse_proxy UPSTREAM\n}\nhandle {\nreverse_proxy UPSTREAM\n}",
		"an empty list":       "CACHE\nroute /in/* {\nreverse_proxy UPSTREAM {\nrewrite /auth\n@ok status 2xx\nhandle_response @ok {\n}\n}\n}\nreverse_proxy UPSTREAM",
		"a list with matcher": "CACHE\nroute /in/* {\nreverse_proxy UPSTREAM {\nrewrite /auth\n@ok status 2xx\nhandle_response @ok {\nrespond /in/b denied 403\n}\n}\n}\nreverse_proxy UPSTREAM",
		"fields only":         "CACHE\nroute /in/* {\nreverse_proxy UPSTREAM {\nrewrite /auth\n@ok status 2xx\nhandle_response @ok {\ncopy_response_headers\n}\n}\n}\nreverse_proxy UPSTREAM",
		"a group passed over": "CACHE\nroute /in/* {\nreverse_proxy UPSTREAM {\nrewrite /auth\nhandle_response {\n@ok expression {rp.status_code} == 200\nhandle @ok {\n}\nhandle {\nrespond 401\n}\n}\n}\n}\nreverse_proxy UPSTREAM",
		"a nested matcher":    "CACHE\nroute /in/* {\nreverse_proxy UPSTREAM {\nrewrite /auth\n@ok status 2xx\nhandle_response @ok {\nroute {\nrespond /in/b denied 403\n}\n}\n}\n}\nreverse_proxy UPSTREAM",
		"early hints":         "CACHE\nroute /in/* {\nreverse_proxy UPSTREAM {\nrewrite /auth\n@ok status 2xx\nhandle_response @ok {\nrespond 103\n}\n}\n}\nreverse_proxy UPSTREAM",
		"files or more":       "CACHE\nroute /in/* {\nreverse_proxy UPSTREAM {\nrewrite /auth\n@ok status 2xx\nhandle_response @ok {\nfile_server {\npass_thru\n}\n}\n}\n}\nreverse_proxy UPSTREAM",
		"of what is made":     "route {\nCACHE\n@in path /in/*\nrequest_header @in X-Made in\n@made header X-Made in\nroute @made {\n" + forward + "}\nreverse_proxy UPSTREAM\n}",
	} {
		t.Run(name, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/auth" && r.Header.Get("Authorization") == "" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				w.Header().Set("Cache-Control", "public, max-age=60")
				fmt.Fprint(w, "for members")
			})
			c := newCluster(t, 1, o, "")
			c[0].config = composition(t, c[0], o, body, "groupcache", "")
			c[0].start()
			for _, known := range []bool{true, false, true} {
				r := c[0].request(http.MethodGet, "/in/a", nil)
				want := http.StatusUnauthorized
				if known {
					r.SetBasicAuth("alice", "secret")
					want = http.StatusOK
				}
				if a := do(r); a.status != want || !strings.Contains(a.cacheStatus(), "auth-behind") {
					t.Errorf("known %v: %d %q (%s)", known, a.status, a.body, a.cacheStatus())
				}
			}
			c[0].get("/out/a")
			if a := c[0].get("/out/a"); !a.hit() && name != "of what is made" {
				t.Errorf("another page: %d (%s)", a.status, a.cacheStatus())
			}
		})
	}
}

// TestFieldsForTheUpstreamAloneSplitNothing: clients share what is stored, whatever of them
// an upstream is told in a field that nothing else looks at.
func TestFieldsForTheUpstreamAloneSplitNothing(t *testing.T) {
	for name, body := range map[string]string{
		"request_header": "route {\nCACHE\nrequest_header X-Seen {cookie.role}\n@denied header X-Other bad\nrespond @denied denied 403\nreverse_proxy UPSTREAM\n}",
		"header_up":      "@denied header X-Seen bad\nCACHE\nrespond @denied denied 403\nreverse_proxy UPSTREAM {\nheader_up X-Seen {cookie.role}\nheader_up X-Forwarded-Proto {header.X-Forwarded-Proto}\n}",
	} {
		t.Run(name, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "for all") })
			c := newCluster(t, 1, o, "")
			c[0].config = composition(t, c[0], o, body, "groupcache {\nttl 1h\n}", "")
			c[0].start()
			c[0].get("/a", "Cookie", "role=admin")
			if a := c[0].get("/a", "Cookie", "role=guest"); !a.hit() {
				t.Errorf("%q (%s)", a.body, a.cacheStatus())
			}
		})
	}
}

// TestReplacedFieldSelectsNothing: a field that Caddy replaces parts of, by what is not in
// the key, tells nothing of what the upstream got.
func TestReplacedFieldSelectsNothing(t *testing.T) {
	for _, field := range []string{"X-Any", "x-any", "*"} {
		t.Run(field, func(t *testing.T) {
			o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Vary", "X-Any")
				fmt.Fprint(w, "for ", r.Header.Get("X-Any"))
			})
			c := newCluster(t, 1, o, "")
			c[0].config = composition(t, c[0], o, "CACHE\nreverse_proxy UPSTREAM {\nheader_up "+field+" ^any$ {cookie.role}\n}", "groupcache {\nttl 1h\n}", "")
			c[0].start()
			for _, role := range []string{"admin", "guest", "admin"} {
				a := c[0].get("/a", "X-Any", "any", "Cookie", "role="+role)
				if a.body != "for "+role || field != "*" && !strings.Contains(a.cacheStatus(), "vary-on-the-way") {
					t.Errorf("as %s: %q (%s)", role, a.body, a.cacheStatus())
				}
			}
		})
	}
}

// TestFieldMadeOfForwardedSelectsNothing: the key has a part of that field only.
func TestFieldMadeOfForwardedSelectsNothing(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "X-Any")
		fmt.Fprint(w, "for ", r.Header.Get("X-Any"))
	})
	c := newCluster(t, 1, o, "")
	c[0].config = composition(t, c[0], o, "CACHE\nreverse_proxy UPSTREAM {\nheader_up X-Any {header.Forwarded}\n}", "groupcache {\nttl 1h\n}", "")
	c[0].start()
	for _, forwarded := range []string{"for=10.0.0.1", "for=10.0.0.2"} {
		if a := c[0].get("/a", "Forwarded", forwarded); a.body != "for "+forwarded {
			t.Errorf("%s: %q (%s)", forwarded, a.body, a.cacheStatus())
		}
	}
}

// TestNamedRouteThatInvokesItself: the search for handlers of the group ends.
func TestNamedRouteThatInvokesItself(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "x") })
	c := newCluster(t, 1, o, "ttl 1h")
	host, port, _ := net.SplitHostPort(freePorts(t, 1)[0])
	config := c[0].caddyfile("")
	at := strings.Index(config, "\nhttp://:")
	c[0].config = config[:at] + "\n&(again) {\nroute {\n@again header X-Again *\nrequest_header -X-Again\ninvoke @again again\nrespond again\n}\n}\n" + config[at:] +
		fmt.Sprintf("http://:%s {\nbind %s\ninvoke again\n}\n", port, host)
	c[0].start()
	if a := c[0].get("/a"); a.status != 200 {
		t.Errorf("%d %v", a.status, a.err)
	}
}

// TestHandlersWithEqualSettingsInOtherRoutes: each has keys of its own.
func TestHandlersWithEqualSettingsInOtherRoutes(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "x") })
	c := newCluster(t, 1, o, "")
	p := c[0]
	config := p.caddyfile("")
	config = config[:strings.Index(config, "\nhttp://:")]
	host, port, _ := net.SplitHostPort(p.http)
	cache := "groupcache {\nttl 1h\nkey {http.request.host}{http.request.uri}\n}\nreverse_proxy " + o.addr()
	p.config = config + fmt.Sprintf("\nhttp://a.example:%s {\nbind %s\n%s\n}\nhttp://b.example:%s {\nbind %s\n@guest header X-Role guest\nrespond @guest denied 403\n%s\n}\n", port, host, cache, port, host, cache)
	p.start()
	send := func(method string) answer {
		r := p.request(method, "/a", nil)
		r.Host = "b.example"
		return do(r)
	}
	send(http.MethodGet)
	if a := send(http.MethodGet); !a.hit() {
		t.Errorf("%s", a.cacheStatus())
	}
	send(http.MethodPut)
	if a := send(http.MethodGet); a.hit() {
		t.Errorf("%s after a PUT", a.cacheStatus())
	}
	for _, host := range []string{"a.example", "b.example"} {
		routed := 0
		for _, g := range p.explain("/a", "header", "Host: "+host).Groups {
			if g.Reason != "not-routed" {
				routed++
			}
		}
		if routed != 1 {
			t.Errorf("%s: %d handlers are on its routes", host, routed)
		}
	}
}

// TestOtherSitesAreNotAroundTheCache: what they look at does not tell a plain site's
// clients apart.
func TestOtherSitesAreNotAroundTheCache(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "x") })
	p := newCluster(t, 1, o, "")[0]
	config := p.caddyfile("")
	config = config[:strings.Index(config, "\nhttp://:")]
	host, port, _ := net.SplitHostPort(p.http)
	for _, name := range []string{"a.example", "m.example", "z.example.com"} {
		lines := "@guest header X-Role guest\nrewrite @guest /x{uri}\nrespond @guest denied 403"
		if name[0] == 'm' {
			lines = "@guest header X-Role guest\nhandle /b/* {\nrespond @guest denied 403\n}"
		}
		config += fmt.Sprintf("\nhttp://%s:%s {\nbind %s\n%s\nhandle {\ngroupcache {\nttl 1h\n}\nreverse_proxy %s\n}\n}\n", name, port, host, lines, o.addr())
	}
	p.config = config
	p.start()
	for i, role := range []string{"admin", "guest"} {
		r := p.request(http.MethodGet, "/a", nil, "X-Role", role)
		r.Host = "m.example"
		if a := do(r); a.hit() != (i > 0) {
			t.Errorf("as %s: %s", role, a.cacheStatus())
		}
	}
}

// TestAdminBeforeTheFirstRequest: requests that no client has sent are asked of all matchers.
func TestAdminBeforeTheFirstRequest(t *testing.T) {
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "x") })
	p := newCluster(t, 1, o, "ttl 1h")[0]
	p.config = plain(p, strings.Join([]string{
		"@a client_ip 10.0.0.0/8", "respond @a a", "@b remote_ip 10.0.0.0/8", "respond @b b", "@c protocol grpc", "respond @c c",
		"@d expression `{http.request.remote.host} == \"10.1.1.1\" || file({\"try_files\": [\"/x\"]})`", "respond @d d", "@e vars {http.vars.x} y", "respond @e e",
		"@f file /nothing", "respond @f f", "@g header_regexp r X-Role (.*)", "respond @g \"{re.r.1}\"", "@h vars_regexp r {http.vars.x} (y)", "respond @h h",
		"@i tls", "respond @i i", "@j path_regexp ^/j{4}$", "respond @j j", "@k method PUT", "respond @k k", "@l header Host x", "respond @l l",
	}, "\n"))
	p.start()
	if groups := p.explain("/a").Groups; len(groups) != 1 || groups[0].Verdict != "fetch" {
		t.Errorf("%+v", groups)
	}
	resp, err := adminClient.Post("http://"+p.admin+"/groupcache/purge", "application/json", strings.NewReader(`{"urls":["http://`+clientHost+`/a"],"group":"default"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("purge: %s", resp.Status)
	}
	if a := p.get("/a"); a.status != 200 {
		t.Errorf("%d", a.status)
	}
	if a := p.get("/a"); !a.hit() {
		t.Errorf("%s", a.cacheStatus())
	}
	if a := do(p.request(http.MethodDelete, "/a", nil)); a.status != 200 {
		t.Errorf("%d", a.status)
	}
	if a := p.get("/a"); a.hit() {
		t.Errorf("%s", a.cacheStatus())
	}
}
