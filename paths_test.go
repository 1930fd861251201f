package caddygroupcache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/design.md tells three paths by the names of functions, with an arrow from each to
// those that it calls. The tests here read the source: whoever moves a path has to tell it
// anew.

// mostRootFiles is how many files of the root the functions of a path may be in.
var mostRootFiles = map[string]int{"Local hit": 5, "Remote hit": 8, "Miss": 8}

const designWords = 1500 // that docs/design.md may have

var (
	pathHeading = regexp.MustCompile(`(?m)^### (.+)$`)
	codeName    = regexp.MustCompile("`([\\w.]+)`")
)

// TestPathsAreAsTold: each function that an arrow leads to is called by the one before.
func TestPathsAreAsTold(t *testing.T) {
	text := readDesign(t)
	calls, files := callGraph(t)
	headings := pathHeading.FindAllStringSubmatchIndex(text, -1)
	told := 0
	for i, h := range headings {
		name := text[h[2]:h[3]]
		most, isPath := mostRootFiles[name]
		if !isPath {
			continue
		}
		told++
		end := len(text)
		if i+1 < len(headings) {
			end = headings[i+1][0]
		}
		if next := strings.Index(text[h[1]:end], "\n## "); next >= 0 {
			end = h[1] + next
		}
		inRoot := make(map[string]bool)
		for line := range strings.Lines(text[h[1]:end]) {
			if !strings.HasPrefix(line, "- ") {
				continue
			}
			for _, f := range checkArrows(t, name, line, calls) {
				if file := files[f]; path.Dir(file) == "." {
					inRoot[file] = true
				}
			}
		}
		if len(inRoot) > most {
			t.Errorf("%s: %d files of the root, at most %d: %v", name, len(inRoot), most, slices.Sorted(maps.Keys(inRoot)))
		}
		t.Logf("%s: %v", name, slices.Sorted(maps.Keys(inRoot)))
	}
	if told != len(mostRootFiles) {
		t.Errorf("docs/design.md tells %d of %d paths", told, len(mostRootFiles))
	}
}

// TestDesignNamesWhatThereIs: a method or field of a type on a request's path that the
// design's pages name exists.
func TestDesignNamesWhatThereIs(t *testing.T) {
	structs := structTypes(t)
	named := 0
	for _, page := range repoFiles(t, func(name string) bool { return strings.HasPrefix(name, "docs/design") }) {
		for _, m := range codeName.FindAllStringSubmatch(string(readFile(t, page)), -1) {
			of, name, ok := strings.Cut(m[1], ".")
			for _, dir := range []string{".", "internal/node"} {
				if s := structs[dir+":"+of]; ok && s != nil && name != "go" { // a file
					named++
					if !s.fields[name] && !s.methods[name] {
						t.Errorf("%s: %s has no %s", page, of, name)
					}
				}
			}
		}
	}
	if named < 50 {
		t.Errorf("found only %d names", named)
	}
}

// checkArrows checks the arrows of a line, and returns the functions in it.
func checkArrows(t *testing.T, where, line string, calls map[string]map[string]bool) (all []string) {
	t.Helper()
	var before string
	for i, side := range strings.Split(line, "→") {
		if i > 0 {
			side, _, _ = strings.Cut(side, ":") // what follows explains
		}
		var names []string
		for _, m := range codeName.FindAllStringSubmatch(side, -1) {
			if _, known := calls[m[1]]; !known {
				if i > 0 || strings.Contains(line, "→") {
					t.Errorf("%s: there is no function %s", where, m[1])
				}
				continue
			}
			names = append(names, m[1])
			_, method, ok := strings.Cut(m[1], ".")
			if !ok {
				method = m[1]
			}
			if i > 0 && before != "" && !calls[before][method] {
				t.Errorf("%s: %s does not call %s", where, before, m[1])
			}
		}
		if len(names) > 0 {
			before = names[len(names)-1]
		}
		all = append(all, names...)
	}
	return all
}

// TestDesignIsShort: it is to be read in ten minutes.
func TestDesignIsShort(t *testing.T) {
	if n := len(strings.Fields(readDesign(t))); n > designWords {
		t.Errorf("docs/design.md has %d words, at most %d: move details to docs/design/", n, designWords)
	}
}

func readDesign(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// callGraph returns the names that each function of the root and of internal/node calls,
// without their receivers, and the file that it is in.
func callGraph(t *testing.T) (calls map[string]map[string]bool, files map[string]string) {
	t.Helper()
	calls, files = make(map[string]map[string]bool), make(map[string]string)
	for _, name := range repoFiles(t, func(name string) bool {
		return (path.Dir(name) == "." || path.Dir(name) == "internal/node") && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
	}) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			own := funcName(f)
			if f.Recv == nil && path.Dir(name) != "." {
				own = path.Base(path.Dir(name)) + "." + own
			}
			calls[own], files[own] = make(map[string]bool), name
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					calls[own][calledName(call)] = true
				}
				return true
			})
		}
	}
	return calls, files
}
