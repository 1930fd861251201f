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
	"slices"
	"strings"
	"testing"
)

var (
	shellFence  = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	inlineCode  = regexp.MustCompile("`([^`\n]+)`")
	commandLine = regexp.MustCompile(`^(?:[A-Z_]+=\S+ |sudo |\$ )*(?:` + strings.Join(documentedPrograms, "|") + `) [a-z./-]`)
)

// documentedPrograms are those that pages call, under the names by which they call the
// stub.
var documentedPrograms = []string{"caddy", "go", "curl", "docker", "kubectl", "git", "helm", "install", "systemctl", "xcaddy"}

// commandsIn returns the commands of a page: fenced ones, and, in the README and in recipes,
// those in the text.
func commandsIn(t *testing.T, page string) (all []string) {
	text := readFile(t, page)
	for _, block := range shellFence.FindAllSubmatch(text, -1) {
		all = append(all, string(block[1]))
	}
	if page != "README.md" && !strings.HasPrefix(page, "docs/recipes/") {
		return all
	}
	for _, m := range inlineCode.FindAllSubmatch(text, -1) {
		if commandLine.Match(m[1]) {
			all = append(all, strings.ReplaceAll(string(m[1]), "<url>", "http://www.example.com/")+"\n")
		}
	}
	return all
}

// TestCommandsAreFenced: no command stands where TestDocumentedCommands does not find it.
func TestCommandsAreFenced(t *testing.T) {
	for _, page := range repoFiles(t, func(name string) bool { return path.Ext(name) == ".md" }) {
		language, within := "", false
		for line := range strings.Lines(string(readFile(t, page))) {
			line = strings.TrimRight(line, "\n")
			if mark, ok := strings.CutPrefix(strings.TrimSpace(line), "```"); ok {
				within = !within
				language = mark
				publishes := language == "shell" && page == "docs/releasing.md" // by the maintainer's keys
				if within && !publishes && !slices.Contains([]string{"sh", "caddyfile", "text", "yaml", "php", ""}, language) {
					t.Errorf("%s: a block of %q: commands are \"sh\", all else caddyfile, text, yaml or php", page, language)
				}
				continue
			}
			isCode := within && language != "sh" && language != "shell" || !within && strings.HasPrefix(line, "    ")
			if line = strings.TrimSpace(line); isCode && commandLine.MatchString(line) && !strings.Contains(line, "<") {
				t.Errorf("%s: a command outside of a block of \"sh\": %s", page, line)
			}
		}
	}
}

// TestProgramsAreRun: a program of the repository that the README or a recipe has people
// run is one with tests, or one that .ci/run runs.
func TestProgramsAreRun(t *testing.T) {
	run := string(readFile(t, ".ci/run"))
	program := regexp.MustCompile(`\bgo (?:run|build) \./(\S+)`)
	for _, page := range repoFiles(t, func(name string) bool { return path.Ext(name) == ".md" }) {
		for _, command := range commandsIn(t, page) {
			for _, m := range program.FindAllStringSubmatch(command, -1) {
				tests, err := filepath.Glob(filepath.Join(m[1], "*_test.go"))
				if err != nil || len(tests) == 0 && !strings.Contains(run, "./"+m[1]) {
					t.Errorf("%s: nobody runs %s", page, m[0])
				}
			}
		}
	}
}

// TestDocumentedCommands runs every command of README, docs and examples as it
// stands, in a shell. testdata/bin/stub tells what becomes of each.
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
	for _, name := range documentedPrograms {
		if err := os.Symlink(filepath.Join(repo, "testdata/bin/stub"), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	pages := repoFiles(t, func(name string) bool { return path.Ext(name) == ".md" })
	commands := 0
	for _, page := range pages {
		for i, block := range commandsIn(t, page) {
			commands++
			t.Run(fmt.Sprintf("%s/%d", page, i+1), func(t *testing.T) {
				here := repo // where who reads docs/ is
				if !strings.HasPrefix(page, "docs/") {
					here = filepath.Join(repo, filepath.Dir(page))
				}
				cmd := exec.Command(bash, "-eu", "-o", "pipefail", "-c", scriptOf(block))
				cmd.Dir = workplace(t, here, page)
				cmd.Env = append(os.Environ(),
					"PATH="+bin+":"+os.Getenv("PATH"), "TEST_BINARY="+self, "ADMIN="+p.admin, "NODE="+p.http, "REPO="+repo, "HERE="+here, "CURL="+curl,
					"HOME="+cmd.Dir, "XDG_CONFIG_HOME="+cmd.Dir, "XDG_DATA_HOME="+cmd.Dir, "GROUPCACHE_SECRET="+exampleSecret, "PURGE_TOKEN="+exampleToken)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s\n%s", err, block, out[max(0, len(out)-2000):])
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
// leave what they write. A page with a config but without a Caddyfile beside it means
// its first config by that name.
func workplace(t *testing.T, here, page string) string {
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
	if m := fence.FindSubmatch(readFile(t, page)); m != nil {
		if _, err := os.Stat(filepath.Join(dir, "Caddyfile")); err != nil {
			if err := os.WriteFile(filepath.Join(dir, "Caddyfile"), m[1], 0o600); err != nil {
				t.Fatal(err)
			}
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
