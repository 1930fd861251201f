package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Verdicts, as the suite's own result pages have them.
const (
	pass    = "pass"    // required or optimal, as it should be
	fail    = "fail"    // required or optimal, and not so
	yes     = "yes"     // check: it behaves so
	no      = "no"      // check: it does not
	setup   = "setup"   // the test never got to what it is about
	retry   = "retry"   // the origin was asked twice for one request
	depends = "depends" // a test that this one builds upon has not passed
	broken  = "broken"  // the client got no answer, or could make nothing of it
)

// ran is what the client said, on one node, in the cluster, and on both with the
// switches, in the order of the suite.
type ran struct{ single, cluster, switched []result }

// replace takes over the results of tests that were run again.
func (r *ran) replace(again *ran) {
	for _, pair := range []struct{ old, new []result }{{r.single, again.single}, {r.cluster, again.cluster}, {r.switched, again.switched}} {
		fresh := make(map[string]result)
		for _, t := range pair.new {
			fresh[t.ID] = t
		}
		for i, t := range pair.old {
			if n, ok := fresh[t.ID]; ok {
				pair.old[i] = n
			}
		}
	}
}

// A verdict is what became of one test.
type verdict struct {
	id, section, kind string
	single, cluster   string
	switched          string // the worse one of both, with the switches
	// What the client said, where the test has not passed.
	singleMessage, clusterMessage, switchedMessage string
}

func (r *ran) verdicts() []verdict {
	single, cluster, switched := judge(r.single), judge(r.cluster), judge(r.switched)
	all := make([]verdict, len(r.single))
	for i, t := range r.single {
		all[i] = verdict{
			id: t.ID, section: t.Section, kind: t.Kind,
			single: single[t.ID], cluster: cluster[t.ID], switched: switched[t.ID],
			singleMessage: t.Message, clusterMessage: r.cluster[i].Message, switchedMessage: r.switched[i].Message,
		}
	}
	return all
}

// judge does what determineTestResult of the suite's lib/display.mjs does, but
// tells exceptions of the client from faults that a test has found.
func judge(results []result) map[string]string {
	byID := make(map[string]result)
	for _, t := range results {
		byID[t.ID] = t
	}
	verdicts := make(map[string]string)
	var of func(id string) string
	of = func(id string) string {
		if v, ok := verdicts[id]; ok {
			return v
		}
		t, ok := byID[id]
		if !ok {
			return setup // for browsers only
		}
		if v := verdictAlone(t); v == broken {
			verdicts[id] = v // whatever it depends on
			return v
		}
		verdicts[id] = depends // should they ever go in a circle
		for _, other := range t.DependsOn {
			if !good(of(other)) {
				return depends
			}
		}
		v := verdictAlone(t)
		verdicts[id] = v
		return v
	}
	for _, t := range results {
		of(t.ID)
	}
	return verdicts
}

// verdictAlone leaves out what the test depends on.
func verdictAlone(t result) string {
	check := t.Kind == "check"
	switch {
	case t.Passed && check:
		return yes
	case t.Passed:
		return pass
	case t.Error == "Setup" && t.Message == "retry":
		return retry
	case t.Error == "Setup":
		return setup
	case t.Error != "Assertion":
		return broken
	case check:
		return no
	}
	return fail
}

// good reports whether a verdict is what tests that depend on it need.
func good(v string) bool { return v == pass || v == yes }

// rank orders verdicts: a lower one is worse. Behaviour is neither.
func rank(v string) int {
	switch v {
	case pass, yes, no:
		return 2
	case fail, setup, retry, depends:
		return 1
	}
	return 0
}

// printTable prints how many tests passed, by section and kind.
func printTable(w io.Writer, verdicts []verdict) {
	kinds := []string{"required", "optimal", "check"}
	type row map[string][3]int // by kind: single, cluster, all
	total, sections := row{}, map[string]row{}
	var order []string
	for _, v := range verdicts {
		if sections[v.section] == nil {
			sections[v.section] = row{}
			order = append(order, v.section)
		}
		for _, r := range []row{total, sections[v.section]} {
			n := r[v.kind]
			if good(v.single) {
				n[0]++
			}
			if good(v.cluster) {
				n[1]++
			}
			n[2]++
			r[v.kind] = n
		}
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name string, r row) {
		fmt.Fprint(tab, name)
		for _, kind := range kinds {
			n := r[kind]
			if n[2] == 0 {
				fmt.Fprint(tab, "\t\t")
				continue
			}
			fmt.Fprintf(tab, "\t%d/%d\t%d/%d", n[0], n[2], n[1], n[2])
		}
		fmt.Fprintln(tab)
	}
	fmt.Fprintln(tab, "\trequired\t\toptimal\t\tbehaviour (yes)\t")
	fmt.Fprintln(tab, "\tone node\tthree\tone node\tthree\tone node\tthree")
	for _, name := range order {
		line(name, sections[name])
	}
	line("all", total)
	tab.Flush()
	fmt.Fprint(w, "\nwith set_cookie store, stale if_error and ttl 0s 400, on one node and on three:")
	for _, kind := range kinds {
		passed, all := 0, 0
		for _, v := range verdicts {
			if v.kind == kind {
				all++
				if good(v.switched) {
					passed++
				}
			}
		}
		fmt.Fprintf(w, " %s %d/%d", kind, passed, all)
	}
	fmt.Fprintln(w)
}
