package caddygroupcache_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	caddygroupcache "github.com/caddy-groupcache/caddy-groupcache"
	"github.com/caddy-groupcache/caddy-groupcache/internal/rfc9111"
)

// What this repository promises to those who work on it, as tests.

// TestImportsGoDown: root, peer, store, rfc9111, each only on those after it;
// fill and guard know nothing of ours.
func TestImportsGoDown(t *testing.T) {
	allowed := map[string][]string{
		"internal/node":              {"internal/peer", "internal/store", "internal/rfc9111", "internal/fill", "internal/guard", "internal/span"},
		"internal/report":            {"internal/node", "internal/peer", "internal/store", "internal/guard"},
		"command":                    {"internal/dashboard", "internal/explain", "internal/gossip", "internal/guard", "internal/inbound", "internal/purging", "internal/report", "internal/warm"},
		"internal/cachestatus":       nil,
		"internal/storing":           {"internal/inbound", "internal/node", "internal/store", "internal/rfc9111"},
		"internal/span":              nil,
		"internal/ratelimit":         nil,
		"routes":                     {"internal/inbound", "internal/store", "internal/rfc9111"},
		"events":                     {"internal/gossip", "internal/guard", "internal/store"},
		"options":                    {"internal/gossip"},
		"rules":                      {"internal/storing", "internal/rfc9111"},
		".":                          {"command", "events", "options", "routes", "rules", "internal/gossip", "internal/peer", "internal/store", "internal/rfc9111", "internal/fill", "internal/inbound", "internal/front", "internal/explain", "internal/report", "internal/cachestatus", "internal/storing", "internal/purging", "internal/warm", "internal/dashboard", "internal/guard", "internal/node", "internal/span", "internal/delivery", "internal/express"},
		"internal/delivery":          {"internal/node", "internal/peer", "internal/store", "internal/rfc9111", "internal/fill"},
		"internal/explain":           {"internal/node", "internal/peer", "internal/store", "internal/storing", "internal/rfc9111", "internal/guard"},
		"internal/gossip":            {"internal/peer", "internal/guard", "internal/ratelimit"},
		"internal/gossip/gossiptest": nil,
		"internal/peer":              {"internal/store", "internal/rfc9111", "internal/guard"},
		"internal/store":             {"internal/rfc9111", "internal/guard"},
		"internal/guard":             nil,
		"internal/rfc9111":           nil,
		"internal/fill":              nil,
		"internal/inbound":           {"internal/store", "internal/rfc9111"},
		"internal/front":             {"internal/rfc9111"},
		"internal/dashboard":         nil,
		"internal/purging":           {"internal/node", "internal/peer", "internal/inbound", "internal/store", "internal/rfc9111", "internal/ratelimit"},
		"internal/warm":              {"internal/guard", "internal/rfc9111"},
		"internal/express":           {"internal/store", "internal/guard"},
		"internal/harness":           nil,
		"internal/seed":              nil,
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

// TestWhoKnowsWhom: internal packages know no Caddy and no membership, and do not
// log; the net/http server of peer has to be given a log.Logger. memberlist and
// its log stay in internal/gossip.
func TestWhoKnowsWhom(t *testing.T) {
	for _, f := range goFiles(t) {
		internal := strings.HasPrefix(f.dir, "internal/")
		for _, imported := range f.imports {
			switch {
			case f.isTest():
			case internal && f.dir != "internal/gossip" && (strings.HasPrefix(imported, "go.uber.org/zap") || imported == "log/slog"),
				internal && imported == "log" && f.dir != "internal/peer" && f.dir != "internal/gossip":
				t.Errorf("%s imports %s: internal packages return errors and count", f.name, imported)
			case internal && strings.HasPrefix(imported, "github.com/caddyserver/"):
				t.Errorf("%s imports %s: internal packages know no Caddy", f.name, imported)
			case strings.HasPrefix(imported, "github.com/hashicorp/memberlist") && f.dir != "internal/gossip":
				t.Errorf("%s imports memberlist, which is for internal/gossip", f.name)
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

// TestModules: laboratories and tools are modules of their own, so that those who
// build Caddy with this one get neither their code nor their dependencies. The
// laboratories are run from here, which takes a workspace; tools stays out of it,
// since a workspace has one version of each dependency.
func TestModules(t *testing.T) {
	work := string(readFile(t, "go.work"))
	for _, dir := range []string{"bench", "browser", "conformance", "lab", "tools"} {
		if mod := string(readFile(t, dir+"/go.mod")); !strings.HasPrefix(mod, "module "+modulePath+"/"+dir+"\n") {
			t.Errorf("the module in %s is not %s/%[1]s", dir, modulePath)
		}
		if joined := strings.Contains(work, "\t./"+dir+"\n"); joined != (dir != "tools") {
			t.Errorf("%s is in go.work: %v", dir, joined)
		}
	}
}

func TestExampleConfigs(t *testing.T) {
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasPrefix(path.Base(name), "Caddyfile") }) {
		t.Run(name, func(t *testing.T) { adapt(t, readFile(t, name)) })
	}
}

// TestDocumentedConfigs: what stands in the README and in docs can be copied.
func TestDocumentedConfigs(t *testing.T) {
	for _, name := range append(repoFiles(t, func(name string) bool { return strings.HasPrefix(name, "docs/") && path.Ext(name) == ".md" }), "README.md") {
		for i, snippet := range fence.FindAllSubmatch(readFile(t, name), -1) {
			t.Run(name+"/"+strconv.Itoa(i+1), func(t *testing.T) { adapt(t, snippet[1]) })
		}
	}
}

// TestReadmeIsShort: a page that is read whole.
func TestReadmeIsShort(t *testing.T) {
	if n := len(readFile(t, "README.md")); n > 9<<10 {
		t.Errorf("README.md has %d bytes: more than 9 KiB belongs into docs", n)
	}
}

// TestReferenceIsComplete: whatever can be set or seen is in docs/reference.md.
func TestReferenceIsComplete(t *testing.T) {
	reference := string(readFile(t, "docs/reference.md"))
	mentions := func(kind, name string) {
		if !strings.Contains(reference, "`"+name+"`") && !strings.Contains(reference, "`"+name+" ") {
			t.Errorf("docs/reference.md does not mention %s `%s`", kind, name)
		}
	}
	for _, module := range []reflect.Type{reflect.TypeFor[caddygroupcache.App](), reflect.TypeFor[caddygroupcache.Handler]()} {
		for i := range module.NumField() {
			if name, _, _ := strings.Cut(module.Field(i).Tag.Get("json"), ","); name != "" {
				mentions("option", name)
			}
		}
	}
	for option := range reflect.TypeFor[caddygroupcache.PurgeHandler]().Fields() {
		name, _, _ := strings.Cut(option.Tag.Get("json"), ",")
		if name != "" && !strings.Contains(string(readFile(t, "docs/purge.md")), `"`+name+`": `) {
			t.Errorf("docs/purge.md does not mention the option %s of groupcache_purge", name)
		}
	}
	for _, why := range rfc9111.Reasons() {
		mentions("reason", why.String())
	}
	for _, m := range regexp.MustCompile(`Pattern: "(/groupcache/[a-z]*)"`).FindAllSubmatch(readFile(t, "admin.go"), -1) {
		if !strings.Contains(reference, " "+string(m[1])+"`") && !strings.Contains(reference, " "+string(m[1])+"?") {
			t.Errorf("docs/reference.md does not mention the route %s", m[1])
		}
	}
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasPrefix(name, "command/") && strings.HasSuffix(name, ".go") }) {
		for _, m := range regexp.MustCompile(`Use:\s+"([a-z]+)`).FindAllSubmatch(readFile(t, name), -1) {
			mentions("command", "caddy groupcache "+string(m[1]))
		}
	}
	told := string(readFile(t, "docs/operating.md"))
	for _, m := range regexp.MustCompile(`(?m)^	\w+ += "([a-z_]+)"$`).FindAllSubmatch(readFile(t, "events/events.go"), -1) {
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
	for _, name := range repoFiles(t, func(name string) bool { return path.Ext(name) != ".sum" }) {
		b := readFile(t, name)
		if bytes.IndexByte(b, 0) >= 0 {
			continue // not text
		}
		if loc := later.FindIndex(b); loc != nil {
			t.Errorf("%s:%d: %s", name, 1+bytes.Count(b[:loc[0]], []byte("\n")), b[loc[0]:loc[1]])
		}
	}
}

// TestTestsCanBeFound: a test stands in a short file that is named after what it tests,
// and what several tests share stands in files called helpers.
func TestTestsCanBeFound(t *testing.T) {
	const maxFile, maxFunction = 600, 80 // lines
	isTest := regexp.MustCompile(`^(Test|Fuzz|Benchmark|Example)`)
	isShared := regexp.MustCompile(`^(helpers(_\w+)?|export|race|norace)_test\.go$`)
	fset := token.NewFileSet()
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasSuffix(name, "_test.go") }) {
		f, err := parser.ParseFile(fset, filepath.FromSlash(name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if n := fset.File(f.FileStart).LineCount(); n > maxFile {
			t.Errorf("%s has %d lines: move tests to another file, named after what they test, until it has %d", name, n, maxFile)
		}
		tests := 0
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			begin, end := fset.Position(fn.Pos()), fset.Position(fn.End())
			if n := end.Line - begin.Line + 1; n > maxFunction {
				t.Errorf("%s:%d: %s has %d lines: make its table a variable, and its parts functions, until it has %d", name, begin.Line, fn.Name.Name, n, maxFunction)
			}
			if fn.Recv == nil && fn.Name.Name != "TestMain" && isTest.MatchString(fn.Name.Name) {
				tests++
			}
		}
		if shared := isShared.MatchString(path.Base(name)); shared != (tests == 0) {
			t.Errorf("%s has %d tests: what tests share stands in helpers_test.go or helpers_WHAT_test.go, and tests do not", name, tests)
		}
	}
}

// TestTypesAreSmall: of a type with more methods, some belong together and are a type of
// their own.
func TestTypesAreSmall(t *testing.T) {
	const most = 25
	methods := make(map[string]int)
	for _, name := range repoFiles(t, func(name string) bool {
		return strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
	}) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil {
				of, _, _ := strings.Cut(funcName(f), ".")
				methods[path.Dir(name)+": "+of]++
			}
		}
	}
	for of, n := range methods {
		if n > most {
			t.Errorf("%s has %d methods, at most %d", of, n, most)
		}
	}
}

// TestRandomTestsHaveASeed: what fails once can be seen again. Random numbers of the
// package math/rand have no seed that a test could print.
func TestRandomTestsHaveASeed(t *testing.T) {
	fset := token.NewFileSet()
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasSuffix(name, "_test.go") }) {
		f, err := parser.ParseFile(fset, filepath.FromSlash(name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return strings.HasPrefix(i.Path.Value, `"math/rand`) }) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fn, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if of, ok := fn.X.(*ast.Ident); ok && of.Name == "rand" && !strings.HasPrefix(fn.Sel.Name, "New") {
				t.Errorf("%s: rand.%s has no seed: use seed.Of(t).Rand() of internal/seed", fset.Position(call.Pos()), fn.Sel.Name)
			}
			return true
		})
	}
}
