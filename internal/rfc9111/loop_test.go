package rfc9111

import (
	"strings"
	"testing"
)

func TestInLoop(t *testing.T) {
	ours := func(id string) bool { return id == "groupcache-1" || id == "groupcache-2" }
	for name, test := range map[string]struct {
		lines []string
		group string
		want  bool
	}{
		"nothing":                   {nil, "g", false},
		"an empty line":             {[]string{""}, "g", false},
		"empty members":             {[]string{" , ,,"}, "g", false},
		"others":                    {[]string{"cloudflare; loops=1", "akamai;v=1.0;c=1, foo.example:8080"}, "g", false},
		"ours":                      {[]string{"groupcache-1; group=g"}, "g", true},
		"another member of ours":    {[]string{"groupcache-2;group=g"}, "g", true},
		"of another cluster":        {[]string{"groupcache-3; group=g"}, "g", false},
		"of another group":          {[]string{"groupcache-1; group=h"}, "g", false},
		"without a group":           {[]string{"groupcache-1"}, "g", false},
		"of several groups":         {[]string{"groupcache-1; group=h, groupcache-1; group=g"}, "g", true},
		"among others":              {[]string{"a;b=c , groupcache-1 ; x=y ; group=g;z , d"}, "g", true},
		"in another line":           {[]string{"a", "b, c", "groupcache-1; group=g"}, "g", true},
		"quoted":                    {[]string{`groupcache-1; group="g"`}, "g", true},
		"quoted with escapes":       {[]string{`groupcache-1; group="\g"`}, "g", true},
		"upper-case parameter name": {[]string{"groupcache-1; GROUP=g"}, "g", true},
		"another case of the group": {[]string{"groupcache-1; group=G"}, "g", false},
		"a group's beginning":       {[]string{"groupcache-1; group=gg"}, "g", false},
		"another id's end":          {[]string{"x-groupcache-1; group=g"}, "g", false},
		"in a quoted string":        {[]string{`a; b="x, groupcache-1; group=g"`}, "g", false},
		"after one":                 {[]string{`a; b="x, \", y", groupcache-1; group=g`}, "g", true},
		"a quote that does not end": {[]string{`a; b="x, groupcache-3; group=h`}, "g", true},
		"an escape at the end":      {[]string{`a; b="x\`}, "g", true},
		"no cdn-info at all":        {[]string{";;=;,=,;="}, "g", false},
		"a group with a space":      {[]string{LoopMember("groupcache-1", "a b")}, "a b", true},
		"a group with anything":     {[]string{LoopMember("groupcache-1", "a,\";=%\x00ü")}, "a,\";=%\x00ü", true},
		"of an escape":              {[]string{LoopMember("groupcache-1", "a b")}, "a%20b", false},
		"many members":              {[]string{strings.Repeat("a,", maxLoopMembers-1) + "b"}, "g", false},
		"too many members":          {[]string{strings.Repeat("a,", maxLoopMembers) + "b"}, "g", true},
		"long":                      {[]string{strings.Repeat("a", maxLoopBytes)}, "g", false},
		"too long":                  {[]string{strings.Repeat("a", maxLoopBytes), "b"}, "g", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := InLoop(test.lines, test.group, ours); got != test.want {
				t.Errorf("%q: %v", test.lines, got)
			}
		})
	}
}

// FuzzLoop: whatever a client has sent, what a cache adds to it is found by that cache,
// and by no other, and is good for a field.
func FuzzLoop(f *testing.F) {
	f.Add("cloudflare; loops=1", "default")
	f.Add(`a; b="x, \", y", c`, "a b")
	f.Add(`a; b="x`, "ü")
	f.Add("", "\x00\",;=%")
	f.Fuzz(func(t *testing.T, line, group string) {
		member := LoopMember("groupcache-1", group)
		if strings.ContainsFunc(member, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q", member)
		}
		is := func(id string) func(string) bool { return func(got string) bool { return got == id } }
		for _, lines := range [][]string{{line, member}, {line + ", " + member}, {member, line}, {member + "," + line}} {
			if !InLoop(lines, group, is("groupcache-1")) {
				t.Errorf("%q is not found by %s", lines, group)
			}
		}
		if len(member) >= maxLoopBytes {
			return // no chain of caches makes it: a loop, for all
		}
		if InLoop([]string{member}, group, is("groupcache-2")) || InLoop([]string{member}, group+"x", is("groupcache-1")) {
			t.Errorf("%q is found by others", member)
		}
	})
}
