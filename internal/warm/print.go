package warm

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
)

// ProgressBar returns what shows progress on a terminal, and what ends it.
// Where there is no terminal both do nothing.
func ProgressBar(out *os.File, now func() time.Time) (show func(Summary), end func()) {
	if !term.IsTerminal(int(out.Fd())) {
		return func(Summary) {}, func() {}
	}
	var last time.Time
	return func(s Summary) {
		if t := now(); s.Asked == s.URLs || t.Sub(last) >= 100*time.Millisecond {
			last = t
			fmt.Fprint(out, "\r"+s.bar()+"\x1b[K")
		}
	}, func() { fmt.Fprintln(out) }
}

const barWidth = 30

// bar draws progress as one line.
func (s *Summary) bar() string {
	full := 0
	if s.URLs > 0 {
		full = barWidth * s.Asked / s.URLs
	}
	notStored := 0
	for _, n := range s.NotStored {
		notStored += n
	}
	return fmt.Sprintf("[%s%s] %d of %d: %d hits, %d stored, %d not stored, %d failed", strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		s.Asked, s.URLs, s.Hits, s.Stored+s.Collapsed+s.Revalidated, notStored, s.Failed)
}

// Print writes the summary as a command shows it.
func (s *Summary) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(n int, what string) {
		if n > 0 {
			fmt.Fprintf(w, "%d\t %s\n", n, what)
		}
	}
	fmt.Fprintf(w, "%d\t of %d URLs asked for\n", s.Asked, s.URLs)
	line(s.Hits, "were in the cache")
	line(s.Stored, "are stored now")
	line(s.Collapsed, "came with somebody else's fetch")
	line(s.Revalidated, "were confirmed by the upstream")
	reasons := slices.SortedFunc(maps.Keys(s.NotStored), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.NotStored[b], s.NotStored[a]), strings.Compare(a, b))
	})
	for _, why := range reasons {
		line(s.NotStored[why], "not stored: "+why)
	}
	line(s.NoCache, "had no Cache-Status: they passed no cache")
	line(s.Failed, "failed")
	for _, e := range s.Errors {
		fmt.Fprintf(w, "\t %s\n", e)
	}
	return w.Flush()
}
