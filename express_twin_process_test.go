//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// Twins are two nodes with one config, of which one has the express lane. They have an
// origin that answers the same at any time, so each answer of the one is the other's.
type twins struct {
	with, without *process
	origin        *origin
}

// startTwins runs both. CACHE is the directive in a site, OPTIONS what it has beside the lane.
func startTwins(t *testing.T) *twins {
	t.Helper()
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html")
		h.Set("Cache-Control", "max-age=3600")
		for name, values := range r.URL.Query() { // as the test wants it
			if strings.HasPrefix(name, "h-") {
				h[http.CanonicalHeaderKey(name[2:])] = values
			}
		}
		body := fmt.Sprintf("%s %s cookies %q\n", r.Method, r.URL.Path, r.Header["Cookie"])
		if r.URL.Path == "/large" {
			body += strings.Repeat("0123456789abcdef", 40<<10)
		}
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, body)
	})
	c := newCluster(t, 2, o, "")
	w := &twins{with: c[0], without: c[1], origin: o}
	for _, p := range c {
		p.config = fmt.Sprintf("{\n\tadmin %s\n\tauto_https off\n\tpersist_config off\n}\nhttp://%s {\n\tgroupcache\n\trespond ok\n}\n", p.admin, p.http)
		p.gossip = ""
		p.overTLS() // the certificate
		p.start()
	}
	return w
}

// load has both take a config. servers are options of the server, CACHE in site the directive,
// global are more global options.
func (w *twins) load(t *testing.T, servers, options, site string, global ...string) {
	t.Helper()
	more := strings.Join(global, "")
	if !strings.Contains(more, "servers {") {
		more += "servers {\n" + servers + "\n}\n"
	}
	for _, p := range []*process{w.with, w.without} {
		lane, express := "", ""
		if p == w.with {
			lane, express = "groupcache\n", "express\n"
		}
		host, port, _ := net.SplitHostPort(p.http)
		cache := "groupcache {\n" + options + "\n" + express + "}\n"
		if site == "" {
			site = onlyLane
		}
		config := strings.NewReplacer(
			"LANE", lane, "CACHE", cache, "UPSTREAM", w.origin.addr(), "DIR", p.dir, "SITES", "http://:"+port+" {\nbind "+host,
			"SECURE", fmt.Sprintf("https://:%s {\nbind %s\ntls %s %s", port, host, filepath.Join(p.dir, "cert"), filepath.Join(p.dir, "key")),
		).Replace(
			fmt.Sprintf("{\nadmin %s\nauto_https off\npersist_config off\nstorage file_system %s\n%s}\n%s", p.admin, p.dir, more, site))
		if status, body := p.load(config); status != http.StatusOK {
			t.Fatalf("%d %s\n%s", status, body, config)
		}
	}
}

// askLane sends bytes over a connection, ends what it sends, and returns the responses: status,
// fields but those of time, body, and how many of them the lane has answered.
func (p *process) askLane(t *testing.T, bytes string) (got []string, lane int) {
	t.Helper()
	for range 3 { // after a reload, the server before may have taken the connection: it closes it
		if got, lane = p.askOnce(t, bytes); len(got) > 0 {
			break
		}
	}
	return got, lane
}

