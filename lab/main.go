//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-groupcache/caddy-groupcache/internal/harness"
)

func main() {
	run := flag.String("run", "", "only the faults whose name matches this regular expression")
	list := flag.Bool("list", false, "list the faults")
	caddy := flag.String("caddy", "", "the Caddy to break; default: one built from this checkout")
	soakFor := flag.Duration("soak", 10*time.Minute, "how long everything lasts")
	rest := flag.Duration("rest", 10*time.Minute, "how long it is quiet after the one restart")
	flag.Parse()
	chosen, err := choose(*run)
	switch {
	case err != nil:
	case *list:
		fmt.Println(names(chosen))
	default:
		err = runAll(os.Stdout, lab{caddy: *caddy, soak: *soakFor, rest: *rest}, chosen)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func choose(pattern string) (chosen []fault, err error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	for _, f := range faults {
		if wanted.MatchString(f.name) {
			chosen = append(chosen, f)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no fault has %q in its name", pattern)
	}
	return chosen, nil
}

// A lab has what all trials need.
type lab struct {
	caddy  string // the binary
	module string // the root of the checkout
	dir    string // for what need not stay
	quick  bool
	soak   time.Duration
	rest   time.Duration
}

func newLab(caddy, dir string) (l *lab, err error) {
	l = &lab{caddy: caddy, dir: dir}
	if l.module, err = harness.Checkout(); err == nil && caddy == "" {
		l.caddy, err = l.build("caddy")
	}
	return l, err
}

// An edit is another text in one place of a file, or a file more.
type edit struct{ file, old, changed string }

// build builds Caddy, from sources with some edits. So faults that need another
// program need nothing of the one that is tested.
func (l *lab) build(name string, edits ...edit) (string, error) {
	binary := filepath.Join(l.dir, name)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	replace := make(map[string]string)
	for i, e := range edits {
		var source []byte
		if e.old != "" {
			var err error
			if source, err = os.ReadFile(e.file); err != nil {
				return "", err
			}
			if bytes.Count(source, []byte(e.old)) != 1 {
				return "", fmt.Errorf("%s does not have %q once", e.file, e.old)
			}
		}
		replace[e.file] = fmt.Sprintf("%s-%d.go", binary, i)
		if err := os.WriteFile(replace[e.file], bytes.Replace(source, []byte(e.old), []byte(e.changed), 1), 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(binary+".json", overlay, 0o600); err != nil {
		return "", err
	}
	return binary, harness.Build(context.Background(), binary, "-overlay", binary+".json")
}

// buildSkewed builds a Caddy whose clock is wrong by LAB_SKEW seconds, until it is
// LAB_SKEW_UNTIL in seconds since 1970, if that is given. Nothing from
// outside can do that to it: Go asks the kernel for the time and not a library,
// and namespaces have no wall clock of their own.
func (l *lab) buildSkewed() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("looking for Go's sources: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	return l.build("skewed",
		edit{filepath.Join(dir, "time.go"), now, now + "\tif sec < labSkewUntil {\n\t\tsec += labSkew\n\t}\n"},
		edit{filepath.Join(dir, "lab_skew.go"), "", `package time

import "syscall"

func labEnv(name string, none int64) int64 {
	value, ok := syscall.Getenv(name)
	if !ok {
		return none
	}
	n, _ := atoi(value)
	return int64(n)
}

var labSkew, labSkewUntil = labEnv("LAB_SKEW", 0), labEnv("LAB_SKEW_UNTIL", 1<<62)
`})
}

// buildVersion builds a Caddy that speaks another version of the peer protocol.
func (l *lab) buildVersion() (string, error) {
	const version = "const protocolVersion = "
	return l.build("version", edit{filepath.Join(l.module, "membership.go"), version, version + "100 + "})
}

// runAll tries faults and prints what came of them.
func runAll(w io.Writer, with lab, chosen []fault) error {
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	go func() {
		<-interrupted
		os.RemoveAll(dir)
		os.Exit(1) // the nodes end with this process
	}()
	l, err := newLab(with.caddy, dir)
	if err != nil {
		return err
	}
	l.soak, l.rest = with.soak, with.rest
	fmt.Fprintf(w, "%s, %d processors, %s, %s\n\n", machine(), runtime.NumCPU(), runtime.Version(), time.Now().Format(time.DateOnly))
	fmt.Fprintln(w, "| fault | requests | errors | wrong | outdated | over 1 s | slowest | fetches a page | as before after | outdated until | left over | |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|---|---|")
	bad, leftOut := 0, ""
	var remarks []string
	for _, f := range chosen {
		if f.onNetwork && leftOut == "" {
			leftOut = cmp.Or(canNetwork(), "no")
		}
		if f.onNetwork && leftOut != "no" {
			fmt.Fprintf(w, "| %s | left out |\n", f.name)
			continue
		}
		r, err := l.try(f)
		if err != nil {
			fmt.Fprintf(w, "| %s | the lab has failed: %v |\n", f.name, err)
			bad++
			continue
		}
		fmt.Fprintln(w, r.row(f))
		for _, what := range append(r.faults, r.notes...) {
			remarks = append(remarks, f.name+": "+what)
		}
		if len(r.faults) > 0 {
			bad++
		}
	}
	fmt.Fprintln(w)
	if leftOut != "" && leftOut != "no" {
		fmt.Fprintf(w, "Left out what needs a network of its own: %s\n", leftOut)
	}
	for _, remark := range remarks {
		fmt.Fprintln(w, "- "+remark)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d faults were noticed by clients, or left something behind", bad, len(chosen))
	}
	return nil
}

func (r *result) row(f fault) string {
	verdict := "ok"
	if len(r.faults) > 0 {
		verdict = "**no**"
	}
	left := "nothing"
	if r.leaked != "" {
		left = r.leaked
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d ms | %.2f | %.1f s | %.1f s | %s | %s |", f.name, r.requests, r.errors.n, r.wrong.n, r.old.n,
		r.slow.n, r.worst.Milliseconds(), r.refetched, r.recovered.Seconds(), r.late.Seconds(), left, verdict)
}

// canNetwork says why hosts can't have a network of their own here; "" if they
// can.
func canNetwork() string {
	n := new(network)
	defer n.close()
	h, err := n.addHost()
	if err != nil {
		return err.Error()
	}
	h.close()
	return ""
}

func machine() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "Linux"
	}
	text := func(b []byte) string { return unix.ByteSliceToString(b) }
	return text(name.Sysname[:]) + " " + text(name.Release[:]) + " " + text(name.Machine[:])
}
