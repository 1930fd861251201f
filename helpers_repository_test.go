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
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // what Caddyfiles name
)

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

var fence = regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$")

// funcName is a function's name, after that of its receiver's type.
func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if generic, ok := of.(*ast.IndexExpr); ok {
		of = generic.X
	}
	if name, ok := of.(*ast.Ident); ok {
		return name.Name + "." + f.Name.Name
	}
	return f.Name.Name
}

// calledName is the name of what is called, without what it is called on.
func calledName(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}
