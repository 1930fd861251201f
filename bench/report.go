package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A report is a page of Markdown with plots.
type report struct {
	text   strings.Builder
	plots  []plot
	others float64 // the part of the machine that other processes used
}

type plot struct{ name, title, svg string }

func (r *report) begin(b *bench) {
	r.printf("# Performance\n\n")
	command := append([]string{"go", "run", "./bench"}, os.Args[1:]...)
	r.printf("Made by `%s`; `go run ./bench -h` tells how to measure less, or more.\n\n", strings.Join(command, " "))
	r.printf("%s, %s, %d processors (%s), Linux %s, %s, Caddy %s.\n", time.Now().UTC().Format("2 January 2006"),
		runtime.GOARCH, runtime.NumCPU(), cpuModel(), firstLine("/proc/sys/kernel/osrelease"), runtime.Version(), version("github.com/caddyserver/caddy/v2"))
	r.printf("%d rounds of %g s for each case, which took turns, and %d for the throughput of %s, with HTTP/1.1.\n",
		b.rounds, b.seconds, b.rounds*closer, strings.Join(closely, "; "))
	r.printf("%d keep-alive connections, unless it says otherwise. Servers, upstream and load ", b.connections)
	r.printf("generator share the machine. CPU is the servers' processor time for one request (of all nodes that take part, not of upstream and generator).\n")
	r.printf("Numbers are medians; with ratios, quartiles are in parentheses. Each round of throughput is measured side by side with one of what it is compared\n")
	r.printf("with, and ratios are of these pairs: what a machine does within a minute varies by more than what is to be told apart.\n")
	r.printf("HTTP/2 is without TLS, unless it says otherwise.%s\n", othersMark)
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(&r.text, format, args...) }

// table adds a table; the first row is its head.
func (r *report) table(rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	line := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i == 0 {
				r.printf("| %s%s ", cell, pad)
			} else {
				r.printf("| %s%s ", pad, cell)
			}
		}
		r.printf("|\n")
	}
	r.printf("\n")
	line(rows[0])
	for i, w := range widths {
		if i == 0 {
			r.printf("|%s", strings.Repeat("-", w+2))
		} else {
			r.printf("|%s:", strings.Repeat("-", w+1))
		}
	}
	r.printf("|\n")
	for _, row := range rows[1:] {
		line(row)
	}
}

// plot adds a plot, which is seen only on a page.
func (r *report) plot(name, title, svg string) {
	r.plots = append(r.plots, plot{name, title, svg})
	r.printf("\n%s%s)\n", plotMark, name)
}

// othersMark stands where it says how much others disturbed, until that is known.
const othersMark = "@others@"

// plotMark stands where a plot goes, until it is known where the page lies.
const plotMark = "![plot]("

// write prints the report, or writes it to a page with its plots beside it.
func (r *report) write(page string) error {
	noise := fmt.Sprintf("\n\nMeanwhile other processes used %.0f %% of the machine; the less that is, the more the figures say.", 100*max(0, r.others))
	text := strings.Replace(r.text.String(), othersMark, noise, 1)
	if page == "" {
		for _, p := range r.plots {
			text = strings.ReplaceAll(text, "\n"+plotMark+p.name+")\n", "")
		}
		_, err := io.WriteString(os.Stdout, text)
		return err
	}
	dir := strings.TrimSuffix(page, ".md")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range r.plots {
		file := p.name + ".svg"
		text = strings.ReplaceAll(text, plotMark+p.name+")", fmt.Sprintf("![%s](%s/%s)", p.title, filepath.Base(dir), file))
		if err := os.WriteFile(filepath.Join(dir, file), []byte(p.svg), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(page, []byte(text), 0o644)
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // on some machines it names no model
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown model"
}

func firstLine(file string) string {
	b, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == module {
				return m.Version
			}
		}
	}
	return "of unknown version"
}

// median returns the middle of some numbers, and quartiles those around it.
func median[T cmp.Ordered](all []T) T { return quantile(all, 0.5) }

func quantile[T cmp.Ordered](all []T, q float64) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// withQuartiles formats a median with its quartiles.
func withQuartiles(all []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(all), quantile(all, 0.25), quantile(all, 0.75))
}

// thousands formats a number of requests a second.
func thousands(n float64) string {
	digits := fmt.Sprintf("%.0f", n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func micros(d time.Duration) string {
	us := float64(d) / float64(time.Microsecond)
	if us < 100 {
		return fmt.Sprintf("%.1f", us)
	}
	return thousands(us)
}
