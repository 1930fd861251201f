// Command rulecheck reads rule files as Prometheus does, by Prometheus's own
// parser: YAML with an unknown field, an expression that is no PromQL, a template
// that can't be executed and a rule that is there twice are errors. It is what
// "promtool check rules" checks, without the rest of promtool.
//
//	rulecheck FILE...
package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: rulecheck FILE...")
		os.Exit(2)
	}
	failed := false
	for _, name := range os.Args[1:] {
		rules, errs := check(name)
		for _, err := range errs {
			fmt.Fprintln(os.Stderr, err) // it begins with the name of the file
			failed = true
		}
		if len(errs) == 0 {
			fmt.Printf("%s: %d rules\n", name, rules)
		}
	}
	if failed {
		os.Exit(1)
	}
}

// check returns how many rules a file has, and all that is wrong with them.
func check(name string) (rules int, errs []error) {
	groups, errs := rulefmt.ParseFile(name, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.Default())
	if len(errs) > 0 {
		return 0, errs
	}
	seen := make(map[string]bool)
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			rules++
			metric := rule.Record
			if metric == "" {
				metric = rule.Alert
			}
			// Two rules of one name and the same labels write the same series.
			id := metric + labels.FromMap(rule.Labels).String()
			if seen[id] {
				errs = append(errs, fmt.Errorf("%s: %s is there twice with the same labels", name, metric))
			}
			seen[id] = true
		}
	}
	if rules == 0 {
		errs = append(errs, fmt.Errorf("%s: no rules", name))
	}
	return rules, errs
}
