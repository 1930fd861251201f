//go:build unix

package caddygroupcache_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var shellFence = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestDocumentedCommands runs every fenced command of README, docs and examples
// as it stands, in a shell. testdata/bin/stub tells what becomes of each.
func TestDocumentedCommands(t *testing.T) {
	if raceEnabled() {
		t.Skip("commands one after the other, each a process of its own: the run without the race detector has them")
	}
	bash, err := exec.LookPath("bash")
	curl, curlErr := exec.LookPath("curl")
	if err != nil || curlErr != nil {
		t.Skip("LEFT OUT: the commands in the documentation need bash and curl")
	}
	o := startOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sitemap.xml" {
			_, _ = io.WriteString(w, "<urlset><url><loc>http://www.example.com/</loc></url></urlset>")
			return
		}
		cached(w, r)
	})
	c := startCluster(t, 1, o, "")
	p := c[0]
	config := strings.Replace(p.caddyfile(""), "\tadmin "+p.admin+"\n", "\tadmin "+p.admin+" {\n\t\torigins localhost:2019 "+p.admin+"\n\t}\n", 1)
	if code, answer := p.load(config); code != 200 {
		t.Fatal(answer)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"caddy", "go", "curl", "docker", "kubectl", "install", "systemctl", "xcaddy"} {
		if err := os.Symlink(filepath.Join(repo, "testdata/bin/stub"), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	pages := repoFiles(t, func(name string) bool { return path.Ext(name) == ".md" })
	commands := 0
	for _, page := range pages {
		for i, block := range shellFence.FindAllSubmatch(readFile(t, page), -1) {
			commands++
			t.Run(fmt.Sprintf("%s/%d", page, i+1), func(t *testing.T) {
				here := repo // where who reads docs/ is
				if !strings.HasPrefix(page, "docs/") {
					here = filepath.Join(repo, filepath.Dir(page))
				}
				cmd := exec.Command(bash, "-eu", "-o", "pipefail", "-c", scriptOf(string(block[1])))
				cmd.Dir = workplace(t, here)
				cmd.Env = append(os.Environ(),
					"PATH="+bin+":"+os.Getenv("PATH"), "TEST_BINARY="+self, "ADMIN="+p.admin, "NODE="+p.http, "REPO="+repo, "HERE="+here, "CURL="+curl,
					"HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir, "XDG_DATA_HOME="+cmd.Dir, "GROUPCACHE_SECRET="+exampleSecret, "PURGE_TOKEN="+exampleToken)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s\n%s", err, block[1], out[max(0, len(out)-2000):])
				}
			})
		}
	}
	if commands < 20 {
		t.Errorf("found only %d", commands)
	}
}

// scriptOf is a block as it is run: what is a program of the repository only has
// to be there, and what is left for the reader to fill in is.
func scriptOf(block string) string {
	own := regexp.MustCompile(`(?m)^(\.ci/run)\b`)
	block = own.ReplaceAllString(block, `test -x "$$REPO/$1" # `)
	return strings.ReplaceAll(block, "=…", "="+exampleSecret)
}

// workplace is a folder with all that stands in another one, where commands can
// leave what they write.
func workplace(t *testing.T, here string) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(here)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(here, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "urls.txt"), []byte("http://www.example.com/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestTryIt: what the README says that one sees.
func TestTryIt(t *testing.T) {
	readme := string(readFile(t, "README.md"))
	config := readFile(t, "Caddyfile.example")
	ports := freePorts(t, 3)
	for i, port := range []string{":8080", ":9080"} {
		config = bytes.ReplaceAll(config, []byte(port), []byte(ports[i][strings.LastIndexByte(ports[i], ':'):]))
	}
	config = bytes.Replace(config, []byte("{\n\tgroupcache"), []byte("{\n\tadmin "+ports[2]+"\n\tpersist_config off\n\tgroupcache"), 1)
	o := startOrigin(t, cached)
	p := newCluster(t, 1, o, "")[0]
	p.http, p.admin = ports[0], ports[2]
	p.config = string(config)
	p.start()
	var said []string
	for range 2 {
		r := p.request(http.MethodGet, "/hello", nil)
		r.Host = "localhost" + p.http[strings.LastIndexByte(p.http, ':'):]
		said = append(said, do(r).cacheStatus())
	}
	hit := regexp.MustCompile(`ttl=\d+`).ReplaceAllString(said[1], "ttl=…")
	for _, one := range []string{said[0], hit} {
		if !strings.Contains(readme, "Cache-Status: "+one) {
			t.Errorf("the README does not say that one sees %q", one)
		}
	}
}

// TestLinksInDocs: a page that is named is there.
func TestLinksInDocs(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, page := range repoFiles(t, func(name string) bool { return path.Ext(name) == ".md" }) {
		for _, m := range link.FindAllSubmatch(readFile(t, page), -1) {
			if _, err := os.Stat(filepath.FromSlash(path.Join(path.Dir(page), string(m[1])))); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
