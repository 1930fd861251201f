//go:build unix

package caddygroupcache_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// loggedCases are sites with access logs: lines of the site in front of the cache, or of the
// global options. LOG is where they are written.
var loggedCases = map[string]struct{ global, site string }{
	"plain":         {"", "log {\nLOG\n}\n"},
	"TLS":           {"", "log {\nLOG\n}\n"},
	"skipped":       {"", "log {\nLOG\n}\nlog_skip /skipped*\n"},
	"appended":      {"", "log {\nLOG\n}\nlog_append a {http.request.uri}\nlog_append <b {http.request.host}\nlog_append c {http.groupcache.status}\nlog_append d {http.groupcache.detail}\nlog_append e {http.response.size}\nlog_append f {http.request.remote.host}\nlog_append g {http.request.local.port}\n"},
	"named":         {"log one {\nLOG\ninclude http.log.access.other http.log.access.third\n}\n", "log other\nlog_name /x* third\n"},
	"of some hosts": {"", "log {\nLOG\nhostnames *.test\n}\nlog second {\nLOG\nhostnames other.example\n}\n"},
	"filtered":      {"", "log {\nLOG\nformat filter {\nrequest>headers delete\nresp_headers>Server replace X\nrequest>uri query {\ndelete a\n}\n}\n}\n"},
	"credentials":   {"servers {\nlog_credentials\nlistener_wrappers {\nLANE\n}\n}\n", "log {\nLOG\n}\n"},
	"other cookies": {"servers {\nlog_credentials\nlistener_wrappers {\nLANE\n}\n}\n", "log {\nLOG\n}\n"},
	"proxied":       {"servers {\ntrusted_proxies static 127.0.0.1/8\nlistener_wrappers {\nLANE\n}\n}\n", "log {\nLOG\n}\n"},
	"levels":        {"", "log {\nLOG\nlevel WARN\n}\nvars /x* log_level error\nvars /last log_level WARN\n"},
}

// TestLaneIsLoggedAsItsTwin: each entry has the fields that Caddy's own has.
func TestLaneIsLoggedAsItsTwin(t *testing.T) {
	w := startTwins(t)
	for name, c := range loggedCases {
		t.Run(name, func(t *testing.T) {
			options := "group log-" + strings.ReplaceAll(name, " ", "-")
			if name == "other cookies" {
				options += "\ncookies ignore _ga*"
			}
			log := strings.NewReplacer("LOG", "output file DIR/"+strings.ReplaceAll(name, " ", "-")+".log")
			at := map[bool]string{false: "SITES\n", true: "SECURE\n"}[name == "TLS"]
			w.load(t, "listener_wrappers {\nLANE\n}\n", options, at+log.Replace(c.site)+"CACHE\nreverse_proxy UPSTREAM\n}\n", log.Replace(c.global))
			var entries [2][]any
			lane := 0
			for i, p := range []*process{w.with, w.without} {
				for range 3 {
					lane += p.askInTurn(t, name == "TLS", plainGet("/x?h-vary=Cookie&a=1", "Cookie: a=b; _ga=c", "X-Forwarded-For: 192.0.2.1"), plainGet("/skipped?h-set-cookie=z"), plainGet("/large"), plainGet("/x?h-x-name=a"))
				}
				p.askInTurn(t, name == "TLS", plainGet("/last"))
				entries[i] = p.logged(t, strings.ReplaceAll(name, " ", "-")+".log")
			}
			if !reflect.DeepEqual(entries[0], entries[1]) {
				t.Errorf("with the lane\n%s\nwithout\n%s", indented(entries[0]), indented(entries[1]))
			}
			if lane < 6 {
				t.Errorf("the lane has answered %d", lane)
			}
		})
	}
}

// askInTurn sends each request when the response before has come, and returns how many the lane
// has answered.
func (p *process) askInTurn(t *testing.T, secure bool, requests ...string) (all int) {
	t.Helper()
	for range 3 { // after a reload, the server before may have taken the connection: it closes it
		if answered, lane := p.askEach(t, secure, requests); answered == len(requests) {
			return lane
		} else if answered > 0 {
			t.Fatalf("%d responses to %q", answered, requests)
		}
	}
	t.Fatalf("no response to %q", requests[0])
	return 0
}

func (p *process) askEach(t *testing.T, secure bool, requests []string) (answered, all int) {
	t.Helper()
	conn := p.dialFor(t, secure)
	defer conn.Close() //nolint:errcheck // all has come
	in := bufio.NewReader(conn)
	for _, request := range requests {
		_, _ = io.WriteString(conn, request) // what is not sent is not answered
		got, lane := readLane(in, 1, false)
		answered += len(got)
		all += lane
	}
	return answered, all
}

// dialFor connects to the node's site, for HTTP/1.1.
func (p *process) dialFor(t *testing.T, secure bool) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.http)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(hang))
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: clientHost, NextProtos: []string{"http/1.1"}})
	}
	return conn
}

// logged returns the entries of a log, without what is never the same, when all of them have
// been written.
func (p *process) logged(t *testing.T, file string) (entries []any) {
	t.Helper()
	complete := func() bool {
		text, err := os.ReadFile(filepath.Join(p.dir, file))
		if err != nil {
			return false
		}
		entries = nil
		for line := range strings.Lines(string(text)) {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) != nil {
				return false // it is being written
			}
			entries = append(entries, timeless(entry))
		}
		return strings.Contains(string(text), "/last")
	}
	eventually(t, "the log is complete", complete)
	return entries
}

// timeless leaves out what differs from one request to the next.
func timeless(entry map[string]any) map[string]any {
	delete(entry, "ts")
	if d, ok := entry["duration"].(float64); ok && d > 0 {
		entry["duration"] = "some"
	}
	if request, ok := entry["request"].(map[string]any); ok {
		delete(request, "remote_port")
	}
	if header, ok := entry["resp_headers"].(map[string]any); ok {
		for name, lines := range header {
			if ofItsTime.MatchString(name+":") || name == "Alt-Svc" { // with the port
				header[name] = "some"
			}
			if lines, ok := lines.([]any); ok && name == "Cache-Status" {
				header[name] = seconds.ReplaceAllString(lines[0].(string), "ttl=N")
			}
		}
	}
	if _, ok := entry["g"]; ok {
		entry["g"] = "the port"
	}
	return entry
}

func indented(entries []any) string {
	text, _ := json.MarshalIndent(slices.Clone(entries), "", " ") // it was JSON
	return string(text)
}
