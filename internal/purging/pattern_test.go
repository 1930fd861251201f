package purging

import (
	"strings"
	"testing"
)

func TestPatternsAreBounded(t *testing.T) {
	for name, expression := range map[string]string{
		"too long":              strings.Repeat("[ab]", maxExpression/4+1),
		"too many alternatives": strings.Repeat("(a|b)", 20),
		"too many options":      strings.Repeat("a?", 20),
		"too many bytes":        strings.Repeat("x", maxExpression/2) + strings.Repeat("[ab]", 10),
		"too many of a class":   "[^a]",
	} {
		if tags, err := tagsOf(expression); err == nil {
			t.Errorf("%s: %d tags", name, len(tags))
		}
	}
}

func FuzzPurgePattern(f *testing.F) {
	for _, s := range []string{"^/shop/.*", "(^|,)(a|b)(,|$)", "(a?){9}", "[^a]", "((((a|b)|c)?)?)", `\.png$`, ".*", "(?i)x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		if sets, err := urlSets(expression); err == nil {
			for _, s := range sets {
				if s.target != "" && s.target[0] != '/' {
					t.Errorf("%q names %q", expression, s.target)
				}
			}
		}
		if tags, err := tagsOf(expression); err == nil && len(tags) > maxExpansions {
			t.Errorf("%q names %d tags", expression, len(tags))
		}
	})
}
