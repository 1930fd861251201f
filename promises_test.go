package caddygroupcache_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// What this repository promises to those who work on it, as tests.

const modulePath = "github.com/caddy-groupcache/caddy-groupcache"

// repoFiles returns the files of this module that want accepts, as
// slash-separated paths.
func repoFiles(t *testing.T, want func(name string) bool) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.Type().IsRegular() && want(filepath.ToSlash(name)):
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("found no files")
	}
	return files
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A goFile is a source file as far as its imports.
type goFile struct {
	name    string
	dir     string // "." for the root
	imports []string
	ast     *ast.File
}

func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	fset := token.NewFileSet()
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasSuffix(name, ".go") }) {
		parsed, err := parser.ParseFile(fset, filepath.FromSlash(name), nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		f := goFile{name: name, dir: path.Dir(name), ast: parsed}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			f.imports = append(f.imports, imported)
		}
		files = append(files, f)
	}
	return files
}

func (f goFile) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// TestImportsGoDown: root, peer, store, rfc9111, each only on those after it;
// fill knows nothing of ours.
func TestImportsGoDown(t *testing.T) {
	allowed := map[string][]string{
		".":                 {"internal/peer", "internal/store", "internal/rfc9111", "internal/fill"},
		"internal/peer":     {"internal/store", "internal/rfc9111"},
		"internal/store":    {"internal/rfc9111"},
		"internal/rfc9111":  nil,
		"internal/fill":     nil,
		"internal/freeport": nil,
	}
	for _, f := range goFiles(t) {
		if f.isTest() {
			continue
		}
		if f.dir == "tools" || strings.HasPrefix(f.dir, "tools/") {
			continue // another module
		}
		may, known := allowed[f.dir]
		if !known && strings.HasPrefix(f.dir, "internal/") {
			t.Errorf("%s: this test does not know where package %s stands", f.name, f.dir)
		}
		for _, imported := range f.imports {
			below, ours := strings.CutPrefix(imported, modulePath+"/")
			if known && ours && !slices.Contains(may, below) {
				t.Errorf("%s imports %s", f.name, below)
			}
		}
	}
}