func (p *process) askOnce(t *testing.T, bytes string) (got []string, lane int) {
	t.Helper()
	conn, err := net.Dial("tcp", p.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // all has come
	_ = conn.SetDeadline(time.Now().Add(hang))
	go func() {
		_, _ = io.WriteString(conn, bytes)
		if !strings.HasSuffix(bytes, "\n") { // before it, Caddy would give up what it forwards
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	return readLane(bufio.NewReader(conn), strings.Count(bytes, " HTTP/1."), strings.HasPrefix(bytes, "HEAD"))
}

// readLane reads so many responses, or fewer if no more come.
func readLane(in *bufio.Reader, n int, head bool) (got []string, lane int) {
	for range n {
		var order []string
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		text, err := peekHeader(in)
		if err != nil {
			return got, lane
		}
		order = append(order, strings.Split(text, "\r\n")[1:]...)
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return append(got, err.Error()), lane
		}
		body, err := io.ReadAll(resp.Body)
		if i := slices.IndexFunc(order, func(line string) bool { return strings.HasPrefix(line, "Age:") }); i > 0 && order[i-1] > order[i] {
			lane++ // net/http sorts
		}
		slices.Sort(order)
		order = slices.DeleteFunc(order, func(line string) bool { return ofItsTime.MatchString(line) })
		got = append(got, fmt.Sprintf("%s %s %q %d %.60q %v", resp.Proto, resp.Status, seconds.ReplaceAllString(strings.Join(order, "|"), "ttl=N"), len(body), body, err))
	}
	return got, lane
}

// ofItsTime are fields that tell when a response was made, or how its body came.
var ofItsTime = regexp.MustCompile(`^(Age|Date|Content-Length|Transfer-Encoding):`)

var seconds = regexp.MustCompile(`ttl=\d+`)

// peekHeader returns the header that comes next, without its end.
func peekHeader(in *bufio.Reader) (string, error) {
	for n := 1; ; n = max(n+1, in.Buffered()) {
		b, err := in.Peek(n)
		if head, _, ok := strings.Cut(string(b), "\r\n\r\n"); ok {
			return head, nil
		}
		if err != nil {
			return "", err
		}
	}
}

func plainGet(path string, fields ...string) string {
	return "GET " + path + " HTTP/1.1\r\n" + strings.Join(append(append([]string{"Host: " + clientHost}, fields...), "", ""), "\r\n")
}

// onlyLane is what a site of twins has that has nothing else.
const onlyLane = "SITES\nCACHE\nreverse_proxy UPSTREAM\n}\n"

// twinCases are sites with what the cache can do. Each answer is asked for over a connection of
// its own.
var twinCases = map[string]struct {
	servers, options, site string
	ask                    []string
	lane                   int // how many of the answers are the lane's
}{
	"rules":           {options: "response {\nttl 1h force\nstore_without Set-Cookie\ntags +a\n}", ask: thrice("/r?h-set-cookie=a&h-cache-control=no-cache"), lane: 2},
	"rules by path":   {options: "@a header X-Kind a\nresponse @a {\nno_store\n}\nttl 1h", ask: slices.Concat(thrice("/a?h-x-kind=a"), thrice("/b?h-x-kind=b")), lane: 2},
	"ignored cookies": {options: "cookies ignore _ga*", ask: []string{plainGet("/c?h-vary=Cookie", "Cookie: a=1; _ga=2"), plainGet("/c?h-vary=Cookie", "Cookie: a=1; _ga=3"), plainGet("/c?h-vary=Cookie", "Cookie: a=1"), plainGet("/c?h-vary=Cookie", "Cookie: a=2")}, lane: 2},
	"some cookies":    {options: "cookies only a", ask: []string{plainGet("/c?h-vary=Cookie", "Cookie: a=1; b=2"), plainGet("/c?h-vary=Cookie", "Cookie: b=3; a=1"), plainGet("/c?h-vary=Cookie", "Cookie: b=3"), plainGet("/c?h-vary=Cookie")}, lane: 2},
	"queries":         {options: "query ignore utm_*\nquery sort", ask: []string{plainGet("/q?b=1&a=2&utm_x=3"), plainGet("/q?a=2&b=1"), plainGet("/q?a=2&b=1&utm_y=4"), plainGet("/q?a=%32&b=1")}, lane: 2},
	"a query":         {options: "query only a", ask: []string{plainGet("/q?a=1&c=2"), plainGet("/q?a=1&c=3"), plainGet("/q?c=3")}, lane: 1},
	"search variance": {ask: []string{plainGet(`/s?h-no-vary-search=params=("x")&x=1`), plainGet(`/s?h-no-vary-search=params=("x")&x=2`), plainGet(`/s?h-no-vary-search=params=("x")`)}, lane: 0},
	"targeted":        {ask: thrice("/t?h-cache-control=no-store&h-cdn-cache-control=max-age%3D60"), lane: 2},
	"tags":            {options: "expose_tags", ask: thrice("/t?h-surrogate-key=a+b"), lane: 2},
	"hidden tags":     {ask: thrice("/t?h-surrogate-key=a+b&h-cache-tag=c"), lane: 2},
	"stale":           {options: "stale while_revalidate 1h\nstale after 1s", ask: thrice("/s?h-cache-control=max-age%3D1&h-age=5"), lane: 0},
	"no name":         {options: "cache_status off", ask: thrice("/n"), lane: 2},
	"other statuses":  {options: "ttl 1h 404", ask: thrice("/missing"), lane: 2},
	"errors":          {options: "ttl 1h 404", site: "SITES\nroute {\nCACHE\nerror /e gone 404\nreverse_proxy UPSTREAM\n}\nhandle_errors {\nrespond \"sorry {err.message}\"\n}\n}\n", ask: thrice("/e"), lane: 0},
	"directives":      {options: "request_directives ignore", ask: []string{plainGet("/d"), plainGet("/d", "Cache-Control: no-cache"), plainGet("/d", "Pragma: no-cache"), plainGet("/d")}, lane: 1},
	"authorization":   {options: "authorization ignore", ask: []string{plainGet("/d"), plainGet("/d", "Authorization: Basic YTpi"), plainGet("/d")}, lane: 1},
	"validators":      {ask: []string{plainGet("/v?h-etag=%22a%22"), plainGet("/v?h-etag=%22a%22", `If-None-Match: "a"`), plainGet("/v?h-etag=%22a%22", "Range: bytes=1-2"), plainGet("/v?h-etag=%22a%22"), strings.Replace(plainGet("/v?h-etag=%22a%22"), "GET", "HEAD", 1)}, lane: 1},
	"fields":          {ask: slices.Concat(thrice("/f?h-age=1"), thrice("/f?h-connection=x&h-x=1"), thrice("/f?h-trailer=x"), thrice("/f?h-cache-status=cdn"), thrice("/f?h-set-cookie=a&h-x-a=%20b%20"), thrice("/f?h-x-many=a&h-x-many=b"), thrice("/f?h-server=Origin&h-via=1.0+x&h-alt-svc=clear&h-date=Mon")), lane: -1},
	"compressed":      {site: "SITES\nroute {\nCACHE\nencode gzip {\nminimum_length 1\n}\nreverse_proxy UPSTREAM\n}\n}\n", ask: []string{plainGet("/e", "Accept-Encoding: gzip"), plainGet("/e"), plainGet("/e", "Accept-Encoding: gzip"), plainGet("/e")}, lane: 2},
	"fields behind":   {site: "SITES\nroute {\nCACHE\nheader -Server\nheader +X-A {host}\nheader ?X-B b\nheader >X-C c\nreverse_proxy UPSTREAM\n}\n}\n", ask: thrice("/f"), lane: -1},
	"fields of some":  {site: "SITES\nheader /b/* X-Of-B b\nheader /c/* -Server\nheader /d/* Server D\nCACHE\nreverse_proxy UPSTREAM\n}\n", ask: slices.Concat([]string{plainGet("/a"), plainGet("/b/"), plainGet("/a"), plainGet("/c/"), plainGet("/a"), plainGet("/d/"), plainGet("/a"), plainGet("/a?miss"), plainGet("/a")}), lane: 4},
	"some paths":      {site: "SITES\nhandle /a/* {\nCACHE\nreverse_proxy UPSTREAM\n}\nhandle_path /p/* {\nreverse_proxy UPSTREAM\n}\nrespond other\n}\n", ask: slices.Concat(thrice("/a/b"), thrice("/A/B"), thrice("/p/b"), thrice("/a/../p/x"), thrice("/%61/c"), thrice("/a//c")), lane: -1},
	"methods":         {site: "SITES\n@g method HEAD\nhandle @g {\nrespond head\n}\nhandle {\nCACHE\nreverse_proxy UPSTREAM\n}\n}\n", ask: slices.Concat(thrice("/m"), []string{strings.Replace(plainGet("/m"), "GET", "HEAD", 1)}), lane: 2},
	"variables":       {site: "SITES\nroot * DIR\nvars a b\nCACHE\nreverse_proxy UPSTREAM\n}\n", ask: thrice("/m"), lane: 2},
	"hosts":           {site: "SITES\n@b host b.test\nhandle @b {\nrespond b\n}\nhandle {\nCACHE\nreverse_proxy UPSTREAM\n}\n}\n", ask: slices.Concat(thrice("/h"), []string{strings.Replace(plainGet("/h"), clientHost, "b.test", 1), strings.Replace(plainGet("/h"), clientHost, "B.test:80", 1), strings.Replace(plainGet("/h"), clientHost, "...", 1), strings.Replace(plainGet("/h"), clientHost, "[::1", 1), strings.Replace(plainGet("/h"), clientHost, "DEMO.test", 1), strings.Replace(plainGet("/h"), clientHost, "", 1)}), lane: -1},
	"aliases":         {ask: []string{plainGet("/u?h-vary=X-A", "X_A: 1"), plainGet("/u?h-vary=X-A", "X-A: 1"), plainGet("/u?h-vary=X-A", "X.A: 1"), plainGet("/u?h-vary=X-A")}, lane: 1},
	"pipelines":       {ask: []string{plainGet("/p"), strings.Repeat(plainGet("/p"), 50), plainGet("/p") + plainGet("/p2") + strings.Repeat(plainGet("/p")+plainGet("/p2"), 20), strings.Repeat(plainGet("/large"), 4), plainGet("/p") + "GET /p HTTP/1.0\r\nHost: demo.test\r\n\r\n" + plainGet("/p"), plainGet("/p") + plainGet("/p", "Connection: close") + plainGet("/p"), plainGet("/p") + "GET /p"}, lane: -1},
	"HTTP/1.0":        {ask: []string{"GET /o HTTP/1.0\r\nHost: demo.test\r\n\r\n", "GET /o HTTP/1.0\r\n\r\n", "GET /o HTTP/1.0\r\nHost: demo.test\r\nConnection: keep-alive\r\n\r\n", plainGet("/o")}, lane: 1},
	"bodies":          {ask: []string{plainGet("/b"), plainGet("/b", "Content-Length: 3") + "abc" + plainGet("/b"), strings.Replace(plainGet("/b", "Content-Length: 3"), "GET", "POST", 1) + "abc" + plainGet("/b"), plainGet("/b", "Transfer-Encoding: chunked") + "0\r\n\r\n" + plainGet("/b")}, lane: 0},
}

// thrice is a request for a path, three times: each over a connection of its own.
func thrice(path string) []string { return slices.Repeat([]string{plainGet(path)}, 3) }

// TestLaneAsItsTwin: a client can't tell whether there is a lane.
func TestLaneAsItsTwin(t *testing.T) {
	w := startTwins(t)
	for name, c := range twinCases {
		t.Run(name, func(t *testing.T) {
			w.load(t, c.servers+"listener_wrappers {\nLANE\n}\n", "group "+strings.ReplaceAll(name, " ", "-")+"\n"+c.options, c.site)
			all := 0
			for i, bytes := range c.ask {
				got, lane := w.with.askLane(t, bytes)
				want, none := w.without.askLane(t, bytes)
				if !slices.Equal(got, want) || none > 0 || len(got) == 0 {
					t.Errorf("%d, %q: with the lane\n%s\nwithout\n%s", i, bytes[:min(len(bytes), 200)], strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				all += lane
			}
			for _, status := range []string{"hit", "miss"} {
				line := fmt.Sprintf("caddy_groupcache_requests_total{group=%q,status=%q}", strings.ReplaceAll(name, " ", "-"), status)
				if got, want := w.with.metric(line), w.without.metric(line); got != want {
					t.Errorf("%s %g, want %g", line, got, want)
				}
			}
			if c.lane >= 0 && all != c.lane || c.lane < 0 && all == 0 {
				t.Errorf("the lane has answered %d of them, want %d", all, c.lane)
			}
		})
	}
}

// TestLaneOnConnectionsAsItsTwin: what connections there are, and what becomes of them.
func TestLaneOnConnectionsAsItsTwin(t *testing.T) {
	w := startTwins(t)
	for name, c := range map[string]struct {
		servers, site string
		network       string // and address
		before        string // what the client sends first
		lane          int
	}{
		"proxy protocol":     {"listener_wrappers {\nproxy_protocol {\nallow 127.0.0.1/8\n}\nLANE\n}\n", "", "tcp", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 2},
		"a Unix socket":      {"listener_wrappers {\nLANE\n}\n", "http:// {\nbind unix/DIR/socket\nCACHE\nreverse_proxy UPSTREAM\n}\n", "unix", "", 2},
		"HTTP/1.1 alone":     {"protocols h1\nlistener_wrappers {\nLANE\n}\n", "", "tcp", "", 2},
		"HTTP/2 may be":      {"protocols h1 h2c\nlistener_wrappers {\nLANE\n}\n", "", "tcp", "", 2},
		"two sites, no lane": {"listener_wrappers {\nLANE\n}\n", "SITES\n@b host " + clientHost + "\nhandle @b {\ngroupcache\nreverse_proxy UPSTREAM\n}\nhandle {\nCACHE\nrespond x\n}\n}\n", "tcp", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			w.load(t, c.servers, "group "+strings.ReplaceAll(name, " ", "-"), c.site)
			all := 0
			var answers [2][]string
			for i, p := range []*process{w.with, w.without} {
				for range 3 {
					address := map[string]string{"tcp": p.http, "unix": filepath.Join(p.dir, "socket")}[c.network]
					conn, err := net.Dial(c.network, address)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close() //nolint:errcheck // all has come
					_ = conn.SetDeadline(time.Now().Add(hang))
					go io.WriteString(conn, c.before+plainGet("/x?h-vary=X-A")+plainGet("/large")) //nolint:errcheck // see below
					got, lane := readLane(bufio.NewReader(conn), 2, false)
					answers[i] = append(answers[i], got...)
					all += lane
				}
			}
			if !slices.Equal(answers[0], answers[1]) || len(answers[0]) != 6 || all < c.lane || c.lane == 0 && all > 0 {
				t.Errorf("%d by the lane: with\n%s\nwithout\n%s", all, strings.Join(answers[0], "\n"), strings.Join(answers[1], "\n"))
			}
		})
	}
}

// TestLaneThatIsTakenAway: a connection that was open before a reload does not bring the old config
// back.
func TestLaneThatIsTakenAway(t *testing.T) {
	w := startTwins(t)
	const lanes = "listener_wrappers {\nLANE\n}\n"
	for name, after := range map[string]struct{ servers, site string }{
		"no express":     {lanes, "SITES\ngroupcache\nreverse_proxy UPSTREAM\n}\n"},
		"no lane":        {"", "SITES\ngroupcache\nreverse_proxy UPSTREAM\n}\n"},
		"a handler":      {lanes, "SITES\nrespond closed 403\n}\n"},
		"another option": {lanes, "SITES\ngroupcache {\ncache_status other\nexpress\n}\nreverse_proxy UPSTREAM\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w.load(t, lanes, "", "")
			w.with.askLane(t, plainGet("/x"))
			conn, err := net.Dial("tcp", w.with.http)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close() //nolint:errcheck // all has come
			_ = conn.SetDeadline(time.Now().Add(hang))
			in := bufio.NewReader(conn)
			ask := func() ([]string, int) {
				go io.WriteString(conn, plainGet("/x")) //nolint:errcheck // it may be closed
				return readLane(in, 1, false)
			}
			if got, lane := ask(); lane != 1 {
				t.Fatalf("not by the lane: %q", got)
			}
			host, port, _ := net.SplitHostPort(w.with.http)
			site := strings.NewReplacer("SITES", "http://:"+port+" {\nbind "+host, "UPSTREAM", w.origin.addr()).Replace(after.site)
			config := fmt.Sprintf("{\nadmin %s\nauto_https off\npersist_config off\nservers {\n%s\n}\n}\n%s", w.with.admin, strings.ReplaceAll(after.servers, "LANE", "groupcache"), site)
			if status, body := w.with.load(config); status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			if got, _ := ask(); len(got) > 0 {
				t.Errorf("after the reload: %q", got)
			}
		})
	}
}
