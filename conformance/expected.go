package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

const expectedFile = home + "/expected.json"

// expectation is one line of expected.json.
type expectation struct {
	ID      string `json:"id"`
	Kind    string `json:"kind"`
	Single  string `json:"single"`
	Cluster string `json:"cluster"`
	// Switched is the verdict with the switches, where it is another one.
	Switched string `json:"switched,omitempty"`
	// Why says, for a required or optimal test that does not pass, why that is
	// right, or that it is not implemented yet.
	Why string `json:"why,omitempty"`
}

// lacksReason reports whether a test that does not pass is left unexplained.
func (e expectation) lacksReason() bool {
	return e.Kind != "check" && !(e.Single == pass && e.Cluster == pass) && e.Why == ""
}

// expectations are in the order of the suite.
type expectations []expectation

func loadExpected(name string) (expectations, error) {
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // -update makes it
	}
	if err != nil {
		return nil, err
	}
	var e expectations
	if err := json.Unmarshal(content, &e); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return e, nil
}

// save writes one line for each test, so that a change is easy to see.
func (e expectations) save(name string) error {
	var b bytes.Buffer
	b.WriteString("[\n")
	for i, test := range e {
		var line bytes.Buffer
		enc := json.NewEncoder(&line)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(test); err != nil {
			return err
		}
		b.Write(bytes.TrimSpace(line.Bytes()))
		if i < len(e)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("]\n")
	return os.WriteFile(name, b.Bytes(), 0o644)
}

func (e expectations) byID() map[string]expectation {
	m := make(map[string]expectation, len(e))
	for _, test := range e {
		m[test.ID] = test
	}
	return m
}

// updated returns what is to be expected from now on. Reasons stay, except where
// there is nothing left to give one for.
func (e expectations) updated(verdicts []verdict) expectations {
	known := e.byID()
	var u expectations
	for _, v := range verdicts {
		test := expectation{ID: v.id, Kind: v.kind, Single: v.single, Cluster: v.cluster, Why: known[v.id].Why}
		if v.switched != v.single || v.switched != v.cluster {
			test.Switched = v.switched
		}
		if good(v.single) && good(v.cluster) {
			test.Why = ""
		}
		u = append(u, test)
	}
	return u
}

// A change is a verdict that is not the expected one.
type change struct {
	id, where string
	was, is   string
	message   string
}

// A difference is how verdicts differ from what is expected.
type difference struct {
	worse, better, changed []change
	unexplained            []string // required or optimal, not passing, without a reason
}

func (e expectations) compare(verdicts []verdict) difference {
	var d difference
	known := e.byID()
	for _, v := range verdicts {
		was := known[v.id]
		d.add(change{v.id, "one node", was.Single, v.single, v.singleMessage})
		d.add(change{v.id, "three nodes", was.Cluster, v.cluster, v.clusterMessage})
		d.add(change{v.id, "with switches", cmp.Or(was.Switched, was.Cluster), v.switched, v.switchedMessage})
		delete(known, v.id)
	}
	for _, test := range e {
		if _, gone := known[test.ID]; gone {
			d.add(change{id: test.ID, where: "one node", was: test.Single, is: "not run"})
		}
		if test.lacksReason() {
			d.unexplained = append(d.unexplained, test.ID)
		}
	}
	return d
}

// add sorts a change in. A test that nothing is known of has to be good, and to
// be written down all the same.
func (d *difference) add(c change) {
	if c.was == "" {
		c.was = "unknown"
	}
	switch {
	case c.is == c.was:
	case c.was == "unknown", rank(c.is) < rank(c.was):
		d.worse = append(d.worse, c)
	case rank(c.is) > rank(c.was):
		d.better = append(d.better, c)
	default:
		d.changed = append(d.changed, c)
	}
}

func (d difference) print(w io.Writer, unsteady []string) {
	for _, group := range []struct {
		title   string
		changes []change
	}{{"worse than expected", d.worse}, {"better than expected; -update writes it down", d.better}, {"other than expected; -update writes it down", d.changed}} {
		if len(group.changes) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", group.title)
		for _, c := range group.changes {
			fmt.Fprintf(w, "  %s, %s: %s, was %s", c.id, c.where, c.is, c.was)
			if c.message != "" {
				fmt.Fprintf(w, " (%s)", c.message)
			}
			fmt.Fprintln(w)
		}
	}
	printList(w, "as expected only when run again", unsteady)
	printList(w, "not passing, and "+expectedFile+" does not say why", d.unexplained)
}

func printList(w io.Writer, title string, ids []string) {
	if len(ids) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, id := range ids {
		fmt.Fprintln(w, " ", id)
	}
}

// printReasons prints every required or optimal test that does not pass.
func (e expectations) printReasons(w io.Writer, verdicts []verdict) {
	known := e.byID()
	for _, kind := range []string{"required", "optimal"} {
		fmt.Fprintf(w, "\n%s, not passing:\n", kind)
		for _, v := range verdicts {
			if v.kind != kind || good(v.single) && good(v.cluster) {
				continue
			}
			fmt.Fprintf(w, "  %s: %s, %s: %s\n", v.id, v.single, v.cluster, known[v.id].Why)
			if v.singleMessage != "" {
				fmt.Fprintf(w, "      one node: %s\n", v.singleMessage)
			}
			if v.clusterMessage != "" && v.clusterMessage != v.singleMessage {
				fmt.Fprintf(w, "      three nodes: %s\n", v.clusterMessage)
			}
			if good(v.switched) {
				fmt.Fprintln(w, "      passes with the switches")
			}
		}
	}
}

// ids returns the tests of some changes, each once.
func ids(changes []change) []string {
	seen := make(map[string]bool)
	var list []string
	for _, c := range changes {
		if !seen[c.id] {
			seen[c.id] = true
			list = append(list, c.id)
		}
	}
	return list
}

// steadied returns the tests that were in doubt and are no longer.
func steadied(doubtful, worse []change) []string {
	still := make(map[string]bool)
	for _, c := range worse {
		still[c.id] = true
	}
	var list []string
	for _, id := range ids(doubtful) {
		if !still[id] {
			list = append(list, id)
		}
	}
	return list
}