// TestWhoKnowsWhom: internal packages know no Caddy, no membership, and do not
// log; the net/http server of peer has to be given a log.Logger. memberlist
// stays behind membership.go and its gossip files.
func TestWhoKnowsWhom(t *testing.T) {
	for _, f := range goFiles(t) {
		internal := strings.HasPrefix(f.dir, "internal/")
		for _, imported := range f.imports {
			switch {
			case f.isTest():
			case internal && (strings.HasPrefix(imported, "go.uber.org/zap") || imported == "log/slog"),
				internal && imported == "log" && f.dir != "internal/peer":
				t.Errorf("%s imports %s: internal packages return errors and count", f.name, imported)
			case internal && strings.HasPrefix(imported, "github.com/caddyserver/"):
				t.Errorf("%s imports %s: internal packages know no Caddy", f.name, imported)
			case strings.HasPrefix(imported, "github.com/hashicorp/memberlist") && f.name != "membership.go" && !strings.HasPrefix(f.name, "gossip_"):
				t.Errorf("%s imports memberlist, which is for membership.go and its gossip files", f.name)
			case f.name == "node.go" && strings.HasPrefix(imported, "github.com/caddyserver/"):
				t.Errorf("node.go imports %s: a node knows no configuration", imported)
			case f.dir == "internal/rfc9111" && strings.Contains(imported, ".") && imported != "github.com/dunglas/httpsfv":
				t.Errorf("%s imports %s: the law needs the standard library and a parser of structured fields only", f.name, imported)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	docs := make(map[string][]string)
	for _, f := range goFiles(t) {
		if f.isTest() {
			continue
		}
		found := docs[f.dir]
		if doc := f.ast.Doc.Text(); doc != "" {
			found = append(found, doc)
		}
		docs[f.dir] = found // also of a package without any
	}
	for dir, doc := range docs {
		if len(doc) != 1 || !strings.HasPrefix(doc[0], "Package ") && !strings.HasPrefix(doc[0], "Command ") {
			t.Errorf("the package in %s has %d doc comments; it needs one that begins with Package or Command", dir, len(doc))
		}
	}
}

// TestGoMod: a replace directive would not count for those who build Caddy
// with this module.
func TestGoMod(t *testing.T) {
	mod := string(readFile(t, "go.mod"))
	if !strings.HasPrefix(mod, "module "+modulePath+"\n") {
		t.Errorf("the module is not %s", modulePath)
	}
	for _, word := range []string{"replace", "exclude", "toolchain"} {
		if regexp.MustCompile(`(?m)^` + word + `\b`).MatchString(mod) {
			t.Errorf("go.mod has a %s directive", word)
		}
	}
}

// adapt checks that a Caddyfile has no error, no warning and caddy fmt's form.
func adapt(t *testing.T, config []byte) {
	t.Helper()
	_, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(config, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Error(err)
	}
	for _, w := range warnings {
		t.Errorf("warning: %s", w)
	}
	if formatted := caddyfile.Format(config); !bytes.Equal(formatted, config) {
		t.Errorf("not in the form that caddy fmt gives it:\n%s", formatted)
	}
}

func TestExampleConfigs(t *testing.T) {
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasPrefix(path.Base(name), "Caddyfile") }) {
		t.Run(name, func(t *testing.T) { adapt(t, readFile(t, name)) })
	}
}

var fence = regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$")

// TestDocumentedConfigs: what stands in the README and in docs can be copied.
func TestDocumentedConfigs(t *testing.T) {
	for _, name := range append(repoFiles(t, func(name string) bool { return path.Dir(name) == "docs" && path.Ext(name) == ".md" }), "README.md") {
		for i, snippet := range fence.FindAllSubmatch(readFile(t, name), -1) {
			t.Run(name+"/"+strconv.Itoa(i+1), func(t *testing.T) { adapt(t, snippet[1]) })
		}
	}
}

// TestReadmeIsComplete: whatever can be set or seen is in the README.
func TestReadmeIsComplete(t *testing.T) {
	readme := string(readFile(t, "README.md"))
	mentions := func(kind, name string) {
		if !strings.Contains(readme, "`"+name+"`") && !strings.Contains(readme, "`"+name+" ") {
			t.Errorf("README.md does not mention %s `%s`", kind, name)
		}
	}
	for _, module := range []reflect.Type{reflect.TypeFor[caddygroupcache.App](), reflect.TypeFor[caddygroupcache.Handler]()} {
		for i := range module.NumField() {
			if name, _, _ := strings.Cut(module.Field(i).Tag.Get("json"), ","); name != "" {
				mentions("option", name)
			}
		}
	}
	for _, why := range rfc9111.Reasons() {
		mentions("reason", why.String())
	}
	for _, m := range regexp.MustCompile(`Pattern: "(/groupcache/[a-z]*)"`).FindAllSubmatch(readFile(t, "admin.go"), -1) {
		if !strings.Contains(readme, " "+string(m[1])+"`") && !strings.Contains(readme, " "+string(m[1])+"?") {
			t.Errorf("README.md does not mention the route %s", m[1])
		}
	}
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasPrefix(name, "command") && strings.HasSuffix(name, ".go") }) {
		for _, m := range regexp.MustCompile(`Use:\s+"([a-z]+)`).FindAllSubmatch(readFile(t, name), -1) {
			mentions("command", "caddy groupcache "+string(m[1]))
		}
	}
	told := string(readFile(t, "docs/operating.md"))
	for _, m := range regexp.MustCompile(`event[A-Z]\w+ += "([a-z_]+)"`).FindAllSubmatch(readFile(t, "events.go"), -1) {
		if !strings.Contains(told, "`"+string(m[1])+"`") {
			t.Errorf("docs/operating.md does not mention the event %s", m[1])
		}
	}
	metric := regexp.MustCompile(`\bdesc\("([a-z_]+)"|"caddy_groupcache_([a-z_]+)"`)
	for _, m := range metric.FindAllSubmatch(readFile(t, "metrics.go"), -1) {
		mentions("metric", "caddy_groupcache_"+string(m[1])+string(m[2]))
	}
}

// TestNothingLeftForLater: what is missing is an issue, not a comment.
func TestNothingLeftForLater(t *testing.T) {
	later := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	for _, name := range repoFiles(t, func(name string) bool { return path.Base(name) != "go.sum" }) {
		b := readFile(t, name)
		if bytes.IndexByte(b, 0) >= 0 {
			continue // not text
		}
		if loc := later.FindIndex(b); loc != nil {
			t.Errorf("%s:%d: %s", name, 1+bytes.Count(b[:loc[0]], []byte("\n")), b[loc[0]:loc[1]])
		}
	}
}
