//go:build unix

package caddygroupcache_test

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

// A phpApplication is an application of Debian's packages, run by its PHP. An origin
// before it counts its requests.
type phpApplication struct {
	*origin
	t      *testing.T
	dir    string // short, as sockets need it
	socket string // of php-fpm
	host   string
}

// newPHPApplication skips the test where what the application needs is not installed:
// each program, file or "php:" and the name of a module stands before its package.
func newPHPApplication(t *testing.T, host string, needs map[string]string) *phpApplication {
	t.Helper()
	if testing.Short() || raceEnabled() {
		t.Skip("runs without the race detector: it starts an application, and Caddy is what other tests try with it")
	}
	var missing []string
	modules, _ := exec.Command("php", "-m").Output() // without PHP, all are missing
	for need, of := range needs {
		err := error(nil)
		if module, ok := strings.CutPrefix(need, "php:"); ok {
			if !strings.Contains(string(modules), "\n"+module+"\n") {
				err = os.ErrNotExist
			}
		} else if filepath.IsAbs(need) {
			_, err = os.Stat(need)
		} else {
			_, err = exec.LookPath(need)
		}
		if err != nil {
			missing = append(missing, of)
		}
	}
	if fpm() == "" {
		missing = append(missing, "php-fpm")
	}
	if len(missing) > 0 {
		t.Skipf("LEFT OUT: the application needs the Debian packages %s", strings.Join(missing, " "))
	}
	dir, err := os.MkdirTemp("", "php")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &phpApplication{t: t, dir: dir, socket: filepath.Join(dir, "fpm.sock"), host: host}
}

// fpm is the program php-fpm, whose name has a version.
func fpm() string {
	found, _ := filepath.Glob("/usr/sbin/php-fpm*") // the pattern is right
	return cmp.Or(append(found, "")...)
}

// run runs a program to its end.
func (a *phpApplication) run(program string, args ...string) {
	a.t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		a.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// write writes a file of the application.
func (a *phpApplication) write(name, text string) {
	a.t.Helper()
	name = filepath.Join(a.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "DIR", a.dir)), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// service starts a program that goes on until the end of the test, and waits until it
// listens at a socket.
func (a *phpApplication) service(socket, program string, args ...string) {
	a.t.Helper()
	p, err := harness.Start(exec.Command(program, args...), program, filepath.Join(a.dir, filepath.Base(program)+".log"))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := p.End(); err != nil {
			a.t.Error(err)
		}
	})
	eventually(a.t, program+" listens", func() bool {
		if err := p.Err(); err != nil {
			a.t.Fatal(err)
		}
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// serve starts PHP, with more lines of its pool, and a Caddy without a cache that serves
// the application in a folder.
func (a *phpApplication) serve(root, pool string) {
	a.t.Helper()
	a.write("fpm.conf", "[global]\nerror_log = DIR/fpm.log\ndaemonize = no\n[www]\nuser = root\ngroup = root\nlisten = "+a.socket+
		"\npm = static\npm.max_children = 4\n"+pool+"\n")
	args := []string{"-F", "-y", filepath.Join(a.dir, "fpm.conf")}
	if os.Geteuid() == 0 {
		args = append(args, "-R")
	}
	a.service(a.socket, fpm(), args...)
	p := newCluster(a.t, 1, startOrigin(a.t, http.NotFound), "")[0]
	_, port, _ := strings.Cut(p.http, ":")
	p.config = fmt.Sprintf("{\n\tadmin %s\n\tpersist_config off\n}\nhttp://:%s {\n\tbind 127.0.0.1\n\troot * %s\n\tphp_fastcgi unix/%s\n\tfile_server\n}\n", p.admin, port, root, a.socket)
	p.run()
	eventually(a.t, "the application's Caddy serves", func() bool { return do(p.request(http.MethodHead, "/", nil)).status != 0 })
	a.origin = startOrigin(a.t, httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: p.http}).ServeHTTP)
}

// A visitor of an application has its own cookies.
type visitor struct {
	t   *testing.T
	at  []*recipe
	jar *cookiejar.Jar
}

// newVisitor returns a client of the nodes, with cookies that scripts have set.
func newVisitor(t *testing.T, at []*recipe, cookies ...string) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{t, at, jar}
	for _, c := range cookies {
		name, value, _ := strings.Cut(c, "=")
		jar.SetCookies(v.url("/"), []*http.Cookie{{Name: name, Value: value}})
	}
	return v
}

func (v *visitor) url(path string) *url.URL {
	path, _, _ = strings.Cut(path, "?")
	return &url.URL{Scheme: "http", Host: v.at[0].host, Path: path}
}

// get visits a page by way of a node.
func (v *visitor) get(node int, path string) answer { return v.send(node, http.MethodGet, path, nil) }

// post sends a form.
func (v *visitor) post(node int, path string, form url.Values) answer {
	return v.send(node, http.MethodPost, path, form)
}

func (v *visitor) send(node int, method, path string, form url.Values) answer {
	header := []string{"Content-Type", "application/x-www-form-urlencoded"}
	if form == nil {
		header = nil
	}
	var cookies []string
	for _, c := range v.jar.Cookies(v.url(path)) {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	if len(cookies) > 0 {
		header = append(header, "Cookie", strings.Join(cookies, "; "))
	}
	a := v.at[node%len(v.at)].ask(method, path, form.Encode(), header...)
	v.jar.SetCookies(v.url(path), (&http.Response{Header: a.header}).Cookies())
	return a
}
