package caddygroupcache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// A structType is what a struct declares, as the source has it.
type structType struct {
	fields   map[string]bool
	methods  map[string]bool
	embedded []string // structs of this module
}

// TestNoFieldHidesAnother: a field on a request's path has no name that an embedded struct
// has, or x.failed is one thing in a method of the one struct, and another thing in a method
// of the other.
func TestNoFieldHidesAnother(t *testing.T) {
	structs := structTypes(t)
	for of, s := range structs {
		if dir, _, _ := strings.Cut(of, ":"); dir != "." && dir != "internal/node" {
			continue
		}
		for _, inner := range s.embedded {
			for name := range promoted(structs, inner) {
				if s.fields[name] {
					t.Errorf("%s.%s hides that of %s", of, name, inner)
				}
			}
		}
	}
}

// promoted returns the names that a struct gives to those that embed it.
func promoted(structs map[string]*structType, of string) map[string]bool {
	all := make(map[string]bool)
	s := structs[of]
	if s == nil {
		return all
	}
	maps.Copy(all, s.fields)
	maps.Copy(all, s.methods)
	for _, inner := range s.embedded {
		maps.Copy(all, promoted(structs, inner))
	}
	return all
}

// structTypes returns the product's structs by package and name.
func structTypes(t *testing.T) map[string]*structType {
	t.Helper()
	structs := make(map[string]*structType)
	find := func(name string) *structType {
		if structs[name] == nil {
			structs[name] = &structType{fields: make(map[string]bool), methods: make(map[string]bool)}
		}
		return structs[name]
	}
	for _, name := range repoFiles(t, func(name string) bool { return strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") }) {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		packages := map[string]string{"": path.Dir(name)} // by the name that the file has for them
		for _, spec := range file.Imports {
			if below, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), modulePath+"/"); ours {
				packages[path.Base(below)] = below
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if of, method, ok := strings.Cut(funcName(n), "."); ok {
					find(path.Dir(name) + ":" + of).methods[method] = true
				}
			case *ast.TypeSpec:
				if fields, ok := n.Type.(*ast.StructType); ok {
					find(path.Dir(name)+":"+n.Name.Name).add(fields.Fields.List, packages)
				}
			}
			return true
		})
	}
	return structs
}

// add adds the fields of a struct.
func (s *structType) add(fields []*ast.Field, packages map[string]string) {
	for _, f := range fields {
		for _, name := range f.Names {
			s.fields[name.Name] = true
		}
		if len(f.Names) > 0 {
			continue
		}
		of := f.Type
		if star, ok := of.(*ast.StarExpr); ok {
			of = star.X
		}
		switch of := of.(type) {
		case *ast.Ident:
			s.embedded = append(s.embedded, packages[""]+":"+of.Name)
		case *ast.SelectorExpr:
			if below, ours := packages[of.X.(*ast.Ident).Name]; ours {
				s.embedded = append(s.embedded, below+":"+of.Sel.Name)
			}
		}
	}
}
