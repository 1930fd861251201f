package caddygroupcache

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddyserver/caddy/v2"
)

func warmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "warm <file or sitemap URL> [--connect <host>[:<port>]] [--concurrency <n>] [--rate <n>] [--header <field>]... " +
			"[--insecure] [--json]",
		Short: "Fills the cache, by asking a node for a list of URLs",
		Long: `
Asks a node for each of a list of URLs, so that it has them when visitors come, and
tells what became of them. The list is a file with one URL a line, or a sitemap
or an index of sitemaps, as a file or as a URL; - is standard input.

All requests go to --connect, whatever the URLs' hosts are, and have these hosts
in Host and TLS. They are what a client would send: give --header for variants.`,
		Example: `  caddy groupcache warm https://www.example.com/sitemap.xml
  caddy groupcache warm urls.txt --concurrency 8 --rate 100 --header 'Accept-Language: de'`,
		Args: cobra.ExactArgs(1),
		RunE: caddycmd.WrapCommandFuncForCobra(cmdWarm),
	}
	cmd.Flags().String("connect", "127.0.0.1", "Where the node listens for clients; without a port, that of each URL")
	cmd.Flags().Int("concurrency", 4, "How many requests at the same time, 1 to 256")
	cmd.Flags().Float64("rate", 50, "How many requests a second at most; 0: as many as are answered")
	cmd.Flags().StringArrayP("header", "H", nil, "A field of each request, as in 'Accept-Language: de'")
	cmd.Flags().Bool("insecure", false, "Do not check the node's certificates")
	cmd.Flags().Bool("json", false, "Print the summary as JSON")
	return cmd
}

const (
	maxConcurrency = 256
	// What browsers accept today. Without it, they would all get other variants.
	browserEncodings = "gzip, deflate, br, zstd"
)

func cmdWarm(fl caddycmd.Flags) (int, error) {
	w, err := warmerOf(fl)
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	urls, err := w.listOf(ctx, fl.Arg(0))
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	progress, end := progressBar(os.Stderr, time.Now)
	s := w.run(ctx, urls, progress)
	end()
	if fl.Bool("json") {
		err = json.NewEncoder(os.Stdout).Encode(s)
	} else {
		err = printSummary(os.Stdout, s)
	}
	switch {
	case err != nil:
	case s.Failed > 0:
		err = fmt.Errorf("%d of %d requests failed", s.Failed, s.Asked)
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	default:
		return caddy.ExitCodeSuccess, nil
	}
	return caddy.ExitCodeFailedStartup, err
}

func warmerOf(fl caddycmd.Flags) (*warmer, error) {
	w, err := newWarmer(fl.String("connect"), fl.Bool("insecure"))
	if err != nil {
		return nil, err
	}
	if w.concurrency = fl.Int("concurrency"); w.concurrency < 1 || w.concurrency > maxConcurrency {
		return nil, fmt.Errorf("concurrency %d: 1 to %d", w.concurrency, maxConcurrency)
	}
	if w.rate = fl.Float64("rate"); w.rate < 0 {
		return nil, fmt.Errorf("rate %g is negative", w.rate)
	}
	fields, err := fl.GetStringArray("header")
	if err != nil {
		return nil, err
	}
	if w.header, err = parseFields(fields); err != nil {
		return nil, err
	}
	if len(w.header["Accept-Encoding"]) == 0 {
		w.header.Set("Accept-Encoding", browserEncodings)
	}
	if len(w.header["User-Agent"]) == 0 {
		w.header.Set("User-Agent", "caddy-groupcache-warm")
	}
	return w, nil
}

// listOf reads the list that an argument names.
func (w *warmer) listOf(ctx context.Context, name string) ([]string, error) {
	switch {
	case name == "-":
		return w.readURLs(ctx, os.Stdin)
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		return w.readSitemap(ctx, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	urls, err := w.readURLs(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return urls, nil
}

// progressBar returns what shows progress on a terminal, and what ends it.
// Where there is no terminal both do nothing.
func progressBar(out *os.File, now func() time.Time) (show func(WarmSummary), end func()) {
	if !term.IsTerminal(int(out.Fd())) {
		return func(WarmSummary) {}, func() {}
	}
	var last time.Time
	return func(s WarmSummary) {
		if t := now(); s.Asked == s.URLs || t.Sub(last) >= 100*time.Millisecond {
			last = t
			fmt.Fprint(out, "\r"+barOf(s)+"\x1b[K")
		}
	}, func() { fmt.Fprintln(out) }
}

const barWidth = 30

// barOf draws progress as one line.
func barOf(s WarmSummary) string {
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

func printSummary(out io.Writer, s WarmSummary) error {
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
