package rules

import (
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TestNamesOfRules: each name is of one rule, which explanations speak of.
func TestNamesOfRules(t *testing.T) {
	rule := func(name string, codes ...int) *Rule {
		return &Rule{Name: name, Match: &caddyhttp.ResponseMatcher{StatusCode: codes}, Tags: []string{"x"}}
	}
	for what, test := range map[string]struct {
		all  []*Rule
		good bool
	}{
		"two":                     {[]*Rule{rule("a", 404), rule("b", 410)}, true},
		"none":                    {[]*Rule{rule("", 404), rule("", 410)}, true},
		"twice":                   {[]*Rule{rule("a", 404), rule("b", 410), rule("a", 410)}, false},
		"twice, of all responses": {[]*Rule{rule("a", 404), {Name: "a", NoStore: true}}, false},
		"a number":                {[]*Rule{rule("2", 404), rule("", 410)}, false},
		"its own number":          {[]*Rule{rule("1", 404), rule("", 410)}, true},
		"null":                    {[]*Rule{rule("a", 404), nil}, false}, // of JSON
	} {
		if err := Check(test.all, nil); (err == nil) != test.good {
			t.Errorf("%s: %v", what, err)
		}
	}
}
