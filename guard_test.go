package caddygroupcache_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// bareGoroutines returns where a file starts a goroutine that nobody has a panic
// of recovered: by a go statement, by a WaitGroup, by a timer, or by net/http, which reads
// content in one if several parts of it are asked for.
func bareGoroutines(t *testing.T, name string, source any) (found []string) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, filepath.FromSlash(name), source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, fmt.Sprintf("%s: a go statement", fset.Position(n.Pos())))
		case *ast.SelectorExpr:
			of, _ := n.X.(*ast.Ident)
			if slices.Contains([]string{"Go", "AfterFunc", "ServeContent", "ServeFile", "ServeFileFS"}, n.Sel.Name) && (of == nil || of.Name != "guard") {
				found = append(found, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), n.Sel.Name))
			}
		}
		return true
	})
	return found
}

// TestEveryGoroutineIsGuarded: no goroutine of ours can end the process by a panic.
// What may start some is package guard alone; tools and tests are left out.
func TestEveryGoroutineIsGuarded(t *testing.T) {
	files := 0
	for _, name := range repoFiles(t, func(name string) bool {
		dir := path.Dir(name)
		ours := dir == "." || strings.HasPrefix(dir, "internal/") && dir != "internal/guard" && dir != "internal/harness" && !strings.HasSuffix(dir, "test") || strings.HasPrefix(dir, "cmd/")
		return ours && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
	}) {
		files++
		for _, bare := range bareGoroutines(t, name, nil) {
			t.Errorf("%s: start it by package guard, which recovers its panic", bare)
		}
	}
	if files < 50 {
		t.Errorf("looked at %d files only", files)
	}
}

func TestBareGoroutinesAreFound(t *testing.T) {
	for _, line := range []string{
		`http.ServeContent(w, r, "", modified, content)`, "go f()", "go func() {}()", "wg.Go(f)", "s.wg.Go(f)", "start := wg.Go; start(f)",
		"time.AfterFunc(0, f)", "context.AfterFunc(ctx, f)",
	} {
		if got := bareGoroutines(t, "a.go", "package a\nfunc a() { "+line+" }"); len(got) != 1 {
			t.Errorf("%s: found %q", line, got)
		}
	}
	for _, line := range []string{"guard.Go(f)", "guard.GoWait(&wg, f)", "guard.AfterFunc(0, f)", "f()"} {
		if got := bareGoroutines(t, "a.go", "package a\nfunc a() { "+line+" }"); len(got) != 0 {
			t.Errorf("%s: found %q", line, got)
		}
	}
}
