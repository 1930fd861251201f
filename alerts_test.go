//go:build unix

package caddygroupcache_test

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestAlertRules: each rule of docs/alerts.yaml has a summary and uses metrics
// that docs/reference.md lists.
func TestAlertRules(t *testing.T) {
	reference := string(readFile(t, "docs/reference.md"))
	metric := regexp.MustCompile(`caddy_groupcache_[a-z_]+`)
	rules := list(objects(t, "docs/alerts.yaml")[0], "groups", 0, "rules")
	if len(rules) == 0 {
		t.Error("there are no rules")
	}
	for _, rule := range rules {
		names := metric.FindAllString(fmt.Sprint(at(rule, "expr")), -1)
		if len(names) == 0 || at(rule, "annotations", "summary") == nil {
			t.Errorf("%v has %d metrics and the summary %v", at(rule, "alert"), len(names), at(rule, "annotations", "summary"))
		}
		for _, name := range names {
			if !strings.Contains(reference, "`"+name+"`") {
				t.Errorf("%v: no metric is called %s", at(rule, "alert"), name)
			}
		}
	}
}

// TestAlertRulesForPromtool: Prometheus reads the rules. tools/rulecheck, which
// .ci/run calls, has the same parser and needs no promtool.
func TestAlertRulesForPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("LEFT OUT: the check of the alert rules needs promtool, of the package prometheus")
	}
	if out, err := exec.Command(promtool, "check", "rules", "docs/alerts.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
